package activities

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
)

// handing changes how Temporal hands an attempt out: what the attempt is told of itself, and which word was left for it.
type handing struct {
	interceptor.WorkerInterceptorBase
	change func(*activity.Info)
	left   *attempt
}

func (h *handing) InterceptActivity(_ context.Context, next interceptor.ActivityInboundInterceptor) interceptor.ActivityInboundInterceptor {
	return &handingIn{ActivityInboundInterceptorBase: interceptor.ActivityInboundInterceptorBase{Next: next}, handing: h}
}

type handingIn struct {
	interceptor.ActivityInboundInterceptorBase
	handing *handing
}

func (h *handingIn) Init(next interceptor.ActivityOutboundInterceptor) error {
	return h.Next.Init(&handingOut{ActivityOutboundInterceptorBase: interceptor.ActivityOutboundInterceptorBase{Next: next}, handing: h.handing})
}

type handingOut struct {
	interceptor.ActivityOutboundInterceptorBase
	handing *handing
}

func (h *handingOut) GetInfo(ctx context.Context) activity.Info {
	info := h.Next.GetInfo(ctx)
	h.handing.change(&info)
	return info
}

func (h *handingOut) GetHeartbeatDetails(ctx context.Context, to ...any) error {
	if h.handing.left == nil {
		return h.Next.GetHeartbeatDetails(ctx, to...)
	}
	*to[1].(*attempt) = *h.handing.left
	return nil
}

// eachItsOwnStart is what Temporal tells of attempts; the test's Temporal tells all of them when the first was started.
func eachItsOwnStart() func(*activity.Info) {
	var mu sync.Mutex
	starts := map[int32]time.Time{}
	return func(info *activity.Info) {
		mu.Lock()
		defer mu.Unlock()
		if starts[info.Attempt].IsZero() {
			starts[info.Attempt] = time.Now()
		}
		info.StartedTime = starts[info.Attempt]
	}
}

// handedOut begins an attempt that is handed out in a certain way, and returns until when it may write.
func handedOut(t *testing.T, h *handing) (until time.Time, acted Acted, err error) {
	t.Helper()
	act := func(ctx context.Context) error {
		ctx, acted = begin(ctx)
		wctx, cancel, err := writing(ctx)
		if err != nil {
			return err
		}
		defer cancel()
		until, _ = wctx.Deadline()
		return nil
	}
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	env.SetWorkerOptions(worker.Options{Interceptors: []interceptor.WorkerInterceptor{&Interceptor{}, h}})
	env.RegisterActivityWithOptions(act, activity.RegisterOptions{Name: "act"})
	_, err = env.ExecuteActivity("act")
	return until, acted, err
}

// A worker that stood still after it was handed an attempt has lost it, and must not write when it goes on.
func TestP35_WritesCountFromWhenTheAttemptWasHandedOut(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		since time.Duration // that Temporal handed it out
		left  time.Duration // in which it may write
		text  string
	}{
		"at once":                       {0, WriteDeadline, ""},
		"stood still for a while":       {1500 * time.Millisecond, 500 * time.Millisecond, ""},
		"stood still too long":          {WriteDeadline + time.Second, 0, "the attempt began 3"},
		"the worker's clock is behind":  {-time.Minute, WriteDeadline, ""},
		"the worker's clock is far off": {time.Hour, 0, "see to the time service"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			before := time.Now()
			until, _, err := handedOut(t, &handing{change: func(info *activity.Info) { info.StartedTime = before.Add(-c.since).Round(0) }})
			if c.text != "" {
				require.ErrorContains(t, err, c.text)
				require.Equal(t, TypeUnreachable, typeOf(err), "another attempt may")
				return
			}
			require.NoError(t, err)
			require.WithinRange(t, until, before.Add(c.left-time.Millisecond), time.Now().Add(c.left+time.Millisecond))
		})
	}
}

// What an attempt outlives are the writes of the one before, which count from when that was handed out: as that one says,
// or a whole heartbeat time-out ago.
func TestP35_TheAttemptBeforeIsOutlivedAndNotMore(t *testing.T) {
	t.Parallel()
	now := time.Now().UTC()
	long := now.Add(-time.Minute)
	const pause = 100 * time.Millisecond // before the retry
	for name, c := range map[string]struct {
		number    int32
		heartbeat time.Duration
		left      *attempt
		want      time.Time
	}{
		"the first":                              {1, time.Second, nil, time.Time{}},
		"lost in the switch window":              {2, time.Second, nil, now.Add(WriteDeadline - time.Second - pause)},
		"lost outside":                           {2, 5 * time.Second, nil, now.Add(WriteDeadline - 5*time.Second - pause)},
		"failed a moment ago":                    {2, time.Second, &attempt{1, now}, now.Add(WriteDeadline)},
		"failed outside":                         {2, 5 * time.Second, &attempt{1, now}, now.Add(WriteDeadline)},
		"lost after a long wait":                 {2, time.Second, &attempt{1, long}, long.Add(WriteDeadline)},
		"the one before has not left a word":     {3, time.Second, &attempt{1, long}, now.Add(WriteDeadline - time.Second - pause)},
		"a word that was left before a reset":    {2, time.Second, &attempt{4, long}, now.Add(WriteDeadline - time.Second - pause)},
		"the second of two that left their word": {3, time.Second, &attempt{2, now}, now.Add(WriteDeadline)},
	} {
		t.Run(name, func(t *testing.T) {
			_, acted, err := handedOut(t, &handing{left: c.left, change: func(info *activity.Info) {
				info.Attempt, info.StartedTime, info.HeartbeatTimeout = c.number, now, c.heartbeat
				info.RetryPolicy = &temporal.RetryPolicy{InitialInterval: pause}
			}})
			require.NoError(t, err)
			require.Equal(t, c.want, acted.LateUntil())
		})
	}
}
