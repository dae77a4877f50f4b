package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"switchback/internal/fault"
	"switchback/internal/killpoint"
	"switchback/replication"
)

// KeepLastMarks stores where every mirror stopped, after FailOver and before the switch: the target's ends are those of the
// stop only while nobody was sent there, so the guard is checked once more before they are kept, and what an earlier
// attempt kept is never replaced. The source's end is unknown unless it answers; what the link had fetched is kept as a
// hint. It says what is lost, as far as that is known.
func (a *Mirrors) KeepLastMarks(ctx context.Context, in LastMarksInput) (out LastMarksResult, err error) {
	ctx, _ = begin(ctx)
	in.Route.SourceLost = true
	r, err := a.opened(ctx, in.Guard, in.Route)
	if err != nil {
		return out, err
	}
	defer r.close()
	run := in.Guard.Run.ID()
	scope, err := r.records.scope(ctx, run)
	if err != nil {
		return out, err
	}
	e, err := gather(ctx, r, in.Guard.Run.Runbook, scope.TopicNames(), claimTime(r.link))
	if err != nil {
		return out, err
	}
	marks, err := marksOf(ctx, r.records.to, run)
	if err != nil {
		return out, err
	}
	if len(marks) == 0 {
		if marks, err = e.marks(ctx, r, in, scope); err != nil {
			return out, err
		}
		if err := a.check(ctx, in.Guard); err != nil {
			return out, err
		}
		killpoint.Reach("KeepLastMarks/middle")
		if err := putList(ctx, r.records, marksKey(e.cluster, run), marks); err != nil {
			return out, err
		}
	}
	if err := openStandby(ctx, r, in.Guard); err != nil {
		return out, err
	}
	e.marked(marks)
	out.Partitions = len(marks)
	out.Loss, out.Losses = e.loss(in.Outage)
	out.Text = fmt.Sprintf("marks of %d partitions kept in %s of %s; lost: %s (%s)", out.Partitions, MarksTopic, in.Route.To.Name, out.Loss, out.Loss.Why)
	return out, nil
}

// marks are the positions at the stop. A part never replaces the whole (P20).
func (e evidence) marks(ctx context.Context, r *route, in LastMarksInput, scope Scope) ([]replication.Mark, error) {
	names := scope.TopicNames()
	var to replication.Identity
	var there []replication.Topic
	err := sideBySide(
		func() (err error) {
			to, err = r.to.Identity(ctx)
			return wrap("read the identity of "+in.Route.To.Name, err)
		},
		func() (err error) {
			there, err = r.to.Topics(ctx, func(name string) bool { return slices.Contains(names, name) })
			return wrap("list topics of "+in.Route.To.Name, err)
		},
	)
	if err != nil {
		return nil, err
	}
	ids := topicIDs(there)
	now := time.Now().UTC()
	known := make(map[replication.Partition]replication.Known, len(e.known))
	for _, k := range e.known {
		known[k.Partition] = k
	}
	var marks []replication.Mark
	for _, t := range scope.Topics {
		for p := range int32(t.Partitions) { //nolint:gosec // Kafka's own numbers are 32 bits
			at := replication.Partition{Topic: t.Name, Partition: p}
			end, ok := e.target[at]
			if !ok || end.HighWatermark == replication.Unknown {
				return nil, fmt.Errorf("the end of %s on %s is unknown: %w", at.Name(), in.Route.To.Name, fault.ErrNotReady)
			}
			m := replication.Mark{
				Position: replication.Position{Partition: at, SourceEnd: known[at].End, Replicated: replication.Unknown, TargetEnd: end.HighWatermark, Seen: now},
				From:     in.Route.From.Name, SourceCluster: e.cluster, TargetCluster: to.ClusterID, SourceTopic: e.ids[t.Name], TargetTopic: ids[t.Name],
				Boundary: replication.Unknown, Epoch: in.Epoch, Run: in.Guard.Run.ID(),
			}
			if k := known[at]; !k.Sampled.IsZero() {
				m.SourceSeen = k.Seen
			}
			if at, ok := e.fetched[at]; ok {
				m.Replicated = at
			}
			if r.link.StopIsFinal() { // mirrors that keep offsets
				m.Boundary = end.HighWatermark
			}
			marks = append(marks, m)
		}
	}
	return marks, nil
}

// marked lets the marks say what the target has: what it holds by now may be its own.
func (e evidence) marked(marks []replication.Mark) {
	at := make(map[replication.Partition]replication.Mark, len(marks))
	for _, m := range marks {
		at[m.Partition] = m
	}
	for i, k := range e.known {
		m, ok := at[k.Partition]
		if !ok {
			continue
		}
		if m.Boundary != replication.Unknown {
			e.known[i].Held, e.known[i].Hint = m.Boundary, false
		} else if k.Hint && m.Replicated != replication.Unknown {
			e.known[i].Held = m.Replicated
		}
	}
}

// marksOf are the marks of a run, whatever its source was called; none is not an error.
func marksOf(ctx context.Context, rec Records, run string) ([]replication.Mark, error) {
	all, err := rec.Load(ctx, "marks/")
	if err != nil {
		return nil, wrap("read the marks", err)
	}
	for key := range all {
		cluster, ok := strings.CutSuffix(strings.TrimPrefix(key, "marks/"), "/"+run+"/00000")
		if !ok {
			continue
		}
		marks, err := getList[replication.Mark](ctx, loaded(all), marksKey(cluster, run))
		if !errors.Is(err, fault.ErrNotFound) {
			return marks, err
		}
	}
	return nil, nil
}
