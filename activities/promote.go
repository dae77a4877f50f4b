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
	Stranded   []string `json:"stranded,omitempty"`   // records that the source took behind the fence and the stop (P7, P23)
	Copied     int      `json:"copied,omitempty"`     // DENY ACLs of ours that ACL sync had copied, removed (P34)
	Text       string   `json:"text"`
}

// mirrorEvery is the pause between two looks at the mirrors' states.
const mirrorEvery = 50 * time.Millisecond

// Promote looks once more for quiescence and copied fences, asks with validate_only for all topics, then promotes and
// waits until each is stopped (P7, P15, P16, P34); a backend that is sealed is denied instead. TypePromoteRefused means that nothing was sent; every other error
// lies past the point of no return.
func (a *Mirrors) Promote(ctx context.Context, in WaitInput) (out PromoteResult, err error) {
	ctx, out.Acted = begin(ctx)
	r, scope, sent, err := a.lastLook(ctx, in)
	if err != nil {
		return out, refused(out.Acted, err)
	}
	defer r.close()
	topics := scope.TopicNames()
	out.Topics = len(topics)
	if !r.link.StopIsFinal() {
		return out, a.seal(ctx, r, in, scope, &out)
	}
	if !sent {
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
	err = sideBySide(
		func() (err error) { out.Stranded, err = behindTheStop(ctx, r, topics); return err },
		func() (err error) { out.Copied, err = a.dropCopies(ctx, r, in.Guard); return err },
	)
	if err != nil {
		return out, err
	}
	out.Text = fmt.Sprintf("%d mirrors stopped: normal topics of %s now", out.Topics, in.Route.To.Name)
	if len(out.FailedOver) > 0 {
		out.Text += fmt.Sprintf("; %d of them by failover, because promote hung: lossless, equality was proven", len(out.FailedOver))
	}
	if len(out.Stranded) > 0 {
		out.Text += fmt.Sprintf("; %s was written to behind the fence and behind the stop, these records are stranded there: %s", in.Route.From.Name, firstFew(out.Stranded))
	}
	return out, nil
}

// lastLook does all that comes before anything is sent. What may pass is tried again here, for half of the time: once an
// attempt was lost sight of it may have sent, and then nobody can say any more that nothing was. sent says that an
// earlier attempt had sent already: then only the mirrors' states count.
func (a *Mirrors) lastLook(ctx context.Context, in WaitInput) (r *route, scope Scope, sent bool, err error) {
	half := time.Now().Add(time.Until(in.Deadline) / 2)
	err = until(ctx, half, mirrorEvery, func(ctx context.Context) (bool, string, error) {
		if r != nil {
			r.close()
			r = nil
		}
		opened, err := a.opened(ctx, in.Guard, in.Route)
		if err != nil {
			return false, "", err
		}
		r = opened
		if scope, err = r.records.scope(ctx, in.Guard.Run.ID()); err != nil {
			return false, "", err
		}
		if !r.link.StopIsFinal() {
			return true, "", nil // a seal can be taken back: it looks by itself
		}
		states, err := mirrorStates(ctx, r.link, scope.TopicNames())
		if err != nil {
			return false, "", err
		}
		if sent = anyStopping(states); sent {
			return true, "", nil
		}
		if err := a.ready(ctx, r, scope, states); err != nil {
			return false, "", err
		}
		return true, "", a.check(ctx, in.Guard)
	})
	if err != nil && r != nil {
		r.close()
	}
	return r, scope, sent, err
}

// refused types an error from before anything was sent. Where an earlier attempt was lost sight of it may have sent.
func refused(acted Acted, err error) error {
	if acted.Attempt > 1 || errors.Is(err, fault.ErrStale) || !final(err) {
		return err
	}
	return fmt.Errorf("nothing was promoted: %w; %w", err, errPromoteRefused)
}

// ready is the last look before the point of no return: every mirror active, the source still quiescent, the target
// still equal, and validate_only says yes for every topic. What is unknown may be known in a moment and is tried again.
func (a *Mirrors) ready(ctx context.Context, r *route, scope Scope, states map[string]replication.Mirror) error {
	for _, topic := range scope.TopicNames() {
		if m := states[topic]; m.State != replication.MirrorActive {
			return fmt.Errorf("the mirror of %s is %s (%s %s), only an active one can be promoted: %w", topic, m.State, m.Raw, m.Reason, fault.ErrInvalid)
		}
	}
	first, err := r.from.Ends(ctx, scope.TopicNames())
	if err != nil {
		return wrap("read the ends of "+r.names.From.Name, err)
	}
	var second []replication.Ends
	var drained, valid []replication.Outcome
	err = sideBySide(
		func() (err error) { second, err = r.from.Ends(ctx, scope.TopicNames()); return err },
		func() (err error) { drained, err = r.link.Drained(ctx, first); return err },
		func() error { return aclSyncIsOff(ctx, r) }, // it would copy the fence again and again to where clients start (P5)
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
		if len(q.Not) > 0 && len(only(q.Not, replication.Pending)) == 0 {
			return fmt.Errorf("%s cannot be seen whole: %s: %w", r.names.From.Name, text, fault.ErrNotReady)
		}
		return fmt.Errorf("%s is written to again: %s: %w", r.names.From.Name, text, errStillWriting)
	}
	if err := allOK(drained, len(first), r.names.To.Name+" is behind again"); err != nil {
		return err
	}
	return allOK(valid, len(scope.Topics), "the link would not promote")
}

// allOK fails for good when one of the outcomes is bad, and for now when one is unknown or missing.
func allOK(outcomes []replication.Outcome, count int, what string) error {
	bad, text := notOK(outcomes)
	switch {
	case len(bad) == 0 && len(outcomes) == count:
		return nil
	case len(bad) == 0:
		return fmt.Errorf("%s: %d of %d answers: %w", what, len(outcomes), count, fault.ErrNotReady)
	case len(only(bad, replication.Unclear)) == len(bad):
		return fmt.Errorf("%s: %s: %w", what, text, fault.ErrNotReady)
	}
	return fmt.Errorf("%s: %s: %w", what, text, fault.ErrInvalid)
}

// send asks once. An unclear outcome is no error here: the states decide (never repeat blindly). Its deadline is counted
// from now: a stop that was asked for is wanted however late it arrives, because nothing is rolled back once an attempt
// that may have sent was lost sight of.
func (a *Mirrors) send(ctx context.Context, r *route, kind replication.StopKind, topics []string) error {
	return a.sendWithin(ctx, r, kind, topics, WriteDeadline)
}

// sendWithin is send that waits no longer than this for an answer.
func (a *Mirrors) sendWithin(ctx context.Context, r *route, kind replication.StopKind, topics []string, within time.Duration) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), within)
	defer cancel()
	_, err := r.link.Stop(ctx, kind, topics) // item errors show in the states, which is where they are judged
	if errors.Is(err, fault.ErrUnclear) {
		return nil
	}
	return wrap("ask the link to "+string(kind), err)
}

// askAgain is how long a topic may show no sign of a request before it is asked again.
const askAgain = time.Second

// stopped waits until each mirror is stopped. A topic that is still active was not asked, and is asked again; one that
// hangs when half of the time is over gets a failover, once it was proven again that nothing is lost by it (P15). A
// mirror in a state that nobody knows is never acted upon.
func (a *Mirrors) stopped(ctx context.Context, r *route, deadline time.Time, topics []string, out *PromoteResult) error {
	half := time.Now().Add(time.Until(deadline) / 2)
	asked := time.Now()
	return until(ctx, deadline, mirrorEvery, func(ctx context.Context) (bool, string, error) {
		states, err := mirrorStates(ctx, r.link, topics)
		if err != nil {
			return false, "", err
		}
		var waiting, active, hang []string
		for _, topic := range topics {
			m := states[topic]
			if m.State == replication.MirrorStopped {
				continue
			}
			waiting = append(waiting, fmt.Sprintf("%s: %s %s", topic, m.Raw, m.Reason))
			if m.State == replication.MirrorActive {
				active = append(active, topic)
			}
			if m.State != replication.MirrorUnknown && !slices.Contains(out.FailedOver, topic) {
				hang = append(hang, topic)
			}
		}
		text := toStop(waiting)
		switch again := time.Since(asked) > askAgain; {
		case len(waiting) == 0:
			return true, "", nil
		case again && time.Now().After(half) && len(hang)+len(active) > 0:
			if len(hang) == 0 {
				hang = active // its failover left no sign
			}
			if err := equal(ctx, r, hang); err != nil {
				return false, "", err
			}
			asked = time.Now()
			if err := a.send(ctx, r, replication.Failover, hang); err != nil {
				return false, "", err
			}
			out.FailedOver = append(out.FailedOver, slices.DeleteFunc(hang, func(t string) bool { return slices.Contains(out.FailedOver, t) })...)
		case again && time.Now().Before(half) && len(active) > 0:
			asked = time.Now()
			if err := a.send(ctx, r, replication.Promote, active); err != nil {
				return false, "", err
			}
		}
		return false, text, nil
	})
}

// toStop says which mirrors are waited for.
func toStop(waiting []string) string {
	return fmt.Sprintf("%d mirrors to stop: %s", len(waiting), strings.Join(waiting[:min(len(waiting), 5)], "; "))
}

// equal proves that a failover of the topics loses nothing.
func equal(ctx context.Context, r *route, topics []string) error {
	ends, err := r.from.Ends(ctx, topics)
	if err != nil {
		return wrap("read the ends of "+r.names.From.Name+" before a failover", err)
	}
	outcomes, err := r.link.Drained(ctx, ends)
	if err != nil {
		return wrap("compare both clusters before a failover", err)
	}
	if bad, text := notOK(outcomes); len(bad) > 0 || len(outcomes) != len(ends) {
		return fmt.Errorf("a failover would lose records, so none is asked for: %s: %w", text, fault.ErrNotReady)
	}
	return nil
}

// behindTheStop looks once more after the mirrors stopped: what the source has beyond the target was acknowledged behind
// the fence, and no mirror will bring it (P7). That is named, because from here there is only forward (P23).
func behindTheStop(ctx context.Context, r *route, topics []string) ([]string, error) {
	var from, to []replication.Ends
	err := sideBySide(
		func() (err error) { from, err = r.from.Ends(ctx, topics); return err },
		func() (err error) { to, err = r.to.Ends(ctx, topics); return err },
	)
	if err != nil {
		return nil, wrap("look once more after the promote", err)
	}
	at := make(map[replication.Partition]int64, len(to))
	for _, e := range to {
		at[e.Partition] = e.HighWatermark
	}
	var stranded []string
	for _, e := range from {
		if n := max(e.LogEnd, e.HighWatermark) - at[e.Partition]; n > 0 {
			stranded = append(stranded, fmt.Sprintf("%d records of %s from offset %d", n, e.Name(), at[e.Partition]))
		}
	}
	return stranded, nil
}

func mirrorStates(ctx context.Context, link replication.Link, topics []string) (map[string]replication.Mirror, error) {
	mirrors, err := link.Mirrors(ctx)
	if err != nil {
		return nil, wrap("read the mirrors", err)
	}
	wanted := make(map[string]bool, len(topics))
	for _, topic := range topics {
		wanted[topic] = true
	}
	states := make(map[string]replication.Mirror, len(topics))
	for _, m := range mirrors {
		switch { // a mirror is known by its name on the source
		case wanted[m.SourceTopic]:
			states[m.SourceTopic] = m
		case wanted[m.Topic]:
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

// copies are DENYs that the runbook owns on the source and that stand on the target without being its own there.
func copies(ctx context.Context, r *route, runbook string) ([]replication.ACL, error) {
	var owned, own OwnedACLs
	var stand []replication.ACL
	err := sideBySide(
		func() (err error) { owned, err = r.records.owned(ctx, runbook, r.names.From.Name); return err },
		func() (err error) { own, err = r.records.owned(ctx, runbook, r.names.To.Name); return err },
		func() (err error) {
			stand, err = r.to.ACLs(ctx)
			return wrap("read the ACLs of "+r.names.To.Name, err)
		},
	)
	if err != nil {
		return nil, err
	}
	foreign := replication.Missing(replication.Prefixed(r.link.Prefix(), owned.ACLs), own.ACLs)
	return replication.Missing(foreign, replication.Missing(foreign, stand)), nil
}

// dropCopies removes copies of the runbook's fence that ACL sync made on the target, now that no cycle can be under way
// any more (P5, P34). Only what the runbook owns on the source is looked for.
func (o Outside) dropCopies(ctx context.Context, r *route, g Guard) (int, error) {
	list, err := copies(ctx, r, g.Run.Runbook)
	if err != nil || len(list) == 0 {
		return 0, err
	}
	if err := o.check(ctx, g); err != nil {
		return 0, err
	}
	return len(list), dropACLs(ctx, r.to, r.names.To.Name, fenceCopy, list)
}

const fenceCopy = "a copy of the fence"

// dropACLs removes ACLs, and reads back from every broker that they are gone. Of none it asks nothing.
func dropACLs(ctx context.Context, on Kafka, site, what string, list []replication.ACL) error {
	if len(list) == 0 {
		return nil
	}
	wctx, cancel, err := writing(ctx) // after a long wait this is for the next attempt
	if err != nil {
		return err
	}
	defer cancel()
	if err := on.DeleteACLs(wctx, list); err != nil {
		return wrap("lift "+what+" on "+site, err)
	}
	_, err = everyBroker(ctx, on, list, false)
	return wrap("read back that "+what+" is gone from "+site, err)
}

// disown is dropACLs for ACLs that the runbook owns: last of all it records what is left (P4).
func disown(ctx context.Context, rec records, on Kafka, run Run, site, what string, owned OwnedACLs, list []replication.ACL) error {
	if len(list) == 0 {
		return nil
	}
	wctx, cancel, err := writing(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	if err := dropACLs(ctx, on, site, what, list); err != nil {
		return err
	}
	return rec.put(wctx, map[string]any{aclsKey(run.Runbook, site): OwnedACLs{Run: owned.Run, ACLs: replication.Missing(owned.ACLs, list)}})
}
