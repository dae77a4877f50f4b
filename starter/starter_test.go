package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jedib0t/go-pretty/v6/text"
	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"switchback/activities"
	"switchback/report"
	"switchback/workflows"
)

func moment(after time.Duration) *time.Time { m := at.Add(after); return &m }

// running is a run in the middle, with one of everything that a status can show.
func running() workflows.Status {
	return workflows.Status{
		Run: activities.Run{Runbook: "orders", WorkflowID: "planned-orders", FirstRunID: "r1"}, Workflow: "PlannedFailover",
		Runbook: "orders", From: "east", To: "west", Reason: "maintenance", By: "ann", Phase: "drain", WaitsFor: "drain", Epoch: 4, NextEpoch: 5, Started: at,
		Steps: []workflows.StepStatus{
			{Step: workflows.Preflight, State: workflows.Done, Started: moment(0), Ended: moment(1500 * time.Millisecond), BudgetSeconds: 120, Tries: 1, Text: "12 checks, 1 warning"},
			{Step: workflows.Drain, State: workflows.Running, Started: moment(2 * time.Second), BudgetSeconds: 300, Tries: 1},
			{Step: workflows.Promote, State: workflows.Waiting, BudgetSeconds: 60},
		},
		Findings:   []activities.Finding{{Check: "clocks", Level: "warning", Means: "west is 2 s ahead", Do: "look at its time server"}},
		Decisions:  []workflows.Decision{{At: at, What: "approve", By: "bob", Reason: "agreed"}},
		Deviations: []string{"keep-marks was skipped"},
	}
}

func completed() workflows.Status {
	s := running()
	s.Phase, s.Outcome, s.Sentence, s.Final, s.Ended = workflows.Completed, workflows.Completed, "orders is on west", true, at.Add(9*time.Second)
	s.Steps[1].State, s.Steps[1].Ended = workflows.Done, moment(4*time.Second)
	return s
}

func result(outcome string) workflows.Result {
	return workflows.Result{Run: "planned-orders/r1", Runbook: "orders", Outcome: outcome, Sentence: "how it went", From: "east", To: "west", Epoch: 5, Markdown: "reports/orders.md"}
}

func aPlan() workflows.Plan {
	return workflows.Plan{
		Runbook: "orders", SHA256: "0123456789abcdef", From: "east", To: "west", Epoch: 4, NextEpoch: 5, Free: true, GoesIfNow: true, Objectives: "RTO 5m0s, RPO 0 records",
		Preflight: activities.PreflightResult{Topics: 2, Partitions: 12, Groups: 1, Findings: []activities.Finding{
			{Check: "reach", Level: "ok", Means: "both clusters answer"},
			{Check: "clocks", Level: "warning", Means: "west is 2 s ahead", Do: "look at its time server"},
		}},
		Steps: []workflows.PlannedStep{{Step: workflows.Preflight, BudgetSeconds: 120, Would: "check everything"}, {Step: workflows.Drain, BudgetSeconds: 300, Would: "wait for west"}},
	}
}

func TestValidate(t *testing.T) {
	right, wrong := "../runbooks/examples/orders.yaml", filepath.Join(t.TempDir(), "wrong.yaml")
	data, err := os.ReadFile(right)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(wrong, []byte(strings.Replace(string(data), "home: east", "home: moon", 1)), 0o600))

	a := newFake().ask(t, "validate", right)
	require.Equal(t, 0, a.code, a.err)
	require.Contains(t, a.out, right+": runbook orders is right (sha256 ")

	a = newFake().ask(t, "validate", right, wrong)
	require.Equal(t, 1, a.code)
	require.Contains(t, a.out, "runbook orders is right")
	require.Regexp(t, `wrong\.yaml:\d+:\d+: home: .*moon`, a.err)

	a = newFake().ask(t, "validate", "-o", "json", wrong, "/nonexistent.yaml")
	require.Equal(t, 1, a.code)
	require.Contains(t, a.out, `"error": "`+wrong)
	require.Contains(t, a.out, "no such file")
	require.Empty(t, a.err)

	from := func(text string) func(*cli) { return func(c *cli) { c.stdin = strings.NewReader(text) } }
	a = newFake().asked(t, from(string(data)), "validate", "-")
	require.Equal(t, 0, a.code, a.err)
	a = newFake().asked(t, from("kind: Nothing"), "validate", "-")
	require.Equal(t, 1, a.code)
	require.Contains(t, a.err, "standard input:1:")
}

func TestPlanPlanned(t *testing.T) {
	f := newFake()
	f.result = aPlan()
	a := f.ask(t, "plan", "planned", "orders", "--to", "west")
	require.Equal(t, 0, a.code, a.err)
	golden(t, "plan.txt", a.out)
	require.Equal(t, workflows.PlannedInput{Runbook: "orders", To: "west"}, f.inputs[0])
	require.Equal(t, "plan-orders-20260314-030000.000", f.started[0].ID)
	require.Equal(t, "switchback", f.started[0].TaskQueue)
	a = f.ask(t, "plan", "planned", "orders", "--to", "west", "-o", "json")
	goldenJSON(t, "plan.json", a.out)
	require.Contains(t, f.ask(t, "plan", "planned", "orders", "--to", "west", "--all").out, "both clusters answer")

	bad := aPlan()
	bad.GoesIfNow, bad.Problems = false, 1
	bad.Preflight.Findings = append(bad.Preflight.Findings, activities.Finding{Check: "grants", Level: "problem", Means: "checkout may not write on west", Do: "grant WRITE"})
	f.result = bad
	a = f.ask(t, "plan", "planned", "orders", "--to", "west")
	require.Equal(t, 1, a.code)
	golden(t, "plan-problem.txt", a.out)

	bad.Problems, bad.HeldBy = 0, &activities.Holder{Run: activities.Run{WorkflowID: "other", FirstRunID: "r9"}, Since: at}
	f.result = bad
	a = f.ask(t, "plan", "planned", "orders", "--to", "west")
	require.Equal(t, 1, a.code)
	require.Contains(t, a.out, "the runbook is held by other/r9 since 2026-03-14T03:00:00Z")

	f.result = temporal.NewApplicationError("runbook orders: there is no such file", "NotFound")
	a = f.ask(t, "plan", "planned", "orders", "--to", "west")
	require.Equal(t, 1, a.code)
	require.Equal(t, "switchback: runbook orders: there is no such file\n", a.err)

	f.workers = 0
	a = f.ask(t, "plan", "planned", "orders", "--to", "west")
	require.Equal(t, 1, a.code)
	require.Contains(t, a.err, "no worker polls the task queue switchback in namespace default: start one")
}

func TestStartPlanned(t *testing.T) {
	start := []string{"start", "planned", "orders", "--to", "west", "--reason", "maintenance"}
	f := newFake()
	a := f.ask(t, start...)
	require.Equal(t, 0, a.code, a.err)
	require.Equal(t, "Started planned-orders-20260314-030000\nFollow it:  switchback status planned-orders-20260314-030000 --watch\n", a.out)
	require.Equal(t, workflows.PlannedInput{Runbook: "orders", To: "west", Reason: "maintenance", By: "ann"}, f.inputs[0])
	require.True(t, f.started[0].WorkflowExecutionErrorWhenAlreadyStarted)
	require.Equal(t, enumspb.WORKFLOW_ID_CONFLICT_POLICY_FAIL, f.started[0].WorkflowIDConflictPolicy)
	require.Equal(t, "orders to west: maintenance", f.started[0].StaticSummary)
	require.Equal(t, activities.TaskTimeout, f.started[0].WorkflowTaskTimeout, "a worker that dies while it decides costs the window no more")

	a = f.ask(t, append(start, "-o", "json", "--workflow-id", "mine", "--from", "east", "--by", "eve", "--task-queue", "other")...)
	goldenJSON(t, "start.json", a.out)
	require.Equal(t, workflows.PlannedInput{Runbook: "orders", To: "west", From: "east", Reason: "maintenance", By: "eve"}, f.inputs[1])
	require.Equal(t, "mine", f.started[1].ID)
	require.Equal(t, "other", f.started[1].TaskQueue)

	f.starting = serviceerror.NewWorkflowExecutionAlreadyStarted("exists", "", "")
	a = f.ask(t, append(start, "--workflow-id", "mine")...)
	require.Equal(t, 1, a.code)
	require.Contains(t, a.err, "a run with this workflow id is there already")

	f = newFake()
	f.workers = 0
	a = f.ask(t, start...)
	require.Equal(t, 0, a.code)
	require.Contains(t, a.err, "the run begins when a worker does")
	require.Equal(t, 2, f.ask(t, start[:5]...).code, "no reason")
	require.Equal(t, 2, f.ask(t, "start", "planned", "orders", "--reason", "x").code, "no target")
}

func TestStartAndWaitFollowsTheOutcome(t *testing.T) {
	for outcome, code := range map[string]int{workflows.Completed: 0, workflows.RolledBack: 1, workflows.Aborted: 1, workflows.Rejected: 1} {
		f := newFake()
		f.result = result(outcome)
		a := f.ask(t, "start", "planned", "orders", "--to", "west", "--reason", "x", "--wait")
		require.Equal(t, code, a.code, outcome)
		require.Equal(t, outcome+": how it went\nreport (on the worker): reports/orders.md\n", a.out)
	}
	f := newFake()
	f.result = temporal.NewNonRetryableApplicationError("how it went", "Failed", nil, result(workflows.FailedRun))
	a := f.ask(t, "start", "planned", "orders", "--to", "west", "--reason", "x", "--wait", "-o", "json")
	require.Equal(t, 1, a.code)
	goldenJSON(t, "failed.json", a.out)
	f.result = errors.New("workflow execution error: cancelled")
	a = f.ask(t, "start", "planned", "orders", "--to", "west", "--reason", "x", "--wait")
	require.Equal(t, 1, a.code)
	require.Contains(t, a.err, "cancelled")
}

func TestStartAndWatchTellsWhatChanges(t *testing.T) {
	f := newFake()
	parked := running()
	parked.Parked = "drain failed: the disk of west is full. Mend it, then retry"
	f.queries["mine/status"] = []any{running(), running(), serviceerror.NewUnavailable("connection reset"), parked, completed()}
	f.result = result(workflows.Completed)
	a := f.ask(t, "start", "planned", "orders", "--to", "west", "--reason", "x", "--watch", "--workflow-id", "mine")
	require.Equal(t, 0, a.code, a.err)
	golden(t, "watch.txt", a.out)
}

func TestStatus(t *testing.T) {
	f := orders()
	f.queries["planned-orders/status"] = []any{running()}
	a := f.ask(t, "status", "orders")
	require.Equal(t, 0, a.code, a.err)
	golden(t, "status.txt", a.out)
	require.Equal(t, a.out, f.ask(t, "status", "planned-orders").out, "a workflow id is as good")
	require.Equal(t, a.out, f.ask(t, "status", "runbook/orders").out, "and so is the entity's")
	goldenJSON(t, "status.json", f.ask(t, "status", "orders", "-o", "json").out)

	f.queries["planned-orders/status"] = []any{completed()}
	golden(t, "status-completed.txt", f.ask(t, "status", "orders").out)
	s := running()
	s.Parked = "promote failed. Ann must look"
	f.queries["planned-orders/status"] = []any{s}
	require.Contains(t, f.ask(t, "status", "orders").out, "\nPARKED: promote failed. Ann must look\n")

	f.queries["runbook/orders/status"] = []any{activities.EntityStatus{LastRun: &activities.Run{WorkflowID: "planned-orders"}}}
	require.Equal(t, 0, f.ask(t, "status", "orders").code, "the last run, when none holds it")
	f.queries["runbook/orders/status"] = []any{activities.EntityStatus{}}
	require.Contains(t, f.ask(t, "status", "orders").err, "runbook orders has had no run yet")
}

func TestStatusWatchEndsWithTheRun(t *testing.T) {
	f := orders()
	f.queries["planned-orders/status"] = []any{running(), completed()}
	a := f.ask(t, "status", "orders", "--watch")
	require.Equal(t, 0, a.code, a.err)
	require.Contains(t, a.out, "completed: orders is on west")
	back := completed()
	back.Outcome = workflows.RolledBack
	f.queries["planned-orders/status"] = []any{back}
	a = f.ask(t, "status", "orders", "--watch", "-o", "json")
	require.Equal(t, 1, a.code)
	require.Contains(t, a.out, `"outcome": "rolled back"`)
	require.Equal(t, 1, f.ask(t, "status", "nobody", "--watch").code, "and does not wait for a run that is not there")
}

func TestEveryOrderIsSentAsItWasSaid(t *testing.T) {
	for _, word := range []string{"approve", "reject", "hold", "resume", "retry", "skip", "rollback", "escalate", "abort", "acknowledge"} {
		t.Run(word, func(t *testing.T) {
			f := orders()
			f.updates["planned-orders/"+word] = "the run heard it"
			want := workflows.Order{By: "ann", Reason: "because"}
			args := []string{word, "orders", "--reason", "because"}
			switch word {
			case "retry", "skip":
				args, want.Step = append(args, "--step", "drain"), "drain"
			case "acknowledge":
				args, want.Client = append(args, "--client", "batch"), "batch"
			}
			a := f.ask(t, args...)
			require.Equal(t, 0, a.code, a.err)
			require.Equal(t, "planned-orders: the run heard it\n", a.out)
			require.Equal(t, want, f.said[0])
			a = f.ask(t, append(args, "-o", "json", "--by", "bob")...)
			require.JSONEq(t, fmt.Sprintf(`{"run":"planned-orders","order":%q,"answer":"the run heard it"}`, word), a.out)
			require.Equal(t, "bob", f.said[1].By)

			f.updates["planned-orders/"+word] = refusal{temporal.NewApplicationError("ann asked for this run and cannot approve it too", "")}
			a = f.ask(t, args...)
			require.Equal(t, 1, a.code)
			require.Equal(t, "switchback: ann asked for this run and cannot approve it too\n", a.err, "the validator's sentence, verbatim")
			require.Empty(t, a.out)
			require.Equal(t, f.closed, 3)

			f.updates["planned-orders/"+word] = serviceerror.NewNotFound("workflow execution already completed")
			require.Contains(t, f.ask(t, args...).err, "run planned-orders has ended: there is nothing to "+word)
			f.updates["planned-orders/"+word] = client.NewWorkflowUpdateServiceTimeoutOrCanceledError(context.DeadlineExceeded)
			require.Contains(t, f.ask(t, args...).err, "It may have heard: look with 'switchback status planned-orders'")
			f.workers = 0
			require.Contains(t, f.ask(t, args...).err, "planned-orders cannot hear it: no worker polls the task queue switchback")
			require.Equal(t, 2, f.ask(t, word).code)
			require.Equal(t, 2, f.ask(t, word, "a", "b").code)
		})
	}
}

func TestRuns(t *testing.T) {
	f := newFake()
	a := f.ask(t, "runs")
	require.Equal(t, 0, a.code)
	require.Contains(t, a.out, "No run yet. Start one with")
	f.add("planned-orders", "PlannedFailover", enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, map[string]string{"SwitchbackRunbook": "orders", "SwitchbackPhase": "drain"})
	f.add("planned-old", "PlannedFailover", enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED, map[string]string{"SwitchbackRunbook": "orders", "SwitchbackOutcome": "completed"})
	golden(t, "runs.txt", f.ask(t, "runs").out)
	goldenJSON(t, "runs.json", f.ask(t, "runs", "-o", "json", "--runbook", "orders").out)
	require.Equal(t, ofListed+` AND SwitchbackRunbook = "orders"`, f.listed[len(f.listed)-1])
	require.Equal(t, 2, f.ask(t, "runs", "--limit", "0").code)
	require.Equal(t, 2, f.ask(t, "runs", "orders").code)
}

func TestReport(t *testing.T) {
	data, err := os.ReadFile("../report/testdata/completed.json")
	require.NoError(t, err)
	r, err := report.Parse(data)
	require.NoError(t, err)
	f := orders()
	f.queries["planned-orders/report"] = []any{r}
	a := f.ask(t, "report", "orders")
	require.Equal(t, 0, a.code, a.err)
	want, err := os.ReadFile("../report/testdata/completed.md")
	require.NoError(t, err)
	require.Equal(t, string(want), a.out)
	a = f.ask(t, "report", "orders", "-o", "json")
	again, err := report.Parse([]byte(a.out))
	require.NoError(t, err)
	require.Equal(t, r, again)

	f.queries["planned-orders/report"] = []any{nil}
	a = f.ask(t, "report", "orders")
	require.Equal(t, 1, a.code)
	require.Contains(t, a.err, "run planned-orders has no report yet: it is written at its end")
}

func TestErrorsAreSentencesThatSayWhatToDo(t *testing.T) {
	for name, c := range map[string]struct {
		answer  error
		workers int
		says    string
	}{
		"no such run":      {serviceerror.NewNotFound("workflow not found"), 1, "there is no run orders: give a workflow id, or the name of a runbook that has had a run"},
		"no worker, newer": {serviceerror.NewFailedPrecondition("no poller seen for task queue recently, worker may be down"), 0, "cannot answer: no worker polls the task queue switchback in namespace default: start one"},
		"no worker, older": {context.DeadlineExceeded, 0, "cannot answer: no worker polls the task queue switchback"},
		"Temporal away":    {serviceerror.NewUnavailable("connection refused"), 1, "Temporal at 127.0.0.1:7233 does not answer (--address, TEMPORAL_ADDRESS), or no worker does"},
		"not begun":        {serviceerror.NewWorkflowNotReady("no task yet"), 1, "has not begun yet: a worker has still to pick it up"},
		"no namespace":     {serviceerror.NewNamespaceNotFound("default"), 1, "has no namespace default: give the right one with --namespace"},
		"not allowed":      {serviceerror.NewPermissionDenied("nope", ""), 1, "does not allow it"},
		"something else":   {errors.New("odd"), 1, "odd"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake()
			f.workers = c.workers
			f.queries["runbook/orders/status"] = []any{c.answer}
			for _, args := range [][]string{{"status", "orders"}, {"report", "orders"}, {"approve", "orders"}} {
				a := f.ask(t, args...)
				require.Equal(t, 1, a.code)
				require.Contains(t, a.err, c.says)
				require.Empty(t, a.out)
			}
		})
	}
}

func TestATemporalThatIsNotThereIsSaidWithinTheTimeout(t *testing.T) {
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := gone.Addr().String()
	require.NoError(t, gone.Close())
	real := func(c *cli) { c.dial = dialTemporal }
	a := newFake().asked(t, real, "status", "orders", "--address", address, "--timeout", "300ms")
	require.Equal(t, 1, a.code)
	require.Contains(t, a.err, "connect to Temporal at "+address)
	require.Contains(t, a.err, "does not answer (--address, TEMPORAL_ADDRESS)")
	a = newFake().asked(t, real, "status", "orders", "--tls-ca-path", "/nonexistent.pem")
	require.Equal(t, 1, a.code)
	require.Contains(t, a.err, "/nonexistent.pem")
}

func TestWrongUsageEndsWithTwoAndSaysWhereHelpIs(t *testing.T) {
	for _, c := range []struct {
		args []string
		says string
	}{
		{[]string{"strat"}, `unknown command "strat", did you mean "start"?`},
		{[]string{"nonsense"}, `unknown command "nonsense"`},
		{[]string{"plan"}, "say what to plan: planned"},
		{[]string{"start"}, "say what to start: planned"},
		{[]string{"start", "plannde"}, `did you mean "planned"?`},
		{[]string{"status"}, "switchback status needs one RUN: a workflow id or the name of a runbook, and got 0 arguments\nRun 'switchback status --help' for usage."},
		{[]string{"status", "a", "b"}, "got 2 arguments"},
		{[]string{"status", "orders", "--nonsense"}, "unknown flag: --nonsense\nRun 'switchback status --help'"},
		{[]string{"status", "orders", "-o", "xml"}, "-o xml: use text or json"},
		{[]string{"status", "orders", "--timeout", "-1s"}, "--timeout -1s: use a duration above zero"},
		{[]string{"status", "orders", "--timeout", "soon"}, "invalid argument"},
		{[]string{"plan", "planned"}, "one RUNBOOK"},
		{[]string{"plan", "planned", "orders"}, "--to is needed"},
		{[]string{"validate"}, "validate needs at least one FILE"},
		{[]string{"report"}, "one RUN"},
	} {
		a := newFake().ask(t, c.args...)
		require.Equal(t, 2, a.code, c.args)
		require.Contains(t, a.err, c.says, c.args)
		require.Contains(t, a.err, "--help' for usage.")
		require.Empty(t, a.out)
	}
}

func TestColoursAreForTerminalsAlone(t *testing.T) {
	text.EnableColors()
	f := orders()
	s := running()
	s.Steps[1].State = workflows.Failed
	f.queries["planned-orders/status"] = []any{s}
	terminal := func(c *cli) { c.terminal = true }
	require.Contains(t, f.asked(t, terminal, "status", "orders").out, "\x1b[")
	require.NotContains(t, f.ask(t, "status", "orders").out, "\x1b[", "a pipe")
	require.NotContains(t, f.asked(t, func(c *cli) {
		terminal(c)
		c.getenv = func(k string) string { return map[string]string{"NO_COLOR": "1"}[k] }
	}, "status", "orders").out, "\x1b[")
	require.NotContains(t, f.asked(t, terminal, "status", "orders", "-o", "json").out, "\x1b[")
	f.result = aPlan()
	require.Contains(t, f.asked(t, terminal, "plan", "planned", "orders", "--to", "west").out, "\x1b[33mwarning\x1b[0m  clocks")
}

func TestHelpTeaches(t *testing.T) {
	var all strings.Builder
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Name() == "completion" || cmd.Name() == "help" {
			return
		}
		args := append(strings.Fields(cmd.CommandPath())[1:], "--help")
		a := newFake().ask(t, args...)
		require.Equal(t, 0, a.code)
		require.Contains(t, a.out, "Examples:", cmd.CommandPath())
		require.Contains(t, cmd.Example, "switchback "+strings.Join(args[:len(args)-1], " "))
		require.NotEqual(t, cmd.Short, strings.TrimSuffix(strings.TrimSpace(cmd.Long), "."), "%s: the help says no more than the list", cmd.CommandPath())
		fmt.Fprintf(&all, "$ switchback %s\n%s\n", strings.Join(args, " "), a.out)
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	c := &cli{getenv: func(string) string { return "" }}
	walk(c.root())
	golden(t, "help.txt", all.String())
	require.Contains(t, newFake().ask(t, "--version").out, "switchback ")
}

func TestCompletion(t *testing.T) {
	for _, shell := range []string{"bash", "zsh", "fish", "powershell"} {
		a := newFake().ask(t, "completion", shell)
		require.Equal(t, 0, a.code)
		require.Contains(t, a.out, "switchback")
	}
	f := newFake()
	f.add("planned-orders-1", "PlannedFailover", enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, nil)
	f.add("planned-old", "PlannedFailover", enumspb.WORKFLOW_EXECUTION_STATUS_COMPLETED, nil)
	f.add("runbook/orders", "Entity", enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, nil)
	f.add("link/east-west", "Entity", enumspb.WORKFLOW_EXECUTION_STATUS_RUNNING, nil)
	for _, c := range []struct{ args, offers string }{
		{"status ", "orders planned-orders-1 planned-old :4"},
		{"status plan", "planned-orders-1 planned-old :4"},
		{"approve ", "orders planned-orders-1 :4"},
		{"start planned o", "orders :4"},
		{"plan planned ", "orders :4"},
		{"runs --runbook ", "orders :4"},
		{"status orders -o ", "text json :4"},
		{"status orders ", ":4"},
	} {
		a := f.ask(t, append([]string{"__complete"}, strings.Split(c.args, " ")...)...)
		require.Equal(t, c.offers, strings.Join(strings.Fields(a.out), " "), c.args)
	}
	a := f.asked(t, func(c *cli) {
		c.dial = func(context.Context, *cli) (client.Client, error) { return nil, errors.New("away") }
	}, "__complete", "status", "")
	require.Equal(t, ":4", strings.TrimSpace(a.out), "nothing, where Temporal does not answer")
}

func TestWhoAsksIsTakenFromTheFlagTheEnvironmentOrTheLogin(t *testing.T) {
	c := &cli{by: "flag", getenv: func(string) string { return "env" }}
	require.Equal(t, "flag", c.who())
	c.by = ""
	require.Equal(t, "env", c.who())
	c.getenv = func(string) string { return "" }
	require.NotEmpty(t, c.who())
}
