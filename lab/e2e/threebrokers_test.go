package e2e_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	sdk "go.temporal.io/sdk/client"

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
	var err error
	b.east, err = b.Brokers("east")
	require.NoError(t, err)
	t.Cleanup(b.east.Close)
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

// spare is a broker of a cluster that may fail, and its process.
func (b *threeBrokers) spare(of *story.Brokers) (id int32, process string) {
	b.t.Helper()
	b.does("find a broker that may fail", func(ctx context.Context) (err error) { id, err = of.Spare(ctx); return err })
	return id, of.Process(id)
}

// One of three real brokers stands still and is listed still, which nothing tells from one that lets clients write: it is not
// fenced, and named, within the fence's own ten seconds. The others are fenced at once. An abort that comes while the mirrors'
// failover waits for the clients to stop takes it all back.
func TestP06_ARealBrokerThatStandsStillIsNotFenced(t *testing.T) {
	b := onThreeBrokers(t, 12*time.Second)
	gone, process := b.spare(b.east)
	b.does("follow", func(ctx context.Context) error { return b.east.Follows(ctx, gone) })
	b.does("lead orders.02 alone", func(ctx context.Context) error { return b.east.Alone(ctx, gone, "orders.02") })
	b.flows("east")
	b.does("the groups' offsets are mirrored", func(ctx context.Context) error { return b.HandedOver(ctx, "east", "west") })

	require.NoError(t, b.points.Hold("StopReachable/middle"))
	require.NoError(t, b.points.Hold("RaiseReachable/middle"))
	run := b.unplanned("one-is-silent", time.Time{})
	b.approved(run)
	b.does("stop the clients", func(ctx context.Context) error { return b.points.Held(ctx, "StopReachable/middle") })
	goOn := b.holds("StopReachable/middle")
	var thaw func()
	b.during("RaiseReachable/middle", func(context.Context) error { thaw = b.stage.freeze(t, process); return nil })
	text := b.told(run, workflows.FenceSource)
	require.Contains(t, text, "east is not fenced as a whole")
	require.Contains(t, text, fmt.Sprintf("broker %d at ", gone))
	thaw()
	b.order(run, workflows.UpdateAbort)
	goOn()
	require.NoError(t, b.points.GoOn("StopReachable/middle"))
	b.ends(run, workflows.Aborted)
	require.Empty(t, b.denials("east"), "every DENY of the run is gone")
	b.flows("east")
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
