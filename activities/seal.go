package activities

import (
	"context"
	"errors"
	"fmt"
	"time"

	"switchback/internal/fault"
	"switchback/internal/killpoint"
	"switchback/replication"
)

// A backend whose stop can be taken back, and takes long, is held by ACLs: the seal. It stands in milliseconds and can be
// proven; the tasks may take their time to stop behind it (P10, P15).

// deny takes the link a right on the target by ACLs that the runbook owns, and reads them back from every broker (P4,
// P6, P10). A backend that has calls of its own for it needs none.
func deny(ctx context.Context, r *route, run Run, what replication.Denial, names []string) error {
	acls := r.link.Denials(what, names)
	if len(acls) == 0 {
		return nil
	}
	if err := own(ctx, r.records, r.to, run, r.names.To.Name, acls); err != nil {
		return err
	}
	// Reading back writes nothing: a broker that is slow to know of it has more time than an attempt has for its writes.
	_, err := everyBroker(context.WithoutCancel(ctx), r.to, acls, true)
	return wrap("read back from "+r.names.To.Name+" that the mirror is denied", err)
}

// standing says whether all of the ACLs are there.
func standing(ctx context.Context, on Kafka, acls []replication.ACL) (bool, error) {
	there, err := on.ACLs(ctx)
	return len(replication.Missing(acls, there)) == 0, wrap("read the ACLs of the target", err)
}

// seal takes the mirror the topics: looks once more that the source is quiet and the target has everything, denies, looks
// again, keeps the marks while nobody writes to the target yet, and asks the link to stop. Everything can be taken back
// until the switch.
func (a *Mirrors) seal(ctx context.Context, r *route, in WaitInput, scope Scope, out *PromoteResult) error {
	topics := scope.TopicNames()
	acls := r.link.Denials(replication.DenyTopics, topics)
	sealed, err := standing(ctx, r.to, acls)
	if err != nil {
		return err
	}
	var before []replication.Ends
	err = until(ctx, time.Now().Add(time.Until(in.Deadline)/2), mirrorEvery, func(ctx context.Context) (bool, string, error) {
		states, err := mirrorStates(ctx, r.link, topics)
		if err != nil {
			return false, "", err
		}
		if sealed { // its tasks fail behind the seal, as they should
			for topic, m := range states {
				m.State = replication.MirrorActive
				states[topic] = m
			}
		}
		if before, err = r.from.Ends(ctx, topics); err != nil {
			return false, "", wrap("read the ends of "+r.names.From.Name, err)
		}
		return true, "", a.ready(ctx, r, scope, states)
	})
	if err != nil {
		return err
	}
	wctx, cancel, err := writing(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	if err := deny(wctx, r, in.Guard.Run, replication.DenyTopics, topics); err != nil {
		return err
	}
	out.Changed = !sealed
	killpoint.Reach("Promote/middle")
	target, err := holds(ctx, r, before, topics)
	if err != nil {
		return err
	}
	err = sideBySide(
		func() error { return a.sealMarks(wctx, r, in.Guard, topics, before, target) },
		func() (err error) { out.Copied, err = a.dropCopies(ctx, r, in.Guard); return err },
	)
	if err != nil {
		return err
	}
	err = sideBySide(
		func() error { return a.send(ctx, r, replication.Promote, topics) },
		func() error { return openStandby(wctx, r, in.Guard) }, // the marks are kept: whoever writes there now is no mirrored record
	)
	if err != nil {
		return err
	}
	out.Text = sealedText(topics, r.names.To)
	if in.SealProven {
		return nil
	}
	out.Text = unprovenText(topics)
	return stoppedAll(ctx, r.link, in.Deadline, topics)
}

func sealedText(topics []string, to Site) string {
	return fmt.Sprintf("the mirror is denied %d topics of %s, as each broker says itself; its connectors were asked to stop", len(topics), to.Name)
}

func unprovenText(topics []string) string {
	return fmt.Sprintf("the mirror of %d topics has stopped; a seal alone could not be trusted, because nobody has proven that the mirror's principals obey ACLs", len(topics))
}

// holds looks again behind the seal: what was appended meanwhile on either side shows, and the ends of the target are
// those at which clients will begin.
func holds(ctx context.Context, r *route, before []replication.Ends, topics []string) (target []replication.Ends, err error) {
	var after, again []replication.Ends
	err = sideBySide(
		func() (err error) { after, err = r.from.Ends(ctx, topics); return err },
		func() (err error) {
			if target, err = r.to.Ends(ctx, topics); err == nil {
				again, err = r.to.Ends(ctx, topics)
			}
			return err
		},
	)
	if err != nil {
		return nil, wrap("look once more behind the seal", err)
	}
	if grown := growth(before, after); len(grown) > 0 {
		return nil, fmt.Errorf("%s is written to behind the fence: %s: %w", r.names.From.Name, firstFew(grown), errStillWriting)
	}
	if grown := growth(target, again); len(grown) > 0 {
		return nil, fault.Hint(fmt.Errorf("%s grows behind the seal: %s: %w", r.names.To.Name, firstFew(grown), fault.ErrInvalid),
			"somebody who is not held by ACLs writes there: the mirror as a super user, or a stray client")
	}
	return target, nil
}

// growth names the partitions whose log grew between two looks.
func growth(before, after []replication.Ends) (grown []string) {
	was := make(map[replication.Partition]int64, len(before))
	for _, e := range before {
		was[e.Partition] = e.LogEnd
	}
	for _, e := range after {
		if at, ok := was[e.Partition]; !ok || e.LogEnd > at {
			grown = append(grown, fmt.Sprintf("%s from %d to %d", e.Name(), at, e.LogEnd))
		}
	}
	return grown
}

// sealMarks keeps the marks before anybody writes to the target: its ends at this moment are where the new home begins.
func (a *Mirrors) sealMarks(ctx context.Context, r *route, g Guard, topics []string, source, target []replication.Ends) error {
	var from, to replication.Identity
	var mirrors map[string]replication.Mirror
	var ids topicPair
	err := sideBySide(
		func() (err error) { ids, err = bothIDs(ctx, r, topics); return err },
		func() (err error) { from, err = r.from.Identity(ctx); return err },
		func() (err error) { to, err = r.to.Identity(ctx); return err },
		func() (err error) { mirrors, err = mirrorStates(ctx, r.link, topics); return err },
	)
	if err != nil {
		return wrap("read the positions behind the seal", err)
	}
	ends := make(map[replication.Partition]int64, len(target))
	for _, e := range target {
		ends[e.Partition] = e.HighWatermark
	}
	now := time.Now().UTC()
	marks := make([]replication.Mark, 0, len(source))
	for _, e := range source {
		end, ok := ends[e.Partition]
		if !ok || end == replication.Unknown || e.HighWatermark == replication.Unknown { // a part never replaces the whole (P20)
			return fmt.Errorf("an end of %s is unknown: %w", e.Name(), fault.ErrNotReady)
		}
		marks = append(marks, replication.Mark{
			Position: replication.Position{Partition: e.Partition, SourceEnd: e.HighWatermark, Replicated: fetched(mirrors[e.Topic], e.Partition), TargetEnd: end, Seen: now},
			From:     r.names.From.Name, SourceCluster: from.ClusterID, TargetCluster: to.ClusterID, SourceTopic: ids.source[e.Topic], TargetTopic: ids.target[e.Topic],
			Boundary: e.HighWatermark, Epoch: replication.Unknown, Run: g.Run.ID(),
		})
	}
	return putList(ctx, r.records, marksKey(from.ClusterID, g.Run.ID()), marks)
}

// fetched is the link's own claim about a partition.
func fetched(m replication.Mirror, p replication.Partition) int64 {
	if at, ok := m.Fetched[p.Partition]; ok {
		return at
	}
	return replication.Unknown
}

// stoppedAll waits until the link says that every mirror has stopped.
func stoppedAll(ctx context.Context, link replication.Link, deadline time.Time, topics []string) error {
	return until(ctx, deadline, 4*mirrorEvery, func(ctx context.Context) (bool, string, error) {
		states, err := mirrorStates(ctx, link, topics)
		if err != nil {
			return false, "", err
		}
		var waiting []string
		for _, topic := range topics {
			if m := states[topic]; m.State != replication.MirrorStopped {
				waiting = append(waiting, fmt.Sprintf("%s: %s %s", topic, m.Raw, m.Reason))
			}
		}
		return len(waiting) == 0, toStop(waiting), nil
	})
}

// UnsealInput is a wait; Owner is the run whose topics are meant, empty for the guard's own.
type UnsealInput struct {
	WaitInput
	Owner string `json:"owner,omitempty"`
}

// UnsealResult says from where the mirrors go on.
type UnsealResult struct {
	Acted
	Partitions int    `json:"partitions"`
	Text       string `json:"text"`
}

// Unseal takes a seal back while the source is still fenced: waits until the connectors have stopped, sets their offsets to
// what the target is now proven to have, reads them back, and only then lifts the seal and lets them go on (P27). The
// stored ones are older: with them everything since would be copied again.
func (a *Mirrors) Unseal(ctx context.Context, in UnsealInput) (out UnsealResult, err error) {
	ctx, out.Acted = begin(ctx)
	r, err := a.opened(ctx, in.Guard, in.Route)
	if err != nil {
		return out, err
	}
	defer r.close()
	if in.Owner == "" {
		in.Owner = in.Guard.Run.ID()
	}
	scope, err := r.records.scope(ctx, in.Owner)
	if errors.Is(err, fault.ErrNotFound) {
		out.Text = "the mirror had not been sealed: the run had not got that far"
		return out, nil
	}
	if err != nil {
		return out, err
	}
	topics := scope.TopicNames()
	seal := r.link.Denials(replication.DenyTopics, topics)
	owned, err := r.records.owned(ctx, in.Guard.Run.Runbook, in.Route.To.Name)
	if err != nil {
		return out, err
	}
	ours := replication.Missing(seal, replication.Missing(seal, owned.ACLs))
	if len(ours) == 0 {
		out.Text = "the mirror had not been sealed"
		return out, a.sayAgain(ctx, r, in, owned)
	}
	next, err := a.boundary(ctx, r, topics, in.Deadline)
	if err != nil {
		return out, err
	}
	if err := a.send(ctx, r, replication.Promote, topics); err != nil {
		return out, err
	}
	if err := stoppedAll(ctx, r.link, in.Deadline, topics); err != nil {
		return out, err
	}
	killpoint.Reach("Unseal/middle")
	wctx, cancel, err := writing(ctx)
	if err != nil {
		return out, err
	}
	defer cancel()
	if err := r.link.PatchOffsets(wctx, next); err != nil {
		return out, wrap("set where the mirror goes on", err)
	}
	if err := r.to.DeleteACLs(wctx, ours); err != nil {
		return out, wrap("lift the seal on "+in.Route.To.Name, err)
	}
	if _, err := everyBroker(ctx, r.to, ours, false); err != nil {
		return out, wrap("read back that the seal is gone from "+in.Route.To.Name, err)
	}
	if err := r.link.Resume(wctx); err != nil {
		return out, wrap("let the mirror go on", err)
	}
	// Last of all: whoever finds the seal in the records does everything once more.
	left := OwnedACLs{Run: owned.Run, ACLs: replication.Missing(owned.ACLs, ours)}
	if err := r.records.put(wctx, map[string]any{aclsKey(in.Guard.Run.Runbook, in.Route.To.Name): left}); err != nil {
		return out, err
	}
	out.Changed, out.Partitions = true, len(next)
	out.Text = fmt.Sprintf("the mirror goes on exactly after what %s has, in %d partitions", in.Route.To.Name, out.Partitions)
	return out, nil
}

// sayAgain writes what the runbook owns on both clusters once more: an attempt that lifted the seal may have died between
// the two.
func (a *Mirrors) sayAgain(ctx context.Context, r *route, in UnsealInput, owned OwnedACLs) error {
	if owned.Run == "" {
		return nil
	}
	wctx, cancel, err := writing(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	return r.records.put(wctx, map[string]any{aclsKey(in.Guard.Run.Runbook, in.Route.To.Name): owned})
}

// boundary is where each partition goes on, once the target is proven to have everything of the fenced source.
func (a *Mirrors) boundary(ctx context.Context, r *route, topics []string, deadline time.Time) (map[replication.Partition]int64, error) {
	var ends []replication.Ends
	err := until(ctx, deadline, drainEvery, func(ctx context.Context) (bool, string, error) {
		now, err := r.from.Ends(ctx, topics)
		if err != nil {
			return false, "", wrap("read the ends of "+r.names.From.Name, err)
		}
		outcomes, err := r.link.Drained(ctx, now)
		if err != nil {
			return false, "", wrap("compare both clusters", err)
		}
		behind, text := notOK(outcomes)
		ends = now
		return len(behind) == 0 && len(outcomes) == len(now), text, nil
	})
	next := make(map[replication.Partition]int64, len(ends))
	for _, e := range ends {
		next[e.Partition] = e.LogEnd
	}
	return next, err
}
