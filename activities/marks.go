package activities

import (
	"context"
	"fmt"
	"time"

	"switchback/internal/fault"
	"switchback/internal/killpoint"
	"switchback/replication"
)

// MarksInput names the route and the epoch of the switch that the marks belong to.
type MarksInput struct {
	Guard Guard `json:"guard"`
	Route Route `json:"route"`
	Epoch int64 `json:"epoch"`
}

// MarksResult counts the marks kept.
type MarksResult struct {
	Partitions int    `json:"partitions"`
	Text       string `json:"text"`
}

// KeepMarks stores the position of every partition at the stop in switchback.marks of both clusters (P20). The source
// is fenced and was proven equal, so its ends are those of the stop, however late this runs. It needs no guard: a mark
// is a fact about a run, under a key of that run, whoever holds the epoch meanwhile.
func (a *Mirrors) KeepMarks(ctx context.Context, in MarksInput) (out MarksResult, err error) {
	ctx, _ = begin(ctx)
	r, err := a.open(ctx, in.Route)
	if err != nil {
		return out, err
	}
	defer r.close()
	scope, err := r.records.scope(ctx, in.Guard.Run.ID())
	if err != nil {
		return out, err
	}
	if !r.link.StopIsFinal() {
		return a.keepSealMarks(ctx, r, in, scope)
	}
	var ends []replication.Ends
	var mirrors map[string]replication.Mirror
	var from, to replication.Identity
	var ids topicPair
	err = sideBySide(
		func() (err error) { ids, err = bothIDs(ctx, r, scope.TopicNames()); return err },
		func() (err error) { ends, err = r.from.Ends(ctx, scope.TopicNames()); return err },
		func() (err error) { mirrors, err = mirrorStates(ctx, r.link, scope.TopicNames()); return err },
		func() (err error) { from, err = r.from.Identity(ctx); return err },
		func() (err error) { to, err = r.to.Identity(ctx); return err },
	)
	if err != nil {
		return out, wrap("read the positions at the stop", err)
	}
	now := time.Now().UTC()
	marks := make([]replication.Mark, 0, len(ends))
	for _, e := range ends {
		if e.HighWatermark == replication.Unknown { // a part never replaces the whole (P20)
			return out, fmt.Errorf("the end of %s on %s is unknown: %w", e.Name(), in.Route.From.Name, fault.ErrNotReady)
		}
		marks = append(marks, replication.Mark{
			Position: replication.Position{Partition: e.Partition, SourceEnd: e.HighWatermark, Replicated: fetched(mirrors[e.Topic], e.Partition), TargetEnd: e.HighWatermark, Seen: now},
			From:     in.Route.From.Name, SourceCluster: from.ClusterID, TargetCluster: to.ClusterID, SourceTopic: ids.source[e.Topic], TargetTopic: ids.target[e.Topic],
			Boundary: e.HighWatermark, Epoch: in.Epoch, Run: in.Guard.Run.ID(),
		})
	}
	killpoint.Reach("KeepMarks/middle")
	// Storing may take as long as it needs: it is off the critical path, and a second time writes the same keys.
	if err := putList(ctx, r.records, marksKey(from.ClusterID, in.Guard.Run.ID()), marks); err != nil {
		return out, err
	}
	out.Partitions = len(marks)
	out.Text = fmt.Sprintf("marks of %d partitions kept in %s of both clusters", out.Partitions, MarksTopic)
	return out, nil
}

// keepSealMarks gives the marks that the seal kept the epoch of their switch, and waits until the connectors, which were
// asked to stop then, have stopped: a sealed mirror takes its time, and nobody waits for it.
func (a *Mirrors) keepSealMarks(ctx context.Context, r *route, in MarksInput, scope Scope) (out MarksResult, err error) {
	from, err := r.from.Identity(ctx)
	if err != nil {
		return out, wrap("read the identity of "+in.Route.From.Name, err)
	}
	key := marksKey(from.ClusterID, in.Guard.Run.ID())
	marks, err := getList[replication.Mark](ctx, r.records.to, key)
	if err != nil {
		return out, err
	}
	for i := range marks {
		marks[i].Epoch = in.Epoch
	}
	killpoint.Reach("KeepMarks/middle")
	if err := putList(ctx, r.records, key, marks); err != nil {
		return out, err
	}
	out.Partitions = len(marks)
	if err := stoppedAll(ctx, r.link, time.Now().Add(stopTime), scope.TopicNames()); err != nil {
		return out, wrap("wait for the connectors behind the seal", err)
	}
	out.Text = fmt.Sprintf("marks of %d partitions kept in %s of both clusters; the mirror's connectors have stopped", out.Partitions, MarksTopic)
	return out, nil
}

// stopTime is how long connectors may take to stop; those of a dead source wait out their time-outs, a minute.
const stopTime = 90 * time.Second
