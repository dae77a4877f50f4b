package compose_test

import (
	"cmp"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/compose-spec/compose-go/v2/types"
	"github.com/stretchr/testify/require"

	"switchback/lab/cli"
	"switchback/lab/servers"
)

// programs are those that the Dockerfile builds, with the help of those that are no package of the lab.
type programs struct{ help map[string]string }

func openPrograms(t *testing.T, dockerfile []byte) programs {
	t.Helper()
	p := programs{help: map[string]string{}}
	for _, name := range []string{"worker", "supervisor", "starter"} {
		require.Contains(t, string(dockerfile), "./"+name)
		path, err := servers.Product(t.Context(), name)
		require.NoError(t, err)
		out, err := exec.Command(path, "--help").CombinedOutput()
		require.NoError(t, err, "%s", out)
		p.help[filepath.Base(path)] = string(out)
	}
	require.Contains(t, string(dockerfile), "-o /out/lab .")
	require.Contains(t, string(dockerfile), "-o /out/switchback ./starter")
	p.help["lab"] = "" // asked in this process
	return p
}

// shipped are the programs of images that are used here.
var shipped = map[string][]string{
	"apache/kafka": {
		"/bin/bash", "/opt/kafka/bin/kafka-storage.sh", "/opt/kafka/bin/kafka-server-start.sh", "/opt/kafka/bin/kafka-broker-api-versions.sh",
		"/opt/kafka/bin/connect-distributed.sh",
	},
	"postgres":               {"pg_isready"},
	"temporalio/admin-tools": {"/bin/sh", "temporal-sql-tool"},
	"temporalio/server":      {"temporal-server", "nc"},
	"temporalio/ui":          {"wget"},
	"hashicorp/consul":       {"/bin/consul"},
	"hashicorp/vault":        {"/bin/vault"},
	"switchback-lab":         {"wget", "grep", "test", "sleep"}, // of its base, Alpine
}

// commands: every program is there, every flag is known, every file that is named is mounted.
func (c *check) commands(name string, s types.ServiceConfig) {
	run := slices.Concat(s.Entrypoint, s.Command)
	if len(run) > 0 {
		c.command(name, s, run)
	} else if image, _, _ := strings.Cut(s.Image, ":"); image != "postgres" && image != "temporalio/ui" {
		c.wrong(name, "says nothing of what it runs")
	}
	if s.HealthCheck == nil || len(s.HealthCheck.Test) < 2 {
		return
	}
	if test := s.HealthCheck.Test; test[0] == "CMD-SHELL" {
		for _, part := range strings.Split(test[1], "|") {
			c.command(name, s, strings.Fields(part))
		}
	} else {
		c.command(name, s, test[1:])
	}
}

var ownPaths = regexp.MustCompile(`(?:^|=)(/(?:lab|etc/lab|run)/[^=:,]+)`)

func (c *check) command(name string, s types.ServiceConfig, words []string) {
	image, _, _ := strings.Cut(s.Image, ":")
	program := words[0]
	_, ours := c.programs.help[program]
	if !slices.Contains(shipped[image], program) && (!ours || s.Build == nil) {
		c.wrong(name, "runs %s, which %s does not have", program, image)
		return
	}
	inside := c.inside(s)
	for _, word := range append(words, s.WorkingDir) {
		for _, path := range ownPaths.FindAllStringSubmatch(cmp.Or(word, "-"), -1) {
			if !c.reaches(inside, path[1]) {
				c.wrong(name, "names %s, where nothing is mounted", path[1])
			}
		}
	}
	if len(words) > 1 && strings.HasSuffix(words[1], ".sh") {
		c.script(name, image, inside[words[1]])
	}
	if ours {
		c.flags(name, s, words)
	}
}

// reaches says whether a path is mounted, lies in a folder that is (and exists there, where that can be seen), or has
// something mounted below it.
func (c *check) reaches(inside map[string]string, path string) bool {
	for target, here := range inside {
		if strings.HasPrefix(target+"/", path+"/") {
			return true
		}
		if rest, ok := strings.CutPrefix(path, target+"/"); ok {
			_, err := os.Stat(filepath.Join(here, rest))
			return here == "" || err == nil
		}
	}
	return false
}

var inScript = regexp.MustCompile(`(?m)/opt/kafka/bin/[\w.-]+|\btemporal-sql-tool\b`)

// script: what it calls belongs to the image.
func (c *check) script(name, image, here string) {
	text, err := os.ReadFile(here)
	if err != nil {
		c.wrong(name, "runs a script that is not mounted")
		return
	}
	if out, err := exec.Command("bash", "-n", here).CombinedOutput(); err != nil {
		c.wrong(name, "%s is no script: %s", here, out)
	}
	for _, program := range inScript.FindAllString(string(text), -1) {
		if !slices.Contains(shipped[image], program) {
			c.wrong(name, "%s calls %s, which %s does not have", filepath.Base(here), program, image)
		}
	}
}

// flags of our own programs; what stands behind -- is a command again.
func (c *check) flags(name string, s types.ServiceConfig, words []string) {
	if i := slices.Index(words, "--"); i >= 0 {
		c.command(name, s, words[i+1:])
		words = words[:i]
	}
	known := func(flag string) bool {
		return regexp.MustCompile(`(^|[\s,])` + regexp.QuoteMeta(flag) + `[\s,]`).MatchString(c.programs.help[words[0]])
	}
	if words[0] == "lab" {
		cmd, rest, err := cli.Root().Find(words[1:])
		if err != nil || cmd.HasSubCommands() {
			c.wrong(name, "there is no command %q", strings.Join(words, " "))
			return
		}
		if slices.ContainsFunc(rest, func(w string) bool { return !strings.HasPrefix(w, "-") }) {
			c.wrong(name, "%s takes no arguments: %v", cmd.CommandPath(), rest)
		}
		known = func(flag string) bool {
			f := strings.TrimPrefix(flag, "--")
			return cmd.Flags().Lookup(f) != nil || cmd.InheritedFlags().Lookup(f) != nil
		}
	}
	for _, word := range words[1:] {
		flag, _, _ := strings.Cut(word, "=")
		if strings.HasPrefix(word, "-") && !known(flag) {
			c.wrong(name, "%s has no flag %s", words[0], flag)
		}
	}
}
