package report

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/invopop/jsonschema"
	validator "github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/stretchr/testify/require"

	"switchback/runbooks"
)

var update = flag.Bool("update", false, "write the golden files anew")

var start = time.Date(2026, 3, 3, 2, 59, 0, 0, time.UTC)

func at(s int) *time.Time { t := start.Add(time.Duration(s) * time.Second); return &t }

func ptr[T any](v T) *T { return &v }

// completed is a planned failover in which all went well, but for one skip.
func completed() Report {
	r := Report{
		Runbook: "orders", Kind: KindPlanned, Run: Run{"orders-2026-03-03", "0195-run"}, From: "east", To: "west",
		Reason: "quarterly exercise", RequestedBy: "operator", SnapshotSHA256: strings.Repeat("ab", 32),
		Outcome: Completed, OutcomeReason: "orders is on west since 02:59:14 UTC.", Epoch: Epoch{ptr(int64(7)), ptr(int64(8))},
		Started: start, Ended: start.Add(92 * time.Second),
		Decisions: []Decision{{"approve", "lead", "", *at(2)}, {"skip", "operator", "dashboards lag", *at(80)}},
		Findings: []Finding{
			{"link", OK, "link east-west is healthy", ""},
			{"way back", Warning, "the link goes one way", "plan a copy before going home"},
		},
		Offsets: []GroupOffset{
			{"billing", "orders", 0, Offset(40), Offset(40), "exact", true},
			{"billing", "orders", 1, Offset(-1), Offset(0), "exact", true},
		},
		SwitchWindow: SwitchWindow{
			Clients:          []ClientWindow{{"checkout", "producer", at(5), at(6), ptr(0.84)}, {"billing", "consumer", at(4), at(7), ptr(3.1)}},
			ProducersSeconds: ptr(0.84), ConsumersSeconds: ptr(3.1), CanarySeconds: ptr(1.2),
		},
		Objectives: Objectives{300, 30, 1000}, RTO: Measured{ptr(0.84), ptr(true)},
		RPO: RPO{ptr(int64(0)), true, ptr(true), "every partition was equal before it was promoted"}, Protection: Protection{at(14), "", "nothing mirrors west to east"},
		Deviations: []string{"verify was skipped by operator: dashboards lag"},
		Standing:   []string{"DENY WRITE on 1 topic of east for User:*, so that nobody writes there by mistake"},
	}
	for i, name := range runbooks.PlannedFailoverSteps {
		r.Steps = append(r.Steps, Step{name, StepDone, at(i), ptr(0.5), ptr(60.0), "done", 1})
	}
	r.Steps[1].BudgetSeconds = nil
	r.Steps[13].Status, r.Steps[13].Result = StepSkipped, "skipped by operator"
	for i := range int32(2) {
		r.Positions = append(r.Positions, PartitionPosition{"orders", i, Offset(100), Offset(100), Offset(100)})
	}
	return r
}

func rolledBack() Report {
	r := completed()
	r.Outcome, r.OutcomeReason = RolledBack, "drain did not end within 2m0s: orders[1] lacks 12 records."
	r.Epoch.After, r.SwitchWindow, r.RTO, r.Offsets, r.Protection = nil, SwitchWindow{}, Measured{}, nil, Protection{nil, "link east-west", ""}
	r.Deviations, r.Standing, r.Decisions = nil, nil, r.Decisions[:1]
	for i := range r.Steps {
		switch {
		case i > 6:
			r.Steps[i] = Step{Name: r.Steps[i].Name, Status: StepNotReached}
		case i == 6:
			r.Steps[i].Status, r.Steps[i].Result, r.Steps[i].Attempts = StepFailed, "orders[1] lacks 12 records", 2
		case i > 1:
			r.Steps[i].Status = StepRolledBack
		}
	}
	r.Positions[1].TargetEnd, r.Positions[0].Mark, r.Positions[1].Mark = Offset(88), nil, nil
	return r
}

func failed() Report {
	r := large(10, 6)
	r.Outcome, r.OutcomeReason = Failed, "escalated by operator; the source did not answer."
	r.RPO = RPO{nil, false, nil, "at least 12 records, open until east is fenced"}
	r.Positions[3].SourceEnd = nil
	r.Offsets[4].Target, r.Offsets[4].ReadBack, r.Offsets[4].Proof = nil, false, "up to 5 behind"
	r.Steps[9].Status, r.Steps[9].Result = StepFailed, "mirror of topic-3 says FAILED"
	return r
}

func large(topics, partitions int) Report {
	r := completed()
	r.Positions, r.Offsets, r.Details = nil, nil, "reports/orders/0195-run.json"
	for i := range topics {
		for p := range partitions {
			r.Positions = append(r.Positions, PartitionPosition{fmt.Sprintf("topic-%d", i), int32(p), Offset(100), Offset(100), Offset(100)})
			r.Offsets = append(r.Offsets, GroupOffset{fmt.Sprintf("group-%d", i%7), fmt.Sprintf("topic-%d", i), int32(p), Offset(9), Offset(9), "exact", true})
		}
	}
	return r
}

// unplanned is one whose old cluster nobody has fenced yet.
func unplanned() Report {
	r := completed()
	r.Kind, r.Run.WorkflowID, r.Reason, r.OutcomeReason = KindUnplanned, "unplanned-orders", "east is gone", "orders runs on west at epoch 8, loss: at least 17 records, open."
	r.Earlier, r.Steps = r.Steps[:4], nil
	for i, name := range runbooks.UnplannedFailoverSteps {
		r.Steps = append(r.Steps, Step{name, StepDone, at(i), ptr(0.5), ptr(60.0), "done", 1})
	}
	r.Loss = &Loss{
		AtLeast: 17, Open: true, Estimate: ptr(int64(40)), Bytes: ptr(int64(1700)), Seconds: ptr(4.2), Why: "2 of 2 partitions sampled 4 s before the outage",
		Topics: []TopicLoss{{Topic: "orders", AtLeast: 17, Estimate: ptr(int64(40)), Bytes: ptr(int64(1700)), Seconds: ptr(4.2), Why: "sampled"}},
	}
	r.RPO = RPO{Met: ptr(true), Text: "at least 17 records, about 40 by estimate, and open"}
	r.RPO.Met = nil
	r.Recovery = &Recovery{Outage: at(-180), DetectionSeconds: ptr(100.0), DecisionSeconds: ptr(80.0), RunSeconds: ptr(2.4), Text: "as operator said"}
	r.RTO = Measured{ptr(182.4), ptr(true)}
	r.Positions = []PartitionPosition{
		{"orders", 0, Offset(100), Offset(90), Offset(90)}, {"orders", 1, Offset(50), Offset(50), Offset(50)}, {"orders", 2, nil, Offset(7), Offset(7)},
	}
	r.Standing = []string{"east is not fenced: whoever is cut off may write there, and that is lost. fence/orders/east fences it as soon as it answers"}
	r.Deviations = []string{"began as a planned failover and was escalated by lead: east is gone"}
	return r
}

// counted is unplanned once its old cluster was fenced and read.
func counted() Report {
	l := Loss{AtLeast: 22, AtMost: ptr(int64(22)), Seconds: ptr(4.2), Why: "compared behind the fence",
		Topics: []TopicLoss{{Topic: "orders", AtLeast: 22, AtMost: ptr(int64(22)), Why: "compared behind the fence"}}}
	return unplanned().Close(l, *at(90000), "fence/orders/east")
}

var goldens = map[string]func() Report{
	"unplanned": unplanned, "unplanned-closed": counted,
	"completed": completed, "rolled-back": rolledBack, "failed": failed,
	"compact": func() Report { return large(40, 10).Compact(16 << 10) },
	"empty":   func() Report { return Report{Runbook: "orders", Kind: KindPlanned, Outcome: Rejected} },
}

func TestGolden(t *testing.T) {
	for name, build := range goldens {
		data, err := build().JSON()
		require.NoError(t, err)
		for file, got := range map[string]string{name + ".md": build().Markdown(), name + ".json": string(data)} {
			path := filepath.Join("testdata", file)
			if *update {
				require.NoError(t, os.MkdirAll("testdata", 0o700))
				require.NoError(t, os.WriteFile(path, []byte(got), 0o600))
			}
			want, err := os.ReadFile(path)
			require.NoError(t, err)
			require.Equal(t, string(want), got, "%s; go test ./report -update writes it anew", path)
		}
	}
}

// The number that a fence closed stands in the place of the open one, is held against the objectives, and says when it was
// counted; what the fence has done stands no more. A run that did not go over lost nothing.
func TestP38_ClosedLossReplacesTheOpenOne(t *testing.T) {
	r, open := counted(), unplanned()
	require.True(t, open.Loss.Open, "the report that was closed stays as it was")
	require.False(t, r.Loss.Open)
	require.Equal(t, at(90000), r.Loss.ClosedAt)
	require.Equal(t, RPO{Records: ptr(int64(22)), Known: true, Met: ptr(true), Text: "compared behind the fence"}, r.RPO)
	require.Equal(t, []string{Fenced("east")}, r.Standing)
	require.NotContains(t, r.Markdown(), "open until")
	require.Equal(t, r, r.Close(*r.Loss, *r.Loss.ClosedAt, "fence/orders/east"), "again")
	missed := open.Close(Loss{AtLeast: 1001, AtMost: ptr(int64(1001))}, *at(1), "fence/orders/east")
	require.False(t, *missed.RPO.Met)
	unbounded := open.Close(Loss{AtLeast: 3, Why: "a partition has no leader"}, *at(1), "fence/orders/east")
	require.False(t, unbounded.RPO.Known)
	require.Contains(t, unbounded.RPO.Text, "at least 3 records, and no upper bound is known")
	open.Outcome = RolledBack
	require.Equal(t, open, open.Close(*r.Loss, *at(1), "fence/orders/east"))
}

func TestSchemaIsUpToDateAndHoldsForEveryReport(t *testing.T) {
	r := jsonschema.Reflector{Anonymous: true}
	require.NoError(t, r.AddGoComments("switchback/report", "./"))
	s := r.Reflect(&Report{})
	s.Title = "Report of a run of Switchback"
	want, err := json.MarshalIndent(s, "", "  ")
	require.NoError(t, err)
	want = append(want, '\n')
	if *update {
		require.NoError(t, os.WriteFile("schema.json", want, 0o600))
	} else {
		require.Equal(t, string(want), string(Schema), "run: go test ./report -update")
	}

	doc, err := validator.UnmarshalJSON(bytes.NewReader(want))
	require.NoError(t, err)
	c := validator.NewCompiler()
	require.NoError(t, c.AddResource("report.json", doc))
	compiled, err := c.Compile("report.json")
	require.NoError(t, err)
	check := func(data []byte) error {
		v, err := validator.UnmarshalJSON(bytes.NewReader(data))
		require.NoError(t, err)
		return compiled.Validate(v)
	}
	for name, build := range goldens {
		data, err := build().JSON()
		require.NoError(t, err)
		require.NoError(t, check(data), name)
		for old, wrong := range map[string]string{`"schema": "switchback/report/v1"`: `"schema": "other"`, `"runbook":`: `"runbok":`, `"known": `: `"known": 1, "x": `} {
			require.Error(t, check(bytes.Replace(data, []byte(old), []byte(wrong), 1)), wrong)
		}
	}
}

func TestJSONComesBackAsItWas(t *testing.T) {
	for name, build := range goldens {
		data, err := build().JSON()
		require.NoError(t, err)
		back, err := Parse(data)
		require.NoError(t, err, name)
		again, err := back.JSON()
		require.NoError(t, err)
		require.Equal(t, string(data), string(again))
	}
	for _, wrong := range []string{"", "{}", `{"schema":"switchback/report/v2"}`, `{"schema":"switchback/report/v1","password":"x"}`} {
		_, err := Parse([]byte(wrong))
		require.Error(t, err, wrong)
	}
	r := completed()
	r.RTO.Seconds = ptr(math.NaN())
	_, err := r.JSON()
	require.Error(t, err)
}

func TestUnknownIsNeverZero(t *testing.T) {
	require.Nil(t, Offset(-1))
	require.Equal(t, int64(0), *Offset(0))
	r := Report{Runbook: "orders", Positions: []PartitionPosition{{Topic: "orders"}, {Topic: "orders", Partition: 1, SourceEnd: Offset(5), Mark: Offset(3)},
		{Topic: "more", SourceEnd: Offset(5), TargetEnd: Offset(6)}, {Topic: "more", Partition: 1, SourceEnd: Offset(9), TargetEnd: Offset(7)}}}
	require.Equal(t, []TopicPositions{{Topic: "orders", Partitions: 2, Behind: 1, Unknown: 1},
		{Topic: "more", Partitions: 2, Behind: 1, Ahead: 1, Missing: ptr(int64(2))}}, r.TopicSummary())
	data, err := r.JSON()
	require.NoError(t, err)
	for _, field := range []string{`"sourceEnd": null`, `"records": null`, `"producersSeconds": null`, `"seconds": null`, `"after": null`} {
		require.Contains(t, string(data), field)
	}
	text := r.Markdown()
	require.Contains(t, text, "**Loss:** unknown")
	require.Contains(t, text, "producers unknown, consumers unknown, canary unknown")
	require.Contains(t, text, "| orders | 0 | unknown | unknown | unknown |")
}

func TestMarkdownListsTheStepsInOrder(t *testing.T) {
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^\| [0-9]+ \| ([a-z-]+) \|`).FindAllStringSubmatch(completed().Markdown(), -1) {
		names = append(names, m[1])
	}
	require.Equal(t, runbooks.PlannedFailoverSteps, names)
}

func TestMarkdownEscapesWhatPeopleWrote(t *testing.T) {
	for text, want := range map[string]string{
		"plain words, a.b-c": "plain words, a.b-c", "a|b": `a\|b`, "<script>x</script>": `\<script\>x\</script\>`, "[x](http://y)": `\[x\](http://y)`,
		"# heading": `\# heading`, "two\nlines\r\n- item": "two lines - item", "1. one": `1\. one`, "- item": `\- item`, "`code`": "\\`code\\`",
		`back\slash`: `back\\slash`, "a\u202eb": "ab", "\x1b[31mred": `\[31mred`, "*bold* &amp; ~~gone~~": `\*bold\* \&amp; \~\~gone\~\~`, "": "",
	} {
		require.Equal(t, want, esc(text))
	}
	r := completed()
	evil := "x\n\n# Loss: none\n| a | b |\n<img src=x>"
	r.Reason, r.RequestedBy, r.OutcomeReason, r.From, r.To, r.Runbook = evil, evil, evil, evil, evil, evil
	r.Deviations, r.Standing, r.RPO.Text, r.Protection.Text = []string{evil}, []string{evil}, evil, evil
	r.Steps[0].Result, r.Decisions[0].By, r.Findings[1].Means, r.Offsets[0].Group, r.Positions[0].Topic = evil, evil, evil, evil, evil
	r.Offsets[0].Proof, r.SwitchWindow.Clients[0].Client, r.Kind, r.Details = evil, evil, evil, evil
	text := r.Markdown()
	require.NotContains(t, text, "\n# Loss")
	require.NotContains(t, text, "\n| a | b")
	require.NotRegexp(t, `(^|[^\\])<img`, text)
}

func TestCompactFitsAndSaysWhatItLeftOut(t *testing.T) {
	whole := large(1000, 10)
	before, err := whole.JSON()
	require.NoError(t, err)
	for _, limit := range []int{1 << 30, 256 << 10, 64 << 10, 16 << 10, 6 << 10} {
		r := whole.Compact(limit)
		data, err := json.Marshal(r)
		require.NoError(t, err)
		require.LessOrEqual(t, len(data), limit)
		require.Len(t, r.Steps, 15)
		require.Equal(t, whole.RPO, r.RPO)
		if limit == 1<<30 {
			require.Equal(t, whole, r)
			continue
		}
		require.Empty(t, r.Positions)
		total := 0
		for _, topic := range r.Topics {
			total += topic.InStep
		}
		require.Equal(t, 10_000, total)
		require.Contains(t, r.Deviations, "this copy of the report leaves out the positions of 10000 partitions; all of it is in reports/orders/0195-run.json")
	}
	long := completed()
	long.Reason = strings.Repeat("ü", 50_000)
	for range 1000 {
		long.Deviations = append(long.Deviations, strings.Repeat("x", 300))
	}
	data, err := json.Marshal(long.Compact(16 << 10))
	require.NoError(t, err)
	require.LessOrEqual(t, len(data), 16<<10)

	after, err := whole.JSON()
	require.NoError(t, err)
	require.Equal(t, string(before), string(after), "the report that was cut is as it was")
}

// TestNoFieldIsMadeForASecret reads the names of every field there is.
func TestNoFieldIsMadeForASecret(t *testing.T) {
	var walk func(reflect.Type)
	seen := map[reflect.Type]bool{}
	walk = func(typ reflect.Type) {
		for typ.Kind() == reflect.Slice || typ.Kind() == reflect.Pointer {
			typ = typ.Elem()
		}
		if typ.Kind() != reflect.Struct || seen[typ] || typ == reflect.TypeFor[time.Time]() {
			return
		}
		seen[typ] = true
		for f := range typ.Fields() {
			require.NotRegexp(t, `(?i)password|secret|token|credential|config`, f.Name)
			walk(f.Type)
		}
	}
	walk(reflect.TypeFor[Report]())
}
