package main

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"switchback/internal/fault"
)

// keepFor is how long a connection is used before a new one takes its place, so that credentials that were changed in
// Vault are picked up even where the old ones still work.
const keepFor = 10 * time.Minute

// keepOn is how long an old connection is used on before Vault, which did not answer, is asked again.
const keepOn = time.Minute

// kept holds connections by key and shares them: a login takes tens of milliseconds, and the switch window is short.
// A connection that was replaced is closed when its last user gives it back.
type kept[T interface{ Close() }] struct {
	now  func() time.Time
	lost func(T) bool // its login no longer works; may be nil

	mu     sync.Mutex
	conns  map[string]*connection[T]
	closed bool
}

// connection is one that was opened, and how many use it now.
type connection[T interface{ Close() }] struct {
	conn      T
	principal string
	since     time.Time
	users     int
	replaced  bool
}

func newKept[T interface{ Close() }](now func() time.Time, lost func(T) bool) *kept[T] {
	return &kept[T]{now: now, lost: lost, conns: map[string]*connection[T]{}}
}

// take returns the connection under key, opened when there is none, or when it is old or lost its login. Every take is
// ended by giveBack.
func (k *kept[T]) take(key string, open func() (T, string, error)) (*connection[T], error) {
	if c, err := k.have(key); c != nil || err != nil {
		return c, err
	}
	conn, principal, err := open() // not under the lock: one cluster that is slow must not hold up the others
	if err != nil {
		return k.goOn(key, err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		conn.Close()
		return nil, errStopping
	}
	k.drop(key)
	k.conns[key] = &connection[T]{conn: conn, principal: principal, since: k.now(), users: 1}
	return k.conns[key], nil
}

var errStopping = fmt.Errorf("the worker is stopping: %w", fault.ErrUnreachable)

func (k *kept[T]) have(key string) (*connection[T], error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.closed {
		return nil, errStopping
	}
	c := k.conns[key]
	switch {
	case c == nil:
		return nil, nil
	case k.lost != nil && k.lost(c.conn):
		k.drop(key)
		return nil, nil
	case k.now().Sub(c.since) >= keepFor:
		return nil, nil // it stays until another takes its place
	}
	c.users++
	return c, nil
}

// goOn returns an old connection where err says that what a new one needs is away: a Vault that does not answer is no reason
// to give up a cluster that does. It is asked again a while later.
func (k *kept[T]) goOn(key string, err error) (*connection[T], error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	c := k.conns[key]
	if c == nil || k.closed || !errors.Is(err, fault.ErrUnreachable) {
		return nil, err
	}
	c.since = k.now().Add(keepOn - keepFor)
	c.users++
	return c, nil
}

// giveBack ends a take. After it the connection is not used any more.
func (k *kept[T]) giveBack(c *connection[T]) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c.users--; c.users == 0 && c.replaced {
		c.conn.Close()
	}
}

// forget replaces the connection at its next take if err says that its login is no longer good.
func (k *kept[T]) forget(c *connection[T], key string, err error) {
	if !errors.Is(err, fault.ErrUnauthenticated) {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.conns[key] == c {
		k.drop(key)
	}
}

// drop takes a connection out; it is closed now, or when its last user gives it back. Called with mu held.
func (k *kept[T]) drop(key string) {
	c := k.conns[key]
	if c == nil {
		return
	}
	delete(k.conns, key)
	if c.replaced = true; c.users == 0 {
		c.conn.Close()
	}
}

// close closes what nobody uses at once and the rest as it is given back. Nothing is opened afterwards.
func (k *kept[T]) close() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.closed = true
	for key := range k.conns {
		k.drop(key)
	}
}
