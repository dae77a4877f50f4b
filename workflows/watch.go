package workflows

import (
	"fmt"
	"slices"
	"time"

	"go.temporal.io/sdk/workflow"

	"switchback/activities"
	"switchback/runbooks"
)

// WatchInput is what Watch is started with. Zero durations mean the defaults.
type WatchInput struct {
	Runbook     string        `json:"runbook"`
	Every       time.Duration `json:"every,omitempty"`       // between two samples
	SilentAfter time.Duration `json:"silentAfter,omitempty"` // without an answer of the source before the page says so
	// Carried is what the execution before this one knew; nobody sets it at the start.
	Carried []WatchedLink `json:"carried,omitempty"`
}

// WatchStatus is what the query `status` of Watch answers.
type WatchStatus struct {
	Runbook            string        `json:"runbook"`
	Active             string        `json:"active"`
	Epoch              int64         `json:"epoch"`
	EverySeconds       float64       `json:"everySeconds"`
	SilentAfterSeconds float64       `json:"silentAfterSeconds"`
	Phase              string        `json:"phase"` // watching, source silent, blind
	Looked             time.Time     `json:"looked,omitzero"`
	Trouble            string        `json:"trouble,omitempty"` // why nothing can be watched, or not all
	TroubleSince       time.Time     `json:"troubleSince,omitzero"`
	Links              []WatchedLink `json:"links,omitempty"` // those that leave the active cluster
}

// WatchedLink is one direction under watch.
type WatchedLink struct {
	From string `json:"from"`
	To   string `json:"to"`
	activities.WatchResult
	Trouble string `json:"trouble,omitempty"` // why the last look could not even be made
}

// The phases of Watch.
const (
	PhaseWatching = "watching"
	PhaseSilent   = "source silent"
	PhaseBlind    = "blind"
)

const (
	watchEvery       = 10 * time.Second
	watchSilentAfter = 30 * time.Second
	watchEveryMost   = time.Minute
	watchRound       = 30 * time.Second // of sampling inside one activity: a few thousand events in six hours
	watchMargin      = 20 * time.Second
	watchSetUp       = 30 * time.Second // to read the runbook and where its workload is
	watchPauseFirst  = time.Second
	watchPauseMost   = time.Minute
)

var watcher *activities.Watch

// watch samples one runbook's positions for ever. It holds no lock and changes nothing but its own records.
type watch struct {
	in     WatchInput
	status WatchStatus
	book   *runbooks.Runbook // as it was read last
	entry  activities.DiscoveryEntry
	known  []WatchedLink // every direction that was watched once
	pause  time.Duration
}

// Watch is the workflow watch/<runbook>. It follows the active cluster: each round reads the runbook and discovery anew
// (P20). No error ends it; it ends when it is cancelled.
func Watch(ctx workflow.Context, in WatchInput) error {
	w := newWatch(in)
	if err := workflow.SetQueryHandler(ctx, QueryStatus, func() (WatchStatus, error) { return w.copied(), nil }); err != nil {
		return err
	}
	if err := workflow.UpsertTypedSearchAttributes(ctx, AttributeRunbook.ValueSet(in.Runbook), AttributeWorkflow.ValueSet("Watch")); err != nil {
		return err
	}
	w.phase(ctx, PhaseBlind)
	for !workflow.GetInfo(ctx).GetContinueAsNewSuggested() {
		w.round(ctx)
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	w.in.Carried = w.known
	return workflow.NewContinueAsNewError(ctx, Watch, w.in)
}

func newWatch(in WatchInput) *watch {
	in.Every = clamped(in.Every, watchEvery, time.Second, watchEveryMost)
	in.SilentAfter = clamped(in.SilentAfter, watchSilentAfter, time.Second, time.Hour)
	return &watch{in: in, known: in.Carried, status: WatchStatus{Runbook: in.Runbook, EverySeconds: in.Every.Seconds(), SilentAfterSeconds: in.SilentAfter.Seconds()}}
}

// clamped bounds a duration; zero is the default.
func clamped(d, otherwise, least, most time.Duration) time.Duration {
	if d == 0 {
		return otherwise
	}
	return min(max(d, least), most)
}

// copied is safe to hand out: the query's encoder reads it while the workflow goes on.
func (w *watch) copied() WatchStatus {
	s := w.status
	s.Links = slices.Clone(s.Links)
	return s
}

// round finds out where the workload is, and samples every link that leads away from there.
func (w *watch) round(ctx workflow.Context) {
	trouble := w.find(ctx)
	routes, err := w.routes()
	if err != nil {
		trouble = err
	}
	w.trouble(ctx, trouble)
	moved := w.sample(ctx, routes)
	w.conclude(ctx)
	if trouble == nil && !moved && !w.blind() {
		w.pause = 0
		return
	}
	w.pause = min(max(2*w.pause, watchPauseFirst), watchPauseMost)
	_ = workflow.Sleep(ctx, w.pause) // cancelled: Watch looks at its context
}

// find reads the runbook and discovery. What cannot be read stays as it was: a Consul or a file that is away for a moment
// is no reason to look away.
func (w *watch) find(ctx workflow.Context) error {
	until := workflow.Now(ctx).Add(watchSetUp)
	var snap activities.Snapshot
	if err := workflow.ExecuteActivity(quickRead(ctx, until, "the runbook"), books.Snapshot, activities.SnapshotInput{Runbook: w.in.Runbook}).Get(ctx, &snap); err != nil {
		if w.book == nil {
			return fmt.Errorf("the runbook cannot be read: %s", plain(err))
		}
		return fmt.Errorf("the runbook cannot be read, what was read before is used: %s", plain(err))
	}
	w.book = &snap.Runbook
	var seen activities.ReadDiscoveryResult
	err := workflow.ExecuteActivity(quickRead(ctx, until, "where clients go now"), discovery.Read, activities.ReadDiscoveryInput{Entries: w.book.Discovery}).Get(ctx, &seen)
	if err != nil {
		return fmt.Errorf("discovery cannot be read: %s", plain(err))
	}
	if entry := seen.Required(); entry.Error != "" {
		return fmt.Errorf("the required discovery entry %s cannot be read: %s", entry.Address, entry.Error)
	}
	w.entry = seen.Required()
	w.status.Active, w.status.Epoch = w.entry.Cluster, w.entry.Epoch
	return nil
}

// routes are the ways out of the active cluster, in the runbook's order.
func (w *watch) routes() ([]activities.Route, error) {
	if w.book == nil || w.entry.Cluster == "" {
		return nil, nil // find has said why
	}
	var routes []activities.Route
	for _, link := range w.book.Links {
		if link.From != w.entry.Cluster {
			continue
		}
		route, err := way(*w.book, w.entry, "", link.To)
		if err != nil {
			return nil, err
		}
		routes = append(routes, route)
	}
	if len(routes) == 0 {
		return nil, fmt.Errorf("the workload is on %s, and the runbook has no link that leads away from there: it is not protected, and there is nothing to watch", w.entry.Cluster)
	}
	return routes, nil
}

// sample watches every route for a round, side by side. It returns true when the workload has moved meanwhile.
func (w *watch) sample(ctx workflow.Context, routes []activities.Route) (moved bool) {
	info := workflow.GetInfo(ctx)
	run := activities.Run{Runbook: w.in.Runbook, WorkflowID: info.WorkflowExecution.ID, FirstRunID: info.FirstRunID}
	w.status.Links = nil
	each := workflow.NewSelector(ctx)
	for i, route := range routes {
		w.status.Links = append(w.status.Links, w.link(route))
		until := workflow.Now(ctx)
		if !w.status.Links[i].Next.IsZero() { // the first look is told at once
			until = until.Add(max(watchRound, w.in.Every))
		}
		in := activities.WatchInput{Run: run, Route: route, Topics: w.book.Topics, Groups: w.book.Groups, Discovery: w.book.RequiredDiscovery(),
			Epoch: w.entry.Epoch, Every: w.in.Every, SilentAfter: w.in.SilentAfter, Until: until, Before: w.status.Links[i].WatchResult}
		look := longWait(ctx, until.Add(watchMargin), "positions of "+route.From.Name+" on "+route.To.Name)
		each.AddFuture(workflow.ExecuteActivity(look, watcher.Sample, in), func(f workflow.Future) {
			var out activities.WatchResult
			err := f.Get(ctx, &out)
			moved = moved || isType(err, activities.TypeStale)
			w.take(i, out, err)
			w.conclude(ctx)
		})
	}
	for range routes {
		each.Select(ctx)
	}
	return moved
}

// link is what is known of a direction; those of earlier epochs are remembered.
func (w *watch) link(route activities.Route) WatchedLink {
	for _, l := range w.known {
		if l.From == route.From.Name && l.To == route.To.Name {
			return l
		}
	}
	return WatchedLink{From: route.From.Name, To: route.To.Name, WatchResult: activities.WatchResult{Lag: -1}}
}

func (w *watch) take(i int, out activities.WatchResult, err error) {
	l := &w.status.Links[i]
	l.Trouble = ""
	switch {
	case err == nil:
		l.WatchResult = out
	case isType(err, activities.TypeStale):
		l.Trouble = "the workload has moved"
	default:
		l.Trouble = plain(err)
	}
	w.known = append(slices.DeleteFunc(slices.Clone(w.known), func(k WatchedLink) bool { return k.From == l.From && k.To == l.To }), *l)
}

// blind is true when a direction could not be looked at.
func (w *watch) blind() bool {
	return len(w.status.Links) == 0 || slices.ContainsFunc(w.status.Links, func(l WatchedLink) bool { return l.Trouble != "" })
}

func (w *watch) trouble(ctx workflow.Context, err error) {
	if err == nil {
		w.status.Trouble, w.status.TroubleSince = "", time.Time{}
		return
	}
	if w.status.TroubleSince.IsZero() {
		w.status.TroubleSince = workflow.Now(ctx)
	}
	w.status.Trouble = err.Error()
	w.show(ctx)
}

// conclude sets the phase that people search for, and the page.
func (w *watch) conclude(ctx workflow.Context) {
	w.status.Looked = workflow.Now(ctx)
	silent := slices.ContainsFunc(w.status.Links, func(l WatchedLink) bool { return l.Silent })
	switch {
	case silent:
		w.phase(ctx, PhaseSilent)
	case w.blind():
		w.phase(ctx, PhaseBlind)
	default:
		w.phase(ctx, PhaseWatching)
	}
	w.show(ctx)
}

func (w *watch) phase(ctx workflow.Context, name string) {
	if w.status.Phase == name {
		return
	}
	w.status.Phase = name
	_ = workflow.UpsertTypedSearchAttributes(ctx, AttributePhase.ValueSet(name)) // fails only on a value of the wrong type
}

func (w *watch) show(ctx workflow.Context) {
	workflow.SetCurrentDetails(ctx, watchPage(w.status, workflow.Now(ctx)))
}
