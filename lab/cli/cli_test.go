package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// The test binary plays the lab's own program: the keeper and the servers.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "serve" || os.Args[1] == "keep") {
		os.Exit(Run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

type lab struct {
	t   *testing.T
	dir string
}

func (l lab) run(args ...string) (code int, out, errs string) {
	var stdout, stderr bytes.Buffer
	code = Run(l.t.Context(), append(args, "--dir", l.dir), &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

func (l lab) must(args ...string) string {
	l.t.Helper()
	code, out, errs := l.run(args...)
	require.Zero(l.t, code, "lab %v: %s", args, errs)
	return out
}

func (l lab) report() report {
	l.t.Helper()
	var r report
	require.NoError(l.t, json.Unmarshal([]byte(l.must("status", "-o", "json")), &r))
	return r
}

func newLab(t *testing.T, dir string) lab {
	l := lab{t, dir}
	t.Cleanup(func() { // the context of the test has ended by now
		var out bytes.Buffer
		require.Zero(t, Run(context.Background(), []string{"down", "--dir", dir}, &out, &out), out.String())
	})
	return l
}

func gone(t *testing.T, r report) {
	t.Helper()
	for _, p := range r.Processes {
		require.Eventually(t, func() bool {
			stat, err := os.ReadFile("/proc/" + strings.TrimSpace(jsonOf(p.PID)) + "/stat")
			return err != nil || strings.Contains(string(stat), ") Z ")
		}, 10*time.Second, 10*time.Millisecond, "%s goes on", p.Name)
	}
}

func jsonOf(v any) string {
	data, _ := json.Marshal(v)
	return string(data)
}

func TestLife(t *testing.T) {
	l := newLab(t, filepath.Join(t.TempDir(), "lab"))
	code, _, errs := l.run("status")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "no lab runs")
	require.Contains(t, l.must("down"), "No lab runs")

	out := l.must("up", "--without-worker", "--without-clients", "--topics", "2")
	require.Contains(t, out, "The lab is ready, after")
	require.Contains(t, out, "TEMPORAL_UI")
	require.Contains(t, l.must("up"), "up already")

	first := l.report()
	require.Equal(t, "ready", first.Phase)
	require.Len(t, first.Processes, 6)
	l.must("kill", "vault")
	require.Contains(t, l.must("status"), "signal: killed")
	l.must("start", "vault")
	code, _, errs = l.run("kill", "nobody")
	require.Equal(t, 1, code)
	require.Contains(t, errs, `no such process: "nobody"`)
	code, _, errs = l.run("start", "vault")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "running already")

	require.Contains(t, l.must("env"), "export VAULT_ADDR='http://127.0.0.1:")
	l.must("logs", "consul")
	code, _, _ = l.run("logs", "nobody")
	require.Equal(t, 1, code)

	last := l.report()
	require.Contains(t, l.must("down"), "has ended")
	gone(t, last)
}

func TestDeathOfTheKeeperEndsTheLab(t *testing.T) {
	// A folder whose name is too long for a socket's path.
	l := newLab(t, filepath.Join(t.TempDir(), strings.Repeat("long-", 20), "lab"))
	l.must("up", "--without-worker", "--without-clients", "--topics", "2")
	r := l.report()
	require.NoError(t, syscall.Kill(r.PID, syscall.SIGKILL))
	gone(t, r)
	code, _, errs := l.run("status")
	require.Equal(t, 1, code)
	require.Contains(t, errs, "no lab runs")
	// And the folder can be used again.
	l.must("up", "--without-worker", "--without-clients", "--topics", "2")
}

func TestUsage(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"unknown command": {[]string{"upp"}, `no command "upp"`},
		"unknown flag":    {[]string{"up", "--fast"}, "unknown flag"},
		"no name":         {[]string{"kill"}, "wants the name of one process"},
		"unknown server":  {[]string{"serve", "zookeeper", "x"}, `no server "zookeeper"`},
	} {
		t.Run(name, func(t *testing.T) {
			code, _, errs := lab{t, t.TempDir()}.run(tc.args...)
			require.Equal(t, 2, code)
			require.Contains(t, errs, tc.want)
		})
	}
}
