package activities

import (
	"context"
	"errors"
	"time"

	"switchback/runbooks"
)

// Groups hands over consumer groups.
type Groups struct{}

// HandOverInput names the groups of the runbook.
type HandOverInput struct {
	Guard    Guard             `json:"guard"`
	Route    Route             `json:"route"`
	Groups   runbooks.Groups   `json:"groups"`
	Clients  []runbooks.Client `json:"clients"` // consumers, to tell which members belong to instances proven stopped
	Deadline time.Time         `json:"deadline"`
}

// HandOverResult counts; each offset is stored as a record of the run, and the report shows it.
type HandOverResult struct {
	Acted
	Groups     int      `json:"groups"`
	Offsets    int      `json:"offsets"`
	Exact      int      `json:"exact"`
	Removed    []string `json:"removed,omitempty"` // members of stopped instances that had not left
	Deviations []string `json:"deviations,omitempty"`
	Text       string   `json:"text"`
}

// HandOver closes the groups on the source (empty, denied READ, still empty), reads their offsets with RequireStable,
// writes them on the target for every partition, clamped to its range, and reads them back (P8, P9, P24, P25).
func (a *Groups) HandOver(ctx context.Context, in HandOverInput) (HandOverResult, error) {
	return HandOverResult{}, errors.New("not written")
}
