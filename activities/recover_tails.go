package activities

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"switchback/internal/fault"
	"switchback/replication"
)

// tails makes a list of what is stranded, partition by partition, and has what can be read counted. What cannot be is in
// the list as well, with the reason: nothing stranded goes without its name (I4).
func (p *recoveryPlan) tails(ctx context.Context) error {
	marked := map[replication.Partition]bool{}
	for _, m := range p.marks.Marks {
		marked[m.Partition] = true
		if s, some := p.tail(m); some {
			p.list = append(p.list, s)
		}
	}
	p.unmarked(marked)
	slices.SortFunc(p.list, func(a, b replication.Stranded) int {
		return cmp.Or(strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition.Partition, b.Partition.Partition))
	})
	if err := p.scan(ctx); err != nil {
		return err
	}
	var err error
	p.out.Shards, err = p.shards(ctx)
	return err
}

// tail is what is stranded of one marked partition; false where nothing is.
func (p *recoveryPlan) tail(m replication.Mark) (s replication.Stranded, some bool) {
	from := p.in.Route.From.Name
	e, known := p.ends[m.Partition]
	s.Tail = replication.Tail{Partition: m.Partition, From: m.Boundary, To: e.LogEnd, Start: e.Start, Since: m.TargetEnd, Treatment: treats(p.in.Recovery, m.Topic)}
	s.FirstOffset, s.LastOffset = replication.Unknown, replication.Unknown
	topic, there := p.here[m.Topic]
	s.ID = topic.ID
	switch {
	case known && madeAnew(from, m.SourceTopic, topic.ID) != "":
		s.From, s.To = max(e.Start, 0), max(e.LogEnd, e.Start, 0)
		s.Gone = p.anew[m.Topic] + "; what was stranded of the old one is gone for ever" + strandedOnce(m) + ", and where what the new one has belongs nobody knows"
	case !there:
		s.Gone, s.To, s.Start = from+" has no such topic any more: it was deleted there, and what was stranded in it is gone for ever"+strandedOnce(m), max(s.From, 0), max(s.From, 0)
	case int(m.Partition.Partition) >= topic.Partitions:
		s.Gone, s.To, s.Start = fmt.Sprintf("the topic has only %d partitions on %s now: it was made anew", topic.Partitions, from), max(s.From, 0), max(s.From, 0)
	case !known || e.LogEnd == replication.Unknown || e.Start == replication.Unknown:
		s.Gone, s.To, s.Start = from+" cannot say where it ends: it has no leader there", max(s.From, 0), max(s.From, 0)
	case p.mismatched[m.Partition] != "":
		s.Gone = p.mismatched[m.Partition]
		s.From, s.Start = max(s.From, 0), max(s.Start, 0)
		s.To = max(s.To, s.From)
	case s.From == s.To:
		return s, false
	}
	if s.Gone == "" {
		p.into(&s)
	}
	if s.Gone == "" {
		s.Gone = p.otherwise(s)
	}
	return s, true
}

// strandedOnce says how much a mark knows of what was stranded; empty where that is nothing.
func strandedOnce(m replication.Mark) string {
	switch {
	case m.Boundary == replication.Unknown:
		return ""
	case m.SourceEnd != replication.Unknown:
		return fmt.Sprintf(" (its offsets %d to %d)", m.Boundary, max(m.Boundary, m.SourceEnd))
	case m.SourceSeen > m.Boundary:
		return fmt.Sprintf(" (at least its offsets %d to %d)", m.Boundary, m.SourceSeen)
	}
	return ""
}

// into says where copies go, or why they cannot.
func (p *recoveryPlan) into(s *replication.Stranded) {
	to := p.in.Route.To.Name
	if !s.Treatment.Copies() {
		return
	}
	t, there := p.there[s.Topic]
	s.Into = replication.Partition{Topic: p.link.Prefix() + s.Topic, Partition: s.Partition.Partition}
	if s.Treatment == replication.TreatDivert {
		if s.Into.Topic = s.Topic + replication.DivertSuffix; len(s.Into.Topic) > 249 {
			s.Gone = fmt.Sprintf("its name is too long for %s behind it: append it, or rewind its groups", replication.DivertSuffix)
		}
		return
	}
	switch {
	case !there:
		s.Gone = fmt.Sprintf("%s has no such topic: it was deleted there; divert it, or make the topic", to)
	case int(s.Partition.Partition) >= t.Partitions:
		s.Gone = fmt.Sprintf("the topic has only %d partitions on %s; divert it, or add partitions", t.Partitions, to)
	}
	s.IntoID = t.ID
	s.Compacted = strings.Contains(p.configs[s.Topic][cleanupPolicy], "compact")
}

// otherwise refuses another treatment for what was begun with one (P31).
func (p *recoveryPlan) otherwise(s replication.Stranded) string {
	was, begun := p.done[s.Partition]
	if !begun || s.Treatment == replication.TreatReport {
		return ""
	}
	if _, err := was.GoOn(s.Tail); err != nil {
		return strings.TrimPrefix(err.Error(), fault.ErrConflict.Error()+": ")
	}
	return ""
}

// unmarked are partitions of the old cluster that no mark knows: topics and partitions that were born after the run looked.
func (p *recoveryPlan) unmarked(marked map[replication.Partition]bool) {
	for at, e := range p.ends {
		if marked[at] || e.LogEnd == e.Start || e.LogEnd == replication.Unknown {
			continue
		}
		s := replication.Stranded{FirstOffset: replication.Unknown, LastOffset: replication.Unknown,
			Tail: replication.Tail{Partition: at, From: e.Start, To: e.LogEnd, Start: e.Start, Since: replication.Unknown, Treatment: treats(p.in.Recovery, at.Topic)}}
		s.Gone = fmt.Sprintf("it has no mark: it was made on %s after the run that left it had looked, or the runbook names it only since; whether %s has its records is not known", p.in.Route.From.Name, p.in.Route.To.Name)
		p.list = append(p.list, s)
	}
}

// scan has the tails counted that can be read.
func (p *recoveryPlan) scan(ctx context.Context) error {
	var ask []replication.Tail
	for _, s := range p.list {
		if s.Gone == "" {
			ask = append(ask, s.Tail)
		}
	}
	if len(ask) == 0 {
		return nil
	}
	say(ctx, "reading what is stranded of %d partitions", len(ask))
	found, err := p.copier.Stranded(ctx, ask)
	if _, some := errors.AsType[*replication.Partial](err); err != nil && !some {
		return wrap("read what is stranded", err)
	}
	by := make(map[replication.Partition]replication.Stranded, len(found))
	for _, f := range found {
		by[f.Partition] = f
	}
	for i, s := range p.list {
		f, ok := by[s.Partition]
		switch {
		case s.Gone != "":
		case !ok:
			return fmt.Errorf("read what is stranded: nothing was said of %s: %w", s.Name(), fault.ErrNotReady)
		default:
			f.Tail = s.Tail
			if was, begun := p.done[s.Partition]; begun {
				f.Done = max(0, min(was.Next, s.To)-s.From)
			}
			p.list[i] = f
		}
	}
	return nil
}

// sum makes the plan's tables.
func (p *recoveryPlan) sum() {
	by := map[string]*StrandedTopic{}
	var names []string
	p.out.Partitions, p.out.Total = len(p.list), StrandedTopic{Topic: "all"}
	for _, s := range p.list {
		t := by[s.Topic]
		if t == nil {
			t = &StrandedTopic{Topic: s.Topic, Treatment: s.Treatment, Into: s.Into.Topic}
			by[s.Topic], names = t, append(names, s.Topic)
		}
		t.add(s)
		p.out.Total.add(s)
	}
	for _, n := range names {
		p.out.Topics = append(p.out.Topics, *by[n])
	}
	p.out.Total.Gone = nil
	slices.SortStableFunc(p.out.Topics, func(a, b StrandedTopic) int { return cmp.Compare(b.Offsets, a.Offsets) })
	if more := len(p.out.Topics) - topicsShown; more > 0 {
		p.out.Topics = p.out.Topics[:topicsShown]
		p.add("topics", LevelWarning, fmt.Sprintf("%d more topics have something stranded; the report lists all", more), "")
	}
	p.out.Worst = slices.Clone(p.list)
	slices.SortStableFunc(p.out.Worst, func(a, b replication.Stranded) int { return cmp.Compare(b.Offsets(), a.Offsets()) })
	p.out.Worst = p.out.Worst[:min(len(p.out.Worst), strandedShown)]
	p.judge()
	t := p.out.Total
	p.out.Text = fmt.Sprintf("%d offsets of %d partitions are stranded on %s: %d records to copy, %d superseded, %d expired, %d of aborted transactions, %d left",
		t.Offsets, t.Partitions, p.in.Route.From.Name, t.Recovered, t.Superseded, t.Expired, t.Aborted, t.Left)
}

func (t *StrandedTopic) add(s replication.Stranded) {
	t.Partitions++
	t.Offsets += s.Offsets()
	t.Tally = t.Plus(s.Tally)
	t.Bytes += s.Bytes
	t.Done += s.Done
	if !s.First.IsZero() && (t.First.IsZero() || s.First.Before(t.First)) {
		t.First = s.First
	}
	if s.Last.After(t.Last) {
		t.Last = s.Last
	}
	if s.Gone != "" {
		t.Left += s.Offsets()
		if len(t.Gone) < 5 {
			t.Gone = append(t.Gone, fmt.Sprintf("partition %d: %s", s.Partition.Partition, s.Gone))
		}
	}
}

// judge says what approvers must know besides the numbers.
func (p *recoveryPlan) judge() {
	gone, noted, appended, rewound := 0, 0, false, false
	for _, s := range p.list {
		for _, note := range s.Notes {
			if noted++; noted <= 10 {
				p.add("copies", LevelWarning, s.Name()+": "+note, "")
			}
		}
		switch {
		case s.Gone != "":
			if gone++; gone <= 10 {
				p.add("left", LevelWarning, fmt.Sprintf("%s, offsets %d to %d: %s", s.Name(), s.From, s.To, s.Gone), "it is left as it is, and named in the report")
			}
		case s.Treatment == replication.TreatAppend && s.Recovered > 0:
			appended = true
		case s.Treatment == replication.TreatRewind:
			rewound = true
		}
	}
	if gone > 10 {
		p.add("left", LevelWarning, fmt.Sprintf("%d more partitions are left", gone-10), "")
	}
	if e := p.out.Total.Expired; e > 0 {
		p.add("expired", LevelWarning, fmt.Sprintf("%d stranded offsets expired on %s before it was fenced: nothing can bring them back", e, p.in.Route.From.Name), "the report names them, partition by partition")
	}
	if appended {
		p.add("sent again", LevelWarning, "producers that were not answered may have sent the same records again to "+p.in.Route.To.Name+"; where they did, appending doubles them", "ask the owners of the producers; where they sent again, use report or divert")
	}
	if rewound {
		p.add("rewind", LevelWarning, "rewound groups are set on "+p.in.Route.From.Name+", behind its fence: nothing is copied, and nobody reads there until somebody lets them", "see docs/recovery.md")
	}
}
