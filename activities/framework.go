package activities

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"

	"switchback/internal/fault"
	"switchback/internal/killpoint"
)

// beatEvery is how often the framework beats for an activity; the shortest heartbeat time-out is one second.
const beatEvery = 300 * time.Millisecond

// Interceptor gives every activity what none should do by itself: a heartbeat, typed errors, and the seam at which
// tests kill the worker.
type Interceptor struct {
	interceptor.WorkerInterceptorBase
}

// InterceptActivity wraps each execution.
func (i *Interceptor) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &inbound{ActivityInboundInterceptorBase: interceptor.ActivityInboundInterceptorBase{Next: next}}
}

type inbound struct {
	interceptor.ActivityInboundInterceptorBase
}

type progressKey struct{}

// ExecuteActivity beats until the activity ends, with what it last said by say.
func (i *inbound) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	name := activity.GetInfo(ctx).ActivityType.Name
	killpoint.Reach(name + "/before")
	var progress atomic.Value
	ctx, cancel := context.WithCancel(context.WithValue(ctx, progressKey{}, &progress))
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(beatEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				activity.RecordHeartbeat(ctx, progress.Load())
			}
		}
	}()
	result, err := i.Next.ExecuteActivity(ctx, in)
	cancel()
	<-done
	killpoint.Reach(name + "/after")
	return result, toApplication(err)
}

// say puts a sentence into the next heartbeat: a hint for the eye, never progress of record.
func say(ctx context.Context, format string, args ...any) {
	if p, ok := ctx.Value(progressKey{}).(*atomic.Value); ok {
		p.Store(fmt.Sprintf(format, args...))
	}
}

// writing is the context for the writes of one attempt. It ends WriteDeadline after the attempt's start whatever else
// happens (P35a), and neither a cancellation nor the loss of Temporal interrupts it in the middle: those come only
// before and after an atomic write.
func writing(ctx context.Context) (context.Context, context.CancelFunc, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	deadline := started(ctx).Add(WriteDeadline)
	if !time.Now().Before(deadline) {
		return nil, nil, errWritesOver
	}
	wctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	return wctx, cancel, nil
}

type startedKey struct{}

// started is when this attempt's writes began to count: the worker's own clock, set once per attempt by begin.
func started(ctx context.Context) time.Time {
	if t, ok := ctx.Value(startedKey{}).(time.Time); ok {
		return t
	}
	return time.Now()
}

// begin starts the clock for the writes of an attempt and returns what its result must carry.
func begin(ctx context.Context) (context.Context, Acted) {
	info := activity.GetInfo(ctx)
	return context.WithValue(ctx, startedKey{}, time.Now()), Acted{Attempt: info.Attempt, Started: info.StartedTime}
}

func wrap(doing string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// seenWithin is how long after it was made a thing may not be found: caches of brokers and links follow within it.
const seenWithin = 5 * time.Second

// until repeats look until it is done, or fails at the deadline with what it was still waiting for. Errors of look are
// looked past until then, because the system may come back; not those that stay as they are, and not the end of the
// time for writes, which the next attempt has anew.
func until(ctx context.Context, deadline time.Time, every time.Duration, look func(context.Context) (done bool, waiting string, err error)) error {
	ctx, cancel := context.WithDeadline(ctx, deadline)
	defer cancel()
	waiting, trouble, since := "", "", time.Now()
	for {
		done, text, err := look(ctx)
		switch {
		case err == nil && done:
			return nil
		case err == nil:
			waiting, trouble = text, ""
		case errors.Is(err, errWritesOver):
			return err
		case final(err) && (!errors.Is(err, fault.ErrNotFound) || time.Since(since) > seenWithin):
			return err
		case waiting == "":
			waiting = err.Error()
		case time.Until(deadline) > every: // a look that the deadline cut short says nothing
			trouble = " (the last look failed: " + err.Error() + ")"
		}
		say(ctx, "waiting for %s%s", waiting, trouble)
		select {
		case <-time.After(every):
		case <-ctx.Done():
			if errors.Is(context.Cause(ctx), context.DeadlineExceeded) {
				return fmt.Errorf("still waiting for %s%s: %w", waiting, trouble, errTimeUp)
			}
			return ctx.Err()
		}
	}
}
