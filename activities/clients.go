package activities

import (
	"context"
	"fmt"
	"slices"
	"time"

	"switchback/internal/killpoint"
	"switchback/replication"
	"switchback/runbooks"
)

// Clients stops and starts client applications.
type Clients struct{ Applications Applications }

// Applications are the client programs of a runbook, whatever runs them.
type Applications interface {
	// Ask says stop or run to clients, checked against the guard's epoch. Asking again changes nothing.
	Ask(ctx context.Context, g Guard, desired string, clients []runbooks.Client) (changed bool, err error)
	// Look says how far each client is: stopped, or running at the guard's epoch.
	Look(ctx context.Context, g Guard, desired string, clients []runbooks.Client) (Applied, error)
}

// What clients can be asked for.
const (
	DesiredRun  = "run"
	DesiredStop = "stop"
)

// Applied is how far clients are with what they were asked for. Waiting names the instances that are not there yet; one
// that vanished is unknown and among them (P22). What discovery does not know is Unclear, everything else Pending.
type Applied struct {
	Clients []ClientState
	Waiting []replication.Outcome
	Killed  []string // client/instance that had to be killed (P36)
}

// ClientsInput names clients and how long to wait for them. Deadline is absolute and lies inside the activity's own
// time-out, so that the laggards are named.
type ClientsInput struct {
	Guard    Guard             `json:"guard"`
	Clients  []runbooks.Client `json:"clients"`
	Deadline time.Time         `json:"deadline"`
	// GoOn has StopReachable not wait for instances that discovery does not know, or knows no longer.
	GoOn bool `json:"goOn,omitempty"`
	// Absent are those that a stop did not find, by the names of their outcomes. Start does not wait for them while discovery
	// still does not know them.
	Absent []string `json:"absent,omitempty"`
}

// ClientsResult says when the instances of each client reached what was asked.
type ClientsResult struct {
	Acted
	Clients []ClientState `json:"clients"`
	Killed  []string      `json:"killed,omitempty"` // client/instance that had to be killed (P36)
	// Absent are instances that were not waited for.
	Absent []replication.Outcome `json:"absent,omitempty"`
}

// ClientState is one client after a stop or a start. First and Last are the earliest and the latest of its instances.
type ClientState struct {
	Client    string    `json:"client"`
	Role      string    `json:"role"`
	Instances int       `json:"instances"`
	First     time.Time `json:"first"`
	Last      time.Time `json:"last"`
}

// clientsEvery is the pause between two looks at the instances.
const clientsEvery = 30 * time.Millisecond

// Stop asks for `stop` in discovery and waits until every instance says stopped; vanished is not stopped (P22).
// TypeNotReady names the instances that do not.
func (a *Clients) Stop(ctx context.Context, in ClientsInput) (ClientsResult, error) {
	return a.reach(ctx, in, DesiredStop, "Stop/middle")
}

// Start asks for `run` and waits until the instances run at the guard's epoch. TypeNotReady names those that do not. Of
// in.Absent those that are still away are named in the result: they follow by themselves once discovery can be reached.
func (a *Clients) Start(ctx context.Context, in ClientsInput) (ClientsResult, error) {
	return a.reach(ctx, in, DesiredRun, "Start/middle")
}

func (a *Clients) reach(ctx context.Context, in ClientsInput, desired, middle string) (out ClientsResult, err error) {
	ctx, out.Acted = begin(ctx)
	wctx, cancel, err := writing(ctx)
	if err != nil {
		return out, err
	}
	defer cancel()
	if out.Changed, err = a.Applications.Ask(wctx, in.Guard, desired, in.Clients); err != nil {
		return out, wrap(fmt.Sprintf("ask %d clients to %s", len(in.Clients), desired), err)
	}
	killpoint.Reach(middle)
	err = until(ctx, in.Deadline, clientsEvery, func(ctx context.Context) (bool, string, error) {
		applied, err := a.Applications.Look(ctx, in.Guard, desired, in.Clients)
		if err != nil {
			return false, "", wrap("look at the clients", err)
		}
		out.Clients, out.Killed, out.Absent = applied.Clients, applied.Killed, nil
		var awaited []replication.Outcome
		for _, o := range applied.Waiting {
			if o.Status == replication.Unclear && slices.Contains(in.Absent, o.Name) {
				out.Absent = append(out.Absent, o)
				continue
			}
			awaited = append(awaited, o)
		}
		_, text := notOK(awaited)
		return text == "", text, nil
	})
	return out, err
}
