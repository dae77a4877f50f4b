package activities

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"

	"switchback/replication"
)

// judge finds the way, and whether it may be gone.
func (e *examined) judge(ctx context.Context, list []TurnTopic) error {
	from, to := e.names.From.Name, e.names.To.Name
	if len(list) == 0 {
		e.add("topics", LevelProblem, "no topic of "+from+" matches the runbook's patterns", "correct topics.include of the runbook")
		return nil
	}
	if err := e.way(ctx, list); err != nil {
		return err
	}
	left := 0
	for i, one := range list {
		e.out.Stranded += one.Unsaved
		if !e.out.Way.destroys() {
			list[i].Goes, list[i].Unsaved, list[i].Deleted = 0, 0, 0
		} else if e.out.Way == WayRestore {
			list[i].Deleted = 0
		}
		one = list[i]
		e.out.Goes, e.out.Unsaved, e.out.Deleted, e.out.Copy = e.out.Goes+one.Goes, e.out.Unsaved+one.Unsaved, e.out.Deleted+one.Deleted, e.out.Copy+one.Copy
		if one.exists() {
			left++
		}
		e.nameLost(one)
		if one.Unsaved > 0 && !slices.Contains(e.in.Accept, one.Topic) {
			e.add("unsaved", LevelProblem, fmt.Sprintf("topic %s: %d stranded offsets of %s would go that exist nowhere else", one.Topic, one.Unsaved, to),
				"recover them first (`switchback start recover`), or accept their loss by name with --accept-loss "+one.Topic)
		} else if one.Unsaved > 0 {
			e.add("unsaved", LevelWarning, fmt.Sprintf("topic %s: %d stranded offsets of %s go that exist nowhere else; their loss was accepted by name", one.Topic, one.Unsaved, to), "")
		}
	}
	e.worst(list)
	if err := e.marksFit(list); err != nil {
		return err
	}
	if left > 0 {
		if err := e.stillFenced(ctx, list); err != nil {
			return err
		}
	}
	e.out.Text = e.sentence(left)
	return nil
}

// way asks the link what it can do (design section 6).
func (e *examined) way(ctx context.Context, list []TurnTopic) error {
	var left []string
	empty, done := true, true
	for _, one := range list {
		done = done && one.State == turnMirrored
		if one.exists() {
			left = append(left, one.Topic)
			empty = empty && one.State == turnEmpty
		}
	}
	e.out.Done = done && e.in.Route.Link.MirrorMaker == nil
	if _, ok := e.link.(replication.Mirrored); ok {
		if e.out.Way = WayResume; empty && !done {
			e.out.Way = WayAnew
		}
		return nil
	}
	if back, ok := e.link.(replication.Reverser); ok && len(left) > 0 {
		cuts, err := back.PreviewRestore(ctx, left)
		if err != nil {
			return wrap("ask link "+e.out.LinkName+" what restoring would take", err)
		}
		if e.restores(list, cuts) {
			e.out.Way = WayRestore
			return nil
		}
	}
	_, ok := e.link.(replication.Rebuilder)
	switch {
	case ok && len(left) > 0:
		e.out.Way = WayRebuild
	case ok:
		e.out.Way = WayAnew
	default:
		e.add("way back", LevelProblem, "the link cannot be turned round", "mirror "+e.names.To.Name+" by hand")
	}
	return nil
}

// restores says whether the link would restore every topic, and keeps what it would take from each.
func (e *examined) restores(list []TurnTopic, cuts []replication.Cut) bool {
	by := map[string]replication.Cut{}
	refused := ""
	for _, c := range cuts {
		by[c.Topic] = c
		if c.Status != replication.OK && refused == "" {
			refused = c.String()
		}
	}
	if refused != "" {
		e.add("way back", LevelOK, "link "+e.out.LinkName+" does not restore topics ("+refused+"): the topics of "+e.names.To.Name+" are deleted and mirrored whole", "")
		return false
	}
	for i, one := range list {
		if c, ok := by[one.Topic]; ok && one.exists() {
			list[i].Cut = &c
			if c.Records > one.Goes { // the link counts what it takes; where marks say less, they are not the truth
				list[i].Unsaved += c.Records - one.Goes
				list[i].Goes = c.Records
			}
		}
	}
	return true
}

// marksFit: without marks nobody knows what only the old cluster has, nor where connectors go on.
func (e *examined) marksFit(list []TurnTopic) error {
	if e.out.Way == WayAnew || e.out.Done {
		return nil
	}
	if e.run == "" {
		level := LevelProblem
		if e.out.Way.destroys() { // then everything there counts as unsaved, and is named
			level = LevelWarning
		}
		e.add("marks", level, fmt.Sprintf("%s keeps no marks of a switch from %s: what only %s has is not known", e.names.From.Name, e.names.To.Name, e.names.To.Name),
			"if nothing on it is needed, delete its topics by hand: an empty cluster is mirrored from the start")
		return nil
	}
	odd := e.others(list)
	for p, m := range e.marks {
		end, ok := e.ends[p]
		switch {
		case e.fresh(list, p.Topic): // nothing of it is there
		case !ok: // the topic is missing, and will be made
		case m.Boundary != replication.Unknown && end.LogEnd < m.Boundary && e.states[p.Topic].State != replication.MirrorActive:
			odd = append(odd, fmt.Sprintf("%s ends at %d, before the mark %d", p.Name(), end.LogEnd, m.Boundary))
		case m.Boundary == replication.Unknown && e.out.Way.destroys():
			odd = append(odd, p.Name()+" has no boundary yet")
		}
	}
	if len(odd) > 0 {
		slices.Sort(odd)
		e.add("marks", LevelProblem, fmt.Sprintf("%s is not what the marks say: %s; its topics were cut, or made anew under their names", e.names.To.Name, firstFew(odd)),
			"if nothing on it is needed, delete these topics by hand: missing topics are mirrored from the start")
	}
	return nil
}

// identities holds both clusters against the ids that the runbook names: the run that goes home would refuse another one, when all
// has been copied to it.
func (e *examined) identities() {
	for i, site := range []Site{e.in.Route.From, e.in.Route.To} {
		if want := site.Cluster.ID; want != "" && want != e.ids[i] {
			e.add("cluster identity", LevelProblem, fmt.Sprintf("%s answers as cluster %s, the runbook says %s", site.Name, e.ids[i], want),
				"if that is meant, a cluster set up anew, correct its id in the runbook; else its bootstrap addresses")
		}
	}
}

// fresh says whether To has nothing of a topic, so that it is mirrored from the start.
func (e *examined) fresh(list []TurnTopic, topic string) bool {
	i := slices.IndexFunc(list, func(one TurnTopic) bool { return one.Topic == topic })
	return i < 0 || list[i].nothing()
}

// others are topics that are not those that were marked: either cluster's may have been deleted and made anew under its name, and
// then the other may have the only copy of what was in it. Where connectors go on, records that no mark knows are odd as well.
func (e *examined) others(list []TurnTopic) (odd []string) {
	mine, there := topicIDs(e.here), topicIDs(e.there)
	for _, one := range list {
		if one.State != turnLeft {
			continue
		}
		for at, end := range e.ends {
			if at.Topic != one.Topic {
				continue
			}
			m, marked := e.marks[at]
			why := ""
			if marked {
				why = cmp.Or(madeAnew(e.names.To.Name, m.SourceTopic, there[one.Topic]), madeAnew(e.names.From.Name, m.TargetTopic, mine[one.Topic]))
			} else if !e.out.Way.destroys() && end.LogEnd > 0 {
				why = "it has records that no mark knows"
			}
			if why != "" {
				odd = append(odd, one.Topic+": "+why)
				break
			}
		}
	}
	return odd
}

// stillFenced: nobody may write to what is about to be cut, deleted or mirrored over (P6).
func (e *examined) stillFenced(ctx context.Context, list []TurnTopic) error {
	var names []string
	for _, one := range list {
		if one.exists() {
			names = append(names, one.Topic)
		}
	}
	outcomes, err := e.to.ACLsOnEveryBroker(ctx, replication.TopicFence(names), true)
	if err != nil {
		return wrap("read the fence of "+e.names.To.Name+" back", err)
	}
	_, text := notOK(outcomes)
	switch {
	case text == "" && len(outcomes) > 0:
		e.add("fence", LevelOK, fmt.Sprintf("WRITE is denied on %d topics of %s, as each broker says itself", len(names), e.names.To.Name), "")
	case e.out.Way.destroys():
		e.add("fence", LevelProblem, fmt.Sprintf("%s is not fenced on every broker, so somebody may write there what would go: %s", e.names.To.Name, text),
			"wait until it is fenced (`switchback status RUNBOOK` says what for), then start again")
	default:
		closed, err := e.closedByName(ctx, names)
		if err != nil {
			return err
		}
		if !closed {
			e.add("fence", LevelProblem, fmt.Sprintf("%s is neither fenced nor closed to the runbook's clients by name: %s", e.names.To.Name, text),
				"wait until it is fenced (`switchback status RUNBOOK` says what for), then start again")
		}
	}
	return nil
}

func (e *examined) worst(list []TurnTopic) {
	for _, one := range list {
		if one.Goes > 0 || one.Deleted > 0 || one.State == turnMissing {
			one.Ends, one.Cut = nil, nil
			e.out.Worst = append(e.out.Worst, one)
		}
	}
	slices.SortStableFunc(e.out.Worst, func(a, b TurnTopic) int { return int(min(1, max(-1, b.Unsaved+b.Goes-a.Unsaved-a.Goes))) })
	e.out.Worst = e.out.Worst[:min(len(e.out.Worst), topicsShown)]
}

func (e *examined) sentence(left int) string {
	to := e.names.To.Name
	if e.out.Done {
		return fmt.Sprintf("%s mirrors %d topics already", to, e.out.Topics)
	}
	var what string
	switch e.out.Way {
	case WayRestore:
		what = fmt.Sprintf("%d topics of %s are truncated to the marks, which takes %d offsets, and restored as mirrors", left, to, e.out.Goes)
	case WayRebuild:
		what = fmt.Sprintf("%d topics of %s are deleted with %d offsets, %d of them beyond the marks, and mirrored whole", left, to, e.out.Deleted, e.out.Goes)
	case WayResume:
		what = fmt.Sprintf("the connectors go on exactly after what %s has; nothing of it is taken", to)
	default:
		what = to + " has none of the topics, or they are empty: everything is mirrored"
	}
	parts := []string{what, fmt.Sprintf("about %d offsets are mirrored", e.out.Copy)}
	if e.out.Lost > 0 || e.out.Open {
		parts = append(parts, "recovery impossible: "+manyOffsets(e.out.Lost, e.out.Open)+" that were stranded there are lost for ever")
	}
	if e.out.Unsaved > 0 {
		parts = append(parts, fmt.Sprintf("%d offsets exist nowhere else", e.out.Unsaved))
	}
	return strings.Join(parts, "; ")
}
