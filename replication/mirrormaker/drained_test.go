package mirrormaker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/internal/fault"
	"switchback/replication"
)

func (w *world) drained(t *testing.T, c Comparer) replication.Outcome {
	t.Helper()
	ends, err := w.from.Ends(context.Background(), []string{w.on.Topic})
	require.NoError(t, err)
	out, err := c.Drained(context.Background(), ends)
	require.NoError(t, err)
	require.Len(t, out, 1)
	require.Equal(t, w.on.Name(), out[0].Name)
	return out[0]
}

// OK means that the target has, or had, everything that the source has.
func TestP33_DrainedIsNeverSaidTooEarly(t *testing.T) {
	said := map[replication.Status]int{}
	eachWorld(t, 200, func(t *testing.T, w *world, h habits, why string) {
		got := w.drained(t, w.comparer(0))
		said[got.Status]++
		last := int64(-1)
		if n := len(w.source); n > 0 {
			last = w.source[n-1].Offset
		}
		if got.Status == replication.OK && w.reached < last {
			// The only excuse is that nobody can tell: the target holds as many records with the contents of all that it lacks.
			require.NotZero(t, h.repeats, why)
			has := tally(w.target, func(int) bool { return true })
			for what, n := range tally(w.source, func(i int) bool { return w.source[i].Offset > w.reached }) {
				require.GreaterOrEqual(t, has[what], n, "%s: drained, and lacks %s", why, what)
			}
		}
		// What is there is said to be there, unless identical records or times that say nothing leave it open.
		if w.reached >= last && w.unique && !h.trimTarget && !h.stamped {
			require.Equal(t, replication.OK, got.Status, "%s: %s", why, got.Reason)
		}
		if got.Status != replication.OK {
			require.NotEmpty(t, got.Reason, why)
		}
	})
	require.NotZero(t, said[replication.OK])
	require.NotZero(t, said[replication.Pending])
}

// A record that the target lacks in the middle, with the last one there, is not drained.
func TestP17_ARecordThatWasSkippedIsNotDrained(t *testing.T) {
	w := grow(rand.New(rand.NewPCG(1, 1)), habits{records: 20})
	require.Equal(t, replication.OK, w.drained(t, w.comparer(0)).Status)
	lacks := append(append([]*kgo.Record(nil), w.target[:15]...), w.target[16:]...)
	w.to.set(w.on, 0, int64(len(w.target)), lacks)
	got := w.drained(t, w.comparer(0))
	require.Equal(t, replication.Unclear, got.Status)
	require.Contains(t, got.Reason, "lacks the record at offset 15")
}

func TestP33_DrainedTable(t *testing.T) {
	after := func(records int, keep func(w *world)) *world {
		w := grow(rand.New(rand.NewPCG(1, 1)), habits{records: records})
		keep(w)
		return w
	}
	for name, tc := range map[string]struct {
		w      *world
		status replication.Status
		says   string
	}{
		"empty":           {after(0, func(*world) {}), replication.OK, ""},
		"all there":       {after(200, func(*world) {}), replication.OK, ""},
		"one to go":       {after(200, func(w *world) { w.to.set(w.on, 0, 199, w.target[:199]) }), replication.Pending, "1 record to go"},
		"far behind":      {after(1000, func(w *world) { w.to.set(w.on, 0, 100, w.target[:100]) }), replication.Pending, "900 records to go"},
		"nothing there":   {after(10, func(w *world) { w.to.set(w.on, 0, 0, nil) }), replication.Pending, "the target is empty"},
		"markers at last": {after(10, func(w *world) { w.from.set(w.on, 0, 500, w.source) }), replication.OK, ""},
		"only markers":    {after(0, func(w *world) { w.from.set(w.on, 0, 500, nil) }), replication.OK, ""},
		"transformed": {after(10, func(w *world) {
			for _, r := range w.target {
				r.Value = append([]byte("x"), r.Value...)
			}
		}), replication.Unclear, "none of the last records"},
		"another header": {after(10, func(w *world) { w.target[9].Headers = []kgo.RecordHeader{{Key: "h"}} }), replication.Pending, "1 record to go"},
		"another time":   {after(10, func(w *world) { w.target[9].Timestamp = time.UnixMilli(1) }), replication.Pending, "1 record to go"},
		"null is not empty": {after(10, func(w *world) {
			w.source[9].Value, w.target[9].Value = nil, []byte{}
		}), replication.Pending, "1 record to go"},
	} {
		t.Run(name, func(t *testing.T) {
			got := tc.w.drained(t, tc.w.comparer(0))
			require.Equal(t, tc.status, got.Status, got.Reason)
			require.Contains(t, got.Reason, tc.says)
		})
	}
}

// Unknown is never OK.
func TestDrainedWithoutEnds(t *testing.T) {
	w := grow(rand.New(rand.NewPCG(1, 1)), habits{records: 10})
	c := w.comparer(0)
	known := w.from.ends[w.on]
	unknown, open, gone := known, known, known
	unknown.LastStable = replication.Unknown
	open.LastStable = 4
	gone.Partition = replication.Partition{Topic: "gone"}
	for says, e := range map[string]replication.Ends{"the source's ends are not known": unknown, "a transaction is open on the source since offset 4": open, "the target does not have it": gone} {
		out, err := c.Drained(context.Background(), []replication.Ends{e})
		require.NoError(t, err)
		require.NotEqual(t, replication.OK, out[0].Status)
		require.Contains(t, out[0].Reason, says)
	}
	w.to.fail[w.on] = fault.ErrDenied
	got := w.drained(t, c)
	require.Equal(t, replication.Unclear, got.Status)
	require.Contains(t, got.Reason, "not authorized")
}

// What retention took on the target was there: the mirror noted where it wrote it, and the log begins beyond that.
func TestDrainedBelievesTheMirrorAboutWhatExpired(t *testing.T) {
	w := grow(rand.New(rand.NewPCG(1, 1)), habits{records: 10})
	w.to.set(w.on, 10, 10, nil)
	require.Equal(t, replication.Pending, w.drained(t, w.comparer(0)).Status)
	key, value := EncodeSync(Sync{w.on, 9, 9})
	w.to.set(replication.Partition{Topic: names.OffsetSyncs()}, 0, 1, []*kgo.Record{{Key: key, Value: value}})
	got := w.drained(t, w.comparer(0))
	require.Equal(t, replication.OK, got.Status)
	require.Contains(t, got.Reason, "expired on the target")
	require.Equal(t, int64(10), translate(t, w.comparer(0), w.on, 10)[0].Target)
}

func (w *world) boundary(t *testing.T, c Comparer, stored int64) (Boundary, error) {
	t.Helper()
	out, err := c.Boundaries(context.Background(), []Sealed{{Partition: w.on, Offset: stored, TargetEnd: replication.Unknown}})
	if err != nil {
		require.Empty(t, out)
		return Boundary{}, err
	}
	require.Len(t, out, 1)
	return out[0], nil
}

func TestP18_TheBoundaryIsWhatAnyRunReached(t *testing.T) {
	open := 0
	eachWorld(t, 150, func(t *testing.T, w *world, h habits, why string) {
		got, err := w.boundary(t, w.comparer(0), w.stored)
		if err != nil {
			require.ErrorIs(t, err, fault.ErrConflict, why)
			open++
			if w.plain && !h.stamped && h.repeats == 0 {
				t.Fatalf("%s: %v", why, err)
			}
			return
		}
		last := int64(-1) // of what is left on the source
		for _, r := range w.source {
			if r.Offset <= w.reached {
				last = r.Offset
			}
		}
		if h.repeats == 0 && !h.trimTarget && len(w.source) > 0 {
			require.Equal(t, last, got.Reached, why)
			if last >= 0 {
				require.Equal(t, last+1, got.Next, why)
				require.Equal(t, last, w.truth[indexOf(w.target, got.Target)], why)
			}
		}
		if got.Reached > last { // identical records: a mirror that goes on there leaves nothing out that anybody could miss
			has := tally(w.target, func(int) bool { return true })
			for what, n := range tally(w.source, func(i int) bool { return w.source[i].Offset <= got.Reached }) {
				require.GreaterOrEqual(t, has[what], n, "%s: reached %d, truly %d, and lacks %s", why, got.Reached, last, what)
			}
		}
	})
	t.Logf("%d were left open", open)
}

func indexOf(list []*kgo.Record, offset int64) int {
	i, _ := at(fingerprints(list), offset)
	return i
}

func fingerprints(list []*kgo.Record) (out []fingerprint) {
	for _, r := range list {
		out = append(out, fingerprintOf(r, true))
	}
	return out
}

// The worker had stored 90 when it died at 100; the next wrote 91 to 97 once more and was sealed.
func TestP18_AReplayedPartHidesNothing(t *testing.T) {
	w := grow(rand.New(rand.NewPCG(1, 1)), habits{records: 120})
	list := append([]*kgo.Record(nil), w.target[:101]...)
	for i := 91; i <= 97; i++ {
		r := *w.source[i]
		r.Offset = int64(len(list))
		list = append(list, &r)
	}
	w.to.set(w.on, 0, int64(len(list)), list)
	got, err := w.boundary(t, w.comparer(0), 90)
	require.NoError(t, err)
	require.Equal(t, Boundary{Partition: w.on, Reached: 100, Next: 101, Target: 100}, got)

	// What clients wrote after the switch is no mirror's.
	for i := range 50 {
		list = append(list, &kgo.Record{Offset: int64(len(list)), Value: fmt.Appendf(nil, "new %d", i), Timestamp: time.UnixMilli(5)})
	}
	w.to.set(w.on, 0, int64(len(list)), list)
	for _, end := range []int64{replication.Unknown, 108} {
		out, err := w.comparer(0).Boundaries(context.Background(), []Sealed{{Partition: w.on, Offset: 90, TargetEnd: end}})
		require.NoError(t, err)
		require.EqualValues(t, 100, out[0].Reached)
	}
	// However long the part is.
	long := grow(rand.New(rand.NewPCG(1, 1)), habits{records: 4000})
	list = append([]*kgo.Record(nil), long.target[:3001]...)
	for i := 500; i <= 2990; i++ {
		r := *long.source[i]
		r.Offset = int64(len(list))
		list = append(list, &r)
	}
	long.to.set(w.on, 0, int64(len(list)), list)
	got, err = long.boundary(t, long.comparer(0), 2980)
	require.NoError(t, err)
	require.EqualValues(t, 3000, got.Reached)
	// P17: what Connect stored is no upper bound either.
	got, err = w.boundary(t, w.comparer(0), 110)
	require.NoError(t, err)
	require.EqualValues(t, 100, got.Reached)
}

func TestP18_IdenticalRecordsAreParkedAndShown(t *testing.T) {
	rec := func(offset int64, what string) *kgo.Record {
		return &kgo.Record{Offset: offset, Value: []byte(what), Timestamp: time.UnixMilli(1)}
	}
	logOf := func(all ...string) (list []*kgo.Record) {
		for i, what := range all {
			list = append(list, rec(int64(i), what))
		}
		return list
	}
	w := &world{from: newMemory(), to: newMemory(), on: part0}
	w.from.set(part0, 0, 6, logOf("a", "x", "b", "y", "x", "z"))
	w.to.set(part0, 0, 6, logOf("a", "x", "b", "y", "x", "b"))
	_, err := w.boundary(t, w.comparer(0), 0)
	require.ErrorIs(t, err, fault.ErrConflict)
	require.ErrorContains(t, err, "up to offset 3 or up to offset 4")
	require.Equal(t, replication.Pending, w.drained(t, w.comparer(0)).Status)
	w.from.set(part0, 0, 5, logOf("a", "x", "b", "y", "x"))
	got := w.drained(t, w.comparer(0))
	require.Equal(t, replication.Unclear, got.Status)
	require.Contains(t, got.Reason, "identical records leave open")

	w.to.set(part0, 0, 3, logOf("q", "r", "s"))
	_, err = w.boundary(t, w.comparer(0), 0)
	require.ErrorContains(t, err, "none of the source's 5 records from offset 0 on was found")
}

func TestP18_NothingMirroredYet(t *testing.T) {
	w := grow(rand.New(rand.NewPCG(1, 1)), habits{records: 5})
	w.to.set(w.on, 0, 0, nil)
	got, err := w.boundary(t, w.comparer(0), replication.Unknown)
	require.NoError(t, err)
	require.Equal(t, Boundary{Partition: w.on, Reached: -1, Next: 0, Target: -1}, got)
}
