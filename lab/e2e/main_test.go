// Package e2e plays whole runs against the whole system: a real Temporal, Consul and Vault, two Kafka clusters, the link,
// the worker, and sample clients under their supervisors. Nothing here looks into a run to say how it ended: that is read
// from the systems themselves and from what the clients wrote down.
//
// Start reading at up, which starts a lab, and at play, which is one workload on it. systems_test.go reads what stands;
// planned_test.go is the story that goes well; rollback_test.go and forward_test.go are failing and cancelling before and
// after the point of no return; the files called after a system hold the traps of that system.
package e2e_test

import (
	"context"
	"flag"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/semaphore"

	"switchback/lab/cli"
	"switchback/lab/setup"
	"switchback/lab/story"
	"switchback/lab/tree"
)

// The test binary plays the lab's own program, and a client that does not obey SIGTERM.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "stubborn":
			go func() {
				for range time.Tick(10 * time.Millisecond) {
					signal.Ignore(syscall.SIGTERM) // again and again, because the client listens for it
				}
			}()
			os.Args[1] = "client"
			fallthrough
		case "serve", "client":
			os.Exit(cli.Run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
		}
	}
	flag.Parse()
	_ = flag.Set("test.parallel", "32") // labs says how many run; whoever waits for one is in nobody's way
	os.Exit(m.Run())
}

// labs bounds how many run at the same time: three, or two of which one at least runs Java. More would only make each slower.
var labs = semaphore.NewWeighted(everything)

const embedded, withJava, everything = 2, 3, 6

// alone are tests that hand over two hundred groups in the time that one attempt has for its writes, and one of eight JVMs.
var alone = []string{
	"TestP33_EveryGroupGoesOnExactlyWhereItStood", "TestWithoutTheSourceGroupsGoOnAsTheReportSays", "TestP06_P07_ThreeRealBrokers",
}

// patience is the longest that any one thing in a lab may take; nothing here is expected to come near it.
const patience = 90 * time.Second

// stage is a lab for one test.
type stage struct {
	*setup.Lab
	t *testing.T
}

// up starts a lab of one small workload, unless a change says otherwise. It ends with the test.
func up(t *testing.T, changes ...func(*setup.Options)) *stage {
	t.Helper()
	t.Parallel()
	o := setup.Options{Dir: t.TempDir(), Program: os.Args[0], Brokers: 1, Workloads: []setup.Workload{small("orders")}}
	for _, change := range changes {
		change(&o)
	}
	weight := int64(embedded)
	switch {
	case slices.Contains(alone, t.Name()):
		weight = everything
	case o.Kafka == setup.Apache:
		weight = withJava
	}
	require.NoError(t, labs.Acquire(t.Context(), weight))
	t.Cleanup(func() { labs.Release(weight) })
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute) // the first one may have to build
	defer cancel()
	lab, err := setup.Up(ctx, o)
	require.NoError(t, err)
	s := &stage{Lab: lab, t: t}
	t.Cleanup(func() { require.NoError(t, lab.Down()) })
	t.Cleanup(func() {
		if t.Failed() {
			s.tell("worker", "link", "east", "west")
		}
	})
	return s
}

// small is a workload that a lab on two cores moves in a moment: 3 topics of 2 partitions, a producer of two instances, a
// group of two members and a group of one.
func small(name string) setup.Workload {
	w := setup.DefaultWorkload(name)
	w.Topics, w.Partitions, w.Rate = 3, 2, 150
	w.Clients[0].Instances = 2
	return w
}

// client is the name of a client of a workload: those of orders have no prefix.
func client(w setup.Workload, role string) setup.Client {
	for _, c := range w.Clients {
		if c.Role == role {
			return c
		}
	}
	panic("no client is a " + role)
}

// command is what the lab would run for an instance, in batches, and by another first word.
func command(word, ledger string, w setup.Workload, c setup.Client, instance string, rate int) []string {
	args := setup.InBatches(c, setup.SampleClient(os.Args[0], ledger, w, c, instance, rate))
	args[1] = word
	return args
}

// ledgerOf is where a lab in a folder keeps its ledgers.
func ledgerOf(o *setup.Options) string { return filepath.Join(o.Dir, "ledger") }

// tell prints the ends of logs.
func (s *stage) tell(names ...string) {
	for _, name := range names {
		raw, err := os.ReadFile(filepath.Join(s.Dir(), "logs", name+".log"))
		if err != nil {
			continue
		}
		lines := strings.Split(strings.TrimSpace(string(raw)), "\n")
		s.t.Logf("the end of the log of %s:\n%s", name, strings.Join(lines[max(0, len(lines)-25):], "\n"))
	}
}

// does fails the test unless something succeeds within patience.
func (s *stage) does(t *testing.T, what string, do func(context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, do(ctx), what)
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, look func() (bool, error)) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	require.NoError(t, story.Until(ctx, what, look))
}

// freeze stops a process in its tracks, so that it neither acts nor answers, and returns how to let it go on.
func (s *stage) freeze(t *testing.T, name string) (thaw func()) {
	t.Helper()
	for _, p := range s.Status() {
		if p.Name == name {
			require.NoError(t, syscall.Kill(p.PID, syscall.SIGSTOP))
			thaw = func() { _ = syscall.Kill(p.PID, syscall.SIGCONT) }
			t.Cleanup(thaw)
			return thaw
		}
	}
	t.Fatalf("no process is called %s", name)
	return nil
}

// stubborn makes one instance a client that only SIGKILL ends.
func stubborn(instance string) func(*setup.Options) {
	return func(o *setup.Options) {
		o.ClientCommand = func(w setup.Workload, c setup.Client, of string, rate int) []string {
			word := "client"
			if of == instance {
				word = "stubborn"
			}
			return command(word, ledgerOf(o), w, c, of, rate)
		}
	}
}

// change starts a process again in another way.
func (s *stage) change(t *testing.T, name string, edit func(*tree.Spec)) {
	t.Helper()
	require.NoError(t, s.Change(name, edit))
	s.does(t, "end "+name, func(ctx context.Context) error { return s.Stop(ctx, name) })
	s.does(t, "start "+name, func(ctx context.Context) error { return s.StartAgain(ctx, name) })
}
