package clusterlinking

import (
	"context"
	"errors"
	"fmt"

	"switchback/internal/fault"
	"switchback/replication"
)

var stopActions = map[replication.StopKind]Action{replication.Promote: ActionPromote, replication.Failover: ActionFailover}

// ValidateStop asks with validate_only. OK for topics that would be accepted, or are stopped already.
func (l *Link) ValidateStop(ctx context.Context, kind replication.StopKind, topics []string) ([]replication.Outcome, error) {
	return l.stop(ctx, kind, topics, true)
}

// Stop asks for the mirrors to be stopped. An accepted topic is Pending, never OK; OK is said only of a topic that the
// service refused to stop and that was then read as stopped. Topics missing in the answer are Unclear.
//
// Many topics go in several requests. When one fails, those before it were asked for: the outcomes say which, next to
// the error.
func (l *Link) Stop(ctx context.Context, kind replication.StopKind, topics []string) ([]replication.Outcome, error) {
	return l.stop(ctx, kind, topics, false)
}

func (l *Link) stop(ctx context.Context, kind replication.StopKind, topics []string, validateOnly bool) ([]replication.Outcome, error) {
	action, ok := stopActions[kind]
	if !ok {
		return nil, invalid(fmt.Sprintf("%q is no way to stop a mirror", kind), "use promote or failover")
	}
	out, failed := l.ask(ctx, action, uniq(topics), validateOnly)
	return l.resolve(ctx, out, stoppedAlready), failed
}

// ask sends the requests of an action. What the service refused is still to be judged, see resolve.
func (l *Link) ask(ctx context.Context, action Action, topics []string, validateOnly bool) (out []replication.Outcome, failed error) {
	for from := 0; from < len(topics); from += l.batch {
		part := topics[from:min(from+l.batch, len(topics))]
		if failed != nil {
			out = append(out, outcomes(part, replication.Failed, "not asked for: an earlier request failed")...)
			continue
		}
		answers, err := l.client.Alter(ctx, l.name, action, part, validateOnly)
		if err != nil {
			failed = err
			status, reason := replication.Failed, "the request was refused"
			if errors.Is(err, fault.ErrUnclear) || validateOnly && errors.Is(err, fault.ErrUnreachable) {
				status, reason = replication.Unclear, "no answer; read the mirror's state"
			}
			out = append(out, outcomes(part, status, reason)...)
			continue
		}
		out = append(out, judge(part, answers, validateOnly)...)
	}
	return out, failed
}

func outcomes(topics []string, s replication.Status, reason string) (out []replication.Outcome) {
	for _, t := range topics {
		out = append(out, replication.Outcome{Name: t, Status: s, Reason: reason})
	}
	return out
}

// refused marks an outcome whose state is still to be read.
const refused replication.Status = "refused"

func judge(topics []string, answers []Altered, validateOnly bool) []replication.Outcome {
	said := map[string]Altered{}
	for _, a := range answers {
		if before, ok := said[a.Topic]; !ok || before.Accepted { // of two answers the worse counts
			said[a.Topic] = a
		}
	}
	out := make([]replication.Outcome, 0, len(topics))
	for _, t := range topics {
		a, ok := said[t]
		o := replication.Outcome{Name: t}
		switch {
		case !ok:
			o.Status, o.Reason = replication.Unclear, "the answer does not mention the topic; read the mirror's state"
		case !a.Accepted:
			o.Status, o.Reason = refused, fmt.Sprintf("%s (code %d)", a.Message, a.Code)
		case validateOnly:
			o.Status = replication.OK
		default:
			o.Status, o.Reason = replication.Pending, "accepted"
		}
		out = append(out, o)
	}
	return out
}

// resolve judges refusals by the mirrors' states: "already done" has many wordings and one state. of says what a state means for
// what was asked; of a failure the mirror says why.
func (l *Link) resolve(ctx context.Context, out []replication.Outcome, of func(replication.Mirror) (replication.Status, string)) []replication.Outcome {
	var mirrors map[string]replication.Mirror
	var unread error
	for i := range out {
		o := &out[i]
		if o.Status != refused {
			continue
		}
		if mirrors == nil && unread == nil {
			mirrors, unread = l.byTopic(ctx)
		}
		if unread != nil {
			o.Status, o.Reason = replication.Unclear, o.Reason+"; its state could not be read"
			continue
		}
		m := mirrors[o.Name]
		status, reason := of(m)
		if o.Status = status; status != replication.Failed {
			o.Reason = reason
		} else if m.Reason != "" {
			o.Reason += "; the mirror says " + m.Reason
		}
	}
	return out
}

func stoppedAlready(m replication.Mirror) (replication.Status, string) {
	switch m.State {
	case replication.MirrorStopped:
		return replication.OK, "stopped already"
	case replication.MirrorStopping:
		return replication.Pending, "stopping already"
	}
	return replication.Failed, ""
}
