package runbooks

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"
)

func examples(t testing.TB) []string {
	t.Helper()
	files, err := filepath.Glob("examples/*.yaml")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	return files
}

func parsed(t *testing.T, text string) Runbook {
	t.Helper()
	l, err := Parse("r.yaml", []byte(text))
	require.NoError(t, err)
	return l.Runbook
}

func TestExamplesLoad(t *testing.T) {
	for _, file := range examples(t) {
		l, err := Load(file)
		require.NoError(t, err)
		require.Equal(t, strings.TrimSuffix(filepath.Base(file), ".yaml"), l.Runbook.Metadata.Name)
		require.Equal(t, file, l.Path)
		require.Len(t, l.SHA256, 64)
	}
}

var stepLine = regexp.MustCompile("(?m)^[0-9]+\\. `([a-z-]+)` ")

func TestOperatorsPagesListTheSteps(t *testing.T) {
	for _, file := range examples(t) {
		page, err := os.ReadFile(strings.TrimSuffix(file, ".yaml") + ".md")
		require.NoError(t, err)
		for heading, want := range map[string][]string{"\n## The fifteen steps\n": PlannedFailoverSteps, "\n## The thirteen steps of an unplanned failover\n": UnplannedFailoverSteps} {
			_, part, found := strings.Cut(string(page), heading)
			require.True(t, found, "%s has no heading %s", file, heading)
			part, _, _ = strings.Cut(part, "\n## ")
			var steps []string
			for _, m := range stepLine.FindAllStringSubmatch(part, -1) {
				steps = append(steps, m[1])
			}
			require.Equal(t, want, steps, file)
		}
	}
}

func TestLoadSaysThatAFileIsMissing(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "orders.yaml"))
	require.ErrorIs(t, err, fs.ErrNotExist)
}

func TestEmptyFilesAreRefused(t *testing.T) {
	for _, text := range []string{"", "\n\n", "# only a comment\n", "---\n"} {
		_, err := Parse("r.yaml", []byte(text))
		require.Error(t, err, "%q", text)
		require.Contains(t, err.Error(), "r.yaml:1:1: ")
	}
	_, err := Parse("r.yaml", []byte(strings.Repeat("# x\n", maxBytes)))
	require.EqualError(t, err, "r.yaml:1:1: is larger than 1 MiB: this is not a runbook")
}

func TestAllErrorsComeAtOnceInTheOrderOfTheFile(t *testing.T) {
	text := strings.NewReplacer("rto: 5m", "rto: fast", "role: producer", "rle: producer", "owner: sre", "owner: 1").Replace(base)
	_, err := Parse("r.yaml", []byte(text))
	var all Errors
	require.ErrorAs(t, err, &all)
	require.Len(t, all, 3)
	require.Equal(t, []int{3, 4, 23}, []int{all[0].Line, all[1].Line, all[2].Line})
}

func TestDefaults(t *testing.T) {
	r := parsed(t, base)
	require.Equal(t, Gates{Planned: Gate{1, Duration(time.Hour)}, Unplanned: Gate{2, Duration(15 * time.Minute)}, Recovery: Gate{1, Duration(time.Hour)}, AntiFlap: Duration(30 * time.Minute)}, r.Gates)
	require.Equal(t, Budgets{Drain: Duration(5 * time.Minute), StopClients: Duration(2 * time.Minute), StartClients: Duration(5 * time.Minute),
		Promote: Duration(2 * time.Minute), Verify: Duration(time.Minute)}, r.Budgets)
	require.Equal(t, "earliest", r.Groups.WithoutCommit)
	require.Equal(t, "SCRAM-SHA-512", r.Clusters["east"].Security.Mechanism)
	require.Equal(t, "/kafka/v3", r.Links[0].ClusterLinking.PathPrefix)
	require.True(t, r.Discovery[0].Required)
	require.Equal(t, "User:checkout", r.Clients[0].Principal)
	require.Equal(t, "go-on", r.Clients[0].WhenKilled)

	again := parsed(t, base)
	again.applyDefaults(func(string) bool { return false })
	require.Equal(t, r, again, "defaults twice change nothing")
}

func TestAnExplicitZeroStays(t *testing.T) {
	r := parsed(t, strings.Replace(base, "home: east", "home: east\ngates: {planned: {approvals: 0}}", 1))
	require.Equal(t, 0, r.Gates.Planned.Approvals)
	require.Equal(t, Duration(time.Hour), r.Gates.Planned.Expiry)

	snapshot, err := json.Marshal(r)
	require.NoError(t, err)
	var back Runbook
	require.NoError(t, json.Unmarshal(snapshot, &back))
	require.Equal(t, r, back, "a run's snapshot is the runbook")
}

func TestValidateWithoutAFile(t *testing.T) {
	r := parsed(t, base)
	require.NoError(t, r.Validate())
	r.Home = "north"
	require.EqualError(t, r.Validate(), `home: "north" is no cluster of this runbook: use east or west`)
	require.Error(t, Runbook{}.Validate())
}

func TestDuration(t *testing.T) {
	for text, want := range map[string]string{"0": "0s", "0s": "0s", "90s": "1m30s", "5m": "5m", "60m": "1h", "1h30m": "1h30m", "1h0m5s": "1h0m5s", "250ms": "250ms", "10m": "10m", "20h": "20h"} {
		var d Duration
		require.NoError(t, d.UnmarshalText([]byte(text)))
		require.Equal(t, want, d.String())
		out, err := json.Marshal(d)
		require.NoError(t, err)
		require.JSONEq(t, `"`+want+`"`, string(out))
	}
	for _, text := range []string{"", "5", "-1s", "5 minutes", "1d"} {
		var d Duration
		require.Error(t, d.UnmarshalText([]byte(text)), text)
	}
	var d Duration
	require.Error(t, json.Unmarshal([]byte(`5`), &d), "a plain number has no unit")
}

func TestPatterns(t *testing.T) {
	p := Patterns{Include: []string{"orders", "payments.*", "log-??", "*"}[:3], Exclude: []string{"payments.test*"}}
	for name, want := range map[string]bool{
		"orders": true, "orders2": false, "my-orders": false, "payments.eu": true, "payments.": true, "payments": false,
		"payments.test1": false, "log-01": true, "log-1": false, "log-001": false, "": false,
	} {
		require.Equal(t, want, p.Match(name), name)
	}
	everything := Patterns{Include: []string{"*"}}
	groups := Groups{Include: []string{"*"}, Exclude: []string{"audit"}}
	require.True(t, everything.Match("a.b_c-d"))
	for _, name := range []string{"__consumer_offsets", "__transaction_state", "switchback.marks", "switchback.positions"} {
		require.False(t, everything.Match(name), name)
	}
	require.True(t, groups.Match("billing"))
	require.False(t, groups.Match("audit"))
	require.False(t, Patterns{}.Match("orders"))
	require.True(t, glob("a*b*c", "a-b-b-c"))
	require.False(t, glob(strings.Repeat("a*", 50)+"b", strings.Repeat("a", 10_000)), "ends soon whatever somebody writes")
}

func TestLookups(t *testing.T) {
	l, err := Load("examples/payments.yaml")
	require.NoError(t, err)
	r := l.Runbook
	link, ok := r.Link("north", "south")
	require.True(t, ok)
	require.Equal(t, "payments-north-south", link.ClusterLinking.Link)
	_, ok = r.Link("south", "north")
	require.False(t, ok)
	require.Equal(t, "south", r.RequiredDiscovery().Consul.Datacenter)
	require.Equal(t, "payments/south/ledger", r.CredentialPath("south", "ledger"))
	to, ok := r.CopyPath("ledger")
	require.True(t, ok)
	require.Equal(t, "payments/active/ledger", to)
	require.Equal(t, "south", r.Other("north"))
	require.Equal(t, "north", r.Other("south"))
	require.Empty(t, r.Other("west"))
	require.Len(t, r.ClientsByRole(RoleProducer, RoleBoth), 2)
	require.Len(t, r.ClientsByRole(RoleConsumer), 1)
	require.True(t, r.Clients[1].Producing() && r.Clients[1].Consuming())
}

// FuzzParse: nothing panics; what was accepted is sound, and reads the same when it is written out and read again.
func FuzzParse(f *testing.F) {
	f.Add([]byte(base))
	f.Add([]byte(everyPart))
	for _, file := range examples(f) {
		data, err := os.ReadFile(file)
		require.NoError(f, err)
		f.Add(data)
	}
	for _, text := range []string{"", "a: [", "? {a: b}\n: c", "- - -", "clusters: {<<: *x}", "!!map {}", "%YAML 1.2\n---\na", "drills: [{kind: canary, cron: \"TZ=0 0 0 0 0\"}]", "home: |\n  east"} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := Parse("r.yaml", data)
		if err != nil {
			require.NotEmpty(t, err.Error())
			return
		}
		require.NoError(t, l.Runbook.Validate())
		text, err := yaml.Marshal(l.Runbook)
		require.NoError(t, err)
		again, err := Parse("r.yaml", text)
		require.NoError(t, err, "%s", text)
		require.Equal(t, l.Runbook, again.Runbook)
	})
}
