package activities

import (
	"context"
	"encoding/json"
	"errors"
)

// Reports writes the finished run down.
type Reports struct{ Dir string }

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

// Write adds positions, marks and offsets from the run's records, and writes JSON and Markdown. It may run twice.
func (a *Reports) Write(ctx context.Context, in ReportInput) (ReportResult, error) {
	return ReportResult{}, errors.New("not written")
}
