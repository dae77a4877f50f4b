package mirrormaker

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/internal/fault"
	"switchback/replication"
)

// translate asks for positions of a world, one group each.
func translate(t *testing.T, c Comparer, on replication.Partition, positions ...int64) []replication.Translated {
	t.Helper()
	var groups []replication.GroupOffsets
	for i, p := range positions {
		groups = append(groups, replication.GroupOffsets{Group: fmt.Sprint("g", i), Offsets: []replication.Translated{{Partition: on, Source: p, Target: replication.Unknown}}})
	}
	out, err := c.Translate(context.Background(), groups)
	require.NoError(t, err)
	require.Len(t, out, len(groups))
	var list []replication.Translated
	for i, g := range out {
		require.Equal(t, groups[i].Group, g.Group)
		require.Equal(t, on, g.Offsets[0].Partition)
		list = append(list, g.Offsets[0])
	}
	return list
}

// everyPosition of a world: each offset of the source, and one beyond its end; of a long one some.
func (w *world) everyPosition() (all []int64) {
	step := 1 + w.end/60
	for p := w.end + 1; p >= 0; p -= step {
		all = append(all, p)
	}
	return append(all, 0)
}

// judge holds a translation against the truth. Identity is what an application can tell: the content of a record.
func (w *world) judge(t *testing.T, got replication.Translated, why string) {
	t.Helper()
	position := min(got.Source, w.end)
	if got.Target == replication.Unknown {
		require.NotEqual(t, replication.ProofExact, got.Proof, why)
		return
	}
	at := func(i int) bool { return w.target[i].Offset >= got.Target }
	// What the group has not read, the source still has (compaction may have taken it), and the target has: all of it must
	// lie ahead.
	left := map[int64]bool{}
	for _, r := range w.source {
		left[r.Offset] = true
	}
	seen := map[int64]bool{}
	var unread []*kgo.Record
	for j, r := range w.target {
		if o := w.truth[j]; o >= position && left[o] && !seen[o] {
			seen[o] = true
			unread = append(unread, r)
		}
	}
	need, ahead := tally(unread, func(int) bool { return true }), tally(w.target, at)
	for what, n := range need {
		require.GreaterOrEqual(t, ahead[what], n, "%s: position %d goes on at %d and skips %s (%s)", why, got.Source, got.Target, what, got.Proof)
	}
	// What it meets besides is what it reads again: at most as much as is said.
	still := tally(w.source, func(i int) bool { return w.source[i].Offset >= position })
	met := map[int64]bool{}
	for j, r := range w.target { // what compaction has taken on the source since is new to the group all the same
		if o := w.truth[j]; o >= position && !left[o] && !met[o] && at(j) {
			met[o] = true
			still[content(r)]++
		}
	}
	again := int64(0)
	for what, n := range ahead {
		again += int64(n - min(n, still[what]))
	}
	if got.Behind != replication.Unknown {
		require.LessOrEqual(t, again, got.Behind, "%s: position %d goes on at %d (%s)", why, got.Source, got.Target, got.Proof)
	}
	if got.Proof == replication.ProofExact {
		require.Zero(t, again, "%s: position %d goes on at %d", why, got.Source, got.Target)
		require.Zero(t, got.Behind)
	}
}

var allHabits = map[string]habits{
	"plain":              {},
	"markers":            {markers: 0.3},
	"exactly once":       {markers: 0.2, transaction: 0.3},
	"repeats":            {repeats: 0.5},
	"replays":            {crashes: 0.1},
	"replays of repeats": {crashes: 0.1, repeats: 0.4, markers: 0.1},
	"behind":             {behind: true, crashes: 0.05},
	"trimmed source":     {trimSource: true, crashes: 0.03},
	"trimmed target":     {trimTarget: true},
	"trimmed both":       {trimTarget: true, trimSource: true, crashes: 0.05, markers: 0.1},
	"compacted source":   {compactSource: true, crashes: 0.03},
	"strangers":          {foreign: 0.1},
	"stamped":            {stamped: true},
	"stamped repeats":    {stamped: true, repeats: 0.5, crashes: 0.05},
	"stamped behind":     {stamped: true, repeats: 0.2, crashes: 0.05, behind: true},
	"everything": {markers: 0.1, repeats: 0.2, crashes: 0.05, foreign: 0.05, transaction: 0.1,
		trimSource: true, trimTarget: true, compactSource: true},
}

// eachWorld makes many worlds of each habit, small ones and large ones.
func eachWorld(t *testing.T, n int, do func(t *testing.T, w *world, h habits, why string)) {
	t.Helper()
	for _, name := range slices.Sorted(maps.Keys(allHabits)) {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(n) {
				r := rand.New(rand.NewPCG(seed, 7))
				h := allHabits[name]
				h.records = r.IntN([]int{4, 12, 60, 300}[seed%4]) + int(seed%2)
				do(t, grow(r, h), h, fmt.Sprintf("%s, seed %d", name, seed))
			}
		})
	}
}

func TestP33_NoGroupIsPutBeyondWhatItRead(t *testing.T) {
	eachWorld(t, 100, func(t *testing.T, w *world, _ habits, why string) {
		for _, got := range translate(t, w.comparer(0), w.on, w.everyPosition()...) {
			w.judge(t, got, why)
		}
	})
}

func TestP33_PlainCopiesAreExact(t *testing.T) {
	eachWorld(t, 60, func(t *testing.T, w *world, h habits, why string) {
		if !w.plain || h.stamped && h.repeats > 0 {
			return
		}
		for _, got := range translate(t, w.comparer(0), w.on, w.everyPosition()...) {
			if got.Source > w.end {
				require.Contains(t, got.Proof, "beyond the source's end", why)
				continue
			}
			require.Equal(t, replication.ProofExact, got.Proof, "%s: position %d of %d", why, got.Source, w.end)
		}
	})
}

// With a small limit most positions lie too far back to compare all that follows.
func TestP33_FarPositions(t *testing.T) {
	eachWorld(t, 60, func(t *testing.T, w *world, _ habits, why string) {
		for _, got := range translate(t, w.comparer(20), w.on, w.everyPosition()...) {
			if got.Target != replication.Unknown && w.unique {
				w.judge(t, got, why)
			}
		}
	})
	w := grow(rand.New(rand.NewPCG(1, 1)), habits{records: 5_000, markers: 0.01})
	found := 0
	for _, got := range translate(t, w.comparer(200), w.on, w.everyPosition()...) {
		w.judge(t, got, "far")
		if got.Target != replication.Unknown {
			found++
		}
	}
	require.Greater(t, found, 50)
}

func TestP33_Table(t *testing.T) {
	rec := func(offset int64, what string) *kgo.Record {
		return &kgo.Record{Offset: offset, Key: []byte(what[:1]), Value: []byte(what), Timestamp: time.UnixMilli(1)}
	}
	logOf := func(start int64, all ...string) (list []*kgo.Record) {
		for i, what := range all {
			if what != "" { // a marker
				list = append(list, rec(start+int64(i), what))
			}
		}
		return list
	}
	type want struct {
		position, target int64
		proof            string
	}
	for name, tc := range map[string]struct {
		sourceStart    int64
		source, target []string
		want           []want
	}{
		"replayed part that ended early": {0, []string{"a", "b", "c", "d", "e"}, []string{"a", "b", "c", "d", "e", "b", "c"}, []want{
			{5, 7, "exact"},
			{4, 4, "up to 2 records behind: the target has some twice"},
			{2, 3, "up to 1 record behind: the target has some twice"}, // d e b c: c is ahead, b is read again
			{1, 3, "exact"},
		}},
		"replayed part that went on": {0, []string{"a", "b", "c", "d"}, []string{"a", "b", "c", "b", "c", "d"}, []want{
			{1, 3, "exact"}, {2, 4, "exact"}, {3, 5, "exact"}, {0, 0, "up to 2 records behind"}}},
		"markers": {0, []string{"a", "", "b", "c", ""}, []string{"a", "b", "c"}, []want{{0, 0, "exact"}, {1, 1, "exact"}, {2, 1, "exact"}, {3, 2, "exact"}, {4, 3, "exact"}, {5, 3, "exact"}}},
		"ahead of the mirror": {0, []string{"a", "b", "c"}, []string{"a"}, []want{
			{1, 1, "exact"}, {3, 1, "up to 2 records behind: the group has read 2 records that the target does not have yet"}}},
		"beyond the end":     {0, []string{"a"}, []string{"a"}, []want{{9, 1, "the commit lies beyond the source's end 1 and counts as that; exact"}}},
		"identical in a row": {0, []string{"a", "x", "x", "x", "b"}, []string{"a", "x", "x", "x", "b"}, []want{{2, 2, "exact"}, {3, 3, "exact"}}},
		"identical, some twice": {0, []string{"a", "x", "x", "b"}, []string{"a", "x", "x", "x", "b"}, []want{
			{2, 2, "up to 1 record behind"}, {1, 1, "up to 1 record behind"}}},
		"trimmed source":           {7, []string{"c", "d"}, []string{"a", "b", "c", "d"}, []want{{7, 2, "exact"}, {8, 3, "exact"}, {6, -1, "no checkpoint"}}},
		"written by somebody else": {0, []string{"a", "b"}, []string{"a", "b", "z"}, []want{{2, 2, "up to 1 record behind"}}},
		"transformed":              {0, []string{"a", "b"}, []string{"A", "B"}, []want{{1, -1, "no checkpoint"}}},
		"both empty":               {0, nil, nil, []want{{0, 0, "exact"}}},
		"nothing mirrored yet":     {0, []string{"a", "b"}, nil, []want{{0, 0, "exact"}, {1, 0, "up to 1 record behind"}}},
		"nothing left":             {5, nil, []string{"a"}, []want{{5, -1, "no checkpoint"}}},
	} {
		t.Run(name, func(t *testing.T) {
			w := &world{from: newMemory(), to: newMemory(), on: part0}
			w.from.set(part0, tc.sourceStart, tc.sourceStart+int64(len(tc.source)), logOf(tc.sourceStart, tc.source...))
			w.to.set(part0, 0, int64(len(tc.target)), logOf(0, tc.target...))
			for _, want := range tc.want {
				got := translate(t, w.comparer(0), part0, want.position)[0]
				require.Equal(t, want.target, got.Target, "position %d: %s", want.position, got.Proof)
				require.Contains(t, got.Proof, want.proof, "position %d", want.position)
			}
		})
	}
}

// The target's brokers stamp records: the times differ, and only an offset sync, or the beginning of both logs, tells
// where to begin. A pattern that repeats looks the same one turn later.
// Compaction takes records at its own time on each cluster. A group goes on at the first record that is left on the source
// and that it has not read, and meets no older one: their keys have later records.
func TestP33_WhatTheSourceHasCompactedIsNotReadAgain(t *testing.T) {
	record := func(offset int64, key string) *kgo.Record {
		return &kgo.Record{Offset: offset, Key: []byte(key), Value: fmt.Appendf(nil, "v%d", offset), Timestamp: time.UnixMilli(1000 + offset)}
	}
	all := []*kgo.Record{record(0, "a"), record(1, "b"), record(2, "a"), record(3, "b"), record(4, "c"), record(5, "a"), record(6, "b")}
	w := &world{from: newMemory(), to: newMemory(), on: part0}
	w.to.set(part0, 0, 7, all)
	w.from.set(part0, 0, 7, []*kgo.Record{all[1], all[4], all[5], all[6]}) // 1 is where the cleaner had not been yet
	want := map[int64]int64{0: 0, 1: 0, 2: 4, 3: 4, 4: 4, 5: 5, 6: 6, 7: 7}
	for _, compact := range []bool{false, true} {
		w.from.compact = compact
		for _, got := range translate(t, w.comparer(0), part0, 0, 1, 2, 3, 4, 5, 6, 7) {
			at := fmt.Sprintf("position %d, compact %t", got.Source, compact)
			switch {
			case compact && got.Source > 1:
				require.Equal(t, replication.ProofExact, got.Proof, at)
				require.Equal(t, want[got.Source], got.Target, at)
			case got.Source == 2 || got.Source == 3:
				require.EqualValues(t, 2, got.Target, at)
				require.Contains(t, got.Proof, "up to 2 records behind", at)
			}
		}
	}
	// A part that was written once more, and compacted on the source: it is met again, and that is said.
	again := slices.Clone(all)
	for i, r := range []*kgo.Record{all[2], all[3]} {
		copied := *r
		copied.Offset = int64(7 + i)
		again = append(again, &copied)
	}
	w.to.set(part0, 0, 9, again)
	for _, got := range translate(t, w.comparer(0), part0, 5, 6, 7) {
		require.Contains(t, got.Proof, "up to 2 records behind", "position %d", got.Source)
	}
}

func TestP33_UnderLogAppendTimeTimesAreNotCompared(t *testing.T) {
	turn := func(on *memory, start, n int64, attrs kgo.RecordAttrs) {
		var log []*kgo.Record
		for o := start; o < n; o++ {
			log = append(log, &kgo.Record{Offset: o, Value: fmt.Appendf(nil, "v%d", o%300), Timestamp: time.UnixMilli(o), Attrs: attrs})
		}
		on.set(part0, start, n, log)
	}
	w := &world{from: newMemory(), to: newMemory(), on: part0}
	turn(w.from, 50, 700, kgo.RecordAttrs{})
	turn(w.to, 40, 400, stampedByBroker)
	require.NotEqual(t, replication.OK, w.drained(t, w.comparer(0)).Status, "one turn behind")
	require.NotEqual(t, replication.ProofExact, translate(t, w.comparer(0), part0, 700)[0].Proof)

	turn(w.to, 40, 700, stampedByBroker)
	require.NotEqual(t, replication.OK, w.drained(t, w.comparer(0)).Status, "nothing says which turn it is")
	key, value := EncodeSync(Sync{part0, 650, 650})
	w.to.set(replication.Partition{Topic: names.OffsetSyncs()}, 0, 1, []*kgo.Record{{Key: key, Value: value}})
	require.Equal(t, replication.OK, w.drained(t, w.comparer(0)).Status)
	for _, got := range translate(t, w.comparer(0), part0, 60, 400, 690, 700) {
		require.Equal(t, replication.ProofExact, got.Proof, "position %d", got.Source)
		require.Equal(t, got.Source, got.Target)
	}
}

// The part that was written once more fills what is looked at first, and ends before what it repeats does.
func TestP33_AReplayedPartHidesNothing(t *testing.T) {
	for again := int64(60); again < 140; again++ {
		w := grow(rand.New(rand.NewPCG(1, 1)), habits{records: 201})
		for o := 198 - again; o < 198; o++ {
			r := *w.source[o]
			r.Offset = int64(len(w.target))
			w.target, w.truth = append(w.target, &r), append(w.truth, o)
		}
		w.to.set(w.on, 0, int64(len(w.target)), w.target)
		for _, got := range translate(t, w.comparer(0), w.on, 198, 199, 200, 201) {
			w.judge(t, got, fmt.Sprintf("%d records again", again))
		}
		require.EqualValues(t, 198, translate(t, w.comparer(0), w.on, 198)[0].Target)
	}
}

// Only the record itself makes a sync an anchor: one that lies changes nothing.
func TestP33_SyncsThatLieAreNoAnchors(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	w := grow(r, habits{records: 100, stamped: true, repeats: 0.3})
	key, value := EncodeSync(Sync{w.on, 50, 51})
	topic := replication.Partition{Topic: names.OffsetSyncs()}
	w.to.set(topic, 0, 1, []*kgo.Record{{Key: key, Value: value}})
	for _, got := range translate(t, w.comparer(0), w.on, w.everyPosition()...) {
		w.judge(t, got, "a lie")
	}
}

func TestTranslateWithoutACommit(t *testing.T) {
	w := grow(rand.New(rand.NewPCG(1, 1)), habits{records: 3})
	got := translate(t, w.comparer(0), w.on, replication.Unknown)[0]
	require.Equal(t, replication.Translated{Partition: w.on, Source: -1, Target: -1, Behind: -1, Proof: ProofNoCommit}, got)
}

// What records do not tell is the checkpoint's, and only one that is not beyond the commit.
func TestTranslateFallsBackToCheckpoints(t *testing.T) {
	w := &world{from: newMemory(), to: newMemory(), on: part0}
	w.from.set(part0, 100, 100, nil) // expired
	w.to.set(part0, 0, 10, []*kgo.Record{{Offset: 3, Value: []byte("x")}})
	var log []*kgo.Record
	for i, c := range []Checkpoint{{Group: "g0", On: part0, Upstream: 90, Downstream: 5}, {Group: "g1", On: part0, Upstream: 95, Downstream: 7}} {
		key, value := EncodeCheckpoint(c)
		log = append(log, &kgo.Record{Key: key, Value: value, Offset: int64(i)})
	}
	w.to.set(replication.Partition{Topic: names.Checkpoints()}, 0, 2, log)
	got := translate(t, w.comparer(0), part0, 92, 92, 92)
	require.Equal(t, replication.Translated{Partition: part0, Source: 92, Target: 5, Behind: 5, Proof: "checkpoint, up to 5 records behind"}, got[0])
	require.Equal(t, replication.Translated{Partition: part0, Source: 92, Target: -1, Behind: -1,
		Proof: "no checkpoint that is not beyond the commit: the newest was made for offset 95"}, got[1])
	require.Equal(t, "no checkpoint", got[2].Proof)
}

func TestTranslateNamesWhatItCannotRead(t *testing.T) {
	w := grow(rand.New(rand.NewPCG(1, 1)), habits{records: 30})
	other := replication.Partition{Topic: "orders", Partition: 1}
	w.from.set(other, 0, 3, nil)
	w.to.set(other, 0, 3, nil)
	w.from.fail[other] = fault.ErrDenied
	out, err := w.comparer(0).Translate(context.Background(), []replication.GroupOffsets{{Group: "g", Offsets: []replication.Translated{
		{Partition: w.on, Source: 7}, {Partition: other, Source: 1}, {Partition: replication.Partition{Topic: "gone"}, Source: 1}}}})
	require.ErrorIs(t, err, fault.ErrDenied)
	require.ErrorContains(t, err, "orders-1: ")
	require.ErrorContains(t, err, "gone-0: the source's ends are not known")
	require.Equal(t, replication.ProofExact, out[0].Offsets[0].Proof)
	require.Equal(t, "no checkpoint", out[0].Offsets[1].Proof)
}

// Groups at the end cost a few records of each log, whatever its length.
func TestTranslateReadsLittleForGroupsAtTheEnd(t *testing.T) {
	w := grow(rand.New(rand.NewPCG(1, 1)), habits{records: 20_000})
	require.Equal(t, replication.ProofExact, translate(t, w.comparer(0), w.on, w.end)[0].Proof)
	require.LessOrEqual(t, w.from.reads, margin)
	require.LessOrEqual(t, w.to.reads, 3*margin)
}
