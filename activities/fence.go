package activities

import (
	"context"
	"fmt"
	"time"

	"switchback/internal/fault"
	"switchback/internal/killpoint"
	"switchback/replication"
	"switchback/runbooks"
)

// Fences puts up and lifts the DENY ACLs that a runbook owns (P4 to P6, P8).
type Fences struct{ Outside }

// FenceInput names the route; the source is fenced.
type FenceInput struct {
	Guard Guard  `json:"guard"`
	Route Route  `json:"route"`
	Owner string `json:"owner,omitempty"` // whose records to lift; empty means the guard's run
	// Topics are the runbook's patterns, to find topics born since preflight (P16).
	Topics runbooks.Patterns `json:"topics"`
}

// FenceResult says what stands.
type FenceResult struct {
	Acted
	Topics  int      `json:"topics"`
	Brokers int      `json:"brokers"`        // that said so themselves
	Born    []string `json:"born,omitempty"` // topics of the runbook that appeared since preflight (P16)
	Down    []int32  `json:"down,omitempty"` // brokers with replicas of the topics that nobody could ask (P6)
	Text    string   `json:"text"`
}

// stillAfter is how many listings in a row must be the same before the list of topics stands still (P16).
const stillAfter = 2

// Raise denies WRITE on every topic of the runbook on the source, reads that back from every broker, and lists topics
// again until the list stands still. Refused while ACL sync is on (P5).
func (a *Fences) Raise(ctx context.Context, in FenceInput) (out FenceResult, err error) {
	ctx, out.Acted = begin(ctx)
	r, err := a.opened(ctx, in.Guard, in.Route)
	if err != nil {
		return out, err
	}
	defer r.close()
	var scope Scope
	err = sideBySide(
		func() (err error) { scope, err = r.records.scope(ctx, in.Guard.Run.ID()); return err },
		func() error { return aclSyncIsOff(ctx, r) },
	)
	if err != nil {
		return out, err
	}
	wctx, cancel, err := writing(ctx)
	if err != nil {
		return out, err
	}
	defer cancel()
	// Fence what is known at once, then look what was born meanwhile: until two listings in a row bring nothing new.
	for still := 0; still < stillAfter; {
		if still == 0 {
			fence := replication.TopicFence(scope.TopicNames())
			if err := own(wctx, r.records, r.from, in.Guard.Run, in.Route.From.Name, fence); err != nil {
				return out, err
			}
			out.Changed = true
		}
		now, err := r.from.Topics(ctx, in.Topics.Match)
		if err != nil {
			return out, wrap("list topics of "+in.Route.From.Name, err)
		}
		still++
		known := map[string]bool{}
		for _, t := range scope.Topics {
			known[t.Name] = true
		}
		for _, t := range now {
			if !known[t.Name] {
				scope.Topics, out.Born, still = append(scope.Topics, t), append(out.Born, t.Name), 0
			}
		}
	}
	if len(out.Born) > 0 {
		if err := r.records.putScope(wctx, in.Guard.Run.ID(), scope); err != nil {
			return out, err
		}
	}
	out.Topics = len(scope.Topics)
	out.Brokers, err = everyBroker(ctx, r.from, replication.TopicFence(scope.TopicNames()), true)
	if err != nil {
		return out, wrap("read the fence back from "+in.Route.From.Name, err)
	}
	out.Down = absent(ctx, r.from, in.Topics.Match)
	out.Text = fmt.Sprintf("WRITE denied on %d topics of %s, as each of %d brokers says itself", out.Topics, in.Route.From.Name, out.Brokers)
	return out, nil
}

// aclSyncIsOff refuses to make an ACL while ACL sync would copy it to the cluster that clients are about to use (P5).
func aclSyncIsOff(ctx context.Context, r *route) error {
	if acls := r.link.Denials(replication.DenySyncs, nil); len(acls) > 0 { // it is denied, whatever it is set to
		denied, err := standing(ctx, r.to, acls)
		if err == nil && !denied {
			err = fault.Hint(fmt.Errorf("the mirror may copy ACLs to %s and would copy the fence: %w", r.names.To.Name, fault.ErrConflict),
				"somebody lifted what the run had denied it; start a new run")
		}
		return err
	}
	status, err := r.link.Status(ctx)
	if err != nil {
		return wrap("read the link", err)
	}
	if status.Syncs.ACLs.Enabled {
		return fault.Hint(fmt.Errorf("ACL sync of link %s is on and would copy the fence: %w", status.Name, fault.ErrConflict),
			"somebody turned it on again after the run had suspended it; turn it off, then retry")
	}
	return nil
}

// own records ACLs as the runbook's before it makes them, so that a crash in between leaves no orphan (P4). What stood
// before is not recorded, and stays when the fence is lifted.
func own(ctx context.Context, rec records, on Kafka, run Run, site string, want []replication.ACL) error {
	var owned OwnedACLs
	var standing []replication.ACL
	err := sideBySide(
		func() (err error) { owned, err = rec.owned(ctx, run.Runbook, site); return err },
		func() (err error) { standing, err = on.ACLs(ctx); return wrap("read the ACLs of "+site, err) },
	)
	if err != nil {
		return err
	}
	create, ours := replication.Plan(want, standing, owned.ACLs)
	if len(create) == 0 {
		return nil
	}
	ours = append(ours, replication.Missing(owned.ACLs, ours)...) // what the runbook owns besides stays its own
	if err := rec.put(ctx, map[string]any{aclsKey(run.Runbook, site): OwnedACLs{Run: run.ID(), ACLs: ours}}); err != nil {
		return err
	}
	killpoint.Reach("Raise/middle")
	return wrap("create DENY ACLs on "+site, on.CreateACLs(ctx, create))
}

// everyBroker waits until each live broker says the same about the ACLs (P6); one that does not answer is named.
func everyBroker(ctx context.Context, on Kafka, acls []replication.ACL, present bool) (brokers int, err error) {
	err = until(ctx, time.Now().Add(readBackTime), readBackEvery, func(ctx context.Context) (bool, string, error) {
		outcomes, err := on.ACLsOnEveryBroker(ctx, acls, present)
		if err != nil {
			return false, "", err
		}
		brokers = len(outcomes)
		_, text := notOK(outcomes)
		return text == "" && brokers > 0, text, nil
	})
	return brokers, err
}

// Authorizers are caches that follow the metadata log, usually within milliseconds.
var readBackTime = 10 * time.Second

const readBackEvery = 50 * time.Millisecond

// Lift removes the ACLs that the owner recorded, of topics and of groups, and nothing else, on both clusters, and copies of them
// that an ACL sync made which somebody turned on meanwhile: once it is off they would stay (P5). Read back from every broker.
func (a *Fences) Lift(ctx context.Context, in FenceInput) (out FenceResult, err error) {
	ctx, out.Acted = begin(ctx)
	r, err := a.opened(ctx, in.Guard, in.Route)
	if err != nil {
		return out, err
	}
	defer r.close()
	copied, err := copies(ctx, r, in.Guard.Run.Runbook)
	if err == nil { // before, so that a death in between leaves none that nobody knows of, and after, when none can be made any more
		err = dropACLs(ctx, r.to, in.Route.To.Name, fenceCopy, copied)
	}
	if err != nil {
		return out, err
	}
	// One after the other: on the target a denied ACL sync gets its right back, and would copy a fence that still stands.
	if err := lift(ctx, r.records, r.from, in, in.Route.From.Name, &out); err != nil {
		return out, err
	}
	if err := dropACLs(ctx, r.to, in.Route.To.Name, fenceCopy, copied); err != nil {
		return out, err
	}
	if err := bequeath(ctx, r.records, r.link, in.Guard.Run.Runbook, in.Route.From.Name, in.Route.To.Name); err != nil {
		return out, err
	}
	if err := lift(ctx, r.records, r.to, in, in.Route.To.Name, &FenceResult{}); err != nil {
		return out, err
	}
	out.Text = fmt.Sprintf("%d DENY ACLs of the runbook lifted on %s, as each of %d brokers says itself", out.Topics, in.Route.From.Name, out.Brokers)
	return out, nil
}

func lift(ctx context.Context, rec records, on Kafka, in FenceInput, site string, out *FenceResult) error {
	owned, err := rec.owned(ctx, in.Guard.Run.Runbook, site)
	if err != nil {
		return err
	}
	if len(owned.ACLs) == 0 {
		return nil
	}
	wctx, cancel, err := writing(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	if err := on.DeleteACLs(wctx, owned.ACLs); err != nil {
		return wrap("lift DENY ACLs on "+site, err)
	}
	killpoint.Reach("Lift/middle")
	out.Changed, out.Topics = true, len(owned.ACLs)
	if out.Brokers, err = everyBroker(ctx, on, owned.ACLs, false); err != nil {
		return wrap("read back that the fence is gone from "+site, err)
	}
	return rec.put(wctx, map[string]any{aclsKey(in.Guard.Run.Runbook, site): OwnedACLs{Run: in.Guard.Run.ID()}})
}
