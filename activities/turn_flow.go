package activities

import (
	"context"
	"fmt"
	"slices"
	"time"

	"switchback/internal/killpoint"
	"switchback/replication"
	"switchback/runbooks"
)

// Flow lets the mirrors flow, once the fence has given way: a seal that still holds them is lifted, read back from every
// broker, and only then connectors are resumed (P27). It is done when every mirror is active.
func (a *Turns) Flow(ctx context.Context, in TurnInput) (out TurnedResult, err error) {
	ctx, out.Acted = begin(ctx)
	t, err := a.begun(ctx, in)
	if err != nil {
		return out, err
	}
	defer t.close()
	if err := a.unsealed(ctx, t, &out); err != nil {
		return out, err
	}
	killpoint.Reach("Flow/middle")
	asked := time.Time{}
	topics := Scope{Topics: t.here}.TopicNames()
	err = until(ctx, in.Deadline, turnEvery, func(ctx context.Context) (bool, string, error) {
		states, err := t.mirrors(ctx)
		if err != nil {
			return false, "", err
		}
		var waiting []string
		for _, topic := range topics {
			if m := states[topic]; m.State != replication.MirrorActive {
				waiting = append(waiting, fmt.Sprintf("%s: %s %s", topic, m.Raw, m.Reason))
			}
		}
		if len(waiting) > 0 && !t.link.StopIsFinal() && time.Since(asked) > 5*askAgain {
			asked = time.Now()
			if err := t.act(ctx, t.link.Resume); err != nil {
				return false, "", err
			}
			out.Changed = true
		}
		return len(waiting) == 0, fmt.Sprintf("%d mirrors to flow: %s", len(waiting), firstFew(waiting)), nil
	})
	out.Text = fmt.Sprintf("%d topics of %s are mirrored to %s", len(topics), in.Route.From.Name, in.Route.To.Name)
	return out, err
}

// unsealed lifts what the runbook had denied this link on the cluster that it mirrors to.
func (a *Turns) unsealed(ctx context.Context, t *turning, out *TurnedResult) error {
	site := t.names.To.Name
	owned, err := t.rec.owned(ctx, t.in.Guard.Run.Runbook, site)
	if err != nil {
		return err
	}
	seal := ofMirror(owned.ACLs, t.in.Route.Link)
	out.Changed = len(seal) > 0
	return disown(ctx, t.rec, t.to, t.in.Guard.Run, site, "the seal", owned, seal)
}

// ofMirror are those ACLs that hold a link's own principals; none where it has none.
func ofMirror(acls []replication.ACL, link runbooks.Link) []replication.ACL {
	mm := link.MirrorMaker
	return slices.DeleteFunc(slices.Clone(acls), func(acl replication.ACL) bool {
		return mm == nil || acl.Principal != mm.Principals.Data && acl.Principal != mm.Principals.Admin
	})
}

// InStepInput says what counts as in step: what is left is mirrored within Within, by the rate that is measured.
type InStepInput struct {
	TurnInput
	Runbook runbooks.Runbook `json:"runbook"`
	Within  time.Duration    `json:"within"`
}

// InStepResult is the lag when it was in step.
type InStepResult struct {
	Lag     int64   `json:"lag"`
	Seconds float64 `json:"seconds"` // to mirror it at the measured rate
	Text    string  `json:"text"`
}

// InStep waits until the cluster has caught up so far that a planned failover to it would drain in time, by the measurement that
// preflight makes, until every group has read past what was recovered (P26), and until the cluster has forgotten the members that
// its groups had when it was lost: a cluster that returns expects them back for a session timeout (P25).
func (a *Turns) InStep(ctx context.Context, in InStepInput) (out InStepResult, err error) {
	ctx, _ = begin(ctx)
	t, err := a.begun(ctx, in.TurnInput)
	if err != nil {
		return out, err
	}
	defer t.close()
	err = until(ctx, in.Deadline, turnEvery, func(ctx context.Context) (bool, string, error) {
		states, err := t.mirrors(ctx)
		if err != nil {
			return false, "", err
		}
		for topic, m := range states {
			if m.State == replication.MirrorFailed {
				return false, fmt.Sprintf("the mirror of %s to be mended: %s %s", topic, m.Raw, m.Reason), nil
			}
		}
		s := &survey{in: PreflightInput{Runbook: in.Runbook, Route: in.Route}, r: t.route, topics: t.here,
			result: &PreflightResult{Lag: replication.Unknown, DrainSeconds: -1}}
		if err := drainFits(ctx, s); err != nil {
			return false, "", err
		}
		out.Lag, out.Seconds = s.result.Lag, s.result.DrainSeconds
		if out.Seconds >= 0 {
			out.Text = fmt.Sprintf("%s is %d records behind %s, about %.1f s", in.Route.To.Name, out.Lag, in.Route.From.Name, out.Seconds)
		} else if n := len(s.result.Findings); n > 0 {
			out.Text = s.result.Findings[n-1].Means
		}
		if out.Seconds < 0 || out.Seconds > in.Within.Seconds() {
			return false, out.Text, nil
		}
		groups, err := t.from.Groups(ctx, in.Runbook.Groups.Match)
		if err != nil {
			return false, "", wrap("list groups of "+in.Route.From.Name, err)
		}
		behind, err := behindCopies(ctx, t.route, groupNames(groups))
		if err != nil || len(behind) > 0 {
			return false, "groups to read past what was recovered: " + firstFew(behind), err
		}
		before, err := alive(ctx, t.to, in.Route.To.Name, in.Runbook.Groups.Match)
		return err == nil && len(before) == 0, "members of days before to be gone, by their session timeouts (stop those that still run): " + firstFew(before), err
	})
	return out, err
}
