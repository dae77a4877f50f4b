package linkservice

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// TestMain serves the API when it is started as a process of its own, to be killed.
func TestMain(m *testing.M) {
	if raw := os.Getenv("LINKSERVICE_TEST_SERVE"); raw != "" {
		var cfg Config
		err := json.Unmarshal([]byte(raw), &cfg)
		if err == nil {
			err = Serve(context.Background(), cfg)
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// TestKilledProcessGoesOn kills the service again and again under traffic; another goes on where the target ends.
func TestKilledProcessGoesOn(t *testing.T) {
	l := newLab(t, func(c *Config) { c.Timings.PendingMillis = 300 })
	l.topic(l.east, "orders", 2)
	l.createLink()
	l.mirror("orders")
	l.awaitStatus(link1, "orders", "ACTIVE")
	l.svc.Close()
	l.cfg.Addr = strings.TrimPrefix(l.svc.URL, "http://")
	raw, err := json.Marshal(l.cfg)
	l.ok(err)
	serve := func() func() {
		cmd := exec.CommandContext(context.Background(), os.Args[0])
		cmd.Env, cmd.Stderr = append(os.Environ(), "LINKSERVICE_TEST_SERVE="+string(raw)), os.Stderr
		l.ok(cmd.Start())
		l.until("process answers", func() bool {
			resp, _, err := l.raw("GET", link1, "")
			return err == nil && resp.StatusCode == 200
		})
		return func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
	}
	writer := l.client(l.east, "shop")
	const batches, each = 6, 100
	for i := range batches {
		kill := serve()
		for j := range each {
			writer.Produce(l.ctx(), &kgo.Record{Topic: "orders", Partition: int32(j % 2), Key: []byte("k"), Value: fmt.Appendf(nil, "%d-%d", i, j)}, nil)
		}
		l.until("copying has begun", func() bool { return l.end(l.west, "orders", 0) > int64(i*each/2) })
		kill()
		if !l.refusesWrites(l.west, "orders") {
			t.Fatal("the mirror takes writes while the service is away")
		}
	}
	l.ok(writer.Flush(l.ctx()))
	kill := serve()
	l.accepted(link1, "promote", "orders")
	kill() // in PENDING_STOPPED
	defer serve()()
	l.awaitStatus(link1, "orders", "STOPPED")
	for p := range int32(2) {
		if diff := cmp.Diff(l.read(l.east, "orders", p, batches*each/2), l.read(l.west, "orders", p, batches*each/2)); diff != "" {
			t.Errorf("partition %d differs (-source +mirror):\n%s", p, diff)
		}
		if a, b := l.end(l.east, "orders", p), l.end(l.west, "orders", p); a != b {
			t.Errorf("partition %d ends at %d and %d", p, a, b)
		}
	}
}

func TestTrimmedHeadKeepsOffsets(t *testing.T) {
	l := newLab(t, nil)
	l.topic(l.east, "orders", 1)
	l.write(l.east, "orders", 0, "a", "b", "c", "d")
	o := kadm.Offsets{}
	o.AddOffset("orders", 0, 2, -1)
	_, err := l.admin(l.east).DeleteRecords(l.ctx(), o)
	l.ok(err)
	l.createLink()
	l.mirror("orders")
	l.until("mirrored", func() bool { return l.end(l.west, "orders", 0) == 4 }) // what filled the head is gone by then
	if diff := cmp.Diff(l.read(l.east, "orders", 0, 2), l.read(l.west, "orders", 0, 2)); diff != "" {
		t.Errorf("differs (-source +mirror):\n%s", diff)
	}
}

// Markers, and records of transactions that were aborted, take their offsets in the mirror as in the source.
func TestTransactionsKeepTheirOffsets(t *testing.T) {
	l := newLab(t, nil)
	l.topic(l.east, "orders", 1)
	l.createLink()
	l.mirror("orders")
	cl := l.client(l.east, "lab", kgo.TransactionalID("tx"))
	for i, end := range []kgo.TransactionEndTry{kgo.TryCommit, kgo.TryAbort, kgo.TryCommit} {
		l.ok(cl.BeginTransaction())
		for range i + 1 {
			l.ok(cl.ProduceSync(l.ctx(), &kgo.Record{Topic: "orders", Value: fmt.Appendf(nil, "of transaction %d", i)}).FirstErr())
		}
		l.ok(cl.EndTransaction(l.ctx(), end))
	}
	got := l.read(l.west, "orders", 0, 4)
	if diff := cmp.Diff(l.read(l.east, "orders", 0, 4), got); diff != "" {
		t.Errorf("differs (-source +mirror):\n%s", diff)
	}
	if last := got[len(got)-1]; !strings.HasPrefix(last, "7:") { // 1 and its marker, 2 and their marker, then the last 3
		t.Errorf("the last record of the mirror is %s", last)
	}
}

func TestLostLoginFailsTheLink(t *testing.T) {
	l := newLab(t, nil)
	l.topic(l.east, "orders", 1)
	l.createLink()
	l.mirror("orders")
	l.awaitStatus(link1, "orders", "ACTIVE")
	l.call("PUT", link1+"/configs:alter", `{"data":[{"name":"sasl.mechanism","value":"SCRAM-SHA-512"},{"name":"sasl.jaas.config","value":"M required username=\"link\" password=\"stale\";"}]}`, 204)
	l.awaitStatus(link1, "orders", "LINK_FAILED")
	if got := l.call("GET", link1, "", 200); got["link_error"] != "AUTHENTICATION_ERROR" || strings.Contains(fmt.Sprint(got), "stale") {
		t.Errorf("link: %v", got)
	}
	l.call("DELETE", link1+"/configs/sasl.jaas.config", "", 204)
	l.awaitStatus(link1, "orders", "ACTIVE")
}

func TestFailoverClampsOffsets(t *testing.T) {
	l := newLab(t, nil)
	l.topic(l.east, "orders", 1)
	l.write(l.east, "orders", 0, "a", "b")
	l.createLink()
	l.mirror("orders")
	l.until("mirrored", func() bool { return l.end(l.west, "orders", 0) == 2 })
	l.commit(l.west, "billing", "orders", 9)
	l.accepted(link1, "failover", "orders")
	l.awaitStatus(link1, "orders", "STOPPED")
	if got := l.committed(l.west, "billing", "orders"); got != 2 {
		t.Errorf("offset after failover: %d, want 2", got)
	}
}
