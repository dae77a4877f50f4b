package workflows

import (
	"encoding/json"
	"fmt"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/workflow"

	"switchback/activities"
	"switchback/runbooks"
)

// SignalSwitched tells FenceWhenReachable when the workload left the cluster, a time.Time.
const SignalSwitched = "switched"

// fencingID is the id of the workflow that waits to fence a cluster.
func fencingID(runbook, cluster string) string {
	return "fence/" + runbook + "/" + cluster
}

// FencingInput starts FenceWhenReachable: Route.From is to be fenced. Guard is of the run that leaves it, Before the epoch
// at which it was still there. The rest is what it carries from one of its executions to the next.
type FencingInput struct {
	Guard    activities.Guard  `json:"guard"`
	Route    activities.Route  `json:"route"`
	Topics   runbooks.Patterns `json:"topics"`
	Groups   runbooks.Groups   `json:"groups"`
	Before   int64             `json:"before"`
	Switched time.Time         `json:"switched,omitzero"`
	Known    bool              `json:"known,omitempty"` // the runbook's entity knows that it waits
	Status   FencingStatus     `json:"status"`
}

// FencingStatus is what its query `status` answers, and its result.
type FencingStatus struct {
	activities.Fencing
	Tries int       `json:"tries"`
	Last  time.Time `json:"last,omitzero"` // when it last tried
	Ended string    `json:"ended,omitempty"`
}

// fencing waits until a cluster that was lost answers, for weeks if need be.
type fencing struct {
	FencingInput
	switched workflow.ReceiveChannel
}

// FenceWhenReachable fences a lost cluster as soon as it answers, before anything else happens there, and keeps what is
// stranded on it from expiring. It ends when that is done and the loss is closed, in the run's report too, or when the
// workload goes back there (P13). Each attempt asks discovery where the workload is now, and acts for that epoch.
func FenceWhenReachable(ctx workflow.Context, in FencingInput) (FencingStatus, error) {
	f := &fencing{FencingInput: in, switched: workflow.GetSignalChannel(ctx, SignalSwitched)}
	if f.Status.Since.IsZero() {
		f.Status.Fencing = activities.Fencing{
			Cluster: in.Route.From.Name, Workflow: workflow.GetInfo(ctx).WorkflowExecution.ID, Run: in.Guard.Run, Since: workflow.Now(ctx),
		}
	}
	if err := workflow.SetQueryHandler(ctx, QueryStatus, func() (FencingStatus, error) { return f.Status, nil }); err != nil {
		return f.Status, err
	}
	_ = workflow.UpsertTypedSearchAttributes(ctx, AttributeRunbook.ValueSet(in.Guard.Run.Runbook),
		AttributeWorkflow.ValueSet("FenceWhenReachable"), AttributePhase.ValueSet("waiting"))
	for pause := pauseFirst; ; pause = min(2*pause, pauseMost) {
		f.show(ctx)
		over := f.attempt(ctx)
		f.show(ctx)
		switch {
		case ctx.Err() != nil:
			return f.Status, f.cancelled(ctx)
		case over:
			return f.Status, f.end(ctx)
		case workflow.GetInfo(ctx).GetContinueAsNewSuggested():
			f.drainSignals()
			return f.Status, workflow.NewContinueAsNewError(ctx, FenceWhenReachable, f.FencingInput)
		}
		if workflow.Now(ctx).Sub(f.Status.Last) >= listenTime {
			pause = pauseFirst // it has listened until now
		}
		if f.rest(ctx, pause) {
			pause = pauseFirst
		}
	}
}

// rest pauses; the news of the switch ends it early.
func (f *fencing) rest(ctx workflow.Context, pause time.Duration) (woken bool) {
	timer, stop := workflow.WithCancel(ctx)
	defer stop()
	s := workflow.NewSelector(ctx)
	s.AddFuture(workflow.NewTimer(timer, pause), func(workflow.Future) {})
	s.AddReceive(f.switched, func(c workflow.ReceiveChannel, _ bool) { c.Receive(ctx, &f.Switched); woken = true })
	s.AddReceive(ctx.Done(), func(workflow.ReceiveChannel, bool) {})
	s.Select(ctx)
	return woken
}

func (f *fencing) drainSignals() {
	for f.switched.ReceiveAsync(&f.Switched) { //nolint:revive // each one is kept in the condition
	}
}

// attempt is one try. It is over when the cluster is fenced, or when there is no reason any more to fence it.
func (f *fencing) attempt(ctx workflow.Context) (over bool) {
	f.drainSignals()
	f.Status.Tries++
	f.Status.Last = workflow.Now(ctx)
	until := f.Status.Last.Add(tryTime)
	if !f.Known {
		if err := f.report(ctx, activities.FencingWaits); err != nil {
			return f.waits("its runbook's entity to hear of it: " + plain(err))
		}
		f.Known = true
	}
	free, over := f.free(ctx, until)
	if over || !free {
		return over
	}
	entry, err := f.where(ctx, until)
	switch {
	case err != nil:
		return f.waits("discovery: " + plain(err))
	case entry.Cluster == f.Status.Cluster && entry.Epoch == f.Before:
		return f.early(ctx, until)
	case entry.Cluster == f.Status.Cluster:
		f.Status.Ended = fmt.Sprintf("the workload is on %s again, at epoch %d: it must not be fenced", entry.Cluster, entry.Epoch)
		return true
	}
	return f.fence(ctx, until.Add(listenTime), entry.Epoch)
}

// free says whether no other run holds the runbook. One that goes to this cluster ends the waiting itself, and lets it go on
// where it did not get there.
func (f *fencing) free(ctx workflow.Context, until time.Time) (free, over bool) {
	var entity activities.EntityStatus
	err := workflow.ExecuteActivity(quickRead(ctx, until, "does a run hold the runbook?"), locks.Entity, "runbook/"+f.Guard.Run.Runbook).Get(ctx, &entity)
	held := entity.Holder
	switch {
	case err != nil:
		return false, f.waits("its runbook's entity: " + plain(err))
	case held == nil || held.Run == f.Guard.Run:
		return true, false
	case held.To == f.Status.Cluster:
		return false, f.waits("the end of run " + held.Run.ID() + ", which takes the workload there")
	}
	return false, f.waits("the end of run " + held.Run.ID() + ", which holds the runbook")
}

func (f *fencing) where(ctx workflow.Context, until time.Time) (activities.DiscoveryEntry, error) {
	var seen activities.ReadDiscoveryResult
	err := workflow.ExecuteActivity(quickRead(ctx, until, "where clients go now"), discovery.Read,
		activities.ReadDiscoveryInput{Entries: []runbooks.Discovery{f.Guard.Discovery}}).Get(ctx, &seen)
	if err != nil {
		return activities.DiscoveryEntry{}, err
	}
	entry := seen.Required()
	if entry.Error != "" || entry.Epoch < 0 {
		return entry, fmt.Errorf("the required entry cannot be read: %s", or(entry.Error, "it has no readable epoch"))
	}
	return entry, nil
}

// early fences before the run has switched: the less is written there from now on, the less is stranded.
func (f *fencing) early(ctx workflow.Context, until time.Time) bool {
	guard := f.Guard
	guard.Epoch = f.Before
	var out activities.FenceReachResult
	err := workflow.ExecuteActivity(longWait(ctx, until, "deny WRITE on "+f.Status.Cluster), fences.RaiseReachable,
		activities.FenceInput{Guard: guard, Route: f.Route, Topics: f.Topics}).Get(ctx, &out)
	switch {
	case err != nil:
		return f.waits(plain(err))
	case out.Fenced:
		return f.waits("the switch, to close the loss: " + out.Text)
	}
	return f.waits(or(out.Text, f.Status.Cluster+" to answer"))
}

// fence does all that is left to do there.
func (f *fencing) fence(ctx workflow.Context, until time.Time, epoch int64) bool {
	if f.Switched.IsZero() {
		f.Switched = workflow.Now(ctx) // nobody was left to say when
	}
	guard := f.Guard
	guard.Epoch = epoch
	var out activities.FenceWhenResult
	err := workflow.ExecuteActivity(longWait(ctx, until, "fence "+f.Status.Cluster), fences.WhenReachable,
		activities.FenceWhenInput{Guard: guard, Route: f.Route, Topics: f.Topics, Groups: f.Groups, Switched: f.Switched, Listen: listenTime}).Get(ctx, &out)
	switch {
	case err != nil:
		return f.waits(plain(err))
	case !out.Done:
		return f.waits(or(out.Waiting, f.Status.Cluster+" to answer"))
	}
	at := out.At
	if at.IsZero() {
		at = workflow.Now(ctx)
	}
	closed := f.close(ctx, out, at)
	f.Status.Waiting, f.Status.Fenced, f.Status.Wrote, f.Status.Written, f.Status.Loss = "", &at, out.Wrote, out.Since, &out.Loss
	f.Status.Ended = or(out.Text, f.Status.Cluster+" is fenced") + "; " + closed
	return true
}

// close puts the number into the run's report (P38). Nothing waits for that longer than its budget: what is fenced is fenced,
// and the sentence names the report that still says what the run knew.
func (f *fencing) close(ctx workflow.Context, counted activities.FenceWhenResult, at time.Time) string {
	f.waits("the report of run " + f.Guard.Run.ID() + " to have the number")
	in := activities.CloseInput{Run: f.Guard.Run, Fencing: f.Status.Workflow, Loss: counted.Loss, Losses: counted.Losses, At: at}
	var out activities.CloseResult
	err := workflow.ExecuteActivity(atomicWrite(ctx, workflow.Now(ctx).Add(reportBudget), "close the loss in the report"), reports.Close, in).Get(ctx, &out)
	if err != nil {
		return fmt.Sprintf("the report of run %s was not rewritten, and says what the run knew: %s", in.Run.ID(), plain(err))
	}
	return out.Text
}

func (f *fencing) waits(what string) (over bool) {
	f.Status.Waiting = what
	return false
}

// report tells the runbook's entity, which shows it wherever somebody asks for the workload.
func (f *fencing) report(ctx workflow.Context, state string) error {
	in := activities.TellFencing{Entity: "runbook/" + f.Guard.Run.Runbook, State: state, Fencing: f.Status.Fencing}
	return workflow.ExecuteActivity(atomicWrite(ctx, workflow.Now(ctx).Add(lockBudget), "tell "+in.Entity), locks.TellFencing, in).Get(ctx, nil)
}

// end tells the entity how it ended, until it has heard: what nobody hears was not closed.
func (f *fencing) end(ctx workflow.Context) error {
	state := activities.FencingDone
	if f.Status.Fenced == nil {
		state = activities.FencingGone
	}
	safe, _ := workflow.NewDisconnectedContext(ctx)
	for f.report(safe, state) != nil {
		if err := workflow.Sleep(safe, pauseMost); err != nil {
			return err
		}
	}
	f.drainSignals()
	_ = workflow.UpsertTypedSearchAttributes(safe, AttributePhase.ValueSet(state), AttributeOutcome.ValueSet(state))
	f.show(safe)
	return nil
}

// cancelled outlives what the last attempt may still write: whoever cancels it waits for this, and goes there next (P13,
// P35c).
func (f *fencing) cancelled(ctx workflow.Context) error {
	safe, _ := workflow.NewDisconnectedContext(ctx)
	if err := workflow.Sleep(safe, activities.WriteDeadline); err != nil {
		return err
	}
	f.Status.Ended = "it was cancelled, because a run goes to " + f.Status.Cluster + " or back to it"
	_ = f.report(safe, activities.FencingGone) // the entity hears it from the run as well
	_ = workflow.UpsertTypedSearchAttributes(safe, AttributePhase.ValueSet("cancelled"), AttributeOutcome.ValueSet("cancelled"))
	f.show(safe)
	return temporal.NewCanceledError(f.FencingInput)
}

// fenceAfterAll lets wait again what would have fenced the cluster to which the run meant to go, where it did not get there:
// nobody else would ever fence that (P13).
func (f *failover) fenceAfterAll() {
	if f.status.Outcome != Completed {
		f.waitsAgain(f.in.To, f.waited)
	}
}

// waitsAgain starts again what waited to fence a cluster, with what it had left to do; nothing where nothing waited.
func (f *failover) waitsAgain(cluster string, left []byte) {
	if len(left) == 0 {
		return
	}
	var in FencingInput
	err := json.Unmarshal(left, &in) //workflowcheck:ignore the same bytes give the same value
	if err == nil {
		in.Known, in.Status.Ended, in.Status.Waiting = false, "", ""
		err = f.waitToFence(in)
	}
	if err != nil {
		f.deviate(fmt.Sprintf("%s is not fenced, and what waited for it could not be started again: %s. Fence it by hand", cluster, plain(err)))
	}
}

// show renders its page.
func (f *fencing) show(ctx workflow.Context) {
	s := f.Status
	b := fmt.Appendf(nil, "## Fence `%s` for `%s` when it answers\n\n", s.Cluster, f.Guard.Run.Runbook)
	switch {
	case s.Fenced != nil:
		b = fmt.Appendf(b, "**Fenced** at %s. %s\n\n- %s\n- %s\n", s.Fenced.UTC().Format(time.RFC3339), s.Ended, closedLoss(s.Fencing), wrote(s.Fencing))
	case s.Ended != "":
		b = fmt.Appendf(b, "**Ended without a fence.** %s\n", s.Ended)
	default:
		b = fmt.Appendf(b, "**Not fenced as a whole.** Whoever is cut off may still write to %s, so the loss is open.\n\nWaits for %s\n\n", s.Cluster, or(s.Waiting, "its first attempt"))
	}
	b = fmt.Appendf(b, "\nSince %s, %d attempts, for run %s.\n", s.Since.UTC().Format(time.RFC3339), s.Tries, s.Run.ID())
	workflow.SetCurrentDetails(ctx, string(b))
}

func closedLoss(s activities.Fencing) string {
	if s.Loss == nil {
		return "loss: not known"
	}
	return lossText(*s.Loss)
}

func wrote(s activities.Fencing) string {
	switch {
	case s.Written == 0:
		return "nobody wrote there after the switch"
	case len(s.Wrote) == 0:
		return fmt.Sprintf("%s were written there after the switch, by whom is not known", records(s.Written))
	}
	return fmt.Sprintf("%s were written there after the switch, by %v", records(s.Written), s.Wrote)
}

func records(n int64) string {
	if n < 0 {
		return "an unknown number of records"
	}
	return fmt.Sprintf("%d records", n)
}

// startFencing starts it for the cluster that the run leaves.
func (u *unplannedFailover) startFencing() error {
	guard := u.guard
	guard.Epoch = u.next
	return u.waitToFence(FencingInput{Guard: guard, Route: u.route, Topics: u.book.Topics, Groups: u.book.Groups, Before: u.guard.Epoch})
}

// waitToFence starts FenceWhenReachable and waits until it has begun; it outlives the run. One that is there already is this
// run's own, because a run that goes to a cluster ends what would fence it.
func (f *failover) waitToFence(in FencingInput) error {
	cluster := in.Route.From.Name
	ctx := workflow.WithChildOptions(f.safe, workflow.ChildWorkflowOptions{
		WorkflowID: fencingID(f.in.Runbook, cluster), ParentClosePolicy: enumspb.PARENT_CLOSE_POLICY_ABANDON,
		StaticSummary: "Fence " + cluster + " as soon as it answers",
	})
	err := workflow.ExecuteChildWorkflow(ctx, FenceWhenReachable, in).GetChildWorkflowExecution().Get(ctx, nil)
	if temporal.IsWorkflowExecutionAlreadyStartedError(err) {
		return nil
	}
	return err
}
