package activities

import (
	"context"
	"errors"
	"slices"

	"switchback/internal/fault"
	"switchback/internal/killpoint"
	"switchback/replication"
)

// handover writes the offsets of groups that are closed on the source.
type handover struct {
	r             *route
	run           string
	reads         map[string][]string // topics that groups are subscribed to
	target        []replication.Ends
	withoutCommit string
	inPart        int // groups that are written and recorded together
}

// groupsInPart is how many groups are handed over before that is recorded. An attempt writes for WriteDeadline at most, and a thousand groups of
// a cluster that is far away take longer.
const groupsInPart = 128

// inParts hands groups over, part after part. What a part wrote is recorded before the next one begins: an attempt whose
// time is up leaves the rest to the next, which goes on there.
func (h *handover) inParts(ctx context.Context, groups []string) (map[string][]ReadBack, error) {
	done, err := h.earlier(ctx)
	if err != nil {
		return nil, err
	}
	open := slices.DeleteFunc(slices.Clone(groups), func(g string) bool { return done[g] != nil })
	for len(open) > 0 {
		part := open[:min(len(open), h.inPart)]
		open = open[len(part):]
		handed, err := h.part(ctx, part)
		if err != nil {
			return nil, err
		}
		entries := map[string]any{}
		for i, group := range part {
			done[group] = handed[i]
			if err := chunks(entries, offsetsKey(h.run, group), handed[i]); err != nil {
				return nil, err
			}
		}
		killpoint.Reach("HandOver/written")
		if err := h.r.records.put(ctx, entries); err != nil {
			return nil, wrap("record the offsets", err)
		}
		if len(open) == 0 {
			break
		}
		so := slices.DeleteFunc(slices.Clone(groups), func(g string) bool { return done[g] == nil })
		if err := h.r.records.put(ctx, map[string]any{handedKey(h.run): so}); err != nil { // only now: all of their offsets are there
			return nil, wrap("record which groups were handed over", err)
		}
	}
	return done, nil
}

// earlier are the groups that earlier attempts have handed over, and their offsets.
func (h *handover) earlier(ctx context.Context) (map[string][]ReadBack, error) {
	done := map[string][]ReadBack{}
	var names []string
	if err := h.r.records.get(ctx, handedKey(h.run), &names); err != nil {
		if errors.Is(err, fault.ErrNotFound) {
			return done, nil
		}
		return nil, wrap("read which groups were handed over", err)
	}
	all, err := offsetsOf(ctx, h.r.records.to, h.run)
	if err != nil {
		return nil, err
	}
	for _, group := range names {
		done[group] = all[group]
	}
	return done, nil
}

// part writes the offsets of some groups on the target, for every partition of every topic that each reads, and reads them
// back. A topic that a group only subscribed to counts as read (P24). All are translated in one pass.
func (h *handover) part(ctx context.Context, groups []string) ([][]ReadBack, error) {
	stand := make([]replication.GroupOffsets, len(groups))
	before := make([]map[replication.Partition]int64, len(groups))
	err := each(groups, func(i int, group string) error {
		return wrap("read the offsets of group "+group, sideBySide(
			func() error {
				committed, err := h.r.from.Committed(ctx, group)
				stand[i] = replication.GroupOffsets{Group: group, Offsets: replication.Committed(committed, h.target, h.reads[group]...)}
				return err
			},
			func() (err error) { before[i], err = h.r.to.Committed(ctx, group); return err },
		))
	})
	if err != nil {
		return nil, err
	}
	translated, err := h.r.link.Translate(ctx, stand)
	if err != nil {
		return nil, wrap("translate the groups' offsets", err)
	}
	handed := make([][]ReadBack, len(groups))
	return handed, each(groups, func(i int, group string) error {
		final, err := replication.Place(translated[i].Offsets, h.target, h.withoutCommit)
		if err == nil {
			handed[i], err = commit(ctx, h.r.to, group, final)
		}
		for j, o := range handed[i] {
			if was, ok := before[i][o.Partition]; ok && was > o.Target {
				handed[i][j].Beyond = &was
			}
		}
		return wrap("hand over group "+group, err)
	})
}
