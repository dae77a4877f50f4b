package mirrormaker

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"sync/atomic"
	"time"

	"switchback/internal/fault"
	"switchback/internal/rest"
	"switchback/internal/secret"
)

const (
	// connecting bounds the wait for a connection where another worker can be asked instead.
	connecting = time.Second
	// patience is how long a request is repeated that was certainly not acted upon: Connect refuses requests while its
	// workers rebalance, which takes a few seconds.
	patience = 5 * time.Second
)

// Workers are the workers of one Connect cluster. Any of them takes any request: it forwards to the leader itself.
type Workers struct {
	Connect []string // https://host:port of each
	Login   secret.Login
	TLS     *tls.Config
	HTTP    *http.Client // optional; its transport is used instead of one made from TLS
}

// Client speaks with a Connect cluster through whichever worker answers. What was certainly not acted upon (no
// connection, 409 during a rebalance, any read) goes to the next worker; a write whose outcome is unclear goes nowhere
// again and is fault.ErrUnclear. Safe for concurrent use.
type Client struct {
	workers  []*rest.Client
	names    []string     // their addresses, for people
	at       atomic.Int32 // the worker that answered last
	patience time.Duration
	pause    time.Duration // after the first round over all workers; doubles up to a second
}

// NewClient makes a Client; nothing is asked yet. fault.ErrInvalid for an address that cannot work.
func NewClient(w Workers) (*Client, error) {
	c := &Client{patience: patience, pause: 100 * time.Millisecond}
	for _, address := range w.Connect {
		base, err := rest.Address("connect", address)
		if err != nil {
			return nil, err
		}
		cfg := rest.Config{Base: base, Login: w.Login, TLS: w.TLS, HTTP: w.HTTP, Kind: sentinel, Should: notConnect}
		if len(w.Connect) > 1 {
			cfg.Connecting = connecting
		}
		c.workers, c.names = append(c.workers, rest.New(cfg)), append(c.names, base)
	}
	if len(c.workers) == 0 {
		return nil, invalid("no Connect worker is named", "name at least one under connect:")
	}
	return c, nil
}

// Close closes idle connections.
func (c *Client) Close() {
	for _, w := range c.workers {
		w.Close()
	}
}

func (c *Client) read(ctx context.Context, path string, query url.Values, out any) error {
	return c.send(ctx, rest.Reading, http.MethodGet, path, query, nil, out)
}

func (c *Client) write(ctx context.Context, method, path string, query url.Values, in any, secrets ...string) error {
	return c.send(ctx, rest.Writing, method, path, query, in, nil, secrets...)
}

// send asks worker after worker until one answers for good. The error is that of the last one asked.
func (c *Client) send(ctx context.Context, eff rest.Effect, method, path string, query url.Values, in, out any, secrets ...string) error {
	until := time.Now().Add(c.patience)
	pause := c.pause
	first := int(c.at.Load())
	for try := 0; ; try++ {
		i := (first + try) % len(c.workers)
		err := c.workers[i].Send(ctx, eff, method, path, query, in, out, secrets...)
		if !elsewhere(err) {
			c.at.Store(int32(i)) //nolint:gosec // there are as many as a runbook names
			return err
		}
		err = fmt.Errorf("worker %s: %w", c.names[i], err)
		if try < len(c.workers)-1 && ctx.Err() == nil {
			continue // there is one that was not asked yet
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
		if time.Now().After(until) {
			return err
		}
		pause = min(2*pause, time.Second)
	}
}

// elsewhere says whether asking again, or another worker, may help and can do no harm.
func elsewhere(err error) bool { return errors.Is(err, fault.ErrUnreachable) }
