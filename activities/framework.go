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

// Beats of an activity: a quarter of its heartbeat time-out apart, so that on a busy machine one or two may be late. A worker
// has to send each of them (MaxHeartbeatThrottleInterval): the SDK by itself keeps them back for eight tenths of the time-out.
const (
	beatsPerTimeout = 4
	// BeatLeast is the shortest time between two beats.
	BeatLeast = 250 * time.Millisecond // the shortest heartbeat time-out is one second
)

func beatEvery(timeout time.Duration) time.Duration { return max(timeout/beatsPerTimeout, BeatLeast) }

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

// ExecuteActivity beats until the activity ends, with what it last said by say and with which attempt it is. One that
// fails beats once more: Temporal keeps that for the next attempt, which could not tell it from one that was lost.
func (i *inbound) ExecuteActivity(ctx context.Context, in *interceptor.ExecuteActivityInput) (any, error) {
	info := activity.GetInfo(ctx)
	name := info.ActivityType.Name
	killpoint.Reach(name + "/before")
	var progress atomic.Value
	outer := ctx
	ctx, cancel := context.WithCancel(context.WithValue(ctx, progressKey{}, &progress))
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(beatEvery(info.HeartbeatTimeout))
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
				beat(ctx, &progress)
			}
		}
	}()
	result, err := i.Next.ExecuteActivity(ctx, in)
	cancel()
	<-done
	if err != nil {
		beat(outer, &progress)
	}
	killpoint.Reach(name + "/after")
	return result, toApplication(err)
}

// attempt is what an attempt leaves to the next one in its heartbeats.
type attempt struct {
	Number  int32     `json:"attempt"`
	Started time.Time `json:"started"` // by Temporal's clock
}

func beat(ctx context.Context, progress *atomic.Value) {
	info := activity.GetInfo(ctx)
	activity.RecordHeartbeat(ctx, progress.Load(), attempt{info.Attempt, info.StartedTime})
}

// lateUntil is when the writes of the attempts before this one have ended, WriteDeadline after the last of them was handed
// out. If that one has not left a word it did not fail, so it was lost: Temporal has waited a whole heartbeat time-out for
// it since it was handed out, and then for the first pause before a retry at least.
func lateUntil(ctx context.Context, info activity.Info) time.Time {
	if info.Attempt <= 1 {
		return time.Time{}
	}
	var said any
	var before attempt
	if err := activity.GetHeartbeatDetails(ctx, &said, &before); err == nil && before.Number == info.Attempt-1 {
		return before.Started.Add(WriteDeadline)
	}
	waited := info.HeartbeatTimeout
	if info.RetryPolicy != nil {
		waited += info.RetryPolicy.InitialInterval
	}
	return info.StartedTime.Add(WriteDeadline - waited)
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
	c := clockOf(ctx)
	deadline := c.started.Add(WriteDeadline)
	if !time.Now().Before(deadline) {
		if c.behind > skewMost {
			return nil, nil, fmt.Errorf("by this worker's clock the attempt began %s after Temporal had handed it out: the worker stood still, "+
				"or its clock is ahead of Temporal's; if that repeats see to the time service: %w", c.behind.Round(time.Millisecond), errWritesOver)
		}
		return nil, nil, errWritesOver
	}
	wctx, cancel := context.WithDeadline(context.WithoutCancel(ctx), deadline)
	return wctx, cancel, nil
}

// skewMost is how far this worker's clock and Temporal's may be apart, which leaves half of the time for writes.
const skewMost = WriteDeadline / 2

type clockKey struct{}

// clock is when this attempt's writes began to count, set once per attempt by begin.
type clock struct {
	started time.Time
	behind  time.Duration // how long after it was handed out the attempt began, as far as the clocks agree
}

func clockOf(ctx context.Context) clock {
	if c, ok := ctx.Value(clockKey{}).(clock); ok {
		return c
	}
	return clock{started: time.Now()}
}

// begin starts the clock for the writes of an attempt and returns what its result must carry. They count from when
// Temporal handed the attempt out: a worker that stood still in between has lost it since then. Where this worker's clock
// is behind Temporal's they count from now.
func begin(ctx context.Context) (context.Context, Acted) {
	info := activity.GetInfo(ctx)
	now := time.Now()
	c := clock{started: now, behind: now.Sub(info.StartedTime)}
	if c.behind > 0 {
		c.started = now.Add(-c.behind) // with the monotonic clock of now, which nobody sets
	}
	return context.WithValue(ctx, clockKey{}, c), Acted{Attempt: info.Attempt, Started: info.StartedTime, Late: lateUntil(ctx, info)}
}

// writesFrom lets the time for writes count from a moment other than the attempt's start.
func writesFrom(ctx context.Context, since time.Time) context.Context {
	return context.WithValue(ctx, clockKey{}, clock{started: since})
}

// afresh gives an attempt a new time for writes that are right whenever they happen, such as taking back what it made itself.
// What is right only while something else is so takes its time from the look that says it is: again, wanted.
func afresh(ctx context.Context) context.Context { return writesFrom(ctx, time.Now()) }

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
		if err != nil && text != "" {
			waiting = text // it got that far
		}
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
