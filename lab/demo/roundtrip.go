package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"switchback/lab/setup"
)

// Roundtrip kills the active cluster with records that nobody else has, moves the workload away, brings the dead cluster
// back, and takes the workload home: recovery, the mirror turned round, a planned failover, protection as before.
func Roundtrip(ctx context.Context, o Options, stdout, stderr io.Writer) error {
	return play(ctx, o, stdout, stderr, func(ctx context.Context, s *stage) error {
		if err := s.prepared(ctx); err != nil {
			return err
		}
		s.say("The mirror is held up: what is written from now on, nobody else has")
		if err := s.lab.HoldUp(ctx, s.story.Workload); err != nil {
			return fmt.Errorf("hold up the mirror: %w", err)
		}
		if err := flow(ctx, s.story, "east", o.Flow); err != nil {
			return err
		}
		s.say("kill -9 of every broker of east, under traffic")
		gone, err := s.story.Lose("east")
		if err != nil {
			return err
		}
		if err := s.failOver(ctx, "unplanned-"+s.story.Workload.Name+"-demo", gone); err != nil {
			return err
		}
		s.say("Traffic on west")
		if err := flow(ctx, s.story, "west", o.Flow); err != nil {
			return err
		}
		if err := s.comesBack(ctx); err != nil {
			return err
		}
		return s.home(ctx)
	})
}

// homeTime bounds the way home.
const homeTime = 10 * time.Minute

// home runs the operators' commands for the way home, and judges the whole story.
func (s *stage) home(ctx context.Context) error {
	name, id := s.story.Workload.Name, "failback-"+s.story.Workload.Name+"-demo"
	s.say("switchback plan failback %s", name)
	if err := s.operator(ctx, "plan", "failback", name); err != nil {
		return fmt.Errorf("it could not go home: %w", err)
	}
	s.say("switchback start failback %s --watch", name)
	going, cancel := context.WithTimeout(ctx, homeTime)
	defer cancel()
	begun := time.Now()
	if err := s.operator(going, "start", "failback", name, "--reason", "demo", "--override", "demo", "--by", setup.Requester, "--workflow-id", id, "--watch"); err != nil {
		return fmt.Errorf("the way home did not come to its end: %w", err)
	}
	s.say("Traffic on east, %.1f s after the way home began", time.Since(begun).Seconds())
	if err := flow(ctx, s.story, "east", s.Flow); err != nil {
		return err
	}
	settling, cancel := context.WithTimeout(ctx, settleTime)
	defer cancel()
	return s.whole(ctx, id, s.story.SettleOn(settling, "east"))
}

// whole prints the report of the way home beside what the clients wrote down over the whole story.
func (s *stage) whole(ctx context.Context, id string, settled error) error {
	result, err := s.story.Ends(ctx, s.story.Temporal.GetWorkflow(ctx, id, ""))
	if err != nil {
		return err
	}
	round, err := s.story.Brought(ctx, "east", result.Report)
	if err != nil {
		return err
	}
	v, err := s.story.JudgeRoundtrip(ctx, "east", result.Report, round)
	if err != nil {
		return err
	}
	return errors.Join(settled, s.shown(v, result))
}
