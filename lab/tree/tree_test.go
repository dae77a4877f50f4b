package tree

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The test binary plays the processes: TREE_TEST_ROLE says which.
func TestMain(m *testing.M) {
	switch os.Getenv("TREE_TEST_ROLE") {
	case "":
		os.Exit(m.Run())
	case "server": // says its name in a file and lives on
		must(os.WriteFile(os.Args[1], []byte(strconv.Itoa(os.Getpid())), 0o600))
		fmt.Println("server is up")
		select {}
	case "stubborn": // ignores the request to stop
		signal.Ignore(syscall.SIGTERM)
		must(os.WriteFile(os.Args[1], []byte(strconv.Itoa(os.Getpid())), 0o600))
		select {}
	case "broken":
		fmt.Println("port 1 is taken")
		os.Exit(3)
	case "parent": // has a child in its own group
		child := exec.Command(os.Args[0], os.Args[1]+".child")
		child.Env = append(os.Environ(), "TREE_TEST_ROLE=server")
		must(child.Start())
		must(os.WriteFile(os.Args[1], []byte(strconv.Itoa(os.Getpid())), 0o600))
		select {}
	case "keeper": // a tree of its own, which is then killed
		var t Tree
		must(t.Start(context.Background(), server(os.Args[1], "a"), server(os.Args[1], "b")))
		for _, s := range t.Status() {
			fmt.Println(s.PID)
		}
		fmt.Println("ready")
		select {}
	}
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}

func spec(dir, name, role string) Spec {
	file := filepath.Join(dir, name+".pid")
	return Spec{
		Name: name, Path: os.Args[0], Args: []string{file}, Env: []string{"TREE_TEST_ROLE=" + role},
		Log: filepath.Join(dir, name+".log"),
		Ready: func(context.Context) error {
			_, err := os.Stat(file)
			return err
		},
	}
}

func server(dir, name string) Spec { return spec(dir, name, "server") }

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func eventuallyGone(t *testing.T, pid int) {
	t.Helper()
	require.Eventually(t, func() bool {
		if !alive(pid) {
			return true
		}
		// An orphan that is killed stays a zombie until whoever adopted it asks: it is gone all the same.
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		return err != nil || strings.Contains(string(stat), ") Z ")
	}, 10*time.Second, 10*time.Millisecond, "process %d goes on", pid)
}

func TestKillAndStartAgain(t *testing.T) {
	ctx, dir := t.Context(), t.TempDir()
	var tr Tree
	t.Cleanup(func() { _ = tr.Down(context.Background()) })
	require.NoError(t, tr.Start(ctx, server(dir, "one")))
	first := tr.Status()[0]
	require.Equal(t, Running, first.State)
	require.True(t, alive(first.PID))
	require.ErrorContains(t, tr.StartAgain(ctx, "one"), "running already")

	require.NoError(t, tr.Kill("one"))
	require.False(t, alive(first.PID))
	require.Equal(t, Killed, tr.Status()[0].State)
	require.Equal(t, "signal: killed", tr.Status()[0].Exit)
	require.ErrorIs(t, tr.Kill("one"), errNotRunning)

	require.NoError(t, tr.StartAgain(ctx, "one"))
	require.Equal(t, Running, tr.Status()[0].State)
	require.NotEqual(t, first.PID, tr.Status()[0].PID)
}

func TestUnknownAndDoubleNames(t *testing.T) {
	var tr Tree
	dir := t.TempDir()
	t.Cleanup(func() { _ = tr.Down(context.Background()) })
	require.ErrorIs(t, tr.Kill("nobody"), ErrUnknown)
	require.NoError(t, tr.Start(t.Context(), server(dir, "one")))
	require.ErrorContains(t, tr.Start(t.Context(), server(dir, "one")), "already")
	require.ErrorContains(t, tr.Start(t.Context(), Spec{Path: "x"}), "needs a name")
}

func TestNotReady(t *testing.T) {
	dir := t.TempDir()
	slow := server(dir, "slow")
	slow.ReadyWithin, slow.Ready = 50*time.Millisecond, func(context.Context) error { return errors.New("no answer yet") }
	for name, tc := range map[string]struct {
		spec Spec
		want []string
	}{
		"ends by itself": {spec(dir, "broken", "broken"), []string{"start broken", "exit status 3", "port 1 is taken"}},
		"too slow":       {slow, []string{"start slow", "not ready within 50ms", "no answer yet"}},
		"no such file":   {Spec{Name: "none", Path: filepath.Join(dir, "absent"), Log: filepath.Join(dir, "l")}, []string{"start none", "no such file"}},
	} {
		t.Run(name, func(t *testing.T) {
			var tr Tree
			err := tr.Start(t.Context(), tc.spec)
			for _, want := range tc.want {
				require.ErrorContains(t, err, want)
			}
			require.NoError(t, tr.Down(t.Context()))
		})
	}
}

func TestDownEndsEverything(t *testing.T) {
	dir := t.TempDir()
	var tr Tree
	stubborn := spec(dir, "stubborn", "stubborn")
	stubborn.Grace = 20 * time.Millisecond
	require.NoError(t, tr.Start(t.Context(), server(dir, "one"), spec(dir, "parent", "parent")))
	require.NoError(t, tr.Start(t.Context(), stubborn))
	child := filepath.Join(dir, "parent.pid.child")
	var childPID int
	require.Eventually(t, func() bool {
		data, err := os.ReadFile(child)
		childPID, _ = strconv.Atoi(string(data))
		return err == nil && childPID > 0
	}, 10*time.Second, 10*time.Millisecond)

	require.NoError(t, tr.Down(t.Context()))
	for _, s := range tr.Status() {
		require.False(t, alive(s.PID), s.Name)
		require.Equal(t, Stopped, s.State)
	}
	eventuallyGone(t, childPID) // although its parent never looked after it
	require.ErrorContains(t, tr.Start(t.Context(), server(dir, "late")), "taken down")
	require.ErrorContains(t, tr.StartAgain(t.Context(), "one"), "taken down")
}

func TestDeathOfTheKeeperEndsItsProcesses(t *testing.T) {
	keeper := exec.Command(os.Args[0], t.TempDir())
	keeper.Env = append(os.Environ(), "TREE_TEST_ROLE=keeper")
	out, err := keeper.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, keeper.Start())
	var pids []int
	for lines := bufio.NewScanner(out); lines.Scan() && lines.Text() != "ready"; {
		pid, err := strconv.Atoi(lines.Text())
		require.NoError(t, err)
		pids = append(pids, pid)
	}
	require.Len(t, pids, 2)
	for _, pid := range pids {
		require.True(t, alive(pid))
	}
	require.NoError(t, keeper.Process.Kill())
	_ = keeper.Wait()
	for _, pid := range pids {
		eventuallyGone(t, pid)
	}
}
