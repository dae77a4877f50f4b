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

// FailOver stops the mirrors whatever they lag, and needs no answer from the source. Where a stop is final it waits until
// each mirror is stopped: a topic that the link refuses, or that failed, is named in Hanging and holds up no other.
// TypePromoteRefused means that nothing was sent. A backend that is held by ACLs is sealed and only asked to stop (Waits),
// unless nobody has proven that it obeys them.
func (a *Mirrors) FailOver(ctx context.Context, in WaitInput) (out FailOverResult, err error) {
	ctx, out.Acted = begin(ctx)
	in.Route.SourceLost = true
	r, scope, err := a.scoped(ctx, in.Guard, in.Route)
	if err != nil {
		return out, err
	}
	defer r.close()
	out.Topics = len(scope.Topics)
	if r.link.StopIsFinal() {
		return out, a.failOver(ctx, r, in, scope.TopicNames(), &out)
	}
	return out, a.failOverSealed(ctx, r, in, scope.TopicNames(), &out)
}

// failOver asks once for each topic that was not asked yet, and then lets the states decide.
func (a *Mirrors) failOver(ctx context.Context, r *route, in WaitInput, topics []string, out *FailOverResult) error {
	states, err := mirrorStates(ctx, r.link, topics)
	if err != nil {
		return err
	}
	ask, err := a.failable(ctx, r, topics, states, out)
	if err != nil {
		return err
	}
	if len(ask) > 0 {
		killpoint.Reach("FailOver/before-sent")
		if err := a.check(ctx, in.Guard); err != nil {
			return err
		}
		if err := a.send(ctx, r, replication.Failover, ask); err != nil {
			return err
		}
		out.Changed = true
	}
	killpoint.Reach("FailOver/middle")
	wait := slices.DeleteFunc(slices.Clone(topics), func(t string) bool { return slices.Contains(out.Hanging, t) })
	if err := a.failedOver(ctx, r, in.Deadline, wait, out); err != nil {
		return err
	}
	out.Text = fmt.Sprintf("%d mirrors stopped by failover: normal topics of %s now", len(topics)-len(out.Hanging), in.Route.To.Name)
	if len(out.Hanging) > 0 {
		slices.Sort(out.Hanging)
		out.Text += fmt.Sprintf("; %d are not, nobody can write to them there: %s", len(out.Hanging), firstFew(out.Hanging))
	}
	return nil
}

// failable are the topics to be asked for: not those that are stopping or stopped, by an earlier attempt or by somebody,
// and not those that the link would refuse, or whose state nobody knows.
func (a *Mirrors) failable(ctx context.Context, r *route, topics []string, states map[string]replication.Mirror, out *FailOverResult) ([]string, error) {
	var ask []string
	for _, topic := range topics {
		switch states[topic].State {
		case replication.MirrorStopped, replication.MirrorStopping, replication.MirrorUnknown:
		default:
			ask = append(ask, topic)
		}
	}
	if len(ask) == 0 {
		return nil, nil
	}
	valid, err := r.link.ValidateStop(ctx, replication.Failover, ask)
	if err != nil {
		return nil, wrap("ask whether the link would fail over", err)
	}
	no := only(valid, replication.Failed)
	if len(no) == len(topics) {
		_, text := notOK(no)
		err := fmt.Errorf("the link would fail over no topic: %s: %w", text, fault.ErrInvalid)
		if out.Attempt <= 1 {
			err = fmt.Errorf("nothing was failed over: %w; %w", err, errPromoteRefused)
		}
		return nil, err
	}
	for _, o := range no {
		ask = slices.DeleteFunc(ask, func(t string) bool { return t == o.Name })
		out.Hanging = append(out.Hanging, o.Name)
	}
	return ask, nil
}

// failedOver waits until each mirror is stopped. One that shows no sign of the request is asked again after its state was
// read; one that failed over the request is named, and waited for no longer; one in a state that nobody knows is waited
// for, and never acted upon.
func (a *Mirrors) failedOver(ctx context.Context, r *route, deadline time.Time, topics []string, out *FailOverResult) error {
	asked := time.Now()
	return until(ctx, deadline, mirrorEvery, func(ctx context.Context) (bool, string, error) {
		states, err := mirrorStates(ctx, r.link, topics)
		if err != nil {
			return false, "", err
		}
		late := time.Since(asked) > askAgain
		var waiting, again, failed []string
		for _, topic := range topics {
			switch m := states[topic]; {
			case m.State == replication.MirrorStopped:
				continue
			case m.State == replication.MirrorFailed && late:
				failed = append(failed, topic)
				continue
			case m.State != replication.MirrorStopping && m.State != replication.MirrorUnknown:
				again = append(again, topic)
				fallthrough
			default:
				waiting = append(waiting, fmt.Sprintf("%s: %s %s", topic, m.Raw, m.Reason))
			}
		}
		if len(waiting) == 0 {
			out.Hanging = append(out.Hanging, failed...)
			return true, "", nil
		}
		if late && len(again) > 0 {
			asked = time.Now()
			if err := a.send(ctx, r, replication.Failover, again); err != nil {
				return false, "", err
			}
		}
		return false, toStop(waiting), nil
	})
}

// askedWithin is how long clients wait for Kafka Connect to say that it was asked to stop connectors: with a dead source its
// workers answer late, and have heard it all the same.
const askedWithin = 300 * time.Millisecond

// failOverSealed takes the mirror the topics by ACLs, looks whether the target stands still, and asks for the stop. With a
// dead source that it stands still proves little (P10): without a proof that the mirror obeys ACLs the stop is waited for.
func (a *Mirrors) failOverSealed(ctx context.Context, r *route, in WaitInput, topics []string, out *FailOverResult) error {
	wctx, cancel, err := writing(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	if err := deny(wctx, r, in.Guard.Run, replication.DenyTopics, topics); err != nil {
		return err
	}
	out.Changed = true
	killpoint.Reach("FailOver/middle")
	first, err := r.to.Ends(ctx, topics)
	if err != nil {
		return wrap("read the ends of "+in.Route.To.Name+" behind the seal", err)
	}
	second, err := r.to.Ends(ctx, topics)
	if err != nil {
		return wrap("read the ends of "+in.Route.To.Name+" behind the seal", err)
	}
	grown := growth(first, second)
	within := WriteDeadline
	if in.SealProven && len(grown) == 0 { // the seal holds, and AwaitStopped asks again behind the clients' backs
		within = askedWithin
	}
	asked := a.sendWithin(ctx, r, replication.Failover, topics, within)
	if errors.Is(asked, fault.ErrStale) {
		return asked
	}
	if in.SealProven && len(grown) == 0 {
		out.Waits = true
		out.Text = sealedText(topics, in.Route.To)
		if asked != nil { // the seal holds them, whatever they do
			out.Text = fmt.Sprintf("the mirror is denied %d topics of %s, as each broker says itself; its connectors could not be asked to stop yet: %v", len(topics), in.Route.To.Name, asked)
		}
		return nil
	}
	if asked != nil {
		return asked
	}
	if err := stoppedAll(ctx, r.link, in.Deadline, topics); err != nil {
		return err
	}
	out.Text = unprovenText(topics)
	if len(grown) > 0 {
		out.Text = fmt.Sprintf("the mirror of %d topics has stopped; the seal alone did not hold it: %s", len(topics), firstFew(grown))
	}
	return nil
}

// AwaitStopped confirms, outside of the switch window, the stop that FailOver only asked for: it asks once more and waits
// until the backend says that every mirror has stopped.
func (a *Mirrors) AwaitStopped(ctx context.Context, in WaitInput) (out FailOverResult, err error) {
	ctx, out.Acted = begin(ctx)
	in.Route.SourceLost = true
	r, scope, err := a.scoped(ctx, in.Guard, in.Route)
	if err != nil {
		return out, err
	}
	defer r.close()
	topics := scope.TopicNames()
	out.Topics = len(topics)
	states, err := mirrorStates(ctx, r.link, topics)
	if err != nil {
		return out, err
	}
	if slices.ContainsFunc(topics, func(t string) bool { return states[t].State != replication.MirrorStopped }) {
		if err := a.send(ctx, r, replication.Failover, topics); err != nil {
			return out, err
		}
		out.Changed = true
	}
	out.Text = fmt.Sprintf("the mirror of %d topics has stopped", len(topics))
	return out, stoppedAll(ctx, r.link, in.Deadline, topics)
}
