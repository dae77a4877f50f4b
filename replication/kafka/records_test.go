package kafka

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"switchback/internal/fault"
	"switchback/replication"
)

func TestCanary(t *testing.T) {
	f := fake(t)
	c := as(t, f, admin)
	require.NoError(t, c.EnsureCanary(short(t), "switchback.canary"))
	require.NoError(t, c.EnsureCanary(short(t), "switchback.canary"))
	for want := range int64(3) {
		got, err := c.Canary(short(t), "switchback.canary")
		require.NoError(t, err)
		require.Equal(t, want, got.Offset)
		require.Positive(t, got.RoundTrip)
		require.False(t, got.Skewed, "the fake's clock does not stamp records, and nothing is claimed about it")
	}
	sent := time.Unix(100, 0)
	require.Equal(t, 4*time.Second, skew(sent, sent.Add(2*time.Second), sent.Add(5*time.Second)))
}

// A client whose producer id was refused is not kept: the canary works as soon as the grant is there.
func TestCanaryAfterAGrant(t *testing.T) {
	f := fake(t, kfake.SeedTopics(1, "switchback.canary"))
	c := as(t, f, tool)
	_, err := c.Canary(short(t), "switchback.canary")
	require.ErrorIs(t, err, fault.ErrDenied)
	allow(t, as(t, f, admin), tool, replication.ResourceTopic, "switchback.canary", "READ", "WRITE")
	_, err = c.Canary(short(t), "switchback.canary")
	require.NoError(t, err)
}

// An answer that is lost leaves the outcome open, and the next canary is not held up by it.
func TestLostProduceIsUnclear(t *testing.T) {
	f := fake(t, kfake.SeedTopics(1, "switchback.canary"))
	c := as(t, f, admin)
	var silent atomic.Bool
	silent.Store(true)
	onNode(f, kmsg.Produce, -1, func(kmsg.Request) (kmsg.Response, error, bool) { return nil, nil, silent.Load() })
	ctx, cancel := context.WithTimeout(context.Background(), 500*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err := c.Canary(ctx, "switchback.canary")
	require.ErrorIs(t, err, fault.ErrUnclear)
	require.Less(t, time.Since(begin), 3*time.Second)
	silent.Store(false)
	_, err = c.Canary(short(t), "switchback.canary")
	require.NoError(t, err)
}

func TestReadWaitsForAnOpenTransaction(t *testing.T) {
	f := fake(t, kfake.SeedTopics(1, "a"))
	c := as(t, f, admin)
	txn := raw(t, f, kgo.TransactionalID("payments"), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	require.NoError(t, txn.BeginTransaction())
	produce(t, txn, part("a", 0), 2)
	ctx, cancel := context.WithTimeout(context.Background(), 400*time.Millisecond)
	defer cancel()
	err := c.Read(ctx, part("a", 0), 0, 2, true, func(*kgo.Record) error { t.Error("read what is not committed"); return nil })
	require.Error(t, err)
	n := 0
	require.NoError(t, c.Read(short(t), part("a", 0), 0, 2, false, func(*kgo.Record) error { n++; return nil }))
	require.Equal(t, 2, n)
	require.NoError(t, txn.EndTransaction(short(t), kgo.TryAbort))
	require.NoError(t, c.Read(short(t), part("a", 0), 0, 3, true, func(*kgo.Record) error { t.Error("read what was aborted"); return nil }))
	require.ErrorIs(t, c.Read(short(t), part("a", 0), 99, 100, false, nil), fault.ErrConflict)
}

func TestP20_Store(t *testing.T) {
	f := fake(t)
	s := as(t, f, admin).Records("switchback.marks")
	_, err := s.Load(short(t), "")
	require.ErrorIs(t, err, fault.ErrNotFound)
	require.Contains(t, fault.HintOf(err), "protected")
	require.NoError(t, s.Ensure(short(t)))
	require.NoError(t, s.Ensure(short(t)))
	empty, err := s.Load(short(t), "")
	require.NoError(t, err)
	require.Empty(t, empty)

	require.NoError(t, s.Put(short(t), map[string][]byte{"marks/1": []byte("a"), "marks/2": []byte("b"), "acls/1": []byte("c"), "marks/3": {}}))
	require.NoError(t, s.Put(short(t), map[string][]byte{"marks/1": []byte("A")}))
	require.NoError(t, s.Delete(short(t), "marks/2", "never"))
	for range 2 {
		got, err := s.Load(short(t), "marks/")
		require.NoError(t, err)
		require.Len(t, got, 2)
		require.Equal(t, "A", string(got["marks/1"]))
		require.Contains(t, got, "marks/3", "an empty value is a value")
		f.Compact()
	}
}

// Compaction and an emptied head leave offsets without records, also at the very end: Load ends all the same.
func TestP20_LoadEndsBehindHoles(t *testing.T) {
	f := fake(t)
	c := as(t, f, admin)
	s := c.Records("switchback.marks")
	require.NoError(t, s.Ensure(short(t)))
	require.NoError(t, s.Put(short(t), map[string][]byte{"k": []byte("v")}))
	txn := raw(t, f, kgo.TransactionalID("t"))
	require.NoError(t, txn.BeginTransaction())
	require.NoError(t, txn.ProduceSync(short(t), &kgo.Record{Topic: "switchback.marks", Key: []byte("k2"), Value: []byte("v")}).FirstErr())
	require.NoError(t, txn.EndTransaction(short(t), kgo.TryCommit))
	got, err := s.Load(short(t), "")
	require.NoError(t, err)
	require.Len(t, got, 2, "the last offset is a marker")

	// A cleaned segment may leave nothing at all before the end: the broker answers without a batch.
	onNode(f, kmsg.Fetch, -1, func(kreq kmsg.Request) (kmsg.Response, error, bool) {
		req := kreq.(*kmsg.FetchRequest)
		if req.Topics[0].Partitions[0].FetchOffset < 2 {
			return nil, nil, false
		}
		resp := req.ResponseKind().(*kmsg.FetchResponse)
		rt := kmsg.NewFetchResponseTopic()
		rt.Topic = req.Topics[0].Topic
		rp := kmsg.NewFetchResponseTopicPartition()
		rp.HighWatermark, rp.LastStableOffset = 3, 3
		rt.Partitions = append(rt.Partitions, rp)
		resp.Topics = append(resp.Topics, rt)
		return resp, nil, true
	})
	got, err = s.Load(short(t), "")
	require.NoError(t, err)
	require.Len(t, got, 2)
}

// Complete or an error, never a part.
func TestP20_LoadIsCompleteOrAnError(t *testing.T) {
	f := fake(t)
	s := as(t, f, admin).Records("switchback.positions")
	require.NoError(t, s.Ensure(short(t)))
	big, random := map[string][]byte{}, rand.NewChaCha8([32]byte{})
	for i := range 40 { // more than one answer holds
		value := make([]byte, MaxValue)
		_, _ = random.Read(value) // it must not compress
		big[fmt.Sprintf("p/%02d", i)] = value
	}
	require.NoError(t, s.Put(short(t), big))
	got, err := s.Load(short(t), "p/")
	require.NoError(t, err)
	require.Equal(t, big, got)

	h := f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "switchback.positions", Err: kerr.TopicAuthorizationFailed, Count: -1,
		When: func(r kmsg.Request) bool { return r.(*kmsg.FetchRequest).Topics[0].Partitions[0].FetchOffset > 0 }})
	s = as(t, f, admin).Records("switchback.positions") // one that remembers nothing
	got, err = s.Load(short(t), "p/")
	require.ErrorIs(t, err, fault.ErrDenied)
	require.Nil(t, got)
	h.Remove()
	f.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Fetch}, Topic: "switchback.positions", Err: kerr.NotLeaderForPartition, Count: 2})
	got, err = s.Load(short(t), "p/")
	require.NoError(t, err, "a leader that moves is followed")
	require.Len(t, got, 40)
}

func TestP20_StoreRefuses(t *testing.T) {
	f := fake(t, kfake.SeedTopics(1, "plain"))
	c := as(t, f, admin)
	require.ErrorIs(t, c.Records("plain").Ensure(short(t)), fault.ErrInvalid)
	s := c.Records("switchback.marks")
	require.NoError(t, s.Ensure(short(t)))
	for _, bad := range []map[string][]byte{{"": []byte("v")}, {"k": nil}, {"k": make([]byte, MaxValue+1)}} {
		require.ErrorIs(t, s.Put(short(t), bad), fault.ErrInvalid)
	}
	require.ErrorIs(t, as(t, f, tool).Records("switchback.marks").Put(short(t), map[string][]byte{"k": []byte("v")}), fault.ErrDenied)
}

func TestP20_WhatWasReadIsNotReadAgain(t *testing.T) {
	f := fake(t)
	mine, other := as(t, f, admin).Records("switchback.marks"), as(t, f, admin).Records("switchback.marks")
	require.NoError(t, mine.Ensure(short(t)))
	require.NoError(t, mine.Put(short(t), map[string][]byte{"scope/1": []byte("a"), "marks/1": []byte("m")}))
	got, err := mine.Load(short(t), "scope/")
	require.NoError(t, err)
	require.Equal(t, map[string][]byte{"scope/1": []byte("a")}, got)

	var fetched atomic.Int32
	onNode(f, kmsg.Fetch, -1, func(kmsg.Request) (kmsg.Response, error, bool) { fetched.Add(1); return nil, nil, false })
	_, err = mine.Load(short(t), "scope/")
	require.NoError(t, err)
	require.Zero(t, fetched.Load(), "nothing was written since")

	// What somebody else writes, and forgets, is seen all the same; marks are never remembered.
	require.NoError(t, other.Put(short(t), map[string][]byte{"scope/2": []byte("b")}))
	require.NoError(t, other.Delete(short(t), "scope/1"))
	got, err = mine.Load(short(t), "scope/")
	require.NoError(t, err)
	require.Equal(t, map[string][]byte{"scope/2": []byte("b")}, got)
	all, err := mine.Load(short(t), "")
	require.NoError(t, err)
	require.Equal(t, map[string][]byte{"scope/2": []byte("b"), "marks/1": []byte("m")}, all)
}

// A cluster that lost its disks has another topic under the name, which may have grown beyond what was read of the old one.
func TestP20_ATopicMadeAnewIsReadAnew(t *testing.T) {
	f := fake(t)
	c := as(t, f, admin)
	s := c.Records("switchback.marks")
	require.NoError(t, s.Ensure(short(t)))
	require.NoError(t, s.Put(short(t), map[string][]byte{"old": []byte("1")}))
	before, err := s.Load(short(t), "")
	require.NoError(t, err)
	require.Len(t, before, 1)
	_, err = kadm.NewClient(c.client).DeleteTopic(short(t), "switchback.marks")
	require.NoError(t, err)
	require.NoError(t, s.Ensure(short(t)))
	for _, key := range []string{"a", "b", "c"} {
		require.NoError(t, s.Put(short(t), map[string][]byte{key: []byte("2")}), "by its name, whatever its id was")
	}
	after, err := s.Load(short(t), "")
	require.NoError(t, err)
	require.Equal(t, []string{"a", "b", "c"}, slices.Sorted(maps.Keys(after)))
}
