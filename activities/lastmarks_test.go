package activities

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/replication"
)

func (w *world) keepLastMarks() (LastMarksResult, error) {
	return run[LastMarksResult](w, (*Mirrors)(nil).KeepLastMarks, w.lastMarksInput())
}

func (w *world) lastMarksInput() LastMarksInput {
	return LastMarksInput{MarksInput: MarksInput{Guard: w.guard(), Route: w.route(), Epoch: w.epoch + 1}}
}

func (w *world) marks(site string) []replication.Mark {
	w.t.Helper()
	marks, err := marksOf(context.Background(), w.as(site, admin).Records(MarksTopic), w.guard().Run.ID())
	require.NoError(w.t, err)
	return marks
}

// watched keeps a sample of both clusters as they are now.
func (w *world) watched(seen time.Time) {
	w.t.Helper()
	ctx := context.Background()
	topics, err := w.as("east", admin).Topics(ctx, w.runbook().Topics.Match)
	require.NoError(w.t, err)
	s := Sample{Runbook: "orders", From: "east", To: "west", SourceCluster: "east-id", TargetCluster: "west-id", Epoch: w.epoch, Seen: seen, LastAnswer: seen,
		SameOffsets: true, Topics: topics, Groups: []string{"billing"}, Reads: map[string][]string{"billing": {"orders", "payments"}}}
	from, err := w.as("east", admin).Ends(ctx, []string{"orders", "payments"})
	require.NoError(w.t, err)
	to, err := w.as("west", admin).Ends(ctx, []string{"orders", "payments"})
	require.NoError(w.t, err)
	for i, e := range from {
		s.Positions = append(s.Positions, replication.Position{Partition: e.Partition, SourceEnd: e.HighWatermark, Replicated: replication.Unknown, TargetEnd: to[i].HighWatermark, Seen: seen})
	}
	require.NoError(w.t, putSample(ctx, w.as("west", admin).Records(PositionsTopic), s))
}

func TestKeepLastMarks(t *testing.T) {
	t.Parallel()
	w := cutOff(t)
	w.link.mirrors["orders"].Fetched = map[int32]int64{0: 5}
	out, err := w.keepLastMarks()
	require.NoError(t, err)
	require.Equal(t, 3, out.Partitions)
	marks := w.marks("west")
	require.Len(t, marks, 3)
	m := marks[slices.IndexFunc(marks, func(m replication.Mark) bool { return m.Partition == at("orders", 0) })]
	require.Equal(t, []int64{replication.Unknown, 5, 4, 4, w.epoch + 1}, []int64{m.SourceEnd, m.Replicated, m.TargetEnd, m.Boundary, m.Epoch})
	require.Equal(t, []string{"east-id", "west-id"}, []string{m.SourceCluster, m.TargetCluster})
	require.Empty(t, w.marks("east"), "it is away: FenceWhenReachable copies them")
	require.Contains(t, out.Text, "at least 0 records, open")
}

// Kafka Connect answers nobody while its tasks stop, which takes them seconds: clients wait for the marks, and the marks for
// no claim that the last sample has as well.
func TestMarksDoNotWaitForALinkThatStops(t *testing.T) {
	t.Parallel()
	w := cutOff(t)
	w.link.seals = true
	s := Sample{Runbook: "orders", From: "east", To: "west", SourceCluster: "east-id", TargetCluster: "west-id", Epoch: w.epoch, Seen: time.Now(), LastAnswer: time.Now(),
		Topics: []replication.Topic{{Name: "orders", Partitions: 2}}, Groups: []string{"billing"},
		Positions: []replication.Position{{Partition: at("orders", 0), SourceEnd: 9, Replicated: 3, TargetEnd: replication.Unknown},
			{Partition: at("orders", 1), SourceEnd: 9, Replicated: replication.Unknown, TargetEnd: replication.Unknown}}}
	require.NoError(t, putSample(t.Context(), w.as("west", admin).Records(PositionsTopic), s))
	w.link.busy.Store(true)
	began := time.Now()
	out, err := w.keepLastMarks()
	require.NoError(t, err)
	require.Less(t, time.Since(began), extrasTime)
	require.Equal(t, 3, out.Partitions)
	marks := w.marks("west")
	m := marks[slices.IndexFunc(marks, func(m replication.Mark) bool { return m.Partition == at("orders", 0) })]
	require.EqualValues(t, 3, m.Replicated)
}

func TestKilledWhileKeepingLastMarks(t *testing.T) {
	t.Parallel()
	everywhere(t, cutOff, func(w *world) error { _, err := w.keepLastMarks(); return err })
}

// A second attempt comes after somebody was sent there: what is written by then is no mirror's.
func TestP20_MarksAreOfTheStop(t *testing.T) {
	t.Parallel()
	w := cutOff(t)
	_, err := w.keepLastMarks()
	require.NoError(t, err)
	before := w.marks("west")
	w.write("west", "orders", 0, 7)
	_, err = w.keepLastMarks()
	require.NoError(t, err)
	require.Equal(t, before, w.marks("west"))

	w = cutOff(t)
	w.before["west.Put"] = nil
	w.entries["consul.west"].state.Epoch = w.epoch + 1 // switched: too late for marks
	in := w.lastMarksInput()
	_, err = run[LastMarksResult](w, (*Mirrors)(nil).KeepLastMarks, in)
	require.Equal(t, TypeStale, typeOf(err))
	require.Empty(t, w.marks("west"))
}

// The loss is what was seen to exist; how much more came since nobody knows, and nobody says.
func TestP21_TheLastSampleBounds(t *testing.T) {
	t.Parallel()
	w := cutOff(t)
	w.watched(time.Now().Add(-time.Minute))
	w.write("east", "orders", 0, 20) // nobody saw these
	out, err := w.keepLastMarks()
	require.NoError(t, err)
	require.Equal(t, [2]int64{1, replication.Unknown}, [2]int64{out.Loss.AtLeast, out.Loss.AtMost})
	require.Contains(t, out.Loss.Why, "both ends were last seen at")
	require.Positive(t, out.Loss.Seconds)
	require.Equal(t, "orders", out.Losses[0].Topic)
}

// An open number is closed by the fence, and by nothing else.
func TestP38_TheLossIsClosedBehindTheFence(t *testing.T) {
	t.Parallel()
	w := cutOff(t)
	w.find()
	out, err := w.keepLastMarks()
	require.NoError(t, err)
	require.Equal(t, [2]int64{1, replication.Unknown}, [2]int64{out.Loss.AtLeast, out.Loss.AtMost}, "it answers, and may be written to")

	w = cutOff(t)
	w.find()
	_, err = w.raiseReachable()
	require.NoError(t, err)
	out, err = w.keepLastMarks()
	require.NoError(t, err)
	require.Equal(t, [2]int64{1, 1}, [2]int64{out.Loss.AtLeast, out.Loss.AtMost})
	require.Positive(t, out.Loss.Bytes)
	require.Len(t, w.marks("east"), 3, "it answers: it has its copy")
}
