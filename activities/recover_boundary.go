package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"switchback/replication"
)

// around is how many records on either side of a mark are compared.
const around = 32

// boundaries checks each mark by comparing records around it (P18): the mark is not trusted. What does not match is named,
// and left alone.
func (p *recoveryPlan) boundaries(ctx context.Context) {
	p.mismatched = map[replication.Partition]string{}
	var look []int
	for i, m := range p.marks.Marks {
		e, ok := p.ends[m.Partition]
		_, there := p.there[m.Topic]
		switch {
		case p.anew[m.Topic] != "":
			p.mismatch(m.Partition, p.anew[m.Topic])
		case !ok || e.LogEnd == replication.Unknown || !there:
		case m.Boundary > e.LogEnd:
			p.mismatch(m.Partition, fmt.Sprintf("%s ends at offset %d, before the mark %d: the topic was made anew under its name, or cut", p.in.Route.From.Name, e.LogEnd, m.Boundary))
		default:
			look = append(look, i)
		}
	}
	if bounded, ok := p.link.(replication.Bounded); ok {
		p.follow(ctx, bounded, look)
	} else {
		p.compare(ctx, look)
	}
	for _, m := range p.marks.Marks {
		if why := p.mismatched[m.Partition]; why != "" {
			p.out.Mismatched = append(p.out.Mismatched, replication.Outcome{Name: m.Name(), Status: replication.Unclear, Reason: why})
		}
	}
	if len(p.out.Mismatched) == 0 {
		p.add("boundary", LevelOK, fmt.Sprintf("the marks of %d partitions are what the records around them say", len(look)), "")
	}
	p.out.Mismatched = p.out.Mismatched[:min(len(p.out.Mismatched), strandedShown)]
}

func (p *recoveryPlan) mismatch(at replication.Partition, why string) {
	if p.mismatched[at] == "" {
		p.mismatched[at] = why
	}
}

// follow has a link whose target has offsets of its own find the boundary once more. One that was left open when the
// cluster was fenced may be found now.
func (p *recoveryPlan) follow(ctx context.Context, link replication.Bounded, look []int) {
	marks := make([]replication.Mark, len(look))
	for j, i := range look {
		marks[j] = p.marks.Marks[i]
		marks[j].Boundary = replication.Unknown
	}
	if len(marks) == 0 {
		return
	}
	say(ctx, "comparing records around the marks of %d partitions", len(marks))
	found, err := link.Boundaries(ctx, marks)
	reasons := map[string]string{}
	if partial, some := errors.AsType[*replication.Partial](err); some {
		for _, o := range partial.Failed {
			reasons[o.Name] = o.Reason
		}
	}
	for j, i := range look {
		m := &p.marks.Marks[i]
		now := replication.Unknown
		if j < len(found) {
			now = found[j].Boundary
		}
		switch {
		case now == replication.Unknown:
			why := reasons[m.Name()]
			if why == "" {
				why = orErr("", errOr(err, "nothing was found"))
			}
			p.mismatch(m.Partition, "the records around the mark leave it open: "+why)
		case m.Boundary != replication.Unknown && m.Boundary != now:
			p.mismatch(m.Partition, fmt.Sprintf("the mark says that %s has everything before offset %d, the records say before offset %d", p.in.Route.To.Name, m.Boundary, now))
		default:
			m.Boundary = now
		}
	}
}

func errOr(err error, text string) error {
	if err != nil {
		return err
	}
	return errors.New(text)
}

// compare is for links that keep offsets: below the mark both clusters must have the same records at the same offsets, and
// the first one beyond it must not be the mirror's.
func (p *recoveryPlan) compare(ctx context.Context, look []int) {
	prefix := p.link.Prefix()
	var here, there []replication.Range
	for _, i := range look {
		m := p.marks.Marks[i]
		if m.Boundary == replication.Unknown {
			p.mismatch(m.Partition, "the mark says no offset, and the link cannot find it")
			continue
		}
		r := replication.Range{Partition: m.Partition, From: max(0, m.Boundary-around), To: min(m.Boundary+1, p.ends[m.Partition].LogEnd)}
		r.From = max(r.From, p.ends[m.Partition].Start)
		here = append(here, r)
		end, ok := p.present[m.Partition]
		if !ok || end.HighWatermark == replication.Unknown {
			p.mismatch(m.Partition, "the records around the mark could not be compared: "+p.in.Route.To.Name+" cannot say where the partition ends")
		}
		r.From, r.To, r.Topic = max(0, m.Boundary-around, end.Start), min(m.Boundary+1, end.HighWatermark), prefix+m.Topic
		there = append(there, r)
	}
	if len(here) == 0 {
		return
	}
	say(ctx, "comparing records around the marks of %d partitions", len(here))
	var old, present map[replication.Partition][]Print
	err := sideBySide(
		func() (err error) { old, err = p.copier.Prints(ctx, true, here); return err },
		func() (err error) { present, err = p.copier.Prints(ctx, false, there); return err },
	)
	reasons := map[string]string{}
	if partial, some := errors.AsType[*replication.Partial](err); some {
		for _, o := range partial.Failed {
			reasons[o.Name] = o.Reason
		}
	} else if err != nil {
		for _, r := range here {
			p.mismatch(r.Partition, "the records around the mark could not be compared: "+err.Error())
		}
		return
	}
	again := 0
	for i, r := range here {
		for _, name := range []string{r.Name(), there[i].Name()} {
			if why := reasons[name]; why != "" {
				p.mismatch(r.Partition, "the records around the mark could not be read: "+why)
			}
		}
		why, sentAgain := matches(markOf(p.marks.Marks, r.Partition), old[r.Partition], present[there[i].Partition])
		if why != "" {
			p.mismatch(r.Partition, why)
		} else if sentAgain {
			again++
		}
	}
	if again > 0 {
		p.add("sent again", LevelWarning, fmt.Sprintf("in %d partitions the first record that %s took after the switch has the content of the first stranded one: its producer has sent it again", again, p.in.Route.To.Name),
			"appending doubles what was sent again: use report or divert for those topics")
	}
}

func markOf(marks []replication.Mark, at replication.Partition) int64 {
	i := slices.IndexFunc(marks, func(m replication.Mark) bool { return m.Partition == at })
	return marks[i].Boundary
}

// matches holds the records of both clusters against a mark. Compaction and retention may have taken some on either side;
// those that both have must be equal.
func matches(mark int64, old, present []Print) (why string, sentAgain bool) {
	by := make(map[int64]Print, len(present))
	for _, r := range present {
		by[r.Offset] = r
	}
	for _, r := range old {
		other, both := by[r.Offset]
		switch {
		case !both:
		case r.Offset < mark && other.Sum != r.Sum:
			return fmt.Sprintf("the record at offset %d, before the mark %d, is another one on each cluster: one of the topics was made anew, or written to before the mirror stopped", r.Offset, mark), false
		case r.Offset == mark && other == r:
			return fmt.Sprintf("the record at the mark %d itself is on both clusters, with the same time: the mirror had come farther than its mark", mark), false
		case r.Offset == mark && other.Sum == r.Sum:
			sentAgain = true
		}
	}
	return "", sentAgain
}
