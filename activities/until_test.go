package activities

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/internal/fault"
)

// The deadline falls into the middle of a look more often than not. What fails then is a request that was cut short, a
// moment before the context ends; the laggards of the look before are what people need to know.
func TestTheLaggardsAreNamedThoughTheLastLookWasCutShort(t *testing.T) {
	t.Parallel()
	looks := 0
	deadline := time.Now().Add(200 * time.Millisecond)
	err := until(t.Context(), deadline, 50*time.Millisecond, func(ctx context.Context) (bool, string, error) {
		if looks++; looks == 1 {
			return false, "group shipping to be empty", nil
		}
		cut, cancel := context.WithDeadline(ctx, deadline.Add(-5*time.Millisecond))
		defer cancel()
		<-cut.Done()
		return false, "", fmt.Errorf("list groups: %w: %w", fault.ErrUnreachable, cut.Err())
	})
	require.ErrorContains(t, err, "still waiting for group shipping to be empty")
	require.Equal(t, TypeNotReady, typeOf(toApplication(err)))
}

// The system that is asked may be away at the deadline: then both are said, who was waited for and why it is not known
// any better.
func TestTheLaggardsAreNamedThoughTheLastLooksFailed(t *testing.T) {
	t.Parallel()
	looks := 0
	err := until(t.Context(), time.Now().Add(time.Second), 10*time.Millisecond, func(context.Context) (bool, string, error) {
		if looks++; looks == 1 {
			return false, "checkout: 1 of 2 instances", nil
		}
		return false, "", fmt.Errorf("read Consul: %w", fault.ErrUnreachable)
	})
	require.ErrorContains(t, err, "still waiting for checkout: 1 of 2 instances (the last look failed: read Consul")
}

// A look that found out for whom it waits and could not do what would end that says both.
func TestTheLaggardsAreNamedThoughTheLookFailed(t *testing.T) {
	t.Parallel()
	err := until(t.Context(), time.Now().Add(200*time.Millisecond), 10*time.Millisecond, func(context.Context) (bool, string, error) {
		return false, "orders-0: a transaction is open", fmt.Errorf("end it: %w", fault.ErrDenied)
	})
	require.ErrorContains(t, err, "still waiting for orders-0: a transaction is open (the last look failed: end it")
}
