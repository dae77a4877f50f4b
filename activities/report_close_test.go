package activities

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/testsuite"

	"switchback/report"
)

var closing = CloseInput{
	Run: Run{Runbook: "orders", WorkflowID: "unplanned orders", FirstRunID: "r1"}, Fencing: "fence/orders/east", At: time.Date(2026, 3, 15, 9, 0, 0, 0, time.UTC),
	Loss:   Loss{AtLeast: 19, AtMost: 19, Estimate: -1, Bytes: -1, Seconds: -1, Why: "compared behind the fence"},
	Losses: []TopicLoss{{Topic: "orders", Loss: Loss{AtLeast: 19, AtMost: 19, Estimate: -1, Bytes: -1, Seconds: -1, Why: "compared"}}},
}

// in runs an activity of Reports in a folder.
func in[R any](t *testing.T, dir, name string, input any) (out R, err error) {
	t.Helper()
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	env.RegisterActivity(&Reports{Dir: dir})
	v, err := env.ExecuteActivity(name, input)
	if err != nil {
		return out, err
	}
	return out, v.Get(&out)
}

// openReport is what a run away from east knows at its end.
func openReport(t *testing.T) ReportInput {
	t.Helper()
	raw, err := report.Report{
		Runbook: "orders", Kind: report.KindUnplanned, From: "east", To: "west", Outcome: report.Completed, Objectives: report.Objectives{RPORecords: 10},
		Loss:     &report.Loss{AtLeast: 17, Open: true, Why: "sampled"},
		Standing: []string{"east is not fenced. fence/orders/east fences it as soon as it answers"},
	}.JSON()
	require.NoError(t, err)
	return ReportInput{Run: closing.Run, Report: raw}
}

func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	list, err := os.ReadDir(dir)
	require.NoError(t, err)
	out := map[string]string{}
	for _, f := range list {
		raw, err := os.ReadFile(filepath.Join(dir, f.Name()))
		require.NoError(t, err)
		out[filepath.Ext(f.Name())] = string(raw)
	}
	return out
}

func saysClosed(t *testing.T, dir string) {
	t.Helper()
	all := files(t, dir)
	require.Len(t, all, 3, "the report in two forms, and the number beside it")
	r, err := report.Parse([]byte(all[".json"]))
	require.NoError(t, err)
	require.False(t, r.Loss.Open)
	require.EqualValues(t, 19, r.Loss.AtLeast)
	require.EqualValues(t, 19, *r.Loss.AtMost)
	require.EqualValues(t, 19, *r.Loss.Topics[0].AtMost)
	require.Nil(t, r.Loss.Bytes, "unknown is not a number")
	require.Equal(t, closing.At, *r.Loss.ClosedAt)
	require.True(t, r.RPO.Known)
	require.False(t, *r.RPO.Met)
	require.NotContains(t, r.Standing, "not fenced")
	require.Contains(t, all[".md"], "19 records")
	require.NotContains(t, all[".md"], "open until")
	require.Equal(t, all[".md"], r.Markdown())
}

// The report has the closed number whichever of both comes first, and however often; the second time changes nothing.
func TestP38_TheReportTellsTheClosedLoss(t *testing.T) {
	t.Parallel()
	for name, order := range map[string][]string{
		"closed after the report":            {"Write", "Close"},
		"closed before it":                   {"Close", "Write"},
		"a lost attempt of the run is late":  {"Write", "Close", "Write"},
		"a lost attempt of closing is late":  {"Close", "Write", "Close", "Close"},
		"the run's report step is repeated ": {"Close", "Write", "Write"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := filepath.Join(t.TempDir(), "reports")
			for _, act := range order {
				if act == "Close" {
					_, err := in[CloseResult](t, dir, act, closing)
					require.NoError(t, err)
					continue
				}
				out, err := in[ReportResult](t, dir, act, openReport(t))
				require.NoError(t, err)
				require.FileExists(t, out.MarkdownPath)
			}
			saysClosed(t, dir)
			before := files(t, dir)
			out, err := in[CloseResult](t, dir, "Close", closing)
			require.NoError(t, err)
			require.False(t, out.Changed)
			require.Equal(t, before, files(t, dir))
		})
	}
}

// Side by side one of the two sees the other.
func TestP38_TheReportIsClosedWhileItIsWritten(t *testing.T) {
	t.Parallel()
	for range 20 {
		dir, open := t.TempDir(), openReport(t)
		var both sync.WaitGroup
		var wrote, closed error
		both.Go(func() { _, wrote = in[ReportResult](t, dir, "Write", open) })
		both.Go(func() { _, closed = in[CloseResult](t, dir, "Close", closing) })
		both.Wait()
		require.NoError(t, errors.Join(wrote, closed))
		saysClosed(t, dir)
	}
}

// What the result of the run keeps in Temporal is closed too, where the number was known before.
func TestP38_AWrittenReportKnowsTheNumberThatWasClosedBefore(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	out, err := in[CloseResult](t, dir, "Close", closing)
	require.NoError(t, err)
	require.Contains(t, out.Text, "is not in the folder "+dir+" of this worker")
	require.NoFileExists(t, filepath.Join(dir, fileName(closing.Run)+".json"))
	wrote, err := in[ReportResult](t, dir, "Write", openReport(t))
	require.NoError(t, err)
	var r report.Report
	require.NoError(t, json.Unmarshal(wrote.Report, &r))
	require.False(t, r.Loss.Open)
}

// A half that a dead worker left is made whole, another newer number replaces the older one, and a file that nobody can read is not touched.
func TestP38_ClosingMendsWhatWasLeftHalf(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	_, err := in[ReportResult](t, dir, "Write", openReport(t))
	require.NoError(t, err)
	base := filepath.Join(dir, fileName(closing.Run))
	stale, err := os.ReadFile(base + ".md")
	require.NoError(t, err)
	older := closing
	older.Loss.AtLeast, older.Loss.AtMost = 18, 18
	_, err = in[CloseResult](t, dir, "Close", older)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(base+".md", stale, 0o600)) // as if it had died between both
	out, err := in[CloseResult](t, dir, "Close", closing)
	require.NoError(t, err)
	require.True(t, out.Changed)
	require.Contains(t, out.Text, base+".json")
	saysClosed(t, dir)

	require.NoError(t, os.WriteFile(base+".json", []byte("{}"), 0o600))
	_, err = in[CloseResult](t, dir, "Close", closing)
	require.ErrorContains(t, err, base+".json")
	raw, err := os.ReadFile(base + ".json")
	require.NoError(t, err)
	require.Equal(t, "{}", string(raw))
}
