package workflows

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/workflow"
)

// An abort that is accepted while a step waits for another one holds, also where that other one ends well all the same: a step that
// was not begun does not begin, least of all one from which there is no way back.
func TestP15_AnAbortWhileAStepWaitsForAnotherHolds(t *testing.T) {
	var outcome string
	begun := false
	env := new(testsuite.WorkflowTestSuite).NewTestWorkflowEnvironment()
	env.ExecuteWorkflow(func(root workflow.Context) error {
		e := newEngine(root, Status{})
		e.begun, e.stopIsFinal = true, true
		workflow.Go(e.safe, func(ctx workflow.Context) {
			_ = workflow.Sleep(ctx, 30*time.Second)
			require.NoError(t, e.mayAbort(Order{}))
			e.abort(Order{By: "ann", Reason: "exercise"})
		})
		err := e.inOrder(
			step{name: StopClients, until: FailOver, budget: fixed(time.Minute), do: func(ctx workflow.Context, _ time.Time) (string, error) {
				late, _ := workflow.NewDisconnectedContext(ctx) // it is cancelled too late
				return "stopped", workflow.Sleep(late, time.Minute)
			}},
			step{name: FailOver, budget: fixed(time.Minute), do: func(workflow.Context, time.Time) (string, error) {
				begun, e.final = true, true
				return "", e.ctx.Err()
			}},
		)
		outcome = e.status.Outcome
		return err
	})
	require.ErrorContains(t, env.GetWorkflowError(), "abort asked for by ann")
	require.False(t, begun)
	require.Equal(t, Aborted, outcome)
}
