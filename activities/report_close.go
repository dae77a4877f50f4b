package activities

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"switchback/internal/fault"
	"switchback/report"
)

// CloseInput is the loss of a run away from a lost cluster, as it was counted behind that cluster's fence.
type CloseInput struct {
	Run     Run         `json:"run"`     // that left the cluster
	Fencing string      `json:"fencing"` // id of the workflow that fenced it
	Loss    Loss        `json:"loss"`
	Losses  []TopicLoss `json:"losses,omitempty"`
	At      time.Time   `json:"at"`
}

// CloseResult says what became of the report.
type CloseResult struct {
	Changed bool   `json:"changed"`
	Text    string `json:"text"`
}

// Close puts the closed loss into the files of a run's report (P38). The run may still be on its way to its report, and a
// lost attempt of it may write late; so the number is put beside the report first, where Write finds it. A folder without the
// report is no error, because it may be in another worker's: the text says so. It may run twice.
func (a *Reports) Close(ctx context.Context, in CloseInput) (out CloseResult, err error) {
	_, _ = begin(ctx)
	base := filepath.Join(a.Dir, fileName(in.Run))
	note, err := json.Marshal(in)
	if err != nil {
		return out, fmt.Errorf("write down the closed loss of run %s: %w", in.Run.ID(), err)
	}
	if err := os.MkdirAll(a.Dir, 0o750); err != nil {
		return out, wrap("make the folder of reports", err)
	}
	if _, err := replace(base+noted, note); err != nil {
		return out, err
	}
	raw, err := os.ReadFile(base + ".json") //nolint:gosec // the name is made of safe characters
	if errors.Is(err, os.ErrNotExist) {
		out.Text = fmt.Sprintf("the report of run %s is not in the folder %s of this worker: one that is written there later has the number, one in another folder says what the run knew", in.Run.ID(), a.Dir)
		return out, nil
	}
	if err != nil {
		return out, wrap("read the report", err)
	}
	rep, err := report.Parse(raw)
	if err != nil {
		return out, fmt.Errorf("%s.json: %w: %w", base, err, fault.ErrInvalid)
	}
	if rep, out.Changed, err = put(base, rep); err != nil {
		return out, err
	}
	out.Text = "the number is in " + base + ".json"
	if rep.Loss == nil || rep.Loss.ClosedAt == nil {
		out.Text = fmt.Sprintf("%s.json is of a run that was %s, and stays as it is", base, rep.Outcome)
	}
	return out, nil
}

// noted is what the name of a closed loss ends with, beside the report that it belongs to.
const noted = ".closed"

// put writes a report in both forms, with the loss as it was closed. Whoever closes it meanwhile put it beside the report
// before looking for one, so it is looked for again behind the write: one of the two sees the other.
func put(base string, rep report.Report) (_ report.Report, changed bool, err error) {
	for {
		note, err := noteOf(base)
		if err != nil {
			return rep, changed, err
		}
		if rep, err = closedBy(rep, note); err != nil {
			return rep, changed, fmt.Errorf("%s: %w", base+noted, err)
		}
		raw, err := rep.JSON()
		if err != nil {
			return rep, changed, err
		}
		first, err := replace(base+".json", raw)
		second, err2 := replace(base+".md", []byte(rep.Markdown()))
		changed = changed || first || second
		if err := errors.Join(err, err2); err != nil {
			return rep, changed, err
		}
		if now, err := noteOf(base); err != nil || bytes.Equal(now, note) {
			return rep, changed, err
		}
	}
}

func closedBy(rep report.Report, note []byte) (report.Report, error) {
	if note == nil {
		return rep, nil
	}
	var in CloseInput
	if err := json.Unmarshal(note, &in); err != nil {
		return rep, fmt.Errorf("read the closed loss: %w: %w", err, fault.ErrInvalid)
	}
	return rep.Close(ReportedLoss(in.Loss, in.Losses), in.At, in.Fencing), nil
}

// noteOf is nil where nobody has closed the loss.
func noteOf(base string) ([]byte, error) {
	raw, err := os.ReadFile(base + noted) //nolint:gosec // the name is made of safe characters
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return raw, wrap("read the closed loss", err)
}

// replace writes a file as a whole or not at all, and not where it says that already. Two may write at once.
func replace(path string, data []byte) (changed bool, err error) {
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) { //nolint:gosec // the name is made of safe characters
		return false, nil
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*.unfinished")
	if err != nil {
		return false, wrap("write the report", err)
	}
	_, err = tmp.Write(data)
	if err = errors.Join(err, tmp.Close()); err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		_ = os.Remove(tmp.Name()) // it is of no use
		return false, wrap("write the report", err)
	}
	return true, nil
}

// ReportedLoss is a loss as reports have it. It is not open.
func ReportedLoss(l Loss, topics []TopicLoss) report.Loss {
	out := reportedLoss(l)
	for _, t := range topics {
		one := reportedLoss(t.Loss)
		out.Topics = append(out.Topics, report.TopicLoss{
			Topic: t.Topic, AtLeast: one.AtLeast, AtMost: one.AtMost, Estimate: one.Estimate, Bytes: one.Bytes, Seconds: one.Seconds, Why: one.Why,
		})
	}
	return out
}

func reportedLoss(l Loss) report.Loss {
	out := report.Loss{
		AtLeast: l.AtLeast, AtMost: report.Offset(l.AtMost), Estimate: report.Offset(l.Estimate), Bytes: report.Offset(l.Bytes), Why: l.Why,
	}
	if l.Seconds >= 0 { // negative is unknown
		out.Seconds = &l.Seconds
	}
	return out
}
