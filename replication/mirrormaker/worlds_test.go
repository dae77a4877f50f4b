package mirrormaker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/internal/fault"
	"switchback/replication"
)

// memory is a cluster whose logs are lists of records: it has markers, trimmed heads and compaction as a test likes.
type memory struct {
	mu    sync.Mutex
	ends  map[replication.Partition]replication.Ends
	logs  map[replication.Partition][]*kgo.Record
	reads int // records handed out
	fail  map[replication.Partition]error
	// compact is what its topics say of themselves.
	compact bool
}

func newMemory() *memory {
	return &memory{ends: map[replication.Partition]replication.Ends{}, logs: map[replication.Partition][]*kgo.Record{}, fail: map[replication.Partition]error{}}
}

func (m *memory) set(p replication.Partition, start, end int64, log []*kgo.Record) {
	m.ends[p] = replication.Ends{Partition: p, Start: start, HighWatermark: end, LastStable: end, LogEnd: end}
	m.logs[p] = log
}

func (m *memory) Ends(_ context.Context, topics []string) ([]replication.Ends, error) {
	var out []replication.Ends
	bad := &replication.Partial{Op: "read ends", Err: fault.ErrNotFound}
	for _, t := range topics {
		n := len(out)
		for p, e := range m.ends {
			if p.Topic == t {
				out = append(out, e)
			}
		}
		slices.SortFunc(out[n:], func(a, b replication.Ends) int { return int(a.Partition.Partition - b.Partition.Partition) })
		if len(out) == n {
			bad.Failed = append(bad.Failed, replication.Outcome{Name: t, Status: replication.Failed, Reason: "not found"})
		}
	}
	if len(bad.Failed) > 0 {
		return out, bad
	}
	return out, nil
}

func (m *memory) ReadRanges(_ context.Context, ranges []replication.Range, _ bool, each func(int, *kgo.Record) error) error {
	bad := &replication.Partial{Op: "read records"}
	for i, r := range ranges {
		if err := m.fail[r.Partition]; err != nil {
			bad.Err = err
			bad.Failed = append(bad.Failed, replication.Outcome{Name: r.Name(), Status: replication.Failed, Reason: err.Error()})
			continue
		}
		if e := m.ends[r.Partition]; r.From < r.To && (r.From < e.Start || r.To > e.HighWatermark) {
			return fmt.Errorf("%s: %d to %d lies outside of the log %d to %d: %w", r.Name(), r.From, r.To, e.Start, e.HighWatermark, fault.ErrConflict)
		}
		for _, record := range m.logs[r.Partition] {
			if record.Offset >= r.From && record.Offset < r.To {
				m.mu.Lock()
				m.reads++
				m.mu.Unlock()
				if err := each(i, record); err != nil {
					return err
				}
			}
		}
	}
	if len(bad.Failed) > 0 {
		return bad
	}
	return nil
}

func (m *memory) TopicConfigs(_ context.Context, topics []string) (map[string]map[string]string, error) {
	out := map[string]map[string]string{}
	policy := "delete"
	if m.compact {
		policy = "compact"
	}
	for _, t := range topics {
		out[t] = map[string]string{"cleanup.policy": policy}
	}
	return out, nil
}

// world is one partition, its mirror, and what nobody but the test knows: which record is which.
type world struct {
	from, to *memory
	on       replication.Partition
	source   []*kgo.Record // what is left
	target   []*kgo.Record
	truth    []int64 // by target index: the source offset of the record, or -1 for one that somebody else wrote
	reached  int64   // highest source offset that was mirrored, or -1
	stored   int64   // by Connect
	start    int64
	end      int64
	syncs    []Sync
	plain    bool // nothing but copies, one after the other, and all of it
	unique   bool // no two records are the same
}

// habits of a world: how often what happens.
type habits struct {
	records                                         int
	repeats, markers, crashes, foreign, transaction float64
	trimSource, trimTarget, compactSource, behind   bool
	stamped                                         bool // the target's broker stamps
}

var part0 = replication.Partition{Topic: "orders", Partition: 0}

// grow makes a world: a source, and a mirror that copies it, dies and writes again.
func grow(r *rand.Rand, h habits) *world {
	w := &world{from: newMemory(), to: newMemory(), on: part0, plain: h.crashes == 0 && h.foreign == 0 && !h.behind && !h.trimSource && !h.trimTarget && !h.compactSource,
		unique: h.repeats == 0, reached: -1, stored: -1}
	var all []*kgo.Record
	offset := int64(0)
	for i := range h.records {
		for r.Float64() < h.markers {
			offset += 1 + r.Int64N(3) // a marker, or aborted records
		}
		record := &kgo.Record{Key: fmt.Appendf(nil, "k%d", r.IntN(5)), Value: fmt.Appendf(nil, "v%d", i), Offset: offset, Timestamp: time.UnixMilli(int64(1000 + i))}
		if r.Float64() < h.repeats && len(all) > 0 {
			from := all[len(all)-1-r.IntN(min(len(all), 3))]
			record.Key, record.Value, record.Timestamp = from.Key, from.Value, from.Timestamp
		}
		all = append(all, record)
		offset++
	}
	for r.Float64() < h.markers {
		offset++
	}
	w.end = offset
	w.mirror(r, h, all)
	w.source = all
	if h.trimSource && len(all) > 0 {
		w.start = all[r.IntN(len(all))].Offset
		w.source = slices.DeleteFunc(slices.Clone(all), func(x *kgo.Record) bool { return x.Offset < w.start })
	}
	if w.from.compact = h.compactSource; h.compactSource {
		w.source = slices.DeleteFunc(slices.Clone(w.source), func(x *kgo.Record) bool {
			return x.Offset < w.end*3/4 && r.Float64() < 0.5 && slices.ContainsFunc(w.source, func(y *kgo.Record) bool { return y.Offset > x.Offset && string(y.Key) == string(x.Key) })
		})
	}
	w.from.set(w.on, w.start, w.end, w.source)
	return w
}

// mirror copies all in order, as MirrorMaker 2 does.
func (w *world) mirror(r *rand.Rand, h habits, all []*kgo.Record) {
	until := len(all)
	if h.behind && len(all) > 0 {
		until = r.IntN(len(all))
	}
	offset, next, stored := int64(0), 0, -1
	write := func(x *kgo.Record, truth int64) {
		y := *x
		y.Offset = offset
		if h.stamped {
			y.Timestamp, y.Attrs = time.UnixMilli(9_000_000+offset), stampedByBroker
		}
		w.target, w.truth = append(w.target, &y), append(w.truth, truth)
		offset++
	}
	for next < until {
		for r.Float64() < h.foreign {
			write(&kgo.Record{Value: fmt.Appendf(nil, "other %d", offset), Timestamp: time.UnixMilli(500)}, -1)
		}
		if r.Float64() < h.transaction {
			offset++
		}
		if r.Float64() < 0.2 || next == 0 {
			w.syncs = append(w.syncs, Sync{w.on, all[next].Offset, offset})
		}
		write(all[next], all[next].Offset)
		w.reached = max(w.reached, all[next].Offset)
		next++
		if r.Float64() < 0.3 {
			stored = next - 1 // acknowledged, and told to Connect
		}
		if r.Float64() < h.crashes {
			next = stored + 1
		}
	}
	if stored >= 0 {
		w.stored = all[stored].Offset
	}
	start := int64(0)
	if h.trimTarget && len(w.target) > 0 {
		k := r.IntN(len(w.target))
		start = w.target[k].Offset
		w.target, w.truth = w.target[k:], w.truth[k:]
	}
	w.to.set(w.on, start, offset, w.target)
	topic := replication.Partition{Topic: names.OffsetSyncs()}
	var log []*kgo.Record
	for i, s := range w.syncs {
		key, value := EncodeSync(s)
		log = append(log, &kgo.Record{Key: key, Value: value, Offset: int64(i)})
	}
	w.to.set(topic, 0, int64(len(log)), log)
}

// stampedByBroker are the attributes of a record under LogAppendTime.
var stampedByBroker = kgo.NewRecordAttrs(kgo.RecordAttrsOpts{TimestampType: 1})

var names = Names{Source: "east", Target: "west", Policy: PolicyIdentity, Syncs: SyncsOnTarget}

func (w *world) comparer(limit int64) Comparer {
	return Comparer{From: w.from, To: w.to, Names: names, Committed: true, Limit: limit}
}

// content is what an application sees of a record.
func content(r *kgo.Record) string { return string(r.Key) + "=" + string(r.Value) }

// tally counts contents.
func tally(list []*kgo.Record, take func(i int) bool) map[string]int {
	n := map[string]int{}
	for i, r := range list {
		if take(i) {
			n[content(r)]++
		}
	}
	return n
}
