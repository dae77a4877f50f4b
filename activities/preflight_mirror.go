package activities

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"switchback/replication"
	"switchback/runbooks"
)

// adviceIsHeard shows what the backend finds about its own configuration.
func adviceIsHeard(ctx context.Context, s *survey) error {
	advice, err := s.r.link.Advice(ctx)
	for _, a := range advice {
		s.add(a.Check, a.Level, a.Means, a.Do)
	}
	return wrap("read the configuration of link "+s.status.Name, err)
}

// sealHolds proves that ACLs hold the mirror's principals: by a login as each, which must see nothing of a topic that is
// denied to everybody (P10). What cannot be proven costs a wait for the connectors' stop, and the operator is told.
func sealHolds(clusters Clusters) func(context.Context, *survey) error {
	return func(ctx context.Context, s *survey) error {
		mm := s.in.Route.Link.MirrorMaker
		if mm == nil {
			return nil
		}
		const check = "seal"
		waits := "the run waits until the connectors have stopped before it switches: 1 to 4 s, and about a minute when the source is dead"
		if mm.Principals.Credentials == nil {
			s.warn(check, "nobody can prove that ACLs hold the mirror's principals, so the seal is not trusted alone: "+waits,
				"put their secrets on the target into Vault and name them under principals.credentials of the link")
			return nil
		}
		proven := true
		for _, p := range []struct{ role, principal, path string }{
			{"data", mm.Principals.Data, mm.Principals.Credentials.Data.Vault},
			{"admin", mm.Principals.Admin, mm.Principals.Credentials.Admin.Vault},
		} {
			who, super, err := clusters.SuperUser(ctx, s.in.Route.To, p.path, !s.in.DryRun)
			switch {
			case err != nil:
				proven = false
				s.warn(check, fmt.Sprintf("whether ACLs hold %s (%s) could not be found out: %v; %s", p.principal, p.role, err, waits), "see to its secret at "+p.path)
			case who != p.principal:
				proven = false
				s.problem(check, fmt.Sprintf("the secret at %s logs in as %s, the runbook says that the mirror's %s principal is %s", p.path, who, p.role, p.principal), "correct principals of the link, or the secret")
			case super:
				proven = false
				s.warn(check, fmt.Sprintf("%s (%s) is a super user of %s, whom no ACL holds: no seal is possible, and %s", p.principal, p.role, s.in.Route.To.Name, waits), "give the mirror a principal with ACLs of its own")
			}
		}
		if proven {
			s.result.SealProven = true
			s.ok(check, "ACLs hold %s and %s on %s: the mirror can be sealed at once", mm.Principals.Data, mm.Principals.Admin, s.in.Route.To.Name)
		}
		return nil
	}
}

// standbyIsClosed looks for clients of the runbook that could write to the standby now: on a mirror that is no topic of its
// own, a stray record would count as mirrored (P11).
func standbyIsClosed(_ context.Context, s *survey) error {
	if s.r.link.StopIsFinal() {
		return nil
	}
	var open []string
	for _, c := range s.in.Runbook.Clients {
		may := func(t replication.Topic) bool {
			return !s.isClosed(c.Principal, t.Name) &&
				replication.Allowed(s.acls[s.in.Route.To.Name], replication.Request{Principal: c.Principal, Host: "*", ResourceType: replication.ResourceTopic, Name: t.Name, Operation: replication.OpWrite})
		}
		if c.Role != runbooks.RoleConsumer && slices.ContainsFunc(s.topics, may) {
			open = append(open, fmt.Sprintf("%s (%s)", c.Name, c.Principal))
		}
	}
	if len(open) > 0 {
		s.warn("closed standby", fmt.Sprintf("%s may write to the mirrored topics of %s now; a record of a stray one would count as mirrored", strings.Join(open, ", "), s.in.Route.To.Name),
			"`switchback protect "+s.in.Runbook.Metadata.Name+"` closes it until a run takes them there; until then make sure that nothing of theirs is pointed at the standby by hand")
	} else if len(s.closed) > 0 {
		s.ok("closed standby", "nobody but the mirror writes to %s until the run opens it", s.in.Route.To.Name)
	}
	return nil
}

// mirrorLag is how many records the target has not: by the ends of both clusters where mirrors keep offsets, else by what
// the link says it has read, which is older than the truth and so never too little. Unknown if any part is.
func mirrorLag(ctx context.Context, link replication.Link, topics []string, from, to []replication.Ends) (int64, error) {
	if link.StopIsFinal() {
		a, b := total(from), total(to)
		if a == replication.Unknown || b == replication.Unknown {
			return replication.Unknown, nil
		}
		return max(a-b, 0), nil
	}
	states, err := mirrorStates(ctx, link, topics)
	if err != nil {
		return replication.Unknown, err
	}
	var lag int64
	for _, e := range from {
		at := fetched(states[e.Topic], e.Partition)
		switch {
		case e.HighWatermark == replication.Unknown:
			return replication.Unknown, nil
		case e.HighWatermark == e.Start: // nothing to read
		case at == replication.Unknown:
			return replication.Unknown, nil
		default:
			lag += max(e.HighWatermark-at, 0)
		}
	}
	return lag, nil
}
