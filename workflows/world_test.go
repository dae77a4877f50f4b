package workflows_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/activity"
	"go.temporal.io/sdk/log"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"switchback/activities"
	"switchback/replication"
	"switchback/runbooks"
	"switchback/workflows"
)

// world is what activities act upon: two clusters, what clients look up, and who runs where. Its methods carry the names
// of the real activities. It promises no more than they do: each checks the guard first, and may be made to fail.
type world struct {
	t      *testing.T
	mu     sync.Mutex
	book   runbooks.Runbook
	called []string // in order, activity names

	cluster    string
	epoch      int64
	switchedBy string
	desired    map[string]string
	runs       map[string]string // client -> cluster at epoch, or "stopped"
	fenced     bool
	closed     bool // groups on the source
	synced     bool
	promoted   bool
	stranded   []string // what promote is to find on the source behind the stop
	marks      int
	optional   replication.Status // of an optional discovery entry; empty when there is none

	preflight activities.PreflightResult
	assessed  activities.AssessResult
	lastMarks activities.LastMarksResult
	unknown   []replication.Outcome        // instances that cannot be reached
	gone      []activities.FenceWhenResult // answers of the next attempts to fence; the last one stays
	entity    activities.EntityStatus
	lastOver  *time.Time // when the workload last changed its cluster
	fencing   bool       // something waits to fence the cluster that the run goes to
	nested    bool       // the run is a child of one that holds the runbook
	waited    []byte     // what that carries
	told      []activities.TellFencing
	quiet     time.Duration
	killed    []string
	abandoned *activities.Holder
	holder    map[string]activities.Run
	released  []activities.Release
	reports   []string
	attempt   map[string]int32     // what a result says its attempt was
	fail      map[string][]error   // errors of the next calls; applied before acting
	failAfter map[string][]error   // errors of the next calls; applied after acting
	hook      func(name string)    // called before an activity acts
	times     map[string]time.Time // when an activity last started
	inputs    map[string]any
	options   []activity.Info
	now       func() time.Time
}

func newWorld(t *testing.T) *world {
	return &world{
		t: t, book: testBook(), cluster: "east", epoch: 7, desired: map[string]string{"checkout": "run", "billing": "run"},
		runs: map[string]string{"checkout": "east@7", "billing": "east@7"}, synced: true,
		preflight: activities.PreflightResult{LinkName: "east-west", StopIsFinal: true, Topics: 2, Partitions: 6, Groups: 1,
			Findings: []activities.Finding{{Check: "reach", Level: activities.LevelOK, Means: "both answer"}}},
		holder: map[string]activities.Run{}, attempt: map[string]int32{}, fail: map[string][]error{}, failAfter: map[string][]error{},
		times: map[string]time.Time{}, inputs: map[string]any{},
	}
}

func testBook() runbooks.Runbook {
	minute := runbooks.Duration(time.Minute)
	return runbooks.Runbook{
		Metadata:   runbooks.Metadata{Name: "orders", Owner: "payments"},
		Objectives: runbooks.Objectives{RTO: runbooks.Duration(5 * time.Minute)},
		Clusters:   map[string]runbooks.Cluster{"east": {}, "west": {}},
		Links:      []runbooks.Link{{From: "east", To: "west"}},
		Topics:     runbooks.Patterns{Include: []string{"orders"}},
		Groups:     runbooks.Groups{Include: []string{"billing"}},
		Discovery:  []runbooks.Discovery{{Required: true}},
		Clients: []runbooks.Client{
			{Name: "checkout", Role: runbooks.RoleProducer, Supervised: &runbooks.Supervised{Instances: 3}, WhenKilled: "go-on"},
			{Name: "billing", Role: runbooks.RoleConsumer, Groups: []string{"billing"}, Supervised: &runbooks.Supervised{Instances: 2}, WhenKilled: "go-on"},
		},
		Budgets: runbooks.Budgets{Drain: minute, StopClients: minute, StartClients: minute, Promote: minute, Verify: minute},
	}
}

// begin notes the call and fails where the test asks for it.
func (w *world) begin(ctx context.Context, in any) (activities.Acted, error) {
	info := activity.GetInfo(ctx)
	name := info.ActivityType.Name
	if w.hook != nil {
		w.hook(name)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.called = append(w.called, name)
	w.options = append(w.options, info)
	now := w.now()
	w.times[name], w.inputs[name] = now, in
	acted := activities.Acted{Changed: true, Attempt: max(w.attempt[name], 1), Started: now}
	if list := w.fail[name]; len(list) > 0 {
		w.fail[name] = list[1:]
		return acted, list[0]
	}
	return acted, nil
}

// end is for errors that come although the activity acted.
func (w *world) end(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	name := activity.GetInfo(ctx).ActivityType.Name
	if list := w.failAfter[name]; len(list) > 0 {
		w.failAfter[name] = list[1:]
		return list[0]
	}
	return nil
}

func (w *world) guarded(g activities.Guard) error {
	if g.Epoch != w.epoch {
		return final(activities.TypeStale, fmt.Sprintf("discovery is at epoch %d, the run acts for %d", w.epoch, g.Epoch))
	}
	return nil
}

func final(name, text string) error { return temporal.NewNonRetryableApplicationError(text, name, nil) }

func (w *world) Snapshot(ctx context.Context, in activities.SnapshotInput) (activities.Snapshot, error) {
	_, err := w.begin(ctx, in)
	return activities.Snapshot{Runbook: w.book, SHA256: "abc"}, err
}

func (w *world) Read(ctx context.Context, in activities.ReadDiscoveryInput) (activities.ReadDiscoveryResult, error) {
	_, err := w.begin(ctx, in)
	desired := map[string]string{}
	for k, v := range w.desired {
		desired[k] = v
	}
	return activities.ReadDiscoveryResult{Entries: []activities.DiscoveryEntry{
		{Required: true, Cluster: w.cluster, Epoch: w.epoch, SwitchedBy: w.switchedBy, Desired: desired},
	}}, err
}

func (w *world) Acquire(ctx context.Context, in activities.Acquire) (activities.Acquired, error) {
	if _, err := w.begin(ctx, in); err != nil {
		return activities.Acquired{}, err
	}
	w.holder[in.Entity] = in.Run
	out := activities.Acquired{NextEpoch: in.SeenEpoch + 1, LastSwitch: w.lastOver, Fencing: w.fencing, Nested: w.nested}
	if strings.HasPrefix(in.Entity, "runbook/") {
		out.Abandoned = w.abandoned
	}
	return out, w.end(ctx)
}

func (w *world) Release(ctx context.Context, in activities.Release) error {
	if _, err := w.begin(ctx, in); err != nil {
		return err
	}
	delete(w.holder, in.Entity)
	w.released = append(w.released, in)
	return w.end(ctx)
}

func (w *world) Entity(ctx context.Context, entity string) (activities.EntityStatus, error) {
	_, err := w.begin(ctx, entity)
	out := w.entity
	out.Entity = entity
	return out, err
}

func (w *world) HolderClosed(ctx context.Context, in activities.Holder) (bool, error) {
	_, err := w.begin(ctx, in)
	return w.closed, err
}

func (w *world) Check(ctx context.Context, in activities.PreflightInput) (activities.PreflightResult, error) {
	_, err := w.begin(ctx, in)
	return w.preflight, err
}

func (w *world) Suspend(ctx context.Context, in activities.SyncsInput) (activities.SyncsResult, error) {
	acted, err := w.begin(ctx, in)
	if err == nil {
		err = w.guarded(in.Guard)
	}
	if err != nil {
		return activities.SyncsResult{}, err
	}
	w.synced = false
	return activities.SyncsResult{Acted: acted, QuietAt: acted.Started.Add(w.quiet), Text: "suspended"}, w.end(ctx)
}

func (w *world) Restore(ctx context.Context, in activities.SyncsInput) (activities.SyncsResult, error) {
	acted, err := w.begin(ctx, in)
	if err == nil {
		err = w.guarded(in.Guard)
	}
	if err != nil {
		return activities.SyncsResult{}, err
	}
	if w.fenced && !in.KeepACLsOff {
		w.t.Error("ACL sync was turned on while a fence stands")
	}
	w.synced = true
	return activities.SyncsResult{Acted: acted, Text: "restored"}, w.end(ctx)
}

func (w *world) Stop(ctx context.Context, in activities.ClientsInput) (activities.ClientsResult, error) {
	return w.clients(ctx, in, "stop")
}

func (w *world) Start(ctx context.Context, in activities.ClientsInput) (activities.ClientsResult, error) {
	if w.fenced && w.cluster == "east" || w.closed && w.cluster == "east" {
		w.t.Error("clients were started behind a fence")
	}
	out, err := w.clients(ctx, in, "run")
	for _, o := range w.unknown {
		if client, _, _ := strings.Cut(o.Name, "/"); err != nil || !slices.ContainsFunc(in.Clients, func(c runbooks.Client) bool { return c.Name == client }) {
			continue
		}
		if !slices.Contains(in.Absent, o.Name) {
			return out, final(activities.TypeNotReady, o.Name+" does not run")
		}
		out.Absent = append(out.Absent, o)
	}
	return out, err
}

func (w *world) clients(ctx context.Context, in activities.ClientsInput, what string) (activities.ClientsResult, error) {
	acted, err := w.begin(ctx, in)
	if err == nil {
		err = w.guarded(in.Guard)
	}
	if err != nil {
		return activities.ClientsResult{}, err
	}
	w.mu.Lock()
	out := activities.ClientsResult{Acted: acted}
	for _, c := range in.Clients {
		w.desired[c.Name], w.runs[c.Name] = what, "stopped"
		if what == "run" {
			w.runs[c.Name] = fmt.Sprintf("%s@%d", w.cluster, w.epoch)
		}
		out.Clients = append(out.Clients, activities.ClientState{Client: c.Name, Role: c.Role, Instances: 1, First: acted.Started, Last: acted.Started})
		for _, k := range w.killed {
			if what == "stop" && strings.HasPrefix(k, c.Name+"/") {
				out.Killed = append(out.Killed, k)
			}
		}
	}
	w.mu.Unlock()
	return out, w.end(ctx)
}

func (w *world) Raise(ctx context.Context, in activities.FenceInput) (activities.FenceResult, error) {
	acted, err := w.begin(ctx, in)
	if err == nil {
		err = w.guarded(in.Guard)
	}
	if err != nil {
		return activities.FenceResult{}, err
	}
	if w.synced {
		return activities.FenceResult{}, final(activities.TypeConflict, "ACL sync is on")
	}
	w.fenced = true
	return activities.FenceResult{Acted: acted, Topics: 2, Text: "fenced"}, w.end(ctx)
}

func (w *world) Lift(ctx context.Context, in activities.FenceInput) (activities.FenceResult, error) {
	acted, err := w.begin(ctx, in)
	if err == nil {
		err = w.guarded(in.Guard)
	}
	if err != nil {
		return activities.FenceResult{}, err
	}
	w.fenced, w.closed = false, false
	return activities.FenceResult{Acted: acted, Text: "lifted"}, w.end(ctx)
}

func (w *world) look(ctx context.Context, in activities.WaitInput) error {
	if _, err := w.begin(ctx, in); err != nil {
		return err
	}
	if err := w.guarded(in.Guard); err != nil {
		return err
	}
	return w.end(ctx)
}

func (w *world) Quiesce(ctx context.Context, in activities.WaitInput) (activities.QuiesceResult, error) {
	return activities.QuiesceResult{Text: "quiet"}, w.look(ctx, in)
}

func (w *world) Drain(ctx context.Context, in activities.WaitInput) (activities.DrainResult, error) {
	return activities.DrainResult{Text: "drained"}, w.look(ctx, in)
}

func (w *world) CatchUp(ctx context.Context, in activities.WaitInput) (activities.CatchUpResult, error) {
	_, err := w.begin(ctx, in)
	return activities.CatchUpResult{}, err
}

func (w *world) HandOver(ctx context.Context, in activities.HandOverInput) (activities.HandOverResult, error) {
	acted, err := w.begin(ctx, in)
	if err == nil {
		err = w.guarded(in.Guard)
	}
	if err != nil {
		return activities.HandOverResult{}, err
	}
	if w.runs["billing"] != "stopped" {
		w.t.Error("offsets were handed over while the group has members")
	}
	w.closed = true
	return activities.HandOverResult{Acted: acted, Text: "handed over"}, w.end(ctx)
}

func (w *world) Promote(ctx context.Context, in activities.WaitInput) (activities.PromoteResult, error) {
	acted, err := w.begin(ctx, in)
	if err == nil {
		err = w.guarded(in.Guard)
	}
	if err != nil {
		return activities.PromoteResult{}, err
	}
	w.promoted = true
	return activities.PromoteResult{Acted: acted, Text: "promoted", Stranded: w.stranded}, w.end(ctx)
}

func (w *world) Unseal(ctx context.Context, in activities.WaitInput) (activities.UnsealResult, error) {
	acted, err := w.begin(ctx, in)
	if err == nil {
		err = w.guarded(in.Guard)
	}
	if err != nil {
		return activities.UnsealResult{}, err
	}
	w.promoted = false
	return activities.UnsealResult{Acted: acted, Text: "unsealed"}, w.end(ctx)
}

func (w *world) KeepMarks(ctx context.Context, in activities.MarksInput) (activities.MarksResult, error) {
	if _, err := w.begin(ctx, in); err != nil {
		return activities.MarksResult{}, err
	}
	w.marks++
	return activities.MarksResult{Text: "kept"}, w.end(ctx)
}

func (w *world) Switch(ctx context.Context, in activities.SwitchInput) (activities.SwitchResult, error) {
	acted, err := w.begin(ctx, in)
	if err != nil {
		return activities.SwitchResult{}, err
	}
	if w.switchedBy != in.Guard.Run.ID() || w.epoch != in.Epoch {
		if err := w.guarded(in.Guard); err != nil {
			return activities.SwitchResult{}, err
		}
		w.cluster, w.epoch, w.switchedBy = in.To.Name, in.Epoch, in.Guard.Run.ID()
	}
	out := activities.SwitchResult{Acted: acted, At: acted.Started, Entries: []replication.Outcome{{Name: "required", Status: replication.OK}}}
	if w.optional != "" {
		out.Entries = append(out.Entries, replication.Outcome{Name: "other", Status: w.optional, Reason: "out of reach"})
	}
	return out, w.end(ctx)
}

func (w *world) Align(ctx context.Context, in activities.AlignInput) (activities.SwitchResult, error) {
	_, err := w.begin(ctx, in)
	return activities.SwitchResult{Entries: []replication.Outcome{{Name: "other", Status: w.optional}}}, err
}

func (w *world) Target(ctx context.Context, in activities.VerifyInput) (activities.VerifyResult, error) {
	_, err := w.begin(ctx, in)
	return activities.VerifyResult{Text: "verified"}, err
}

func (w *world) Write(ctx context.Context, in activities.ReportInput) (activities.ReportResult, error) {
	if _, err := w.begin(ctx, in); err != nil {
		return activities.ReportResult{}, err
	}
	if len(w.released) > 0 {
		w.t.Error("the runbook was released before the report was written")
	}
	w.reports = append(w.reports, string(in.Report))
	return activities.ReportResult{JSONPath: "r.json", MarkdownPath: "r.md"}, w.end(ctx)
}

func (w *world) Close(ctx context.Context, in activities.CloseInput) (activities.CloseResult, error) {
	if _, err := w.begin(ctx, in); err != nil {
		return activities.CloseResult{}, err
	}
	return activities.CloseResult{Changed: true, Text: "the number is in r.json"}, w.end(ctx)
}

func (w *world) TellFencing(ctx context.Context, in activities.TellFencing) error {
	if _, err := w.begin(ctx, in); err != nil {
		return err
	}
	w.mu.Lock()
	w.told = append(w.told, in)
	w.mu.Unlock()
	return w.end(ctx)
}

func (w *world) EndFencing(ctx context.Context, in activities.EndFencing) (activities.EndFencingResult, error) {
	_, err := w.begin(ctx, in)
	return activities.EndFencingResult{Left: w.waited}, err
}

func (w *world) Assess(ctx context.Context, in activities.AssessInput) (activities.AssessResult, error) {
	_, err := w.begin(ctx, in)
	return w.assessed, err
}

func (w *world) StopReachable(ctx context.Context, in activities.ClientsInput) (activities.StopReachableResult, error) {
	out, err := w.clients(ctx, in, "stop")
	return activities.StopReachableResult{ClientsResult: out, Unknown: w.unknown}, err
}

func (w *world) RaiseReachable(ctx context.Context, in activities.FenceInput) (activities.FenceReachResult, error) {
	acted, err := w.begin(ctx, in)
	if err == nil {
		err = w.guarded(in.Guard)
	}
	if err != nil {
		return activities.FenceReachResult{}, err
	}
	w.fenced = true
	return activities.FenceReachResult{Acted: acted, Fenced: true, Topics: 2, Text: "fenced"}, w.end(ctx)
}

func (w *world) WhenReachable(ctx context.Context, in activities.FenceWhenInput) (activities.FenceWhenResult, error) {
	acted, err := w.begin(ctx, in)
	if err == nil {
		err = w.guarded(in.Guard)
	}
	if err != nil {
		return activities.FenceWhenResult{}, err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	out := activities.FenceWhenResult{Waiting: "east to answer"}
	if len(w.gone) > 0 {
		if out = w.gone[0]; len(w.gone) > 1 {
			w.gone = w.gone[1:]
		}
	}
	out.Acted = acted
	w.fenced = w.fenced || out.Done
	return out, nil
}

func (w *world) FailOver(ctx context.Context, in activities.WaitInput) (activities.FailOverResult, error) {
	acted, err := w.begin(ctx, in)
	if err == nil {
		err = w.guarded(in.Guard)
	}
	if err != nil {
		return activities.FailOverResult{}, err
	}
	w.promoted = true
	return activities.FailOverResult{Acted: acted, Topics: 2, Waits: !w.assessed.StopIsFinal, Text: "failed over"}, w.end(ctx)
}

func (w *world) AwaitStopped(ctx context.Context, in activities.WaitInput) (activities.FailOverResult, error) {
	acted, err := w.begin(ctx, in)
	return activities.FailOverResult{Acted: acted, Text: "stopped"}, err
}

func (w *world) KeepLastMarks(ctx context.Context, in activities.LastMarksInput) (activities.LastMarksResult, error) {
	if _, err := w.begin(ctx, in); err != nil {
		return activities.LastMarksResult{}, err
	}
	if !w.promoted || w.cluster != "east" {
		w.t.Error("marks were kept while the mirrors ran, or after the switch")
	}
	w.marks++
	out := w.lastMarks
	if out.Loss.Why == "" {
		out.Loss = w.assessed.Loss
	}
	return out, w.end(ctx)
}

func (w *world) HandOverLastKnown(ctx context.Context, in activities.HandOverInput) (activities.HandOverResult, error) {
	acted, err := w.begin(ctx, in)
	if err == nil {
		err = w.guarded(in.Guard)
	}
	if err != nil {
		return activities.HandOverResult{}, err
	}
	return activities.HandOverResult{Acted: acted, Text: "handed over"}, w.end(ctx)
}

func (w *world) Settle(ctx context.Context, in activities.WaitInput) (activities.QuiesceResult, error) {
	if w.marks == 0 && len(w.fail["Settle"]) == 0 {
		w.t.Error("transactions were settled before the marks were kept: their markers would count as mirrored")
	}
	return activities.QuiesceResult{Text: "settled"}, w.look(ctx, in)
}

// state is what the tables of end states assert: where clients are, keys, fence and syncs.
func (w *world) state() string {
	return fmt.Sprintf("checkout %s, billing %s, keys %s@%d, fence %v, groups closed %v, syncs %v",
		w.runs["checkout"], w.runs["billing"], w.cluster, w.epoch, w.fenced, w.closed, w.synced)
}

var request = workflows.PlannedInput{Runbook: "orders", To: "west", Reason: "exercise", By: "carol"}

// play is one run in the test environment.
type play struct {
	*testsuite.TestWorkflowEnvironment
	*world
	answers []string // of Updates, in order; refusals as "refused: …"
	begun   []any    // inputs of the workflows that outlive the run
	signals []string // ids of workflows that were told of the switch
}

func newPlay(t *testing.T, w *world) *play {
	var s testsuite.WorkflowTestSuite
	s.SetLogger(log.NewStructuredLogger(slog.New(slog.DiscardHandler)))
	env := s.NewTestWorkflowEnvironment()
	env.SetTestTimeout(20 * time.Second)
	env.SetWorkerOptions(worker.Options{DeadlockDetectionTimeout: 10 * time.Second})
	env.RegisterActivity(w)
	workflows.Register(env)
	w.now = env.Now
	return &play{TestWorkflowEnvironment: env, world: w}
}

// children stand for what outlives a run: each is tested by itself.
func (p *play) children() {
	instead := func(name string, w any) {
		p.RegisterWorkflowWithOptions(w, workflow.RegisterOptions{Name: name, DisableAlreadyRegisteredCheck: true})
	}
	instead("FenceWhenReachable", func(ctx workflow.Context, in workflows.FencingInput) (workflows.FencingStatus, error) {
		p.begun = append(p.begun, in)
		if told, _ := workflow.GetSignalChannel(ctx, workflows.SignalSwitched).ReceiveWithTimeout(ctx, time.Hour, nil); told {
			p.signals = append(p.signals, workflow.GetInfo(ctx).WorkflowExecution.ID)
		}
		return workflows.FencingStatus{}, nil
	})
	instead("AlignDiscovery", func(_ workflow.Context, in workflows.AlignmentInput) (workflows.AlignmentStatus, error) {
		p.begun = append(p.begun, in)
		return workflows.AlignmentStatus{}, nil
	})
}

func (p *play) run(t *testing.T) (workflows.Result, error) {
	t.Helper()
	p.children()
	p.ExecuteWorkflow(workflows.PlannedFailover, request)
	return p.ended(t)
}

// ended is how a run ended, which must have given back what it held.
func (p *play) ended(t *testing.T) (workflows.Result, error) {
	t.Helper()
	require.True(t, p.IsWorkflowCompleted(), "the run hangs")
	var out workflows.Result
	if err := p.GetWorkflowError(); err != nil {
		return out, err
	}
	require.NoError(t, p.GetWorkflowResult(&out))
	require.Empty(t, p.holder, "locks are left")
	return out, nil
}

func (p *play) status(t *testing.T) workflows.Status {
	t.Helper()
	var s workflows.Status
	answer, err := p.QueryWorkflow(workflows.QueryStatus)
	require.NoError(t, err)
	require.NoError(t, answer.Get(&s))
	return s
}

// tell sends an Update after so long and keeps its answer.
func (p *play) tell(after time.Duration, name string, o workflows.Order) {
	p.RegisterDelayedCallback(func() { p.give(name, o) }, after)
}

func (p *play) give(name string, o workflows.Order) {
	i := len(p.answers)
	p.answers = append(p.answers, "")
	p.UpdateWorkflow(name, fmt.Sprintf("%s-%d", name, i), &testsuite.TestUpdateCallback{
		OnAccept: func() {},
		OnReject: func(err error) { p.answers[i] = "refused: " + err.Error() },
		OnComplete: func(v any, err error) {
			if err != nil {
				p.answers[i] = "failed: " + err.Error()
			} else {
				p.answers[i] = fmt.Sprint(v)
			}
		},
	}, o)
}

func (w *world) count(name string) int {
	n := 0
	for _, c := range w.called {
		if c == name {
			n++
		}
	}
	return n
}

func (w *world) before(t *testing.T, a, b string) {
	t.Helper()
	i, j := slices.Index(w.called, a), slices.Index(w.called, b)
	require.True(t, i >= 0 && j >= 0 && i < j, "%s must come before %s: %v", a, b, w.called)
}
