package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"switchback/internal/fault"
	"switchback/internal/killpoint"
	"switchback/replication"
)

// PrepareRecovery makes what copies need on the new cluster: replication.RecoveryTopic, and a topic for each that is
// diverted, with as many partitions as on the old cluster. It may run twice.
func (a *Recovery) PrepareRecovery(ctx context.Context, in RecoveryInput) (out TailResult, err error) {
	ctx, out.Acted = begin(ctx)
	r, err := a.begun(ctx, in)
	if err != nil {
		return out, err
	}
	defer r.close()
	_, list, err := r.kept(ctx, in.Tail)
	if err != nil {
		return out, err
	}
	if err := r.copier.EnsureRecovery(ctx); err != nil {
		return out, fault.Hint(wrap("make "+replication.RecoveryTopic+" on "+in.Route.To.Name, err), "grant Switchback CREATE and WRITE on topics that begin with switchback. there")
	}
	killpoint.Reach("PrepareRecovery/middle")
	var diverted []string
	for _, s := range list {
		if s.Gone == "" && s.Treatment == replication.TreatDivert && !slices.Contains(diverted, s.Topic) {
			diverted = append(diverted, s.Topic)
		}
	}
	if err := r.copier.EnsureDiverted(ctx, diverted); err != nil {
		return out, fault.Hint(wrap("make topics on "+in.Route.To.Name+" for what is diverted", err), "grant Switchback CREATE, DESCRIBE and WRITE on those topics there")
	}
	room, err := r.makeRoom(ctx, in.Tail, list)
	if err != nil {
		return out, err
	}
	out.Changed, out.Topics = true, len(diverted)
	out.Text = fmt.Sprintf("%s takes copies; %d topics there for what is diverted%s", in.Route.To.Name, out.Topics, room)
	return out, nil
}

// CopyInput is for one shard. Rate is records a second at most; 0 is no limit.
type CopyInput struct {
	RecoveryInput
	Shard int     `json:"shard"`
	Rate  float64 `json:"rate,omitempty"`
}

// CopyResult is what one attempt ended with.
type CopyResult struct {
	Acted
	Partitions int               `json:"partitions"`
	Tally      replication.Tally `json:"tally"` // of all tails of the shard, by all attempts and runs
	Text       string            `json:"text"`
}

// holdsEvery is how often a copy looks whether its run still holds the epoch: cheap, and far below the time-out of a
// transaction. A look that gets no answer stops the copy after holdsWithin.
const (
	holdsEvery  = time.Second
	holdsWithin = 15 * time.Second
)

// CopyTails copies one shard's tails, each record exactly once (P30, P31). It goes on from the progress that is committed on
// the new cluster, whoever committed it, and ends within a transaction when it is cancelled or the epoch is another run's.
func (a *Recovery) CopyTails(ctx context.Context, in CopyInput) (out CopyResult, err error) {
	ctx, out.Acted = begin(ctx)
	r, err := a.begun(ctx, in.RecoveryInput)
	if err != nil {
		return out, err
	}
	defer r.close()
	plan, list, err := r.kept(ctx, in.Tail)
	if err != nil {
		return out, err
	}
	job := replication.CopyJob{ID: copierID(in.Guard.Run.Runbook, in.Tail, in.Shard), Tail: in.Tail, Run: in.Guard.Run.ID(), Rate: in.Rate, Tails: tailsOf(list, in.Shard, plan.Shards)}
	if out.Partitions = len(job.Tails); out.Partitions == 0 {
		out.Text = "nothing to copy"
		return out, nil
	}
	id, err := r.from.Identity(ctx)
	if err != nil {
		return out, wrap("read the identity of "+in.Route.From.Name, err)
	}
	job.Cluster = id.ClusterID
	if err := r.sameTopics(ctx, job.Tails); err != nil {
		return out, err
	}
	if err := a.check(ctx, in.Guard); err != nil { // transactions are begun for this epoch alone
		return out, err
	}
	killpoint.Reach("CopyTails/begun")
	held, release := a.holding(ctx, in.Guard)
	defer release()
	var done []replication.Recovered
	done, err = r.copier.Recover(held, job, func(now []replication.Recovered) {
		killpoint.Reach("CopyTails/middle")
		t := tallied(now)
		say(ctx, "%d of %d offsets handled, %d records copied", t.Sum(), lengthOf(job.Tails), t.Recovered)
	})
	if other := r.sameTopics(ctx, job.Tails); other != nil && ctx.Err() == nil {
		return out, errors.Join(other, err)
	}
	if why := context.Cause(held); err != nil && why != nil && !errors.Is(why, context.Canceled) {
		return out, why // not what the copy says of being stopped
	}
	if err != nil {
		return out, wrap("copy what is stranded", err)
	}
	out.Changed, out.Tally = true, tallied(done)
	out.Text = fmt.Sprintf("%d records of %d partitions copied", out.Tally.Recovered, out.Partitions)
	return out, nil
}

// holding is a context that ends when the run does not hold its epoch any more, or nobody can say for too long (P35b).
func (a *Recovery) holding(ctx context.Context, g Guard) (context.Context, func()) {
	held, cancel := context.WithCancelCause(ctx)
	var done sync.WaitGroup
	done.Go(func() {
		tick := time.NewTicker(holdsEvery)
		defer tick.Stop()
		seen := time.Now()
		for {
			select {
			case <-held.Done():
				return
			case <-tick.C:
			}
			err := a.check(held, g)
			switch {
			case err == nil:
				seen = time.Now()
			case errors.Is(err, fault.ErrStale), errors.Is(err, fault.ErrConflict):
				cancel(err)
			case held.Err() == nil && time.Since(seen) > holdsWithin:
				cancel(wrap("see whether the run still holds its epoch", err))
			}
		}
	})
	return held, func() { cancel(context.Canceled); done.Wait() }
}

// tailsOf are those of a shard that are copied, or rewound: these are only counted, and refuse copies from then on (P31).
func tailsOf(list []replication.Stranded, shard, shards int) (tails []replication.Tail) {
	for _, s := range list {
		if s.Gone == "" && s.Treatment != replication.TreatReport && shardOf(s.Partition, shards) == shard {
			tails = append(tails, s.Tail)
		}
	}
	return tails
}

func tallied(list []replication.Recovered) (t replication.Tally) {
	for _, r := range list {
		t = t.Plus(r.Tally)
	}
	return t
}

func lengthOf(tails []replication.Tail) (n int64) {
	for _, t := range tails {
		n += t.Offsets()
	}
	return n
}

// RecoveryProgress is how far the copies are: offsets of the old cluster that were handled, of those to be.
type RecoveryProgress struct {
	Handled int64             `json:"handled"`
	Total   int64             `json:"total"`
	Bytes   int64             `json:"bytes"`
	Tally   replication.Tally `json:"tally"`
	Open    int               `json:"open"` // partitions that are not done
	At      time.Time         `json:"at"`
}

// Progress reads the committed progress of all shards.
func (a *Recovery) Progress(ctx context.Context, in RecoveryInput) (out RecoveryProgress, err error) {
	ctx, _ = begin(ctx)
	r, err := a.begun(ctx, in)
	if err != nil {
		return out, err
	}
	defer r.close()
	_, list, err := r.kept(ctx, in.Tail)
	if err != nil {
		return out, err
	}
	done, err := r.progress(ctx, in.Tail)
	if err != nil {
		return out, err
	}
	out.At = time.Now().UTC()
	for _, s := range list {
		if s.Gone != "" || s.Treatment == replication.TreatReport {
			continue
		}
		out.Total += s.Offsets()
		p, begun := done[s.Partition]
		if begun {
			out.Handled += max(0, min(p.Next, s.To)-s.From)
			out.Bytes += p.Bytes
			out.Tally = out.Tally.Plus(p.Tally)
		}
		if !begun || p.Next < s.To {
			out.Open++
		}
	}
	return out, nil
}
