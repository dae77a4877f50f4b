package activities

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/replication"
	"switchback/report"
)

func (w *world) verify(until time.Time) (VerifyResult, error) {
	return run[VerifyResult](w, (*Verify)(nil).Target, VerifyInput{Guard: w.guard(), Route: w.route(), Groups: w.runbook().Groups, Deadline: until})
}

func TestVerifySeesTheTargetAtWork(t *testing.T) {
	t.Parallel()
	w := atWork(t)
	out, err := w.verify(soon())
	require.NoError(t, err)
	require.Empty(t, out.Problems)
	require.Equal(t, []replication.Outcome{{Name: "billing", Status: replication.OK}}, out.Groups)
	again, err := w.verify(soon())
	require.NoError(t, err)
	require.Greater(t, again.CanaryOffset, out.CanaryOffset)
}

// A group whose transaction is about to commit offsets is looked at again: it is not left out.
func TestP09_VerifyWaitsForOffsetsThatAreAboutToChange(t *testing.T) {
	t.Parallel()
	w := atWork(t)
	asked := w.unstable("west", 2)
	out, err := w.verify(soon())
	require.NoError(t, err)
	require.Empty(t, out.Problems)
	require.Equal(t, []replication.Outcome{{Name: "billing", Status: replication.OK}}, out.Groups)
	require.Greater(t, asked(), int64(2))
}

// atWork is a world whose group reads on the target.
func atWork(t *testing.T) *world {
	t.Helper()
	w := read(t)
	cl := w.raw("west", admin, kgo.ConsumerGroup("billing"), kgo.ConsumeTopics("orders"), kgo.HeartbeatInterval(50*time.Millisecond), kgo.AutoCommitInterval(100*time.Millisecond))
	go func() {
		for !cl.PollFetches(context.Background()).IsClientClosed() {
		}
	}()
	w.stable("west", "billing")
	return w
}

func TestVerifyNamesWhatIsNotAsItShouldBe(t *testing.T) {
	t.Parallel()
	w := read(t)
	_, err := w.raise()
	require.NoError(t, err)
	require.NoError(t, w.as("west", admin).CreateACLs(context.Background(), replication.TopicFence([]string{"orders"})))
	cl := w.raw("west", admin, kgo.TransactionalID("brought"))
	require.NoError(t, cl.BeginTransaction())
	require.NoError(t, cl.ProduceSync(context.Background(), &kgo.Record{Topic: "payments", Value: []byte("v")}).FirstErr())
	out, err := w.verify(late())
	require.NoError(t, err, "the workload is there already: this is for people")
	text := strings.Join(out.Problems, "\n")
	require.Contains(t, text, "1 copies of the fence stand on west")
	require.Contains(t, text, "group billing: does not exist on the target")
	require.Contains(t, text, "payments-0: last stable offset 0 is not the high watermark 1")
}

// A group that nobody was in before need not have anybody now.
func TestVerifyAsksNothingOfGroupsWithoutMembers(t *testing.T) {
	t.Parallel()
	w := read(t)
	require.NoError(t, w.recordsNow().putScope(context.Background(), w.guard().Run.ID(), Scope{Topics: []replication.Topic{{Name: "orders", Partitions: 2}}, Groups: []string{"billing"}}))
	out, err := w.verify(soon())
	require.NoError(t, err)
	require.Empty(t, out.Problems)
}

func TestReportAddsMarksAndOffsets(t *testing.T) {
	t.Parallel()
	w := read(t)
	_, err := w.handOver(soon())
	require.NoError(t, err)
	_, err = run[MarksResult](w, (*Mirrors)(nil).KeepMarks, MarksInput{Guard: w.guard(), Route: w.route(), Epoch: 8})
	require.NoError(t, err)
	other := w.guard()
	other.Run.FirstRunID = "r0" // marks of an older run are not this one's
	require.NoError(t, putList(context.Background(), w.recordsNow(), marksKey("east-id", other.Run.ID()), []replication.Mark{{Position: replication.Position{Partition: at("old", 0)}}}))
	dir := t.TempDir()
	for range 2 {
		out, err := run[ReportResult](w, (*Reports)(nil).Write, ReportInput{Run: w.guard().Run, Route: w.route(), Report: json.RawMessage(`{"runbook":"orders","outcome":"completed"}`)})
		require.NoError(t, err)
		raw, err := os.ReadFile(out.JSONPath)
		require.NoError(t, err)
		var rep report.Report
		require.NoError(t, json.Unmarshal(raw, &rep))
		require.Len(t, rep.Positions, 3)
		require.Equal(t, []report.GroupOffset{
			{Group: "billing", Topic: "orders", Partition: 0, Source: report.Offset(4), Target: report.Offset(4), Proof: "exact", ReadBack: true},
			{Group: "billing", Topic: "orders", Partition: 1, Source: report.Offset(replication.Unknown), Target: report.Offset(0), Proof: "no commit: set to the start, as the runbook says", ReadBack: true},
		}, rep.Offsets)
		require.FileExists(t, out.MarkdownPath)
		require.NoFileExists(t, filepath.Join(dir, "unfinished"))
	}
	bad, err := run[ReportResult](w, (*Reports)(nil).Write, ReportInput{Run: w.guard().Run, Route: w.route(), Report: json.RawMessage(`[]`)})
	require.Equal(t, TypeInvalid, typeOf(err), "%+v", bad)
}

func TestSnapshot(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "broken.yaml"), []byte("kind: Nothing\n"), 0o600))
	books := &Runbooks{Dir: dir}
	for name, want := range map[string]string{"../etc/passwd": TypeInvalid, "Orders": TypeInvalid, "": TypeInvalid, "missing": TypeNotFound, "broken": TypeInvalid} {
		_, err := books.Snapshot(context.Background(), SnapshotInput{Runbook: name})
		require.Equal(t, want, typeOf(toApplication(err)), "%s: %v", name, err)
	}
}

// One canary is every password. It goes through every activity, on the way that works and on ways that fail, and is
// looked for in everything that leaves them.
func TestSecretsLeaveNoActivity(t *testing.T) {
	t.Parallel()
	w := read(t)
	w.passwords["kafka/west/checkout"] = canary + "-wrong"
	_ = w.preflight()
	require.Contains(t, strings.Join(w.seen, ""), "cannot log in", "the failing way was gone")
	broken := newWorld(t)
	for point := range map[string]bool{"east.Put": true, "west.Put": true, "consul.west.Switch": true, "consul.west.SetDesired": true, "link.Stop": true, "link.SuspendSyncs": true} {
		broken.before[point] = func(context.Context) error { return errDown }
	}
	for _, w := range []*world{w, broken} {
		for name, act := range writingActivities {
			if name != "Lift" && name != "Restore" {
				_ = act(w)
			}
		}
		_ = writingActivities["Lift"](w)
		_ = writingActivities["Restore"](w)
		_, _ = w.drain(time.Now().Add(300 * time.Millisecond))
		_, _ = w.verify(time.Now().Add(300 * time.Millisecond))
		_, _ = run[CatchUpResult](w, (*Logs)(nil).CatchUp, WaitInput{Guard: w.guard(), Route: w.route(), Deadline: time.Now().Add(300 * time.Millisecond)})
		_, _ = run[MarksResult](w, (*Mirrors)(nil).KeepMarks, MarksInput{Guard: w.guard(), Route: w.route()})
		_, _ = run[ReadDiscoveryResult](w, (*Discovery)(nil).Read, ReadDiscoveryInput{Entries: w.runbook().Discovery})
		_, _ = run[SwitchResult](w, (*Discovery)(nil).Align, AlignInput{Entries: w.runbook().Discovery, Deadline: time.Now().Add(300 * time.Millisecond)})
		_, _ = run[ReportResult](w, (*Reports)(nil).Write, ReportInput{Run: w.guard().Run, Route: w.route(), Report: json.RawMessage(`{}`)})
		require.Greater(t, len(w.seen), 12)
		for _, text := range w.seen {
			require.NotContains(t, text, canary)
		}
		for _, site := range []string{"east", "west"} { // nor is it in what a run keeps
			stored, err := w.as(site, admin).Records(MarksTopic).Load(context.Background(), "")
			require.NoError(t, err)
			for key, value := range stored {
				require.NotContains(t, key+string(value), canary)
			}
		}
	}
}
