//go:build crash

package crash

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"flag"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"
	"google.golang.org/protobuf/encoding/protojson"

	"switchback/lab/linkservice"
	"switchback/lab/setup"
	"switchback/runbooks"
	"switchback/workflows"
)

var record = flag.Bool("record", false, "write the histories of these runs to workflows/testdata/history")

const histories = "../../workflows/testdata/history"

// Every way in which a run can end is recorded, and replayed with the code of today. -record keeps the histories for the
// code of tomorrow: a change that cannot replay one of them would leave a run standing behind its fence.
func TestHistories(t *testing.T) {
	t.Parallel()
	for name, tell := range map[string]func(p *play, ctx context.Context){
		"completed":   func(p *play, ctx context.Context) { p.start(ctx) },
		"rolled-back": rolledBack, "parked-then-retried": parkedThenRetried,
		"aborted": aborted, "rejected": rejected, "approved-after-a-hold": approvedAfterAHold, "worker-killed": workerKilled,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := stage(t)
			line := results.line(t, scenario{})
			ctx, done := p.context()
			defer done()
			tell(p, ctx)
			result, err := p.Ends(ctx, p.run)
			require.NoError(t, err)
			line.outcome = result.Outcome
			want := map[string]string{"rolled-back": workflows.RolledBack, "aborted": workflows.Aborted, "rejected": workflows.Rejected}[name]
			if want == "" {
				want = workflows.Completed
			}
			require.Equal(t, want, result.Outcome, result.Sentence)
			p.keep(ctx, p.run.GetID(), name)
			if name == "completed" {
				p.keep(ctx, "runbook/"+p.Workload.Name, "entity-of-a-runbook")
			}
		})
	}
}

// Unplanned runs, and what outlives them. Their old cluster answers, so that nothing but the run is in the history.
func TestHistoriesOfUnplannedRuns(t *testing.T) {
	t.Parallel()
	for name, tell := range map[string]struct {
		play func(p *play, ctx context.Context)
		want string
	}{
		"unplanned-fenced":              {func(p *play, ctx context.Context) { p.start(ctx) }, workflows.Completed},
		"unplanned-rolled-back":         {func(p *play, ctx context.Context) { p.refused = true; p.start(ctx) }, workflows.RolledBack},
		"unplanned-aborted":             {abortedWhileFencing, workflows.Aborted},
		"unplanned-parked-then-retried": {stuckThenRetried, workflows.Completed},
		"unplanned-rejected":            {unplannedRejected, workflows.Rejected},
		"escalated":                     {escalated, workflows.Completed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := stage(t)
			p.page = unplanned
			line := results.line(t, scenario{page: unplanned, crash: func(*play) {}, point: "-"})
			ctx, done := p.context()
			defer done()
			tell.play(p, ctx)
			result, err := p.Ends(ctx, p.run)
			require.NoError(t, err)
			line.outcome = result.Outcome
			require.Equal(t, tell.want, result.Outcome, result.Sentence)
			p.keep(ctx, p.run.GetID(), name)
		})
	}
	t.Run("of a dead cluster", func(t *testing.T) {
		t.Parallel()
		b, workloads := take(t, 2)
		d := &disaster{t: t, bench: b, page: forsaken}
		d.play(workloads, []string{"", "HandOverLastKnown/middle"}, 0)
		d.keeps("unplanned-completed", "unplanned-worker-killed")
		ctx, done := d.plays[0].context()
		defer done()
		d.plays[0].keep(ctx, "fence/"+workloads[0].Name+"/east", "fence-when-reachable")
		d.plays[0].keep(ctx, "runbook/"+workloads[0].Name, "entity-with-a-fence")
	})
	t.Run("discovery entry out of reach", func(t *testing.T) {
		t.Parallel()
		p, reach := stageWithOptionalEntry(t)
		ctx, done := p.context()
		defer done()
		p.start(ctx)
		result, err := p.Ends(ctx, p.run)
		require.NoError(t, err)
		require.Equal(t, workflows.Completed, result.Outcome, result.Sentence)
		require.Contains(t, strings.Join(result.Deviations, "; "), "goes on until they do")
		reach()
		align := "align/" + p.Workload.Name
		require.NoError(t, p.Temporal.GetWorkflow(ctx, align, "").Get(ctx, nil))
		p.keep(ctx, align, "align-discovery")
	})
}

// keeps keeps the histories of the runs of a disaster in their order.
func (d *disaster) keeps(names ...string) {
	d.t.Helper()
	for i, name := range names {
		d.plays[i].t = d.t
		ctx, done := d.plays[i].context()
		d.plays[i].keep(ctx, d.plays[i].run.GetID(), name)
		done()
	}
}

// stageWithOptionalEntry is a workload with a second discovery entry, which is out of reach until the function is called. It
// is that of another workload, whose clients do not run.
func stageWithOptionalEntry(t *testing.T) (p *play, reach func()) {
	t.Helper()
	b, workloads := take(t, 2)
	target, err := url.Parse(b.ConsulURL())
	require.NoError(t, err)
	through := httputil.NewSingleHostReverseProxy(target)
	var open atomic.Bool
	way := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !open.Load() {
			panic(http.ErrAbortHandler)
		}
		through.ServeHTTP(w, r)
	}))
	t.Cleanup(way.Close)
	p = b.stage(t, workloads[0])[0]
	p.page = unplanned
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, p.flows(ctx, "east", time.Time{}), "traffic on east")
	p.rewrite(func(r *runbooks.Runbook) {
		other := r.Discovery[0]
		other.Required, other.Consul.Address, other.Consul.Prefix = false, way.URL, setup.Prefix(workloads[1].Name)
		r.Discovery = append(r.Discovery, other)
	})
	return p, func() { open.Store(true) }
}

// abortedWhileFencing goes back with clients stopped, the fence made and the syncs suspended.
func abortedWhileFencing(p *play, ctx context.Context) {
	p.bench.order(p.t, "hold", "RaiseReachable/middle", 0)
	p.start(ctx)
	require.NoError(p.t, p.bench.reached(ctx, "RaiseReachable/middle"))
	p.order(ctx, workflows.UpdateAbort)
	require.NoError(p.t, p.bench.goOn("RaiseReachable/middle"))
}

// stuckThenRetried hangs behind the point of no return until somebody has mended the link.
func stuckThenRetried(p *play, ctx context.Context) {
	p.rewrite(func(b *runbooks.Runbook) { b.Budgets.Promote = runbooks.Duration(6 * time.Second) })
	mend := p.bench.fault(p.t, linkservice.Fault{ID: "stuck " + p.Workload.Name, Kind: "stuck", Topic: p.Workload.TopicNames()[1]})
	p.start(ctx)
	require.NoError(p.t, p.Reaches(ctx, p.run.GetID(), "parked"))
	mend()
	p.order(ctx, workflows.UpdateRetry)
}

func unplannedRejected(p *play, ctx context.Context) {
	run, err := p.PlanUnplanned(ctx, "unplanned-"+p.Workload.Name, "west", time.Time{})
	require.NoError(p.t, err)
	p.run = run
	require.NoError(p.t, p.Reaches(ctx, run.GetID(), string(workflows.Approve)))
	p.order(ctx, workflows.UpdateReject)
}

// escalated begins as a planned run, which is turned while it drains.
func escalated(p *play, ctx context.Context) {
	p.page = planned
	p.bench.order(p.t, "hold", "Drain/middle", 0)
	p.start(ctx)
	require.NoError(p.t, p.bench.reached(ctx, "Drain/middle"))
	_, err := p.Order(ctx, p.run.GetID(), workflows.UpdateEscalate, workflows.Order{By: setup.Requester, Reason: "exercise"})
	require.NoError(p.t, err)
	require.NoError(p.t, p.bench.goOn("Drain/middle"))
	require.NoError(p.t, p.Approve(ctx, p.run.GetID()))
}

// refuse makes the link refuse to promote one topic, or to fail any of them over: an unplanned run goes without those that
// are refused, as long as there are others.
func (p *play) refuse() (remove func()) {
	call, topics := "mirrors:promote", p.Workload.TopicNames()[1:2]
	if p.page != planned {
		call, topics = "mirrors:failover", p.Workload.TopicNames()
	}
	var undo []func()
	for _, topic := range topics {
		undo = append(undo, p.bench.fault(p.t, linkservice.Fault{ID: "refused " + topic, Kind: "topicError", Path: call, Topic: topic, Status: 400, Value: "Not now"}))
	}
	return func() {
		for _, f := range undo {
			f()
		}
	}
}

func rolledBack(p *play, ctx context.Context) {
	p.t.Cleanup(p.refuse())
	p.start(ctx)
}

// parkedThenRetried hangs behind the point of no return until somebody has mended the link.
func parkedThenRetried(p *play, ctx context.Context) {
	p.rewrite(func(b *runbooks.Runbook) { b.Budgets.Promote = runbooks.Duration(6 * time.Second) })
	mend := p.bench.fault(p.t, linkservice.Fault{ID: "stuck", Kind: "stuck", Topic: p.Workload.TopicNames()[1]})
	p.start(ctx)
	require.NoError(p.t, p.Reaches(ctx, p.run.GetID(), "parked"))
	mend()
	p.order(ctx, workflows.UpdateRetry)
}

func aborted(p *play, ctx context.Context) {
	p.bench.order(p.t, "hold", "Drain/middle", 0)
	p.start(ctx)
	require.NoError(p.t, p.bench.reached(ctx, "Drain/middle"))
	p.order(ctx, workflows.UpdateAbort)
	require.NoError(p.t, p.bench.goOn("Drain/middle"))
}

func rejected(p *play, ctx context.Context) {
	p.rewrite(approvals(1))
	p.start(ctx)
	require.NoError(p.t, p.Reaches(ctx, p.run.GetID(), string(workflows.Approve)))
	p.order(ctx, workflows.UpdateReject)
}

func approvedAfterAHold(p *play, ctx context.Context) {
	p.rewrite(approvals(1))
	p.start(ctx)
	require.NoError(p.t, p.Reaches(ctx, p.run.GetID(), string(workflows.Approve)))
	p.order(ctx, workflows.UpdateHold)
	p.order(ctx, workflows.UpdateApprove)
	require.NoError(p.t, p.Reaches(ctx, p.run.GetID(), "held"))
	p.order(ctx, workflows.UpdateResume)
}

func workerKilled(p *play, ctx context.Context) {
	p.bench.order(p.t, "kill", "HandOver/middle", 0)
	p.start(ctx)
	p.crash(ctx, scenario{point: "HandOver/middle"})
}

func (p *play) order(ctx context.Context, order string) {
	p.t.Helper()
	_, err := p.Order(ctx, p.run.GetID(), order, workflows.Order{By: "ann", Reason: "exercise"})
	require.NoError(p.t, err)
}

// keep replays a history, and records it when that is asked for.
func (p *play) keep(ctx context.Context, id, name string) {
	p.t.Helper()
	var events []string
	history := p.Temporal.GetWorkflowHistory(ctx, id, "", false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for history.HasNext() {
		event, err := history.Next()
		require.NoError(p.t, err)
		raw, err := protojson.Marshal(event)
		require.NoError(p.t, err)
		events = append(events, p.bench.elsewhere(p.t, raw))
	}
	text := "{\"events\":[\n" + strings.Join(events, ",\n") + "\n]}\n"
	for _, secret := range p.bench.Secrets() {
		require.NotContains(p.t, text, secret.Reveal(), "a secret is in the history of %s", name)
	}
	folder := p.t.TempDir()
	if *record {
		folder = histories
		require.NoError(p.t, os.MkdirAll(folder, 0o750))
	}
	file := filepath.Join(folder, name+".json")
	require.NoError(p.t, os.WriteFile(file, []byte(text), 0o600))
	replayer := worker.NewWorkflowReplayer()
	workflows.Register(replayer)
	whole, err := client.HistoryFromJSON(strings.NewReader(text), client.HistoryJSONOptions{})
	require.NoError(p.t, err)
	as := worker.ReplayWorkflowHistoryOptions{OriginalExecution: workflow.Execution{ID: id}} // the ids of runs within a run begin with it
	require.NoError(p.t, replayer.ReplayWorkflowHistoryWithOptions(nil, whole, as), "replay the history of %s", name)
	p.t.Logf("%s: %d events, %d KB", name, len(events), len(text)>>10)
}

// elsewhere takes out of an event where it was recorded: the folder, and the machine that each identity names.
func (b *bench) elsewhere(t *testing.T, raw []byte) string {
	t.Helper()
	var event any
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	require.NoError(t, d.Decode(&event))
	clean := strings.NewReplacer(b.root, "/var/lib", b.TemporalAddress(), "temporal:7233")
	var walk func(key string, v any) any
	walk = func(key string, v any) any {
		switch v := v.(type) {
		case map[string]any:
			for k, inner := range v {
				v[k] = walk(k, inner)
			}
		case []any:
			for i, inner := range v {
				v[i] = walk(key, inner)
			}
		case string:
			switch key {
			case "identity":
				return "worker"
			case "stackTrace":
				return ""
			case "data":
				data, err := base64.StdEncoding.DecodeString(v)
				require.NoError(t, err, "a payload: %s", v)
				for _, secret := range b.Secrets() {
					require.NotContains(t, string(data), secret.Reveal(), "a secret is in a payload")
				}
				return base64.StdEncoding.EncodeToString([]byte(clean.Replace(string(data))))
			}
			return clean.Replace(v)
		}
		return v
	}
	out, err := json.Marshal(walk("", event))
	require.NoError(t, err)
	require.NotContains(t, string(out), b.root)
	return string(out)
}
