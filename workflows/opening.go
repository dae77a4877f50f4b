package workflows

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"go.temporal.io/sdk/workflow"

	"switchback/activities"
	"switchback/runbooks"
)

// preflight is the first step: it enters the runbook, and looks whether it could go to its end.
func (f *plannedFailover) preflight(ctx workflow.Context, until time.Time) (string, error) {
	left, err := f.enter(ctx, until)
	if err != nil {
		return "", err
	}
	if left != nil {
		if err := f.settle(ctx, *left); err != nil {
			return "", err
		}
	}
	if err := f.check(ctx, until); err != nil {
		return "", err
	}
	return f.facts.Preflight, f.holdLink(ctx, until)
}

// enter takes the snapshot, finds where the workload is and takes the runbook's lock, before anything is changed. What a
// run before this one left behind is for the caller to settle.
func (f *failover) enter(ctx workflow.Context, until time.Time) (left *activities.Holder, err error) {
	if err := refuseLimits(workflow.GetInfo(ctx)); err != nil {
		return nil, err
	}
	seen, err := f.read(ctx, until)
	if err != nil {
		return nil, err
	}
	if entry := seen.Required(); entry.Error == "" && entry.Cluster == f.in.To {
		return nil, f.finish(ctx, until, seen)
	}
	lost := f.route.SourceLost
	if f.route, err = way(f.book, seen.Required(), f.in.From, f.in.To); err != nil {
		return nil, err
	}
	f.route.SourceLost = lost
	f.status.From, f.status.Epoch, f.guard.Epoch = f.route.From.Name, seen.Required().Epoch, seen.Required().Epoch
	f.facts.Before = f.guard.Epoch
	got, err := f.acquire(ctx, until, "runbook/"+f.in.Runbook, seen)
	if err != nil {
		return nil, err
	}
	f.next, f.status.NextEpoch = got.NextEpoch, got.NextEpoch
	f.unsettled = got.Abandoned != nil
	if err := f.calm(workflow.Now(ctx), got.LastSwitch); err != nil {
		return nil, err
	}
	if got.Fencing {
		ended, err := f.endFencing(ctx, until, f.in.To)
		if err != nil {
			return nil, err
		}
		f.waited = ended.Left
	}
	return got.Abandoned, nil
}

// read takes the snapshot of the runbook, which is used from then on, and finds where clients go now.
func (f *failover) read(ctx workflow.Context, until time.Time) (seen activities.ReadDiscoveryResult, err error) {
	snap, err := perform[activities.Snapshot](f.engine, quickRead(ctx, until, "snapshot of the runbook"), books.Snapshot,
		activities.SnapshotInput{Runbook: f.in.Runbook})
	if err != nil {
		return seen, err
	}
	f.book, f.sha256 = snap.Runbook, snap.SHA256
	f.guard.Discovery = f.book.RequiredDiscovery()
	f.rebudget() // the runbook's are known now
	return f.readDiscovery(ctx, until)
}

// endFencing ends what still waits for a cluster to fence it, before the workload goes there (P13).
func (f *failover) endFencing(ctx workflow.Context, until time.Time, cluster string) (out activities.EndFencingResult, err error) {
	in := activities.EndFencing{Workflow: fencingID(f.in.Runbook, cluster)}
	return out, workflow.ExecuteActivity(longWait(ctx, until, "end "+in.Workflow), locks.EndFencing, in).Get(ctx, &out)
}

// holdLink takes the lock of the link, whose ACL sync belongs to all workloads on it (P3).
func (f *failover) holdLink(ctx workflow.Context, until time.Time) error {
	if slices.Contains(f.entities, "link/"+f.linkName) {
		return nil // by the planned run that was escalated
	}
	_, err := f.acquire(ctx, until, "link/"+f.linkName, activities.ReadDiscoveryResult{})
	return err
}

// refuseLimits refuses what would end a run without its undo, or start it again by itself.
func refuseLimits(info *workflow.Info) error {
	what := ""
	switch {
	case limits(info.WorkflowExecutionTimeout) || limits(info.WorkflowRunTimeout):
		what = "an execution or run time-out would end it in the middle, with nothing taken back"
	case info.CronSchedule != "":
		what = "cron would start it again by itself"
	case info.RetryPolicy != nil:
		what = "a workflow retry would start it again by itself"
	default:
		return nil
	}
	return fmt.Errorf("the run was started with a limit that no run may have: %s. Start it again without", what)
}

// limits tells a time-out that somebody set from the years that stand for none.
func limits(d time.Duration) bool { return d > 0 && d < noLimit }

// way is the route of a run. The required discovery entry alone says where the workload is (P40).
func way(book runbooks.Runbook, entry activities.DiscoveryEntry, from, to string) (activities.Route, error) {
	switch {
	case entry.Error != "":
		return activities.Route{}, fmt.Errorf("the required discovery entry %s cannot be read: %s", entry.Address, entry.Error)
	case entry.Epoch < 0:
		return activities.Route{}, fmt.Errorf("the required discovery entry %s/%s has no readable epoch: mend its keys", entry.Address, entry.Prefix)
	case from != "" && from != entry.Cluster:
		return activities.Route{}, fmt.Errorf("the run was asked to go from %s, but clients find %s", from, entry.Cluster)
	case to == entry.Cluster:
		return activities.Route{}, fmt.Errorf("the workload of runbook %s is on %s already, at epoch %d", book.Metadata.Name, to, entry.Epoch)
	}
	source, there := book.Clusters[entry.Cluster]
	target, known := book.Clusters[to]
	if !there || !known {
		return activities.Route{}, fmt.Errorf("it cannot go from %q to %q: the runbook does not name both among its clusters", entry.Cluster, to)
	}
	link, ok := book.Link(entry.Cluster, to)
	if !ok {
		return activities.Route{}, fmt.Errorf("the runbook has no link from %s to %s", entry.Cluster, to)
	}
	return activities.Route{
		From: activities.Site{Name: entry.Cluster, Cluster: source, TopicPrefix: entry.TopicPrefix},
		To:   activities.Site{Name: to, Cluster: target, TopicPrefix: link.TopicPrefix()}, Link: link,
	}, nil
}

func (f *failover) readDiscovery(ctx workflow.Context, until time.Time) (activities.ReadDiscoveryResult, error) {
	return perform[activities.ReadDiscoveryResult](f.engine, quickRead(ctx, until, "where clients go now"), discovery.Read,
		activities.ReadDiscoveryInput{Entries: f.book.Discovery})
}

// acquire takes a lock. It is noted as held before: a lost answer may have been a yes, and releasing what is not held
// changes nothing.
func (f *failover) acquire(ctx workflow.Context, until time.Time, entity string, seen activities.ReadDiscoveryResult) (activities.Acquired, error) {
	in := activities.Acquire{Entity: entity, Run: f.guard.Run, Kind: f.kind, From: f.route.From.Name, To: f.in.To}
	if parent := workflow.GetInfo(ctx).ParentWorkflowExecution; parent != nil {
		in.Parent = parent.ID
	}
	if len(seen.Entries) > 0 {
		in.SeenEpoch, in.SeenActive = seen.HighestEpoch(), seen.Required().Cluster
	}
	f.entities = append(f.entities, entity)
	got, err := perform[activities.Acquired](f.engine, atomicWrite(ctx, until, "take "+entity), locks.Acquire, in)
	f.nested = f.nested || got.Nested
	return got, err
}

// check is the preflight proper. A problem forbids the run before anything was changed.
func (f *plannedFailover) check(ctx workflow.Context, until time.Time) error {
	in := activities.PreflightInput{Run: f.guard.Run, Runbook: f.book, Route: f.route, Epoch: f.guard.Epoch}
	out, err := perform[activities.PreflightResult](f.engine, longWait(ctx, until, "could it go?"), checks.Check, in)
	if err != nil {
		return err
	}
	f.checked = workflow.Now(ctx)
	f.stopIsFinal, f.sealProven, f.linkName = out.StopIsFinal, out.SealProven, out.LinkName
	if len(f.book.Hooks) > 0 {
		out.Findings = append(out.Findings, activities.Finding{Check: "hooks", Level: activities.LevelWarning,
			Means: "the runbook has hooks, and this version starts none.", Do: "Start those workflows by hand after the run."})
	}
	f.facts.Preflight = fmt.Sprintf("%d checks, %d topics, %d partitions, %d groups", len(out.Findings), out.Topics, out.Partitions, out.Groups)
	return f.heed("preflight found", out.Findings)
}

// heed shows findings; a problem forbids the run. What says who has found them, as the sentence begins.
func (f *failover) heed(what string, findings []activities.Finding) error {
	f.facts.Findings, f.status.Findings = findings, nil
	var problems []string
	for _, finding := range findings {
		if finding.Level != activities.LevelOK {
			f.status.Findings = append(f.status.Findings, finding)
		}
		if finding.Level == activities.LevelProblem {
			problems = append(problems, fmt.Sprintf("%s: %s %s", finding.Check, finding.Means, finding.Do))
		}
	}
	if len(problems) > 0 {
		return fmt.Errorf("%s %d problems, so nothing was changed: %s", what, len(problems), strings.Join(problems, "; "))
	}
	return nil
}
