package e2e_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/workflowservice/v1"
	"google.golang.org/protobuf/proto"

	"switchback/lab/setup"
	"switchback/workflows"
)

// meant are the files that hold a secret because that is what they are for, by their path in the lab's folder. Everything
// else that a lab writes (logs, reports, ledgers, histories, runbooks, settings) must be free of them.
var meant = regexp.MustCompile(`^(` + strings.Join([]string{
	`secrets\.json`,                          // where the lab keeps what it made up
	`kafka/(east|west)\.json`,                // the settings of the servers that the lab plays
	`link/link\.json`,                        //
	`link/links\.json`,                       // the link's own store: connection configs
	`parts/[a-z-]+/(consul-token|secret-id)`, // what each part logs in with
	`consul/manager-token`,                   //
	`consul/.*`,                              // Consul's settings and store: its tokens
	`clients/[a-z]+-\d+/client\.properties`,  // rendered for the client, by its supervisor
	`vault/.*`,                               // Vault's store, encrypted; its keys
}, "|") + `)$`)

// One canary is in every password, and every token is known. After a completed and a rolled back run, a failed one and an
// operator's wrong word, they are found where they belong and nowhere else (I7).
func TestSecretsStayWhereTheyBelong(t *testing.T) {
	const canary = "canary-7f3a-"
	s := up(t, approvals(1), edited(hasty), func(o *setup.Options) { o.Canary = canary })
	p := s.play(t, "orders")
	p.flows("east")

	get, put := s.secret(t, "west/checkout")
	right := get()
	put(map[string]any{"username": "checkout", "password": canary + "wrong"})
	p.ends(p.start("wrong-secret"), workflows.FailedRun)
	put(right)
	run, let := p.goesTo("comes-back", hold{at: workflows.StopProducers, keep: func(p *play) func() { return s.freeze(p.t, "checkout-1") }})
	p.turnsBack(run)
	let()
	p.ends(run, workflows.RolledBack)
	p.flows("east")
	run = p.start("goes-over")
	p.reaches(run, string(workflows.Approve))
	p.order(run, workflows.UpdateApprove)
	s.inProcesses(t, canary) // in the middle of it
	out := p.ends(run, workflows.Completed)
	p.flows("west")
	s.inProcesses(t, canary)

	values := [][]byte{[]byte(canary)}
	for _, secret := range s.Secrets() {
		values = append(values, []byte(secret.Reveal()))
	}
	require.Greater(t, len(values), 10)
	leaks := func(data []byte) bool {
		return slices.ContainsFunc(values, func(v []byte) bool { return bytes.Contains(data, v) })
	}

	t.Run("histories", func(t *testing.T) {
		histories, events := 0, 0
		listed, err := p.Temporal.ListWorkflow(t.Context(), &workflowservice.ListWorkflowExecutionsRequest{PageSize: 100})
		require.NoError(t, err)
		for _, e := range listed.GetExecutions() {
			id := e.GetExecution()
			iter := p.Temporal.GetWorkflowHistory(t.Context(), id.GetWorkflowId(), id.GetRunId(), false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
			for iter.HasNext() {
				event, err := iter.Next()
				require.NoError(t, err)
				raw, err := proto.Marshal(event) // payloads stand in it as they are: plain JSON
				require.NoError(t, err)
				require.False(t, leaks(raw), "%s, event %d (%s)", id.GetWorkflowId(), event.GetEventId(), event.GetEventType())
				events++
			}
			histories++
			described, err := p.Temporal.DescribeWorkflowExecution(t.Context(), id.GetWorkflowId(), id.GetRunId())
			require.NoError(t, err)
			raw, err := proto.Marshal(described)
			require.NoError(t, err)
			require.False(t, leaks(raw), id.GetWorkflowId())
		}
		require.GreaterOrEqual(t, histories, 5, "three runs and two entities")
		require.Greater(t, events, 100)
		require.Contains(t, s.history(t, p, "goes-over"), `kafka/east/switchback`, "history sees references")
	})
	t.Run("the status and the report", func(t *testing.T) {
		for _, id := range []string{"wrong-secret", "comes-back", "goes-over"} {
			status, err := p.Status(t.Context(), id)
			require.NoError(t, err)
			raw, err := json.Marshal(status)
			require.NoError(t, err)
			require.False(t, leaks(raw), id)
		}
		require.FileExists(t, out.Report)
	})
	t.Run("files", func(t *testing.T) {
		found := map[string]bool{}
		looked := map[string]int{}
		require.NoError(t, filepath.WalkDir(s.Dir(), func(path string, d fs.DirEntry, err error) error {
			if err != nil || !d.Type().IsRegular() {
				return nil // a file that a server removed meanwhile
			}
			data, err := os.ReadFile(path)
			if err != nil {
				return nil
			}
			name, err := filepath.Rel(s.Dir(), path)
			require.NoError(t, err)
			looked[strings.Split(name, "/")[0]]++
			if !leaks(data) {
				return nil
			}
			found[name] = true
			require.Regexp(t, meant, name, "a secret is in a file that is not meant for it")
			info, err := d.Info()
			require.NoError(t, err)
			if !strings.HasPrefix(name, "consul/") { // its store is Consul's own affair, in a folder of mode 0700
				require.Equal(t, fs.FileMode(0o600), info.Mode().Perm(), name)
			}
			return nil
		}))
		for _, folder := range []string{"logs", "reports", "ledger", "temporal", "runbooks", "worker", "kafka"} {
			require.NotZero(t, looked[folder], "nothing was looked at in %s", folder)
		}
		for _, name := range []string{"secrets.json", "kafka/east.json", "clients/checkout-1/client.properties"} {
			require.True(t, found[name], "%s holds a secret, and the search must find it", name)
		}
	})
}

// history is a run's, as JSON in which payloads are readable.
func (s *stage) history(t *testing.T, p *play, id string) string {
	t.Helper()
	var b strings.Builder
	iter := p.Temporal.GetWorkflowHistory(t.Context(), id, "", false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for iter.HasNext() {
		event, err := iter.Next()
		require.NoError(t, err)
		raw, err := proto.Marshal(event)
		require.NoError(t, err)
		b.Write(raw)
	}
	return b.String()
}

// inProcesses looks into the arguments and the environment of every process of the machine that this user may see: none
// may hold the canary.
func (s *stage) inProcesses(t *testing.T, canary string) {
	t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/cmdline")
	require.NoError(t, err)
	mine := 0
	for _, cmdline := range files {
		environ := filepath.Join(filepath.Dir(cmdline), "environ")
		arguments, err := os.ReadFile(cmdline)
		if err != nil {
			continue // it has ended
		}
		if bytes.Contains(arguments, []byte(s.Dir())) {
			mine++
		}
		environment, _ := os.ReadFile(environ)
		for what, data := range map[string][]byte{"arguments": arguments, "environment": environment} {
			require.NotContains(t, string(data), canary, "%s of %s", what, fmt.Sprintf("%q", arguments))
		}
	}
	require.Greater(t, mine, 10, "the lab's own processes were not among them")
}
