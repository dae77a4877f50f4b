package workflows

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"switchback/activities"
)

// entity is the long-lived workflow of one runbook or link: who holds it and, for a runbook, where its workload is and
// at which epoch (P1, P2). It is what an operator opens first.
type entity struct {
	activities.EntityState
	name string
}

const (
	entityLook   = time.Minute // how often a held entity looks whether its holder is still there
	entityAnswer = 10 * time.Second
)

// Entity runs until continued as new, for ever. Its id is runbook/<name> or link/<name>.
func Entity(ctx workflow.Context, state activities.EntityState) error {
	e := &entity{EntityState: state, name: workflow.GetInfo(ctx).WorkflowExecution.ID}
	e.Status.Entity = e.name
	if err := e.listen(ctx); err != nil {
		return err
	}
	e.show(ctx)
	renew := func() bool { return workflow.GetInfo(ctx).GetContinueAsNewSuggested() }
	for !renew() {
		changed := e.Status.Holder
		woken := func() bool { return renew() || e.Status.Holder != changed }
		if changed == nil {
			if err := workflow.Await(ctx, woken); err != nil {
				return err
			}
			continue
		}
		ok, err := workflow.AwaitWithTimeout(ctx, entityLook, woken)
		if err != nil {
			return err
		}
		if !ok {
			e.look(ctx)
		}
	}
	if err := workflow.Await(ctx, func() bool { return workflow.AllHandlersFinished(ctx) }); err != nil {
		return err
	}
	return workflow.NewContinueAsNewError(ctx, activities.EntityWorkflow, e.EntityState)
}

func (e *entity) listen(ctx workflow.Context) error {
	err := workflow.SetUpdateHandlerWithOptions(ctx, activities.UpdateAcquire, e.acquire, workflow.UpdateHandlerOptions{
		Validator: func(_ workflow.Context, in activities.Acquire) error { return e.mayAcquire(in) },
	})
	if err != nil {
		return err
	}
	if err := workflow.SetUpdateHandler(ctx, activities.UpdateRelease, e.release); err != nil {
		return err
	}
	err = workflow.SetUpdateHandlerWithOptions(ctx, activities.UpdateFencing, e.fencing, workflow.UpdateHandlerOptions{
		Validator: func(_ workflow.Context, in activities.TellFencing) error { return e.mayFence(in) },
	})
	if err != nil {
		return err
	}
	return workflow.SetQueryHandler(ctx, activities.QueryEntity, func() (activities.EntityStatus, error) { return e.Status, nil })
}

// ofRunbook is false for links: they know no epoch and no place.
func (e *entity) ofRunbook() bool { return strings.HasPrefix(e.name, "runbook/") }

func (e *entity) mayAcquire(in activities.Acquire) error {
	if in.Run.WorkflowID == "" || in.Run.FirstRunID == "" {
		return fmt.Errorf("%s can only be held by a run: workflow id and first run id are missing", e.name)
	}
	active := e.active(in)
	free := e.Status.Holder == nil && e.Status.Abandoned == nil // otherwise there may be something to finish there
	if e.ofRunbook() && free && in.To != "" && in.To == active {
		return fmt.Errorf("the workload of %s is on %s already", e.name, active)
	}
	return nil
}

// active is where the workload is. Discovery is the truth where it has counted further than this entity knows.
func (e *entity) active(in activities.Acquire) string {
	if e.Status.Active == "" || in.SeenActive != "" && in.SeenEpoch > e.Status.Epoch {
		return in.SeenActive
	}
	return e.Status.Active
}

func (e *entity) holds(run activities.Run) bool {
	h := e.Status.Holder
	return h != nil && h.Run.WorkflowID == run.WorkflowID && h.Run.FirstRunID == run.FirstRunID
}

// acquire gives the entity to one run. A holder is replaced only when Temporal says that it is closed; a run that the holder
// itself has started holds it within.
func (e *entity) acquire(ctx workflow.Context, in activities.Acquire) (activities.Acquired, error) {
	if e.holds(in.Run) {
		return e.acquired(), nil
	}
	if held := e.Status.Holder; held != nil {
		closed, err := e.closed(ctx, *held)
		if e.Status.Holder != held { // somebody else was served meanwhile
			return e.acquire(ctx, in)
		}
		if err != nil {
			return activities.Acquired{}, refusal("%s is held by %s, and whether that run is closed cannot be found out: %s", e.name, held.Run.ID(), plain(err))
		}
		switch {
		case closed:
			e.abandoned(held)
			e.Status.Holder = held.Within
			if held.Within != nil {
				return e.acquire(ctx, in)
			}
		case held.Run.WorkflowID != in.Parent:
			return activities.Acquired{}, refusal("%s is held by run %s (%s) since %s: wait for its end, or abort it",
				e.name, held.Run.ID(), doing(*held), held.Since.Format(time.RFC3339))
		}
	}
	held := activities.Holder{Run: in.Run, Kind: in.Kind, To: in.To, Since: workflow.Now(ctx), Within: e.Status.Holder}
	if e.unfenced(in.To) {
		held.Unfenced = in.To
	}
	e.Status.Holder = &held
	if e.ofRunbook() {
		e.Status.Active = e.active(in)
		e.Status.Epoch = max(e.Status.Epoch, in.SeenEpoch)
		e.HeldEpoch = e.Status.Epoch + 1
	}
	e.show(ctx)
	return e.acquired(), nil
}

func (e *entity) acquired() activities.Acquired {
	h := e.Status.Holder
	return activities.Acquired{
		NextEpoch: e.HeldEpoch, Active: e.Status.Active, Since: h.Since, Nested: h.Within != nil, Abandoned: e.Status.Abandoned, LastSwitch: e.Status.LastSwitch,
		Fencing: h.Unfenced != "" || e.unfenced(h.To),
	}
}

// unfenced says whether something waits to fence a cluster, or did before a run to there was closed in the middle.
func (e *entity) unfenced(cluster string) bool {
	left := e.Status.Abandoned
	return cluster != "" && left != nil && left.Unfenced == cluster ||
		slices.ContainsFunc(e.Status.Fencing, func(f activities.Fencing) bool { return f.Cluster == cluster && f.Fenced == nil })
}

// abandoned keeps a holder that was closed without releasing, for the next run to settle; and of one that was closed before it,
// what that had left unfenced.
func (e *entity) abandoned(held *activities.Holder) {
	left := *held
	if before := e.Status.Abandoned; before != nil && left.Unfenced == "" {
		left.Unfenced = before.Unfenced
	}
	e.Status.Abandoned = &left
}

// mayFence refuses to let a cluster be fenced that a run takes the workload to (P13).
func (e *entity) mayFence(in activities.TellFencing) error {
	if h := e.Status.Holder; in.State == activities.FencingWaits && h != nil && h.Run != in.Fencing.Run && h.To == in.Fencing.Cluster {
		return fmt.Errorf("run %s takes the workload to %s", h.Run.ID(), h.To)
	}
	return nil
}

// fencing keeps the last word about each cluster that was left without a fence.
func (e *entity) fencing(ctx workflow.Context, in activities.TellFencing) error {
	e.Status.Fencing = slices.DeleteFunc(slices.Clone(e.Status.Fencing), func(f activities.Fencing) bool { return f.Cluster == in.Fencing.Cluster })
	if in.State != activities.FencingGone {
		e.Status.Fencing = append(e.Status.Fencing, in.Fencing)
	}
	e.show(ctx)
	return nil
}

// refusal is an answer to an Update that was let in at the door; callers see only its sentence.
func refusal(format string, args ...any) error {
	return temporal.NewNonRetryableApplicationError(fmt.Sprintf(format, args...), activities.TypeHeld, nil)
}

// release ends a hold, and gives the entity back to the parent within which it was held. What the holder says of epoch and
// place is taken only upwards.
func (e *entity) release(ctx workflow.Context, in activities.Release) error {
	if !e.holds(in.Run) {
		e.letGo(in.Run)
		return nil
	}
	if in.Outcome != "" { // making grants holds a runbook too, and is no run of it
		run := in.Run
		e.Status.LastRun, e.Status.LastOutcome, e.Status.LastReport = &run, in.Outcome, in.Report
	}
	if in.Epoch > e.Status.Epoch {
		e.Status.Epoch = in.Epoch
		if in.Active != "" && in.Active != e.Status.Active {
			now := workflow.Now(ctx)
			e.Status.Active, e.Status.LastSwitch = in.Active, &now
		}
	}
	switch {
	case in.Protected:
		e.Status.UnprotectedSince = nil
	case in.UnprotectedSince != nil:
		e.Status.UnprotectedSince = in.UnprotectedSince
	}
	e.Status.Holder, e.HeldEpoch = e.Status.Holder.Within, 0
	if e.Status.Holder != nil {
		e.HeldEpoch = e.Status.Epoch + 1
	}
	if !in.Unsettled {
		e.Status.Abandoned = nil
	}
	e.show(ctx)
	return nil
}

// letGo takes a parent out that ends before the run that it had started: that one holds the entity alone from then on.
func (e *entity) letGo(parent activities.Run) {
	for h := e.Status.Holder; h != nil && h.Within != nil; h = h.Within {
		if h.Within.Run == parent {
			h.Within = h.Within.Within
			return
		}
	}
}

func (e *entity) closed(ctx workflow.Context, h activities.Holder) (closed bool, err error) {
	until := workflow.Now(ctx).Add(entityAnswer)
	err = workflow.ExecuteActivity(quickRead(ctx, until, "is "+h.Run.ID()+" closed?"), locks.HolderClosed, h).Get(ctx, &closed)
	return closed, err
}

// look shows on the page that a holder was closed without releasing. The next run settles that; a look changes nothing.
func (e *entity) look(ctx workflow.Context) {
	held := e.Status.Holder
	if held == nil {
		return
	}
	if closed, err := e.closed(ctx, *held); err == nil && closed && e.Status.Holder == held {
		e.abandoned(held)
		e.show(ctx)
	}
}

// show renders the page of the entity.
func (e *entity) show(ctx workflow.Context) {
	var b []byte
	s := e.Status
	b = fmt.Appendf(b, "## %s\n\n", e.name)
	if e.ofRunbook() {
		b = fmt.Appendf(b, "The workload is on **%s** at epoch **%d**.\n\n", or(s.Active, "a cluster that no run has named yet"), s.Epoch)
	}
	if s.UnprotectedSince != nil {
		b = fmt.Appendf(b, "**Unprotected** since %s.\n\n", s.UnprotectedSince.Format(time.RFC3339))
	}
	for _, f := range s.Fencing {
		if f.Fenced == nil {
			b = fmt.Appendf(b, "**%s is not fenced** since %s: whoever is cut off may still write there. `%s` fences it as soon as it answers.\n\n", f.Cluster, f.Since.Format(time.RFC3339), f.Workflow)
		} else {
			b = fmt.Appendf(b, "%s was fenced at %s; %s; %s.\n\n", f.Cluster, f.Fenced.Format(time.RFC3339), closedLoss(f), wrote(f))
		}
	}
	switch h := s.Holder; {
	case h == nil:
		b = append(b, "Nobody holds it.\n\n"...)
	case s.Abandoned != nil && s.Abandoned.Run == h.Run:
		b = fmt.Appendf(b, "**Run %s was closed without releasing it.** Its fences, stopped clients and suspended syncs may stand: the next run settles that first.\n\n", h.Run.ID())
	default:
		b = fmt.Appendf(b, "Held by run %s (%s) since %s.\n\n", h.Run.ID(), doing(*h), h.Since.Format(time.RFC3339))
		if h.Within != nil {
			b = fmt.Appendf(b, "It is part of run %s (%s).\n\n", h.Within.Run.ID(), h.Within.Kind)
		}
	}
	if s.LastRun != nil {
		b = fmt.Appendf(b, "Last run: %s, %s. Report: %s\n", s.LastRun.ID(), s.LastOutcome, or(s.LastReport, "none"))
	}
	workflow.SetCurrentDetails(ctx, string(b))
}

// doing is what a holder does: a run that goes nowhere, such as a recovery, has no place that it goes to.
func doing(h activities.Holder) string {
	if h.To == "" {
		return h.Kind
	}
	return h.Kind + " to " + h.To
}
