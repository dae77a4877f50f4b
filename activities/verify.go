package activities

import (
	"context"
	"fmt"
	"time"

	"switchback/internal/killpoint"
	"switchback/replication"
	"switchback/runbooks"
)

// Verify looks at the target after the switch.
type Verify struct{ Outside }

// VerifyInput names the route, the groups that should move and until when.
type VerifyInput struct {
	Guard    Guard           `json:"guard"`
	Route    Route           `json:"route"`
	Groups   runbooks.Groups `json:"groups"`
	Deadline time.Time       `json:"deadline"`
}

// VerifyResult is what was seen.
type VerifyResult struct {
	CanaryOffset  int64                 `json:"canaryOffset"`
	CanarySeconds float64               `json:"canarySeconds"` // produce to read back
	CanaryAt      time.Time             `json:"canaryAt"`      // when it was read back
	Groups        []replication.Outcome `json:"groups"`
	Problems      []string              `json:"problems,omitempty"`
	// WrittenAt is when the target was first seen to hold more than the source: somebody writes there. MovedAt is when
	// each group was first seen stable and moving, or at the end. Both are upper bounds of when clients worked again.
	WrittenAt time.Time            `json:"writtenAt,omitzero"`
	MovedAt   map[string]time.Time `json:"movedAt,omitempty"`
	Text      string               `json:"text"`
}

// verifyEvery is the pause between two looks at the target: the report's switch window is as exact as this.
const verifyEvery = 50 * time.Millisecond

// Target sends a canary through the target and waits until every group that had members on the source is stable and
// moving, or has nothing left to read, until LSO = HW everywhere, and until no DENY of ours is in the way. At the
// deadline what is not as it should be is named in Problems: the workload is there already, so this is for people.
func (a *Verify) Target(ctx context.Context, in VerifyInput) (out VerifyResult, err error) {
	ctx, _ = begin(ctx)
	r, err := a.open(ctx, in.Route)
	if err != nil {
		return out, err
	}
	defer r.close()
	scope, err := r.records.scope(ctx, in.Guard.Run.ID())
	if err != nil {
		return out, err
	}
	canary, err := r.to.Canary(ctx, CanaryTopic)
	if err != nil {
		return out, wrap("send a canary through "+in.Route.To.Name, err)
	}
	out.CanaryOffset, out.CanarySeconds = canary.Offset, canary.RoundTrip.Seconds()
	out.CanaryAt = time.Now()
	killpoint.Reach("Target/middle")
	source, err := a.before(ctx, r, in, scope.TopicNames())
	if err != nil {
		source = nil // the source may be given up by now: when the target was first written to is not known then
	}
	out.MovedAt = map[string]time.Time{}
	first := map[string]map[replication.Partition]int64{}
	var before []replication.Ends // the first look
	err = until(ctx, in.Deadline, verifyEvery, func(ctx context.Context) (bool, string, error) {
		var problems []string // the last whole look counts: one that the deadline cut short says nothing
		ends, err := r.to.Ends(ctx, scope.TopicNames())
		if err != nil {
			return false, "", wrap("read the ends of "+in.Route.To.Name, err)
		}
		for _, e := range replication.Held(before, ends) {
			problems = append(problems, fmt.Sprintf("%s: last stable offset %d is not the high watermark %d: a transaction is open", e.Name(), e.LastStable, e.HighWatermark))
		}
		if before == nil {
			before = ends
		}
		denies, err := copies(ctx, r, in.Guard.Run.Runbook)
		if err != nil {
			return false, "", err
		}
		if len(denies) > 0 {
			problems = append(problems, fmt.Sprintf("%d copies of the fence stand on %s, such as %s", len(denies), in.Route.To.Name, denies[0]))
		}
		if out.Groups, err = groupsMove(ctx, r.to, scope.Alive, ends, first); err != nil {
			return false, "", err
		}
		out.note(source, ends)
		stuck, _ := notOK(out.Groups)
		for _, g := range stuck {
			problems = append(problems, fmt.Sprintf("group %s: %s", g.Name, g.Reason))
		}
		out.Problems = problems
		return len(problems) == 0, firstFew(problems), nil
	})
	if err != nil && (len(out.Problems) == 0 || ctx.Err() != nil) {
		return out, err
	}
	out.Text = fmt.Sprintf("canary at offset %d came back after %.0f ms; %d groups stable and moving; last stable offset = high watermark on all partitions",
		out.CanaryOffset, out.CanarySeconds*1000, len(out.Groups))
	if len(out.Problems) > 0 {
		out.Text = fmt.Sprintf("canary came back, but %d things are not as they should be: %s", len(out.Problems), out.Problems[0])
	}
	return out, nil
}

// before is where the target ended when nobody had been sent there: where the source ends, or, where the source is lost or
// its offsets are others, what the marks say.
func (a *Verify) before(ctx context.Context, r *route, in VerifyInput, topics []string) ([]replication.Ends, error) {
	if in.Route.SourceLost || !r.link.StopIsFinal() {
		return stopEnds(ctx, r, in.Guard.Run.ID(), topics)
	}
	return r.from.Ends(ctx, topics)
}

// note remembers when things were first seen to work again.
func (out *VerifyResult) note(source, target []replication.Ends) {
	now := time.Now()
	had, has := total(source), total(target)
	if out.WrittenAt.IsZero() && len(source) == len(target) && had != replication.Unknown && has > had {
		out.WrittenAt = now
	}
	for _, g := range out.Groups {
		if _, seen := out.MovedAt[g.Name]; !seen && g.Status == replication.OK {
			out.MovedAt[g.Name] = now
		}
	}
}

// groupsMove judges each group: stable, and either further than at the first look or at the end.
func groupsMove(ctx context.Context, on Kafka, names []string, ends []replication.Ends, first map[string]map[replication.Partition]int64) ([]replication.Outcome, error) {
	wanted := map[string]bool{}
	for _, n := range names {
		wanted[n] = true
	}
	groups, err := on.Groups(ctx, func(name string) bool { return wanted[name] })
	if err != nil {
		return nil, wrap("describe the groups", err)
	}
	outcomes := make([]replication.Outcome, 0, len(names))
	for _, g := range groups {
		o := replication.Outcome{Name: g.Name, Status: replication.OK}
		committed, err := on.Committed(ctx, g.Name)
		if err != nil {
			return nil, wrap("read offsets of group "+g.Name, err)
		}
		if first[g.Name] == nil {
			first[g.Name] = committed
		}
		lag := replication.GroupLag(committed, ends)
		switch {
		case g.State != "Stable":
			o.Status, o.Reason = replication.Pending, fmt.Sprintf("is %s with %d members, not Stable", g.State, len(g.Members))
		case lag > 0 && !moved(first[g.Name], committed):
			o.Status, o.Reason = replication.Pending, fmt.Sprintf("has not moved, %d records behind", lag)
		}
		outcomes = append(outcomes, o)
		delete(wanted, g.Name)
	}
	for _, n := range names {
		if wanted[n] {
			outcomes = append(outcomes, replication.Outcome{Name: n, Status: replication.Pending, Reason: "does not exist on the target"})
		}
	}
	return outcomes, nil
}

func moved(from, to map[replication.Partition]int64) bool {
	for p, at := range to {
		if at > from[p] {
			return true
		}
	}
	return false
}
