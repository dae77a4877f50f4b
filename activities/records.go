package activities

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"switchback/internal/fault"
	"switchback/replication"
)

// What a run remembers outside its history, in switchback.marks of both clusters. Lists are cut into chunks, because a
// hundred thousand partitions fit no single record: a chunk of this many bytes fits one everywhere.
const chunkBytes = 128 << 10

func scopeKey(run string) string          { return "scope/" + run + "/" }
func syncsKey(link, run string) string    { return "syncs/" + link + "/" + run }
func aclsKey(runbook, site string) string { return "acls/" + runbook + "/" + site }
func offsetsKey(run, group string) string { return "offsets/" + run + "/" + group + "/" }
func handedKey(run string) string         { return "handed/" + run }
func removedKey(run string) string        { return "removed/" + run }
func marksKey(cluster, run string) string { return "marks/" + cluster + "/" + run + "/" }

// Scope is what the runbook's patterns meant when the run resolved them.
type Scope struct {
	Topics []replication.Topic `json:"topics"`
	Groups []string            `json:"groups"`
	// Alive are the groups that had members when preflight looked: those that must have them again after the switch.
	Alive []string `json:"alive,omitempty"`
	// Reads are the topics that the members of a group were last seen to subscribe to. It is all there is to know of a group that
	// reads and never committed (P24), and of topics of which the link brought no commit before the source was lost.
	Reads map[string][]string `json:"reads,omitempty"`
}

// groupScope is how a group is stored.
type groupScope struct {
	Name  string   `json:"name"`
	Alive bool     `json:"alive"`
	Reads []string `json:"reads,omitempty"`
}

// TopicNames lists the names in order.
func (s Scope) TopicNames() []string {
	names := make([]string, len(s.Topics))
	for i, t := range s.Topics {
		names[i] = t.Name
	}
	return names
}

// OwnedACLs are those that the runbook made, or is about to make, on one cluster (P4). Equal ones that stood before are
// not among them, and stay.
type OwnedACLs struct {
	Run  string            `json:"run"`
	ACLs []replication.ACL `json:"acls"`
}

// SuspendedSyncs is what stood before a suspension (P3).
type SuspendedSyncs struct {
	Before replication.Syncs      `json:"before"`
	Held   replication.Suspension `json:"held"`
	// QuietAt is when no cycle can be under way any more that began before a group was added to Held; zero when none was.
	QuietAt time.Time `json:"quietAt,omitzero"`
	// To is the cluster that the link leads to, and Restored whether its ACL sync, which is everybody's, was put back since: until
	// then Before.ACLs is what counts for whoever suspends the same link besides.
	To       string `json:"to,omitempty"`
	Restored bool   `json:"restored,omitempty"`
}

// records reads and writes what a run remembers, on both clusters. The target's copy is the one that is read: it is
// where the workload is going, and in a disaster the one that is left.
type records struct {
	from, to Records
	alone    bool // the source may be lost: its copy is made if it can be, and by FenceWhenReachable later (P20)
}

// besides is how long a copy on a source that may be lost may hold up the write on the target.
const besides = 400 * time.Millisecond

func recordsOf(from, to Kafka) records {
	return records{from: from.Records(MarksTopic), to: to.Records(MarksTopic)}
}

// put writes to both clusters side by side. Where the source may be lost the target alone counts.
func (r records) put(ctx context.Context, entries map[string]any) error {
	raw := make(map[string][]byte, len(entries))
	for key, v := range entries {
		b, err := json.Marshal(v)
		if err != nil {
			return fmt.Errorf("encode record %s: %w", key, err)
		}
		raw[key] = b
	}
	return sideBySide(
		func() error { return wrap("write records on the target", r.to.Put(ctx, raw)) },
		func() error {
			if !r.alone {
				return wrap("write records on the source", r.from.Put(ctx, raw))
			}
			ctx, cancel := context.WithTimeout(ctx, besides)
			defer cancel()
			_ = r.from.Put(ctx, raw) // FenceWhenReachable copies what did not arrive
			return nil
		},
	)
}

// get reads one record; fault.ErrNotFound when there is none.
func (r records) get(ctx context.Context, key string, into any) error {
	all, err := r.to.Load(ctx, key)
	if err != nil {
		return fmt.Errorf("read record %s: %w", key, err)
	}
	raw, ok := all[key]
	if !ok {
		return fmt.Errorf("record %s: %w", key, fault.ErrNotFound)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		return fmt.Errorf("decode record %s: %w", key, err)
	}
	return nil
}

// putList writes a list in chunks under a prefix, in one go.
func putList[T any](ctx context.Context, r records, prefix string, list []T) error {
	entries := map[string]any{}
	if err := chunks(entries, prefix, list); err != nil {
		return err
	}
	return r.put(ctx, entries)
}

// chunks adds a list to entries, in pieces of at most chunkBytes. An empty list has one empty piece.
func chunks[T any](entries map[string]any, prefix string, list []T) error {
	var piece []json.RawMessage
	size, n := 0, 0
	cut := func() {
		entries[fmt.Sprintf("%s%05d", prefix, n)] = piece
		piece, size, n = nil, 0, n+1
	}
	for _, item := range list {
		raw, err := json.Marshal(item)
		if err != nil {
			return fmt.Errorf("encode records %s: %w", prefix, err)
		}
		if len(piece) > 0 && size+len(raw) > chunkBytes {
			cut()
		}
		piece, size = append(piece, raw), size+len(raw)+1
	}
	if len(piece) > 0 || n == 0 {
		cut()
	}
	return nil
}

// getList reads what putList wrote; fault.ErrNotFound when there is none.
func getList[T any](ctx context.Context, from Records, prefix string) ([]T, error) {
	all, err := from.Load(ctx, prefix)
	if err != nil {
		return nil, fmt.Errorf("read records %s: %w", prefix, err)
	}
	if len(all) == 0 {
		return nil, fmt.Errorf("records %s: %w", prefix, fault.ErrNotFound)
	}
	var list []T
	for _, key := range sorted(all) {
		var part []T
		if err := json.Unmarshal(all[key], &part); err != nil {
			return nil, fmt.Errorf("decode record %s: %w", key, err)
		}
		list = append(list, part...)
	}
	return list, nil
}

// clearList empties a list: its pieces stay, and hold nothing.
func clearList[T any](ctx context.Context, r records, prefix string) error {
	all, err := r.to.Load(ctx, prefix)
	if err != nil {
		return fmt.Errorf("read records %s: %w", prefix, err)
	}
	entries := map[string]any{}
	for key := range all {
		entries[key] = []T{}
	}
	return r.put(ctx, entries)
}

func sorted(entries map[string][]byte) []string { return slices.Sorted(maps.Keys(entries)) }

// putScope stores the scope of a run in one write, so that no reader sees a part of it as the whole.
func (r records) putScope(ctx context.Context, run string, s Scope) error {
	groups := make([]groupScope, len(s.Groups))
	for i, name := range s.Groups {
		groups[i] = groupScope{name, slices.Contains(s.Alive, name), s.Reads[name]}
	}
	entries := map[string]any{}
	if err := errors.Join(chunks(entries, scopeKey(run)+"topics/", s.Topics), chunks(entries, scopeKey(run)+"groups/", groups)); err != nil {
		return err
	}
	return r.put(ctx, entries)
}

// scope reads the scope of a run.
func (r records) scope(ctx context.Context, run string) (s Scope, err error) {
	all, err := r.to.Load(ctx, scopeKey(run))
	if err != nil {
		return s, fmt.Errorf("read scope of the run: %w", err)
	}
	loaded := loaded(all)
	if s.Topics, err = getList[replication.Topic](ctx, loaded, scopeKey(run)+"topics/"); err != nil {
		return s, fault.Hint(err, "the run's records are gone from %s; start a new run", MarksTopic)
	}
	groups, err := getList[groupScope](ctx, loaded, scopeKey(run)+"groups/")
	s.Reads = map[string][]string{}
	for _, g := range groups {
		s.Groups = append(s.Groups, g.Name)
		if g.Alive {
			s.Alive = append(s.Alive, g.Name)
		}
		if len(g.Reads) > 0 {
			s.Reads[g.Name] = g.Reads
		}
	}
	return s, err
}

// owned reads the ACLs that the runbook owns on a cluster; none is not an error.
func (r records) owned(ctx context.Context, runbook, site string) (OwnedACLs, error) {
	var o OwnedACLs
	err := r.get(ctx, aclsKey(runbook, site), &o)
	if errors.Is(err, fault.ErrNotFound) {
		return OwnedACLs{}, nil
	}
	return o, err
}

// loaded serves from what was read already.
type loaded map[string][]byte

func (l loaded) Put(context.Context, map[string][]byte) error {
	return errors.New("records that were read cannot be written")
}

func (l loaded) Load(_ context.Context, prefix string) (map[string][]byte, error) {
	part := map[string][]byte{}
	for key, v := range l {
		if len(key) >= len(prefix) && key[:len(prefix)] == prefix {
			part[key] = v
		}
	}
	return part, nil
}
