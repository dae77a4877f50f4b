package activities

import (
	"context"
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/internal/fault"
	"switchback/replication"
)

// shelf is a compacted topic in memory, written record by record in the order of keys, as the adapter writes. It dies
// after so many records more when left is set.
type shelf struct {
	entries map[string][]byte
	left    int // -1: for ever
	wrote   int
}

func newShelf() *shelf { return &shelf{entries: map[string][]byte{}, left: -1} }

func (s *shelf) Put(_ context.Context, entries map[string][]byte) error {
	for _, key := range sorted(entries) {
		if s.left == 0 {
			return errKilled
		}
		s.left--
		s.wrote++
		s.entries[key] = entries[key]
	}
	return nil
}

func (s *shelf) Load(_ context.Context, prefix string) (map[string][]byte, error) {
	out := map[string][]byte{}
	for key, v := range s.entries {
		if strings.HasPrefix(key, prefix) {
			out[key] = v
		}
	}
	return out, nil
}

func (s *shelf) copy(left int) *shelf { return &shelf{entries: maps.Clone(s.entries), left: left} }

var sampled = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// aSample has n topics of some partitions; every source end is that of its place plus more.
func aSample(topics, partitions int, more int64, seen time.Time) Sample {
	s := Sample{Runbook: "orders", From: "east", To: "west", SourceCluster: "east-id", TargetCluster: "west-id", Epoch: 7,
		Seen: seen, LastAnswer: seen, SameOffsets: true, Groups: []string{"billing", "shipping"},
		Reads: map[string][]string{"billing": {"topic-00000", "topic-00001"}}, Rates: map[string]float64{}}
	for t := range topics {
		name := fmt.Sprintf("topic-%05d", t)
		s.Topics = append(s.Topics, replication.Topic{Name: name, ID: "id-" + name, Partitions: partitions, ReplicationFactor: 3})
		for p := range int32(partitions) { //nolint:gosec // small
			end := int64(t)*1000 + int64(p) + more
			s.Positions = append(s.Positions, replication.Position{Partition: replication.Partition{Topic: name, Partition: p},
				SourceEnd: end, Replicated: end - 1, TargetEnd: end - 2, Seen: seen})
		}
	}
	return s
}

func TestASampleIsReadAsItWasStored(t *testing.T) {
	t.Parallel()
	rec, want := newShelf(), aSample(20, 3, 5, sampled)
	want.Positions[4].TargetEnd, want.Positions[4].Replicated = replication.Unknown, replication.Unknown
	require.NoError(t, putSample(t.Context(), rec, want))
	for _, source := range []string{"east-id", ""} {
		got, err := lastSample(t.Context(), rec, "orders", source)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	require.Equal(t, int64(2), want.Lag(want.Positions[0]))
	require.Equal(t, replication.Unknown, want.Lag(want.Positions[4]))
	want.SameOffsets = false
	require.Equal(t, int64(1), want.Lag(want.Positions[0]), "the ends of two clusters with offsets of their own are not compared")

	for _, none := range [][2]string{{"orders", "south-id"}, {"order", ""}, {"orders-2", ""}} {
		_, err := lastSample(t.Context(), rec, none[0], none[1])
		require.ErrorIs(t, err, fault.ErrNotFound)
	}
}

func TestOfSeveralSourcesTheNewestSampleIsTheLast(t *testing.T) {
	t.Parallel()
	rec := newShelf()
	newer, older := aSample(2, 1, 0, sampled.Add(time.Hour)), aSample(2, 1, 9, sampled)
	newer.SourceCluster, older.SourceCluster = "a-id", "b-id"
	require.NoError(t, putSample(t.Context(), rec, newer))
	require.NoError(t, putSample(t.Context(), rec, older))
	got, err := lastSample(t.Context(), rec, "orders", "")
	require.NoError(t, err)
	require.Equal(t, "a-id", got.SourceCluster)
}

func TestOnlyWhatMovedIsWrittenAgain(t *testing.T) {
	t.Parallel()
	rec, s := newShelf(), aSample(1000, 10, 0, sampled)
	require.NoError(t, putSample(t.Context(), rec, s))
	first := rec.wrote
	s.Seen = s.Seen.Add(10 * time.Second)
	require.NoError(t, putSample(t.Context(), rec, s))
	require.Equal(t, first+1, rec.wrote, "nothing moved: the header alone")
	s.Positions[77].SourceEnd++
	s.Seen = s.Seen.Add(10 * time.Second)
	require.NoError(t, putSample(t.Context(), rec, s))
	require.Equal(t, first+3, rec.wrote, "one topic moved: its part and the header")
	got, err := lastSample(t.Context(), rec, "orders", "east-id")
	require.NoError(t, err)
	require.Equal(t, s.Positions[77].SourceEnd, got.Positions[77].SourceEnd)
	require.Equal(t, map[string]float64{"topic-00007": 0.1}, got.Rates)
}

// P20: a partial sample never replaces a full one, and neither does one that was cut off.
func TestP20_APartNeverReplacesAWholeSample(t *testing.T) {
	t.Parallel()
	rec, s := newShelf(), aSample(5, 3, 0, sampled)
	require.NoError(t, putSample(t.Context(), rec, s))
	breaks := map[string]func(*Sample){
		"a partition that did not answer": func(s *Sample) { s.Positions[7].SourceEnd = replication.Unknown },
		"the last partition missing":      func(s *Sample) { s.Positions = s.Positions[:14] },
		"a partition in the middle":       func(s *Sample) { s.Positions = append(s.Positions[:3], s.Positions[4:]...) },
		"a topic missing":                 func(s *Sample) { s.Topics = s.Topics[:4] },
		"an older epoch":                  func(s *Sample) { s.Epoch-- },
		"no cluster":                      func(s *Sample) { s.TargetCluster = "" },
	}
	for name, breakIt := range breaks {
		part := aSample(5, 3, 100, sampled.Add(time.Minute))
		breakIt(&part)
		require.Error(t, putSample(t.Context(), rec, part), name)
		got, err := lastSample(t.Context(), rec, "orders", "east-id")
		require.NoError(t, err, name)
		require.Equal(t, s, got, name)
	}
}

func TestP20_AWriterKilledBetweenAnyTwoWritesLeavesAWholeSample(t *testing.T) {
	t.Parallel()
	start := newShelf()
	one, two, three := aSample(30, 2, 0, sampled), aSample(30, 2, 50, sampled.Add(10*time.Second)), aSample(29, 2, 90, sampled.Add(20*time.Second))
	require.NoError(t, putSample(t.Context(), start, one))
	whole := start.copy(-1)
	require.NoError(t, putSample(t.Context(), whole, two))
	require.Greater(t, whole.wrote, 10)
	for n := range whole.wrote {
		rec := start.copy(n)
		require.ErrorIs(t, putSample(t.Context(), rec, two), errKilled)
		got, err := lastSample(t.Context(), rec, "orders", "")
		require.NoError(t, err, "killed after %d writes", n)
		require.Equal(t, one, got, "killed after %d writes", n)
		rec.left = n / 2 // the next writer dies as well
		require.ErrorIs(t, putSample(t.Context(), rec, three), errKilled)
		got, err = lastSample(t.Context(), rec, "orders", "")
		require.NoError(t, err, "killed twice, after %d writes", n)
		require.Equal(t, one, got, "killed twice, after %d writes", n)
		rec.left = -1
		require.NoError(t, putSample(t.Context(), rec, three))
		got, err = lastSample(t.Context(), rec, "orders", "")
		require.NoError(t, err)
		require.Equal(t, three.Positions, got.Positions)
	}
}

// Of two writers the later one may overwrite what the header of the first names. That is said, and mended by the next.
func TestP20_TwoWritersAreNeverMixedSilently(t *testing.T) {
	t.Parallel()
	rec := newShelf()
	one, two, late := aSample(30, 2, 0, sampled), aSample(30, 2, 50, sampled.Add(10*time.Second)), aSample(30, 2, 70, sampled.Add(11*time.Second))
	require.NoError(t, putSample(t.Context(), rec, one))
	stalled := rec.copy(5) // it has read what stood before, and goes on much later
	require.ErrorIs(t, putSample(t.Context(), stalled, late), errKilled)
	require.NoError(t, putSample(t.Context(), rec, two))
	for key, v := range stalled.entries {
		if strings.HasSuffix(key, "/b") {
			rec.entries[key] = v
		}
	}
	_, err := lastSample(t.Context(), rec, "orders", "east-id")
	require.ErrorIs(t, err, fault.ErrConflict)
	three := aSample(30, 2, 90, sampled.Add(20*time.Second))
	require.NoError(t, putSample(t.Context(), rec, three))
	got, err := lastSample(t.Context(), rec, "orders", "east-id")
	require.NoError(t, err)
	require.Equal(t, three.Positions, got.Positions)
}

func TestASourceThatAnsweredInPartWasAlive(t *testing.T) {
	t.Parallel()
	rec, s := newShelf(), aSample(2, 1, 0, sampled)
	require.NoError(t, putSample(t.Context(), rec, s))
	require.NoError(t, putAnswered(t.Context(), rec, "orders", "east-id", sampled.Add(30*time.Second)))
	got, err := lastSample(t.Context(), rec, "orders", "east-id")
	require.NoError(t, err)
	require.Equal(t, sampled, got.Seen)
	require.Equal(t, sampled.Add(30*time.Second), got.LastAnswer)
	s.Seen = sampled.Add(time.Minute)
	s.LastAnswer = s.Seen
	require.NoError(t, putSample(t.Context(), rec, s))
	got, err = lastSample(t.Context(), rec, "orders", "east-id")
	require.NoError(t, err)
	require.Equal(t, s.Seen, got.LastAnswer)
}

// P21: what can be extrapolated from is a rate beside the positions; the positions themselves stay those that were seen.
func TestP21_RatesAreKeptBesideThePositions(t *testing.T) {
	t.Parallel()
	rec := newShelf()
	s := aSample(2, 1, 0, sampled)
	for range 60 { // ten minutes at 100 records in 10 s, then silence
		require.NoError(t, putSample(t.Context(), rec, s))
		s.Seen = s.Seen.Add(10 * time.Second)
		s.Positions[0].SourceEnd += 100
	}
	got, err := lastSample(t.Context(), rec, "orders", "")
	require.NoError(t, err)
	require.InDelta(t, 10, got.Rates["topic-00000"], 0.1)
	require.NotContains(t, got.Rates, "topic-00001")
	s.Positions[0].SourceEnd -= 100
	for range 3 {
		require.NoError(t, putSample(t.Context(), rec, s))
		s.Seen = s.Seen.Add(10 * time.Second)
	}
	got, err = lastSample(t.Context(), rec, "orders", "")
	require.NoError(t, err)
	require.Less(t, got.Rates["topic-00000"], 8.0)
	require.Equal(t, s.Positions[0].SourceEnd, got.Positions[0].SourceEnd)
}
