//go:build crash

package crash

import (
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/worker"
	"google.golang.org/protobuf/encoding/protojson"

	"switchback/lab/linkservice"
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

// refuse makes the link refuse to promote one topic.
func (p *play) refuse() (remove func()) {
	return p.bench.fault(p.t, linkservice.Fault{
		ID: "refused", Kind: "topicError", Path: "mirrors:promote", Topic: p.Workload.TopicNames()[1], Status: 400, Value: "Not now",
	})
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
	require.NoError(p.t, replayer.ReplayWorkflowHistoryFromJSONFile(nil, file), "replay the history of %s", name)
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
