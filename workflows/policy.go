package workflows

import (
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"switchback/activities"
)

// Budgets of steps that the runbook does not set, and bounds of those it does.
const (
	preflightBudget = 2 * time.Minute  // logins of every client on two clusters
	suspendBudget   = 10 * time.Minute // includes one whole sync cycle, five minutes on some links
	fenceBudget     = time.Minute      // milliseconds normally; outlasts a restart of a broker or of Temporal
	quiesceBudget   = time.Minute
	handOverBudget  = time.Minute
	marksBudget     = 2 * time.Minute
	switchBudget    = time.Minute
	reportBudget    = 2 * time.Minute
	alignBudget     = 20 * time.Second
	undoBudget      = 5 * time.Minute // as long as clients may take to start
	lockBudget      = time.Minute
	releaseBudget   = 10 * time.Minute
	approvalExpiry  = 24 * time.Hour           // where the runbook names none: no wait is for ever
	noLimit         = 5 * 365 * 24 * time.Hour // some servers write the default of ten years out
	leastBudget     = 5 * time.Second
	examineBudget   = 2 * time.Minute
	turnBudget      = 30 * time.Minute // a restore takes up to a minute a topic, and topics go side by side
	homeBudget      = 24 * time.Hour   // of a run of its own, whose every step has a budget
	preflightKeeps  = 10 * time.Minute // a preflight that is older is repeated before anything is changed
	assessEvery     = time.Minute      // while approvers think: they decide by the loss as it is now
	assessKeeps     = 2 * time.Minute  // an assessment that is older is repeated before anything is changed
	reachBudget     = 10 * time.Second // what a fence may cost on a cluster that answers; on one that does not, nothing
)

// What goes on beside and after runs: fencing a cluster that was lost, aligning discovery entries.
const (
	tryTime    = 30 * time.Second // of one attempt; a cluster that comes back is slow at first
	listenTime = time.Minute      // an attempt at a cluster that is away listens for it: what returns is fenced within seconds
	pauseFirst = 5 * time.Second
	pauseMost  = time.Minute
)

const (
	windowHeartbeat = time.Second     // a dead worker costs this much of the switch window
	calmHeartbeat   = 5 * time.Second // elsewhere; also how long a cancellation takes to arrive
	attemptTime     = 20 * time.Second
	retryFirst      = 100 * time.Millisecond
	retryMost       = time.Second
	copyRetryMost   = 15 * time.Second
	copyAttempts    = 25              // about five minutes, if each fails at once
	waitMargin      = 2 * time.Second // a wait ends itself this long before its activity is ended, to name the laggards
)

// finals are the types of errors that another try would meet again.
var finals = []string{
	activities.TypeStale, activities.TypeHeld, activities.TypeStillWriting, activities.TypePromoteRefused,
	activities.TypeNotReady, activities.TypeInvalid, activities.TypeNotFound,
}

// options are common to all: a heartbeat time-out on every activity, because one without hangs until StartToClose when
// Temporal was away as it ended; short retries; and an activity that is cancelled is awaited, so that nothing acts
// behind the run's back while it undoes.
func options(ctx workflow.Context, until time.Time, attempt, heartbeat time.Duration, summary string) workflow.Context {
	budget := max(until.Sub(workflow.Now(ctx)), leastBudget)
	if attempt == 0 || attempt > budget {
		attempt = budget
	}
	return workflow.WithActivityOptions(ctx, workflow.ActivityOptions{
		ScheduleToCloseTimeout: budget,
		StartToCloseTimeout:    attempt,
		HeartbeatTimeout:       heartbeat,
		WaitForCancellation:    true,
		Summary:                summary,
		RetryPolicy: &temporal.RetryPolicy{
			InitialInterval: retryFirst, BackoffCoefficient: 2, MaximumInterval: retryMost,
			NonRetryableErrorTypes: finals,
		},
	})
}

// quickRead looks and changes nothing: a hung attempt is given up soon.
func quickRead(ctx workflow.Context, until time.Time, summary string) workflow.Context {
	return options(ctx, until, attemptTime, calmHeartbeat, summary)
}

// atomicWrite changes one thing and reads it back, outside the switch window.
func atomicWrite(ctx workflow.Context, until time.Time, summary string) workflow.Context {
	return options(ctx, until, attemptTime, calmHeartbeat, summary)
}

// windowWrite is an atomic write while the producers stand still: a dead worker is noticed within a second.
func windowWrite(ctx workflow.Context, until time.Time, summary string) workflow.Context {
	return options(ctx, until, attemptTime, windowHeartbeat, summary)
}

// shortWait waits inside the switch window; one attempt may use the whole budget.
func shortWait(ctx workflow.Context, until time.Time, summary string) workflow.Context {
	return options(ctx, until, 0, windowHeartbeat, summary)
}

// longWait waits outside the switch window; one attempt may use the whole budget.
func longWait(ctx workflow.Context, until time.Time, summary string) workflow.Context {
	return options(ctx, until, 0, calmHeartbeat, summary)
}

// longCopy copies for hours, if need be. What another try may not meet is tried for some minutes in a row, then an operator
// hears of it.
func longCopy(ctx workflow.Context, until time.Time, summary string) workflow.Context {
	o := workflow.GetActivityOptions(options(ctx, until, 0, calmHeartbeat, summary))
	policy := *o.RetryPolicy
	policy.MaximumInterval, policy.MaximumAttempts = copyRetryMost, copyAttempts
	o.RetryPolicy = &policy
	return workflow.WithActivityOptions(ctx, o)
}

// inside is the deadline that a wait gets: it ends itself before its activity is ended, so that history names the
// laggards instead of a bare time-out.
func inside(ctx workflow.Context, until time.Time) time.Time {
	left := max(until.Sub(workflow.Now(ctx)), leastBudget)
	return workflow.Now(ctx).Add(left - min(waitMargin, left/4))
}

// late is what results of acting activities know (P35c).
type late interface{ LateUntil() time.Time }

// perform runs an activity and keeps the books about attempts that were lost sight of.
func perform[R any](e *engine, ctx workflow.Context, activity, in any) (R, error) {
	return result[R](e, ctx, workflow.ExecuteActivity(ctx, activity, in))
}

// result awaits an activity that perform would have awaited at once. An activity that finally failed may have been
// lost sight of: its writes end WriteDeadline from now.
func result[R any](e *engine, ctx workflow.Context, f workflow.Future) (R, error) {
	var out R
	err := f.Get(ctx, &out)
	if acting, ok := any(out).(late); ok {
		if err != nil {
			e.note(workflow.Now(ctx).Add(activities.WriteDeadline))
		} else {
			e.note(acting.LateUntil())
		}
	}
	return out, err
}
