package activities

import (
	"context"
	"slices"
	"strings"

	"switchback/replication"
)

// bequeath leaves what denies a shared mirror its syncs to another runbook while a fence of that one stands on the mirror's source:
// whoever comes home first would otherwise let the mirror copy that fence to where the other's clients are (P5). The last one lifts it.
// An ACL against somebody by name is no fence: it stands for days on a cluster that nobody uses.
func bequeath(ctx context.Context, rec records, link replication.Link, runbook, source, target string) error {
	owned, err := rec.owned(ctx, runbook, target)
	if err != nil {
		return err
	}
	denied := link.Denials(replication.DenySyncs, nil)
	rest := replication.Missing(owned.ACLs, denied)
	if len(rest) == len(owned.ACLs) {
		return nil
	}
	heirs, err := fencing(ctx, rec, runbook, source)
	if err != nil || len(heirs) == 0 {
		return err
	}
	theirs, err := rec.owned(ctx, heirs[0], target)
	if err != nil {
		return err
	}
	theirs.ACLs = append(theirs.ACLs, replication.Missing(replication.Missing(owned.ACLs, rest), theirs.ACLs)...)
	owned.ACLs = rest
	wctx, cancel, err := writing(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	return rec.put(wctx, map[string]any{aclsKey(heirs[0], target): theirs, aclsKey(runbook, target): owned})
}

// fencing names the other runbooks of which a fence stands on a cluster.
func fencing(ctx context.Context, rec records, runbook, site string) ([]string, error) {
	return owners(ctx, rec, runbook, func(on string, a replication.ACL) bool { return on == site && a.Principal == replication.Everybody })
}

// owners names the runbooks, this one apart, that own ACLs which count, by the cluster where they stand.
func owners(ctx context.Context, rec records, runbook string, counts func(site string, a replication.ACL) bool) (names []string, err error) {
	all, err := rec.to.Load(ctx, "acls/")
	if err != nil {
		return nil, wrap("read what stands of other runbooks", err)
	}
	for key := range all {
		owned, err := one[OwnedACLs](loaded(all), key)
		if err != nil {
			return nil, err
		}
		name, site, _ := strings.Cut(strings.TrimPrefix(key, "acls/"), "/")
		some := slices.ContainsFunc(owned.ACLs, func(a replication.ACL) bool { return counts(site, a) })
		if some && name != runbook && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names, nil
}
