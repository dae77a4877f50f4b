package workflows_test

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/worker"

	"switchback/workflows"
)

// histories are recorded from runs against a real server. A change that cannot replay one of them would leave a run
// standing behind its fence.
const histories = "testdata/history"

func TestReplay(t *testing.T) {
	files, err := filepath.Glob(filepath.Join(histories, "*.json"))
	require.NoError(t, err)
	require.NotEmpty(t, files, "no history in %s: record them with `go test -tags crash ./crash -run 'Histories|OverMirrorMaker' -record` in lab/", histories)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			replayer := worker.NewWorkflowReplayer()
			workflows.Register(replayer)
			require.NoError(t, replayer.ReplayWorkflowHistoryFromJSONFile(nil, file))
		})
	}
}
