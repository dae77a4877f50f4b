package main

import (
	"context"

	"switchback/activities"
	"switchback/clients/supervised"
	"switchback/runbooks"
)

// applications are the clients of a runbook, by the kind of what runs them: supervised ones, in this version.
type applications struct{ *systems }

func (a applications) open(ctx context.Context, g activities.Guard) (*supervised.Clients, error) {
	d, err := consuls{a.systems}.discovery(ctx, g.Discovery)
	if err != nil {
		return nil, err
	}
	return supervised.New(d), nil
}

func (a applications) Ask(ctx context.Context, g activities.Guard, desired string, clients []runbooks.Client) (bool, error) {
	s, err := a.open(ctx, g)
	if err != nil {
		return false, err
	}
	return s.Ask(ctx, g.Epoch, desired, clients)
}

func (a applications) Look(ctx context.Context, g activities.Guard, desired string, clients []runbooks.Client) (activities.Applied, error) {
	s, err := a.open(ctx, g)
	if err != nil {
		return activities.Applied{}, err
	}
	p, err := s.Look(ctx, g.Epoch, desired, clients)
	if err != nil {
		return activities.Applied{}, err
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
