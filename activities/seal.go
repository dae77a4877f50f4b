package activities

import (
	"context"

	"switchback/replication"
)

// deny takes the link a right on the target by ACLs that the runbook owns, and reads them back from every broker (P4,
// P6, P10). A backend that has calls of its own for it needs none.
func deny(ctx context.Context, r *route, run Run, what replication.Denial, names []string) error {
	acls := r.link.Denials(what, names)
	if len(acls) == 0 {
		return nil
	}
	if err := own(ctx, r.records, r.to, run, r.names.To.Name, acls); err != nil {
		return err
	}
	_, err := everyBroker(ctx, r.to, acls, true)
	return wrap("read back from "+r.names.To.Name+" that the mirror is denied", err)
}
