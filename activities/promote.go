package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"switchback/internal/fault"
	"switchback/internal/killpoint"
	"switchback/replication"
)

// Mirrors stops mirrors and keeps their marks.
type Mirrors struct{ Outside }

// PromoteResult lists the topics that needed more than a promote.
type PromoteResult struct {
	Acted
	Topics     int      `json:"topics"`
	FailedOver []string `json:"failedOver,omitempty"` // promote hung; lossless, because equality was proven
	Copied     int      `json:"copied,omitempty"`     // DENY ACLs of ours that ACL sync had copied, removed (P34)
	Text       string   `json:"text"`
}

// mirrorEvery is the pause between two looks at the mirrors' states.
const mirrorEvery = 50 * time.Millisecond

// Promote looks once more for quiescence and copied fences, asks with validate_only for all topics, then promotes and
// waits until each is stopped (P7, P15, P16, P34). TypePromoteRefused means that nothing was sent; every other error
// lies past the point of no return.
func (a *Mirrors) Promote(ctx context.Context, in WaitInput) (out PromoteResult, err error) {
	ctx, out.Acted = begin(ctx)
	r, err := a.opened(ctx, in.Guard, in.Route)
	if err != nil {
		return out, refused(out.Acted, err)
	}
	defer r.close()
	scope, err := r.records.scope(ctx, in.Guard.Run.ID())
	if err != nil {
		return out, refused(out.Acted, err)
	}
	topics := scope.TopicNames()
	out.Topics = len(topics)
	states, err := mirrorStates(ctx, r.link, topics)
	if err != nil {
		return out, refused(out.Acted, err)
	}
	if !anyStopping(states) { // an attempt before this one may have sent already: then only the state counts
		if err := a.ready(ctx, r, scope); err != nil {
			return out, refused(out.Acted, err)
		}
		killpoint.Reach("Promote/before-sent")
		if err := a.send(ctx, r, replication.Promote, topics); err != nil {
			return out, err
		}
		out.Changed = true
	}
	killpoint.Reach("Promote/middle")
	if err := a.stopped(ctx, r, in.Deadline, topics, &out); err != nil {
		return out, err
	}
	if out.Copied, err = dropCopies(ctx, r, in.Guard.Run.Runbook); err != nil {
		return out, err
	}
	out.Text = fmt.Sprintf("%d mirrors stopped: normal topics of %s now", out.Topics, in.Route.To.Name)
	if len(out.FailedOver) > 0 {
		out.Text += fmt.Sprintf("; %d of them by failover, because promote hung: lossless, equality was proven", len(out.FailedOver))
	}
	return out, nil
}

// refused types an error from before anything was sent. Where an earlier attempt was lost sight of it may have sent.
func refused(acted Acted, err error) error {
	if acted.Attempt > 1 || errors.Is(err, fault.ErrStale) || !final(err) {
		return err
	}
	return fmt.Errorf("nothing was promoted: %w; %w", err, errPromoteRefused)
}

// ready is the last look before the point of no return: still quiescent, still equal, and validate_only says yes for
// every topic.
func (a *Mirrors) ready(ctx context.Context, r *route, scope Scope) error {
	first, err := r.from.Ends(ctx, scope.TopicNames())
	if err != nil {
		return wrap("read the ends of "+r.names.From.Name, err)
	}
	var second []replication.Ends
	var drained, valid []replication.Outcome
	err = sideBySide(
		func() (err error) { second, err = r.from.Ends(ctx, scope.TopicNames()); return err },
		func() (err error) { drained, err = r.link.Drained(ctx, first); return err },
		func() (err error) {
			valid, err = r.link.ValidateStop(ctx, replication.Promote, scope.TopicNames())
			return err
		},
	)
	if err != nil {
		return wrap("look once more before the promote", err)
	}
	if q := replication.Quiescent(first, second); !q.Quiet() {
		_, text := notOK(q.Not)
		return fmt.Errorf("%s is written to again: %s: %w", r.names.From.Name, text, errStillWriting)
	}
	if behind, text := notOK(drained); len(behind) > 0 {
		return fmt.Errorf("%s is behind again: %s: %w", r.names.To.Name, text, fault.ErrInvalid)
	}
	if bad, text := notOK(valid); len(bad) > 0 {
		return fmt.Errorf("the link would not promote: %s: %w", text, fault.ErrInvalid)
	}
	return nil
}

// send asks once. An unclear outcome is no error here: the states decide (never repeat blindly).
func (a *Mirrors) send(ctx context.Context, r *route, kind replication.StopKind, topics []string) error {
	wctx, cancel, err := writing(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	_, err = r.link.Stop(wctx, kind, topics) // item errors show in the states, which is where they are judged
	if errors.Is(err, fault.ErrUnclear) {
		return nil
	}
	return wrap("ask the link to "+string(kind), err)
}

// stopped waits until each mirror is stopped. A topic whose promote was not taken is asked again; one that still hangs
// when half of the time is over gets a failover, which loses nothing because equality was proven (P15).
func (a *Mirrors) stopped(ctx context.Context, r *route, deadline time.Time, topics []string, out *PromoteResult) error {
	half := time.Now().Add(time.Until(deadline) / 2)
	asked := time.Now()
	return until(ctx, deadline, mirrorEvery, func(ctx context.Context) (bool, string, error) {
		states, err := mirrorStates(ctx, r.link, topics)
		if err != nil {
			return false, "", err
		}
		var waiting, again []string
		for _, topic := range topics {
			m := states[topic]
			if m.State == replication.MirrorStopped {
				continue
			}
			waiting = append(waiting, fmt.Sprintf("%s: %s %s", topic, m.Raw, m.Reason))
			if m.State != replication.MirrorStopping {
				again = append(again, topic)
			}
		}
		switch {
		case len(waiting) == 0:
			return true, "", nil
		case time.Now().After(half) && len(out.FailedOver) == 0:
			out.FailedOver = notStopped(states, topics)
			asked = time.Now()
			return false, "failover of " + strings.Join(out.FailedOver, ", "), a.sendLate(ctx, r, replication.Failover, out.FailedOver)
		case len(again) > 0 && time.Since(asked) > askAgain && len(out.FailedOver) == 0:
			asked = time.Now()
			return false, "promote of " + strings.Join(again, ", "), a.sendLate(ctx, r, replication.Promote, again)
		}
		return false, fmt.Sprintf("%d mirrors to stop: %s", len(waiting), strings.Join(waiting[:min(len(waiting), 5)], "; ")), nil
	})
}

// askAgain is how long a topic may show no sign of a promote before it is asked again.
const askAgain = time.Second

// sendLate asks again past the time for the first writes of the attempt: stopping a mirror that is to be stopped is
// wanted however late it arrives, because this lies past the point of no return.
func (a *Mirrors) sendLate(ctx context.Context, r *route, kind replication.StopKind, topics []string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), WriteDeadline)
	defer cancel()
	_, err := r.link.Stop(ctx, kind, topics)
	if errors.Is(err, fault.ErrUnclear) {
		return nil
	}
	return err
}

func mirrorStates(ctx context.Context, link replication.Link, topics []string) (map[string]replication.Mirror, error) {
	mirrors, err := link.Mirrors(ctx)
	if err != nil {
		return nil, wrap("read the mirrors", err)
	}
	states := make(map[string]replication.Mirror, len(topics))
	for _, m := range mirrors {
		if slices.Contains(topics, m.SourceTopic) || slices.Contains(topics, m.Topic) {
			states[m.Topic] = m
		}
	}
	for _, topic := range topics {
		if _, ok := states[topic]; !ok {
			states[topic] = replication.Mirror{Topic: topic, State: replication.MirrorUnknown, Raw: "no mirror of this topic", Reason: "on the link"}
		}
	}
	return states, nil
}

func anyStopping(states map[string]replication.Mirror) bool {
	for _, m := range states {
		if m.State == replication.MirrorStopping || m.State == replication.MirrorStopped {
			return true
		}
	}
	return false
}

func notStopped(states map[string]replication.Mirror, topics []string) []string {
	return slices.DeleteFunc(slices.Clone(topics), func(t string) bool { return states[t].State == replication.MirrorStopped })
}

// dropCopies removes copies of the runbook's fence that ACL sync made on the target, now that no cycle can be under way
// any more (P5, P34). Only what the runbook owns on the source is looked for.
func dropCopies(ctx context.Context, r *route, runbook string) (int, error) {
	owned, err := r.records.owned(ctx, runbook, r.names.From.Name)
	if err != nil {
		return 0, err
	}
	own, err := r.records.owned(ctx, runbook, r.names.To.Name)
	if err != nil {
		return 0, err
	}
	stand, err := r.to.ACLs(ctx)
	if err != nil {
		return 0, wrap("read the ACLs of "+r.names.To.Name, err)
	}
	var copies []replication.ACL
	for _, acl := range stand {
		if slices.Contains(owned.ACLs, acl) && !slices.Contains(own.ACLs, acl) {
			copies = append(copies, acl)
		}
	}
	if len(copies) == 0 {
		return 0, nil
	}
	wctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), WriteDeadline)
	defer cancel()
	if err := r.to.DeleteACLs(wctx, copies); err != nil {
		return 0, wrap("remove copies of the fence from "+r.names.To.Name, err)
	}
	_, err = everyBroker(ctx, r.to, copies, false)
	return len(copies), wrap("read back that no copy of the fence stands on "+r.names.To.Name, err)
}
