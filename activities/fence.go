package activities

import (
	"context"
	"errors"
)

// Fences puts up and lifts the DENY ACLs that a runbook owns (P4 to P6, P8).
type Fences struct{}

// FenceInput names the route; the source is fenced.
type FenceInput struct {
	Guard Guard  `json:"guard"`
	Route Route  `json:"route"`
	Owner string `json:"owner,omitempty"` // whose records to lift; empty means the guard's run
}

// FenceResult says what stands.
type FenceResult struct {
	Acted
	Topics  int      `json:"topics"`
	Brokers int      `json:"brokers"`        // that said so themselves
	Born    []string `json:"born,omitempty"` // topics of the runbook that appeared since preflight (P16)
	Text    string   `json:"text"`
}

// Raise denies WRITE on every topic of the runbook on the source, reads that back from every broker, and lists topics
// again until the list stands still. Refused while ACL sync is on (P5).
func (a *Fences) Raise(ctx context.Context, in FenceInput) (FenceResult, error) {
	return FenceResult{}, errors.New("not written")
}

// Lift removes the ACLs that the owner recorded, of topics and of groups, and nothing else, on both clusters; read back
// from every broker.
func (a *Fences) Lift(ctx context.Context, in FenceInput) (FenceResult, error) {
	return FenceResult{}, errors.New("not written")
}
