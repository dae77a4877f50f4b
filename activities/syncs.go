package activities

import (
	"context"
	"errors"
	"time"
)

// Syncs suspends and restores what a link does by itself: ACL sync, offset sync, auto-create (P3, P5, P34).
type Syncs struct{}

// SyncsInput names the link. KeepACLsOff is set when a fence of ours still stands at the end (P5).
type SyncsInput struct {
	Guard       Guard `json:"guard"`
	Route       Route `json:"route"`
	KeepACLsOff bool  `json:"keepAclsOff,omitempty"`
	// Owner is the run whose records are used; empty means the guard's run.
	Owner string `json:"owner,omitempty"`
}

// SyncsResult says when no cycle that had begun before the suspension can be under way any more (P34).
type SyncsResult struct {
	Acted
	QuietAt time.Time `json:"quietAt"`
	Others  []string  `json:"others,omitempty"` // topics of other workloads on the link
	Text    string    `json:"text"`             // what was changed, for the report
}

// Suspend records what stood before, then suspends: idempotent, also after a crash in between.
func (a *Syncs) Suspend(ctx context.Context, in SyncsInput) (SyncsResult, error) {
	return SyncsResult{}, errors.New("not written")
}

// Restore puts back what was recorded.
func (a *Syncs) Restore(ctx context.Context, in SyncsInput) (SyncsResult, error) {
	return SyncsResult{}, errors.New("not written")
}
