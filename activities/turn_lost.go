package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"switchback/internal/fault"
	"switchback/replication"
)

// A cluster may come back without what it had: empty and new, or without some of its topics. Going home needs nothing of it then;
// what was stranded there is lost for ever, and goes home in nobody's report unless somebody says so by name (I4).

// lostTail is what was stranded of one partition and not recovered, as far as anybody has ever seen it.
type lostTail struct {
	offsets int64
	open    bool // there may be more
}

// stranded says what each partition of the cluster that was left had that nobody has brought back: by the plan of its recovery,
// where there was one, or else by its marks.
func (e *examined) stranded(ctx context.Context, saved map[replication.Partition]int64) (map[replication.Partition]lostTail, error) {
	by := map[replication.Partition]lostTail{}
	if e.left.Run == "" {
		return by, nil
	}
	var done keptDone
	switch err := e.rec.get(ctx, recoveredKey(e.left.tail()), &done); {
	case err == nil: // all of it was accounted for
		return by, nil
	case !errors.Is(err, fault.ErrNotFound):
		return nil, err
	}
	planned, err := e.planned(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range e.left.Marks {
		end, closed := max(m.SourceEnd, m.SourceSeen), m.SourceEnd != replication.Unknown && m.Boundary != replication.Unknown
		from := m.Boundary
		if planned != nil {
			s, some := planned[m.Partition]
			switch {
			case !some: // it was looked at, and had nothing
				continue
			case s.Gone == "":
				from, end, closed = s.From, s.To, true
			}
		}
		g := lostTail{open: !closed}
		if from != replication.Unknown {
			g.offsets = max(0, end-from-saved[m.Partition])
		}
		by[m.Partition] = g
	}
	return by, nil
}

// planned are the tails of the last recovery of the marks; nil where there was none.
func (e *examined) planned(ctx context.Context) (map[replication.Partition]replication.Stranded, error) {
	var plan keptPlan
	err := e.rec.get(ctx, recoveryKey(e.left.tail()), &plan)
	if errors.Is(err, fault.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	list, err := getList[replication.Stranded](ctx, e.rec.to, tailsKey(e.left.tail(), plan.Run))
	if err != nil {
		return nil, err
	}
	by := make(map[replication.Partition]replication.Stranded, len(list))
	for _, s := range list {
		by[s.Partition] = s
	}
	return by, nil
}

// lost counts what went with a topic that is not there any more, or holds nothing.
func (e *examined) lost(one *TurnTopic, stranded map[replication.Partition]lostTail) {
	for _, m := range e.left.Marks {
		if g, some := stranded[m.Partition]; some && m.Topic == one.Topic {
			one.Lost += g.offsets
			one.Open = one.Open || g.open
		}
	}
}

// empty says whether nothing was ever written to a topic of the cluster that is to mirror.
func (e *examined) empty(t replication.Topic) bool {
	for p := range int32(t.Partitions) { //nolint:gosec // Kafka's own numbers are 32 bits
		if end, ok := e.ends[replication.Partition{Topic: t.Name, Partition: p}]; !ok || end.LogEnd != 0 {
			return false
		}
	}
	return true
}

// nameLost asks for the consent of who gives up what nobody can recover.
func (e *examined) nameLost(one TurnTopic) {
	if one.Lost == 0 && !one.Open {
		return
	}
	e.out.Lost, e.out.Open = e.out.Lost+one.Lost, e.out.Open || one.Open
	why := fmt.Sprintf("%s came back without it", e.names.To.Name)
	switch {
	case e.other != "":
		why = e.other
	case one.State == turnEmpty:
		why = fmt.Sprintf("%s came back without a record of it", e.names.To.Name)
	}
	means := fmt.Sprintf("topic %s: recovery impossible: %s, so %s that were stranded in it are lost for ever", one.Topic, why, manyOffsets(one.Lost, one.Open))
	if slices.Contains(e.in.Accept, one.Topic) {
		e.add("lost", LevelWarning, means+"; that was accepted by name", "")
		return
	}
	e.add("lost", LevelProblem, means, "bring back the cluster that had them, if anybody can; or accept their loss by name with --accept-loss "+one.Topic)
}

// manyOffsets says how many, where there may be more.
func manyOffsets(n int64, open bool) string {
	switch {
	case open && n == 0:
		return "an unknown number of offsets"
	case open:
		return fmt.Sprintf("at least %d offsets", n)
	}
	return fmt.Sprintf("%d offsets", n)
}

// Gone says in a word how many stranded offsets of the topic nobody can recover any more.
func (one TurnTopic) Gone() string {
	switch {
	case one.Open && one.Lost == 0:
		return "unknown"
	case one.Open:
		return fmt.Sprintf("at least %d", one.Lost)
	}
	return fmt.Sprint(one.Lost)
}

// giveUpTail says in the records that nothing is left of what was stranded: everything that the cluster had of it is gone, and what
// was not recovered was given up by name. A later recovery does not look for it, and none calls it forgotten.
func (p *positioning) giveUpTail(ctx context.Context, way Way) error {
	if p.left.Run == "" {
		return nil
	}
	how := "the topics of " + p.names.To.Name + " were cut back or mirrored anew"
	if p.other != "" {
		how = p.other
	}
	gave := false
	for _, one := range p.list {
		if one.State == turnLeft && !way.destroys() {
			return nil // it has its records
		}
		gave = gave || one.Unsaved > 0 || one.Lost > 0 || one.Open
	}
	if !gave {
		return nil
	}
	var done keptDone
	err := p.rec.get(ctx, recoveredKey(p.left.tail()), &done)
	if !errors.Is(err, fault.ErrNotFound) {
		return err
	}
	return p.act(ctx, func(ctx context.Context) error {
		return p.rec.put(ctx, map[string]any{recoveredKey(p.left.tail()): keptDone{Run: p.in.Guard.Run.ID(), At: time.Now().UTC(), Gave: how}})
	})
}

// furnished makes those of Switchback's own topics that a cluster came back without: nobody can go home to one that has none.
func furnished(ctx context.Context, on Kafka, site string, names ...string) error {
	there, err := on.Topics(ctx, func(name string) bool { return slices.Contains(names, name) })
	if err != nil {
		return wrap("list Switchback's own topics on "+site, err)
	}
	for _, name := range names {
		if slices.ContainsFunc(there, func(t replication.Topic) bool { return t.Name == name }) {
			continue
		}
		if err := on.CreateTopic(ctx, replication.OwnTopicSpec(name)); err != nil && !errors.Is(err, fault.ErrConflict) {
			return fault.Hint(wrap("make "+name+" on "+site, err), "grant Switchback CREATE, READ and WRITE on topics that begin with %s there", replication.OwnTopics)
		}
	}
	return nil
}
