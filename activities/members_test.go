package activities

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
)

// A consumer that nobody stopped notices its removal with its next heartbeat, some time after the group was seen empty.
func TestP08_AMemberThatComesBackLaterIsNamed(t *testing.T) {
	t.Parallel()
	w := read(t)
	w.join("billing", kgo.ClientID("squatter"), kgo.HeartbeatInterval(time.Second))
	_, err := w.handOver(time.Now().Add(2500 * time.Millisecond))
	require.Equal(t, TypeNotReady, typeOf(err), "%v", err)
	require.ErrorContains(t, err, "squatter")
	require.ErrorContains(t, err, "came back after it was removed")
	require.Equal(t, 1, w.took("east.RemoveMembers"))
	require.Zero(t, w.took("west.Commit"))
}

// A member whose process is gone does not come back. The report names it, though it was removed by an attempt before the
// one that ended well.
func TestP08_AMemberOfAKilledProcessIsRemoved(t *testing.T) {
	t.Parallel()
	w := read(t)
	var mu sync.Mutex
	var wires []net.Conn
	gone := false
	member := w.join("billing", kgo.ClientID("billing-1"), kgo.Dialer(func(ctx context.Context, network, host string) (net.Conn, error) {
		mu.Lock()
		defer mu.Unlock()
		if gone {
			return nil, errors.New("the process is gone")
		}
		wire, err := new(net.Dialer).DialContext(ctx, network, host)
		wires = append(wires, wire)
		return wire, err
	}))
	mu.Lock()
	gone = true
	for _, wire := range wires {
		_ = wire.Close()
	}
	mu.Unlock()
	member.Close()
	out, err := attempts[HandOverResult](w, (*Groups)(nil).HandOver, w.handOverInput(time.Now().Add(20*time.Second)))
	require.NoError(t, err)
	require.Greater(t, out.Attempt, int32(1))
	require.Len(t, out.Removed, 1)
	require.Contains(t, out.Removed[0], "billing-1")
	require.Equal(t, 1, w.took("east.RemoveMembers"))
	require.Equal(t, 2, out.Offsets)
}
