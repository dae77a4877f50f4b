// Package lint holds tests about the rules of this repository itself: which imports are refused, what is linked into
// the product. There is no other code here.
package lint

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTheLinterRefuses writes a small module that breaks each rule of .golangci.yml once, and runs the linter over it.
// It needs the linter that `make lint` builds; `make lint-rules` names it in LINT.
func TestTheLinterRefuses(t *testing.T) {
	linter := os.Getenv("LINT")
	if linter == "" {
		t.Skip("it needs the built linter: make lint-rules runs it")
	}
	config, err := filepath.Abs("../../.golangci.yml")
	require.NoError(t, err)
	dir := t.TempDir()
	write := func(name, text string) {
		path := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o750))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	// Every package that is imported below exists and is empty, so that only the rules can object.
	write("go.mod", "module switchback\n\ngo 1.26\n\nrequire (\n\tgithub.com/twmb/franz-go v0.0.0\n\tgithub.com/hashicorp/consul/api v0.0.0\n\tgithub.com/hashicorp/vault v0.0.0\n)\n\n"+
		"replace (\n\tgithub.com/twmb/franz-go => ./third/franz-go\n\tgithub.com/hashicorp/consul/api => ./third/consul\n\tgithub.com/hashicorp/vault => ./third/vault\n)\n")
	write("third/franz-go/go.mod", "module github.com/twmb/franz-go\n")
	write("third/franz-go/pkg/kgo/kgo.go", "package kgo\n")
	write("third/consul/go.mod", "module github.com/hashicorp/consul/api\n")
	write("third/consul/api.go", "package api\n")
	write("third/vault/go.mod", "module github.com/hashicorp/vault\n")
	write("third/vault/vault/vault.go", "package vault\n")
	for _, p := range []string{"internal/consul", "internal/vault", "internal/fault", "replication", "replication/kafka", "replication/clusterlinking", "replication/mirrormaker", "clients", "clients/supervised", "activities", "workflows", "worker", "lab/setup", "runbooks", "starter", "report"} {
		write(p+"/doc.go", "package "+filepath.Base(p)+"\n")
	}

	const leaves, vendors = "activities know leaves only", "Consul and Vault are reached through interfaces"
	type refusal struct{ in, imports, says string }
	refused := []refusal{
		{"runbooks", "switchback/activities", "not allowed from list 'leaves'"},
		{"replication", "github.com/twmb/franz-go/pkg/kgo", "not allowed from list 'leaves'"},
		{"report", "switchback/workflows", "not allowed from list 'leaves'"},
		{"internal/fault", "switchback/worker", "not allowed from list 'leaves'"},
		{"activities", "switchback/internal/consul", leaves},
		{"activities", "switchback/internal/vault", leaves},
		{"activities", "switchback/replication/kafka", leaves},
		{"activities", "switchback/replication/clusterlinking", leaves},
		{"activities", "switchback/replication/mirrormaker", leaves},
		{"activities", "switchback/clients/supervised", leaves},
		{"activities", "switchback/workflows", "imports run one way"},
		{"activities", "github.com/twmb/franz-go/pkg/kgo", "Kafka is reached through the interfaces"},
		{"activities", "github.com/hashicorp/consul/api", vendors},
		{"workflows", "switchback/internal/vault", "workflows import activities and leaves only"},
		{"workflows", "switchback/replication/kafka", "workflows import activities and leaves only"},
		{"workflows", "math/rand", "workflows are deterministic"},
		{"workflows", "os", "workflows are deterministic"},
		{"internal/consul", "switchback/activities", "adapters import leaves only"},
		{"replication/kafka", "switchback/workflows", "adapters import leaves only"},
		{"clients/supervised", "switchback/worker", "the worker is imported by nothing"},
		{"starter", "switchback/internal/consul", "the command line talks to Temporal only"},
		{"starter", "github.com/twmb/franz-go/pkg/kgo", "the command line talks to Temporal only"},
		{"starter", "github.com/hashicorp/consul/api", "the command line talks to Temporal only"},
		{"worker", "switchback/lab/setup", "what the lab embeds must never reach the product"},
		{"worker", "github.com/hashicorp/vault/vault", "Business Source Licence"},
	}
	// The offenders live in folders of the same names below another one: the packages above would import each other in
	// circles otherwise.
	for i, r := range refused {
		name := strings.ReplaceAll(r.imports, "/", "_")
		write(filepath.Join("of", r.in, "breaks_"+name+".go"), "package "+filepath.Base(r.in)+"\n\nimport _ \""+r.imports+"\"\n")
		refused[i].in = filepath.Join("of", r.in, "breaks_"+name+".go")
	}
	write("of/workflows/clock.go", "package workflows\n\nimport \"time\"\n\n// Late asks the wrong clock.\nfunc Late() time.Time { return time.Now() }\n")
	write("of/worker/clock.go", "package worker\n\nimport \"time\"\n\n// Now may.\nfunc Now() time.Time { return time.Now() }\n")
	write("of/starter/sleep_test.go", "package starter\n\nimport (\n\t\"testing\"\n\t\"time\"\n)\n\nfunc TestSleeps(t *testing.T) { time.Sleep(time.Second) }\n")

	cmd := exec.Command(linter, "run", "--allow-parallel-runners", "--config", config, "--enable-only", "depguard,forbidigo", "--max-issues-per-linter", "0", "--max-same-issues", "0", "--output.text.print-issued-lines=false", "./...")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off", "GOLANGCI_LINT_CACHE="+t.TempDir())
	out, err := cmd.CombinedOutput()
	said := string(out)
	require.Error(t, err, "the linter found nothing wrong:\n%s", said)
	require.NotContains(t, said, "typecheck", "the module of this test must compile")
	line := func(file string) string {
		for l := range strings.Lines(said) {
			if strings.Contains(l, "/"+file+":") {
				return l
			}
		}
		return ""
	}
	for _, r := range refused {
		require.Contains(t, line(r.in), r.says, "%s may import %s:\n%s", r.in, r.imports, said)
	}
	require.Contains(t, line("of/workflows/clock.go"), "workflow.Now")
	require.Contains(t, line("of/starter/sleep_test.go"), "wait for a condition with a deadline")
	require.Empty(t, line("of/worker/clock.go"), "clocks are forbidden in workflows alone")
}
