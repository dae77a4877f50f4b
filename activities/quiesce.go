package activities

import (
	"context"
	"errors"
	"time"
)

// Logs reads the ends of logs on both clusters.
type Logs struct{}

// WaitInput is for waits on a route.
type WaitInput struct {
	Guard    Guard     `json:"guard"`
	Route    Route     `json:"route"`
	Deadline time.Time `json:"deadline"`
}

// QuiesceResult is the proof, in counts; the ends themselves are stored as records of the run.
type QuiesceResult struct {
	Acted
	Partitions        int      `json:"partitions"`
	Looks             int      `json:"looks"`
	EndedTransactions []string `json:"endedTransactions,omitempty"`
	Text              string   `json:"text"`
}

// Quiesce waits until LEO = HW = LSO for every partition of the source, twice, with no transaction open (P7, P9).
// TypeStillWriting names who writes as well as Kafka allows.
func (a *Logs) Quiesce(ctx context.Context, in WaitInput) (QuiesceResult, error) {
	return QuiesceResult{}, errors.New("not written")
}

// DrainResult counts what the target has.
type DrainResult struct {
	Partitions int    `json:"partitions"`
	Text       string `json:"text"`
}

// Drain waits until the target has everything up to the ends that Quiesce proved, by comparison on both clusters.
func (a *Logs) Drain(ctx context.Context, in WaitInput) (DrainResult, error) {
	return DrainResult{}, errors.New("not written")
}

// CatchUp waits until the runbook's groups have committed up to the source's ends.
func (a *Logs) CatchUp(ctx context.Context, in CatchUpInput) (CatchUpResult, error) {
	return CatchUpResult{}, errors.New("not written")
}
