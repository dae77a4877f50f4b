// Package supervised stops and starts clients that run under `supervisor`: it asks through discovery and believes only
// what the instances themselves say there.
//
// Start reading at Clients. judgeStopped and judgeRunning are the rules, without I/O: an instance that vanished is unknown
// and named, never stopped (P22).
package supervised

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"switchback/internal/consul"
	"switchback/internal/fault"
	"switchback/replication"
	"switchback/runbooks"
)

// Discovery is what is needed of a discovery entry; *consul.Discovery is one. Errors are those of package fault.
type Discovery interface {
	Read(ctx context.Context) (consul.State, error)
	SetDesired(ctx context.Context, epoch int64, desired map[string]string) (changed bool, err error)
}

// Clients are the supervised clients of one runbook, seen through its required discovery entry.
type Clients struct{ discovery Discovery }

// New returns them.
func New(d Discovery) *Clients { return &Clients{d} }

// State is how far one client is. First and Last are when the first and the last of its instances got there; both are
// zero while none has.
type State struct {
	Client    string
	Role      string
	Instances int // that are there
	First     time.Time
	Last      time.Time
}

// Progress is how far all of them are. Waiting is empty when all is done; its names are client/instance, or the client
// where an instance has no name. Those that discovery does not know, or knows no longer, are Unclear: nobody can tell whether
// they will ever say anything. The others are Pending. Killed are client/instance, with why (P36).
type Progress struct {
	Clients []State
	Waiting []replication.Outcome
	Killed  []Killed
}

// Killed is an instance whose child had to be killed.
type Killed struct {
	Client, Instance, Reason string
}

// Ask asks clients to consul.Run or consul.Stop, checked against the epoch. fault.ErrStale, fault.ErrConflict and
// fault.ErrUnclear as of consul.Discovery.SetDesired. fault.ErrInvalid for a client that is not supervised.
func (c *Clients) Ask(ctx context.Context, epoch int64, desired string, clients []runbooks.Client) (changed bool, err error) {
	ask := map[string]string{}
	for _, client := range clients {
		if client.Supervised == nil {
			return false, fmt.Errorf("client %s does not run under supervisor: %w", client.Name, fault.ErrInvalid)
		}
		ask[client.Name] = desired
	}
	return c.discovery.SetDesired(ctx, epoch, ask)
}

// Stop asks clients to stop.
func (c *Clients) Stop(ctx context.Context, epoch int64, clients []runbooks.Client) (changed bool, err error) {
	return c.Ask(ctx, epoch, consul.Stop, clients)
}

// Start asks clients to run.
func (c *Clients) Start(ctx context.Context, epoch int64, clients []runbooks.Client) (changed bool, err error) {
	return c.Ask(ctx, epoch, consul.Run, clients)
}

// Stopped looks once whether every instance says stopped. fault.ErrStale when the entry holds another epoch.
func (c *Clients) Stopped(ctx context.Context, epoch int64, clients []runbooks.Client) (Progress, error) {
	return c.look(ctx, epoch, consul.Stop, clients, judgeStopped)
}

// Running looks once whether the instances run at the epoch. fault.ErrStale when the entry holds another one.
func (c *Clients) Running(ctx context.Context, epoch int64, clients []runbooks.Client) (Progress, error) {
	return c.look(ctx, epoch, consul.Run, clients, judgeRunning)
}

// Look is Stopped or Running.
func (c *Clients) Look(ctx context.Context, epoch int64, desired string, clients []runbooks.Client) (Progress, error) {
	if desired == consul.Stop {
		return c.Stopped(ctx, epoch, clients)
	}
	return c.Running(ctx, epoch, clients)
}

type judge func(epoch int64, client runbooks.Client, s consul.ClientState) Progress

func (c *Clients) look(ctx context.Context, epoch int64, desired string, clients []runbooks.Client, f judge) (Progress, error) {
	state, err := c.discovery.Read(ctx)
	if err != nil {
		return Progress{}, err
	}
	if state.Epoch != epoch {
		return Progress{}, fmt.Errorf("look at the clients: discovery is at epoch %d by %q, not %d: %w", state.Epoch, state.SwitchedBy, epoch, fault.ErrStale)
	}
	var all Progress
	for _, client := range clients {
		if client.Supervised == nil {
			return Progress{}, fmt.Errorf("client %s does not run under supervisor: %w", client.Name, fault.ErrInvalid)
		}
		held := state.Clients[client.Name]
		p := f(epoch, client, held)
		if held.Desired != desired { // somebody else asks for something else: what they say now is no answer to us
			p.Waiting = append(p.Waiting, waiting(client.Name, "desired is %q in discovery, not %s: somebody changed it", held.Desired, desired))
		}
		all.Clients = append(all.Clients, p.Clients...)
		all.Waiting = append(all.Waiting, p.Waiting...)
		all.Killed = append(all.Killed, p.Killed...)
	}
	return all, nil
}

// judgeStopped wants every instance to say stopped: those that are there, those that were there when the stop was
// asked for, and as many as the runbook expects.
func judgeStopped(_ int64, client runbooks.Client, s consul.ClientState) Progress {
	p := Progress{Clients: []State{{Client: client.Name, Role: client.Role}}}
	at := &p.Clients[0]
	for _, id := range slices.Sorted(maps.Keys(s.Instances)) {
		i := s.Instances[id]
		if i.State != consul.Stopped {
			p.Waiting = append(p.Waiting, waiting(client.Name+"/"+id, "%s", describe(i)))
			continue
		}
		at.count(i)
		if i.Killed {
			p.Killed = append(p.Killed, Killed{client.Name, id, i.KilledReason})
		}
	}
	vanished := vanished(client, s)
	p.Waiting = append(p.Waiting, vanished...)
	if known := len(s.Instances) + len(vanished); known < client.Supervised.Instances {
		p.Waiting = append(p.Waiting, unknown(client.Name,
			"the runbook expects %d instances, discovery knows %d (%s): one that it does not know may still run",
			client.Supervised.Instances, known, strings.Join(slices.Sorted(maps.Keys(s.Instances)), ", ")))
	}
	return p
}

// judgeRunning wants as many instances as the runbook expects to run at the epoch, and none to be elsewhere.
func judgeRunning(epoch int64, client runbooks.Client, s consul.ClientState) Progress {
	p := Progress{Clients: []State{{Client: client.Name, Role: client.Role}}}
	at := &p.Clients[0]
	for _, id := range slices.Sorted(maps.Keys(s.Instances)) {
		i := s.Instances[id]
		switch {
		case i.State != consul.Running:
			p.Waiting = append(p.Waiting, waiting(client.Name+"/"+id, "%s", describe(i)))
		case i.Epoch != epoch:
			p.Waiting = append(p.Waiting, waiting(client.Name+"/"+id, "runs at epoch %d on %s, not at %d", i.Epoch, i.Cluster, epoch))
		default:
			at.count(i)
		}
		if i.Killed {
			p.Killed = append(p.Killed, Killed{client.Name, id, i.KilledReason})
		}
	}
	if len(s.Instances) < client.Supervised.Instances {
		gone := vanished(client, s)
		p.Waiting = append(p.Waiting, gone...)
		if known := len(s.Instances) + len(gone); known < client.Supervised.Instances {
			p.Waiting = append(p.Waiting, unknown(client.Name, "the runbook expects %d instances, discovery knows %d", client.Supervised.Instances, known))
		}
	}
	return p
}

func (s *State) count(i consul.Instance) {
	s.Instances++
	if s.First.IsZero() || i.Since.Before(s.First) {
		s.First = i.Since
	}
	if i.Since.After(s.Last) {
		s.Last = i.Since
	}
}

// vanished names the instances that were there when the stop was asked for and are gone.
func vanished(client runbooks.Client, s consul.ClientState) []replication.Outcome {
	var gone []replication.Outcome
	for _, id := range slices.Sorted(maps.Keys(s.Seen)) {
		if _, there := s.Instances[id]; !there {
			gone = append(gone, unknown(client.Name+"/"+id, "vanished from discovery; its process may still run: look on host %s", s.Seen[id]))
		}
	}
	return gone
}

func describe(i consul.Instance) string {
	text := fmt.Sprintf("%s on host %s", i.State, i.Host)
	if !i.Since.IsZero() {
		text += " since " + i.Since.UTC().Format(time.RFC3339)
	}
	if i.Reason != "" {
		text += ": " + i.Reason
	}
	return text
}

func waiting(name, format string, args ...any) replication.Outcome {
	return replication.Outcome{Name: name, Status: replication.Pending, Reason: fmt.Sprintf(format, args...)}
}

func unknown(name, format string, args ...any) replication.Outcome {
	return replication.Outcome{Name: name, Status: replication.Unclear, Reason: fmt.Sprintf(format, args...)}
}
