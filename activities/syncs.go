package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"switchback/internal/fault"
	"switchback/internal/killpoint"
	"switchback/replication"
)

// Syncs suspends and restores what a link does by itself: ACL sync, offset sync, auto-create (P3, P5, P34).
type Syncs struct{ Outside }

// SyncsInput names the link. KeepACLsOff is set when a fence of ours still stands at the end (P5).
type SyncsInput struct {
	Guard       Guard `json:"guard"`
	Route       Route `json:"route"`
	KeepACLsOff bool  `json:"keepAclsOff,omitempty"`
	// Owner is the run whose records are used; empty means the guard's run.
	Owner string `json:"owner,omitempty"`
}

// SyncsResult says when no cycle that had begun before the suspension can be under way any more (P34).
type SyncsResult struct {
	Acted
	QuietAt time.Time `json:"quietAt"`
	Others  []string  `json:"others,omitempty"` // topics of other workloads on the link
	Text    string    `json:"text"`             // what was changed, for the report
}

// cycleGrace is added to a sync's interval: a cycle that had begun just before the suspension may still be writing. The
// wait lies before anybody is stopped, so it costs no part of the switch window.
const cycleGrace = time.Second

// Documented defaults of Cluster Linking, for a link that does not say how often it syncs.
const (
	defaultOffsetCycle = 30 * time.Second
	defaultACLCycle    = 5 * time.Second
)

// Suspend records what stood before, then suspends: idempotent, also after a crash in between.
func (a *Syncs) Suspend(ctx context.Context, in SyncsInput) (out SyncsResult, err error) {
	ctx, out.Acted = begin(ctx)
	r, scope, err := a.scoped(ctx, in.Guard, in.Route)
	if err != nil {
		return out, err
	}
	defer r.close()
	if in.Route.SourceLost && heldByACLs(r.link) { // in a disaster nobody waits for Kafka Connect, and ACLs need no word of its own
		return out, denySyncs(ctx, r, in, &out)
	}
	status, err := r.link.Status(ctx)
	if err != nil {
		return out, wrap("read the link", err)
	}
	// The first look is the truth of before: a second attempt finds it recorded, whatever the first one changed.
	key := syncsKey(status.Name, in.Guard.Run.ID())
	var kept SuspendedSyncs
	switch err := r.records.get(ctx, key, &kept); {
	case errors.Is(err, fault.ErrNotFound):
		kept = SuspendedSyncs{Before: status.Syncs, Held: replication.Suspension{Topics: scope.TopicNames(), Groups: scope.Groups}, To: in.Route.To.Name}
		if err := asBefore(ctx, r.records, status.Name, &kept); err != nil {
			return out, err
		}
	case err != nil:
		return out, err
	}
	wctx, cancel, err := writing(ctx)
	if err != nil {
		return out, err
	}
	defer cancel()
	if err := r.records.put(wctx, map[string]any{key: kept}); err != nil {
		return out, err
	}
	killpoint.Reach("Suspend/middle")
	if err := deny(wctx, r, in.Guard.Run, replication.DenySyncs, nil); err != nil {
		return out, err
	}
	if err := r.link.SuspendSyncs(wctx, kept.Before, kept.Held); err != nil {
		return out, wrap("suspend the syncs of link "+status.Name, err)
	}
	out.Changed = true
	out.QuietAt = time.Now().Add(quietAfter(r.link, kept.Before))
	for _, t := range status.Topics {
		if !slices.Contains(kept.Held.Topics, t) {
			out.Others = append(out.Others, t)
		}
	}
	if heldByACLs(r.link) {
		out.Text = fmt.Sprintf("link %s is denied to copy ACLs and to create topics on %s, as each broker says itself", status.Name, in.Route.To.Name)
		return out, nil
	}
	out.Text = fmt.Sprintf("link %s: ACL sync off (was %s), offset sync holds back %d groups (was %s), auto-create holds back %d topics (was %s)",
		status.Name, onOff(kept.Before.ACLs), len(kept.Held.Groups), onOff(kept.Before.Offsets), len(kept.Held.Topics), onOff(kept.Before.Topics))
	return out, nil
}

// quietAfter is how long a cycle that had begun before the suspension may still write. Where ACLs take the link the right,
// the brokers refuse the rest of it: only what is under way passes.
func quietAfter(link replication.Link, before replication.Syncs) time.Duration {
	if heldByACLs(link) {
		return cycleGrace
	}
	return longestCycle(before)
}

// heldByACLs says whether it is ACLs that take the link the right to sync.
func heldByACLs(link replication.Link) bool {
	return len(link.Denials(replication.DenySyncs, nil)) > 0
}

// denySyncs takes a link the right to sync without asking it anything. Nothing is recorded but the ACLs: there is no setting to
// be put back.
func denySyncs(ctx context.Context, r *route, in SyncsInput, out *SyncsResult) error {
	wctx, cancel, err := writing(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	killpoint.Reach("Suspend/middle")
	if err := deny(wctx, r, in.Guard.Run, replication.DenySyncs, nil); err != nil {
		return err
	}
	out.Changed, out.QuietAt = true, time.Now().Add(cycleGrace)
	out.Text = fmt.Sprintf("the mirror is denied to copy ACLs and to create topics on %s, as each broker says itself", in.Route.To.Name)
	return nil
}

// longestCycle is how long a cycle that had begun before the suspension may still write. Where the backend does not say
// how often it syncs, its documented default counts.
func longestCycle(s replication.Syncs) time.Duration {
	var longest time.Duration
	for _, one := range []struct {
		sync  replication.Sync
		usual time.Duration
	}{{s.Offsets, defaultOffsetCycle}, {s.ACLs, defaultACLCycle}} {
		switch {
		case one.sync.Enabled && one.sync.Interval > 0:
			longest = max(longest, one.sync.Interval)
		case one.sync.Enabled:
			longest = max(longest, one.usual)
		}
	}
	if longest == 0 {
		return 0
	}
	return longest + cycleGrace
}

// unrestored are the suspensions of a link whose ACL sync nobody has put back, by their keys.
func unrestored(ctx context.Context, rec records, link, to string) (map[string]SuspendedSyncs, error) {
	prefix := syncsKey(link, "")
	all, err := rec.to.Load(ctx, prefix)
	if err != nil {
		return nil, wrap("read what runs have suspended of link "+link, err)
	}
	open := map[string]SuspendedSyncs{}
	for key := range all {
		s, err := one[SuspendedSyncs](loaded(all), key)
		if err != nil {
			return nil, err
		}
		if s.To == to && !s.Restored {
			open[key] = s
		}
	}
	return open, nil
}

// asBefore lets ACL sync that another run has turned off, and not put back yet, count as that run found it: the last one to come
// back puts it back (P3).
func asBefore(ctx context.Context, rec records, link string, kept *SuspendedSyncs) error {
	if kept.Before.ACLs.Enabled {
		return nil
	}
	open, err := unrestored(ctx, rec, link, kept.To)
	if err != nil {
		return err
	}
	for _, other := range open {
		if other.Before.ACLs.Enabled {
			kept.Before.ACLs = other.Before.ACLs
		}
	}
	return nil
}

// fencedBesides names the runbooks, this one apart, of which ACLs stand: ACL sync would copy those to where their clients are (P5).
func fencedBesides(ctx context.Context, rec records, runbook string) ([]string, error) {
	return owners(ctx, rec, runbook, func(string, replication.ACL) bool { return true })
}

// Restore puts back what was recorded. What was never suspended is left alone, and ACL sync stays off while a fence of another
// runbook stands (P5).
func (a *Syncs) Restore(ctx context.Context, in SyncsInput) (out SyncsResult, err error) {
	ctx, out.Acted = begin(ctx)
	r, err := a.opened(ctx, in.Guard, in.Route)
	if err != nil {
		return out, err
	}
	defer r.close()
	status, err := r.link.Status(ctx)
	if err != nil {
		return out, wrap("read the link", err)
	}
	owner := in.Owner
	if owner == "" {
		owner = in.Guard.Run.ID()
	}
	var kept SuspendedSyncs
	switch err := r.records.get(ctx, syncsKey(status.Name, owner), &kept); {
	case errors.Is(err, fault.ErrNotFound):
		out.Text = "no sync of link " + status.Name + " had been suspended"
		return out, nil
	case err != nil:
		return out, err
	}
	var others []string
	if !heldByACLs(r.link) { // else ACLs hold it, which have owners of their own
		if others, err = fencedBesides(ctx, r.records, in.Guard.Run.Runbook); err != nil {
			return out, err
		}
	}
	keepOff := in.KeepACLsOff || len(others) > 0
	open, err := unrestored(ctx, r.records, status.Name, in.Route.To.Name)
	if err != nil {
		return out, err
	}
	wctx, cancel, err := writing(ctx)
	if err != nil {
		return out, err
	}
	defer cancel()
	killpoint.Reach("Restore/middle")
	if err := r.link.RestoreSyncs(wctx, kept.Before, kept.Held, keepOff); err != nil {
		return out, wrap("restore the syncs of link "+status.Name, err)
	}
	if !keepOff && len(open) > 0 {
		put := map[string]any{}
		for key, s := range open {
			s.Restored = true
			put[key] = s
		}
		if err := r.records.put(wctx, put); err != nil {
			return out, err
		}
	}
	out.Changed = true
	out.Text = fmt.Sprintf("link %s: offset sync %s, auto-create %s, ACL sync %s",
		status.Name, onOff(kept.Before.Offsets), onOff(kept.Before.Topics), onOff(kept.Before.ACLs))
	if keepOff && kept.Before.ACLs.Enabled {
		fence := "the fence stands"
		if len(others) > 0 {
			fence = "a fence of " + firstFew(others) + " stands"
		}
		out.Text = fmt.Sprintf("link %s: offset sync %s, auto-create %s; ACL sync stays off while %s, because it would copy the fence",
			status.Name, onOff(kept.Before.Offsets), onOff(kept.Before.Topics), fence)
	}
	return out, nil
}

func onOff(s replication.Sync) string {
	if s.Enabled {
		return "on"
	}
	return "off"
}
