package clusterlinking

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"

	"switchback/internal/fault"
	"switchback/internal/rest"
	"switchback/internal/secret"
	"switchback/replication"
)

// Action changes the state of mirrors.
type Action string

// The actions. Reverse and truncate need a bidirectional link; truncate is asked of the old source and destroys the
// records that were not mirrored.
const (
	ActionPromote         Action = "promote"
	ActionFailover        Action = "failover"
	ActionPause           Action = "pause"
	ActionResume          Action = "resume"
	ActionReverseAndStart Action = "reverse-and-start-mirror"
	ActionReverseAndPause Action = "reverse-and-pause-mirror"
	ActionTruncate        Action = "truncate-and-restore"
)

// Altered is what the service said about one mirror. Accepted is not done.
type Altered struct {
	Topic     string
	Accepted  bool
	Code      int
	Message   string
	Truncated int64 // records truncated, or replication.Unknown
	ByPart    []Truncation
}

// Truncation of one partition; Offset and Records are replication.Unknown when not told.
type Truncation struct {
	Partition int32
	Offset    int64 // first offset that is gone
	Records   int64
}

// ConfigChange sets one configuration of a link, or resets it to its default.
type ConfigChange struct {
	Name  string
	Value string
	Reset bool
}

// ConfigEntry is a configuration of a new link or mirror; a Secret wins over a Value.
type ConfigEntry struct {
	Name   string
	Value  string
	Secret secret.Value
}

// NewLink is a link to be made. Which cluster ids are set depends on its mode: the source's on the destination, the
// destination's on the source, the remote one on either end of a bidirectional link.
type NewLink struct {
	Name, SourceCluster, DestinationCluster, RemoteCluster, LinkID string
	Configs                                                        []ConfigEntry
	ValidateOnly, SkipValidation                                   bool
}

// NewMirror is a mirror to be made. Topic stays empty unless mirrors are renamed, ReplicationFactor 0 on Confluent Cloud.
type NewMirror struct {
	SourceTopic, Topic string
	ReplicationFactor  int
	Configs            []ConfigEntry
}

type wireEntry struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

func wireEntries(in []ConfigEntry) (out []wireEntry, secrets []string) {
	for _, e := range in {
		if !e.Secret.IsZero() {
			e.Value = e.Secret.Reveal()
			secrets = append(secrets, e.Value)
		}
		out = append(out, wireEntry{e.Name, e.Value})
	}
	return out, secrets
}

func invalid(what, hint string) error {
	return fault.Hint(fmt.Errorf("%w: %s", fault.ErrInvalid, what), "%s", hint)
}

// badSegment refuses what a path cannot carry as one segment: servers clean dots away even when escaped.
func badSegment(s string) bool { return s == "" || s == "." || s == ".." }

func linkPath(link, rest string) string { return "/links/" + url.PathEscape(link) + rest }

// links lists the links that have a name: unmanaged sources come without one.
func (c *Client) links(ctx context.Context) ([]wireLink, error) {
	var l list[wireLink]
	if err := c.get(ctx, "/links", nil, &l); err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	return slices.DeleteFunc(l.items, func(w wireLink) bool { return w.Name == "" }), nil
}

// Links returns the names of all links on the cluster.
func (c *Client) Links(ctx context.Context) ([]string, error) {
	ls, err := c.links(ctx)
	names := make([]string, 0, len(ls))
	for _, l := range ls {
		names = append(names, string(l.Name))
	}
	return names, err
}

func (c *Client) link(ctx context.Context, link string) (wireLink, error) {
	var w wireLink
	if err := c.get(ctx, linkPath(link, ""), url.Values{"include_tasks": {"true"}}, &w); err != nil {
		return w, fmt.Errorf("read link %s: %w", link, err)
	}
	if string(w.Name) != link {
		return w, fmt.Errorf("read link %s: %w: it names another link, %q", link, rest.ErrMalformed, rest.Plain(string(w.Name), nil))
	}
	return w, nil
}

// configs reads the configuration of a link. Sensitive values are dropped here and kept nowhere.
func (c *Client) configs(ctx context.Context, link string) (map[string]wireConfig, error) {
	var l list[wireConfig]
	if err := c.get(ctx, linkPath(link, "/configs"), nil, &l); err != nil {
		return nil, fmt.Errorf("read the configuration of link %s: %w", link, err)
	}
	m := make(map[string]wireConfig, len(l.items))
	for _, w := range l.items {
		if w.IsSensitive || w.OldSensitive {
			w.Value = ""
		}
		m[string(w.Name)] = w
	}
	return m, nil
}

// AlterConfigs changes configurations of a link in one request. Services that do not know that request get one for each
// key: then the change is not atomic, and an error leaves what was done before it.
func (c *Client) AlterConfigs(ctx context.Context, link string, changes []ConfigChange) error {
	type item struct {
		Name      string  `json:"name"`
		Value     *string `json:"value,omitempty"`
		Operation string  `json:"operation"`
	}
	var in struct {
		Data []item `json:"data"`
	}
	for _, ch := range changes {
		it := item{Name: ch.Name, Value: &ch.Value, Operation: "SET"}
		if ch.Reset {
			it.Value, it.Operation = nil, "DELETE"
		}
		in.Data = append(in.Data, it)
	}
	err := c.send(ctx, rest.Writing, http.MethodPut, linkPath(link, "/configs:alter"), nil, in, nil)
	if e, ok := rest.AsError(err); ok && (e.Status == http.StatusNotFound || e.Status == http.StatusMethodNotAllowed) {
		err = c.alterEach(ctx, link, changes)
	}
	if err != nil {
		return fmt.Errorf("alter the configuration of link %s: %w", link, err)
	}
	return nil
}

// alterEach writes key by key. What is refused is asked once more after the rest: a filter may need its sync, or a sync
// its filter.
func (c *Client) alterEach(ctx context.Context, link string, changes []ConfigChange) error {
	var again []ConfigChange
	one := func(ch ConfigChange) error {
		path := linkPath(link, "/configs/"+url.PathEscape(ch.Name))
		if ch.Reset {
			return c.send(ctx, rest.Writing, http.MethodDelete, path, nil, nil, nil)
		}
		return c.send(ctx, rest.Writing, http.MethodPut, path, nil, map[string]string{"value": ch.Value}, nil)
	}
	for _, ch := range changes {
		err := one(ch)
		if e, ok := rest.AsError(err); ok && e.Status == http.StatusBadRequest && len(changes) > 1 {
			again = append(again, ch)
			continue
		}
		if err != nil {
			return fmt.Errorf("%s: %w", ch.Name, err)
		}
	}
	for _, ch := range again {
		if err := one(ch); err != nil {
			return fmt.Errorf("%s: %w", ch.Name, err)
		}
	}
	return nil
}

// Mirrors lists the mirrors of one link in every state.
func (c *Client) Mirrors(ctx context.Context, link string) ([]replication.Mirror, error) {
	var l list[wireMirror]
	if err := c.get(ctx, linkPath(link, "/mirrors"), nil, &l); err != nil {
		return nil, fmt.Errorf("list mirrors of link %s: %w", link, err)
	}
	out := make([]replication.Mirror, 0, len(l.items))
	for _, w := range l.items {
		if w.Topic != "" && (w.Link == "" || string(w.Link) == link) {
			out = append(out, w.mirror())
		}
	}
	return out, nil
}

// Mirror reads one mirror, with the errors of its last transition in Reason.
func (c *Client) Mirror(ctx context.Context, link, topic string) (replication.Mirror, error) {
	if badSegment(topic) {
		return replication.Mirror{}, invalid(fmt.Sprintf("%q is no topic", topic), "name the mirror topic")
	}
	var w wireMirror
	q := url.Values{"include_state_transition_errors": {"true"}}
	if err := c.get(ctx, linkPath(link, "/mirrors/"+url.PathEscape(topic)), q, &w); err != nil {
		return replication.Mirror{}, fmt.Errorf("read mirror %s of link %s: %w", topic, link, err)
	}
	if string(w.Topic) != topic {
		return replication.Mirror{}, fmt.Errorf("read mirror %s: %w: it names another topic", topic, rest.ErrMalformed)
	}
	return w.mirror(), nil
}

// Alter asks for an action on the named mirrors, in one request. With validateOnly nothing changes. ActionTruncate is
// answered with the loss per partition. The answer may lack topics.
func (c *Client) Alter(ctx context.Context, link string, a Action, topics []string, validateOnly bool) ([]Altered, error) {
	// An empty list is never sent: nobody says that it would not mean all.
	if len(topics) == 0 || slices.Contains(topics, "") {
		return nil, invalid("no mirror topics named", "name each topic")
	}
	q, eff := url.Values{"validate_only": {strconv.FormatBool(validateOnly)}}, rest.Writing
	if validateOnly {
		eff = rest.Reading
	}
	if a == ActionTruncate {
		q.Set("include_partition_level_truncation_data", "true")
	}
	var l list[wireAltered]
	in := map[string][]string{"mirror_topic_names": topics}
	if err := c.send(ctx, eff, http.MethodPost, linkPath(link, "/mirrors:"+string(a)), q, in, &l); err != nil {
		return nil, fmt.Errorf("%s mirrors of link %s: %w", a, link, err)
	}
	out := make([]Altered, 0, len(l.items))
	for _, w := range l.items {
		out = append(out, c.altered(w))
	}
	return out, nil
}

func (c *Client) altered(w wireAltered) Altered {
	a := Altered{
		Topic: string(w.Topic), Code: int(w.Code.or(0)), Message: c.rest.Plain(string(w.Message)),
		Accepted:  !w.Code.garbage && w.Code.or(0) == 0 && w.Message == "",
		Truncated: max(w.Truncated.or(replication.Unknown), replication.Unknown),
	}
	for _, p := range w.Partitions {
		if n := p.Partition.or(-1); n >= 0 && n <= 1<<31-1 {
			a.ByPart = append(a.ByPart, Truncation{int32(n), p.Offset.or(replication.Unknown), p.Truncated.or(replication.Unknown)})
		}
	}
	return a
}

// CreateLink makes a link. The answer to a GET may still be "not found" for some seconds.
func (c *Client) CreateLink(ctx context.Context, l NewLink) error {
	if badSegment(l.Name) {
		return invalid("the link has no name", "name it")
	}
	q := url.Values{"link_name": {l.Name}, "validate_only": {strconv.FormatBool(l.ValidateOnly)}, "validate_link": {strconv.FormatBool(!l.SkipValidation)}}
	entries, secrets := wireEntries(l.Configs)
	in := struct {
		Source      string      `json:"source_cluster_id,omitempty"`
		Destination string      `json:"destination_cluster_id,omitempty"`
		Remote      string      `json:"remote_cluster_id,omitempty"`
		ID          string      `json:"cluster_link_id,omitempty"`
		Configs     []wireEntry `json:"configs,omitempty"`
	}{l.SourceCluster, l.DestinationCluster, l.RemoteCluster, l.LinkID, entries}
	if err := c.send(ctx, rest.Effect(!l.ValidateOnly), http.MethodPost, "/links", q, in, nil, secrets...); err != nil {
		return fmt.Errorf("create link %s: %w", l.Name, err)
	}
	return nil
}

// DeleteLink deletes a link. Save the marks first: the fetch offsets of its mirrors go with it.
func (c *Client) DeleteLink(ctx context.Context, link string, force, validateOnly bool) error {
	if badSegment(link) {
		return invalid("the link has no name", "name it")
	}
	q := url.Values{"force": {strconv.FormatBool(force)}, "validate_only": {strconv.FormatBool(validateOnly)}}
	if err := c.send(ctx, rest.Effect(!validateOnly), http.MethodDelete, linkPath(link, ""), q, nil, nil); err != nil {
		return fmt.Errorf("delete link %s: %w", link, err)
	}
	return nil
}

// CreateMirror starts to mirror a topic.
func (c *Client) CreateMirror(ctx context.Context, link string, m NewMirror) error {
	entries, secrets := wireEntries(m.Configs)
	in := struct {
		Source  string      `json:"source_topic_name"`
		Topic   string      `json:"mirror_topic_name,omitempty"`
		Factor  int         `json:"replication_factor,omitempty"`
		Configs []wireEntry `json:"configs,omitempty"`
	}{m.SourceTopic, m.Topic, m.ReplicationFactor, entries}
	if m.Topic == m.SourceTopic {
		in.Topic = "" // older services do not know the field
	}
	if err := c.send(ctx, rest.Writing, http.MethodPost, linkPath(link, "/mirrors"), nil, in, nil, secrets...); err != nil {
		return fmt.Errorf("create mirror of %s: %w", m.SourceTopic, err)
	}
	return nil
}

// DeleteTopic deletes a mirror by deleting its topic: there is no other way. It is gone when Mirror says ErrNotFound.
func (c *Client) DeleteTopic(ctx context.Context, topic string) error {
	if badSegment(topic) {
		return invalid(fmt.Sprintf("%q is no topic", topic), "name the topic")
	}
	if err := c.send(ctx, rest.Writing, http.MethodDelete, "/topics/"+url.PathEscape(topic), nil, nil, nil); err != nil {
		return fmt.Errorf("delete topic %s: %w", topic, err)
	}
	return nil
}
