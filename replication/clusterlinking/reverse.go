package clusterlinking

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"switchback/internal/fault"
	"switchback/internal/rest"
	"switchback/replication"
)

var (
	_ replication.Reverser  = (*Link)(nil)
	_ replication.Rebuilder = (*Link)(nil)
)

// PreviewRestore asks with validate_only what truncate-and-restore would take. An answer whose parts do not add up to its
// sum, or that has no sum, is Unclear: nobody may approve a loss that is not known.
func (l *Link) PreviewRestore(ctx context.Context, topics []string) ([]replication.Cut, error) {
	topics = uniq(topics)
	cuts := make([]replication.Cut, 0, len(topics))
	for from := 0; from < len(topics); from += l.batch {
		part := topics[from:min(from+l.batch, len(topics))]
		answers, err := l.client.Alter(ctx, l.name, ActionTruncate, part, true)
		if err != nil {
			return nil, err
		}
		for _, t := range part {
			cuts = append(cuts, cut(t, answers))
		}
	}
	return cuts, nil
}

func cut(topic string, answers []Altered) replication.Cut {
	c := replication.Cut{Topic: topic, Status: replication.Unclear, Reason: "the answer does not mention the topic", Records: replication.Unknown}
	for _, a := range answers {
		if a.Topic != topic {
			continue
		}
		if !a.Accepted {
			c.Status, c.Reason = replication.Failed, fmt.Sprintf("%s (code %d)", a.Message, a.Code)
			return c
		}
		sum := int64(0)
		c.Partitions = nil
		for _, p := range a.ByPart {
			if p.Records == 0 {
				continue
			}
			c.Partitions = append(c.Partitions, replication.Truncation{Partition: p.Partition, From: p.Offset, Records: p.Records})
			if p.Records < 0 || p.Offset < 0 {
				sum = replication.Unknown
			}
			if sum >= 0 {
				sum += p.Records
			}
		}
		slices.SortFunc(c.Partitions, func(x, y replication.Truncation) int { return int(x.Partition) - int(y.Partition) })
		c.Records = a.Truncated
		c.Status, c.Reason = replication.OK, ""
		if a.Truncated < 0 || sum != a.Truncated {
			c.Status = replication.Unclear
			c.Reason = fmt.Sprintf("the link says that %s records go, and its partitions add up to %s", count(a.Truncated), count(sum))
		}
	}
	return c
}

func count(n int64) string {
	if n < 0 {
		return "an unknown number of"
	}
	return fmt.Sprint(n)
}

// Restore asks for truncate-and-restore of the topics, if that still takes exactly what was approved.
func (l *Link) Restore(ctx context.Context, approved []replication.Cut) ([]replication.Outcome, error) {
	var topics []string
	for _, c := range approved {
		if c.Status != replication.OK {
			return nil, invalid(fmt.Sprintf("what restoring %s would take is not known: %s", c.Topic, c.Reason), "preview it again; only what is known can be approved")
		}
		topics = append(topics, c.Topic)
	}
	mirrors, err := l.byTopic(ctx)
	if err != nil {
		return nil, err
	}
	// What an earlier attempt had asked for needs no preview: its topics are mirrors now, and the service would refuse.
	var out []replication.Outcome
	var left []string
	for _, t := range uniq(topics) {
		switch m := mirrors[t]; m.State {
		case replication.MirrorActive, replication.MirrorPaused:
			out = append(out, replication.Outcome{Name: t, Status: replication.OK, Reason: "it is a mirror already"})
		case replication.MirrorStarting:
			out = append(out, replication.Outcome{Name: t, Status: replication.Pending, Reason: m.Raw})
		default:
			left = append(left, t)
		}
	}
	if len(left) == 0 {
		return out, nil
	}
	now, err := l.PreviewRestore(ctx, left)
	if err != nil {
		return out, err
	}
	var differ []string
	for _, c := range now {
		i := slices.IndexFunc(approved, func(a replication.Cut) bool { return a.Topic == c.Topic })
		if !approved[i].Equal(c) {
			differ = append(differ, fmt.Sprintf("approved was %s; now %s", approved[i], c))
		}
	}
	if len(differ) > 0 {
		return out, fault.Hint(fmt.Errorf("restore %d topics: %w: %s", len(left), fault.ErrConflict, strings.Join(differ, "; ")),
			"nothing was truncated; recover what is new, and have the new preview approved")
	}
	asked, err := l.alter(ctx, ActionTruncate, left, false, func(m replication.Mirror) (replication.Status, string) {
		switch m.State {
		case replication.MirrorActive, replication.MirrorPaused:
			return replication.OK, "it is a mirror already"
		case replication.MirrorStarting:
			return replication.Pending, m.Raw
		}
		return replication.Failed, ""
	})
	return append(out, asked...), err
}

// ValidateReverse asks with validate_only.
func (l *Link) ValidateReverse(ctx context.Context, topics []string) ([]replication.Outcome, error) {
	return l.alter(ctx, ActionReverseAndStart, topics, true, reversed)
}

// Reverse asks for reverse-and-start-mirror.
func (l *Link) Reverse(ctx context.Context, topics []string) ([]replication.Outcome, error) {
	return l.alter(ctx, ActionReverseAndStart, topics, false, reversed)
}

// reversed judges a refusal by the mirror's state on this side. A mirror that is stopped may have been promoted instead: the
// other direction's mirrors tell.
func reversed(m replication.Mirror) (replication.Status, string) {
	switch {
	case m.State == replication.MirrorStopped:
		return replication.Unclear, "it is stopped already; whether it was reversed the mirrors of the other direction say"
	case m.Raw == "PENDING_SYNCHRONIZE":
		return replication.Pending, "it is being reversed already"
	}
	return replication.Failed, ""
}

// alter asks for an action in as many requests as it takes, and judges what was refused by the mirrors' states.
func (l *Link) alter(ctx context.Context, action Action, topics []string, validateOnly bool, refusedOf func(replication.Mirror) (replication.Status, string)) ([]replication.Outcome, error) {
	out, failed := l.ask(ctx, action, uniq(topics), validateOnly)
	return l.resolve(ctx, out, refusedOf), failed
}

// byTopic are the link's mirrors by their names on the target.
func (l *Link) byTopic(ctx context.Context) (map[string]replication.Mirror, error) {
	list, err := l.Mirrors(ctx)
	if err != nil {
		return nil, err
	}
	m := make(map[string]replication.Mirror, len(list))
	for _, one := range list {
		m[one.Topic] = one
	}
	return m, nil
}

// Dependents looks at every link of the cluster: those of others that name a topic, and mirrors whose stop is under way.
func (l *Link) Dependents(ctx context.Context, topics []string) (out []replication.Outcome, err error) {
	links, err := l.client.links(ctx)
	if err != nil {
		return nil, err
	}
	for _, w := range links {
		name := string(w.Name)
		mirrors, err := l.client.Mirrors(ctx, name)
		if err != nil {
			return nil, err
		}
		for _, t := range topics {
			i := slices.IndexFunc(mirrors, func(m replication.Mirror) bool { return m.Topic == t })
			switch {
			case i >= 0 && mirrors[i].State == replication.MirrorStopping:
				out = append(out, replication.Outcome{Name: t, Status: replication.Failed, Reason: "its mirror of link " + name + " is " + mirrors[i].Raw})
			case i >= 0 && name != l.name && mirrors[i].State != replication.MirrorStopped:
				out = append(out, replication.Outcome{Name: t, Status: replication.Failed, Reason: "it is a mirror of link " + name})
			case i < 0 && name != l.name && slices.Contains(w.Topics, text(t)):
				out = append(out, replication.Outcome{Name: t, Status: replication.Failed, Reason: "it is mirrored elsewhere by link " + name})
			}
		}
	}
	return out, nil
}

// Pause asks for mirrors to be paused, or resumed.
func (l *Link) Pause(ctx context.Context, topics []string, on bool) ([]replication.Outcome, error) {
	action, there := ActionResume, replication.MirrorActive
	if on {
		action, there = ActionPause, replication.MirrorPaused
	}
	return l.alter(ctx, action, topics, false, func(m replication.Mirror) (replication.Status, string) {
		if m.State == there {
			return replication.OK, "it is so already"
		}
		return replication.Failed, ""
	})
}

// noTopic is the service's code for a topic that it does not have.
const noTopic = 40403

// DeleteTopics deletes topics one by one. Brokers take their time to forget one.
func (l *Link) DeleteTopics(ctx context.Context, topics []string) ([]replication.Outcome, error) {
	return l.oneByOne(ctx, topics, func(topic string) (replication.Status, string, error) {
		err := l.client.DeleteTopic(ctx, topic)
		switch e, ok := rest.AsError(err); {
		case ok && e.Code == noTopic: // another 404 is about the cluster, or the path
			return replication.OK, "it is not there", nil
		case err != nil:
			return replication.Failed, "", err
		}
		return replication.Pending, "asked for", nil
	})
}

// CreateMirrors makes mirrors one by one, as the service has it.
func (l *Link) CreateMirrors(ctx context.Context, topics []string) ([]replication.Outcome, error) {
	return l.oneByOne(ctx, topics, func(topic string) (replication.Status, string, error) {
		err := l.client.CreateMirror(ctx, l.name, NewMirror{SourceTopic: topic})
		if err == nil {
			return replication.Pending, "asked for", nil
		}
		if !errors.Is(err, fault.ErrConflict) && !errors.Is(err, fault.ErrUnclear) && !errors.Is(err, fault.ErrInvalid) {
			return replication.Failed, "", err
		}
		m, unread := l.client.Mirror(ctx, l.name, topic)
		switch {
		case unread == nil && m.State == replication.MirrorActive:
			return replication.OK, "it is there already", nil
		case unread == nil && m.State == replication.MirrorStarting:
			return replication.Pending, m.Raw, nil
		case unread == nil && m.State == replication.MirrorStopped:
			return replication.Failed, "", fault.Hint(err, "the topic was a mirror and is one no more; it has to be restored, or deleted, before it can be mirrored again")
		}
		return replication.Failed, "", err
	})
}

// oneByOne does for each topic what the service has a request of its own for. A topic that fails leaves the others alone; an
// endpoint that is out of reach ends it.
func (l *Link) oneByOne(ctx context.Context, topics []string, do func(topic string) (replication.Status, string, error)) ([]replication.Outcome, error) {
	topics = uniq(topics)
	out := make([]replication.Outcome, 0, len(topics))
	for i, t := range topics {
		status, reason, err := do(t)
		switch {
		case errors.Is(err, fault.ErrUnreachable), errors.Is(err, fault.ErrUnauthenticated), err != nil && ctx.Err() != nil:
			return append(out, outcomes(topics[i:], replication.Failed, "not asked for: an earlier request failed")...), err
		case errors.Is(err, fault.ErrUnclear):
			status, reason = replication.Unclear, err.Error()
		case err != nil:
			status, reason = replication.Failed, err.Error()
		}
		out = append(out, replication.Outcome{Name: t, Status: status, Reason: reason})
	}
	return out, nil
}
