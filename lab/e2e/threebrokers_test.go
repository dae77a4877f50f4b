package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	sdk "go.temporal.io/sdk/client"

	"switchback/lab/ledger"
	"switchback/lab/setup"
	"switchback/lab/story"
	"switchback/lab/tree"
	"switchback/runbooks"
	"switchback/workflows"
)

// threeBrokers is a lab on Apache Kafka with three brokers a cluster, and MirrorMaker 2 between them.
type threeBrokers struct {
	*play
	points story.Points
	east   *story.Brokers
	west   *story.Brokers
	// One of east that may fail, and its process.
	spare   int32
	process string
}

// onThreeBrokers starts one whose clusters give up a broker that is silent, or a follower that does not follow, after so long.
func onThreeBrokers(t *testing.T, silent time.Duration, changes ...func(*setup.Options)) *threeBrokers {
	t.Helper()
	b := &threeBrokers{points: story.Points(t.TempDir())}
	changes = append(changes, b.points.Obeyed, func(o *setup.Options) {
		o.Brokers = 3
		o.EditBroker = func(broker *tree.Spec) error {
			broker.Args = append(broker.Args, "--override", "initial.broker.registration.timeout.ms=240000") // three start at once, on few cores
			for _, key := range []string{"broker.session.timeout.ms", "replica.lag.time.max.ms"} {
				broker.Args = append(broker.Args, "--override", fmt.Sprintf("%s=%d", key, silent.Milliseconds()))
			}
			return nil
		}
	})
	// No objective and no budget cuts a step short in which something is made to happen.
	changes = append(changes, edited(func(r *runbooks.Runbook) {
		r.Objectives.RTO, r.Budgets.StopClients = runbooks.Duration(10*time.Minute), runbooks.Duration(5*time.Minute)
	}))
	b.play = onMirrors(t, changes...).play(t, "orders")
	for cluster, into := range map[string]**story.Brokers{"east": &b.east, "west": &b.west} {
		var err error
		*into, err = b.Brokers(cluster)
		require.NoError(t, err)
		t.Cleanup((*into).Close)
	}
	b.flows("east")
	return b
}

// does fails the test unless something succeeds. Eight java processes share the machine with everything else: they get more
// time than a lab of kfake.
func (b *threeBrokers) does(what string, do func(context.Context) error) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), 3*patience)
	defer cancel()
	require.NoError(b.t, do(ctx), what)
}

// during waits until the worker is held at a point, and lets something happen meanwhile. On a machine that is slow the attempt that
// is held may be given up meanwhile: the next one is held as well.
func (b *threeBrokers) during(point string, happen func(ctx context.Context) error) {
	b.t.Helper()
	b.does("reach "+point, func(ctx context.Context) error { return b.points.Held(ctx, point) })
	goOn := b.holds(point)
	b.does("let something happen at "+point, happen)
	goOn()
	require.NoError(b.t, b.points.GoOn(point))
}

// holds everybody else who reaches a point, until goOn.
func (b *threeBrokers) holds(point string) (goOn func()) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			_ = b.points.Hold(point)
			select {
			case <-tick.C:
			case <-stop:
				b.points.Forget(point)
				return
			}
		}
	}()
	return func() { close(stop); <-done }
}

// mayFail is a broker of east that may fail, and its process.
func (b *threeBrokers) mayFail() (id int32, process string) {
	b.t.Helper()
	b.does("find a broker that may fail", func(ctx context.Context) (err error) { id, err = b.east.Spare(ctx); return err })
	return id, b.east.Process(id)
}

// Three real brokers a cluster do all that brokers do. An election of every leader, and a follower that stalls with a record that
// waits for it, in the middle of the proof that nobody writes (P7). A coordinator of groups that restarts while offsets are handed
// over. A broker that is silent and listed still, then one that is dead and given up: either way it is not fenced, and named (P6).
func TestP06_P07_ThreeRealBrokers(t *testing.T) {
	b := onThreeBrokers(t, 30*time.Second)
	b.spare, b.process = b.mayFail()
	b.does("follow", func(ctx context.Context) error { return b.east.Follows(ctx, b.spare) })
	b.flows("east")
	b.stalls()
	b.isSilent()
	b.isDead()
}

// stalls is a planned run that is taken back when it has met all that can happen on the way.
func (b *threeBrokers) stalls() {
	writer, err := b.strays()
	require.NoError(b.t, err)
	require.NoError(b.t, b.points.Hold("HandOver/middle"))
	run := b.start("over-brokers-that-stall")

	// Every partition is led by another broker, at another epoch, while somebody whom no fence stops still writes.
	b.does("reach "+string(workflows.ProveQuiescence), func(ctx context.Context) error {
		return b.Reaches(ctx, run.GetID(), string(workflows.ProveQuiescence))
	})
	b.does("elect leaders", func(ctx context.Context) error { return b.east.Turn(ctx, b.Workload.TopicNames()...) })

	// What waits for a follower is in no high watermark, and will be acknowledged all the same.
	turned := writer.last.Load()
	b.does("write behind the new leaders", func(ctx context.Context) error {
		return story.Until(ctx, "records behind the new leader", func() (bool, error) { return writer.last.Load() > turned+20, nil })
	})
	thaw := b.stage.freeze(b.t, b.process)
	b.waits(run, func() string {
		end := writer.last.Load() + 1
		return fmt.Sprintf("1 records wait for a follower: log end %d, high watermark %d", end+1, end)
	})
	close(writer.stop)
	require.Empty(b.t, writer.done, "nobody has acknowledged it")
	thaw()
	require.NoError(b.t, <-writer.done)

	// The target's coordinator of groups is restarted.
	require.NoError(b.t, b.points.Hold("HandOver/written"))
	b.during("HandOver/middle", func(ctx context.Context) error {
		id, err := b.west.Leader(ctx, "__consumer_offsets")
		if err != nil {
			return err
		}
		process := b.west.Process(id)
		return errors.Join(b.Lab.Stop(ctx, process), b.Lab.StartAgain(ctx, process))
	})
	b.during("HandOver/written", func(context.Context) error { b.order(run, workflows.UpdateAbort); return nil })
	b.ends(run, workflows.Aborted)
	require.Empty(b.t, b.denials("east"), "every DENY of the run is gone")
	b.flows("east")
}

// isSilent is an unplanned run while a broker stands still that is listed still, which nothing tells from one that lets clients
// write: it is named within the fence's own ten seconds, and the others are fenced at once. An abort that comes while the
// mirrors' failover waits for the clients to stop takes it all back.
func (b *threeBrokers) isSilent() {
	b.does("lead orders.02 alone", func(ctx context.Context) error { return b.east.Alone(ctx, b.spare, "orders.02") })
	b.flows("east")
	b.does("the groups' offsets are mirrored", func(ctx context.Context) error { return b.HandedOver(ctx, "east", "west") })
	require.NoError(b.t, b.points.Hold("StopReachable/middle"))
	require.NoError(b.t, b.points.Hold("RaiseReachable/middle"))
	run := b.unplanned("one-is-silent", time.Time{})
	b.approved(run)
	b.does("stop the clients", func(ctx context.Context) error { return b.points.Held(ctx, "StopReachable/middle") })
	goOn := b.holds("StopReachable/middle")
	var thaw func()
	b.during("RaiseReachable/middle", func(context.Context) error { thaw = b.stage.freeze(b.t, b.process); return nil })
	text := b.told(run, workflows.FenceSource)
	require.Contains(b.t, text, "east is not fenced as a whole")
	require.Contains(b.t, text, fmt.Sprintf("broker %d at ", b.spare))
	thaw()
	b.order(run, workflows.UpdateAbort)
	goOn()
	require.NoError(b.t, b.points.GoOn("StopReachable/middle"))
	b.ends(run, workflows.Aborted)
	require.Empty(b.t, b.denials("east"), "every DENY of the run is gone")
	b.flows("east")
}

// isDead is an unplanned run without a broker that alone had the partitions of a topic. Whoever asks the cluster is told of two
// brokers, and that is not all of them. The third is fenced when it is back.
func (b *threeBrokers) isDead() {
	died := time.Now()
	require.NoError(b.t, b.Lab.Kill(b.process))
	b.does("give up the broker", func(ctx context.Context) error { return b.east.GivenUp(ctx, b.spare) })
	var plan workflows.UnplannedPlan
	b.stage.operator(b.t).json(0, &plan, "plan", "unplanned", "orders", "--to", "west")
	require.True(b.t, plan.GoesIfNow)
	require.Contains(b.t, strings.Join(plan.Assessment.From.Silent, "; "), fmt.Sprintf("broker %d, which is down", b.spare))
	require.ElementsMatch(b.t, []string{"orders.02-0", "orders.02-1"}, plan.Assessment.From.Leaderless)

	run := b.unplanned("one-is-dead", died)
	b.approved(run)
	out := b.ends(run, workflows.Completed)
	require.Contains(b.t, b.told(run, workflows.FenceSource), fmt.Sprintf("brokers [%d] are down", b.spare))
	require.Subset(b.t, b.denials("east"), b.fence()[:b.Workload.Topics], "what answers is fenced at once")
	r := b.report(out)
	require.True(b.t, r.Loss.Open)
	require.Contains(b.t, r.Standing[0], "east is not fenced")
	b.flows("west")
	b.does("FenceWhenReachable names it", func(ctx context.Context) error {
		return story.Until(ctx, "what it waits for", func() (bool, error) {
			f, _, err := b.Fencing(ctx, "east")
			return strings.Contains(f.Waiting, fmt.Sprintf("brokers [%d] of east", b.spare)), errors.Join(err, errors.New(f.Waiting))
		})
	})

	b.does("start the broker again", func(ctx context.Context) error { return b.Lab.StartAgain(ctx, b.process) })
	b.does("elect leaders of what it alone had", func(ctx context.Context) error { return b.east.Trust(ctx, "orders.02") })
	fenced := b.fenced("east")
	require.Zero(b.t, fenced.Written, fenced.Ended)
	b.t.Log(b.wellAfter("west", out))
}

// stray writes to orders.01-0 of east as somebody whom no fence stops, one record after the other, each acknowledged by all
// replicas.
type stray struct {
	last atomic.Int64 // offset that was acknowledged
	stop chan struct{}
	done chan error
}

func (b *threeBrokers) strays() (*stray, error) {
	client, err := b.Lab.Kafka("east", "lab", kgo.RequiredAcks(kgo.AllISRAcks()), kgo.ProducerLinger(0), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err != nil {
		return nil, err
	}
	b.t.Cleanup(client.Close)
	w := &stray{stop: make(chan struct{}), done: make(chan error, 1)}
	go func() {
		for seq := int64(1); ; seq++ {
			select {
			case <-w.stop:
				w.done <- nil
				return
			default:
			}
			r, err := client.ProduceSync(b.t.Context(), &kgo.Record{Topic: "orders.01", Key: []byte("stray"), Value: ledger.EncodeValue(seq, 40)}).First()
			if err != nil {
				w.done <- err
				return
			}
			w.last.Store(r.Offset)
		}
	}()
	return w, nil
}

// waits waits until an activity of a run says that it waits for something, which may change.
func (b *threeBrokers) waits(run sdk.WorkflowRun, words func() string) {
	b.t.Helper()
	b.does("hear what the run waits for", func(ctx context.Context) error {
		said, err := b.Waits(ctx, run.GetID(), func(said string) bool { return strings.Contains(said, words()) })
		b.t.Log(said)
		return err
	})
}

// told is what a run says of one of its steps.
func (b *threeBrokers) told(run sdk.WorkflowRun, name workflows.Step) (text string) {
	b.t.Helper()
	eventually(b.t, "run "+run.GetID()+" to tell of "+string(name), func() (bool, error) {
		status, err := b.Status(b.t.Context(), run.GetID())
		for _, step := range status.Steps {
			if step.Step == name && step.State == workflows.Done {
				text = step.Text
			}
		}
		return text != "", err
	})
	return text
}
