package linkservice

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"switchback/lab/kafka"
)

const linkBack = "/kafka/v3/clusters/lkc-east/links/east-west"

func (l *lab) bidirectional() {
	l.Helper()
	l.call("POST", "/kafka/v3/clusters/lkc-west/links?link_name=east-west", `{"remote_cluster_id":"lkc-east","configs":[`+configJSON("link.mode", "BIDIRECTIONAL")+`]}`, 204)
	l.call("POST", "/kafka/v3/clusters/lkc-east/links?link_name=east-west", `{"remote_cluster_id":"lkc-west","configs":[`+configJSON("link.mode", "BIDIRECTIONAL")+`]}`, 204)
}

func TestReverseSwapsTheDirection(t *testing.T) {
	for action, want := range map[string]string{"reverse-and-start-mirror": "ACTIVE", "reverse-and-pause-mirror": "PAUSED"} {
		t.Run(action, func(t *testing.T) {
			l := newLab(t, nil)
			l.topic(l.east, "orders", 1)
			l.bidirectional()
			l.mirror("orders")
			l.write(l.east, "orders", 0, "a", "b")
			l.awaitStatus(link1, "orders", "ACTIVE")
			l.accepted(link1, action+"?validate_only=true", "orders")
			l.accepted(link1, action, "orders")
			l.awaitStatus(link1, "orders", "STOPPED")
			l.awaitStatus(linkBack, "orders", want)
			if !l.refusesWrites(l.east, "orders") || l.refusesWrites(l.west, "orders") {
				t.Fatal("the old source must be read-only, the old mirror writable")
			}
			if want == "ACTIVE" {
				l.until("mirrored back", func() bool { return l.end(l.east, "orders", 0) == l.end(l.west, "orders", 0) })
			}
		})
	}
}

func TestTruncateAndRestore(t *testing.T) {
	l := newLab(t, nil)
	l.topic(l.east, "orders", 2)
	l.bidirectional()
	l.mirror("orders")
	l.write(l.east, "orders", 0, "a", "b", "c")
	l.write(l.east, "orders", 1, "z")
	l.until("mirrored", func() bool { return l.end(l.west, "orders", 0) == 3 && l.end(l.west, "orders", 1) == 1 })
	if code := l.action(linkBack, "truncate-and-restore", "orders")[0]; code == nil {
		t.Error("a topic whose mirror goes on was accepted for truncation")
	}
	l.commit(l.east, "billing", "orders", 5)
	l.awaitStatus(link1, "orders", "ACTIVE")
	l.accepted(link1, "pause", "orders")
	l.write(l.east, "orders", 0, "stranded-1", "stranded-2")
	l.accepted(link1, "failover", "orders")
	l.awaitStatus(link1, "orders", "STOPPED")
	l.write(l.west, "orders", 0, "new")

	preview := l.call("POST", linkBack+"/mirrors:truncate-and-restore?validate_only=true&include_partition_level_truncation_data=true", `{"mirror_topic_names":["orders"]}`, 200)["data"].([]any)[0].(map[string]any)
	if preview["messages_truncated"] != 2.0 || fmt.Sprint(preview["partition_level_truncation_data"]) != "[map[messages_truncated:2 offset_truncated_to:3 partition_id:0]]" {
		t.Errorf("preview: %v", preview)
	}
	if end := l.end(l.east, "orders", 0); end != 5 {
		t.Fatalf("a preview truncated the topic to %d", end)
	}
	l.accepted(linkBack, "truncate-and-restore", "orders")
	l.awaitStatus(linkBack, "orders", "ACTIVE")
	if diff := cmp.Diff(l.read(l.west, "orders", 0, 4), l.read(l.east, "orders", 0, 4)); diff != "" {
		t.Errorf("differs (-promoted +restored):\n%s", diff)
	}
	if !l.refusesWrites(l.east, "orders") {
		t.Error("the restored topic is a mirror and takes writes")
	}
	if got := l.committed(l.east, "billing", "orders"); got != 4 {
		t.Errorf("offset of a group after the restore: %d, want 4", got)
	}
}

// A topic leaves and comes back while another one of the same link flows on: where it goes on is looked at anew.
func TestRestoreBesideAMirrorThatFlows(t *testing.T) {
	l := newLab(t, nil)
	l.topic(l.east, "orders", 1)
	l.topic(l.east, "others", 1)
	l.bidirectional()
	l.mirror("orders")
	l.mirror("others")
	l.write(l.east, "orders", 0, "a", "b", "c")
	l.until("mirrored", func() bool { return l.end(l.west, "orders", 0) == 3 })
	for _, way := range []struct {
		from, to string
		cluster  *kafka.Server
	}{{link1, linkBack, l.west}, {linkBack, link1, l.east}} {
		l.awaitStatus(way.from, "orders", "ACTIVE")
		l.accepted(way.from, "failover", "orders")
		l.awaitStatus(way.from, "orders", "STOPPED")
		l.write(way.cluster, "orders", 0, "of "+way.from)
		l.accepted(way.to, "truncate-and-restore", "orders")
		l.awaitStatus(way.to, "orders", "ACTIVE")
		l.awaitStatus(link1, "others", "ACTIVE")
	}
	if diff := cmp.Diff(l.read(l.east, "orders", 0, 5), l.read(l.west, "orders", 0, 5)); diff != "" {
		t.Errorf("differs (-east +west):\n%s", diff)
	}
}
