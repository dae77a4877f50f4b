package main

import (
	"context"

	"switchback/activities"
	"switchback/clients/supervised"
	"switchback/runbooks"
)

// applications are the clients of a runbook, by the kind of what runs them: supervised ones, in this version.
type applications struct{ *systems }

func (a applications) open(ctx context.Context, g activities.Guard) (*supervised.Clients, func(error) error, error) {
	d, noted, err := consuls(a).discovery(ctx, g.Discovery)
	if err != nil {
		return nil, nil, err
	}
	return supervised.New(d), noted, nil
}

func (a applications) Ask(ctx context.Context, g activities.Guard, desired string, clients []runbooks.Client) (bool, error) {
	s, noted, err := a.open(ctx, g)
	if err != nil {
		return false, err
	}
	changed, err := s.Ask(ctx, g.Epoch, desired, clients)
	return changed, noted(err)
}

func (a applications) Look(ctx context.Context, g activities.Guard, desired string, clients []runbooks.Client) (activities.Applied, error) {
	s, noted, err := a.open(ctx, g)
	if err != nil {
		return activities.Applied{}, err
	}
	p, err := s.Look(ctx, g.Epoch, desired, clients)
	if err != nil {
		return activities.Applied{}, noted(err)
	}
	out := activities.Applied{Waiting: p.Waiting}
	for _, c := range p.Clients {
		out.Clients = append(out.Clients, activities.ClientState{Client: c.Client, Role: c.Role, Instances: c.Instances, First: c.First, Last: c.Last})
	}
	for _, k := range p.Killed {
		out.Killed = append(out.Killed, k.Client+"/"+k.Instance)
	}
	return out, nil
}
