package main

import (
	"context"
	"log/slog"
	"slices"
	"time"

	"switchback/internal/consul"
)

// How soon Consul is asked again after it did not answer.
const (
	followAgain        = 100 * time.Millisecond
	followAgainAtWorst = 2 * time.Second
)

// news is what following one entry found: a state or an error.
type news struct {
	entry int
	state consul.State
	err   error
}

// follow asks one entry for changes until ctx ends. It learns of one within milliseconds.
func follow(ctx context.Context, entry int, d *consul.Discovery, to chan<- news, log *slog.Logger) {
	var index uint64
	pause, away := followAgain, false
	for ctx.Err() == nil {
		state, err := d.Watch(ctx, index)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			if away {
				log.Info("Consul answers again", "address", d.Address())
			}
			index, pause, away = state.Index, followAgain, false
		} else if !away {
			away = true
			log.Warn("Consul cannot be read; a running command goes on with what it has", "error", err)
		}
		select {
		case to <- news{entry, state, err}:
		case <-ctx.Done():
			return
		}
		if err != nil {
			index = 0
			select {
			case <-time.After(pause):
				pause = min(2*pause, followAgainAtWorst)
			case <-ctx.Done():
			}
		}
	}
}

// knowledge is the newest of each entry; the first is the required one.
type knowledge struct {
	states []*consul.State
	fresh  bool // the required entry answered when it was asked last
}

func (k knowledge) clone() knowledge { return knowledge{slices.Clone(k.states), k.fresh} }

func (k *knowledge) learn(n news) {
	if n.entry == 0 {
		k.fresh = n.err == nil
	}
	if n.err == nil {
		k.states[n.entry] = &n.state
	}
}

// view is what the client should do: as the required entry desires, with the values of the highest epoch (P22). ok is
// false while the required entry was never read.
func (k *knowledge) view(client string) (v consul.View, ok bool) {
	if k.states[0] == nil {
		return consul.View{Epoch: consul.Unknown}, false
	}
	v = k.states[0].For(client)
	for _, s := range k.states[1:] {
		if s == nil {
			continue
		}
		if other := s.For(client); other.Epoch > v.Epoch {
			v.Values, v.Epoch = other.Values, other.Epoch
		}
	}
	return v, true
}
