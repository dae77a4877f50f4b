package workflows

import (
	"fmt"
	"time"

	"go.temporal.io/sdk/workflow"

	"switchback/activities"
	"switchback/replication"
)

const (
	tailsBudget   = 2 * time.Hour      // the whole backlog is read once
	copyBudget    = 7 * 24 * time.Hour // a backlog of days at a low rate; a hold counts
	rewindBudget  = 5 * time.Minute
	settleBudget  = 5 * time.Minute
	progressFirst = 2 * time.Second // then longer: a copy of hours costs a few hundred events
	progressMost  = time.Minute
	progressTime  = 30 * time.Second
)

// copyTails copies the shards side by side, until all are done. A hold pauses them between transactions; to resume starts
// them again, where they were.
func (r *recovery) copyTails(ctx workflow.Context, until time.Time) (string, error) {
	if !r.copies() {
		return "nothing is copied", nil
	}
	r.phase(string(CopyTails))
	if !r.copying {
		if _, err := perform[activities.TailResult](r.engine, longWait(ctx, workflow.Now(ctx).Add(rewindBudget), "make what copies need"), salvage.PrepareRecovery, r.input()); err != nil {
			return "", r.parks(err)
		}
	}
	r.copying, r.begun = true, true
	open := make([]int, r.plan.Shards)
	for i := range open {
		open[i] = i
	}
	for {
		before := r.handled()
		left, err := r.copyShards(ctx, until, open)
		switch {
		case err != nil && !r.halted(err) && r.came(ctx, before):
			continue // what ended it came after it had got on: the copies are started again, and go on there
		case err != nil:
			return "", r.parks(err)
		case len(left) == 0:
			p, err := r.look(ctx)
			if err != nil {
				return "", r.parks(err)
			}
			return fmt.Sprintf("%d records recovered, %d superseded, %d expired, %d refused", p.Tally.Recovered, p.Tally.Superseded, p.Tally.Expired, p.Tally.Refused), nil
		}
		open = left
		if err := r.pause(ctx); err != nil {
			return "", err
		}
	}
}

// handled is how far the copies were when somebody last looked.
func (r *recovery) handled() int64 {
	if r.status.Lagged == nil {
		return 0
	}
	return r.status.Lagged.Handled
}

// came says whether the copies got farther than that.
func (r *recovery) came(ctx workflow.Context, before int64) bool {
	p, err := r.look(ctx)
	return err == nil && p.Handled > before
}

// copies says whether any topic of the plan is copied at all.
func (r *recovery) copies() bool {
	for _, t := range r.plan.Topics {
		if t.Treatment != replication.TreatReport && t.Offsets > 0 {
			return true
		}
	}
	return false
}

// copyShards runs the copies until all ended, or are stopped because the run is held. left are those to be started again.
func (r *recovery) copyShards(ctx workflow.Context, until time.Time, open []int) (left []int, err error) {
	within, stop := workflow.WithCancel(ctx)
	defer stop()
	rate := r.wants.Rate / float64(max(1, len(open)))
	ends := make([]workflow.Future, len(open))
	ended := 0
	for i, number := range open {
		in := activities.CopyInput{RecoveryInput: r.input(), Shard: number, Rate: rate}
		ends[i] = workflow.ExecuteActivity(longCopy(within, until, fmt.Sprintf("copy shard %d of %d", number+1, r.plan.Shards)), salvage.CopyTails, in)
		workflow.Go(ctx, func(ctx workflow.Context) {
			_ = ends[i].Get(ctx, nil) // read below
			ended++
		})
	}
	r.watch(ctx, func() bool { return ended == len(ends) || r.held != nil || r.stop != nil })
	held := r.held != nil || r.stop != nil
	if held {
		stop()
	}
	for i, number := range open { // one that is cancelled is awaited: nothing writes behind the run's back
		switch failed := ends[i].Get(r.safe, nil); {
		case failed == nil:
		case held && !isStale(failed):
			left = append(left, number)
		case err == nil:
			err = failed
			stop() // what the others have is kept; a retry goes on there
		}
	}
	return left, err
}

// watch shows how far the copies are, until over.
func (r *recovery) watch(ctx workflow.Context, over func() bool) {
	began, first := workflow.Now(ctx), int64(-1)
	for pause := progressFirst; ; pause = min(2*pause, progressMost) {
		if ok, err := workflow.AwaitWithTimeout(ctx, pause, over); ok || err != nil {
			return
		}
		p, err := r.look(ctx)
		if err != nil {
			continue // the copies themselves say what is wrong
		}
		if first < 0 {
			began, first = workflow.Now(ctx), p.Handled
		}
		r.estimate(p, first, workflow.Now(ctx).Sub(began))
	}
}

// look reads the committed progress.
func (r *recovery) look(ctx workflow.Context) (activities.RecoveryProgress, error) {
	until := workflow.Now(ctx).Add(progressTime)
	p, err := perform[activities.RecoveryProgress](r.engine, quickRead(ctx, until, "how far the copies are"), salvage.Progress, r.input())
	if err == nil && r.status.Lagged != nil {
		l := r.status.Lagged
		l.Handled, l.Total, l.Bytes, l.Tally, l.At = p.Handled, p.Total, p.Bytes, p.Tally, p.At
		r.show()
	}
	return p, err
}

// estimate says how long the rest takes at the rate so far.
func (r *recovery) estimate(p activities.RecoveryProgress, first int64, took time.Duration) {
	l := r.status.Lagged
	l.Rate, l.LeftSeconds = 0, nil
	if done := p.Handled - first; done > 0 && took > 0 {
		l.Rate = float64(done) / took.Seconds()
		left := float64(p.Total-p.Handled) / l.Rate
		l.LeftSeconds = &left
	}
	r.say(string(CopyTails), l.String())
}

// pause waits while an operator holds the copies.
func (r *recovery) pause(ctx workflow.Context) error {
	if r.held != nil {
		r.say(phaseHeld, fmt.Sprintf("copying is held by %s (%s): resume it, or abort it", r.held.By, r.held.Reason))
		r.phase(phaseHeld)
		_ = workflow.Await(r.safe, func() bool { return r.held == nil || r.stop != nil })
	}
	if r.stop != nil {
		return r.stop
	}
	r.status.Held = ""
	r.phase(string(CopyTails))
	return ctx.Err()
}
