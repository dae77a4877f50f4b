//go:build crash

package crash

import (
	"context"
	"encoding/json"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"

	"switchback/lab/ledger"
	"switchback/lab/setup"
	"switchback/lab/story"
	"switchback/runbooks"
	"switchback/workflows"
)

const kmsgTopic = kmsg.ACLResourceTypeTopic

// scenario is one crash in the life of a failover.
type scenario struct {
	page  page   // which run it is; a planned one when empty
	point string // where the worker is held or killed; empty: nothing happens
	pass  int    // how many times the point is passed first
	// crash happens while the worker is held at the point; nil kills the worker itself there.
	crash func(p *play)
	// refused makes the link refuse the promotion, so that the run rolls back.
	refused bool
	want    string // outcome; completed when empty
}

func (s scenario) outcome() string {
	switch {
	case s.want != "":
		return s.want
	case s.refused:
		return workflows.RolledBack
	}
	return workflows.Completed
}

// page is the run that a scenario is about.
type page string

// The pages. A run whose old cluster is dead is played by lose, all others by act.
const (
	planned   page = ""
	unplanned page = "unplanned, the old cluster answers"
	forsaken  page = "unplanned, the old cluster is dead"
	mirrored  page = "unplanned, the old cluster is dead, MirrorMaker 2"

	// These are played by travel.
	recovering page = "recovery"
	comingBack page = "failback after a planned failover"
	restored   page = "failback after a disaster, truncate and restore"
	rebuilt    page = "failback after a disaster, delete and mirror"
	patched    page = "failback after a disaster, MirrorMaker 2"
	staying    page = "fail-forward"
	protecting page = "protect"
)

// pages are in the order of the table.
var pages = []page{planned, unplanned, forsaken, mirrored, recovering, comingBack, restored, rebuilt, patched, staying, protecting}

// journey says whether a run of the page is no failover: nobody is switched, or by a run of its own within it.
func (p page) journey() bool { return slices.Index(pages, p) >= slices.Index(pages, recovering) }

// play is a scenario on its way.
type play struct {
	*story.Story
	t     *testing.T
	bench *bench
	page  page
	run   client.WorkflowRun
	step  string // at which the crash happened, as the run says it

	// Of an unplanned run: when its cluster was lost, whether the link is to refuse it, and what waits for its approvals.
	gone     time.Time
	refused  bool
	approved func() error
}

// ends are what stands after an undisturbed run.
var (
	endsMu   sync.Mutex
	ends     = map[end]state{}
	baseline sync.Mutex
)

// end is how a run of some page ended.
type end struct {
	page    page
	outcome string
}

// undisturbed plays the run without a crash first, where a test is run without the one that does so anyway.
func undisturbed(t *testing.T, sc scenario) {
	t.Helper()
	baseline.Lock()
	defer baseline.Unlock()
	endsMu.Lock()
	_, known := ends[end{sc.page, sc.outcome()}]
	endsMu.Unlock()
	if !known {
		t.Run("undisturbed", func(t *testing.T) { act(t, scenario{page: sc.page, refused: sc.refused}) })
	}
}

// act plays a scenario to its end: the outcome, the ledger, the report, and what stands are the same as undisturbed.
func act(t *testing.T, sc scenario) {
	t.Helper()
	if sc.point != "" && sc.want == "" {
		undisturbed(t, sc)
	}
	p := stage(t)
	p.page, p.refused = sc.page, sc.refused
	line := results.line(t, sc)
	ctx, done := p.context()
	defer done()
	if sc.refused && sc.page == planned {
		defer p.refuse()()
	}
	if sc.point != "" {
		what := "kill"
		if sc.crash != nil {
			what = "hold"
		}
		p.bench.order(t, what, sc.point, sc.pass)
	}
	p.start(ctx)
	if sc.point != "" {
		p.crash(ctx, sc)
	}
	line.step = p.step
	p.ends(ctx, sc.outcome(), line)
	if cost, ok := results.cost(line); ok { // printed, not asserted: machines are noisy
		t.Logf("the worker's death cost the producers %.2f s", cost)
	}
}

// ends waits for the end of the run, and holds it against that of an undisturbed one.
func (p *play) ends(ctx context.Context, want string, line *line) workflows.Result {
	p.t.Helper()
	if p.approved != nil {
		require.NoError(p.t, p.approved())
	}
	result, err := p.Ends(ctx, p.run)
	require.NoError(p.t, err, "how the run ended")
	ended := time.Now()
	require.Equal(p.t, want, result.Outcome, result.Sentence)
	active := "west"
	if result.Outcome != workflows.Completed {
		active = "east"
	}
	require.NoError(p.t, p.flows(ctx, active, ended), "traffic on %s after the run", active)
	if p.page != planned && active == "west" {
		p.closes(ctx, "east")
	}
	stands := p.look(ctx, result)
	line.took(p.judged(ctx, active, result))
	p.same(result.Outcome, stands)
	line.outcome = result.Outcome
	return result
}

// same holds what stands against what the first run with this end left.
func (p *play) same(outcome string, stands state) {
	p.t.Helper()
	endsMu.Lock()
	first, ok := ends[end{p.page, outcome}]
	if !ok {
		ends[end{p.page, outcome}] = stands
	}
	endsMu.Unlock()
	if ok {
		require.Equal(p.t, first, stands, "what stands is what every run with this end leaves")
	}
}

// stage takes a lab, and lets a workload's clients work on east.
func stage(t *testing.T) *play {
	t.Helper()
	b, w := take(t, 1)
	p := b.stage(t, w...)[0]
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, p.flows(ctx, "east", time.Time{}), "traffic on east")
	return p
}

// stage starts the clients of some workloads side by side; they end with the test.
func (b *bench) stage(t *testing.T, workloads ...setup.Workload) (plays []*play) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	var started errgroup.Group
	for _, w := range workloads {
		s, err := story.Open(b.Lab, w)
		require.NoError(t, err)
		t.Cleanup(s.Close)
		s.Dir = b.ledger(w)
		p := &play{Story: s, t: t, bench: b}
		t.Cleanup(func() { p.t = t; p.leave() })
		plays = append(plays, p)
		started.Go(func() error { return b.StartClients(ctx, w) })
	}
	require.NoError(t, started.Wait())
	return plays
}

// context bounds a run: no scenario keeps a run up for longer. Connectors whose source is dead need minutes beside others.
func (p *play) context() (context.Context, context.CancelFunc) {
	bound := 8 * patience
	if p.page == mirrored {
		bound *= 2
	}
	return context.WithTimeout(p.t.Context(), bound)
}

func (p *play) flows(ctx context.Context, cluster string, since time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	return p.Flows(ctx, cluster, since, 10)
}

// rewrite changes the runbook before the run takes its snapshot.
func (p *play) rewrite(change func(*runbooks.Runbook)) {
	p.t.Helper()
	file := p.bench.RunbookFile(p.Workload.Name)
	raw, err := os.ReadFile(file)
	require.NoError(p.t, err)
	var book runbooks.Runbook
	require.NoError(p.t, yaml.Unmarshal(raw, &book))
	change(&book)
	raw, err = yaml.Marshal(book)
	require.NoError(p.t, err)
	require.NoError(p.t, os.WriteFile(file, raw, 0o600))
}

func approvals(n int) func(*runbooks.Runbook) {
	return func(b *runbooks.Runbook) { b.Gates.Planned.Approvals, b.Gates.Approvers = n, nil }
}

// leave ends the clients, and makes the lab ready for the next workload.
func (p *play) leave() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if p.t.Failed() {
		p.describe(ctx)
		_ = p.bench.StopClients(ctx, p.Workload) // the lab is given up
		return
	}
	require.NoError(p.t, p.bench.StopClients(ctx, p.Workload))
	p.tidy(ctx)
}

// describe says how far the run was, and what the worker said.
func (p *play) describe(ctx context.Context) {
	if p.run != nil {
		status, err := p.Status(ctx, p.run.GetID())
		raw, _ := json.MarshalIndent(status, "", " ")
		p.t.Logf("the run: %v\n%s", err, raw)
		now, err := p.Temporal.DescribeWorkflowExecution(ctx, p.run.GetID(), "")
		for _, a := range now.GetPendingActivities() {
			p.t.Logf("activity %s, attempt %d, says %v; its last failure: %s (%v)", a.GetActivityType().GetName(), a.GetAttempt(), a.GetHeartbeatDetails(), a.GetLastFailure().GetMessage(), err)
		}
	}
	p.t.Log(p.bench.logs("worker", "link", p.Workload.Name))
}

// start starts the run. An unplanned one is approved as soon as it asks for it, whatever happens meanwhile; a link that is to
// refuse it does so only then, because an assessment that hears of it forbids the run.
func (p *play) start(ctx context.Context) {
	p.t.Helper()
	if p.page == planned {
		run, err := p.Plan(ctx, "planned-"+p.Workload.Name, "west")
		require.NoError(p.t, err)
		p.run = run
		return
	}
	run, err := p.PlanUnplanned(ctx, "unplanned-"+p.Workload.Name, "west", p.gone)
	require.NoError(p.t, err)
	p.run = run
	if p.refused {
		require.NoError(p.t, p.Reaches(ctx, run.GetID(), string(workflows.Approve)))
		p.t.Cleanup(p.refuse())
	}
	approved := make(chan error, 1)
	go func() { approved <- p.Approve(ctx, run.GetID()) }()
	p.approved = func() error { return <-approved }
}

// crash waits for the point and lets happen what is to happen there.
func (p *play) crash(ctx context.Context, sc scenario) {
	p.t.Helper()
	if sc.crash != nil {
		reaching, cancel := context.WithTimeout(ctx, 4*patience)
		defer cancel()
		require.NoError(p.t, p.bench.reached(reaching, sc.point))
		p.step = p.at(ctx)
		sc.crash(p)
		return
	}
	p.dies(ctx, sc.point)
	p.bench.again(p.t, "worker")
	p.step = sc.point
}

// dies waits until the worker was killed at a point.
func (p *play) dies(ctx context.Context, point string) {
	p.t.Helper()
	reaching, cancel := context.WithTimeout(ctx, 4*patience)
	defer cancel()
	require.NoError(p.t, p.bench.reached(reaching, point))
	_, err := p.bench.Wait(ctx, "worker")
	require.NoError(p.t, err)
	require.NoError(p.t, p.bench.goOn(point))
}

// at is the step at which the run is: a step that runs beside others counts by its activity's name in the table.
func (p *play) at(ctx context.Context) string {
	status, err := p.Status(ctx, p.run.GetID())
	if err != nil {
		return "?"
	}
	var running []string
	for _, rows := range [][]workflows.StepStatus{status.Steps, status.Closing} {
		for _, row := range rows {
			if row.State == workflows.Running {
				running = append(running, string(row.Step))
			}
		}
	}
	return strings.Join(running, "+")
}

// judged ends the traffic and has the ledger judge.
func (p *play) judged(ctx context.Context, active string, r workflows.Result) ledger.Verdict {
	p.t.Helper()
	stands, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	settle := p.Settle
	if p.page != planned { // what is lost is never read
		settle = func(ctx context.Context) error { return p.SettleOn(ctx, active) }
	}
	require.NoError(p.t, settle(stands))
	v, err := p.Judge(ctx, active, r.Report)
	require.NoError(p.t, err)
	require.True(p.t, v.Well() && v.Agrees, "%s\n%s", v, strings.Join(v.Disagreements, "\n"))
	return v
}
