//go:build killpoints

package killpoint

import (
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func TestMain(m *testing.M) {
	if os.Getenv("KILLPOINT_CHILD") != "" {
		Reach("Raise/before")
		Reach("Raise/before")
		os.Exit(7)
	}
	os.Exit(m.Run())
}

func child(t *testing.T, folder string) *os.ProcessState {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), "KILLPOINT_CHILD=1", Folder+"="+folder)
	require.Error(t, cmd.Run())
	return cmd.ProcessState
}

func TestKillsOnce(t *testing.T) {
	for _, order := range []string{"kill", "kill 1\n"} {
		folder := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(folder, "Raise.before"), []byte(order), 0o600))
		first := child(t, folder)
		require.Equal(t, syscall.SIGKILL, first.Sys().(syscall.WaitStatus).Signal(), order)
		require.FileExists(t, filepath.Join(folder, "Raise.before.reached"))
		require.Equal(t, 7, child(t, folder).ExitCode(), "the next process gets past the point")
	}
	folder := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(folder, "Raise.before"), []byte("kill 2"), 0o600))
	require.Equal(t, 7, child(t, folder).ExitCode(), "it passed by twice, so the order still stands")
	require.FileExists(t, filepath.Join(folder, "Raise.before"))
}

func TestHolds(t *testing.T) {
	folder := t.TempDir()
	t.Setenv(Folder, folder)
	file := filepath.Join(folder, "Drain.middle")
	require.NoError(t, os.WriteFile(file, []byte("hold"), 0o600))
	done := make(chan struct{})
	go func() {
		defer close(done)
		Reach("Drain/middle")
	}()
	require.Eventually(t, func() bool { return exists(file + ".reached") }, 5*time.Second, time.Millisecond)
	select {
	case <-done:
		t.Fatal("it did not hold")
	case <-time.After(50 * time.Millisecond):
	}
	require.NoError(t, os.Remove(file+".reached"))
	select {
	case <-done:
	case <-time.After(5 * time.Second):
		t.Fatal("it did not go on")
	}
}
