package e2e_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"switchback/lab/ledger"
	"switchback/lab/setup"
	"switchback/lab/story"
	"switchback/replication"
	"switchback/replication/mirrormaker"
	"switchback/report"
	"switchback/runbooks"
	"switchback/workflows"
)

// Groups go on exactly where they stood, or as the report says: 200 groups in 40 partitions, at positions that are drawn.
// The truth is kept here: the offset at which each record was acknowledged on the source, by its number. A group has read
// what lies below its commit, wherever a mirror has put it. Nothing of Switchback's own is asked what is right.

const (
	readers    = 200
	partitions = 10 // of each of the four topics
	members    = 50 // every so many groups one goes on for real
)

// The topics, by what makes their offsets differ between the clusters.
const (
	plain     = "orders.plain"     // nothing but records
	mixed     = "orders.mixed"     // transactions, committed and aborted, among records without
	compacted = "orders.compacted" // on both clusters, each at its own time; half of the partitions with transactions too
	trimmed   = "orders.trimmed"   // by DeleteRecords, before it was mirrored and after, and on the target by itself
)

var numbered = []string{compacted, mixed, plain, trimmed}

type partition = replication.Partition

// library is the truth about all partitions.
type library struct {
	s     *stage
	t     *testing.T
	r     *rand.Rand
	seq   int64
	wrote map[int64]int64                // the source's offset of each committed record, by its number
	keys  map[int64]string               // by number
	books map[partition][]int64          // the same offsets, sorted
	start map[partition]int64            // of the source's log, as it was trimmed
	end   map[partition]int64            // of the source's log
	held  map[partition]int64            // the target's log start
	stand map[string]map[partition]int64 // commits on the source, by group
	// unheard are groups and topics of which the mirror never brought anything: nobody but the source knows that they read them.
	unheard []string
	// copies are the target's records by partition and offset, of every look: what compaction has taken since was there.
	copies map[partition]map[int64]int64
}

// newLibrary starts a lab with traffic of its own, and a mirror that knows of the readers.
func newLibrary(t *testing.T, changes ...func(*setup.Options)) *library {
	t.Helper()
	s := onMirrors(t, append(changes, edited(func(b *runbooks.Runbook) { b.Groups.Include = append(b.Groups.Include, "reader-*") }),
		func(o *setup.Options) {
			o.Workloads[0].Rate = 40
			o.EditConnector = func(_ string, config map[string]string) {
				if _, ok := config["groups"]; ok {
					config["groups"] += "|reader-.*"
				}
			}
		}, setup.Impatient)...)
	seed := uint64(time.Now().UnixNano()) //nolint:gosec // any number
	t.Logf("seed %d", seed)
	return &library{
		s: s, t: t, r: rand.New(rand.NewPCG(seed, 1)), //nolint:gosec // positions, not secrets
		wrote: map[int64]int64{}, keys: map[int64]string{}, books: map[partition][]int64{}, start: map[partition]int64{}, end: map[partition]int64{}, held: map[partition]int64{},
		stand: map[string]map[partition]int64{}, copies: map[partition]map[int64]int64{},
	}
}

func (l *library) kafka(cluster string, opts ...kgo.Opt) *kgo.Client {
	l.t.Helper()
	c, err := l.s.Kafka(cluster, "lab", append(opts, kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerLinger(0))...)
	require.NoError(l.t, err)
	l.t.Cleanup(c.Close)
	return c
}

// grow writes a past and a present. The past is trimmed and compacted before the mirror sees it.
func (l *library) grow(ctx context.Context) {
	l.t.Helper()
	east, txn := l.kafka("east"), l.kafka("east", kgo.TransactionalID("orders-writer"))
	admin := kadm.NewClient(east)
	link := l.s.mirrorMaker(l.t, setup.Identity)
	settles(l.t, link, replication.MirrorActive)
	connect := link.Client()
	require.NoError(l.t, connect.Pause(ctx, "east-west.source"))
	eventually(l.t, "the mirror to pause", func() (bool, error) {
		c, err := connect.Connector(ctx, "east-west.source")
		return err == nil && c.State == mirrormaker.Paused && !slices.ContainsFunc(c.Tasks, func(t mirrormaker.Task) bool { return t.State != mirrormaker.Paused }), err
	})
	for _, topic := range numbered {
		config := map[string]*string{}
		if topic == compacted { // the smallest segments there are, each closed by the next record that comes
			for k, v := range map[string]string{"cleanup.policy": "compact", "segment.bytes": "1048576", "segment.ms": "500", "min.cleanable.dirty.ratio": "0.001"} {
				config[k] = kadm.StringPtr(v)
			}
		}
		made, err := admin.CreateTopics(ctx, partitions, 1, config, topic)
		require.NoError(l.t, err)
		require.NoError(l.t, made.Error())
	}
	l.write(ctx, east, txn, 40)
	l.trims(ctx, admin, 0.5, l.start)
	l.compacts(ctx, east)
	require.NoError(l.t, connect.Resume(ctx, "east-west.source"))
	l.write(ctx, east, txn, 60)
	l.mirrored(ctx)
	l.trims(ctx, admin, 0.5, l.start)
	l.compacts(ctx, east)
	l.mirrored(ctx)
	l.trims(ctx, kadm.NewClient(l.kafka("west")), 0.3, l.held)
	l.write(ctx, east, txn, 20)
	l.mirrored(ctx)
	ends, err := admin.ListEndOffsets(ctx, numbered...)
	require.NoError(l.t, err)
	ends.Each(func(o kadm.ListedOffset) { l.end[partition{Topic: o.Topic, Partition: o.Partition}] = o.Offset })
}

// write writes some n records to each partition, and more in transactions.
func (l *library) write(ctx context.Context, client, txn *kgo.Client, n int) {
	l.t.Helper()
	for _, topic := range numbered {
		l.keep(client.ProduceSync(ctx, l.records(topic, 0, func() int { return n/2 + l.r.IntN(n) })...))
		first := int32(0)
		switch topic {
		case plain, trimmed:
			continue
		case compacted:
			first = partitions / 2
		}
		for range 6 {
			require.NoError(l.t, txn.BeginTransaction())
			done := txn.ProduceSync(ctx, l.records(topic, first, func() int { return l.r.IntN(4) })...)
			require.NoError(l.t, done.FirstErr())
			commit := l.r.IntN(3) > 0
			require.NoError(l.t, txn.EndTransaction(ctx, kgo.TransactionEndTry(commit)))
			if commit {
				l.keep(done)
			}
			l.keep(client.ProduceSync(ctx, l.records(topic, first, func() int { return l.r.IntN(2) })...))
		}
	}
}

// records are some of every partition from first on. Where they are compacted they share a few keys.
func (l *library) records(topic string, first int32, some func() int) (batch []*kgo.Record) {
	keys := 1000
	if topic == compacted {
		keys = 15
	}
	for p := first; p < partitions; p++ {
		for range some() {
			l.seq++
			batch = append(batch, &kgo.Record{Topic: topic, Partition: p, Key: fmt.Appendf(nil, "k%d", l.r.IntN(keys)), Value: ledger.EncodeValue(l.seq, 40)})
		}
	}
	return batch
}

// keep notes what was acknowledged, and committed.
func (l *library) keep(done kgo.ProduceResults) {
	l.t.Helper()
	require.NoError(l.t, done.FirstErr())
	for _, r := range done {
		seq, err := ledger.DecodeValue(r.Record.Value)
		require.NoError(l.t, err)
		on := partition{Topic: r.Record.Topic, Partition: r.Record.Partition}
		l.wrote[seq], l.keys[seq], l.books[on] = r.Record.Offset, string(r.Record.Key), append(l.books[on], r.Record.Offset)
	}
}

// trims deletes the older records of some partitions, up to half of what is there.
func (l *library) trims(ctx context.Context, admin *kadm.Client, share float64, starts map[partition]int64) {
	l.t.Helper()
	ends, err := admin.ListEndOffsets(ctx, trimmed)
	require.NoError(l.t, err)
	upTo := kadm.Offsets{}
	ends.Each(func(o kadm.ListedOffset) {
		on := partition{Topic: o.Topic, Partition: o.Partition}
		if at := starts[on] + l.r.Int64N((o.Offset-starts[on])/2); l.r.Float64() < share && at > starts[on] {
			upTo.Add(kadm.Offset{Topic: o.Topic, Partition: o.Partition, At: at})
			starts[on] = at
		}
	})
	deleted, err := admin.DeleteRecords(ctx, upTo)
	require.NoError(l.t, err)
	require.NoError(l.t, deleted.Error())
}

// compacts closes the segments of the source by one more record each, and waits until its cleaner has been there.
func (l *library) compacts(ctx context.Context, client *kgo.Client) {
	l.t.Helper()
	l.s.beats(l.t, 1) // longer than a segment's time
	l.keep(client.ProduceSync(ctx, l.records(compacted, 0, func() int { return 1 })...))
	before := len(l.log(ctx, "east", compacted))
	eventually(l.t, "the cleaner of east", func() (bool, error) { return len(l.log(ctx, "east", compacted)) < before, nil })
}

func (l *library) log(ctx context.Context, cluster string, topics ...string) []ledger.LogRecord {
	l.t.Helper()
	log, err := ledger.ReadCluster(ctx, cluster, topics, l.s.KafkaOptions(cluster, "lab")...)
	require.NoError(l.t, err)
	return log.Records
}

// mirrored waits until the target has, or has had, the newest record of each partition, and notes what it has.
func (l *library) mirrored(ctx context.Context) {
	l.t.Helper()
	newest := map[partition]int64{}
	for on, offsets := range l.books {
		newest[on] = slices.Max(offsets)
	}
	eventually(l.t, "the mirror to bring everything", func() (bool, error) {
		if topics, err := kadm.NewClient(l.kafka("west")).ListTopics(ctx, numbered...); err != nil || topics.Error() != nil {
			return false, cmp.Or(err, topics.Error())
		}
		if err := l.look(ctx); err != nil { // a topic that was made a moment ago
			return false, err
		}
		for on, offset := range newest {
			if !slices.ContainsFunc(slices.Collect(maps.Values(l.copies[on])), func(seq int64) bool { return l.wrote[seq] == offset }) {
				return false, fmt.Errorf("%s lacks offset %d", on.Name(), offset)
			}
		}
		return true, nil
	})
}

// look notes what the target has now.
func (l *library) look(ctx context.Context) error {
	log, err := ledger.ReadCluster(ctx, "west", numbered, l.s.KafkaOptions("west", "lab")...)
	for _, r := range log.Records {
		on := partition{Topic: r.Topic, Partition: r.Partition}
		if l.copies[on] == nil {
			l.copies[on] = map[int64]int64{}
		}
		l.copies[on][r.Offset] = r.Seq
	}
	return err
}

// stands puts every group somewhere in every partition.
func (l *library) stands(ctx context.Context) {
	l.t.Helper()
	for i := range readers {
		group := fmt.Sprintf("reader-%03d", i)
		l.stand[group] = map[partition]int64{}
		for _, topic := range numbered {
			for p := range int32(partitions) {
				on := partition{Topic: topic, Partition: p}
				kind := l.r.IntN(12)
				if i%members == 0 && kind == 4 {
					kind = 5 // what the source has not, a member may read again
				}
				if at := l.position(on, kind); at >= 0 {
					l.stand[group][on] = at
				}
			}
		}
	}
	l.commits(ctx, slices.Collect(maps.Keys(l.stand))...)
	link := l.s.mirrorMaker(l.t, setup.Identity) // its checkpoint connector begins anew when groups appear
	l.s.beats(l.t, 3)
	eventually(l.t, "the mirror to be well", func() (bool, error) {
		status, err := link.Status(ctx)
		return err == nil && status.Healthy, cmp.Or(err, errors.New(status.Reason))
	})
}

// position draws one, or -1 for none.
func (l *library) position(on partition, kind int) int64 {
	start, end := l.start[on], l.end[on]
	switch kind {
	case 0:
		return -1
	case 1:
		return start
	case 2:
		return end
	case 3:
		return end + 1 + l.r.Int64N(20)
	case 4:
		return l.r.Int64N(start + 1) // records below the start are gone
	case 5, 6, 7: // anywhere: on markers, on aborted records, on what compaction has taken
		return start + l.r.Int64N(end-start)
	}
	return max(start, l.books[on][l.r.IntN(len(l.books[on]))]+1)
}

func (l *library) commits(ctx context.Context, groups ...string) {
	l.t.Helper()
	admin := kadm.NewClient(l.kafka("east"))
	all, ctx := errgroup.WithContext(ctx)
	all.SetLimit(8)
	for _, group := range groups {
		all.Go(func() error {
			offsets := kadm.Offsets{}
			for on, at := range l.stand[group] {
				offsets.Add(kadm.Offset{Topic: on.Topic, Partition: on.Partition, At: at, LeaderEpoch: -1})
			}
			done, err := admin.CommitOffsets(ctx, group, offsets)
			return cmp.Or(err, done.Error())
		})
	}
	require.NoError(l.t, all.Wait())
}

// went is where one group goes on in one partition, and what that means for it.
type went struct {
	group          string
	on             partition
	source, target int64 // source is -1 without a commit
	proof          string
	twice, skipped int
}

func (w went) String() string {
	return fmt.Sprintf("%s in %s: %d on east, %d on west (%s): %d records twice, %d skipped", w.group, w.on.Name(), w.source, w.target, w.proof, w.twice, w.skipped)
}

// judge holds what the target's groups have against the truth, and says what the report says of it.
func (l *library) judge(ctx context.Context, r report.Report) (all []went) {
	l.t.Helper()
	require.NoError(l.t, l.look(ctx))
	admin := kadm.NewClient(l.kafka("west"))
	starts, err := admin.ListStartOffsets(ctx, numbered...)
	require.NoError(l.t, err)
	starts.Each(func(o kadm.ListedOffset) { l.held[partition{Topic: o.Topic, Partition: o.Partition}] = o.Offset })
	said := map[string]map[partition]report.GroupOffset{}
	for _, o := range r.Offsets {
		if said[o.Group] == nil {
			said[o.Group] = map[partition]report.GroupOffset{}
		}
		said[o.Group][partition{Topic: o.Topic, Partition: o.Partition}] = o
	}
	for _, group := range slices.Sorted(maps.Keys(l.stand)) {
		have, err := admin.FetchOffsets(ctx, group)
		require.NoError(l.t, err)
		for on := range l.books {
			w := went{group: group, on: on, source: -1, proof: said[group][on].Proof}
			if at, committed := l.stand[group][on]; committed {
				w.source = at
			}
			o, there := have.Lookup(on.Topic, on.Partition)
			if !there && (!l.reads(group, on.Topic) || slices.Contains(l.unheard, group+" "+on.Topic)) {
				continue // it does not read this topic, or nobody on west has ever heard that it does
			}
			require.True(l.t, there, "%s has no offset on west", w)
			require.NotNil(l.t, said[group][on].Target, "%s is not in the report", w)
			require.Equal(l.t, o.At, *said[group][on].Target, "%s: the report says another offset", w)
			w.target = o.At
			for offset, seq := range l.copies[on] {
				switch read := l.wrote[seq] < w.source; {
				case offset >= w.target && read:
					w.twice++
				case offset < w.target && offset >= l.held[on] && !read && !l.superseded(on, seq, w.target):
					w.skipped++
				}
			}
			all = append(all, w)
		}
	}
	return all
}

// superseded says whether compaction may have kept a record from a group on the source as well: a later one of its key lies
// ahead on the target.
func (l *library) superseded(on partition, seq, target int64) bool {
	if on.Topic != compacted {
		return false
	}
	for offset, later := range l.copies[on] {
		if offset >= target && l.keys[later] == l.keys[seq] && l.wrote[later] > l.wrote[seq] {
			return true
		}
	}
	return false
}

func (l *library) reads(group, topic string) bool {
	return slices.ContainsFunc(slices.Collect(maps.Keys(l.stand[group])), func(on partition) bool { return on.Topic == topic })
}

var upTo = regexp.MustCompile(`up to (\d+) records? behind`)

// true says whether the report's words about a group are true.
func (l *library) truth(w went) string {
	behind := upTo.FindStringSubmatch(w.proof)
	switch {
	case w.proof == replication.ProofExact:
		if w.twice > 0 || w.skipped > 0 {
			return "it is not exact"
		}
	case strings.Contains(w.proof, "set to the start"):
		if w.target != l.held[w.on] {
			return fmt.Sprintf("the start is %d", l.held[w.on])
		}
	case w.skipped > 0:
		return "a group skips what it has not read"
	case behind != nil:
		if n, _ := strconv.Atoi(behind[1]); w.twice > n {
			return fmt.Sprintf("it reads more than %d again", n)
		}
	}
	return ""
}

// tally prints how often the report says what, numbers apart.
func (l *library) tally(all []went) {
	said := map[string]int{}
	for _, w := range all {
		said[regexp.MustCompile(`\d+`).ReplaceAllString(w.proof, "N")]++
	}
	for _, words := range slices.Sorted(maps.Keys(said)) {
		l.t.Logf("%5d × %s", said[words], words)
	}
}

// While the source is there every group goes on at exactly the record after the last one that it committed.
func TestP33_EveryGroupGoesOnExactlyWhereItStood(t *testing.T) {
	l := newLibrary(t)
	ctx, cancel := context.WithTimeout(t.Context(), 6*patience)
	defer cancel()
	l.grow(ctx)
	l.stands(ctx)
	p := l.s.play(t, "orders")
	p.flows("east")
	out := p.ends(p.start("exact"), workflows.Completed)
	all := l.judge(ctx, p.report(out))
	l.tally(all)
	require.Greater(t, len(all), readers*len(numbered)*partitions*9/10)
	var wrong []string
	for _, w := range all {
		why := l.truth(w)
		switch {
		case why != "":
		case w.source < 0, w.source < l.start[w.on]: // what a group has not committed, or the source has not, nobody can find
		case w.twice > 0 || w.skipped > 0:
			why = "it does not go on at the record after the last one that it committed"
		}
		if why != "" {
			wrong = append(wrong, fmt.Sprintf("%s: %s", w, why))
		}
	}
	slices.Sort(wrong)
	require.Empty(t, wrong[:min(len(wrong), 40)], "%d of %d", len(wrong), len(all))
	for i := 0; i < readers; i += members {
		l.goesOn(ctx, fmt.Sprintf("reader-%03d", i))
	}
}

// goesOn reads as a member of a group would, to the end: each record once that the group has not read.
func (l *library) goesOn(ctx context.Context, group string) {
	l.t.Helper()
	var topics []string
	for _, topic := range numbered {
		if l.reads(group, topic) {
			topics = append(topics, topic)
		}
	}
	want := map[int64]int{}
	for _, r := range l.log(ctx, "west", topics...) {
		on := partition{Topic: r.Topic, Partition: r.Partition}
		if at, committed := l.stand[group][on]; !committed || l.wrote[r.Seq] >= at {
			want[r.Seq]++
		}
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	member := l.kafka("west", kgo.ConsumerGroup(group), kgo.ConsumeTopics(topics...), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), kgo.DisableAutoCommit())
	got := map[int64]int{}
	for n := 0; n < len(want); {
		fetches := member.PollFetches(ctx)
		require.NoError(l.t, fetches.Err(), "%s has read %d of %d", group, n, len(want))
		fetches.EachRecord(func(r *kgo.Record) {
			seq, err := ledger.DecodeValue(r.Value)
			require.NoError(l.t, err)
			got[seq]++
			n++
		})
	}
	require.Equal(l.t, want, got, group)
}

// checkpoints waits until the mirror has brought something of every group, of each topic that it reads. It takes its time, and where a
// group stands before the first record that was synced it never does: after a while the report has to say so.
func (l *library) checkpoints(ctx context.Context) {
	l.t.Helper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	admin := kadm.NewClient(l.kafka("west"))
	err := story.Until(ctx, "offsets of all groups on west", func() (bool, error) {
		var now []string
		for _, group := range slices.Sorted(maps.Keys(l.stand)) {
			have, err := admin.FetchOffsets(ctx, group)
			if err != nil {
				return false, err
			}
			for _, topic := range numbered {
				if l.reads(group, topic) && len(have[topic]) == 0 {
					now = append(now, group+" "+topic)
				}
			}
		}
		l.unheard = now
		return len(now) == 0, nil
	})
	if err != nil {
		l.t.Logf("%v: %v", err, l.unheard)
	}
	require.Less(l.t, len(l.unheard), len(l.stand)/10, "the mirror brought too little")
}

// When the source is dead no group skips what it has not committed, and none reads more again than the report says.
func TestWithoutTheSourceGroupsGoOnAsTheReportSays(t *testing.T) {
	l := newLibrary(t)
	ctx, cancel := context.WithTimeout(t.Context(), 6*patience)
	defer cancel()
	l.grow(ctx)
	l.stands(ctx)
	p := l.s.play(t, "orders")
	p.flows("east")
	l.s.does(t, "the groups' offsets are mirrored", func(ctx context.Context) error { return p.HandedOver(ctx, "east", "west") })
	l.checkpoints(ctx)
	var late []string
	for i := range readers / 4 { // these go on, and no checkpoint may tell of it
		group := fmt.Sprintf("reader-%03d", i)
		for on, at := range l.stand[group] {
			l.stand[group][on] = max(at, l.position(on, 8+i%4))
		}
		late = append(late, group)
	}
	l.commits(ctx, late...)
	gone := p.dies("east")
	run := p.unplanned("without-source", gone)
	p.approved(run)
	out := p.ends(run, workflows.Completed)
	all := l.judge(ctx, p.report(out))
	l.tally(all)
	var wrong []string
	for _, w := range all {
		if why := l.truth(w); why != "" {
			wrong = append(wrong, fmt.Sprintf("%s: %s", w, why))
		}
	}
	slices.Sort(wrong)
	require.Empty(t, wrong[:min(len(wrong), 40)], "%d of %d", len(wrong), len(all))
}
