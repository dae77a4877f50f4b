// Package clusterlinking is the replication.Link over Confluent Cluster Linking's REST API v3.
//
// Start with link.go, what activities see. syncs.go suspends and restores offset sync, ACL sync and auto-create, with
// filters.go as its pure core; stop.go promotes and fails over. Below them api.go has one method for each request of
// the service, wire.go decodes tolerantly, and client.go is the one place where the service's words become the sentinels of
// package fault; requests are carried by package rest (reads are repeated, writes never).
package clusterlinking

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"switchback/internal/fault"
	"switchback/internal/rest"
	"switchback/internal/secret"
	"switchback/replication"
)

// Offsets reads the ends of partitions of one cluster. It need not return every partition: what is missing is unknown.
type Offsets interface {
	Ends(ctx context.Context, topics []string) ([]replication.Ends, error)
}

// Config says which link, and how to reach it. REST is the endpoint of the cluster that hosts the link, normally the
// target: scheme, host and port, without credentials.
type Config struct {
	REST       string
	PathPrefix string // "/kafka/v3" when empty; "/v3" for a REST service of its own
	ClusterID  string
	Link       string
	Login      secret.Login
	TLS        *tls.Config
	HTTP       *http.Client // optional; its transport is used instead of one made from TLS
	Source     Offsets      // optional; for Equal alone
	Target     Offsets
	Logger     *slog.Logger
}

// Link is one cluster link. Safe for concurrent use.
type Link struct {
	client *Client
	name   string
	source Offsets
	target Offsets
	log    *slog.Logger
	poll   time.Duration // between looks at what was written
	settle time.Duration // after which a write that is not seen is judged again
	batch  int           // mirrors in one request
}

var _ replication.Link = (*Link)(nil)

// New makes a Link; nothing is asked of the service yet. fault.ErrInvalid for an address or a name that cannot work.
func New(cfg Config) (*Link, error) {
	if badSegment(cfg.Link) || cfg.Link == "-" {
		return nil, invalid(fmt.Sprintf("%q is no name of a link", cfg.Link), "set link: to the cluster link's name")
	}
	c, err := newClient(cfg)
	if err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return &Link{
		client: c, name: cfg.Link, source: cfg.Source, target: cfg.Target, log: cfg.Logger.With("link", cfg.Link),
		poll: 200 * time.Millisecond, settle: 5 * time.Second, batch: 500,
	}, nil
}

// Client returns the low-level client, for what is not part of replication.Link.
func (l *Link) Client() *Client { return l.client }

// Close closes idle connections.
func (l *Link) Close() { l.client.Close() }

// StopIsFinal is true: a promoted mirror is a topic like any other.
func (l *Link) StopIsFinal() bool { return true }

// Mirrors reads every mirror of the link.
func (l *Link) Mirrors(ctx context.Context) ([]replication.Mirror, error) {
	return l.client.Mirrors(ctx, l.name)
}

// Mirror reads one mirror, with the reasons of a failed transition.
func (l *Link) Mirror(ctx context.Context, topic string) (replication.Mirror, error) {
	return l.client.Mirror(ctx, l.name, topic)
}

// Status reads the link and its configuration.
func (l *Link) Status(ctx context.Context) (replication.LinkStatus, error) {
	w, err := l.client.link(ctx, l.name)
	if err != nil {
		return replication.LinkStatus{}, err
	}
	configs, err := l.client.configs(ctx, l.name)
	if err != nil {
		return replication.LinkStatus{}, err
	}
	s := replication.LinkStatus{
		Name: l.name, ID: string(w.ID), Direction: replication.OneWay, SourceCluster: string(w.Source),
		Syncs: syncsOf(configs), RefreshWait: refreshWait(configs),
	}
	if s.ID == "" {
		s.ID = string(w.OldID)
	}
	if s.SourceCluster == "" {
		s.SourceCluster = string(w.Remote)
	}
	for _, t := range w.Topics {
		if t != "" {
			s.Topics = append(s.Topics, string(t))
		}
	}
	slices.Sort(s.Topics)
	mode := strings.ToUpper(string(configs["link.mode"].Value))
	if mode == "BIDIRECTIONAL" {
		s.Direction = replication.Bidirectional
	}
	for _, t := range w.Tasks {
		s.Tasks = append(s.Tasks, task(t))
	}
	why := health(w, mode, configs)
	if w.State == "" && len(why) == 0 { // versions before 8.0 do not say: their mirrors do
		why, err = l.healthByMirrors(ctx)
	}
	s.Healthy, s.Reason = len(why) == 0, strings.Join(why, "; ")
	return s, err
}

func health(w wireLink, mode string, configs map[string]wireConfig) (why []string) {
	switch w.State {
	case "", "ACTIVE", "AVAILABLE":
	default:
		why = append(why, "the link is "+rest.Plain(string(w.State), nil))
	}
	if w.Error != "" && w.Error != "NO_ERROR" || w.ErrorMessage != "" {
		why = append(why, reasons([]wireError{{w.Error, w.ErrorMessage}})...)
	}
	if configs["cluster.link.paused"].Value == "true" {
		why = append(why, "the link is paused")
	}
	if mode == "SOURCE" {
		why = append(why, "this is the link's source end; the runbook needs the end on the target cluster")
	}
	for _, t := range w.Tasks {
		if o := task(t); o.Status == replication.Failed {
			why = append(why, o.Name+" is "+o.Reason)
		}
	}
	return why
}

func (l *Link) healthByMirrors(ctx context.Context) (why []string, err error) {
	mirrors, err := l.Mirrors(ctx)
	if err != nil {
		return []string{"the state of the mirrors could not be read"}, err
	}
	for _, m := range mirrors {
		switch m.State {
		case replication.MirrorFailed, replication.MirrorSourceLost, replication.MirrorUnknown:
			why = append(why, fmt.Sprintf("mirror %s is %s", m.Topic, m.Raw))
		}
	}
	if len(mirrors) == 0 {
		why = append(why, "the link does not say its state and has no mirrors that would show it")
	}
	return why, nil
}

func task(t wireTask) replication.Outcome {
	o := replication.Outcome{Name: string(t.Name), Status: replication.Unclear, Reason: strings.ToLower(rest.Plain(string(t.State), nil))}
	switch t.State {
	case "ACTIVE":
		o.Status, o.Reason = replication.OK, ""
	case "NOT_CONFIGURED":
		o.Status, o.Reason = replication.OK, "not configured"
	case "IN_ERROR", "LINK_FAILED", "LINK_UNAVAILABLE", "LINK_PAUSED":
		o.Status = replication.Failed
	}
	if rs := reasons(t.Errors); len(rs) > 0 {
		o.Reason = strings.TrimPrefix(o.Reason+": "+strings.Join(rs, "; "), ": ")
	}
	return o
}

// refreshWait is the longest cycle after which a change of topics, groups or ACLs has been noticed. Topics for
// auto-create are looked for when metadata is refreshed.
func refreshWait(configs map[string]wireConfig) time.Duration {
	s := syncsOf(configs)
	wait := millis(configs["topic.config.sync.ms"])
	if s.Offsets.Enabled {
		wait = max(wait, s.Offsets.Interval)
	}
	if s.ACLs.Enabled {
		wait = max(wait, s.ACLs.Interval)
	}
	if s.Topics.Enabled {
		wait = max(wait, millis(configs["metadata.max.age.ms"]))
	}
	return wait
}

func millis(c wireConfig) time.Duration {
	n, err := strconv.ParseInt(strings.TrimSpace(string(c.Value)), 10, 64)
	if err != nil || n < 0 || n > int64(24*time.Hour/time.Millisecond)*365 {
		return 0
	}
	return time.Duration(n) * time.Millisecond
}

// Translate is the identity: mirrors keep offsets.
func (l *Link) Translate(_ context.Context, groups []replication.GroupOffsets) ([]replication.GroupOffsets, error) {
	return placed(groups, func(o *replication.Translated) {
		o.Target, o.Proof = o.Source, replication.ProofExact
		if o.Source < 0 {
			o.Source, o.Target, o.Proof = replication.Unknown, replication.Unknown, "no commit on the source"
		}
	}), nil
}

// placed is a copy of the groups with each offset set.
func placed(groups []replication.GroupOffsets, set func(*replication.Translated)) []replication.GroupOffsets {
	out := make([]replication.GroupOffsets, len(groups))
	for i, g := range groups {
		out[i] = replication.GroupOffsets{Group: g.Group, Offsets: slices.Clone(g.Offsets)}
		for j := range out[i].Offsets {
			set(&out[i].Offsets[j])
		}
	}
	return out
}

// LastKnown is what offset sync wrote: commits on the target, at the source's own offsets. How far behind a group they
// are nobody can say without the source.
func (l *Link) LastKnown(_ context.Context, onTarget []replication.GroupOffsets) ([]replication.GroupOffsets, error) {
	return placed(onTarget, func(o *replication.Translated) {
		o.Source, o.Proof = o.Target, ProofSynced
		if o.Target < 0 {
			o.Source, o.Target, o.Proof = replication.Unknown, replication.Unknown, "offset sync has brought no commit"
		}
	}), nil
}

// ProofSynced is how sure an offset is that the link had synced before the source was lost.
const ProofSynced = "as synced by the link before the source was lost"

// Advice is empty: what a link's configuration means is in its Status.
func (l *Link) Advice(context.Context) ([]replication.Advice, error) { return nil, nil }

// Prefix is empty: a run asks for mirrors under their sources' names.
func (l *Link) Prefix() string { return "" }

// PatchOffsets is refused: a promoted mirror is a topic like any other.
func (l *Link) PatchOffsets(context.Context, map[replication.Partition]int64) error {
	return fmt.Errorf("set where the mirrors of link %s go on: a stopped mirror cannot go on: %w", l.name, fault.ErrInvalid)
}

// Resume is refused: a promoted mirror is a topic like any other.
func (l *Link) Resume(context.Context) error {
	return fmt.Errorf("resume the mirrors of link %s: a stopped mirror cannot go on: %w", l.name, fault.ErrInvalid)
}

// Denials are none: a promoted topic is its own seal, and syncs are suspended by the link's settings.
func (l *Link) Denials(replication.Denial, []string) []replication.ACL { return nil }

// Drained compares the target's high watermarks with the source's. The link's own lag plays no part.
func (l *Link) Drained(ctx context.Context, source []replication.Ends) ([]replication.Outcome, error) {
	if l.target == nil {
		return nil, errors.New("compare ends: no access to the target's offsets was configured")
	}
	var topics []string
	seen := map[string]bool{}
	for _, e := range source {
		if !seen[e.Topic] {
			seen[e.Topic] = true
			topics = append(topics, e.Topic)
		}
	}
	if len(topics) == 0 {
		return nil, nil
	}
	target, err := l.target.Ends(ctx, topics)
	if err != nil {
		return nil, fmt.Errorf("read the target's ends: %w", err)
	}
	return compareEnds(source, target), nil
}

// Equal is Drained with the source's ends read by the link itself, just before.
func (l *Link) Equal(ctx context.Context, topics []string) ([]replication.Outcome, error) {
	if l.source == nil {
		return nil, errors.New("compare ends: no access to the source's offsets was configured")
	}
	source, err := l.source.Ends(ctx, topics)
	if err != nil {
		return nil, fmt.Errorf("read the source's ends: %w", err)
	}
	out, err := l.Drained(ctx, source)
	for _, t := range topics {
		if !slices.ContainsFunc(source, func(e replication.Ends) bool { return e.Topic == t }) {
			out = append(out, replication.Outcome{Name: t, Status: replication.Unclear, Reason: "the source did not tell the ends of this topic"})
		}
	}
	return out, err
}

func compareEnds(source, target []replication.Ends) []replication.Outcome {
	has := make(map[replication.Partition]int64, len(target))
	for _, t := range target {
		has[t.Partition] = t.HighWatermark
	}
	out := make([]replication.Outcome, 0, len(source))
	for _, s := range source {
		o := replication.Outcome{Name: fmt.Sprintf("%s-%d", s.Topic, s.Partition.Partition)}
		t, ok := has[s.Partition]
		switch {
		case s.HighWatermark < 0:
			o.Status, o.Reason = replication.Unclear, "the source's end is not known"
		case !ok || t < 0:
			o.Status, o.Reason = replication.Unclear, "the target's end is not known"
		case t < s.HighWatermark:
			o.Status, o.Reason = replication.Pending, fmt.Sprintf("%d records to go", s.HighWatermark-t)
		case t > s.HighWatermark:
			o.Status, o.Reason = replication.Failed, fmt.Sprintf("the target ends at %d, the source at %d: something else wrote to the target, or the source lost records", t, s.HighWatermark)
		default:
			o.Status = replication.OK
		}
		out = append(out, o)
	}
	return out
}

// PrincipalNeeds says in words which grants the link's own principals need, for what the link is set to do.
func PrincipalNeeds(s replication.Syncs) []string {
	needs := []string{"on the source: READ and DESCRIBE_CONFIGS on the mirrored topics"}
	if s.ACLs.Enabled {
		needs = append(needs, "on the source: DESCRIBE on CLUSTER, for ACL sync")
	}
	if s.Offsets.Enabled {
		needs = append(needs, "on the source: READ and DESCRIBE on the groups, DESCRIBE on their topics, for offset sync")
	}
	return append(needs, "on the target: ALTER on CLUSTER for Switchback's principal, to alter the link and its mirrors")
}
