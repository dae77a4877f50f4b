package activities

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"switchback/internal/fault"
	"switchback/internal/killpoint"
	"switchback/replication"
	"switchback/runbooks"
)

// GivenWay says what of a fence stands now.
type GivenWay struct {
	Acted
	Closed []string `json:"closed,omitempty"` // principals that are denied by name
	Lifted int      `json:"lifted"`
	Text   string   `json:"text"`
}

// GiveWay lifts the fence of the cluster that is to mirror, which denies everybody, the mirror too (rule 11, P14). Where a
// mirror is a topic like any other, everybody else who may write there is denied by name first, so that a stray client
// meets a closed standby at every moment (P11). Nothing but what the runbook made is lifted (P4).
func (a *Turns) GiveWay(ctx context.Context, in TurnInput) (out GivenWay, err error) {
	ctx, out.Acted = begin(ctx)
	t, err := a.begun(ctx, in)
	if err != nil {
		return out, err
	}
	defer t.close()
	to := in.Route.To.Name
	owned, err := t.rec.owned(ctx, in.Guard.Run.Runbook, to)
	if err != nil {
		return out, err
	}
	general := slices.DeleteFunc(slices.Clone(owned.ACLs), func(acl replication.ACL) bool { return !acl.Wildcard() })
	wctx, cancel, err := writing(ctx)
	if err != nil {
		return out, err
	}
	defer cancel()
	if out.Closed, err = t.closed(wctx, Scope{Topics: t.here}.TopicNames()); err != nil {
		return out, err
	}
	killpoint.Reach("GiveWay/middle")
	owned.Run = in.Guard.Run.ID()
	if err := disown(ctx, t.rec, t.to, in.Guard.Run, to, "the general fence", owned, general); err != nil {
		return out, err
	}
	out.Changed, out.Lifted = len(general) > 0, len(general)
	out.Text = fmt.Sprintf("%d DENY ACLs of the fence lifted on %s", out.Lifted, to)
	if len(out.Closed) > 0 {
		out.Text += "; closed by name to " + strings.Join(out.Closed, ", ")
	}
	return out, nil
}

// closed denies WRITE by name to everybody who has a grant, the mirror and Switchback apart, and says to whom. A mirror that is
// read-only by itself needs none.
func (t *turning) closed(ctx context.Context, topics []string) ([]string, error) {
	if t.link.StopIsFinal() {
		return nil, nil
	}
	standing, err := t.to.ACLs(ctx)
	if err != nil {
		return nil, wrap("read the ACLs of "+t.names.To.Name, err)
	}
	names, err := t.writers(standing, topics)
	if err != nil {
		return nil, err
	}
	book, site := t.in.Guard.Run.Runbook, t.names.To.Name
	before, err := closedStandby(ctx, t.rec, book, site)
	if err != nil {
		return nil, err
	}
	return names, shut(ctx, t.rec, t.to, t.in.Guard.Run, site, replication.Closed(names, topics), standing, before)
}

// writers are those who may write to the topics, the mirror and Switchback apart. A grant for everybody cannot be named away:
// fault.ErrInvalid (P14).
func (t *turning) writers(standing []replication.ACL, topics []string) (names []string, err error) {
	mirror := runbooks.Principals{}
	if mm := t.in.Route.Link.MirrorMaker; mm != nil {
		mirror = mm.Principals
	}
	for _, grant := range replication.WriteGrants(standing, topics) {
		switch p := grant.Principal; {
		case grant.Wildcard():
			return nil, fault.Hint(fmt.Errorf("%s lets everybody write: %s: %w", t.names.To.Name, grant, fault.ErrInvalid),
				"replace it by grants for those who need it: a grant for everybody cannot be closed by name, so the fence cannot give way to the mirror")
		case p == mirror.Data || p == mirror.Admin || p == t.to.Principal() || slices.Contains(names, p):
		default:
			names = append(names, p)
		}
	}
	slices.Sort(names)
	return names, nil
}

// closedByName says whether nobody but the mirror and Switchback may write to the topics.
func (t *turning) closedByName(ctx context.Context, topics []string) (bool, error) {
	standing, err := t.to.ACLs(ctx)
	if err != nil {
		return false, wrap("read the ACLs of "+t.names.To.Name, err)
	}
	names, err := t.writers(standing, topics)
	if err != nil || len(names) == 0 {
		return false, err
	}
	outcomes, err := t.to.ACLsOnEveryBroker(ctx, replication.Closed(names, topics), true)
	_, text := notOK(outcomes)
	return err == nil && text == "" && len(outcomes) > 0, wrap("read back whether "+t.names.To.Name+" is closed", err)
}
