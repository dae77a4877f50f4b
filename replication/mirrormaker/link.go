// Package mirrormaker is the replication.Link over MirrorMaker 2 on Kafka Connect.
//
// Start with link.go, what activities see. The Connect side: status.go and positions.go read the connectors and what they
// mirror, stop.go stops them and lets them go on, advice.go says what their configuration means for a run, config.go is as much of that as anybody looks at; below
// them connect.go and offsets.go have one method for each request of Connect's REST interface, client.go finds a worker that answers, and
// errors.go is the one place where Connect's words become the sentinels of package fault.
//
// The records' side, which needs no Connect: codec.go names and decodes MirrorMaker 2's own topics, checkpoints.go and
// syncs.go read them; Comparer (windows.go, compare.go) finds the same records on both clusters, and from that
// translate.go where groups go on, drained.go whether the target has everything, boundary.go how far a sealed mirror got.
package mirrormaker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"switchback/replication"
)

// The replication policies that a runbook can name.
const (
	PolicyIdentity = "identity" // topics keep their names
	PolicyDefault  = "default"  // the target calls them <source alias>.<topic>
)

// Cluster is what a link asks of a Kafka cluster itself.
type Cluster interface {
	Identity(ctx context.Context) (replication.Identity, error)
	Topics(ctx context.Context, match func(string) bool) ([]replication.Topic, error)
	ACLs(ctx context.Context) ([]replication.ACL, error)
}

// Records compares what stands on both clusters, record by record.
type Records interface {
	Translate(ctx context.Context, groups []replication.GroupOffsets) ([]replication.GroupOffsets, error)
	LastKnown(ctx context.Context, onTarget []replication.GroupOffsets) ([]replication.GroupOffsets, error)
	Drained(ctx context.Context, source []replication.Ends) ([]replication.Outcome, error)
	Boundaries(ctx context.Context, sealed []Sealed) ([]Boundary, error)
}

// Config says which connectors make up the link, and how to reach them.
type Config struct {
	Workers
	Source     string // name of the MirrorSourceConnector
	Checkpoint string // of the MirrorCheckpointConnector; "" when there is none
	Heartbeat  string // of the MirrorHeartbeatConnector; "" when there is none

	Names Names  // Syncs is read from the source connector; the separator is the usual one
	Data  string // principal that the workers' producers write with on the target, such as User:mm2
	Admin string // principal of the connectors' target.cluster.* settings

	From, To Cluster // From may be nil: then nothing is said about topics of the source that MirrorMaker 2 leaves out
	// Compare opens what compares records, once it is known where the offset syncs are, and whether the mirror leaves out
	// the records of aborted transactions (committed).
	Compare func(names Names, committed bool) Records
	Logger  *slog.Logger
}

// Link is MirrorMaker 2 from one cluster to another: up to three connectors of one Connect cluster. Safe for concurrent
// use.
type Link struct {
	cfg    Config
	client *Client
	log    *slog.Logger
	poll   time.Duration // between looks at what was written
	settle time.Duration // after which a write that is not seen is given up

	mu      sync.Mutex
	records Records // opened when first needed
}

var (
	_ replication.Link    = (*Link)(nil)
	_ replication.Bounded = (*Link)(nil)
)

// New makes a Link; nothing is asked of Connect yet. fault.ErrInvalid for an address, a name or a policy that cannot
// work.
func New(cfg Config) (*Link, error) {
	switch {
	case !connectorName(cfg.Source) || cfg.Checkpoint != "" && !connectorName(cfg.Checkpoint) || cfg.Heartbeat != "" && !connectorName(cfg.Heartbeat):
		return nil, invalid("a connector has no name that a path can carry", "set source:, checkpoint: and heartbeat: to the names of the connectors")
	case cfg.Names.Source == "" || cfg.Names.Target == "" || cfg.Names.Source == cfg.Names.Target:
		return nil, invalid("the aliases of the clusters are not two", "set alias: to source.cluster.alias and target.cluster.alias of the connectors")
	case cfg.Names.Policy != PolicyIdentity && cfg.Names.Policy != PolicyDefault:
		return nil, invalid(fmt.Sprintf("%q is no replication policy", cfg.Names.Policy), "set policy: to identity or default")
	case cfg.Data == "" || cfg.Admin == "":
		return nil, invalid("the principals that the mirror writes with are not named", "set principals: data and admin")
	case cfg.To == nil || cfg.Compare == nil:
		return nil, errors.New("open the link: it needs the target cluster, and the records of both")
	}
	client, err := NewClient(cfg.Workers)
	if err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Link{cfg: cfg, client: client, log: cfg.Logger.With("link", cfg.Source), poll: 100 * time.Millisecond, settle: 5 * time.Second}, nil
}

func connectorName(s string) bool { return s != "" && s != "." && s != ".." }

// Client returns the Connect client, for what is not part of replication.Link.
func (l *Link) Client() *Client { return l.client }

// Close closes idle connections.
func (l *Link) Close() { l.client.Close() }

// connectors are the link's own, the source first: what it writes is what a run waits for.
func (l *Link) connectors() []string {
	return slices.DeleteFunc([]string{l.cfg.Source, l.cfg.Checkpoint, l.cfg.Heartbeat}, func(n string) bool { return n == "" })
}

// StopIsFinal is false: connectors can be resumed, once their offsets say what is really there (P15, P27).
func (l *Link) StopIsFinal() bool { return false }

// Prefix is what the target puts before the names of mirrored topics.
func (l *Link) Prefix() string {
	if l.cfg.Names.Policy == PolicyDefault {
		return l.cfg.Names.Source + l.cfg.Names.separator()
	}
	return ""
}

// Denials are the ACLs on the target that hold the connectors back at once, without a change of their configuration:
// that would restart their tasks, and a task that takes more than 5 s to end writes duplicates afterwards (P5, P10).
// A super user ignores them; see Advice.
func (l *Link) Denials(what replication.Denial, names []string) []replication.ACL {
	deny := func(resource, name, principal, operation string) replication.ACL {
		return replication.ACL{ResourceType: resource, Pattern: replication.PatternLiteral, Name: name, Principal: principal,
			Host: replication.Anywhere, Operation: operation, Permission: replication.Deny}
	}
	var acls []replication.ACL
	switch what {
	case replication.DenySyncs:
		acls = []replication.ACL{
			deny(replication.ResourceCluster, replication.ClusterName, l.cfg.Admin, "ALTER"),
			deny(replication.ResourceCluster, replication.ClusterName, l.cfg.Admin, "CREATE"),
			deny(replication.ResourceTopic, "*", l.cfg.Admin, "CREATE"),
		}
	case replication.DenyGroups:
		for _, group := range names {
			acls = append(acls, deny(replication.ResourceGroup, group, l.cfg.Admin, replication.OpRead))
		}
	case replication.DenyTopics:
		for _, topic := range names {
			topic = l.Prefix() + topic
			acls = append(acls, deny(replication.ResourceTopic, topic, l.cfg.Data, replication.OpWrite))
			if l.cfg.Admin != l.cfg.Data {
				acls = append(acls, deny(replication.ResourceTopic, topic, l.cfg.Admin, replication.OpWrite))
			}
			acls = append(acls, deny(replication.ResourceTopic, topic, l.cfg.Admin, "ALTER"), deny(replication.ResourceTopic, topic, l.cfg.Admin, "ALTER_CONFIGS"))
		}
	}
	return acls
}

// SuspendSyncs changes nothing: what it would hold back is denied to the connectors by ACLs, see Denials.
func (l *Link) SuspendSyncs(context.Context, replication.Syncs, replication.Suspension) error {
	return nil
}

// RestoreSyncs changes nothing: lifting the Denials restores all syncs as they were.
func (l *Link) RestoreSyncs(context.Context, replication.Syncs, replication.Suspension, bool) error {
	return nil
}

// HoldsBack asks nothing: the Denials of the groups hold the connectors back.
func (l *Link) HoldsBack(context.Context, []string) error { return nil }

// Translate finds where groups go on by comparing records.
func (l *Link) Translate(ctx context.Context, groups []replication.GroupOffsets) ([]replication.GroupOffsets, error) {
	records, err := l.compared(ctx)
	if err != nil {
		return nil, err
	}
	return records.Translate(ctx, groups)
}

// LastKnown is where groups stood by the checkpoints that the link wrote.
func (l *Link) LastKnown(ctx context.Context, onTarget []replication.GroupOffsets) ([]replication.GroupOffsets, error) {
	return l.cfg.Compare(l.cfg.Names, false).LastKnown(ctx, onTarget)
}

// Drained compares the records of both clusters up to the source's ends.
func (l *Link) Drained(ctx context.Context, source []replication.Ends) ([]replication.Outcome, error) {
	records, err := l.compared(ctx)
	if err != nil {
		return nil, err
	}
	return records.Drained(ctx, source)
}

// Boundaries finds how far the mirrors of marks got, by comparing records from what Connect had stored then (P18).
func (l *Link) Boundaries(ctx context.Context, marks []replication.Mark) ([]replication.Mark, error) {
	records, err := l.compared(ctx)
	if err != nil {
		return nil, err
	}
	sealed := make([]Sealed, 0, len(marks))
	for _, m := range marks {
		last := replication.Unknown
		if m.Replicated > 0 {
			last = m.Replicated - 1
		}
		sealed = append(sealed, Sealed{Partition: m.Partition, Offset: last, TargetEnd: m.TargetEnd})
	}
	found, err := records.Boundaries(ctx, sealed)
	if _, some := errors.AsType[*replication.Partial](err); err != nil && !some {
		return nil, err
	}
	next := make(map[replication.Partition]int64, len(found))
	for _, b := range found {
		next[b.Partition] = b.Next
	}
	out := slices.Clone(marks)
	for i := range out {
		if n, ok := next[out[i].Partition]; ok {
			out[i].Boundary = n
		}
	}
	return out, err
}

// compared opens the records of both clusters. Where the offset syncs are that anchor every comparison, and which records
// the mirror leaves out, are settings of the source connector and are asked for once.
func (l *Link) compared(ctx context.Context) (Records, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.records == nil {
		c, err := l.client.Connector(ctx, l.cfg.Source)
		if err != nil {
			return nil, fmt.Errorf("find the offset syncs: %w", err)
		}
		names := l.cfg.Names
		names.Syncs = c.settings.or("offset-syncs.topic.location", SyncsOnSource)
		l.records = l.cfg.Compare(names, c.settings.committed())
	}
	return l.records, nil
}

// Synced says for which groups the checkpoint connector writes checkpoints: what LastKnown can tell of when the source
// is gone. Whether it also writes groups' offsets itself (sync.group.offsets.enabled) plays no part.
func (l *Link) Synced(s replication.Syncs, groups []string) []replication.Outcome {
	covers, err := parseCoverage(s.Offsets.Filter)
	match := covers.Groups.matcher()
	out := make([]replication.Outcome, 0, len(groups))
	for _, g := range groups {
		o := replication.Outcome{Name: g, Status: replication.OK}
		synced, unclear := match.match(g)
		switch {
		case l.cfg.Checkpoint == "":
			o.Status, o.Reason = replication.Failed, "the runbook names no checkpoint connector"
		case err != nil:
			o.Status, o.Reason = replication.Unclear, "the filters of the checkpoint connector are not known"
		case !covers.Checkpoints:
			o.Status, o.Reason = replication.Failed, "emit.checkpoints.enabled is false"
		case unclear != nil:
			o.Status, o.Reason = replication.Unclear, unclear.Error()
		case !synced:
			o.Status, o.Reason = replication.Failed, "the group is outside of groups, or inside groups.exclude, of connector "+l.cfg.Checkpoint
		}
		out = append(out, o)
	}
	return out
}

// each does the same for all side by side; every error is in the one that it returns.
func each[T any](all []T, do func(i int, one T) error) error {
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, one := range all {
		wg.Go(func() { errs[i] = do(i, one) })
	}
	wg.Wait()
	return errors.Join(errs...)
}
