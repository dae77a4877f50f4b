package clusterlinking

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"switchback/internal/fault"
	"switchback/internal/rest"
	"switchback/replication"
)

// syncKeys are the configurations of one sync.
type syncKeys struct{ enable, interval, filter, list string }

var (
	offsetKeys = syncKeys{"consumer.offset.sync.enable", "consumer.offset.sync.ms", "consumer.offset.group.filters", groupFilters}
	aclKeys    = syncKeys{"acl.sync.enable", "acl.sync.ms", "acl.filters", "aclFilters"}
	topicKeys  = syncKeys{"auto.create.mirror.topics.enable", "", "auto.create.mirror.topics.filters", topicFilters}
)

func syncsOf(configs map[string]wireConfig) replication.Syncs {
	return replication.Syncs{Offsets: offsetKeys.sync(configs), ACLs: aclKeys.sync(configs), Topics: topicKeys.sync(configs)}
}

func (k syncKeys) sync(configs map[string]wireConfig) replication.Sync {
	enable, set := configs[k.enable]
	return replication.Sync{
		Enabled:  strings.EqualFold(string(enable.Value), "true"),
		Interval: millis(configs[k.interval]),
		Filter:   string(configs[k.filter].Value),
		// Older services say where a value comes from instead of whether it is the default.
		Default: !set || enable.Default != nil && bool(*enable.Default) || enable.Default == nil && enable.Source == "DEFAULT_CONFIG",
	}
}

// readSyncs reads the settings. The keys must be there: a list without them says nothing about the syncs.
func (l *Link) readSyncs(ctx context.Context) (replication.Syncs, error) {
	configs, err := l.client.configs(ctx, l.name)
	if err != nil {
		return replication.Syncs{}, err
	}
	for _, k := range []string{offsetKeys.enable, aclKeys.enable} {
		if _, ok := configs[k]; !ok {
			return replication.Syncs{}, fault.Hint(fmt.Errorf("read the configuration of link %s: %w: %s is missing", l.name, rest.ErrMalformed, k), "Switchback's principal may lack DESCRIBE_CONFIGS, or the service is too old")
		}
	}
	return syncsOf(configs), nil
}

// suspendChanges says what is still to be written for a suspension; nothing when it stands.
func suspendChanges(now replication.Syncs, s replication.Suspension) ([]ConfigChange, error) {
	var changes []ConfigChange
	if now.ACLs.Enabled {
		changes = append(changes, ConfigChange{Name: aclKeys.enable, Value: "false"})
	}
	for _, x := range []struct {
		keys  syncKeys
		sync  replication.Sync
		names []string
	}{{offsetKeys, now.Offsets, s.Groups}, {topicKeys, now.Topics, s.Topics}} {
		if !x.sync.Enabled {
			continue
		}
		filter, err := addExcludes(x.sync.Filter, x.keys.list, x.names)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", x.keys.filter, err)
		}
		if filter != x.sync.Filter {
			changes = append(changes, ConfigChange{Name: x.keys.filter, Value: filter})
		}
	}
	return changes, nil
}

// restoreChanges says what is still to be written to put back what stood before. Of the filters only our excludes are
// taken out; ACL sync belongs to the whole link and is put back as it was.
func restoreChanges(now, before replication.Syncs, held replication.Suspension, keepACLsOff bool) ([]ConfigChange, error) {
	var changes []ConfigChange
	acls := before.ACLs
	if keepACLsOff {
		if now.ACLs.Enabled {
			changes = append(changes, ConfigChange{Name: aclKeys.enable, Value: "false"})
		}
	} else {
		// One request: a sync without its filter, or a filter without its sync, may be refused.
		if now.ACLs.Enabled != acls.Enabled || acls.Default && !now.ACLs.Default {
			changes = append(changes, ConfigChange{Name: aclKeys.enable, Value: strconv.FormatBool(acls.Enabled), Reset: acls.Default})
		}
		if !sameFilter(now.ACLs.Filter, acls.Filter) {
			changes = append(changes, setFilter(aclKeys, acls.Filter))
		}
	}
	for _, x := range []struct {
		keys        syncKeys
		now, before replication.Sync
		names       []string
	}{{offsetKeys, now.Offsets, before.Offsets, held.Groups}, {topicKeys, now.Topics, before.Topics, held.Topics}} {
		filter, err := removeExcludes(x.now.Filter, x.before.Filter, x.keys.list, x.names)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", x.keys.filter, err)
		}
		if !sameFilter(filter, x.now.Filter) {
			changes = append(changes, setFilter(x.keys, filter))
		}
	}
	return changes, nil
}

// setFilter resets the key where there was no filter: its default is to have none.
func setFilter(k syncKeys, filter string) ConfigChange {
	return ConfigChange{Name: k.filter, Value: filter, Reset: filter == ""}
}

// SuspendSyncs turns ACL sync off, and excludes the groups from offset sync and the topics from auto-create. It may be
// repeated and reads back until it is so. ACL sync acts on the whole link: the caller holds the link's lock.
func (l *Link) SuspendSyncs(ctx context.Context, before replication.Syncs, s replication.Suspension) error {
	err := l.converge(ctx, func(now replication.Syncs) ([]ConfigChange, error) { return suspendChanges(now, s) })
	if err != nil {
		return fmt.Errorf("suspend the syncs of link %s: %w", l.name, err)
	}
	l.keepACLFilter(ctx, before)
	return nil
}

// keepACLFilter writes the filter back that turning the sync off has cleared, where the service lets it stand. It is a
// courtesy to people who look: the truth is with the caller, so failing is no error.
func (l *Link) keepACLFilter(ctx context.Context, before replication.Syncs) {
	now, err := l.readSyncs(ctx)
	if err != nil || now.ACLs.Enabled || before.ACLs.Filter == "" || now.ACLs.Filter != "" {
		return
	}
	if err := l.client.AlterConfigs(ctx, l.name, []ConfigChange{setFilter(aclKeys, before.ACLs.Filter)}); err != nil {
		l.log.Debug("the filter of ACL sync cannot stand while the sync is off; it is put back with it", "error", err)
	}
}

// RestoreSyncs puts back what stood before and reads it back.
func (l *Link) RestoreSyncs(ctx context.Context, before replication.Syncs, held replication.Suspension, keepACLsOff bool) error {
	err := l.converge(ctx, func(now replication.Syncs) ([]ConfigChange, error) {
		return restoreChanges(now, before, held, keepACLsOff)
	})
	if err != nil {
		return fmt.Errorf("restore the syncs of link %s: %w", l.name, err)
	}
	if keepACLsOff {
		l.keepACLFilter(ctx, before)
	}
	return nil
}

// converge reads, writes what is missing, and reads until nothing is. A write that is not seen after l.settle is judged
// and written anew: another runbook may have written the same filter between our read and our write.
func (l *Link) converge(ctx context.Context, missing func(replication.Syncs) ([]ConfigChange, error)) error {
	var written time.Time
	for {
		now, err := l.readSyncs(ctx)
		if err != nil {
			return err
		}
		changes, err := missing(now)
		if err != nil || len(changes) == 0 {
			return err
		}
		if written.IsZero() || time.Since(written) >= l.settle {
			// Outcome unknown is no end: the next look tells.
			if err := l.client.AlterConfigs(ctx, l.name, changes); err != nil && !errors.Is(err, fault.ErrUnclear) {
				return err
			}
			written = time.Now()
		}
		select {
		case <-ctx.Done():
			return fault.Hint(fmt.Errorf("%w: the link does not show %s: %w", fault.ErrNotReady, names(changes), ctx.Err()), "look at the link's configuration; something else may be writing it")
		case <-time.After(l.poll):
		}
	}
}

func names(changes []ConfigChange) string {
	var ns []string
	for _, c := range changes {
		ns = append(ns, c.Name)
	}
	slices.Sort(ns)
	return strings.Join(ns, ", ")
}

// HoldsBack reads that the suspension has excluded the groups, and returns fault.ErrNotReady naming those that the link
// would still write.
func (l *Link) HoldsBack(ctx context.Context, groups []string) error {
	now, err := l.readSyncs(ctx)
	if err != nil {
		return fmt.Errorf("held-back groups: %w", err)
	}
	if !now.Offsets.Enabled {
		return nil
	}
	var open []string
	for _, g := range groups {
		synced, err := passes(now.Offsets.Filter, groupFilters, g)
		if err != nil {
			return fmt.Errorf("held-back groups: %s: %w", offsetKeys.filter, err)
		}
		if synced {
			open = append(open, g)
		}
	}
	if len(open) > 0 {
		return fault.Hint(fmt.Errorf("held-back groups: %w: link %s still syncs the offsets of %s", fault.ErrNotReady, l.name, strings.Join(open, ", ")), "suspend the syncs again; another writer may have changed %s", offsetKeys.filter)
	}
	return nil
}

// Synced says which groups the offset sync covers: OK, or Failed with the reason.
func (l *Link) Synced(s replication.Syncs, groups []string) []replication.Outcome {
	out := make([]replication.Outcome, 0, len(groups))
	for _, g := range groups {
		o := replication.Outcome{Name: g, Status: replication.OK}
		synced, err := passes(s.Offsets.Filter, groupFilters, g)
		switch {
		case !s.Offsets.Enabled:
			o.Status, o.Reason = replication.Failed, "the link's offset sync is off"
		case err != nil:
			o.Status, o.Reason = replication.Unclear, err.Error()
		case !synced:
			o.Status, o.Reason = replication.Failed, "the group is outside "+offsetKeys.filter
		}
		out = append(out, o)
	}
	return out
}
