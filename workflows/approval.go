package workflows

import (
	"errors"
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	"switchback/runbooks"
)

func expiryOf(g runbooks.Gate) time.Duration {
	if d := g.Expiry.D(); d > 0 {
		return d
	}
	return approvalExpiry
}

// awaitApprovals waits for so many different people. It expires: an approval of yesterday approves nothing. While it
// waits it looks again every so often, where look is given, so that approvers decide by what is so now.
func (f *failover) awaitApprovals(ctx workflow.Context, until time.Time, of runbooks.Gate, requester string, every time.Duration, look func()) error {
	need := of.Approvals
	f.gate = &gate{need: need, approvers: f.book.Gates.Approvers, requester: requester}
	defer func() { f.gate = nil }()
	f.phase(string(Approve))
	f.say(string(Approve), fmt.Sprintf("%d approvals until %s, by Update `approve`", need, until.Format(time.RFC3339)))
	there := func() bool { return f.gate.rejected != nil || len(f.status.Approvals) >= need }
	for {
		wait := until.Sub(workflow.Now(ctx))
		if look != nil {
			wait = min(wait, every)
		}
		ok, err := workflow.AwaitWithOptions(ctx, workflow.AwaitOptions{Timeout: wait, TimerOptions: workflow.TimerOptions{Summary: "until the approvals expire"}}, there)
		switch {
		case err != nil:
			return err
		case !ok && workflow.Now(ctx).Before(until):
			look()
			continue
		case !ok:
			return &stop{Rejected, fmt.Sprintf("%d of %d approvals came within %s: ask the approvers, then start a new run", len(f.status.Approvals), need, expiryOf(of))}
		case f.gate.rejected != nil:
			return &stop{Rejected, fmt.Sprintf("rejected by %s (%s)", f.gate.rejected.By, f.gate.rejected.Reason)}
		}
		return nil
	}
}

// approved says how a gate was passed.
func (f *failover) approved(need int) string {
	if need == 0 {
		return "the runbook asks for no approval"
	}
	return fmt.Sprintf("%d of %d approvals", len(f.status.Approvals), need)
}

// calm refuses a second switch soon after the last one: two clusters that are both unwell would be swapped for ever. Whoever
// knows better says why.
func (f *failover) calm(now time.Time, last *time.Time) error {
	quiet := f.book.Gates.AntiFlap.D()
	if last == nil || quiet <= 0 || !now.Before(last.Add(quiet)) {
		return nil
	}
	if f.in.Override == "" {
		return errors.New(flaps(f.in.Runbook, *last, quiet))
	}
	f.deviate(fmt.Sprintf("the last switch was only %s before, at %s; overridden: %s", now.Sub(*last).Round(time.Second), last.UTC().Format(time.RFC3339), f.in.Override))
	f.decide("override", Order{By: or(f.in.By, "nobody named"), Reason: f.in.Override}, "")
	return nil
}

func flaps(runbook string, last time.Time, quiet time.Duration) string {
	return fmt.Sprintf("the workload of %s was switched at %s, and gates.antiFlap allows the next switch at %s: wait until then, or start the run with `--override REASON` (input `override`)",
		runbook, last.UTC().Format(time.RFC3339), last.Add(quiet).UTC().Format(time.RFC3339))
}
