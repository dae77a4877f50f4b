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
	"switchback/runbooks"
)

// Protection makes and repairs what stands between switches: the link and its mirrors, their configs, Switchback's own topics,
// the closed standby, the clients' logins. Differences shows what is not as it should be; Mend changes what was shown, and nothing
// else.
type Protection struct{ Outside }

// ProtectInput names the way that the workload would go: from where it is to its standby. IDs are the differences to be mended.
type ProtectInput struct {
	Guard   Guard            `json:"guard"`
	Runbook runbooks.Runbook `json:"runbook"`
	Route   Route            `json:"route"`
	IDs     []string         `json:"ids,omitempty"`
}

// LookResult is what was found. The list is cut; More counts what was left out.
type LookResult struct {
	Differences []replication.Difference `json:"differences"`
	More        int                      `json:"more,omitempty"`
	Stands      bool                     `json:"stands"` // protection stands in spite of them
	LinkName    string                   `json:"linkName"`
	Topics      int                      `json:"topics"`
	Groups      int                      `json:"groups"`
}

// MendResult says what became of each difference that was to be mended, by its ID.
type MendResult struct {
	Acted
	Outcomes []replication.Outcome `json:"outcomes"`
}

// differencesShown keeps a result far below what a history may carry; another run finds the rest.
const differencesShown = 500

// errNotMended stands for what no backend says why.
var errNotMended = errors.New("nothing was said about it")

// Differences compares what stands with what the runbook needs, and writes nothing anywhere.
func (a *Protection) Differences(ctx context.Context, in ProtectInput) (out LookResult, err error) {
	ctx, _ = begin(ctx)
	g, err := a.open(ctx, in.Route)
	if err != nil {
		return out, err
	}
	defer g.close()
	s, err := a.survey(ctx, g, in)
	if err != nil {
		return out, err
	}
	out.Differences, err = a.differences(ctx, s)
	if err != nil {
		return out, err
	}
	out.Stands, out.LinkName, out.Topics, out.Groups = replication.Stands(out.Differences), s.link, len(s.want.Topics), len(s.want.Groups)
	if out.More = len(out.Differences) - differencesShown; out.More > 0 {
		out.Differences = out.Differences[:differencesShown]
	}
	out.More = max(out.More, 0)
	return out, nil
}

// Mend looks once more and mends those of the differences named that are still exactly what was shown. What is gone is mended
// already; what reads differently is left alone, and said so. It may run twice: a second attempt goes on where the first one's
// time for writes was over.
func (a *Protection) Mend(ctx context.Context, in ProtectInput) (out MendResult, err error) {
	ctx, out.Acted = begin(ctx)
	r, err := a.opened(ctx, in.Guard, in.Route)
	if err != nil {
		return out, err
	}
	defer r.close()
	s, err := a.survey(ctx, r, in)
	if err != nil {
		return out, err
	}
	found, err := a.differences(ctx, s)
	if err != nil {
		return out, err
	}
	var mend []replication.Difference
	for _, d := range found {
		if slices.Contains(in.IDs, d.ID()) && d.Mendable() {
			mend = append(mend, d)
		}
	}
	if len(mend) == 0 {
		return out, nil
	}
	wctx, cancel, err := writing(ctx)
	if err != nil {
		return out, err
	}
	defer cancel()
	killpoint.Reach("Mend/middle")
	out.Changed = true
	// The link last: mirrors begin when what they need is there.
	var ofLink []replication.Difference
	for _, d := range mend {
		o := replication.Outcome{Name: d.ID(), Status: replication.OK}
		var done error
		switch d.Kind {
		case replication.KindOwnTopic:
			done = s.mendOwnTopic(wctx, d)
		case replication.KindTopicConfig:
			done = s.mendConfig(wctx, d)
		case replication.KindStandby:
			done = a.closeStandby(wctx, s, in.Guard.Run)
		default:
			ofLink = append(ofLink, d)
			continue
		}
		if done != nil && wctx.Err() != nil {
			return out, wrap("mend "+d.Name, done) // the next attempt has its own time
		}
		if done != nil {
			o.Status, o.Reason = replication.Failed, done.Error()
		}
		out.Outcomes = append(out.Outcomes, o)
	}
	if len(ofLink) == 0 {
		return out, nil
	}
	done, err := s.protector.Mend(wctx, s.want, ofLink)
	if err != nil || wctx.Err() != nil {
		return out, wrap("mend link "+s.link, errors.Join(err, wctx.Err()))
	}
	for _, d := range ofLink {
		i := slices.IndexFunc(done, func(o replication.Outcome) bool { return o.Name == d.ID() })
		if i < 0 {
			out.Outcomes = append(out.Outcomes, replication.Outcome{Name: d.ID(), Status: replication.Unclear, Reason: errNotMended.Error()})
			continue
		}
		out.Outcomes = append(out.Outcomes, done[i])
	}
	return out, nil
}

// guarded is what a look has read.
type guarded struct {
	in        ProtectInput
	r         *route
	protector replication.Protector
	link      string
	want      replication.Protection
	closed    OwnedACLs         // the standby's, as the runbook has closed it
	acls      []replication.ACL // of the target
	reversed  string            // why a closed standby would be copied to the active cluster; empty if it would not
}

// survey reads what the differences are found in, side by side.
func (a *Protection) survey(ctx context.Context, r *route, in ProtectInput) (*guarded, error) {
	s := &guarded{in: in, r: r}
	s.protector, _ = r.link.(replication.Protector)
	if s.protector == nil {
		return nil, fmt.Errorf("the link's backend cannot be protected: %w", fault.ErrInvalid)
	}
	var there []replication.Topic
	var groups []replication.Group
	var status replication.LinkStatus
	err := sideBySide(
		func() (err error) {
			s.want.Topics, err = r.from.Topics(ctx, in.Runbook.Topics.Match)
			return wrap("list topics of "+in.Route.From.Name, err)
		},
		func() (err error) {
			there, err = r.to.Topics(ctx, in.Runbook.Topics.Match)
			return wrap("list topics of "+in.Route.To.Name, err)
		},
		func() (err error) {
			groups, err = r.from.Groups(ctx, in.Runbook.Groups.Match)
			return wrap("list groups of "+in.Route.From.Name, err)
		},
		func() (err error) {
			s.acls, err = r.to.ACLs(ctx)
			return wrap("read the ACLs of "+in.Route.To.Name, err)
		},
		func() (err error) { status, err = r.link.Status(ctx); return ignoreMissing(err) },
		func() error { return a.reverseSyncs(ctx, s) },
	)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(s.want.Topics, func(a, b replication.Topic) int { return strings.Compare(a.Name, b.Name) })
	s.want.Groups, s.link, s.want.There = groupNames(groups), linkName(status, in.Route.Link), map[string]replication.Topic{}
	var names []string
	for _, t := range there {
		s.want.There[t.Name] = t
		names = append(names, t.Name)
	}
	if !r.link.StopIsFinal() && len(names) > 0 {
		ends, err := r.to.Ends(ctx, names)
		if err != nil {
			return nil, wrap("read the ends of "+in.Route.To.Name, err)
		}
		for _, e := range ends {
			if e.HighWatermark == replication.Unknown || e.HighWatermark > e.Start {
				s.want.Holding = append(s.want.Holding, e.Partition)
			}
		}
	}
	return s, s.remembered(ctx)
}

// linkName is the link's own, also of one that is not there.
func linkName(status replication.LinkStatus, link runbooks.Link) string {
	switch {
	case status.Name != "":
		return status.Name
	case link.ClusterLinking != nil:
		return link.ClusterLinking.Link
	case link.MirrorMaker != nil:
		return link.MirrorMaker.Source
	}
	return ""
}

// remembered reads from switchback.marks what stands of runs: fences and seals, what a link's syncs were before, and whether the
// workload was ever moved. Before Protect has made the topic there is nothing to remember.
func (s *guarded) remembered(ctx context.Context) error {
	all, err := s.r.records.to.Load(ctx, "")
	if errors.Is(err, fault.ErrNotFound) {
		return nil
	}
	if err != nil {
		return wrap("read "+MarksTopic+" of "+s.in.Route.To.Name, err)
	}
	kept := loaded(all)
	for key := range kept.with("acls/") {
		owned, err := one[OwnedACLs](kept, key)
		if err != nil {
			return err
		}
		if len(owned.ACLs) == 0 {
			continue
		}
		s.want.Denied = true
		if runbook, site, _ := strings.Cut(strings.TrimPrefix(key, "acls/"), "/"); runbook == s.in.Runbook.Metadata.Name {
			s.want.Held = fmt.Sprintf("run %s has left %d DENY ACLs on %s: the workload was moved, or its move was not settled; failback gives them way", owned.Run, len(owned.ACLs), site)
		}
	}
	var newest time.Time
	prefix := "syncs/" + s.link + "/"
	for key := range kept.with(prefix) {
		before, err := one[SuspendedSyncs](kept, key)
		if err != nil {
			return err
		}
		ours := slices.ContainsFunc(before.Held.Topics, func(t string) bool { return s.in.Runbook.Topics.Match(t) })
		if ours && !before.QuietAt.Before(newest) {
			sync := before.Before.ACLs
			s.want.ACLsBefore, newest = &sync, before.QuietAt
		}
	}
	s.closed, err = one[OwnedACLs](kept, standbyKey(s.in.Runbook.Metadata.Name, s.in.Route.To.Name))
	if err != nil {
		return err
	}
	s.want.Moved, err = wasMoved(kept, s.in.Runbook.Topics)
	return err
}

// with are the keys that begin with a prefix.
func (l loaded) with(prefix string) map[string]bool {
	keys := map[string]bool{}
	for key := range l {
		if strings.HasPrefix(key, prefix) {
			keys[key] = true
		}
	}
	return keys
}

// wasMoved says whether any mark of the runbook's topics belongs to a switch that happened.
func wasMoved(kept loaded, topics runbooks.Patterns) (bool, error) {
	for key := range kept.with("marks/") {
		marks, err := one[[]replication.Mark](kept, key)
		if err != nil {
			return false, err
		}
		if slices.ContainsFunc(marks, func(m replication.Mark) bool { return m.Epoch != replication.Unknown && topics.Match(m.Topic) }) {
			return true, nil
		}
	}
	return false, nil
}

// differences are all that is not as it should be, problems first.
func (a *Protection) differences(ctx context.Context, s *guarded) ([]replication.Difference, error) {
	var link, drift, own, logins []replication.Difference
	err := sideBySide(
		func() (err error) {
			link, err = s.protector.Differences(ctx, s.want)
			return wrap("look at link "+s.link, err)
		},
		func() (err error) { drift, err = s.drift(ctx); return err },
		func() (err error) { own, err = s.ownTopics(ctx); return err },
		func() error { logins = a.logins(ctx, s); return nil },
	)
	if err != nil {
		return nil, err
	}
	all := slices.Concat(s.fences(), own, link, drift, s.standby(), logins)
	slices.SortStableFunc(all, func(x, y replication.Difference) int {
		rank := func(d replication.Difference) int {
			if d.Level == replication.LevelProblem {
				return 0
			}
			return 1
		}
		return rank(x) - rank(y)
	})
	return all, nil
}

// fences: what a run left behind stands in the way of nearly everything.
func (s *guarded) fences() []replication.Difference {
	if s.want.Held == "" {
		return nil
	}
	return []replication.Difference{{Kind: replication.KindFence, Name: s.in.Runbook.Metadata.Name, Level: replication.LevelProblem,
		Is: s.want.Held, Should: "gone", Do: "run failback, or fail forward: both lift what they own when it is safe"}}
}
