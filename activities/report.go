package activities

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"switchback/internal/fault"
	"switchback/internal/killpoint"
	"switchback/replication"
	"switchback/report"
)

// Reports writes the finished run down in the worker's folder; what fits goes into the history as well.
type Reports struct {
	Dir string
	Outside
}

// ReportInput is what the workflow knows of the run, as the JSON of report.Report without the per-partition parts.
type ReportInput struct {
	Run    Run             `json:"run"`
	Route  Route           `json:"route"`
	Report json.RawMessage `json:"report"`
}

// ReportResult is where the report is, and the report itself, cut to what a history may carry.
type ReportResult struct {
	JSONPath     string          `json:"jsonPath"`
	MarkdownPath string          `json:"markdownPath"`
	Report       json.RawMessage `json:"report"`
}

// historyBytes is what a report may take in a history: an activity's result stays below 64 KB.
const historyBytes = 48 << 10

// Write adds positions, marks and offsets from the run's records, and writes JSON and Markdown. It may run twice. A
// run that ended before it stored anything, or whose clusters are out of reach now, gets a report without those parts,
// and the report says so.
func (a *Reports) Write(ctx context.Context, in ReportInput) (out ReportResult, err error) {
	ctx, _ = begin(ctx)
	var rep report.Report
	if err := json.Unmarshal(in.Report, &rep); err != nil {
		return out, fmt.Errorf("read what the run knows: %w: %w", err, fault.ErrInvalid)
	}
	if in.Route.To.Name != "" && rep.Outcome != report.Rejected {
		if err := a.addRecords(ctx, in, &rep); err != nil {
			rep.Deviations = append(rep.Deviations, "positions and offsets are missing from this report: "+err.Error())
		}
	}
	base := filepath.Join(a.Dir, fileName(in.Run))
	out.JSONPath, out.MarkdownPath = base+".json", base+".md"
	if err := os.MkdirAll(a.Dir, 0o750); err != nil {
		return out, wrap("make the folder of reports", err)
	}
	killpoint.Reach("Write/middle")
	if rep, _, err = put(base, rep); err != nil {
		return out, err
	}
	compact := rep.Compact(historyBytes)
	if len(compact.Positions) < len(rep.Positions) || len(compact.Offsets) < len(rep.Offsets) || compact.Partitions() < rep.Partitions() {
		compact.Details = out.JSONPath
	}
	out.Report, err = json.Marshal(compact)
	return out, err
}

// addRecords reads back what the steps stored: the marks, and the offsets as they were handed over.
func (a *Reports) addRecords(ctx context.Context, in ReportInput, rep *report.Report) error {
	to, err := a.Clusters.Open(ctx, in.Route.To)
	if err != nil {
		return wrap("open "+in.Route.To.Name, err)
	}
	defer to.Close()
	stored := to.Records(MarksTopic)
	all, err := stored.Load(ctx, a.marksPrefix(ctx, in))
	if err != nil {
		return wrap("read the marks", err)
	}
	rep.Positions, rep.Offsets = nil, nil
	for key := range all {
		cluster, ok := strings.CutSuffix(strings.TrimPrefix(key, "marks/"), "/"+in.Run.ID()+"/00000")
		if !ok {
			continue
		}
		marks, err := getList[replication.Mark](ctx, loaded(all), marksKey(cluster, in.Run.ID()))
		if err != nil {
			return err
		}
		for _, m := range marks {
			rep.Positions = append(rep.Positions, report.PartitionPosition{
				Topic: m.Topic, Partition: m.Partition.Partition,
				SourceEnd: report.Offset(m.SourceEnd), TargetEnd: report.Offset(m.TargetEnd), Mark: report.Offset(m.Boundary),
			})
		}
	}
	if d := rep.LaggedData; d != nil {
		accounts, err := records{to: stored}.accounts(ctx, d.Tail, in.Run.ID())
		if err != nil {
			return err
		}
		d.Partitions = nil
		for _, one := range accounts {
			d.Partitions = append(d.Partitions, one.row())
		}
	}
	offsets, err := stored.Load(ctx, strings.TrimSuffix(offsetsKey(in.Run.ID(), ""), "/")) // of every group
	if err != nil {
		return wrap("read the offsets that were handed over", err)
	}
	for _, key := range sorted(offsets) { // in the order of the groups
		var list []ReadBack
		if err := json.Unmarshal(offsets[key], &list); err != nil {
			return fmt.Errorf("decode record %s: %w", key, err)
		}
		for _, o := range list {
			rep.Offsets = append(rep.Offsets, report.GroupOffset{
				Group: o.Group, Topic: o.Topic, Partition: o.Partition.Partition,
				Source: report.Offset(o.Source), Target: report.Offset(o.Target), Proof: o.Proof, ReadBack: o.ReadBack,
			})
		}
	}
	return nil
}

// marksPrefix keeps the marks of old runs out of memory. They are kept under the source's cluster id; where that cannot
// be had any more, all of them are looked through.
func (a *Reports) marksPrefix(ctx context.Context, in ReportInput) string {
	if in.Route.SourceLost {
		return "marks/"
	}
	ctx, cancel := context.WithTimeout(ctx, WriteDeadline)
	defer cancel()
	from, err := a.Clusters.Open(ctx, in.Route.From)
	if err != nil {
		return "marks/"
	}
	defer from.Close()
	id, err := from.Identity(ctx)
	if err != nil || id.ClusterID == "" {
		return "marks/"
	}
	return marksKey(id.ClusterID, in.Run.ID())
}

// fileName is one name for one run: workflow ids may hold anything.
func fileName(r Run) string {
	safe := func(s string) string {
		return strings.Map(func(c rune) rune {
			if c == '-' || c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' {
				return c
			}
			return '-'
		}, s)
	}
	return safe(r.WorkflowID) + "_" + safe(r.FirstRunID)
}
