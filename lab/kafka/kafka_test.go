package kafka

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// TestMain serves a cluster when it is started as a process of its own, to be killed.
func TestMain(m *testing.M) {
	if raw := os.Getenv("KAFKA_TEST_SERVE"); raw != "" {
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

func config(t *testing.T) Config {
	return Config{
		Name: "east", Dir: t.TempDir(), ClusterID: "lkc-east", Control: "127.0.0.1:0",
		Superuser: User{Name: "lab", Password: "lab-secret"},
		Users: []User{
			{Name: "shop", Password: "shop-secret", ACLs: []ACL{{Resource: "topic", Name: "*", Operation: "write"}}},
			{Name: "nobody", Password: "nobody-secret"},
		},
	}
}

func start(t *testing.T, cfg Config) *Server {
	t.Helper()
	s, err := Start(context.Background(), cfg)
	ok(t, err)
	t.Cleanup(s.Close)
	return s
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func bounded(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func client(t *testing.T, bootstrap []string, user string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(bootstrap...), kgo.RetryTimeout(3 * time.Second), kgo.RecordDeliveryTimeout(3 * time.Second),
		kgo.SASL(scram.Auth{User: user, Pass: user + "-secret"}.AsSha512Mechanism())}, opts...)...)
	ok(t, err)
	t.Cleanup(cl.Close)
	return cl
}

func write(t *testing.T, bootstrap []string, user, topic string) error {
	t.Helper()
	return client(t, bootstrap, user).ProduceSync(bounded(t), &kgo.Record{Topic: topic, Value: []byte("x")}).FirstErr()
}

func put(t *testing.T, s *Server, method, path string, body any, want int) {
	t.Helper()
	b, err := json.Marshal(body)
	ok(t, err)
	req, err := http.NewRequestWithContext(bounded(t), method, s.ControlURL+path, bytes.NewReader(b))
	ok(t, err)
	resp, err := http.DefaultClient.Do(req)
	ok(t, err)
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != want {
		t.Fatalf("%s %s: %d %s", method, path, resp.StatusCode, text)
	}
}

func mirrorWrite(t *testing.T, s *Server, topics ...string) []error {
	t.Helper()
	batch := kmsg.RecordBatch{Magic: 2, PartitionLeaderEpoch: -1, ProducerID: -1, ProducerEpoch: -1, FirstSequence: -1}
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis, req.Version = -1, int32(MirrorTimeout.Milliseconds()), 9
	for _, topic := range topics {
		rt, rp := kmsg.NewProduceRequestTopic(), kmsg.NewProduceRequestTopicPartition()
		rt.Topic, rp.Records = topic, batch.AppendTo(nil)
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
	}
	resp := s.readOnly.refuseStray(req)
	if resp == nil {
		return nil
	}
	var out []error
	for _, rt := range resp.(*kmsg.ProduceResponse).Topics {
		out = append(out, kerr.ErrorForCode(rt.Partitions[0].ErrorCode))
	}
	return out
}

func TestUsersAreBoundByACLs(t *testing.T) {
	s := start(t, config(t))
	_, err := kadm.NewClient(client(t, s.Bootstrap, "lab")).CreateTopic(bounded(t), 1, 1, nil, "orders")
	ok(t, err)
	ok(t, write(t, s.Bootstrap, "shop", "orders"))
	if err := write(t, s.Bootstrap, "nobody", "orders"); !errors.Is(err, kerr.TopicAuthorizationFailed) {
		t.Errorf("user without ACLs: %v", err)
	}
	if err := client(t, s.Bootstrap, "stranger").Ping(bounded(t)); err == nil {
		t.Error("an unknown user is let in")
	}
}

func TestReadOnlyTopicsRefuseClientsAndTakeTheMirror(t *testing.T) {
	cfg := config(t)
	s := start(t, cfg)
	_, err := kadm.NewClient(client(t, s.Bootstrap, "lab")).CreateTopics(bounded(t), 1, 1, nil, "orders", "free")
	ok(t, err)
	put(t, s, "PUT", "/readonly", Topics{[]string{"orders"}}, 200)
	check := func(s *Server) {
		t.Helper()
		for _, user := range []string{"shop", "lab"} {
			if err := write(t, s.Bootstrap, user, "orders"); !errors.Is(err, kerr.InvalidRequest) {
				t.Errorf("%s writes to a mirror: %v", user, err)
			}
		}
		ok(t, write(t, s.Bootstrap, "shop", "free"))
		if errs := mirrorWrite(t, s, "orders"); errs != nil {
			t.Errorf("the mirror's write is refused: %v", errs)
		}
		if errs := mirrorWrite(t, s, "orders", "free"); len(errs) != 2 || errs[0] == nil || errs[1] == nil {
			t.Errorf("the mirror's write to a normal topic: %v", errs)
		}
	}
	check(s)
	s.Close()
	s = start(t, cfg)
	check(s)
	put(t, s, "PUT", "/readonly", Topics{}, 200)
	ok(t, write(t, s.Bootstrap, "shop", "orders"))
}

// TestSurvivesKill kills the process and starts another on the same ports and folder.
func TestSurvivesKill(t *testing.T) {
	cfg := config(t)
	probe := start(t, cfg) // finds free ports
	cfg.Control = strings.TrimPrefix(probe.ControlURL, "http://")
	var port int
	_, err := fmt.Sscanf(probe.Bootstrap[0], "127.0.0.1:%d", &port)
	ok(t, err)
	probe.Close()
	cfg.Ports, cfg.Dir = []int{port}, t.TempDir()
	raw, err := json.Marshal(cfg)
	ok(t, err)
	serve := func() *exec.Cmd {
		cmd := exec.CommandContext(context.Background(), os.Args[0])
		cmd.Env, cmd.Stderr = append(os.Environ(), "KAFKA_TEST_SERVE="+string(raw)), os.Stderr
		ok(t, cmd.Start())
		return cmd
	}
	kill := func(cmd *exec.Cmd) {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	first := serve()
	defer kill(first)
	admin := kadm.NewClient(client(t, probe.Bootstrap, "lab", kgo.RetryTimeout(10*time.Second)))
	until(t, "first process answers", func() bool { _, err := admin.ListBrokers(bounded(t)); return err == nil })
	_, err = admin.CreateTopics(bounded(t), 1, 1, nil, "orders", "mirror")
	ok(t, err)
	ok(t, write(t, probe.Bootstrap, "shop", "orders"))
	put(t, probe, "PUT", "/readonly", Topics{[]string{"mirror"}}, 200)
	_, err = admin.DeleteACLs(bounded(t), kadm.NewACLs().AnyResource().Allow("User:shop").AllowHosts().Operations(kadm.OpWrite).ResourcePatternType(kadm.ACLPatternAny))
	ok(t, err)
	_, err = admin.CreateACLs(bounded(t), kadm.NewACLs().Topics("mirror").Allow("User:nobody").AllowHosts("*").Operations(kadm.OpWrite).ResourcePatternType(kadm.ACLPatternLiteral))
	ok(t, err)
	kill(first)
	second := serve()
	defer kill(second)
	until(t, "second process answers", func() bool { _, err := admin.ListBrokers(kadm.WithAuthorizedOps(bounded(t))); return err == nil })
	ends, err := admin.ListEndOffsets(bounded(t), "orders")
	ok(t, err)
	if o, _ := ends.Lookup("orders", 0); o.Offset != 1 {
		t.Errorf("records after the kill: %d, want 1", o.Offset)
	}
	if err := write(t, probe.Bootstrap, "nobody", "mirror"); !errors.Is(err, kerr.InvalidRequest) {
		t.Errorf("write to a mirror after the kill: %v", err)
	}
	if err := write(t, probe.Bootstrap, "shop", "orders"); !errors.Is(err, kerr.TopicAuthorizationFailed) {
		t.Errorf("an ACL that was deleted is back after the kill: %v", err)
	}
}

func until(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline, tick := time.After(15*time.Second), time.NewTicker(5*time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-deadline:
			t.Fatalf("not within 15 s: %s", what)
		case <-tick.C:
		}
	}
}

func TestFaults(t *testing.T) {
	s := start(t, config(t))
	admin := kadm.NewClient(client(t, s.Bootstrap, "lab"))
	_, err := admin.CreateTopic(bounded(t), 1, 1, nil, "orders")
	ok(t, err)
	end := func() int64 {
		t.Helper()
		ends, err := admin.ListEndOffsets(bounded(t), "orders")
		ok(t, err)
		o, _ := ends.Lookup("orders", 0)
		return o.Offset
	}
	put(t, s, "POST", "/faults", Fault{ID: "x", Kind: "nonsense", Key: "Produce"}, 400)
	put(t, s, "POST", "/faults", Fault{ID: "x", Kind: "error", Key: "Produce", Error: "TOPIC_AUTHORIZATION_FAILED"}, 200)
	if err := write(t, s.Bootstrap, "shop", "orders"); !errors.Is(err, kerr.TopicAuthorizationFailed) {
		t.Errorf("error fault: %v", err)
	}
	put(t, s, "DELETE", "/faults/x", nil, 204)
	for _, kind := range []string{"close", "drop"} {
		ok(t, s.AddFault(Fault{ID: kind, Kind: kind, Key: "CreateTopics"}))
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		if _, err := admin.CreateTopic(ctx, 1, 1, nil, "never"); err == nil {
			t.Errorf("%s: answered", kind)
		}
		cancel()
		s.RemoveFault(kind)
	}
	topics, err := admin.ListTopics(kadm.WithAuthorizedOps(bounded(t)))
	ok(t, err)
	if topics.Has("never") {
		t.Error("a dropped request was done")
	}
	ok(t, s.AddFault(Fault{ID: "slow", Kind: "delay", Key: "ListOffsets", Delay: 50 * time.Millisecond, Times: 1}))
	if before := time.Now(); end() != 0 || time.Since(before) < 50*time.Millisecond {
		t.Error("not delayed")
	}
	if n := s.Faults()[0].Hits; n != 1 {
		t.Errorf("%d hits, want 1", n)
	}
}

// TestFaultOfOneBroker: the other brokers of the cluster go on.
func TestFaultOfOneBroker(t *testing.T) {
	cfg := config(t)
	cfg.Ports = []int{0, 0}
	s := start(t, cfg)
	if len(s.Bootstrap) != 2 {
		t.Fatal(s.Bootstrap)
	}
	cl := client(t, s.Bootstrap, "lab")
	ok(t, cl.Ping(bounded(t)))
	node := int32(1)
	ok(t, s.AddFault(Fault{ID: "one", Kind: "close", Key: "DescribeACLs", Node: &node}))
	for broker, answers := range map[int]bool{0: true, 1: false} {
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		req := kmsg.NewPtrDescribeACLsRequest()
		req.ResourceType, req.ResourcePatternType, req.Operation, req.PermissionType = 1, 1, 1, 1
		if _, err := cl.Broker(broker).Request(ctx, req); (err == nil) != answers {
			t.Errorf("broker %d: %v", broker, err)
		}
		cancel()
	}
}

// TestStalledFollower: what was appended is seen by OffsetForLeaderEpoch alone, and reported when the follower is back.
func TestStalledFollower(t *testing.T) {
	s := start(t, config(t))
	cl := client(t, s.Bootstrap, "lab")
	admin := kadm.NewClient(cl)
	_, err := admin.CreateTopic(bounded(t), 1, 1, nil, "orders")
	ok(t, err)
	ok(t, write(t, s.Bootstrap, "shop", "orders"))
	high := func() int64 {
		t.Helper()
		ends, err := admin.ListEndOffsets(bounded(t), "orders")
		ok(t, err)
		o, _ := ends.Lookup("orders", 0)
		return o.Offset
	}
	logEnd := func() int64 {
		t.Helper()
		req := kmsg.NewPtrOffsetForLeaderEpochRequest()
		rt, rp := kmsg.NewOffsetForLeaderEpochRequestTopic(), kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
		rt.Topic, rp.CurrentLeaderEpoch, rp.LeaderEpoch = "orders", -1, 0
		info := s.cluster.PartitionInfo("orders", 0)
		rp.LeaderEpoch = info.Epoch
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics, req.ReplicaID = append(req.Topics, rt), -1
		resp, err := req.RequestWith(bounded(t), cl)
		ok(t, err)
		return resp.Topics[0].Partitions[0].EndOffset
	}
	ok(t, s.AddFault(Fault{ID: "stall", Kind: "stall", Topic: "orders"}))
	acked := make(chan error, 1)
	client(t, s.Bootstrap, "shop", kgo.RecordDeliveryTimeout(10*time.Second), kgo.RetryTimeout(10*time.Second)).Produce(bounded(t),
		&kgo.Record{Topic: "orders", Value: []byte("pending")}, func(_ *kgo.Record, err error) { acked <- err })
	until(t, "appended", func() bool { return logEnd() == 2 })
	if h := high(); h != 1 {
		t.Errorf("high watermark %d, want 1", h)
	}
	select {
	case err := <-acked:
		t.Fatalf("acknowledged while the follower was away: %v", err)
	default:
	}
	s.RemoveFault("stall")
	ok(t, <-acked)
	if h, e := high(), logEnd(); h != 2 || e != 2 {
		t.Errorf("high watermark %d, log end %d, want 2 and 2", h, e)
	}
}
