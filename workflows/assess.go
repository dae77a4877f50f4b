package workflows

import (
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/workflow"

	"switchback/activities"
)

// assess is the first step of an unplanned failover: it enters the runbook and says who answers, what is known, and what
// is lost if the run goes now.
func (u *unplannedFailover) assess(ctx workflow.Context, until time.Time) (string, error) {
	if err := u.understood(); err != nil {
		return "", err
	}
	if !u.entered {
		left, err := u.enter(ctx, until)
		if err != nil {
			return "", err
		}
		u.entered = true
		if left != nil {
			u.takeOver(ctx, *left)
		}
	}
	if err := u.look(ctx, until); err != nil {
		return "", err
	}
	return u.facts.Preflight, u.shareLink(ctx, until)
}

// shareLink takes the lock of the link, or goes on beside who holds it: in a disaster all workloads of a link leave at once. Its
// ACL sync, which belongs to them all, is then left off by this run also where it goes back (P3); with a source that is gone it
// copies nothing, and whoever fences later suspends it before (P34).
func (u *unplannedFailover) shareLink(ctx workflow.Context, until time.Time) error {
	err := u.holdLink(ctx, until)
	if isType(err, activities.TypeHeld) {
		u.shared = true
		u.deviate("the run goes on beside another one of the same link: " + plain(err))
		return nil
	}
	return err
}

// understood refuses an input whose words mean nothing.
func (u *unplannedFailover) understood() error {
	switch u.disaster.Clients {
	case "", ClientsGoOn, ClientsWait:
	default:
		return fmt.Errorf("clients: %q is unknown: use go-on or wait", u.disaster.Clients)
	}
	if u.outage.After(workflow.Now(u.safe).Add(time.Minute)) {
		return fmt.Errorf("the outage is said to begin at %s, which is in the future", u.outage.Format(time.RFC3339))
	}
	return nil
}

// takeOver is for what a dead run left behind. Stopped clients, a fence and suspended syncs are what this run wants as
// well, and its source may not answer: it outlives late writes and goes on from there. Should it roll back, all of that is
// still named as unsettled.
func (u *unplannedFailover) takeOver(ctx workflow.Context, left activities.Holder) {
	u.begun = true
	u.note(workflow.Now(ctx).Add(activities.WriteDeadline))
	u.outlive(ctx)
	u.deviate("run " + left.Run.ID() + " had been closed before its end; what it had begun was taken over")
}

// look assesses. A problem forbids the run; nothing of the target's may be doubtful.
func (u *unplannedFailover) look(ctx workflow.Context, until time.Time) error {
	in := activities.AssessInput{Run: u.guard.Run, Runbook: u.book, Route: u.route, Epoch: u.guard.Epoch, Outage: u.outage}
	out, err := perform[activities.AssessResult](u.engine, longWait(ctx, until, "who answers, and what would be lost?"), assessor.Assess, in)
	if err != nil {
		return err
	}
	now := workflow.Now(ctx)
	u.assessed, u.checked = out, now
	u.stopIsFinal, u.sealProven, u.linkName = true, out.SealProven, out.LinkName
	u.knownLoss(out.Loss, out.Losses)
	if u.outage.IsZero() {
		u.outage = out.LastAnswer
	}
	for _, c := range out.Clients {
		u.deviate("tolerates less than it meets: " + c)
	}
	u.facts.Preflight = fmt.Sprintf("%s; %s; %d topics, %d partitions, %d groups", answers(out.From), lossText(out.Loss), out.Topics, out.Partitions, out.Groups)
	return u.heed("preflight found", out.Findings)
}

func (u *unplannedFailover) knownLoss(loss activities.Loss, topics []activities.TopicLoss) {
	u.status.Loss, u.status.Losses, u.status.LossAt = &loss, topics, workflow.Now(u.safe)
	u.show()
}

func (u *unplannedFailover) expiry() time.Duration { return expiryOf(u.book.Gates.Unplanned) }

// awaitApproval lets approvers decide by the loss as it is now: the assessment is repeated while they think, and once more
// when the last one has become old.
func (u *unplannedFailover) awaitApproval(ctx workflow.Context, until time.Time) (string, error) {
	gate := u.book.Gates.Unplanned
	failed := error(nil)
	again := func() { failed = u.look(ctx, workflow.Now(ctx).Add(preflightBudget)) }
	if gate.Approvals > 0 {
		if err := u.awaitApprovals(ctx, until, gate, u.requester, assessEvery, again); err != nil {
			return "", err
		}
	}
	if failed != nil || workflow.Now(ctx).Sub(u.checked) > assessKeeps {
		if again(); failed != nil {
			return "", failed
		}
	}
	u.agreed = workflow.Now(ctx)
	return u.approved(gate.Approvals) + "; " + lossText(u.assessed.Loss), nil
}

// answers says in words how much of a cluster answers.
func answers(r activities.Reach) string {
	switch {
	case !r.Answers:
		return r.Site + " does not answer" + because(r.Why)
	case len(r.Silent) > 0 || len(r.Leaderless) > 0:
		return fmt.Sprintf("%s answers in part: %d brokers, silent %s, %d partitions without a leader", r.Site, r.Brokers, or(strings.Join(r.Silent, ", "), "none"), len(r.Leaderless))
	}
	return fmt.Sprintf("%s answers, %d brokers", r.Site, r.Brokers)
}

func because(why string) string {
	if why == "" {
		return ""
	}
	return " (" + why + ")"
}

// lossText is a loss as people read it: never less than it may be, and how it is known.
func lossText(l activities.Loss) string {
	text := "loss: " + l.String()
	if l.Seconds > 0 {
		text += fmt.Sprintf(", of %s", time.Duration(l.Seconds*float64(time.Second)).Round(100*time.Millisecond))
	}
	return text + because(l.Why)
}
