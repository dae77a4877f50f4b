package linkservice

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/lab/kafka"
)

func TestMirrorKeepsRecordsAndOffsets(t *testing.T) {
	for _, brokers := range []int{1, 3} {
		t.Run(fmt.Sprint(brokers, " brokers"), func(t *testing.T) { mirrorKeepsRecordsAndOffsets(t, newLabOf(t, brokers, nil)) })
	}
}

func mirrorKeepsRecordsAndOffsets(t *testing.T, l *lab) {
	t.Helper()
	l.topic(l.east, "orders", 3)
	for p := range int32(3) {
		l.write(l.east, "orders", p, "a", "b", "c")
	}
	l.createLink()
	l.mirror("orders")
	l.awaitStatus(link1, "orders", "ACTIVE")
	l.write(l.east, "orders", 1, "d", "e")
	for p, n := range []int{3, 5, 3} {
		want := l.read(l.east, "orders", int32(p), n)
		if diff := cmp.Diff(want, l.read(l.west, "orders", int32(p), n)); diff != "" {
			t.Errorf("partition %d differs (-source +mirror):\n%s", p, diff)
		}
	}
}

func (l *lab) refusesWrites(s *kafka.Server, topic string) bool {
	l.Helper()
	err := l.client(s, "shop").ProduceSync(l.ctx(), &kgo.Record{Topic: topic, Value: []byte("client")}).FirstErr()
	if err != nil && !errors.Is(err, kerr.InvalidRequest) {
		l.Fatal(err)
	}
	return err != nil
}

func TestPromoteMakesWritableAfterEverythingIsThere(t *testing.T) {
	l := newLab(t, nil)
	var topics []string
	for i := range 4 {
		topics = append(topics, fmt.Sprintf("t%d", i))
		l.topic(l.east, topics[i], 2)
	}
	l.createLink()
	for _, topic := range topics {
		l.mirror(topic)
		l.write(l.east, topic, 1, "x", "y")
		l.awaitStatus(link1, topic, "ACTIVE")
		if !l.refusesWrites(l.west, topic) {
			t.Fatalf("%s is a mirror and takes clients' writes", topic)
		}
	}
	l.accepted(link1, "promote", topics...)
	for _, topic := range topics {
		l.awaitStatus(link1, topic, "STOPPED")
		if end := l.end(l.west, topic, 1); end != 2 {
			t.Errorf("%s ends at %d, want 2", topic, end)
		}
		if l.refusesWrites(l.west, topic) {
			t.Errorf("%s is promoted and refuses writes", topic)
		}
	}
	l.write(l.east, "t0", 1, "late")
	l.write(l.west, "t0", 1, "new")
	if got := l.read(l.west, "t0", 1, 3); len(got) != 3 {
		t.Errorf("stopped mirror goes on: %v", got)
	}
	if codes := l.action(link1, "promote", topics[0]); codes[0] != float64(400) {
		t.Errorf("second promote: %v, want error_code 400", codes)
	}
}

func TestPromoteHangsWithoutSourceAndFailoverDoesNot(t *testing.T) {
	l := newLab(t, nil)
	l.topic(l.east, "orders", 1)
	l.createLink()
	l.mirror("orders")
	l.write(l.east, "orders", 0, "a")
	l.until("mirrored", func() bool { return l.end(l.west, "orders", 0) == 1 })
	l.east.Close()
	l.awaitStatus(link1, "orders", "SOURCE_UNAVAILABLE")
	if got := l.call("GET", link1, "", 200); got["link_state"] != "UNAVAILABLE" || got["link_error"] == "NO_ERROR" {
		t.Errorf("link with a dead source: %v %v", got["link_state"], got["link_error"])
	}
	l.accepted(link1, "promote", "orders")
	for range 20 {
		if s := l.status(link1, "orders"); s != "PENDING_STOPPED" {
			t.Fatalf("promote without a source is %s", s)
		}
	}
	l.accepted(link1, "failover", "orders")
	l.awaitStatus(link1, "orders", "STOPPED")
}

func TestMirrorGoesOnAfterCrashes(t *testing.T) {
	l := newLab(t, nil)
	l.topic(l.east, "orders", 1)
	l.createLink()
	l.mirror("orders")
	for i := range 3 {
		for j := range 20 {
			l.write(l.east, "orders", 0, fmt.Sprint(i, "-", j))
		}
		switch i {
		case 0:
			l.svc.Close()
			l.startService()
		case 1:
			l.west.Close()
			l.west = l.startKafka("west")
		}
		if !l.refusesWrites(l.west, "orders") {
			t.Fatal("a mirror takes clients' writes after a restart")
		}
	}
	if diff := cmp.Diff(l.read(l.east, "orders", 0, 60), l.read(l.west, "orders", 0, 60)); diff != "" {
		t.Errorf("differs (-source +mirror):\n%s", diff)
	}
	l.accepted(link1, "promote", "orders")
	l.awaitStatus(link1, "orders", "STOPPED")
	if end := l.end(l.west, "orders", 0); end != 60 {
		t.Errorf("ends at %d, want 60", end)
	}
}
