package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"switchback/internal/fault"
	"switchback/internal/killpoint"
	"switchback/replication"
	"switchback/runbooks"
)

// Groups hands over consumer groups.
type Groups struct{ Outside }

// HandOverInput names the groups of the runbook.
type HandOverInput struct {
	Guard    Guard             `json:"guard"`
	Route    Route             `json:"route"`
	Groups   runbooks.Groups   `json:"groups"`
	Clients  []runbooks.Client `json:"clients"` // consumers whose every instance is proven stopped
	Deadline time.Time         `json:"deadline"`
}

// HandOverResult counts; each offset is stored as a record of the run, and the report shows it.
type HandOverResult struct {
	Acted
	Groups     int      `json:"groups"`
	Offsets    int      `json:"offsets"`
	Exact      int      `json:"exact"`
	Removed    []string `json:"removed,omitempty"` // members of stopped instances that had not left
	Deviations []string `json:"deviations,omitempty"`
	Text       string   `json:"text"`
}

// groupsAtOnce bounds how many groups are handed over side by side.
const groupsAtOnce = 16

// HandOver closes the groups on the source (empty, denied READ, still empty), reads their offsets with RequireStable,
// writes them on the target for every partition, clamped to its range, and reads them back (P8, P9, P24, P25).
func (a *Groups) HandOver(ctx context.Context, in HandOverInput) (out HandOverResult, err error) {
	ctx, out.Acted = begin(ctx)
	r, scope, err := a.scoped(ctx, in.Guard, in.Route)
	if err != nil {
		return out, err
	}
	defer r.close()
	if err := aclSyncIsOff(ctx, r); err != nil {
		return out, err
	}
	var groups []string
	var target []replication.Ends // final since the drain: nobody writes there yet
	err = sideBySide(
		func() (err error) { groups, err = a.close(ctx, r, in, scope, &out); return err },
		func() (err error) {
			target, err = r.to.Ends(ctx, scope.TopicNames())
			return wrap("read the ends of "+in.Route.To.Name, err)
		},
	)
	if err != nil {
		return out, err
	}
	killpoint.Reach("HandOver/middle")
	if err := pastCopies(ctx, r, groups); err != nil {
		return out, err
	}
	if err := a.holdBack(ctx, r, in, scope, groups); err != nil {
		return out, err
	}
	wctx, cancel, err := writing(ctx)
	if err != nil {
		return out, err
	}
	defer cancel()
	if err := deny(wctx, r, in.Guard.Run, replication.DenyGroups, groups); err != nil {
		return out, err
	}
	if err := r.link.HoldsBack(wctx, groups); err != nil {
		return out, wrap("keep the link from writing the groups' offsets", err)
	}
	h := handover{r: r, run: in.Guard.Run.ID(), reads: scope.Reads, target: target, withoutCommit: in.Groups.WithoutCommit, inPart: groupsInPart}
	handed, err := h.inParts(wctx, groups)
	if err != nil {
		return out, err
	}
	for _, group := range groups {
		out.count(group, in.Route.To.Name, handed[group])
	}
	out.Deviations = foldDeviations(out.Deviations)
	out.Changed, out.Groups = true, len(groups)
	out.Text = fmt.Sprintf("%d groups closed on %s and %d offsets written on %s, %d of them exact, all read back and equal",
		out.Groups, in.Route.From.Name, out.Offsets, in.Route.To.Name, out.Exact)
	return out, nil
}

// holdBack adds groups that were born during the run to what the link's offset sync is kept from, and lets a cycle pass
// that may have begun before (P16, P34). Without such groups it does nothing.
func (a *Groups) holdBack(ctx context.Context, r *route, in HandOverInput, scope Scope, groups []string) error {
	born := slices.DeleteFunc(slices.Clone(groups), func(g string) bool { return slices.Contains(scope.Groups, g) })
	if len(born) == 0 || len(r.link.Denials(replication.DenyGroups, born)) > 0 { // denied with the others, at once
		return nil
	}
	status, err := r.link.Status(ctx)
	if err != nil {
		return wrap("read the link", err)
	}
	key := syncsKey(status.Name, in.Guard.Run.ID())
	var kept SuspendedSyncs
	if err := r.records.get(ctx, key, &kept); err != nil {
		return wrap("hold the link back from groups that appeared during the run", err)
	}
	before := len(kept.Held.Groups)
	for _, g := range born {
		if !slices.Contains(kept.Held.Groups, g) {
			kept.Held.Groups = append(kept.Held.Groups, g)
		}
	}
	wctx, cancel, err := writing(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	if len(kept.Held.Groups) > before {
		kept.QuietAt = time.Now().Add(longestCycle(kept.Before))
		if err := r.records.put(wctx, map[string]any{key: kept}); err != nil {
			return err
		}
	}
	if err := r.link.SuspendSyncs(wctx, kept.Before, kept.Held); err != nil {
		return wrap("hold the link back from "+strings.Join(born, ", "), err)
	}
	return until(ctx, in.Deadline, emptyEvery, func(context.Context) (bool, string, error) {
		return time.Now().After(kept.QuietAt), "a cycle of the link's syncs to pass, because of " + strings.Join(born, ", "), nil
	})
}

// ReadBack is one offset as it was handed over: where the group stood, where it goes on, and how sure that is.
type ReadBack struct {
	replication.Translated
	Group    string `json:"group"`
	ReadBack bool   `json:"readBack"`
	// Beyond is what the target had before, where that lay beyond Target.
	Beyond *int64 `json:"beyond,omitempty"`
}

// count says of every offset that is not exact, and of every group that was moved back, that it is so.
func (out *HandOverResult) count(group, to string, offsets []ReadBack) {
	for _, o := range offsets {
		out.Offsets++
		if o.Beyond != nil {
			out.Deviations = append(out.Deviations, fmt.Sprintf("group %s, %s: moved back from %d, which %s had", group, o.Name(), *o.Beyond, to))
		}
		if o.Proof == replication.ProofExact {
			out.Exact++
			continue
		}
		out.Deviations = append(out.Deviations, fmt.Sprintf("group %s, %s: %s", group, o.Name(), o.Proof))
	}
}

// close empties the groups and denies READ on them for everybody; only then are their offsets final (P8). Groups are
// listed again behind the fence, until no new one turns up (P16).
func (a *Groups) close(ctx context.Context, r *route, in HandOverInput, scope Scope, out *HandOverResult) ([]string, error) {
	names := slices.Clone(scope.Groups)
	slices.Sort(names)
	leave, err := leavingOf(ctx, r.records, in.Guard.Run.ID())
	if err != nil {
		return nil, err
	}
	defer func() { out.Removed = leave.Removed }()
	for closed := false; ; closed = true {
		live, err := r.from.Groups(ctx, in.Groups.Match)
		if err != nil {
			return nil, wrap("list groups of "+in.Route.From.Name, err)
		}
		known := len(names)
		for _, g := range live {
			if !slices.Contains(names, g.Name) {
				names = append(names, g.Name)
			}
		}
		if closed && len(names) == known {
			return names, a.empty(ctx, r, in, names, leave)
		}
		slices.Sort(names)
		if err := a.empty(ctx, r, in, names, leave); err != nil {
			return nil, err
		}
		wctx, cancel, err := writing(ctx)
		if err != nil {
			return nil, err
		}
		fence := replication.GroupFence(names)
		err = own(wctx, r.records, r.from, in.Guard.Run, in.Route.From.Name, append(replication.TopicFence(scope.TopicNames()), fence...))
		cancel()
		if err != nil {
			return nil, err
		}
		if _, err := everyBroker(ctx, r.from, fence, true); err != nil {
			return nil, wrap("read back that the groups are closed on "+in.Route.From.Name, err)
		}
	}
}

// emptyEvery is the pause between two looks at groups that are about to be empty.
const emptyEvery = 50 * time.Millisecond

// leaving is what is known of members that do not leave, also by a later attempt. A process that is gone does not come
// back: whoever is there after the members of a group were removed has a process behind it.
type leaving struct {
	since   time.Time
	At      map[string]time.Time `json:"at"`      // group -> when members without an instance id were removed; zero: static ones
	Removed []string             `json:"removed"` // for the report
}

func leavingOf(ctx context.Context, rec records, run string) (*leaving, error) {
	l := &leaving{since: time.Now(), At: map[string]time.Time{}}
	if err := rec.get(ctx, removedKey(run), l); err != nil && !errors.Is(err, fault.ErrNotFound) {
		return nil, err
	}
	return l, nil
}

// comesBack is how long a live member may take to notice that it was removed: a heartbeat, every 3 s unless a client says
// otherwise, and the join that follows.
const comesBack = 3500 * time.Millisecond

// empty waits until no group has members. A member whose client is proven stopped, and that is still there after
// leaveGrace, is a static one that does not leave, or was killed: it is removed (P8). One without an instance id may be
// anybody's, so the group has to stay empty for comesBack. Whoever comes back, and any other, is named.
func (a *Groups) empty(ctx context.Context, r *route, in HandOverInput, names []string, leave *leaving) error {
	return until(ctx, in.Deadline, emptyEvery, func(ctx context.Context) (bool, string, error) {
		groups, err := r.from.Groups(ctx, func(name string) bool { return slices.Contains(names, name) })
		if err != nil {
			return false, "", wrap("describe the groups", err)
		}
		var waiting []string
		for _, g := range groups {
			at, removed := leave.At[g.Name]
			switch {
			case g.Opaque:
				waiting = append(waiting, fmt.Sprintf("group %s, a %s group whose members cannot be seen: leave it out of the runbook", g.Name, g.Type))
			case len(g.Members) > 0 && removed:
				waiting = append(waiting, fmt.Sprintf("group %s to be empty (%s, which came back after it was removed: somebody runs it)", g.Name, members(g.Members)))
			case len(g.Members) > 0:
				waiting = append(waiting, fmt.Sprintf("group %s to be empty (%s)", g.Name, members(g.Members)))
			case removed && time.Since(at) < comesBack:
				waiting = append(waiting, fmt.Sprintf("group %s to stay empty", g.Name))
			}
			if len(g.Members) == 0 || removed || !provenStopped(in.Clients, g.Name) || time.Since(leave.since) < leaveGrace {
				continue
			}
			if err := a.remove(ctx, r, in.Guard.Run.ID(), g, leave); err != nil {
				return false, "", wrap("remove members of stopped instances from group "+g.Name, err)
			}
		}
		return len(waiting) == 0, strings.Join(waiting, "; "), nil
	})
}

func (a *Groups) remove(ctx context.Context, r *route, run string, g replication.Group, leave *leaving) error {
	wctx, cancel, err := writing(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	if err := r.from.RemoveMembers(wctx, g.Name, g.Members); err != nil {
		return err
	}
	leave.At[g.Name] = time.Time{}
	if slices.ContainsFunc(g.Members, func(m replication.Member) bool { return m.InstanceID == "" }) {
		leave.At[g.Name] = time.Now()
	}
	leave.Removed = append(leave.Removed, fmt.Sprintf("%s: %s", g.Name, members(g.Members)))
	return r.records.put(wctx, map[string]any{removedKey(run): leave})
}

// leaveGrace is how long a member may take to leave after its process said it was stopped.
const leaveGrace = 200 * time.Millisecond

// provenStopped says whether the clients that use the group are all among those whose instances said `stopped`, so that
// a member that is left has no process behind it. A group that no client of the runbook names is somebody else's.
func provenStopped(clients []runbooks.Client, group string) bool {
	return slices.ContainsFunc(clients, func(c runbooks.Client) bool { return slices.Contains(c.Groups, group) })
}

func members(list []replication.Member) string {
	var names []string
	for _, m := range list[:min(len(list), 5)] {
		name := m.ClientID + " on " + m.Host
		if m.InstanceID != "" {
			name = "static member " + m.InstanceID + ", " + name
		}
		names = append(names, name)
	}
	if len(list) > 5 {
		names = append(names, fmt.Sprintf("and %d more", len(list)-5))
	}
	return strings.Join(names, ", ")
}

// each does the same for groups side by side, at most groupsAtOnce; the error is that of the first that failed.
func each(groups []string, do func(i int, group string) error) error {
	var g errgroup.Group
	g.SetLimit(groupsAtOnce)
	for i, group := range groups {
		g.Go(func() error { return do(i, group) })
	}
	return g.Wait()
}

// commit writes the offsets of one group and reads them back.
func commit(ctx context.Context, to Kafka, group string, final []replication.Translated) ([]ReadBack, error) {
	want := make(map[replication.Partition]int64, len(final))
	for _, t := range final {
		want[t.Partition] = t.Target
	}
	if err := to.Commit(ctx, group, want); err != nil {
		if errors.Is(err, fault.ErrConflict) {
			err = fault.Hint(err, "a group of this name has members on the target: a group is unique over both clusters")
		}
		return nil, wrap("write its offsets", err)
	}
	got, err := to.Committed(ctx, group)
	if err != nil {
		return nil, wrap("read its offsets back", err)
	}
	list := make([]ReadBack, 0, len(final))
	for _, t := range final {
		if got[t.Partition] != t.Target {
			return nil, fmt.Errorf("%s was written as %d and reads back as %d: %w", t.Name(), t.Target, got[t.Partition], fault.ErrConflict)
		}
		list = append(list, ReadBack{Translated: t, Group: group, ReadBack: true})
	}
	return list, nil
}
