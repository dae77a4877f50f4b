package activities

import (
	"context"
	"errors"
	"time"

	"switchback/replication"
	"switchback/runbooks"
)

// Discovery reads and switches what clients look up in Consul.
type Discovery struct{}

// ReadDiscoveryInput names the entries of a runbook.
type ReadDiscoveryInput struct {
	Entries []runbooks.Discovery `json:"entries"`
}

// DiscoveryEntry is one entry as it was read in one recursive, consistent read (P39).
type DiscoveryEntry struct {
	Address    string            `json:"address"`
	Prefix     string            `json:"prefix"`
	Required   bool              `json:"required"`
	Error      string            `json:"error,omitempty"` // why it could not be read
	Cluster    string            `json:"cluster"`
	Epoch      int64             `json:"epoch"` // replication.Unknown when absent or garbled
	SwitchedBy string            `json:"switchedBy"`
	Desired    map[string]string `json:"desired"` // client -> run or stop
}

// ReadDiscoveryResult lists the entries in the runbook's order.
type ReadDiscoveryResult struct {
	Entries []DiscoveryEntry `json:"entries"`
}

// Required is the entry that counts (P40).
func (r ReadDiscoveryResult) Required() DiscoveryEntry {
	for _, e := range r.Entries {
		if e.Required {
			return e
		}
	}
	return DiscoveryEntry{Epoch: replication.Unknown, Error: "no required discovery entry"}
}

// HighestEpoch is the highest number seen anywhere, 0 when none could be read.
func (r ReadDiscoveryResult) HighestEpoch() int64 {
	var highest int64
	for _, e := range r.Entries {
		highest = max(highest, e.Epoch)
	}
	return highest
}

// Read reads every entry side by side. An entry out of reach is a result with Error, not an error.
func (a *Discovery) Read(ctx context.Context, in ReadDiscoveryInput) (ReadDiscoveryResult, error) {
	return ReadDiscoveryResult{}, errors.New("not written")
}

// SwitchInput asks for the switch, or for raising the epoch in a rollback (To is then the cluster left from).
type SwitchInput struct {
	Guard       Guard                `json:"guard"`
	Entries     []runbooks.Discovery `json:"entries"`
	To          Site                 `json:"to"`
	Epoch       int64                `json:"epoch"` // the new number, absolute
	Credentials runbooks.Credentials `json:"credentials"`
	Clients     []string             `json:"clients"` // whose secrets are copied when credentials.copy asks for it
}

// SwitchResult says what became of each entry: OK, or Pending with the reason for an optional one out of reach.
type SwitchResult struct {
	Acted
	Entries []replication.Outcome `json:"entries"`
	At      time.Time             `json:"at"`
}

// Switch changes all keys of the required entry in one transaction checked against what was read, then sets the other
// entries to the same number, upwards only (P2, P40). A retry whose first answer was lost sees its own switchedBy.
// TypeStale when somebody else switched; TypeConflict when keys were changed by somebody else meanwhile.
func (a *Discovery) Switch(ctx context.Context, in SwitchInput) (SwitchResult, error) {
	return SwitchResult{}, errors.New("not written")
}

// AlignInput names the entries to be brought to the required one's truth of now.
type AlignInput struct {
	Entries  []runbooks.Discovery `json:"entries"`
	Deadline time.Time            `json:"deadline"`
}

// Align retries entries that were out of reach until Deadline, with what the required entry says now (P2).
func (a *Discovery) Align(ctx context.Context, in AlignInput) (SwitchResult, error) {
	return SwitchResult{}, errors.New("not written")
}
