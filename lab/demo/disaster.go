package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"switchback/lab/setup"
	"switchback/workflows"
)

// Disaster kills the active cluster under live traffic, moves the workload to what is left, brings the dead cluster back,
// and holds what was stated of the loss against what was lost.
func Disaster(ctx context.Context, o Options, stdout, stderr io.Writer) error {
	return play(ctx, o, stdout, stderr, func(ctx context.Context, s *stage) error {
		if err := s.prepared(ctx); err != nil {
			return err
		}
		s.say("kill -9 of every broker of east, under traffic")
		gone, err := s.story.Lose("east")
		if err != nil {
			return err
		}
		id := "unplanned-" + s.story.Workload.Name + "-demo"
		if err := s.failOver(ctx, id, gone); err != nil {
			return err
		}
		s.say("Traffic on west")
		if err := flow(ctx, s.story, "west", o.Flow); err != nil {
			return err
		}
		if err := s.comesBack(ctx); err != nil {
			return err
		}
		settling, cancel := context.WithTimeout(ctx, settleTime)
		defer cancel()
		return s.verdict(ctx, id, s.story.SettleOn(settling, "west"))
	})
}

// stepTime bounds each thing that the demo waits for.
const stepTime = 2 * time.Minute

// prepared is what a standby needs that was set up a moment ago: somebody who watches it, and the groups' offsets.
func (s *stage) prepared(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	s.say("switchback watch %s, and the mirror brings the groups' offsets", s.story.Workload.Name)
	if err := s.operator(ctx, "watch", s.story.Workload.Name, "--once", "--every", "1s", "--silent-after", "3s", "--timeout", stepTime.String()); err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	return s.story.HandedOver(ctx, "east", "west")
}

// failOver runs the operators' commands: one asks for the run, two others approve it.
func (s *stage) failOver(ctx context.Context, id string, gone time.Time) error {
	approving, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	approved := make(chan error, 1)
	go func() { approved <- s.approve(approving, id) }()
	ran := s.start(ctx, "unplanned", id, "--outage", gone.UTC().Format(time.RFC3339))
	cancel() // nobody can approve it any more
	if err := errors.Join(ran, <-approved); err != nil {
		return fmt.Errorf("the run did not complete: %w", err)
	}
	return nil
}

func (s *stage) approve(ctx context.Context, id string) error {
	if err := s.story.Reaches(ctx, id, string(workflows.Approve)); err != nil {
		return err
	}
	for _, by := range setup.Approvers {
		if err := s.operator(ctx, "approve", id, "--by", by, "--reason", "east is gone"); err != nil {
			return fmt.Errorf("approve as %s: %w", by, err)
		}
	}
	return nil
}

// comesBack starts the dead cluster again: it is fenced before anything else, and the loss is closed.
func (s *stage) comesBack(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stepTime)
	defer cancel()
	s.say("East is started again, with all that it had")
	if err := s.story.BringBack(ctx, "east"); err != nil {
		return err
	}
	fenced, err := s.story.Fenced(ctx, "east")
	if err != nil {
		return err
	}
	fmt.Fprintf(s.stdout, "%s\n", fenced.Ended)
	return nil
}
