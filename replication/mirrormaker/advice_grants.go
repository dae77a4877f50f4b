package mirrormaker

import (
	"context"
	"fmt"
	"slices"

	"switchback/replication"
)

// adviseGrants: what the connectors' target.cluster.* login lacks on the target. Brokers say nothing of the first: without WRITE
// on the offset syncs' topic the source connector goes on copying and no group is ever translated. What cannot be read is said
// by adviseSeal.
func (l *Link) adviseGrants(ctx context.Context, a *advisor, s settings) {
	acls, err := l.cfg.To.ACLs(ctx)
	if err != nil {
		return
	}
	topics, err := l.mirrored(ctx, s)
	if err != nil {
		return
	}
	// A seal, or a closed standby, takes away no need, and from which hosts the mirror comes nobody knows.
	acls = slices.DeleteFunc(slices.Clone(acls), func(acl replication.ACL) bool { return acl.Permission == replication.Deny })
	for i := range acls {
		acls[i].Host = replication.Anywhere
	}
	may := func(name, operation string) bool {
		return replication.Allowed(acls, replication.Request{Principal: l.cfg.Admin, Host: replication.Anywhere, ResourceType: replication.ResourceTopic, Name: name, Operation: operation})
	}
	if !slices.ContainsFunc(acls, func(acl replication.ACL) bool { return acl.Principal == l.cfg.Admin || acl.Wildcard() }) {
		return // a super user, or nobody who could run: adviseSeal says so
	}
	before := len(a.list)
	names := l.cfg.Names
	names.Syncs = s.or("offset-syncs.topic.location", SyncsOnSource)
	if syncs := names.OffsetSyncs(); s.flag("emit.offset-syncs.enabled", true) && names.Syncs == SyncsOnTarget && !may(syncs, replication.OpWrite) {
		a.add("mirror's grants", warning, fmt.Sprintf("%s has no grant to write to %s: unless it is a super user the mirror runs, and no group's offset is ever translated", l.cfg.Admin, syncs),
			fmt.Sprintf("grant it WRITE on topic %s on the target", syncs))
	}
	if s.flag("sync.topic.configs.enabled", true) {
		for _, t := range topics {
			if !may(t.target.Name, "ALTER_CONFIGS") {
				a.add("mirror's grants", warning, fmt.Sprintf("%s has no grant to change the configs of mirrored topics, such as %s: unless it is a super user they stay as they are when their source's change", l.cfg.Admin, t.target.Name),
					"grant it ALTER_CONFIGS on the mirrored topics on the target, or set sync.topic.configs.enabled=false")
				break
			}
		}
	}
	if len(a.list) == before {
		a.add("mirror's grants", fine, l.cfg.Admin+" may write offset syncs and follow the configs of topics", "")
	}
}
