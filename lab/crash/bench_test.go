//go:build crash

package crash

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/lab/cli"
	"switchback/lab/setup"
	"switchback/lab/story"
	"switchback/lab/tree"
	"switchback/runbooks"
)

var (
	labs = flag.Int("labs", 3, "how many labs run side by side")
	keep = flag.Bool("keep", false, "keep the labs' folders, and say where they are")
)

// The test binary plays the lab's own program too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && (os.Args[1] == "serve" || os.Args[1] == "client") {
		os.Exit(cli.Run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	flag.Parse()
	_ = flag.Set("test.parallel", fmt.Sprint(*labs))
	benches = make(chan *bench, *labs)
	for range *labs {
		benches <- nil // made when it is first needed
	}
	code := m.Run()
	for range *labs {
		if b := <-benches; b != nil {
			if err := b.down(); err != nil {
				fmt.Fprintln(os.Stderr, err)
				code = 1
			}
		}
	}
	results.print(os.Stdout)
	if err := results.keep(); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	os.Exit(code)
}

// bench is a lab on which scenarios are played one after the other, each with a workload of its own. What a scenario
// leaves on what the workloads share is put back before the next.
type bench struct {
	*setup.Lab
	root   string // of everything
	orders string // for the worker's kill points
	unused []setup.Workload
	broken bool // a scenario failed: nobody knows what it has left
}

// benches that nobody uses at the moment; nil is one that is to be made.
var benches chan *bench

// perBench is how many workloads a lab has. More would make the first scenario wait, fewer would need more labs.
const perBench = 16

// patience bounds whatever a test waits for; nothing that goes well comes near it.
const patience = 30 * time.Second

// take returns a lab that has so many workloads left, and those. It is given back when the test ends.
func take(t *testing.T, n int) (*bench, []setup.Workload) {
	t.Helper()
	b := <-benches
	give := func(b *bench) { benches <- b }
	if b != nil && (b.broken || len(b.unused) < n) {
		if err := b.down(); err != nil {
			t.Errorf("a lab did not end well: %v", err)
		}
		b = nil
	}
	if b == nil {
		var err error
		if b, err = newBench(t.Context(), perBench); err != nil {
			give(nil)
			require.NoError(t, err, "start a lab")
		}
	}
	w := b.unused[:n]
	b.unused = b.unused[n:]
	t.Cleanup(func() {
		b.broken = b.broken || t.Failed()
		give(b)
	})
	return b, w
}

func newBench(ctx context.Context, workloads int, changes ...func(*setup.Options)) (*bench, error) {
	root, err := os.MkdirTemp("", "switchback-crash-")
	if err != nil {
		return nil, err
	}
	b := &bench{root: root, orders: filepath.Join(root, "orders")}
	if err := os.Mkdir(b.orders, 0o700); err != nil {
		return nil, err
	}
	for i := range workloads {
		w := small(fmt.Sprintf("w%02d", i+1))
		b.unused = append(b.unused, w)
		if err := os.MkdirAll(b.ledger(w), 0o700); err != nil {
			return nil, err
		}
	}
	o := setup.Options{
		Dir: filepath.Join(root, "lab"), Program: os.Args[0], Brokers: 1, Workloads: b.unused,
		WorkerTags: []string{"killpoints"}, WorkerEnv: []string{"SWITCHBACK_KILLPOINTS=" + b.orders},
		EditRunbook: patient, ClientCommand: b.client,
	}
	for _, change := range changes {
		change(&o)
	}
	b.Lab, err = setup.Up(ctx, o)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(root))
	}
	return b, nil
}

// small is a workload whose traffic shows every loss and costs little.
func small(name string) setup.Workload {
	return setup.Workload{
		Name: name, Topics: 3, Partitions: 2, Rate: 100, Idle: true,
		Clients: []setup.Client{
			{Name: name + "-checkout", Role: runbooks.RoleProducer, Instances: 1},
			{Name: name + "-billing", Role: runbooks.RoleConsumer, Group: name + "-billing", Instances: 1},
			{Name: name + "-shipping", Role: runbooks.RoleConsumer, Group: name + "-shipping", Instances: 1},
		},
	}
}

// patient budgets outlast every outage of these tests: what is tested is that it ends well, not that it gives up.
func patient(b *runbooks.Runbook) {
	minute := runbooks.Duration(time.Minute)
	b.Objectives.RTO = 3 * minute
	b.Budgets.StopClients, b.Budgets.Drain, b.Budgets.StartClients = minute, minute, minute
	b.Budgets.Promote, b.Budgets.Verify = minute, minute
}

// client is the sample program with a ledger for each workload.
func (b *bench) client(w setup.Workload, c setup.Client, instance string, rate int) []string {
	return setup.InBatches(c, setup.SampleClient(os.Args[0], b.ledger(w), w, c, instance, rate))
}

func (b *bench) ledger(w setup.Workload) string { return filepath.Join(b.root, "ledger", w.Name) }

func (b *bench) down() error {
	err := b.Down()
	if *keep {
		fmt.Fprintln(os.Stderr, "kept:", b.root)
		return err
	}
	return errors.Join(err, os.RemoveAll(b.root))
}

// order leaves an order for the worker: kill or hold at a point, after passing it so many times.
func (b *bench) order(t *testing.T, what, point string, passes int) {
	t.Helper()
	require.NoError(t, os.WriteFile(b.file(point), fmt.Appendf(nil, "%s %d", what, passes), 0o600))
}

// reached waits until the worker is at the point of an order.
func (b *bench) reached(ctx context.Context, point string) error {
	return story.Until(ctx, "the worker to reach "+point, func() (bool, error) {
		_, err := os.Stat(b.file(point) + ".reached")
		return err == nil, err
	})
}

// goOn lets a held worker go on.
func (b *bench) goOn(point string) error { return os.Remove(b.file(point) + ".reached") }

func (b *bench) file(point string) string {
	return filepath.Join(b.orders, strings.ReplaceAll(point, "/", "."))
}

// again starts a process that was killed. A worker that comes to its next death before anybody has seen it ready has started. Kafka
// Connect waits a minute for what its tasks had begun.
func (b *bench) again(t *testing.T, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*patience)
	defer cancel()
	if err := b.StartAgain(ctx, name); err != nil {
		reached, _ := filepath.Glob(b.file("*.reached"))
		require.True(t, name == "worker" && len(reached) > 0, "%v", err)
	}
}

// logs are the last lines of some processes, for a test that failed.
func (b *bench) logs(names ...string) string {
	var all strings.Builder
	for _, s := range b.Status() {
		for _, name := range names {
			if strings.HasPrefix(s.Name, name) {
				fmt.Fprintf(&all, "%s (%s %s):\n%s\n", s.Name, s.State, s.Exit, tree.Tail(s.Log, 10))
			}
		}
	}
	return all.String()
}
