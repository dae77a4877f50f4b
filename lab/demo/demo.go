// Package demo is the whole system before one's eyes: it starts the lab, lets traffic flow, moves the workload, and ends
// with the run's report beside what the clients themselves wrote down.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"switchback/lab/ledger"
	"switchback/lab/servers"
	"switchback/lab/setup"
	"switchback/lab/story"
	"switchback/workflows"
)

// Options of a demo.
type Options struct {
	Lab  setup.Options
	Out  string        // folder of verdict.json
	Flow time.Duration // how long traffic flows before the run starts, and again after it
	Keep bool          // leave the lab running
}

// ErrNotWell says that the ledger, or the report beside it, was not as it should be; everything was said already.
var ErrNotWell = errors.New("the verdict is not well")

// Planned moves the workload from east to west under live traffic.
func Planned(ctx context.Context, o Options, stdout, stderr io.Writer) (err error) {
	say := func(format string, args ...any) { fmt.Fprintf(stdout, "\n=== "+format+"\n", args...) }
	switchback, err := servers.Product(ctx, "starter")
	if err != nil {
		return err
	}
	say("Starting the lab in %s", o.Lab.Dir)
	begun := time.Now()
	lab, err := setup.Up(ctx, o.Lab)
	if err != nil {
		return err
	}
	if !o.Keep {
		defer func() { err = errors.Join(err, lab.Down()) }()
	}
	w := lab.Options().Workloads[0]
	fmt.Fprintf(stdout, "Ready after %.1f s: Temporal with its UI at %s, Consul, Vault, Kafka clusters east and west, a cluster link.\n", time.Since(begun).Seconds(), lab.TemporalUI())
	s, err := story.Open(lab, w)
	if err != nil {
		return err
	}
	defer s.Close()

	say("Traffic on east: %d topics of %d partitions, %d records/s", w.Topics, w.Partitions, w.Rate)
	if err := flow(ctx, s, "east", o.Flow); err != nil {
		return err
	}
	id := "planned-" + w.Name + "-demo"
	say("switchback start planned %s --to west --watch", w.Name)
	if err := start(ctx, switchback, lab, w.Name, id, stdout, stderr); err != nil {
		return fmt.Errorf("the run did not complete: %w", err)
	}
	say("Traffic on west")
	if err := flow(ctx, s, "west", o.Flow); err != nil {
		return err
	}
	return verdict(ctx, s, o, id, stdout)
}

// flow waits until traffic flows, and lets it flow for a while.
func flow(ctx context.Context, s *story.Story, cluster string, while time.Duration) error {
	waiting, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	if err := s.Flows(waiting, cluster, time.Time{}, 20); err != nil {
		return err
	}
	select {
	case <-time.After(while):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// start runs the operator's own command.
func start(ctx context.Context, program string, lab *setup.Lab, runbook, id string, stdout, stderr io.Writer) error {
	cmd := exec.CommandContext(ctx, program, "start", "planned", runbook, "--to", "west", "--reason", "demo", "--by", "operator", "--workflow-id", id, "--watch") //nolint:gosec // the program was built by this very process
	cmd.Env = append(os.Environ(), "TEMPORAL_ADDRESS="+lab.TemporalAddress(), "SWITCHBACK_TASK_QUEUE="+setup.TaskQueue)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return cmd.Run()
}

// settleTime bounds how long groups may need to read what is left.
const settleTime = time.Minute

// verdict ends the traffic, and prints the report beside what the clients wrote down.
func verdict(ctx context.Context, s *story.Story, o Options, id string, stdout io.Writer) error {
	settling, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	settled := s.Settle(settling) // whoever did not read everything is in the verdict
	run := s.Temporal.GetWorkflow(ctx, id, "")
	result, err := s.Ends(ctx, run)
	if err != nil {
		return err
	}
	v, err := s.Judge(ctx, "west", result.Report)
	if err != nil {
		return err
	}
	markdown, err := os.ReadFile(result.Markdown)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "\n=== The report\n\n%s\n", strings.TrimSpace(string(markdown)))
	fmt.Fprintf(stdout, "\n=== What the clients wrote down\n\n%s\n", v)
	path := filepath.Join(o.Out, "verdict.json")
	if err := story.Write(path, v); err != nil {
		return err
	}
	fmt.Fprintf(stdout, "\nverdict: %s\nreport:  %s\n", path, result.Markdown)
	return errors.Join(settled, judged(v, result))
}

func judged(v ledger.Verdict, r workflows.Result) error {
	if !v.Well() || !v.Agrees || r.Outcome != workflows.Completed {
		return ErrNotWell
	}
	return nil
}
