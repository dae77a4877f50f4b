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

// reachTime is how long brokers of a source that may be lost have to say that a fence stands.
const reachTime = 2 * time.Second

// knock is opened for an activity whose business is the source: it is asked again although it was silent a moment ago.
func (o Outside) knock(ctx context.Context, g Guard, r Route) (*route, error) {
	var out *route
	r.SourceLost = true
	err := sideBySide(
		func() error { return o.check(ctx, g) },
		func() (err error) { out, err = o.openAgain(ctx, r, true); return err },
	)
	if err != nil && out != nil {
		out.close()
	}
	return out, err
}

// RaiseReachable denies WRITE on the runbook's topics on as much of the source as answers. It never fails because the
// source is away: what could not be fenced is in the text, and is FenceWhenReachable's. Refused while ACL sync is on (P5).
func (a *Fences) RaiseReachable(ctx context.Context, in FenceInput) (out FenceReachResult, err error) {
	ctx, out.Acted = begin(ctx)
	r, err := a.knock(ctx, in.Guard, in.Route)
	if err != nil {
		return out, err
	}
	defer r.close()
	from := in.Route.From.Name
	if why, yes := gone(r.from); yes {
		out.Text = fmt.Sprintf("%s does not answer, so nobody is fenced there yet: %v", from, why)
		return out, nil
	}
	scope, err := r.records.scope(ctx, in.Guard.Run.ID())
	if err != nil {
		return out, err
	}
	if err := suspended(ctx, r); err != nil {
		return out, err
	}
	topics := withBorn(ctx, r, scope.TopicNames(), in)
	out.Topics = len(topics)
	fence := replication.TopicFence(topics)
	wctx, cancel, err := writing(ctx)
	if err != nil {
		return out, err
	}
	defer cancel()
	err = own(wctx, r.records, r.from, in.Guard.Run, from, fence)
	if err == nil {
		out.Changed = true
		killpoint.Reach("RaiseReachable/middle")
		out.Text, err = a.said(ctx, r, fence)
	}
	switch away := absent(ctx, r.from, in.Topics.Match); {
	case err == nil && len(away) > 0:
		out.Text = fmt.Sprintf("%s is not fenced as a whole: brokers %v are down, and may let write whoever is cut off with them; %s", from, away, out.Text)
	case err == nil:
		out.Fenced = true
	case !sourceFailed(err) && !errors.Is(err, errTimeUp):
		return out, err
	default:
		out.Text = fmt.Sprintf("%s is not fenced as a whole, whoever is cut off may write there: %v", from, err)
	}
	return out, nil
}

// suspended waits for ACL sync to be off, half as long as an attempt may write: syncs are suspended beside the fence. A link that does not
// answer is no reason to wait.
func suspended(ctx context.Context, r *route) (on error) {
	err := until(ctx, time.Now().Add(WriteDeadline/2), readBackEvery, func(ctx context.Context) (bool, string, error) {
		if err := aclSyncIsOff(ctx, r); ctx.Err() == nil {
			on = err
		}
		return !errors.Is(on, fault.ErrConflict), "syncs to be suspended", nil
	})
	switch {
	case err == nil:
		return nil
	case errors.Is(err, errTimeUp):
		return on
	}
	return err
}

// withBorn adds topics of the runbook that the source has besides: nobody mirrors them, and what is written there is lost.
func withBorn(ctx context.Context, r *route, topics []string, in FenceInput) []string {
	now, _ := r.from.Topics(ctx, in.Topics.Match) // what cannot be listed was known before
	for _, t := range now {
		if !slices.Contains(topics, t.Name) {
			topics = append(topics, t.Name)
		}
	}
	slices.Sort(topics)
	return topics
}

// absent are brokers with replicas of the topics that their cluster has given up: nobody can ask them what they know, and one
// that is only cut off lets write who is cut off with it (P6).
func absent(ctx context.Context, on Kafka, match func(string) bool) []int32 {
	there, _ := on.Topics(ctx, match) // what cannot be listed does not answer, which is said elsewhere
	return down(there)
}

// said waits for every live broker of the source to say that the fence stands, for a short time only.
func (a *Fences) said(ctx context.Context, r *route, fence []replication.ACL) (text string, err error) {
	err = until(ctx, time.Now().Add(reachTime), readBackEvery, func(ctx context.Context) (bool, string, error) {
		outcomes, err := r.from.ACLsOnEveryBroker(ctx, fence, true)
		if err != nil {
			return false, "", err
		}
		_, waiting := notOK(outcomes)
		text = fmt.Sprintf("WRITE denied on %d topics of %s, as each of %d brokers says itself", len(fence), r.names.From.Name, len(outcomes))
		return waiting == "" && len(outcomes) > 0, waiting, nil
	})
	return text, err
}

// StopReachable asks all clients to stop and waits until each instance said so, or the deadline. Those that did not are
// unknown, not stopped (P22), and named: no error, because nobody waits for a client of a region that burns. With GoOn it
// waits only for those that discovery knows. Discovery has to answer: without it there is no switch either.
func (a *Clients) StopReachable(ctx context.Context, in ClientsInput) (out StopReachableResult, err error) {
	ctx, out.Acted = begin(ctx)
	wctx, cancel, err := writing(ctx)
	if err != nil {
		return out, err
	}
	defer cancel()
	if out.Changed, err = a.Applications.Ask(wctx, in.Guard, DesiredStop, in.Clients); err != nil {
		return out, wrap(fmt.Sprintf("ask %d clients to stop", len(in.Clients)), err)
	}
	killpoint.Reach("StopReachable/middle")
	looked := false
	err = until(ctx, in.Deadline, clientsEvery, func(ctx context.Context) (bool, string, error) {
		applied, err := a.Applications.Look(ctx, in.Guard, DesiredStop, in.Clients)
		if err != nil {
			return false, "", wrap("look at the clients", err)
		}
		looked = true
		out.Clients, out.Killed, out.Unknown = applied.Clients, applied.Killed, applied.Waiting
		_, text := notOK(awaited(applied.Waiting, in.GoOn))
		return text == "", text, nil
	})
	if looked && errors.Is(err, errTimeUp) {
		return out, nil // named in the result
	}
	return out, err
}

// awaited are the instances that may still say something; all of them count where nobody is gone on without.
func awaited(waiting []replication.Outcome, goOn bool) []replication.Outcome {
	if !goOn {
		return waiting
	}
	return only(waiting, replication.Pending)
}
