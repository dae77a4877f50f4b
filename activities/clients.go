package activities

import (
	"context"
	"errors"
	"time"

	"switchback/replication"
	"switchback/runbooks"
)

// Clients stops and starts client applications.
type Clients struct{}

// ClientsInput names clients and how long to wait for them. Deadline is absolute and lies inside the activity's own
// time-out, so that the laggards are named.
type ClientsInput struct {
	Guard    Guard             `json:"guard"`
	Clients  []runbooks.Client `json:"clients"`
	Deadline time.Time         `json:"deadline"`
}

// ClientsResult says when the instances of each client reached what was asked.
type ClientsResult struct {
	Acted
	Clients []ClientState `json:"clients"`
	Killed  []string      `json:"killed,omitempty"` // client/instance that had to be killed (P36)
}

// ClientState is one client after a stop or a start. First and Last are the earliest and the latest of its instances.
type ClientState struct {
	Client    string    `json:"client"`
	Role      string    `json:"role"`
	Instances int       `json:"instances"`
	First     time.Time `json:"first"`
	Last      time.Time `json:"last"`
}

// Stop asks for `stop` in discovery and waits until every instance says stopped; vanished is not stopped (P22).
// TypeNotReady names the instances that do not.
func (a *Clients) Stop(ctx context.Context, in ClientsInput) (ClientsResult, error) {
	return ClientsResult{}, errors.New("not written")
}

// Start asks for `run` and waits until the instances run at the guard's epoch. TypeNotReady names those that do not.
func (a *Clients) Start(ctx context.Context, in ClientsInput) (ClientsResult, error) {
	return ClientsResult{}, errors.New("not written")
}

// CatchUpInput names groups that are to read to the end of the source before they are stopped.
type CatchUpInput struct {
	Guard    Guard     `json:"guard"`
	Route    Route     `json:"route"`
	Deadline time.Time `json:"deadline"`
}

// CatchUpResult lists groups that did not get there; that is a deviation, not a failure.
type CatchUpResult struct {
	Behind []replication.Outcome `json:"behind,omitempty"`
}
