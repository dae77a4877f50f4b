package activities

import (
	"context"
	"errors"
	"time"

	"switchback/replication"
	"switchback/runbooks"
)

// Verify looks at the target after the switch.
type Verify struct{}

// VerifyInput names the route, the groups that should move and until when.
type VerifyInput struct {
	Guard    Guard           `json:"guard"`
	Route    Route           `json:"route"`
	Groups   runbooks.Groups `json:"groups"`
	Deadline time.Time       `json:"deadline"`
}

// VerifyResult is what was seen.
type VerifyResult struct {
	CanaryOffset  int64                 `json:"canaryOffset"`
	CanarySeconds float64               `json:"canarySeconds"` // produce to read back
	Groups        []replication.Outcome `json:"groups"`
	Problems      []string              `json:"problems,omitempty"`
	Text          string                `json:"text"`
}

// Target sends a canary through the target and waits until the groups are stable and moving and LSO = HW.
func (a *Verify) Target(ctx context.Context, in VerifyInput) (VerifyResult, error) {
	return VerifyResult{}, errors.New("not written")
}
