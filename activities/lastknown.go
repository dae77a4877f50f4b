package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"switchback/internal/fault"
	"switchback/internal/killpoint"
	"switchback/replication"
)

// HandOverLastKnown lets groups go on where the link last knew them; where the source answers and is fenced, where they
// stand there. Offsets are clamped to the target's range, written for every partition of every group without members and
// read back (P24). Nothing known means the runbook's withoutCommit, and says so; so does every offset that is not what the
// target had before. What is about to be written is recorded first: an attempt after a crash writes the same, and knows
// what had stood before.
func (a *Groups) HandOverLastKnown(ctx context.Context, in HandOverInput) (out HandOverResult, err error) {
	ctx, out.Acted = begin(ctx)
	in.Route.SourceLost = true
	r, scope, err := a.scoped(ctx, in.Guard, in.Route)
	if err != nil {
		return out, err
	}
	defer r.close()
	h := &lastKnown{Outside: a.Outside, r: r, in: in, scope: scope, out: &out}
	if err := h.look(ctx); err != nil {
		return out, err
	}
	switch err := a.holdBack(ctx, r, in, scope, h.groups); {
	case errors.Is(err, fault.ErrNotFound): // the syncs were never suspended: what the link writes it would write again
		h.leave("it appeared during the run, and nothing holds the link back from it")
	case err != nil:
		return out, err
	}
	if err := h.holdLink(ctx); err != nil {
		return out, err
	}
	if err := h.plan(ctx); err != nil {
		return out, err
	}
	killpoint.Reach("HandOverLastKnown/middle")
	if err := h.write(ctx); err != nil {
		return out, err
	}
	out.Changed = true
	out.Deviations = foldDeviations(append(out.Deviations, h.deviations()...))
	out.Text = fmt.Sprintf("%d offsets of %d groups written on %s, %d of them exact, all read back and equal", out.Offsets, out.Groups, in.Route.To.Name, out.Exact)
	return out, nil
}

// lastKnown is one hand-over. What it reads may take long on a cluster that has just taken over everybody's load, so each of its
// writes has a time of its own (P35). A later attempt writes what the first one recorded, and nobody who has joined is moved.
type lastKnown struct {
	Outside
	r      *route
	in     HandOverInput
	scope  Scope
	out    *HandOverResult
	groups []string // without members on the target, in order
	target []replication.Ends
	acls   []replication.ACL                 // of the target
	before []map[replication.Partition]int64 // what the target had, by index of groups
	final  [][]ReadBack                      // by index of groups
}

// holdLink keeps the link from writing the groups' offsets.
func (h *lastKnown) holdLink(ctx context.Context) error {
	wctx, cancel, err := h.writing(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	if err := deny(wctx, h.r, h.in.Guard.Run, replication.DenyGroups, h.groups); err != nil {
		return err
	}
	return wrap("keep the link from writing the groups' offsets", h.r.link.HoldsBack(wctx, h.groups))
}

func (h *lastKnown) writing(ctx context.Context) (context.Context, context.CancelFunc, error) {
	return h.Outside.writing(ctx, h.in.Guard)
}

// look finds the groups, and leaves out those that are alive on the target: nobody's offsets are moved under a member.
func (h *lastKnown) look(ctx context.Context) error {
	to := h.in.Route.To.Name
	var there, here []replication.Group
	err := sideBySide(
		func() (err error) {
			there, err = h.r.to.Groups(ctx, func(name string) bool {
				return slices.Contains(h.scope.Groups, name) || h.in.Groups.Match(name)
			})
			return wrap("list groups of "+to, err)
		},
		func() error { here, _ = h.r.from.Groups(ctx, h.in.Groups.Match); return nil }, // born meanwhile, if it says so
		func() (err error) {
			h.target, err = h.r.to.Ends(ctx, h.scope.TopicNames())
			return wrap("read the ends of "+to, err)
		},
		func() (err error) { h.acls, err = h.r.to.ACLs(ctx); return wrap("read the ACLs of "+to, err) },
	)
	if err != nil {
		return err
	}
	h.acls = replication.Unprefixed(h.r.link.Prefix(), h.acls)
	names := slices.Concat(h.scope.Groups, groupNames(there), groupNames(here))
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		at := slices.IndexFunc(there, func(g replication.Group) bool { return g.Name == name })
		switch {
		case at >= 0 && there[at].Opaque:
			h.out.Deviations = append(h.out.Deviations, fmt.Sprintf("group %s: it is a %s group, whose offsets are not handed over", name, there[at].Type))
		case at >= 0 && len(there[at].Members) > 0:
			h.out.Deviations = append(h.out.Deviations, fmt.Sprintf("group %s: it has members on %s (%s), so its offsets stay as they are", name, to, members(there[at].Members)))
		default:
			h.groups = append(h.groups, name)
		}
	}
	return nil
}

// leave takes groups that are not of the run's scope out of the hand-over, by name.
func (h *lastKnown) leave(why string) {
	h.groups = slices.DeleteFunc(h.groups, func(g string) bool {
		born := !slices.Contains(h.scope.Groups, g)
		if born {
			h.out.Deviations = append(h.out.Deviations, fmt.Sprintf("group %s: %s, so its offsets stay as they are", g, why))
		}
		return born
	})
}

// plan decides every offset and records it before any is written.
func (h *lastKnown) plan(ctx context.Context) error {
	run := h.in.Guard.Run.ID()
	prior, err := offsetsOf(ctx, h.r.records.to, run)
	if err != nil {
		return err
	}
	h.before, h.final = make([]map[replication.Partition]int64, len(h.groups)), make([][]ReadBack, len(h.groups))
	var open []string // not planned yet
	for i, group := range h.groups {
		if h.final[i] = prior[group]; h.final[i] == nil {
			open = append(open, group)
		}
	}
	err = each(h.groups, func(i int, group string) (err error) {
		if h.final[i] == nil {
			h.before[i], err = h.r.to.Committed(ctx, group)
		}
		return wrap("read the offsets of group "+group+" on "+h.in.Route.To.Name, err)
	})
	if err != nil || len(open) == 0 {
		return err
	}
	translated, err := h.translate(ctx, open)
	if err != nil {
		return err
	}
	entries := map[string]any{}
	for i, group := range h.groups {
		if h.final[i] != nil {
			continue
		}
		placed, err := replication.Place(h.sure(group, h.before[i], translated[group]), h.target, h.in.Groups.WithoutCommit)
		if err != nil {
			return wrap("hand over group "+group, err)
		}
		h.final[i] = h.against(group, h.before[i], placed)
		if err := chunks(entries, offsetsKey(run, group), h.final[i]); err != nil {
			return err
		}
	}
	return h.record(ctx, entries)
}

func (h *lastKnown) record(ctx context.Context, entries map[string]any) error {
	wctx, cancel, err := h.writing(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	return wrap("record the offsets", h.r.records.put(wctx, entries))
}

// translate asks the source where groups stand, if it can be believed, and else the link what it last knew.
func (h *lastKnown) translate(ctx context.Context, groups []string) (map[string][]replication.Translated, error) {
	list, err := h.fromSource(ctx, groups)
	if err != nil {
		h.out.Deviations = append(h.out.Deviations, fmt.Sprintf("groups go on where the link last knew them, because %s: %v", h.in.Route.From.Name, err))
	}
	if list == nil {
		onTarget := make([]replication.GroupOffsets, len(groups))
		for i, group := range groups {
			at := slices.Index(h.groups, group)
			onTarget[i] = replication.GroupOffsets{Group: group, Offsets: h.mayCount(h.before[at])}
		}
		if list, err = h.r.link.LastKnown(ctx, onTarget); err != nil {
			return nil, wrap("read what the link last knew of the groups", err)
		}
	}
	by := make(map[string][]replication.Translated, len(list))
	for _, g := range list {
		by[g.Group] = g.Offsets
	}
	return by, nil
}

// fromSource reads the groups on a source that answers and is fenced, closed to their members (P8), and translates them;
// nil without an error where the source is gone.
func (h *lastKnown) fromSource(ctx context.Context, groups []string) ([]replication.GroupOffsets, error) {
	if _, yes := gone(h.r.from); yes {
		return nil, nil
	}
	if !fencedNow(ctx, h.r, h.scope.TopicNames()) {
		return nil, errors.New("it answers but is not fenced")
	}
	wctx, cancel, err := h.writing(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	fence := replication.GroupFence(groups)
	if err := own(wctx, h.r.records, h.r.from, h.in.Guard.Run, h.in.Route.From.Name, fence); err != nil {
		return nil, wrap("close the groups there", err)
	}
	outcomes, err := h.r.from.ACLsOnEveryBroker(ctx, fence, true)
	if bad, text := notOK(outcomes); err == nil && (len(bad) > 0 || len(outcomes) == 0) {
		err = fmt.Errorf("not every broker says that the groups are closed: %s: %w", text, fault.ErrNotReady)
	}
	if err != nil {
		return nil, err
	}
	stand := make([]replication.GroupOffsets, len(groups))
	err = each(groups, func(i int, group string) error {
		committed, err := h.r.from.Committed(ctx, group)
		stand[i] = replication.GroupOffsets{Group: group, Offsets: replication.Committed(committed, h.target, h.scope.Reads[group]...)}
		return err
	})
	if err != nil {
		return nil, wrap("read the offsets of the groups", err)
	}
	ctx, cancelTranslate := context.WithTimeout(ctx, translateTime)
	defer cancelTranslate()
	return h.r.link.Translate(ctx, stand)
}

// translateTime is how long a comparison with a source that may be lost may take; after that the link's word is taken.
const translateTime = 10 * time.Second

// mayCount are all partitions: the link may know of commits in topics that nobody else has seen a group read. Target is what the
// target's own group holds.
func (h *lastKnown) mayCount(before map[replication.Partition]int64) []replication.Translated {
	list := replication.Committed(before, h.target, h.scope.TopicNames()...)
	for i, t := range list {
		list[i].Source, list[i].Target = replication.Unknown, t.Source
	}
	return list
}

// sure keeps the partitions that count and lets the runbook's policy decide where nothing is known. A topic that no one
// knows the group to read, and of which nothing came, stays out; of a group of which nothing at all is known, those that
// its clients may read stay in (P24).
func (h *lastKnown) sure(group string, before map[replication.Partition]int64, list []replication.Translated) []replication.Translated {
	counts := map[string]bool{}
	for _, topic := range h.scope.Reads[group] {
		counts[topic] = true
	}
	for p := range before {
		counts[p.Topic] = true
	}
	for _, t := range list {
		if t.Target != replication.Unknown {
			counts[t.Topic] = true
		}
	}
	if len(counts) == 0 {
		counts = h.readable(group)
	}
	var out []replication.Translated
	for _, t := range list {
		switch {
		case !counts[t.Topic]:
			continue
		case t.Target == replication.Unknown:
			t.Source = replication.Unknown
		case t.Source == replication.Unknown:
			t.Source = t.Target // known, though not where it stood on the source
		}
		out = append(out, t)
	}
	return out
}

// readable are the topics that the clients of the group may read on the target.
func (h *lastKnown) readable(group string) map[string]bool {
	may := map[string]bool{}
	for _, c := range h.in.Clients {
		if !slices.Contains(c.Groups, group) {
			continue
		}
		for _, t := range h.scope.Topics {
			if replication.Allowed(h.acls, replication.Request{Principal: c.Principal, Host: "*", ResourceType: replication.ResourceTopic, Name: t.Name, Operation: replication.OpRead}) {
				may[t.Name] = true
			}
		}
	}
	return may
}

// against says of every offset that is not what the target had what that was: nothing moves in silence.
func (h *lastKnown) against(group string, before map[replication.Partition]int64, placed []replication.Translated) []ReadBack {
	list := make([]ReadBack, 0, len(placed))
	for _, t := range placed {
		if was, ok := before[t.Partition]; ok && was != t.Target {
			way := "forward"
			if t.Target < was {
				way = "back"
			}
			t.Proof += fmt.Sprintf("; moved %s from %d, which %s had", way, was, h.in.Route.To.Name)
		}
		list = append(list, ReadBack{Translated: t, Group: group})
	}
	return list
}

// write commits what was planned, reads it back, and records that. A group that somebody joined meanwhile is left alone.
func (h *lastKnown) write(ctx context.Context) error {
	wctx, cancel, err := h.writing(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	var open []int
	for i := range h.groups {
		if slices.ContainsFunc(h.final[i], func(o ReadBack) bool { return !o.ReadBack }) {
			open = append(open, i) // no earlier attempt got to it
		}
	}
	h.out.Groups = len(h.groups)
	for part := range slices.Chunk(open, groupsInPart) {
		if err := h.writePart(wctx, part); err != nil {
			return err
		}
	}
	return nil
}

// writePart writes and records some groups, by index: what an attempt has no time left for is left to the next.
func (h *lastKnown) writePart(ctx context.Context, part []int) error {
	names, joined := make([]string, len(part)), make([]bool, len(part))
	for k, i := range part {
		names[k] = h.groups[i]
	}
	err := each(names, func(k int, group string) error {
		i := part[k]
		plan := make([]replication.Translated, len(h.final[i]))
		for j, f := range h.final[i] {
			plan[j] = f.Translated
		}
		read, err := commit(ctx, h.r.to, group, plan)
		if errors.Is(err, fault.ErrConflict) {
			if now, e := h.r.to.Groups(ctx, func(n string) bool { return n == group }); e == nil && len(now) == 1 && len(now[0].Members) > 0 {
				joined[k] = true
				return nil
			}
		}
		if err == nil {
			h.final[i] = read
		}
		return wrap("hand over group "+group, err)
	})
	if err != nil {
		return err
	}
	killpoint.Reach("HandOverLastKnown/written")
	entries := map[string]any{}
	for k, i := range part {
		if joined[k] {
			h.out.Deviations = append(h.out.Deviations, fmt.Sprintf("group %s: somebody joined it on %s, so its offsets stay as they are", names[k], h.in.Route.To.Name))
			h.out.Groups--
			h.final[i] = nil
			continue
		}
		if err := chunks(entries, offsetsKey(h.in.Guard.Run.ID(), names[k]), h.final[i]); err != nil {
			return err
		}
	}
	return wrap("record the offsets", h.r.records.put(ctx, entries))
}

// deviations names for each group how sure its offsets are, unless they are exact: one line for what is the same.
func (h *lastKnown) deviations() (list []string) {
	for i, group := range h.groups {
		proofs := map[string][]ReadBack{}
		for _, o := range h.final[i] {
			h.out.Offsets++
			if o.Proof == replication.ProofExact {
				h.out.Exact++
				continue
			}
			proofs[o.Proof] = append(proofs[o.Proof], o)
		}
		if len(h.final[i]) == 0 {
			list = append(list, fmt.Sprintf("group %s: nothing is known of it, so its consumers begin where their own auto.offset.reset says", group))
		}
		for _, proof := range slices.Sorted(maps.Keys(proofs)) {
			where := proofs[proof]
			text := fmt.Sprintf("group %s, %s", group, where[0].Name())
			if len(where) > 1 {
				text += fmt.Sprintf(" and %d more partitions", len(where)-1)
			}
			list = append(list, text+": "+proof)
		}
	}
	return list
}

// deviationsMost is what a result names; all of them are in the run's records and in its report.
const deviationsMost = 100

func foldDeviations(list []string) []string {
	slices.Sort(list)
	list = slices.Compact(list)
	if len(list) <= deviationsMost {
		return list
	}
	left := len(list) - deviationsMost
	return append(list[:deviationsMost], fmt.Sprintf("and %d more like these: the report lists every offset with its proof", left))
}

// offsetsOf are the offsets that an attempt of the run has planned or written, by group.
func offsetsOf(ctx context.Context, rec Records, run string) (map[string][]ReadBack, error) {
	all, err := rec.Load(ctx, strings.TrimSuffix(offsetsKey(run, ""), "/"))
	if err != nil {
		return nil, wrap("read the offsets of the run", err)
	}
	by := map[string][]ReadBack{}
	for _, key := range sorted(all) {
		var part []ReadBack
		if err := json.Unmarshal(all[key], &part); err != nil {
			return nil, fmt.Errorf("decode record %s: %w", key, err)
		}
		group := strings.TrimPrefix(key[:strings.LastIndexByte(key, '/')], strings.TrimSuffix(offsetsKey(run, ""), "/"))
		if by[group] == nil {
			by[group] = []ReadBack{}
		}
		by[group] = append(by[group], part...)
	}
	return by, nil
}
