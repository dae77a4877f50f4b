package kafka

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/internal/fault"
	"switchback/internal/secret"
)

func TestTranslate(t *testing.T) {
	dial := &net.OpError{Op: "dial", Err: errors.New("connection refused")}
	for _, tc := range []struct {
		err         error
		read, write error // nil: unknown
	}{
		{kerr.UnknownTopicOrPartition, fault.ErrNotFound, fault.ErrNotFound},
		{kerr.GroupIDNotFound, fault.ErrNotFound, fault.ErrNotFound},
		{kerr.TopicAuthorizationFailed, fault.ErrDenied, fault.ErrDenied},
		{kerr.ClusterAuthorizationFailed, fault.ErrDenied, fault.ErrDenied},
		{kerr.SaslAuthenticationFailed, fault.ErrUnauthenticated, fault.ErrUnauthenticated},
		{kerr.TopicAlreadyExists, fault.ErrConflict, fault.ErrConflict},
		{kerr.UnknownMemberID, fault.ErrConflict, fault.ErrConflict},
		{kerr.NotLeaderForPartition, fault.ErrNotReady, fault.ErrNotReady},
		{kerr.UnstableOffsetCommit, fault.ErrNotReady, fault.ErrNotReady},
		{kerr.PolicyViolation, fault.ErrInvalid, fault.ErrInvalid},
		{kerr.RequestTimedOut, fault.ErrUnreachable, fault.ErrUnclear},
		{kerr.NotEnoughReplicasAfterAppend, fault.ErrUnclear, fault.ErrUnclear},
		{kerr.UnknownServerError, nil, nil},
		{dial, fault.ErrUnreachable, fault.ErrUnreachable},
		{&net.OpError{Op: "read", Err: errors.New("connection reset by peer")}, fault.ErrUnreachable, fault.ErrUnclear},
		{io.EOF, fault.ErrUnreachable, fault.ErrUnclear},
		{context.DeadlineExceeded, fault.ErrUnreachable, fault.ErrUnclear},
		{context.Canceled, fault.ErrUnreachable, fault.ErrUnclear},
		{kgo.ErrRecordTimeout, fault.ErrUnreachable, fault.ErrUnclear},
		{&kgo.ErrFirstReadEOF{}, fault.ErrUnreachable, fault.ErrUnreachable},
		{errors.New("something else"), nil, nil},
	} {
		for in, want := range map[intent]error{reading: tc.read, writing: tc.write} {
			got := translate(fmt.Errorf("wrapped: %w", tc.err), in)
			require.ErrorIs(t, got, tc.err, "the first error is kept")
			if want == nil {
				require.False(t, known(got), "%v must stay unknown", tc.err)
			} else {
				require.ErrorIs(t, got, want, "%v, writing %v", tc.err, in)
			}
			require.Equal(t, got, translate(got, in), "translating twice changes nothing")
		}
	}
	require.NoError(t, translate(nil, writing))
}

func TestWrongPasswordIsSaidAtOnce(t *testing.T) {
	f := fake(t)
	for _, mechanism := range []string{"SCRAM-SHA-512", "PLAIN"} {
		t.Run(mechanism, func(t *testing.T) {
			cfg := config(f, tool)
			cfg.Security.Mechanism = mechanism
			cfg.Login.Password = secret.New("canary-wrong-secret")
			c, err := Open(cfg)
			require.NoError(t, err)
			defer c.Close()
			begin := time.Now()
			_, err = c.Identity(short(t))
			require.ErrorIs(t, err, fault.ErrUnauthenticated)
			require.Contains(t, fault.HintOf(err), "password")
			require.NotContains(t, err.Error(), "canary-")
			_, err = c.Canary(short(t), "t")
			require.ErrorIs(t, err, fault.ErrUnauthenticated, "the producer's own login is no different")
			require.Less(t, time.Since(begin), 15*time.Second)
		})
	}
}

func TestDeadClusterIsUnreachable(t *testing.T) {
	f := fake(t)
	c := as(t, f, admin)
	_, err := c.Identity(short(t))
	require.NoError(t, err)
	f.Close()
	begin := time.Now()
	_, err = c.Identity(short(t))
	require.ErrorIs(t, err, fault.ErrUnreachable)
	_, err = c.Ends(short(t), []string{"t"})
	require.ErrorIs(t, err, fault.ErrUnreachable)
	require.Less(t, time.Since(begin), 15*time.Second)
	require.NotErrorIs(t, err, fault.ErrUnauthenticated)
}

func TestSilentClusterObeysTheContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close() // accepts into its backlog and never answers
	cfg := config(fake(t), admin)
	cfg.Bootstrap = []string{l.Addr().String()}
	c, err := Open(cfg)
	require.NoError(t, err)
	defer c.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	begin := time.Now()
	_, err = c.Identity(ctx)
	require.ErrorIs(t, err, fault.ErrUnreachable)
	_, err = c.Canary(ctx, "t")
	require.Error(t, err)
	require.Less(t, time.Since(begin), 3*time.Second)
}
