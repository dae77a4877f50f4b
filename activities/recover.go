package activities

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"slices"
	"strings"
	"time"

	"switchback/internal/fault"
	"switchback/replication"
	"switchback/runbooks"
)

// Recovery brings back what a failover stranded: records of the cluster that was left which the new one never saw. Start
// reading at PlanRecovery, then recover_boundary.go, recover_copy.go, recover_rewind.go and recover_account.go.
type Recovery struct {
	Outside
	Recoverers Recoverers
}

// Recoverers open pairs of clusters for copying.
type Recoverers interface {
	Open(ctx context.Context, from, to Site) (Recoverer, error)
}

// Recoverer reads the old cluster, which is fenced, and writes to the new one. Topics have their own names on either.
type Recoverer interface {
	// EnsureRecovery makes replication.RecoveryTopic on the new cluster unless it is there.
	EnsureRecovery(ctx context.Context) error
	// EnsureDiverted makes <topic>.recovered on the new cluster, for each of the old one's topics, unless it is there.
	EnsureDiverted(ctx context.Context, topics []string) error
	// Stranded says what is in each tail, and what would become of it; fault.ErrInvalid for one that nobody can read.
	Stranded(ctx context.Context, tails []replication.Tail) ([]replication.Stranded, error)
	// Recover copies a shard exactly once, from where its progress is, and tells how far it is. Tails whose treatment copies
	// nothing are read, and counted as left. What is committed is returned with every error.
	Recover(ctx context.Context, job replication.CopyJob, told func([]replication.Recovered)) ([]replication.Recovered, error)
	// Recoveries reads the progress of a mark set, as it was committed; none is not an error.
	Recoveries(ctx context.Context, tail string) ([]replication.Recovered, error)
	// Prints are the records of ranges on the old or the new cluster, in order; a record that is gone is in no list. No range
	// may go beyond the high watermark: it would be waited for.
	Prints(ctx context.Context, old bool, ranges []replication.Range) (map[replication.Partition][]Print, error)
	Close()
}

// Print is one record without its content: two with the same Sum have the same key, value and headers, byte for byte.
type Print struct {
	Offset    int64
	Sum       [32]byte
	Timestamp int64 // milliseconds
}

// Keys of a recovery in switchback.marks. Tail is <id of the old cluster>/<run that kept the marks>: the mark set that is
// recovered from, and the beginning of the keys in replication.RecoveryTopic too.
func recoveryKey(tail string) string     { return "recovery/" + tail + "/plan" }
func recoveredKey(tail string) string    { return "recovery/" + tail + "/done" }
func tailsKey(tail, run string) string   { return "recovery/" + tail + "/tails/" + run + "/" }
func rewoundKey(tail string) string      { return "recovery/" + tail + "/rewound/" }
func accountKey(tail, run string) string { return "recovery/" + tail + "/account/" + run + "/" }

// keptPlan is what every run that recovers from a mark set shares: the number of shards, whose transactional ids fence each
// other (P30), and whose list of tails is the last one.
type keptPlan struct {
	Shards int       `json:"shards"`
	Run    string    `json:"run"`
	At     time.Time `json:"at"`
}

// keptDone says that nothing is left of a mark set: everything was accounted for, or was given up by name.
type keptDone struct {
	Gave string    `json:"gave,omitempty"` // what became of what was given up
	Run  string    `json:"run"`
	At   time.Time `json:"at"`
}

// shardOf spreads partitions over shards, the same in every run.
func shardOf(p replication.Partition, shards int) int {
	h := fnv.New32a()
	fmt.Fprintf(h, "%s/%d", p.Topic, p.Partition)
	return int(h.Sum32() % uint32(max(shards, 1))) //nolint:gosec // a handful
}

// shardsFor is how many transactional producers copy side by side: a few for each broker of the new cluster.
func shardsFor(partitions, brokers int) int { return max(1, min(partitions, 4*brokers, 16)) }

// copierID is a shard's transactional id. It names no run: a second one fences the first one's zombie (P30).
func copierID(runbook, tail string, shard int) string {
	return fmt.Sprintf("switchback-recovery-%s-%s-%d", runbook, tail, shard)
}

// RecoveryInput is for all activities of a recovery. Route.From is the old cluster, Route.To the one where the workload is.
type RecoveryInput struct {
	Guard Guard  `json:"guard"`
	Route Route  `json:"route"`
	Tail  string `json:"tail,omitempty"` // which PlanRecovery has found; it takes none itself
}

// recovering is a recovery, opened.
type recovering struct {
	*route
	outside Outside
	guard   Guard
	copier  Recoverer
}

// begun opens clusters, link and copier, and checks the guard, side by side.
func (a *Recovery) begun(ctx context.Context, in RecoveryInput) (*recovering, error) {
	r := &recovering{outside: a.Outside, guard: in.Guard}
	err := sideBySide(
		func() (err error) { r.route, err = a.opened(ctx, in.Guard, in.Route); return err },
		func() (err error) {
			r.copier, err = a.Recoverers.Open(ctx, in.Route.From, in.Route.To)
			return wrap("open both clusters for copying", err)
		},
	)
	if err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// again is a new time for writes, while the run holds its epoch.
func (r *recovering) again(ctx context.Context) (context.Context, error) {
	return r.outside.again(ctx, r.guard)
}

func (r *recovering) writing(ctx context.Context) (context.Context, context.CancelFunc, error) {
	return r.outside.writing(ctx, r.guard)
}

func (r *recovering) close() {
	if r.route != nil {
		r.route.close()
	}
	if r.copier != nil {
		r.copier.Close()
	}
}

// progress is how far each partition is, by its name on the old cluster.
func (r *recovering) progress(ctx context.Context, tail string) (map[replication.Partition]replication.Recovered, error) {
	list, err := r.copier.Recoveries(ctx, tail)
	if err != nil && !errors.Is(err, fault.ErrNotFound) { // nobody has recovered anything there yet
		return nil, wrap("read how far the recovery is", err)
	}
	by := make(map[replication.Partition]replication.Recovered, len(list))
	for _, p := range list {
		by[p.Partition] = p
	}
	return by, nil
}

// kept reads what PlanRecovery has stored: the shared plan, and its last list of tails.
func (r *recovering) kept(ctx context.Context, tail string) (keptPlan, []replication.Stranded, error) {
	var plan keptPlan
	if err := r.records.get(ctx, recoveryKey(tail), &plan); err != nil {
		return plan, nil, fault.Hint(err, "the plan of the recovery is gone from %s; start the recovery again", MarksTopic)
	}
	list, err := getList[replication.Stranded](ctx, r.records.to, tailsKey(tail, plan.Run))
	return plan, list, err
}

// markSet are the marks that one run kept.
type markSet struct {
	Run   string
	Epoch int64
	Seen  time.Time
	Marks []replication.Mark
}

// tail is its name in the records of recoveries.
func (s markSet) tail() string { return s.Marks[0].SourceCluster + "/" + s.Run }

// markSets are those of switches from one cluster to another, of topics that match, the newest first.
func markSets(ctx context.Context, rec Records, from, to string, match func(string) bool) ([]markSet, error) {
	return markSetsWhere(ctx, rec, func(m replication.Mark) bool {
		return m.TargetCluster == to && (m.SourceCluster == from || m.SourceCluster == "") && match(m.Topic)
	})
}

// markSetsWhere are those that have marks which count, the newest first.
func markSetsWhere(ctx context.Context, rec Records, counts func(replication.Mark) bool) ([]markSet, error) {
	all, err := rec.Load(ctx, "marks/")
	if err != nil {
		return nil, wrap("read the marks", err)
	}
	by := map[string]*markSet{}
	for _, key := range sorted(all) {
		var marks []replication.Mark
		if err := json.Unmarshal(all[key], &marks); err != nil {
			return nil, fmt.Errorf("decode record %s: %w", key, err)
		}
		for _, m := range marks {
			if !counts(m) {
				continue
			}
			s := by[m.Run]
			if s == nil {
				s = &markSet{Run: m.Run}
				by[m.Run] = s
			}
			s.Marks, s.Epoch = append(s.Marks, m), max(s.Epoch, m.Epoch)
			if s.Seen.Before(m.Seen) {
				s.Seen = m.Seen
			}
		}
	}
	var sets []markSet
	for _, s := range by {
		sets = append(sets, *s)
	}
	slices.SortFunc(sets, func(a, b markSet) int {
		if a.Epoch != b.Epoch {
			return cmp.Compare(b.Epoch, a.Epoch)
		}
		return strings.Compare(b.Run, a.Run)
	})
	return sets, nil
}

// Treats says what happens to a topic: a name before a pattern, a longer pattern before a shorter one.
func treats(r runbooks.Recovery, topic string) replication.Treatment {
	return replication.Treatment(r.Of(topic))
}
