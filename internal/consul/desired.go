package consul

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"switchback/internal/fault"
)

// CheckEpoch is nil when the entry holds the epoch, and fault.ErrStale when another run, or a roll-back, has gone on (P35).
func (d *Discovery) CheckEpoch(ctx context.Context, epoch int64) error {
	s, err := d.Read(ctx)
	if err != nil {
		return err
	}
	return d.sameEpoch(s, epoch)
}

func (d *Discovery) sameEpoch(s State, epoch int64) error {
	if s.Epoch == epoch && epoch != Unknown {
		return nil
	}
	if s.Epoch == Unknown {
		return fault.Hint(fmt.Errorf("%s: the entry holds no epoch that can be read, not %d: %w", d.doing("check"), epoch, fault.ErrStale),
			"look at the key epoch there, and whether the token may read it")
	}
	return fmt.Errorf("%s: the entry holds epoch %d by %q, not %d: %w", d.doing("check"), s.Epoch, s.SwitchedBy, epoch, fault.ErrStale)
}

// clientsPerTransaction leaves room for the check of the epoch: desired and seen are two operations.
const clientsPerTransaction = (60 - 1) / 2

// SetDesired asks clients to run or to stop, in transactions that are refused when the epoch is no longer the run's
// (P35). With a stop goes the list of the instances that are there, so that one that vanishes can be named. It may be
// repeated; the result says whether anything was written.
//
// fault.ErrStale, fault.ErrConflict (a client's key was changed meanwhile: repeat), fault.ErrUnclear (repeat).
func (d *Discovery) SetDesired(ctx context.Context, epoch int64, desired map[string]string) (changed bool, err error) {
	for client, word := range desired {
		if word != Run && word != Stop {
			return false, fmt.Errorf("ask %s for %q: only run and stop are known: %w", client, word, fault.ErrInvalid)
		}
	}
	for chunk := range slices.Chunk(slices.Sorted(maps.Keys(desired)), clientsPerTransaction) {
		wrote, err := d.setDesired(ctx, epoch, chunk, desired)
		changed = changed || wrote
		if err != nil {
			return changed, err
		}
	}
	return changed, nil
}

func (d *Discovery) setDesired(ctx context.Context, epoch int64, clients []string, desired map[string]string) (bool, error) {
	doing := d.doing("set desired of clients under")
	s, err := d.Read(ctx)
	if err != nil {
		return false, err
	}
	if err := d.sameEpoch(s, epoch); err != nil {
		return false, err
	}
	ops := []op{unchanged(s, keyEpoch)}
	for _, client := range clients {
		if s.Clients[client].Desired == desired[client] {
			continue
		}
		ops = append(ops, write(s, "clients/"+client+"/desired", desired[client]))
		if desired[client] == Stop {
			ops = append(ops, write(s, "clients/"+client+"/seen", seen(s.Clients[client])))
		}
	}
	if len(ops) == 1 {
		return false, nil
	}
	err = d.commit(ctx, doing, ops)
	var lost *conflict
	switch {
	case errors.As(err, &lost) && lost.names(keyEpoch):
		return false, fmt.Errorf("%w: %w", fault.ErrStale, err)
	case errors.Is(err, fault.ErrUnclear) && d.isDesired(ctx, epoch, clients, desired):
		return true, nil
	}
	return err == nil, err
}

// isDesired reads again after an answer was lost.
func (d *Discovery) isDesired(ctx context.Context, epoch int64, clients []string, desired map[string]string) bool {
	s, err := d.Read(ctx)
	if err != nil || s.Epoch != epoch {
		return false
	}
	for _, client := range clients {
		if s.Clients[client].Desired != desired[client] {
			return false
		}
	}
	return true
}

func seen(c ClientState) string {
	hosts := map[string]string{}
	for id, i := range c.Instances {
		hosts[id] = i.Host
	}
	b, _ := json.Marshal(hosts) // a map of strings cannot fail
	return string(b)
}
