package main

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/internal/fault"
)

// wire is a connection that knows what was done with it.
type wire struct {
	mu     sync.Mutex
	closed int
	lost   bool
}

func (w *wire) Close()     { w.mu.Lock(); w.closed++; w.mu.Unlock() }
func (w *wire) ends() int  { w.mu.Lock(); defer w.mu.Unlock(); return w.closed }
func (w *wire) gone() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.lost }

// pool is a kept with a clock of its own.
type pool struct {
	*kept[*wire]
	now   time.Time
	opens int
}

func newPool() *pool {
	p := &pool{now: time.Unix(1_000_000, 0)}
	p.kept = newKept(func() time.Time { return p.now }, (*wire).gone)
	return p
}

func (p *pool) get(t *testing.T, key string) *connection[*wire] {
	t.Helper()
	c, err := p.take(key, func() (*wire, string, error) { p.opens++; return &wire{}, "User:x", nil })
	require.NoError(t, err)
	require.Zero(t, c.conn.ends(), "a closed connection was handed out")
	return c
}

func TestConnectionsAreShared(t *testing.T) {
	p := newPool()
	a, b, other := p.get(t, "east"), p.get(t, "east"), p.get(t, "west")
	require.Same(t, a.conn, b.conn)
	require.NotSame(t, a.conn, other.conn)
	p.giveBack(a)
	p.giveBack(b)
	require.Zero(t, a.conn.ends(), "kept for the next one")
	require.Same(t, a.conn, p.get(t, "east").conn)
	require.Equal(t, 2, p.opens)
}

func TestAnOldConnectionIsReplacedAndClosedByItsLastUser(t *testing.T) {
	p := newPool()
	first, also := p.get(t, "east"), p.get(t, "east")
	p.now = p.now.Add(keepFor - time.Second)
	require.Same(t, first.conn, p.get(t, "east").conn)
	p.giveBack(first)
	p.now = p.now.Add(time.Second)
	second := p.get(t, "east")
	require.NotSame(t, first.conn, second.conn)
	p.giveBack(first)
	require.Zero(t, first.conn.ends(), "somebody still uses it")
	p.giveBack(also)
	require.Equal(t, 1, first.conn.ends())
	require.Zero(t, second.conn.ends())
}

func TestAConnectionThatLostItsLoginIsReplaced(t *testing.T) {
	p := newPool()
	first := p.get(t, "east")
	p.giveBack(first)
	first.conn.lost = true
	second := p.get(t, "east")
	require.NotSame(t, first.conn, second.conn)
	require.Equal(t, 1, first.conn.ends())

	p.forget(second, "east", fmt.Errorf("read: %w", fault.ErrUnreachable))
	require.Same(t, second.conn, p.get(t, "east").conn, "an outage is no reason to log in anew")
	p.forget(second, "east", fmt.Errorf("read: %w", fault.ErrUnauthenticated))
	third := p.get(t, "east")
	require.NotSame(t, second.conn, third.conn)
	p.forget(second, "east", fault.ErrUnauthenticated) // late, and about the one before
	require.Same(t, third.conn, p.get(t, "east").conn)
}

func TestTwoThatOpenAtOnceLeaveNothingOpen(t *testing.T) {
	p := newPool()
	var slow *connection[*wire]
	slow, err := p.take("east", func() (*wire, string, error) {
		fast := p.get(t, "east") // another is quicker
		p.giveBack(fast)
		return &wire{}, "", nil
	})
	require.NoError(t, err)
	p.giveBack(slow)
	require.Equal(t, 1, p.opens)
	require.Same(t, slow.conn, p.get(t, "east").conn)
}

func TestAtTheEndEverythingIsClosedOnceAndNothingIsOpened(t *testing.T) {
	p := newPool()
	idle, used := p.get(t, "east"), p.get(t, "west")
	p.giveBack(idle)
	var late *wire
	_, err := p.take("south", func() (*wire, string, error) {
		p.close() // while this one is being opened
		late = &wire{}
		return late, "", nil
	})
	require.ErrorIs(t, err, errStopping)
	require.Equal(t, 1, late.ends())
	require.Equal(t, 1, idle.conn.ends())
	require.Zero(t, used.conn.ends(), "an activity still uses it")
	p.giveBack(used)
	require.Equal(t, 1, used.conn.ends())
	_, err = p.take("east", func() (*wire, string, error) { t.Error("opened after the end"); return nil, "", nil })
	require.ErrorIs(t, err, errStopping)
	p.close()
	require.Equal(t, 1, idle.conn.ends())
}

func TestAFailedOpenKeepsNothing(t *testing.T) {
	p := newPool()
	no := errors.New("no")
	_, err := p.take("east", func() (*wire, string, error) { return nil, "", no })
	require.ErrorIs(t, err, no)
	require.NotNil(t, p.get(t, "east"))
}

func TestManyUsersAtOnce(t *testing.T) {
	p := newPool()
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 200 {
				c, err := p.take("east", func() (*wire, string, error) { return &wire{}, "", nil })
				if err != nil || c.conn.ends() > 0 {
					t.Errorf("closed while it is used: %v", err)
					return
				}
				p.forget(c, "east", fault.ErrUnauthenticated)
				if c.conn.ends() > 0 {
					t.Error("closed while it is used")
				}
				p.giveBack(c)
			}
		})
	}
	all.Wait()
}
