package e2e_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"switchback/lab/linkservice"
	"switchback/lab/servers"
	"switchback/lab/setup"
	"switchback/report"
	"switchback/runbooks"
	"switchback/workflows"
)

// operator is somebody with a shell: the programs that were built, and Temporal's address.
type operator struct {
	t       *testing.T
	stage   *stage
	program string
}

func (s *stage) operator(t *testing.T) *operator {
	t.Helper()
	program, err := servers.Product(t.Context(), "starter")
	require.NoError(t, err)
	return &operator{t, s, program}
}

// runs a command that must end with this exit code.
func (o *operator) runs(exit int, args ...string) (stdout, stderr string) {
	o.t.Helper()
	return o.shell(exit, o.program, args...)
}

func (o *operator) shell(exit int, program string, args ...string) (stdout, stderr string) {
	o.t.Helper()
	cmd := exec.CommandContext(o.t.Context(), program, args...)
	cmd.Env = append(os.Environ(), "TEMPORAL_ADDRESS="+o.stage.TemporalAddress(), "SWITCHBACK_TASK_QUEUE="+setup.TaskQueue, "SWITCHBACK_BY=")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		require.NoError(o.t, err)
	}
	require.Equal(o.t, exit, cmd.ProcessState.ExitCode(), "%s %s\n%s%s", program, strings.Join(args, " "), out.String(), errs.String())
	return out.String(), errs.String()
}

// json runs a command with -o json.
func (o *operator) json(exit int, into any, args ...string) {
	o.t.Helper()
	out, _ := o.runs(exit, append(args, "-o", "json")...)
	require.NoError(o.t, json.Unmarshal([]byte(out), into), "%s", out)
}

// A planned failover as an operator does it, with two approvals, a hold, and a look at everything.
func TestAnOperatorAtTheCommandLine(t *testing.T) {
	s := up(t, edited(func(b *runbooks.Runbook) {
		b.Gates.Planned.Approvals, b.Gates.Approvers = 2, []string{"ann", "ben", "cid"}
	}))
	p := s.play(t, "orders")
	p.flows("east")
	before := p.look()
	o := s.operator(t)

	text, _ := o.runs(0, "validate", s.RunbookFile("orders"))
	require.Contains(t, text, "runbook orders is right")
	wrong := t.TempDir() + "/wrong.yaml"
	raw, err := os.ReadFile(s.RunbookFile("orders"))
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(wrong, append(raw, "colour: blue\n"...), 0o600))
	_, text = o.runs(1, "validate", wrong)
	require.Contains(t, text, "colour")
	require.Contains(t, text, "wrong.yaml:")

	var plan workflows.Plan
	o.json(0, &plan, "plan", "planned", "orders", "--to", "west")
	require.True(t, plan.GoesIfNow)
	require.Len(t, plan.Steps, len(runbooks.PlannedFailoverSteps))
	text, _ = o.runs(0, "plan", "planned", "orders", "--to", "west")
	for _, step := range runbooks.PlannedFailoverSteps {
		require.Contains(t, text, step)
	}
	let := s.linkFault(t, linkservice.Fault{Kind: "topicStatus", Topic: "orders.01", Value: "FAILED"})
	text, _ = o.runs(1, "plan", "planned", "orders", "--to", "west")
	require.Contains(t, text, "topic orders.01")
	let()
	p.cameBack(before, false)

	_, text = o.runs(2, "start", "planned", "orders")
	require.Contains(t, text, "--to")
	o.runs(0, "start", "planned", "orders", "--to", "west", "--reason", "quarterly exercise", "--by", "cid", "--workflow-id", "at-my-desk")
	run := p.Temporal.GetWorkflow(t.Context(), "at-my-desk", "")
	p.reaches(run, string(workflows.Approve))
	var status workflows.Status
	o.json(0, &status, "status", "orders")
	require.Equal(t, "at-my-desk", status.Run.WorkflowID)
	require.Equal(t, string(workflows.Approve), status.Phase)

	for _, refused := range []struct{ by, says string }{
		{"cid", "asked for this run and cannot approve it too"}, {"dan", "dan is not among the approvers"},
	} {
		_, text = o.runs(1, "approve", "orders", "--by", refused.by, "--reason", "fine")
		require.Contains(t, text, refused.says)
	}
	text, _ = o.runs(0, "approve", "orders", "--by", "ann", "--reason", "agreed")
	require.Contains(t, text, "1 of 2")
	_, text = o.runs(1, "approve", "orders", "--by", "Ann", "--reason", "again")
	require.Contains(t, text, "has approved already")
	o.runs(0, "hold", "orders", "--by", "ben", "--reason", "a moment")
	o.runs(0, "approve", "orders", "--by", "ben", "--reason", "agreed")
	p.reaches(run, "held")
	require.Equal(t, before.Desired, p.look().Desired, "nobody was stopped while it is held")
	_, text = o.runs(1, "retry", "orders", "--by", "ben", "--reason", "why not")
	require.Contains(t, text, "not parked")
	_, text = o.runs(1, "report", "orders")
	require.Contains(t, text, "has no report yet")

	watched := make(chan string, 1)
	watch := exec.CommandContext(t.Context(), o.program, "status", "orders", "--watch")
	watch.Env = append(os.Environ(), "TEMPORAL_ADDRESS="+s.TemporalAddress())
	var lines bytes.Buffer
	watch.Stdout = &lines
	require.NoError(t, watch.Start())
	go func() {
		if err := watch.Wait(); err != nil {
			lines.WriteString("\nexit: " + err.Error())
		}
		watched <- lines.String()
	}()
	o.runs(0, "resume", "orders", "--by", "ben", "--reason", "go")
	out := p.ends(run, workflows.Completed)
	text = <-watched
	require.NotContains(t, text, "exit:")
	require.Contains(t, text, "completed")
	for _, step := range []workflows.Step{workflows.StopProducers, workflows.SwitchTraffic, workflows.VerifyTarget} {
		require.Contains(t, text, string(step))
	}

	var written report.Report
	o.json(0, &written, "report", "orders")
	require.Equal(t, report.Completed, written.Outcome)
	require.Equal(t, "quarterly exercise", written.Reason)
	require.Equal(t, "cid", written.RequestedBy)
	var said []string
	for _, d := range written.Decisions {
		said = append(said, d.Kind+" "+d.By)
	}
	require.Equal(t, []string{"approve ann", "hold ben", "approve ben", "resume ben"}, said)
	text, _ = o.runs(0, "report", "at-my-desk")
	require.Contains(t, text, "quarterly exercise")
	var list []map[string]any
	o.json(0, &list, "runs", "--runbook", "orders")
	require.Equal(t, "at-my-desk", list[0]["workflowId"])
	require.Equal(t, "completed", list[0]["outcome"])
	_, text = o.runs(1, "abort", "orders", "--by", "ben", "--reason", "too late")
	require.Contains(t, text, "has ended")
	p.wentOver(before)
	p.flows("west")
	p.clean("west", out)
}

// Whoever has only Temporal's own command, or its web page's start form, starts a run by plain JSON.
func TestARunIsStartedByPlainJSON(t *testing.T) {
	s := up(t)
	p := s.play(t, "orders")
	p.flows("east")
	before := p.look()
	o := s.operator(t)
	start := func(id, input string) {
		o.shell(0, s.Programs().Temporal, "workflow", "start", "--address", s.TemporalAddress(), "--type", "PlannedFailover",
			"--task-queue", setup.TaskQueue, "--workflow-id", id, "--input", input)
	}
	start("any-id-that-one-likes", `{"runbook":"orders","to":"west","reason":"quarterly exercise"}`)
	out := p.ends(p.Temporal.GetWorkflow(t.Context(), "any-id-that-one-likes", ""), workflows.Completed)
	p.wentOver(before)
	p.flows("west")

	start("again", `{"runbook":"orders","to":"west","reason":"quarterly exercise"}`)
	again := p.ends(p.Temporal.GetWorkflow(t.Context(), "again", ""), workflows.FailedRun)
	require.Contains(t, again.Sentence, "is on west already")
	start("nowhere", `{"runbook":"orders","to":"north","reason":"quarterly exercise"}`)
	nowhere := p.ends(p.Temporal.GetWorkflow(t.Context(), "nowhere", ""), workflows.FailedRun)
	require.Contains(t, nowhere.Sentence, "north")
	p.clean("west", out)
}
