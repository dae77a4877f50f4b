package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"switchback/internal/fault"
	"switchback/internal/killpoint"
	"switchback/replication"
)

// A mirror that is a topic like any other can be written to by whoever has the grant, and grants are made ahead of time. So
// Protect closes the standby: it denies WRITE to the runbook's clients by name, and a run lifts that on every broker once it
// has kept its marks, just before the switch (P11). These ACLs are owned by the runbook as fences are (P4), under a key of their
// own: a rollback that lifts fences leaves the standby closed.

func standbyKey(runbook, site string) string { return "standby/" + runbook + "/" + site }

// closeStandby closes it to the runbook's clients.
func (a *Protection) closeStandby(ctx context.Context, s *guarded, run Run) error {
	return shut(ctx, s.r.records, s.r.to, run, s.in.Route.To.Name, replication.Closed(s.writers(), s.mirrored()), s.acls, s.closed.ACLs)
}

// shut records the ACLs that close a standby, then makes those that lack, and reads them back from every broker (P6). What stood
// before and was not recorded is not ours.
func shut(ctx context.Context, rec records, on Kafka, run Run, site string, want, standing, closed []replication.ACL) error {
	create, ours := replication.Plan(want, standing, closed)
	ours = append(ours, replication.Missing(closed, ours)...)
	if err := rec.put(ctx, map[string]any{standbyKey(run.Runbook, site): OwnedACLs{Run: run.ID(), ACLs: ours}}); err != nil {
		return err
	}
	killpoint.Reach("Mend/standby")
	if err := on.CreateACLs(ctx, create); err != nil {
		return wrap("close the standby "+site, err)
	}
	_, err := everyBroker(ctx, on, want, true)
	return wrap("read back that the standby is closed", err)
}

// closedStandby are the ACLs by which the runbook keeps its clients from a standby.
func closedStandby(ctx context.Context, from records, runbook, site string) ([]replication.ACL, error) {
	var closed OwnedACLs
	err := from.get(ctx, standbyKey(runbook, site), &closed)
	if errors.Is(err, fault.ErrNotFound) {
		return nil, nil
	}
	return closed.ACLs, err
}

// openStandby lifts what keeps the runbook's clients from the target, on every broker: they are about to be sent there. The marks
// are kept before it. It changes nothing where the standby was never closed, and may be repeated.
func openStandby(ctx context.Context, r *route, g Guard) error {
	if r.link.StopIsFinal() {
		return nil
	}
	site := r.names.To.Name
	closed, err := closedStandby(ctx, r.records, g.Run.Runbook, site)
	if err != nil || len(closed) == 0 {
		return err
	}
	if err := r.to.DeleteACLs(ctx, closed); err != nil {
		return wrap("open the standby "+site, err)
	}
	killpoint.Reach("Open/middle")
	if _, err := everyBroker(ctx, r.to, closed, false); err != nil {
		return wrap("read back that "+site+" is open", err)
	}
	return r.records.put(ctx, map[string]any{standbyKey(g.Run.Runbook, site): OwnedACLs{Run: g.Run.ID()}})
}

// reverseSyncs finds out whether a link of the other direction would copy a closed standby to the cluster that clients are on (P5).
func (a *Protection) reverseSyncs(ctx context.Context, s *guarded) error {
	back, ok := s.in.Runbook.Link(s.in.Route.To.Name, s.in.Route.From.Name)
	if !ok || s.r.link.StopIsFinal() {
		return nil
	}
	link, err := a.Links.Open(ctx, Route{From: s.in.Route.To, To: s.in.Route.From, Link: back}, ownOf(s.r.to), s.r.from)
	if err != nil {
		return wrap("open the link of the other direction", err)
	}
	status, err := link.Status(ctx)
	switch {
	case errors.Is(err, fault.ErrNotFound):
		return nil // nothing runs there
	case err != nil:
		return wrap("read the link of the other direction", err)
	}
	mirrors, err := link.Mirrors(ctx)
	if err != nil {
		return wrap("read the mirrors of the other direction", err)
	}
	runs := slices.ContainsFunc(mirrors, func(m replication.Mirror) bool { return m.State != replication.MirrorStopped })
	if status.Syncs.ACLs.Enabled && runs {
		s.reversed = fmt.Sprintf("link %s of the other direction runs and syncs ACLs, and would copy the DENY to %s, where the clients are: stop it, or turn its ACL sync off", status.Name, s.in.Route.From.Name)
	}
	return nil
}

// readClosed reads what closes the standby. Where the records cannot be read it is as if nothing did: another check says so.
func (s *survey) readClosed(ctx context.Context) {
	if closed, err := closedStandby(ctx, s.r.records, s.in.Runbook.Metadata.Name, s.in.Route.To.Name); err == nil {
		s.closed = closed
	}
}

// willStand are the ACLs of the target, by the source's names, as they will stand when clients start: a run opens the standby before.
func (s *survey) willStand(there []replication.ACL) []replication.ACL {
	return replication.Unprefixed(s.r.link.Prefix(), replication.Missing(there, s.closed))
}

// isClosed says whether the runbook keeps the principal from a topic of the standby until a run opens it.
func (s *survey) isClosed(principal, topic string) bool {
	return slices.Contains(s.closed, replication.Closed([]string{principal}, []string{s.r.link.Prefix() + topic})[0])
}
