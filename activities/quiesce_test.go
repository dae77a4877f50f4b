package activities

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"switchback/internal/fault"
	"switchback/replication"
)

func (w *world) waitInput(until time.Time) WaitInput {
	return WaitInput{Guard: w.guard(), Route: w.route(), Deadline: until}
}

func (w *world) quiesce(until time.Time) (QuiesceResult, error) {
	return run[QuiesceResult](w, (*Logs)(nil).Quiesce, w.waitInput(until))
}

func (w *world) drain(until time.Time) (DrainResult, error) {
	return run[DrainResult](w, (*Logs)(nil).Drain, w.waitInput(until))
}

func TestQuiesceProvesOverTwoLooks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill("orders", 0, 3)
	out, err := w.quiesce(soon())
	require.NoError(t, err)
	require.Equal(t, []int{3, 2}, []int{out.Partitions, out.Looks})
	again, err := w.quiesce(soon())
	require.NoError(t, err)
	require.Equal(t, out.Text, again.Text)
	require.Empty(t, w.trace, "nothing is changed where nothing is open")
}

// slowFollower shows a batch that waits for a follower: the high watermark stands below the log end.
func slowFollower(site string) func(string, []replication.Ends) {
	return func(at string, ends []replication.Ends) {
		for i := range ends {
			if at == site && ends[i].Name() == "orders-1" {
				ends[i].LogEnd++
			}
		}
	}
}

func TestP07_AWaitingBatchIsNotQuiescent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ends = slowFollower("east")
	_, err := w.quiesce(late())
	require.Equal(t, TypeStillWriting, typeOf(err), "%v", err)
	require.ErrorContains(t, err, "orders-1")
	require.ErrorContains(t, err, "records wait for a follower")
}

func TestP07_PromoteLooksAgain(t *testing.T) {
	t.Parallel()
	w := calm(t)
	w.ends = slowFollower("east")
	_, err := w.promote(soon())
	require.Equal(t, TypePromoteRefused, typeOf(err), "%v", err)
	require.ErrorContains(t, err, "orders-1")
	require.Empty(t, w.trace)
}

// What is acknowledged behind the fence and behind the stop is named: no mirror will bring it.
func TestP07_PromoteLooksOnceMoreAfterwards(t *testing.T) {
	t.Parallel()
	w := calm(t)
	w.fill("orders", 0, 3)
	w.after["link.Stop"] = func(context.Context) error { w.write("east", "orders", 0, 2); return nil }
	out, err := w.promote(soon())
	require.NoError(t, err)
	require.Equal(t, []string{"2 records of orders-0 from offset 3"}, out.Stranded)
	require.Contains(t, out.Text, "stranded")
}

// A client that was cut off gets its acknowledgement once the slow follower has the batch: it is stranded now already.
func TestP23_ABatchThatWaitsForAFollowerIsStrandedToo(t *testing.T) {
	t.Parallel()
	w := calm(t)
	w.fill("orders", 1, 3)
	w.after["link.Stop"] = func(context.Context) error { w.ends = slowFollower("east"); return nil }
	out, err := w.promote(soon())
	require.NoError(t, err)
	require.Equal(t, []string{"1 records of orders-1 from offset 3"}, out.Stranded)
}

// An offset that cannot be read is no writer, and passes.
func TestP07_UnknownIsNotWriting(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.ends = func(_ string, ends []replication.Ends) {
		for i := range ends {
			ends[i].LogEnd = replication.Unknown
		}
	}
	_, err := w.quiesce(late())
	require.Equal(t, TypeNotReady, typeOf(err), "%v", err)
	require.NotContains(t, err.Error(), "goes on behind the fence")
}

// describeProducers lets the brokers remember an idempotent producer at work, and one of yesterday: the fake ones know
// transactions only.
func (w *world) describeProducers(id int64) {
	sequence := int32(0)
	w.east.ControlKey(int16(kmsg.DescribeProducers), func(req kmsg.Request) (kmsg.Response, error, bool) {
		w.east.KeepControl()
		resp := req.ResponseKind().(*kmsg.DescribeProducersResponse)
		for _, t := range req.(*kmsg.DescribeProducersRequest).Topics {
			rt := kmsg.NewDescribeProducersResponseTopic()
			rt.Topic = t.Topic
			for _, p := range t.Partitions {
				sequence++
				rp := kmsg.NewDescribeProducersResponseTopicPartition()
				rp.Partition = p
				for _, a := range []kmsg.DescribeProducersResponseTopicPartitionActiveProducer{{ProducerID: id, LastSequence: sequence}, {ProducerID: 1}} {
					a.LastTimestamp, a.CurrentTxnStartOffset = time.Now().UnixMilli(), -1
					if a.ProducerID == 1 {
						a.LastTimestamp = 1
					}
					rp.ActiveProducers = append(rp.ActiveProducers, a)
				}
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil, true
	})
}

// A producer that goes around everything and keeps writing is named as well as Kafka allows.
func TestAWriterBehindTheFenceIsNamed(t *testing.T) {
	t.Parallel()
	for name, opts := range map[string][]kgo.Opt{"producer id 4711": nil, "transactional id shadow-writer": {kgo.TransactionalID("shadow-writer")}} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			w.fill("orders", 1, 1)
			if opts == nil {
				w.describeProducers(4711)
			}
			cl := w.raw("east", admin, opts...)
			if opts != nil {
				require.NoError(t, cl.BeginTransaction())
			}
			stop, done := make(chan struct{}), make(chan struct{})
			go func() {
				defer close(done)
				for {
					select {
					case <-stop:
						return
					default:
					}
					_ = cl.ProduceSync(context.Background(), &kgo.Record{Topic: "orders", Partition: 1, Value: []byte("v")}).FirstErr()
				}
			}()
			w.before["east.EndTransactions"] = func(context.Context) error { return errDown } // it would end him
			_, err := w.quiesce(time.Now().Add(1800 * time.Millisecond))                      // inside of one attempt's time for writes
			close(stop)
			<-done
			require.Equal(t, TypeStillWriting, typeOf(err), "%v", err)
			require.ErrorContains(t, err, name)
			require.ErrorContains(t, err, "orders-1")
			require.NotContains(t, err.Error(), "producer id 1 ", "who is remembered, but does not write")
		})
	}
}

func TestP09_AnOpenTransactionOfAStoppedClientIsEnded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cl := w.raw("east", admin, kgo.TransactionalID("ship"))
	require.NoError(t, cl.BeginTransaction())
	require.NoError(t, cl.ProduceSync(context.Background(), &kgo.Record{Topic: "orders", Value: []byte("v")}).FirstErr())
	out, err := w.quiesce(soon())
	require.NoError(t, err)
	require.Equal(t, []string{"ship"}, out.EndedTransactions)
	require.Error(t, cl.EndTransaction(context.Background(), kgo.TryCommit), "a commit after the fence would have come through")
	ends, err := w.as("east", admin).Ends(context.Background(), []string{"orders"})
	require.NoError(t, err)
	require.Equal(t, ends[0].HighWatermark, ends[0].LastStable)
}

// The time for writes of an attempt may be over before a transaction turns up: it is ended all the same, while the run holds
// its epoch.
func TestP09_ALateTransactionIsEnded(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cl := w.raw("east", admin, kgo.TransactionalID("ship"))
	require.NoError(t, cl.BeginTransaction())
	require.NoError(t, cl.ProduceSync(context.Background(), &kgo.Record{Topic: "orders", Value: []byte("v")}).FirstErr())
	broken := time.Now().Add(WriteDeadline)
	w.before["east.EndTransactions"] = func(context.Context) error {
		if time.Now().Before(broken) {
			return errDown
		}
		return nil
	}
	out, err := attempts[QuiesceResult](w, (*Logs)(nil).Quiesce, w.waitInput(soon()))
	require.NoError(t, err)
	require.Equal(t, []string{"ship"}, out.EndedTransactions)
}

// A transaction that nobody may end is waited for as long as there is time, and named then.
func TestP09_ATransactionThatNobodyMayEndIsNamed(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	cl := w.raw("east", admin, kgo.TransactionalID("ship"))
	require.NoError(t, cl.BeginTransaction())
	require.NoError(t, cl.ProduceSync(context.Background(), &kgo.Record{Topic: "orders", Value: []byte("v")}).FirstErr())
	w.before["east.EndTransactions"] = func(context.Context) error { return fault.ErrDenied }
	_, err := attempts[QuiesceResult](w, (*Logs)(nil).Quiesce, w.waitInput(time.Now().Add(WriteDeadline+2*time.Second)))
	require.Equal(t, TypeStillWriting, typeOf(err))
	require.ErrorContains(t, err, "a transaction is open since offset 0")
	require.ErrorContains(t, err, "transactional id ship")
}

func TestDrainComparesBothClusters(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill("orders", 0, 2)
	w.write("east", "orders", 0, 3)
	_, err := w.drain(late())
	require.Equal(t, TypeNotReady, typeOf(err))
	require.ErrorContains(t, err, "orders-0: pending (3 records to go)")
	w.write("west", "orders", 0, 3)
	out, err := w.drain(soon())
	require.NoError(t, err)
	require.Equal(t, 3, out.Partitions)

	w.write("west", "orders", 0, 1) // never to be equal: no use in waiting while everybody stands still
	_, err = w.drain(time.Now().Add(time.Hour))
	require.Equal(t, TypeInvalid, typeOf(err))
	require.ErrorContains(t, err, "west can never equal east")
}

// A mirror that brings nothing any more is named by whoever waits for it.
func TestADrainThatAFailedMirrorHoldsUpSaysSo(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill("orders", 0, 2)
	w.write("east", "orders", 0, 3)
	w.link.set("orders", replication.MirrorFailed, "RUNNING, tasks 1 FAILED")
	_, err := w.drain(time.Now().Add(stallsAfter + 2*time.Second))
	require.Equal(t, TypeNotReady, typeOf(err))
	require.ErrorContains(t, err, "orders-0: pending (3 records to go); the mirrors of orders are failed: RUNNING, tasks 1 FAILED")
}

// A partition without data is no partition without lag.
func TestDrainWaitsForAPartitionWithoutData(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.before["x"] = nil
	calls := 0
	w.ends = func(site string, ends []replication.Ends) {
		if site == "east" {
			calls++
			for i := range ends {
				if calls < 4 && ends[i].Name() == "orders-1" {
					ends[i].HighWatermark = 5 // the source has records that the target does not show
				}
			}
		}
	}
	out, err := w.drain(soon())
	require.NoError(t, err)
	require.GreaterOrEqual(t, calls, 4)
	require.Equal(t, 3, out.Partitions)
}

// Adapters say "not ready" of what passes, such as an election: it is waited out, and never ends a step for good.
func TestAnElectionIsWaitedOut(t *testing.T) {
	t.Parallel()
	require.True(t, final(errTimeUp))
	require.False(t, final(fault.ErrNotReady))
	require.Equal(t, TypeNotReady, typeOf(toApplication(errTimeUp)))
	require.Equal(t, TypeUnreachable, typeOf(toApplication(fault.ErrNotReady)))
	n := 0
	err := until(context.Background(), soon(), time.Millisecond, func(context.Context) (bool, string, error) {
		if n++; n < 3 {
			return false, "", errors.Join(errors.New("leader"), fault.ErrNotReady)
		}
		return true, "", nil
	})
	require.NoError(t, err)
}

// A mirror that was just made may not be found for a moment.
func TestWhatWasJustMadeIsWaitedFor(t *testing.T) {
	t.Parallel()
	n := 0
	look := func(context.Context) (bool, string, error) {
		if n++; n < 3 {
			return false, "", fault.ErrNotFound
		}
		return true, "", nil
	}
	require.NoError(t, until(context.Background(), soon(), time.Millisecond, look))
	err := until(context.Background(), time.Now().Add(50*time.Millisecond), time.Millisecond,
		func(context.Context) (bool, string, error) { return false, "", fault.ErrNotFound })
	require.ErrorContains(t, err, "still waiting for not found")
	err = until(context.Background(), soon(), time.Millisecond, func(context.Context) (bool, string, error) { return false, "", fault.ErrStale })
	require.ErrorIs(t, err, fault.ErrStale, "what stays as it is ends the wait")
}

func TestCatchUpNamesWhoIsBehind(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill("orders", 0, 5)
	ctx := context.Background()
	in := WaitInput{Guard: w.guard(), Route: w.route(), Deadline: late()}
	require.NoError(t, w.as("east", admin).Commit(ctx, "billing", map[replication.Partition]int64{{Topic: "orders", Partition: 0}: 2}))
	out, err := run[CatchUpResult](w, (*Logs)(nil).CatchUp, in)
	require.NoError(t, err)
	require.Equal(t, []replication.Outcome{{Name: "billing", Status: replication.Pending, Reason: "3 records behind"}}, out.Behind)
	require.NoError(t, w.as("east", admin).Commit(ctx, "billing", map[replication.Partition]int64{{Topic: "orders", Partition: 0}: 5}))
	in.Deadline = soon()
	out, err = run[CatchUpResult](w, (*Logs)(nil).CatchUp, in)
	require.NoError(t, err)
	require.Empty(t, out.Behind)
}

// A group whose transaction is about to commit offsets has not caught up, whatever its old offsets say.
func TestP09_CatchUpWaitsForOffsetsThatAreAboutToChange(t *testing.T) {
	t.Parallel()
	w := read(t)
	asked := w.unstable("east", 1)
	out, err := run[CatchUpResult](w, (*Logs)(nil).CatchUp, WaitInput{Guard: w.guard(), Route: w.route(), Deadline: late()})
	require.NoError(t, err)
	require.Equal(t, []replication.Outcome{{Name: "billing", Status: replication.Pending, Reason: "1 records behind"}}, out.Behind)
	require.Greater(t, asked(), int64(1))
}
