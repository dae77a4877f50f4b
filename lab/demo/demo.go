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

// stage is a demo under way.
type stage struct {
	Options
	lab            *setup.Lab
	story          *story.Story
	switchback     string // the operator's program
	stdout, stderr io.Writer
}

func (s *stage) say(format string, args ...any) { fmt.Fprintf(s.stdout, "\n=== "+format+"\n", args...) }

// play starts the lab, has a demo played on it, and ends it.
func play(ctx context.Context, o Options, stdout, stderr io.Writer, demo func(context.Context, *stage) error) (err error) {
	s := &stage{Options: o, stdout: stdout, stderr: stderr}
	if s.switchback, err = servers.Product(ctx, "starter"); err != nil {
		return err
	}
	s.say("Starting the lab in %s", o.Lab.Dir)
	begun := time.Now()
	if s.lab, err = setup.Up(ctx, o.Lab); err != nil {
		return err
	}
	if !o.Keep {
		defer func() { err = errors.Join(err, s.lab.Down()) }()
	}
	made, w := s.lab.Options(), s.lab.Options().Workloads[0]
	fmt.Fprintf(stdout, "Ready after %.1f s: Temporal with its UI at %s, Consul, Vault, Kafka clusters east and west (%s), %s.\n",
		time.Since(begun).Seconds(), s.lab.TemporalUI(), made.Kafka, made.Link)
	if s.story, err = story.Open(s.lab, w); err != nil {
		return err
	}
	defer s.story.Close()
	s.say("Traffic on east: %d topics of %d partitions, %d records/s", w.Topics, w.Partitions, w.Rate)
	if err := flow(ctx, s.story, "east", o.Flow); err != nil {
		return err
	}
	return demo(ctx, s)
}

// Planned moves the workload from east to west under live traffic.
func Planned(ctx context.Context, o Options, stdout, stderr io.Writer) error {
	return play(ctx, o, stdout, stderr, func(ctx context.Context, s *stage) error {
		id := "planned-" + s.story.Workload.Name + "-demo"
		if err := s.start(ctx, "planned", id); err != nil {
			return fmt.Errorf("the run did not complete: %w", err)
		}
		s.say("Traffic on west")
		if err := flow(ctx, s.story, "west", o.Flow); err != nil {
			return err
		}
		settling, cancel := context.WithTimeout(ctx, settleTime)
		defer cancel()
		return s.verdict(ctx, id, s.story.Settle(settling)) // whoever did not read everything is in the verdict
	})
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

// start runs the operator's own command, and says it.
func (s *stage) start(ctx context.Context, kind, id string, more ...string) error {
	name := s.story.Workload.Name
	s.say("switchback start %s %s --to west --watch", kind, name)
	return s.operator(ctx, append([]string{"start", kind, name, "--to", "west", "--reason", "demo", "--by", setup.Requester, "--workflow-id", id, "--watch"}, more...)...)
}

func (s *stage) operator(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, s.switchback, args...) //nolint:gosec // the program was built by this very process
	cmd.Env = append(os.Environ(), "TEMPORAL_ADDRESS="+s.lab.TemporalAddress(), "SWITCHBACK_TASK_QUEUE="+setup.TaskQueue)
	cmd.Stdout, cmd.Stderr = s.stdout, s.stderr
	return cmd.Run()
}

// settleTime bounds how long groups may need to read what is left.
const settleTime = time.Minute

// verdict prints the report beside what the clients wrote down. Settled is how the end of the traffic went.
func (s *stage) verdict(ctx context.Context, id string, settled error) error {
	result, err := s.story.Ends(ctx, s.story.Temporal.GetWorkflow(ctx, id, ""))
	if err != nil {
		return err
	}
	v, err := s.story.Judge(ctx, "west", result.Report)
	if err != nil {
		return err
	}
	return errors.Join(settled, s.shown(v, result))
}

// shown prints a report beside a verdict, keeps that, and says whether both are well.
func (s *stage) shown(v ledger.Verdict, result workflows.Result) error {
	markdown, err := os.ReadFile(result.Markdown)
	if err != nil {
		return err
	}
	fmt.Fprintf(s.stdout, "\n=== The report\n\n%s\n", strings.TrimSpace(string(markdown)))
	fmt.Fprintf(s.stdout, "\n=== What the clients wrote down\n\n%s\n", v)
	path := filepath.Join(s.Out, "verdict.json")
	if err := story.Write(path, v); err != nil {
		return err
	}
	fmt.Fprintf(s.stdout, "\nverdict: %s\nreport:  %s\n", path, result.Markdown)
	if !v.Well() || !v.Agrees || result.Outcome != workflows.Completed {
		return ErrNotWell
	}
	return nil
}
