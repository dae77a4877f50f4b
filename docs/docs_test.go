// Package docs holds no code: its tests keep the pages true. Links lead somewhere, commands and flags that are shown
// exist, and what the pages list (steps, settings, keys of a runbook, workflows) is all that there is.
package docs

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/workflow"

	"switchback/runbooks"
	"switchback/workflows"
)

// pages are all that people read, by their path from here.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, glob := range []string{"../*.md", "*.md", "*/*.md", "../runbooks/examples/*.md"} {
		files, err := filepath.Glob(glob)
		require.NoError(t, err)
		for _, file := range files {
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			all[strings.TrimPrefix(file, "../docs/")] = string(text)
		}
	}
	require.Greater(t, len(all), 10)
	return all
}

var (
	fence   = regexp.MustCompile("(?ms)^```(\\w*)\n(.*?)^```")
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.*)$`)
	inline  = regexp.MustCompile("`([^`\n]+)`")
)

// anchors are the names under which a page's headings can be linked to.
func anchors(text string) (names []string) {
	for _, h := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		name := strings.ToLower(strings.ReplaceAll(h[1], " ", "-"))
		names = append(names, regexp.MustCompile(`[^\p{L}\p{N}_-]`).ReplaceAllString(name, ""))
	}
	return names
}

func TestLinksLeadSomewhere(t *testing.T) {
	all := pages(t)
	for page, text := range all {
		for _, l := range link.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
			if strings.Contains(l[1], "://") {
				continue
			}
			path, anchor, _ := strings.Cut(l[1], "#")
			target := page
			if path != "" {
				target = filepath.Join(filepath.Dir(page), path)
			}
			if _, err := os.Stat(target); err != nil {
				t.Errorf("%s links to %s, which is not there", page, l[1])
			} else if anchor != "" && !slices.Contains(anchors(all[strings.TrimPrefix(target, "../docs/")]), anchor) {
				t.Errorf("%s links to %s, but the page has no such heading", page, l[1])
			}
		}
	}
}

// shown are the commands of a page: in blocks without a language, one a line, and in running text.
func shown(text string) (commands [][]string) {
	var lines []string
	for _, block := range fence.FindAllStringSubmatch(text, -1) {
		if block[1] == "" || block[1] == "bash" {
			lines = append(lines, strings.Split(strings.ReplaceAll(block[2], "\\\n", " "), "\n")...)
		}
	}
	for _, code := range inline.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		lines = append(lines, code[1])
	}
	for _, line := range lines {
		line = strings.TrimPrefix(strings.TrimSpace(line), `eval "$(`)
		words := strings.Fields(strings.TrimSuffix(line, `)"`))
		if len(words) > 1 {
			words[0] = strings.TrimPrefix(words[0], "bin/")
			commands = append(commands, words)
		}
	}
	return commands
}

// programs answer for help.
type programs struct {
	t    *testing.T
	help map[string]string
}

// helps and what was built are kept for all tests; folders are where the programs are built from.
var (
	helps   = map[string]string{}
	built   = map[string]string{}
	folders = map[string]string{"switchback": "../starter", "worker": "../worker", "supervisor": "../supervisor", "lab": "../lab"}
)

// open finds the programs where go keeps what it has built to run it.
func open(t *testing.T) *programs {
	t.Helper()
	p := &programs{t: t, help: helps}
	for program, folder := range folders {
		if built[program] != "" {
			continue
		}
		for range 5 { // what was built a moment ago is run from a temporary place, and kept for the next time
			cmd := exec.Command("go", "run", "-exec", "echo", ".")
			cmd.Dir = folder
			cmd.Stderr = os.Stderr
			out, err := cmd.Output()
			require.NoError(t, err, "build %s", program)
			built[program] = strings.TrimSpace(string(out))
			if _, err := os.Stat(built[program]); err == nil {
				break
			}
		}
		require.FileExists(t, built[program], "its sources change while it is being built")
	}
	// What was read is part of what decides whether a cached result of this test still holds.
	for _, folder := range []string{"starter", "worker", "supervisor", "lab/cli", "lab/clients"} {
		files, err := filepath.Glob("../" + folder + "/*.go")
		require.NoError(t, err)
		for _, file := range files {
			_, err := os.ReadFile(file)
			require.NoError(t, err)
		}
	}
	return p
}

// of is the help of a command, "" when there is no such command: cobra then shows that of its parent.
func (p *programs) of(path ...string) string {
	key := strings.Join(path, " ")
	if text, ok := p.help[key]; ok {
		return text
	}
	args := append(slices.Clone(path[1:]), "--help")
	cmd := exec.Command(built[path[0]], args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	text := ""
	if err := cmd.Run(); err == nil && (len(path) == 1 || strings.Contains(out.String(), "Usage:\n  "+key)) {
		text = out.String()
	} else if len(path) == 1 {
		require.NoError(p.t, err, "%s", out.String())
	}
	p.help[key] = text
	return text
}

func TestCommandsExist(t *testing.T) {
	p := open(t)
	makefile, err := os.ReadFile("../Makefile")
	require.NoError(t, err)
	seen := 0
	for page, text := range pages(t) {
		for _, words := range shown(text) {
			if words[0] == "make" {
				if !regexp.MustCompile(`(?m)^([\w-]+ )*` + regexp.QuoteMeta(words[1]) + `( [\w-]+)*:`).Match(makefile) {
					t.Errorf("%s shows make %s, which is no target", page, words[1])
				}
				continue
			}
			if folders[words[0]] == "" {
				continue
			}
			seen++
			if err := p.check(words); err != nil {
				t.Errorf("%s shows %q: %v", page, strings.Join(words, " "), err)
			}
		}
	}
	require.Greater(t, seen, 40)
}

// check walks down as long as the command has commands of its own, and looks for each flag.
func (p *programs) check(words []string) error {
	path := words[:1]
	for strings.Contains(p.of(path...), "\nAvailable Commands:\n") {
		if len(words) == len(path) || strings.HasPrefix(words[len(path)], "-") {
			break
		}
		path = words[:len(path)+1]
		if p.of(path...) == "" {
			return fmt.Errorf("there is no command %s", strings.Join(path, " "))
		}
	}
	for _, word := range words[len(path):] {
		if word == "--" {
			break
		}
		flag, _, _ := strings.Cut(strings.Trim(word, "[],"), "=")
		if strings.HasPrefix(flag, "-") && !regexp.MustCompile(`(^|[\s,])`+regexp.QuoteMeta(flag)+`[\s,]`).MatchString(p.of(path...)) {
			return fmt.Errorf("%s has no flag %s", strings.Join(path, " "), flag)
		}
	}
	return nil
}

var aFlag = regexp.MustCompile(`(?m)^ +(?:-\w, )?(--[\w.-]+)`)

// TestSettingsAreListed: what a program can be told stands in its page's table.
func TestSettingsAreListed(t *testing.T) {
	p, all := open(t), pages(t)
	for page, path := range map[string][]string{
		"operate.md": {"worker"}, "supervisor.md": {"supervisor"}, "lab.md": {"lab", "up"},
	} {
		for _, flag := range aFlag.FindAllStringSubmatch(p.of(path...), -1) {
			lists(t, all, page, "`"+flag[1]+"`")
		}
	}
	for _, flag := range aFlag.FindAllStringSubmatch(p.of("worker"), -1) {
		variable := "`SWITCHBACK_" + strings.ToUpper(strings.ReplaceAll(strings.TrimPrefix(flag[1], "--"), ".", "_")) + "`"
		lists(t, all, "operate.md", variable)
	}
	for _, command := range regexp.MustCompile(`(?m)^  (\w+) +\w`).FindAllStringSubmatch(p.of("lab"), -1) {
		lists(t, all, "lab.md", "`lab "+command[1])
	}
}

// lists looks for a word; what every program has is told nowhere.
func lists(t *testing.T, all map[string]string, page, word string) {
	t.Helper()
	everywhere := []string{"`--help`", "`--config`", "`--dir`", "`SWITCHBACK_HELP`", "`SWITCHBACK_CONFIG`", "`lab help", "`lab completion"}
	if !slices.Contains(everywhere, word) && !strings.Contains(all[page], word) {
		t.Errorf("%s does not list %s", page, word)
	}
}

func TestEveryKindOfRecordIsListed(t *testing.T) {
	code, err := os.ReadFile("../activities/records.go")
	require.NoError(t, err)
	kinds := regexp.MustCompile(`return "(\w+)/"`).FindAllStringSubmatch(string(code), -1)
	require.Greater(t, len(kinds), 4)
	for _, kind := range kinds {
		lists(t, pages(t), "how-it-works.md", "| `"+kind[1]+"/")
	}
}

// keys of a runbook: the last part of each, as it is written in the file.
func keys(v reflect.Type, into map[string]bool) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map:
		keys(v.Elem(), into)
	case reflect.Struct:
		for f := range v.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("yaml"), ",")
			into[name] = true
			keys(f.Type, into)
		}
	}
}

func TestEveryKeyOfARunbookIsListed(t *testing.T) {
	text := pages(t)["runbooks.md"]
	all := map[string]bool{}
	keys(reflect.TypeFor[runbooks.Runbook](), all)
	require.Greater(t, len(all), 60)
	for key := range all {
		if !regexp.MustCompile("[`.]" + regexp.QuoteMeta(key) + "[`.\\[]|## (.* )?" + regexp.QuoteMeta(key) + "\\b").MatchString(text) {
			t.Errorf("runbooks.md does not tell of %s", key)
		}
	}
}

func TestTheSmallestRunbookIsRight(t *testing.T) {
	blocks := fence.FindAllStringSubmatch(pages(t)["runbooks.md"], -1)
	last := blocks[len(blocks)-1]
	require.Equal(t, "yaml", last[1])
	_, err := runbooks.Parse("runbooks.md", []byte(last[2]))
	require.NoError(t, err)
}

func TestStepsAreListedInTheirOrder(t *testing.T) {
	text := pages(t)["how-it-works.md"]
	for heading, want := range map[string][]string{
		"## The fifteen steps\n":                           runbooks.PlannedFailoverSteps,
		"## The thirteen steps of an unplanned failover\n": runbooks.UnplannedFailoverSteps,
	} {
		_, part, found := strings.Cut(text, heading)
		require.True(t, found, heading)
		part, _, _ = strings.Cut(part, "\n## ")
		var rows []string
		for _, row := range regexp.MustCompile("(?m)^\\| `([a-z-]+)` \\| [^|]+ \\| [^|]*\\|$").FindAllStringSubmatch(part, -1) {
			rows = append(rows, row[1])
		}
		require.Equal(t, want, rows, heading)
	}
}

// TestRulesHaveTests: a rule that the page gives a number can be found under it.
func TestRulesHaveTests(t *testing.T) {
	var tests strings.Builder
	require.NoError(t, filepath.WalkDir("..", func(path string, d os.DirEntry, err error) error {
		if err == nil && d.IsDir() && slices.Contains([]string{".git", "out", "bin"}, d.Name()) {
			return filepath.SkipDir
		}
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		tests.Write(text)
		return err
	}))
	for _, rule := range regexp.MustCompile(`\*\*(P\d\d)\*\*`).FindAllStringSubmatch(pages(t)["how-it-works.md"], -1) {
		if !regexp.MustCompile(`func Test(P\d\d_)*` + rule[1] + `_`).MatchString(tests.String()) {
			t.Errorf("how-it-works.md tells of %s, and no test is named after it", rule[1])
		}
	}
}

// registry notes the names of what is registered.
type registry struct{ names []string }

func (r *registry) RegisterWorkflow(w any) {
	name := runtime.FuncForPC(reflect.ValueOf(w).Pointer()).Name()
	r.names = append(r.names, name[strings.LastIndex(name, ".")+1:])
}
func (r *registry) RegisterWorkflowWithOptions(_ any, o workflow.RegisterOptions) {
	r.names = append(r.names, o.Name)
}

func TestEveryWorkflowIsInTheReadme(t *testing.T) {
	var r registry
	workflows.Register(&r)
	require.NotEmpty(t, r.names)
	for _, name := range r.names {
		lists(t, pages(t), "../README.md", "| `"+name+"` | works |")
		lists(t, pages(t), "temporal.md", "| `"+name+"` |")
	}
}
