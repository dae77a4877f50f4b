package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"switchback/internal/fault"
	"switchback/internal/killpoint"
	"switchback/replication"
	"switchback/runbooks"
)

// RewindInput says which groups the runbook means.
type RewindInput struct {
	RecoveryInput
	Groups runbooks.Groups `json:"groups"`
}

// RewindResult says which groups were set.
type RewindResult struct {
	Acted
	Partitions int                   `json:"partitions"`
	Groups     []string              `json:"groups,omitempty"`
	Left       []replication.Outcome `json:"left,omitempty"` // groups that were not moved, and why
	Text       string                `json:"text"`
}

// RewindGroups sets the groups on the old cluster to the marks, in the partitions whose treatment is rewind, and reads that
// back. That they are rewound is in the progress already, as CopyTails has left it: they refuse copies from then on (P31),
// and one that was copied refuses this. The fence of the groups is lifted by name while their offsets are written, and
// stands again after it. What was set once is not set again: its readers may have gone on since.
func (a *Recovery) RewindGroups(ctx context.Context, in RewindInput) (out RewindResult, err error) {
	ctx, out.Acted = begin(ctx)
	r, err := a.begun(ctx, in.RecoveryInput)
	if err != nil {
		return out, err
	}
	defer r.close()
	open, set, err := r.toRewind(ctx, in.Tail)
	if err != nil {
		return out, err
	}
	if out.Partitions = len(open); len(open) == 0 {
		out.Text = "nothing to rewind"
		return out, nil
	}
	if err := r.sameTopics(ctx, open); err != nil {
		return out, err
	}
	groups, left, err := r.movable(ctx, in.Groups)
	if err != nil {
		return out, err
	}
	out.Left = left
	if err := r.rewind(ctx, groups, open); err != nil {
		return out, err
	}
	killpoint.Reach("RewindGroups/set")
	for _, t := range open {
		set = append(set, t.Partition)
	}
	if err := putList(ctx, r.records, rewoundKey(in.Tail), set); err != nil {
		return out, err
	}
	out.Changed, out.Groups = true, groups
	out.Text = fmt.Sprintf("%d groups on %s set to the marks of %d partitions, read back", len(groups), in.Route.From.Name, len(open))
	return out, nil
}

// toRewind are the tails whose groups were not set yet, and the partitions whose were.
func (r *recovering) toRewind(ctx context.Context, tail string) (open []replication.Tail, set []replication.Partition, err error) {
	_, list, err := r.kept(ctx, tail)
	if err != nil {
		return nil, nil, err
	}
	set, err = getList[replication.Partition](ctx, r.records.to, rewoundKey(tail))
	if ignoreMissing(err) != nil {
		return nil, nil, err
	}
	done, err := r.progress(ctx, tail)
	if err != nil {
		return nil, nil, err
	}
	for _, s := range list {
		if s.Gone != "" || s.Treatment != replication.TreatRewind || slices.Contains(set, s.Partition) {
			continue
		}
		if was, begun := done[s.Partition]; !begun || was.Treatment != replication.TreatRewind || was.Next < s.To {
			return nil, nil, fmt.Errorf("%s is not recorded as rewound, so its groups are not set: a copy could follow, and they would read those records twice: %w", s.Name(), fault.ErrInvalid)
		}
		open = append(open, s.Tail)
	}
	return open, set, nil
}

// leftOf is the tally of a tail that is left where it is.
func leftOf(t replication.Tail) replication.Tally {
	expired := min(max(0, t.Start-t.From), t.Offsets())
	return replication.Tally{Expired: expired, Left: t.Offsets() - expired}
}

// movable are the groups of the runbook on the old cluster that nobody is a member of.
func (r *recovering) movable(ctx context.Context, match runbooks.Groups) (names []string, left []replication.Outcome, err error) {
	groups, err := r.from.Groups(ctx, match.Match)
	if err != nil {
		return nil, nil, wrap("list groups of "+r.names.From.Name, err)
	}
	for _, g := range groups {
		if g.Idle() {
			names = append(names, g.Name)
			continue
		}
		left = append(left, replication.Outcome{Name: g.Name, Status: replication.Failed, Reason: "it has members, or it is of a type whose offsets are not set: " + members(g.Members)})
	}
	return names, left, nil
}

// rewind writes the offsets and reads them back. While they are written the fence of the groups is lifted, where it stands;
// it is the runbook's own, and is put up again whatever happens.
func (r *recovering) rewind(ctx context.Context, groups []string, open []replication.Tail) (err error) {
	if len(groups) == 0 {
		return nil
	}
	fence, err := r.unfence(ctx, groups)
	defer func() { err = errors.Join(err, r.refence(ctx, fence)) }()
	if err != nil {
		return err
	}
	killpoint.Reach("RewindGroups/lifted")
	want := make(map[replication.Partition]int64, len(open))
	for _, t := range open {
		want[t.Partition] = max(t.From, t.Start)
	}
	return each(groups, func(_ int, group string) error { return r.set(ctx, group, want) })
}

// set writes one group's offsets and reads them back.
func (r *recovering) set(ctx context.Context, group string, want map[replication.Partition]int64) error {
	site := r.names.From.Name
	wctx, cancel, err := r.writing(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	if err := r.from.Commit(wctx, group, want); err != nil {
		return wrap("set the offsets of group "+group+" on "+site, err)
	}
	now, err := r.from.Committed(ctx, group)
	if err != nil {
		return wrap("read the offsets of group "+group+" back", err)
	}
	var wrong []string
	for at, offset := range want {
		if now[at] != offset {
			wrong = append(wrong, fmt.Sprintf("%s is at %d, not at %d", at.Name(), now[at], offset))
		}
	}
	if len(wrong) > 0 {
		slices.Sort(wrong)
		return fmt.Errorf("group %s on %s did not keep what was set: %s: %w", group, site, strings.Join(wrong[:min(len(wrong), 5)], "; "), fault.ErrConflict)
	}
	return nil
}

// refence closes the groups again, and reads that back.
func (r *recovering) refence(ctx context.Context, fence []replication.ACL) error {
	if len(fence) == 0 {
		return nil
	}
	ctx = afresh(context.WithoutCancel(ctx))
	wctx, cancel, err := writing(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	if err := r.from.CreateACLs(wctx, fence); err != nil {
		return wrap("close the groups on "+r.names.From.Name+" again", err)
	}
	_, err = everyBroker(wctx, r.from, fence, true)
	return wrap("read back that the groups on "+r.names.From.Name+" are closed", err)
}
