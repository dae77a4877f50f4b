package rest

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/internal/fault"
	"switchback/internal/secret"
)

const canary = "canary-7f3a"

func open(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	srv := httptest.NewServer(h)
	c := New(Config{Base: srv.URL, Login: secret.Login{Username: "key", Password: secret.New(canary)}, Should: "look elsewhere",
		Kind: func(eff Effect, status, _ int, _ string) (string, error) {
			if status >= 500 && eff == Writing {
				return "look first", fault.ErrUnclear
			}
			return "mend it", fault.ErrInvalid
		}})
	c.Reads.RetryWaitMin, c.Reads.RetryWaitMax = time.Millisecond, time.Millisecond
	t.Cleanup(func() { c.Close(); srv.Close() })
	return c
}

func TestAMissingAnswerIsUnclearOnlyWhereSomethingMayHaveChanged(t *testing.T) {
	c := open(t, func(http.ResponseWriter, *http.Request) {})
	broken := errors.New("connection reset by peer")
	require.ErrorIs(t, c.transport(t.Context(), Writing, true, broken), fault.ErrUnclear)
	require.ErrorIs(t, c.transport(t.Context(), Writing, false, broken), fault.ErrUnreachable)
	require.ErrorIs(t, c.transport(t.Context(), Reading, true, broken), fault.ErrUnreachable)
	require.ErrorIs(t, c.transport(t.Context(), Writing, true, ErrMalformed), fault.ErrUnclear)
	require.Equal(t, "look elsewhere", fault.HintOf(c.transport(t.Context(), Reading, true, ErrMalformed)))
}

func TestReadsAreRepeatedAndWritesNever(t *testing.T) {
	var n atomic.Int32
	c := open(t, func(w http.ResponseWriter, r *http.Request) {
		user, pass, _ := r.BasicAuth()
		require.Equal(t, [2]string{"key", canary}, [2]string{user, pass})
		if n.Add(1) < 3 {
			w.WriteHeader(503)
			return
		}
		_, _ = io.WriteString(w, `{"a":1}`)
	})
	var out struct{ A int }
	require.NoError(t, c.Get(t.Context(), "/x", nil, &out))
	require.Equal(t, 1, out.A)
	require.EqualValues(t, 3, n.Load())
	n.Store(0)
	require.ErrorIs(t, c.Send(t.Context(), Writing, http.MethodPut, "/x", nil, nil, nil), fault.ErrUnclear)
	require.EqualValues(t, 1, n.Load())
}

// blackhole never connects, as a machine that is gone.
type blackhole struct{}

func (blackhole) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, r.Context().Err()
}

func TestAWriteThatFindsNoConnectionInTimeWasNotSent(t *testing.T) {
	c := New(Config{Base: "http://gone", HTTP: &http.Client{Transport: blackhole{}}, Connecting: time.Millisecond})
	err := c.Send(t.Context(), Writing, http.MethodPut, "/x", nil, nil, nil)
	require.ErrorIs(t, err, fault.ErrUnreachable)
	require.ErrorContains(t, err, "no connection within 1ms")
}

func TestWhatAServiceSaysIsMadePlain(t *testing.T) {
	c := open(t, func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(400)
		_, _ = io.WriteString(w, `{"error_code":"x","message":"bad password=\"other\" `+canary+` s3cret\n\u001b[31m<b>bold</b>"}`)
	})
	err := c.Send(t.Context(), Writing, http.MethodPost, "/x", nil, map[string]string{"a": "s3cret"}, nil, "s3cret")
	require.EqualError(t, err, "invalid: HTTP 400, code 0: bad password=*** *** *** [31m bold (mend it)")
	e, ok := AsError(err)
	require.True(t, ok)
	require.Equal(t, 400, e.Status)
}

func TestAddresses(t *testing.T) {
	for in, want := range map[string]string{"https://host:8083/": "https://host:8083", "http://host/api/connect/": "http://host/api/connect"} {
		got, err := Address("connect", in)
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	for _, in := range []string{"https://u:" + canary + "@host", "http://[" + canary, "ftp://host", "https://host?x=1", "", "host:8083"} {
		_, err := Address("connect", in)
		require.ErrorIs(t, err, fault.ErrInvalid, in)
		require.NotContains(t, err.Error(), canary)
	}
}
