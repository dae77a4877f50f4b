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

// TurnedResult says how far turning round is.
type TurnedResult struct {
	Acted
	Way  Way    `json:"way"`
	Text string `json:"text"`
}

// turnEvery is the pause between two looks while a link turns round.
const turnEvery = 250 * time.Millisecond

// Position puts the mirrors of the other direction in place behind the fence: topics are restored or made anew as mirrors,
// connectors are made and set to the marks, and do not run yet. It does exactly what Examine found and was approved, and
// says so where the last look finds something else (P28). What an earlier attempt did is not done again.
func (a *Turns) Position(ctx context.Context, in TurnInput) (out TurnedResult, err error) {
	ctx, out.Acted = begin(ctx)
	t, err := a.surveyed(ctx, in)
	if err != nil {
		return out, err
	}
	defer t.close()
	list, err := t.kept(ctx)
	if err != nil {
		return out, err
	}
	p := &positioning{turning: t, list: list}
	if err := p.act(ctx, func(ctx context.Context) error {
		return furnished(ctx, t.to, in.Route.To.Name, MarksTopic, PositionsTopic, CanaryTopic)
	}); err != nil {
		return out, err
	}
	switch _, connectors := t.link.(replication.Mirrored); {
	case connectors:
		out.Way, out.Text, err = WayResume, "", p.connectors(ctx, &out)
	case slices.ContainsFunc(list, func(one TurnTopic) bool { return one.Cut != nil }):
		out.Way, err = WayRestore, p.restore(ctx)
	default:
		out.Way, err = WayRebuild, p.rebuild(ctx)
	}
	if err == nil {
		err = p.giveUpTail(ctx, out.Way)
	}
	if err != nil {
		return out, err
	}
	out.Changed = true
	if out.Text == "" {
		out.Text = fmt.Sprintf("%d topics of %s are mirrors of %s", len(list), in.Route.To.Name, in.Route.From.Name)
	}
	return out, nil
}

// positioning is Position at work.
type positioning struct {
	*turning
	list    []TurnTopic
	deleted []string // by this attempt
}

// act looks once more whether the run holds its epoch, then writes inside the deadline that this look gives: an attempt that
// comes late finds another epoch, or is over (P35).
func (t *turning) act(ctx context.Context, write func(context.Context) error) error {
	wctx, cancel, err := t.outside.writing(ctx, t.in.Guard)
	if err != nil {
		return err
	}
	defer cancel()
	return write(wctx)
}

// acted is act, until it succeeds or the time for all of it is over.
func (t *turning) acted(ctx context.Context, write func(context.Context) error) error {
	return until(ctx, t.in.Deadline, turnEvery, func(ctx context.Context) (bool, string, error) {
		err := t.act(ctx, write)
		return err == nil, "", err
	})
}

// restore asks for exactly the cuts that were approved; the link repeats the preview before it sends anything.
func (p *positioning) restore(ctx context.Context) error {
	back, ok := p.link.(replication.Reverser)
	if !ok {
		return fmt.Errorf("the link cannot restore topics: %w", fault.ErrInvalid)
	}
	var cuts []replication.Cut
	for _, one := range p.list {
		if one.Cut != nil {
			cuts = append(cuts, *one.Cut)
		}
	}
	return p.mirrored(ctx, func(ctx context.Context, waiting []string) error {
		some := slices.DeleteFunc(slices.Clone(cuts), func(c replication.Cut) bool { return !slices.Contains(waiting, c.Topic) })
		rest := slices.DeleteFunc(slices.Clone(waiting), func(topic string) bool {
			return slices.ContainsFunc(cuts, func(c replication.Cut) bool { return c.Topic == topic })
		})
		if len(rest) > 0 { // what is not there cannot be cut back
			if err := p.remake(ctx, rest); err != nil {
				return err
			}
		}
		if len(some) == 0 {
			return nil
		}
		return p.act(ctx, func(ctx context.Context) error {
			_, err := back.Restore(ctx, some)
			if errors.Is(err, fault.ErrConflict) { // it stays so: somebody has to look
				return fmt.Errorf("%w: %w", fault.ErrInvalid, err)
			}
			if errors.Is(err, fault.ErrUnclear) { // the states tell
				return nil
			}
			return err
		})
	})
}

// rebuild deletes topics that are no mirrors, and makes mirrors of the same name. What is deleted is looked at once more: its
// ends are those that were approved, and nothing else hangs on it (P28, I9).
func (p *positioning) rebuild(ctx context.Context) error {
	return p.mirrored(ctx, p.remake)
}

// remake goes one step: it deletes what is there, and makes mirrors where nothing is.
func (p *positioning) remake(ctx context.Context, waiting []string) error {
	back, ok := p.link.(replication.Rebuilder)
	if !ok {
		return fmt.Errorf("the link cannot mirror topics anew: %w", fault.ErrInvalid)
	}
	there, err := p.to.Topics(ctx, func(name string) bool { return slices.Contains(waiting, name) })
	if err != nil {
		return wrap("list topics of "+p.names.To.Name, err)
	}
	var ends []replication.Ends
	names := Scope{Topics: there}.TopicNames()
	if len(names) > 0 {
		if ends, err = p.to.Ends(ctx, names); err != nil {
			return wrap("read the ends of "+p.names.To.Name, err)
		}
		names = slices.DeleteFunc(names, func(name string) bool { return p.anew(name, ends) })
	}
	if len(names) > 0 {
		if err := p.mayGo(ctx, back, names, ends); err != nil {
			return err
		}
		killpoint.Reach("Position/delete")
		err := p.act(ctx, func(ctx context.Context) error { return failedOnes(back.DeleteTopics(ctx, names)) })
		if err == nil {
			p.deleted = append(p.deleted, names...)
		}
		return err
	}
	killpoint.Reach("Position/create")
	return p.act(ctx, func(ctx context.Context) error { return failedOnes(back.CreateMirrors(ctx, waiting)) })
}

// failedOnes makes an error of outcomes that failed; what is pending or unclear the states tell.
func failedOnes(outcomes []replication.Outcome, err error) error {
	if errors.Is(err, fault.ErrUnclear) {
		err = nil
	}
	if bad, text := notOK(only(outcomes, replication.Failed)); err == nil && len(bad) > 0 {
		return fmt.Errorf("%s: %w", text, fault.ErrNotReady)
	}
	return err
}

// anew says whether a topic is not the one that was approved, and nothing was ever written to it: it was deleted, and a mirror of its
// name is in the making. A link that is slow shows the topic before the mirror.
func (p *positioning) anew(name string, now []replication.Ends) bool {
	at := slices.IndexFunc(p.list, func(one TurnTopic) bool { return one.Topic == name })
	had := at >= 0 && slices.ContainsFunc(p.list[at].Ends, func(e replication.Ends) bool { return e.LogEnd != 0 })
	has := slices.ContainsFunc(now, func(e replication.Ends) bool { return e.Topic == name && e.LogEnd != 0 })
	return at >= 0 && !has && (had || len(p.list[at].Ends) == 0 || slices.Contains(p.deleted, name))
}

// mayGo is the last look before topics are deleted, at what was read of their ends.
func (p *positioning) mayGo(ctx context.Context, back replication.Rebuilder, names []string, ends []replication.Ends) error {
	hang, err := back.Dependents(ctx, names)
	if err != nil {
		return wrap("look for what hangs on the topics of "+p.names.To.Name, err)
	}
	if _, text := notOK(hang); text != "" {
		return fault.Hint(fmt.Errorf("topics of %s cannot be deleted yet: %s: %w", p.names.To.Name, text, fault.ErrInvalid),
			"wait for the stop of those mirrors, or end the other links' use of them, then retry")
	}
	now := byPartition(ends)
	var differ []string
	for _, one := range p.list {
		if !slices.Contains(names, one.Topic) {
			continue
		}
		if len(one.Ends) == 0 {
			differ = append(differ, one.Topic+" was not there when it was approved")
		}
		for _, was := range one.Ends {
			if is := now[was.Partition]; is.LogEnd != was.LogEnd {
				differ = append(differ, fmt.Sprintf("%s ends at %d, approved was %d", was.Name(), is.LogEnd, was.LogEnd))
			}
		}
	}
	if len(differ) > 0 {
		return fault.Hint(fmt.Errorf("topics of %s are not what was approved: %s: %w", p.names.To.Name, firstFew(differ), fault.ErrInvalid),
			"nothing was deleted; find out who wrote there, recover it, then start a new run")
	}
	return nil
}

// mirrored waits until every topic is a mirror, read-only. ask is called with those that are none, and again when nothing
// came of it.
func (p *positioning) mirrored(ctx context.Context, ask func(ctx context.Context, waiting []string) error) error {
	asked := time.Time{}
	return until(ctx, p.in.Deadline, turnEvery, func(ctx context.Context) (bool, string, error) {
		states, err := p.mirrors(ctx)
		if err != nil {
			return false, "", err
		}
		var waiting, none []string
		for _, one := range p.list {
			switch m := states[one.Topic]; m.State {
			case replication.MirrorActive, replication.MirrorPaused:
			case replication.MirrorStarting, replication.MirrorStopping:
				waiting = append(waiting, fmt.Sprintf("%s: %s", one.Topic, m.Raw))
			case replication.MirrorFailed, replication.MirrorUnknown:
				if m.Raw != "" {
					waiting = append(waiting, fmt.Sprintf("%s: %s %s", one.Topic, m.Raw, m.Reason))
					continue
				}
				none = append(none, one.Topic)
			default:
				none = append(none, one.Topic)
			}
		}
		if len(none) > 0 && time.Since(asked) > askAgain {
			asked = time.Now()
			if err := ask(ctx, none); err != nil {
				return false, "", err
			}
			killpoint.Reach("Position/middle")
		}
		for _, name := range none {
			waiting = append(waiting, name+": no mirror yet")
		}
		return len(waiting) == 0, fmt.Sprintf("%d topics of %s to become mirrors: %s", len(waiting), p.names.To.Name, firstFew(waiting)), nil
	})
}

// connectors makes those of this direction, stopped, and sets them to the first record that is the new cluster's own: all
// before is on both (P27). What was copied from there is left out by its header (P26).
func (p *positioning) connectors(ctx context.Context, out *TurnedResult) error {
	link, ok := p.link.(replication.Mirrored)
	if !ok {
		return fmt.Errorf("the link has no connectors: %w", fault.ErrInvalid)
	}
	states, err := p.mirrors(ctx)
	if err != nil {
		return err
	}
	running := 0
	for _, one := range p.list {
		if states[one.Topic].State == replication.MirrorActive {
			running++
		}
	}
	if running == len(p.list) && running > 0 {
		out.Text = "the connectors run already"
		return nil
	}
	opposite, err := p.outside.Links.Open(ctx, Route{From: p.in.Route.To, To: p.in.Route.From, Link: p.in.Opposite}, p.to, p.from)
	if err != nil {
		return wrap("open the link of the other direction", err)
	}
	if err := p.retire(ctx, opposite); err != nil {
		return wrap("put the connectors of the other direction to rest", err)
	}
	var made []replication.Outcome
	err = p.acted(ctx, func(ctx context.Context) (err error) {
		made, err = link.CreateStopped(ctx, opposite, p.ids[1])
		return err
	})
	if err != nil {
		return wrap("make the connectors of the way back", err)
	}
	killpoint.Reach("Position/middle")
	next, err := p.next()
	if err != nil {
		return err
	}
	if err := p.acted(ctx, func(ctx context.Context) error { return link.PatchOffsets(ctx, next) }); err != nil {
		return wrap("set where the connectors begin", err)
	}
	out.Text = fmt.Sprintf("connectors stand ready, set to %d marks", len(next))
	for _, o := range made {
		out.Text += "; " + o.Name + " " + o.Reason
	}
	return nil
}

// retire puts the link of the other direction to rest: its connectors have stopped, would go on exactly after what its target
// has if anybody let them, and only then what held them is lifted (P27). It would be copied with the topics' other ACLs by the
// mirror that comes, to where it holds that one (P5).
func (p *positioning) retire(ctx context.Context, opposite replication.Link) error {
	site := p.names.From.Name
	if err := bequeath(ctx, p.rec, opposite, p.in.Guard.Run.Runbook, p.names.To.Name, site); err != nil {
		return err
	}
	owned, err := p.rec.owned(ctx, p.in.Guard.Run.Runbook, site)
	if err != nil {
		return err
	}
	held := ofMirror(owned.ACLs, p.in.Opposite)
	if len(held) == 0 {
		return nil
	}
	var topics []string
	next := map[replication.Partition]int64{}
	for at, m := range p.marks {
		next[at] = m.Boundary
	}
	for _, one := range p.list {
		for at := range p.own {
			if at.Topic == one.Topic && one.nothing() {
				next[at] = 0 // whatever marks say
			}
		}
	}
	for at := range next {
		if !slices.Contains(topics, at.Topic) {
			topics = append(topics, at.Topic)
		}
	}
	if err := stoppedAll(ctx, opposite, p.in.Deadline, topics); err != nil {
		return err
	}
	return p.act(ctx, func(ctx context.Context) error {
		if err := opposite.PatchOffsets(ctx, next); err != nil {
			return wrap("set where they would go on", err)
		}
		return disown(ctx, p.rec, p.from, p.in.Guard.Run, site, "their seal", owned, held)
	})
}

// next is where each partition goes on: at the new cluster's own records where the old one has what came before, else at
// the beginning.
func (p *positioning) next() (map[replication.Partition]int64, error) {
	next := map[replication.Partition]int64{}
	for _, one := range p.list {
		for at, e := range p.own {
			if at.Topic != one.Topic {
				continue
			}
			mark, marked := p.marks[at]
			switch {
			case one.nothing() || !marked && p.ends[at].LogEnd == 0:
				next[at] = 0 // whatever marks say: nothing of it is there
			case !marked:
				return nil, fmt.Errorf("%s has records on %s, and no mark says which of them %s has: %w", at.Name(), p.names.To.Name, p.names.From.Name, fault.ErrInvalid)
			default:
				next[at] = min(mark.TargetEnd, e.LogEnd)
			}
		}
	}
	return next, nil
}
