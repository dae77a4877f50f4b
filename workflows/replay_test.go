package workflows_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"switchback/workflows"
)

// histories are recorded from runs against a real server. A change that cannot replay one of them would leave a run
// standing behind its fence.
const histories = "testdata/history"

func TestReplay(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(histories, "*.json"))
	require.NoError(t, err)
	require.NotEmpty(t, files, "no history in %s: record them with `go test -tags crash ./crash -run 'Histories|OverMirrorMaker|WayHome' -record` in lab/", histories)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.Open(file)
			require.NoError(t, err)
			defer text.Close()
			history, err := client.HistoryFromJSON(text, client.HistoryJSONOptions{})
			require.NoError(t, err)
			// The ids of runs within a run begin with its own.
			started := history.Events[0].GetWorkflowExecutionStartedEventAttributes()
			as := worker.ReplayWorkflowHistoryOptions{OriginalExecution: workflow.Execution{ID: started.GetWorkflowId(), RunID: started.GetOriginalExecutionRunId()}}
			replayer := worker.NewWorkflowReplayer()
			workflows.Register(replayer)
			require.NoError(t, replayer.ReplayWorkflowHistoryWithOptions(nil, history, as))
		})
	}
}
