//go:build bench

package bench

import (
	"cmp"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/lab/cli"
	"switchback/lab/setup"
)

var (
	runs   = flag.Int("runs", 10, "planned failovers on each Temporal server")
	topics = flag.Int("topics", 1000, "topics of the large run")
	looks  = flag.Int("looks", 10, "how often positions are read")
	out    = flag.String("out", "../../out/bench", "folder of results.json")
)

// The test binary plays the lab's own program too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "serve" || os.Args[1] == "client") {
		os.Exit(cli.Run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	flag.Parse()
	begun := load()
	code := m.Run()
	results.Machine = machine{Cores: runtime.NumCPU(), OS: runtime.GOOS, Arch: runtime.GOARCH, Go: runtime.Version(), LoadBefore: begun, LoadAfter: load()}
	if err := results.write(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// patience bounds whatever must come at all.
const patience = 3 * time.Minute

// all is everything that was measured.
type all struct {
	Machine   machine                 `json:"machine"`
	Windows   map[string]*windows     `json:"windows,omitempty"`   // by the server's settings: default, tuned
	Positions *positions              `json:"positions,omitempty"` // of the large workload
	Sizes     []size                  `json:"sizes,omitempty"`
	Phases    map[string][]phaseTimes `json:"phases,omitempty"` // by the server's settings
	Apache    *apacheRows             `json:"apache,omitempty"`
}

type machine struct {
	Cores      int    `json:"cores"`
	OS         string `json:"os"`
	Arch       string `json:"arch"`
	Go         string `json:"go"`
	LoadBefore string `json:"loadBefore"` // averages of 1, 5 and 15 minutes
	LoadAfter  string `json:"loadAfter"`
}

var results = all{Windows: map[string]*windows{}, Phases: map[string][]phaseTimes{}}

func (a all) write() error {
	fmt.Print("\n", a.table())
	raw, err := json.MarshalIndent(a, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(*out, 0o750); err != nil {
		return err
	}
	file := filepath.Join(*out, "results.json")
	fmt.Println("\nwritten to", filepath.ToSlash(filepath.Clean(file)))
	return os.WriteFile(file, append(raw, '\n'), 0o600)
}

// spread is a list of measurements as it is printed: with ten of them p99 is the worst.
type spread struct {
	Median float64   `json:"median"`
	Worst  float64   `json:"worst"`
	Each   []float64 `json:"each"`
}

func (s *spread) add(v float64) {
	s.Each = append(s.Each, v)
	sorted := slices.Sorted(slices.Values(s.Each))
	n := len(sorted)
	s.Median, s.Worst = (sorted[(n-1)/2]+sorted[n/2])/2, sorted[n-1]
}

// up starts a lab in a folder of its own. Each workload's clients write a ledger of their own.
func up(t *testing.T, o setup.Options) *setup.Lab {
	t.Helper()
	root := t.TempDir()
	o.Dir, o.Program = filepath.Join(root, "lab"), os.Args[0]
	o.ClientCommand = func(w setup.Workload, c setup.Client, instance string, rate int) []string {
		return setup.SampleClient(os.Args[0], ledgerOf(o.Dir, w), w, c, instance, rate)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*patience)
	defer cancel()
	for _, w := range o.Workloads {
		require.NoError(t, os.MkdirAll(ledgerOf(o.Dir, w), 0o700))
	}
	begun := time.Now()
	lab, err := setup.Up(ctx, o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, lab.Down()) })
	t.Logf("the lab was ready after %.1f s", time.Since(begun).Seconds())
	return lab
}

func ledgerOf(dir string, w setup.Workload) string { return filepath.Join(dir, "ledgers", w.Name) }

// load is how busy the machine is besides; empty where that cannot be read.
func load() string {
	raw, _ := os.ReadFile("/proc/loadavg")
	return strings.Join(strings.Fields(cmp.Or(string(raw), "? ? ?"))[:3], " ")
}
