//go:build crash

package crash

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
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

	"switchback/lab/ledger"
	"switchback/lab/story"
	"switchback/runbooks"
	"switchback/workflows"
)

const kmsgTopic = kmsg.ACLResourceTypeTopic

// scenario is one crash in the life of a planned failover.
type scenario struct {
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

// kind is what a line of the table is compared by.
func (s scenario) kind() kind {
	switch {
	case s.point == "":
		return plain
	case s.crash == nil:
		return killed
	}
	return other
}

// play is a scenario on its way.
type play struct {
	*story.Story
	t     *testing.T
	bench *bench
	run   client.WorkflowRun
	step  string // at which the crash happened, as the run says it
}

// ends are what stands after an undisturbed run, by outcome.
var (
	endsMu   sync.Mutex
	ends     = map[string]state{}
	baseline sync.Mutex
)

// undisturbed plays the run without a crash first, where a test is run without the one that does so anyway.
func undisturbed(t *testing.T, sc scenario) {
	t.Helper()
	baseline.Lock()
	defer baseline.Unlock()
	endsMu.Lock()
	_, known := ends[sc.outcome()]
	endsMu.Unlock()
	if !known {
		t.Run("undisturbed", func(t *testing.T) { act(t, scenario{refused: sc.refused}) })
	}
}

// act plays a scenario to its end: the outcome, the ledger, the report, and what stands are the same as undisturbed.
func act(t *testing.T, sc scenario) {
	t.Helper()
	if sc.point != "" {
		undisturbed(t, sc)
	}
	p := stage(t)
	line := results.line(t, sc)
	line.kind = sc.kind()
	ctx, done := p.context()
	defer done()
	if sc.refused {
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
	result, err := p.Ends(ctx, p.run)
	require.NoError(p.t, err, "how the run ended")
	ended := time.Now()
	require.Equal(p.t, want, result.Outcome, result.Sentence)
	active := "west"
	if result.Outcome != workflows.Completed {
		active = "east"
	}
	require.NoError(p.t, p.flows(ctx, active, ended), "traffic on %s after the run", active)
	stands := p.look(ctx, result)
	v := p.judged(ctx, active, result)
	line.window = v.SwitchWindowSeconds
	endsMu.Lock()
	plain, ok := ends[result.Outcome]
	if !ok {
		ends[result.Outcome] = stands
	}
	endsMu.Unlock()
	if ok {
		require.Equal(p.t, plain, stands, "what stands is what an undisturbed run leaves")
	}
	line.outcome = result.Outcome
	return result
}

// stage takes a lab, and lets a workload's clients work on east.
func stage(t *testing.T) *play {
	t.Helper()
	b, w := take(t)
	s, err := story.Open(b.Lab, w)
	require.NoError(t, err)
	t.Cleanup(s.Close)
	s.Dir = b.ledger(w)
	p := &play{Story: s, t: t, bench: b}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, b.StartClients(ctx, w))
	t.Cleanup(p.leave)
	require.NoError(t, p.flows(ctx, "east", time.Time{}), "traffic on east")
	return p
}

// context bounds a run: no scenario keeps a run up for longer.
func (p *play) context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(p.t.Context(), 4*patience)
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
	}
	p.t.Log(p.bench.logs("worker", "link", p.Workload.Name))
}

func (p *play) start(ctx context.Context) {
	p.t.Helper()
	run, err := p.Plan(ctx, "planned-"+p.Workload.Name, "west")
	require.NoError(p.t, err)
	p.run = run
}

// crash waits for the point and lets happen what is to happen there.
func (p *play) crash(ctx context.Context, sc scenario) {
	p.t.Helper()
	reaching, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	require.NoError(p.t, p.bench.reached(reaching, sc.point))
	if sc.crash != nil {
		p.step = p.at(ctx)
		sc.crash(p)
		return
	}
	_, err := p.bench.Wait(ctx, "worker")
	require.NoError(p.t, err)
	require.NoError(p.t, p.bench.goOn(sc.point))
	p.bench.again(p.t, "worker")
	p.step = sc.point
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
	require.NoError(p.t, p.Settle(stands))
	v, err := p.Judge(ctx, active, r.Report)
	require.NoError(p.t, err)
	require.True(p.t, v.Well() && v.Agrees, "%s\n%s", v, strings.Join(v.Disagreements, "\n"))
	return v
}

// table is what was played, for whoever wants to see what was covered.
type table struct {
	mu    sync.Mutex
	lines []*line
}

type line struct {
	test, point, step, outcome string
	kind                       kind
	window                     *float64 // seconds; nil when nobody switched
}

// kind says what a switch window tells: how long it is undisturbed, or with the worker's death.
type kind int

const (
	other kind = iota
	plain
	killed
)

// cost is how many seconds longer the switch window was than that of an undisturbed run with the same outcome.
func (r *table) cost(l *line) (float64, bool) {
	if l.kind != killed || l.window == nil {
		return 0, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.lines {
		if p.kind == plain && p.outcome == l.outcome && p.window != nil {
			return *l.window - *p.window, true
		}
	}
	return 0, false
}

var results table

func (r *table) line(t *testing.T, sc scenario) *line {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := &line{test: t.Name(), point: sc.point, outcome: "FAILED"}
	r.lines = append(r.lines, l)
	return l
}

// keep appends it to out/crash.txt, because whoever runs many packages sees nothing of one that passes.
func (r *table) keep() error {
	if err := os.MkdirAll("../../out", 0o750); err != nil {
		return err
	}
	f, err := os.OpenFile("../../out/crash.txt", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	r.print(f)
	return f.Close()
}

func (r *table) print(w io.Writer) {
	if len(r.lines) == 0 {
		return
	}
	slices.SortFunc(r.lines, func(a, b *line) int { return strings.Compare(a.test, b.test) })
	fmt.Fprintf(w, "\n%-72s %-20s %-32s %-12s %-16s %s\n", "scenario", "crash at", "the run was at", "outcome", "switch window", "cost")
	for _, l := range r.lines {
		window := "nobody switched"
		if l.window != nil {
			window = fmt.Sprintf("%.2f s", *l.window)
		}
		text := fmt.Sprintf("%-72s %-20s %-32s %-12s %-16s", l.test, l.point, l.step, l.outcome, window)
		if cost, ok := r.cost(l); ok {
			text += fmt.Sprintf(" %.2f s", max(cost, 0))
		}
		fmt.Fprintln(w, strings.TrimRight(text, " "))
	}
	fmt.Fprint(w, r.worst())
}

// worst says what a worker's death cost at most, from the clients' own ledgers.
func (r *table) worst() string {
	var at *line
	most, deaths := 0.0, 0
	for _, l := range r.lines {
		cost, ok := r.cost(l)
		if !ok {
			continue
		}
		if deaths++; at == nil || cost > most {
			at, most = l, cost
		}
	}
	if at == nil {
		return ""
	}
	return fmt.Sprintf("\nThe worker was killed at %d points. It cost the producers at most %.2f s: a switch window of %.2f s (killed at %s) instead of %.2f s.\n",
		deaths, most, *at.window, at.point, *at.window-most)
}
