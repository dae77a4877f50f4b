package mirrormaker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/internal/fault"
	"switchback/internal/rest"
	"switchback/internal/secret"
	"switchback/replication"
)

func TestAnswersBecomeSentinels(t *testing.T) {
	for _, tc := range []struct {
		status      int
		message     string
		read, write error
	}{
		{400, "Connector configuration is invalid and contains the following 1 error(s)", fault.ErrInvalid, fault.ErrInvalid},
		{400, "Connectors must be in the STOPPED state before their offsets can be modified. This can be done …", fault.ErrNotReady, fault.ErrNotReady},
		{401, "", fault.ErrUnauthenticated, fault.ErrUnauthenticated},
		{403, "", fault.ErrDenied, fault.ErrDenied},
		{404, "No status found for connector x", fault.ErrNotFound, fault.ErrNotFound},
		{404, "HTTP 404 Not Found", fault.ErrNotFound, fault.ErrNotFound},
		{404, "Not Found", fault.ErrUnreachable, fault.ErrUnreachable}, // of a worker that starts: no words of Connect
		{405, "HTTP 405 Method Not Allowed", fault.ErrNotFound, fault.ErrNotFound},
		{409, "Connector x already exists", fault.ErrConflict, fault.ErrConflict},
		{409, "Cannot complete request momentarily due to stale configuration (typically caused by a concurrent config change)", fault.ErrUnreachable, fault.ErrUnreachable},
		{409, "Cannot complete request momentarily due to no known leader URL, likely because a rebalance was underway.", fault.ErrUnreachable, fault.ErrUnreachable},
		{429, "", fault.ErrUnreachable, fault.ErrUnreachable},
		{302, "", fault.ErrInvalid, fault.ErrInvalid},
		{500, "Request timed out. The worker is currently reading to the end of the config topic", fault.ErrUnreachable, fault.ErrUnclear},
		{503, "", fault.ErrUnreachable, fault.ErrUnclear},
	} {
		for eff, want := range map[rest.Effect]error{rest.Reading: tc.read, rest.Writing: tc.write} {
			code := tc.status
			if tc.message == "Not Found" {
				code = 0
			}
			hint, kind := sentinel(eff, tc.status, code, tc.message)
			require.ErrorIs(t, kind, want, "%+v", tc)
			require.NotEmpty(t, hint)
		}
	}
}

func TestARebalanceIsWaitedOut(t *testing.T) {
	s, l := newConnect(t, 1)
	s.unready = 3
	require.NoError(t, l.client.Stop(t.Context(), "east-west.source"))
	require.Equal(t, 4, s.count("PUT"))

	s.unready = 1 << 20 // it does not end
	err := l.client.Resume(t.Context(), "east-west.source")
	require.ErrorIs(t, err, fault.ErrUnreachable)
	require.ErrorContains(t, err, "worker rebalance")
	require.Contains(t, fault.HintOf(errors.Unwrap(errors.Unwrap(err))), "rebalancing")
}

func TestTheNextWorkerIsAskedWhenOneIsDown(t *testing.T) {
	s, l := newConnect(t, 3)
	s.workers[0].Close()
	require.NoError(t, l.client.Stop(t.Context(), "east-west.source"))
	require.NoError(t, l.client.Resume(t.Context(), "east-west.source"))
	require.Equal(t, []string{"1 PUT /connectors/east-west.source/stop", "1 PUT /connectors/east-west.source/resume"}, s.calls, "the one that answered is asked first")

	for _, w := range s.workers {
		w.Close()
	}
	l.Close() // over a connection that stands nobody can say whether a request had arrived
	err := l.client.Stop(t.Context(), "east-west.source")
	require.ErrorIs(t, err, fault.ErrUnreachable)
	require.NotErrorIs(t, err, fault.ErrUnclear)
	require.NotContains(t, err.Error(), canary)
}

func TestAWorkerThatTakesNoConnectionIsPassedOver(t *testing.T) {
	s, _ := newConnect(t, 1)
	transport := http.DefaultTransport.(*http.Transport).Clone()
	c, err := NewClient(Workers{Connect: []string{"http://10.255.255.1:8083", s.workers[0].URL}, Login: login(), HTTP: &http.Client{Transport: &blackhole{transport}}})
	require.NoError(t, err)
	defer c.Close()
	start := time.Now()
	require.NoError(t, c.Stop(t.Context(), "east-west.source"))
	require.Less(t, time.Since(start), 10*connecting)
}

// blackhole never connects to one address, as a machine that is gone.
type blackhole struct{ http.RoundTripper }

func (b *blackhole) RoundTrip(r *http.Request) (*http.Response, error) {
	if strings.HasPrefix(r.URL.Host, "10.255") {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	return b.RoundTripper.RoundTrip(r)
}

func login() secret.Login { return secret.Login{Username: "admin", Password: secret.New(canary)} }

func TestAnUnclearWriteGoesToNobodyElse(t *testing.T) {
	for name, broken := range map[string]func(w http.ResponseWriter, r *http.Request) bool{
		"time-out": func(w http.ResponseWriter, r *http.Request) bool {
			reply(w, 500, object{"error_code": 500, "message": "Request timed out. The worker is currently ensuring membership in the cluster"})
			return true
		},
		"reset":   func(http.ResponseWriter, *http.Request) bool { panic(http.ErrAbortHandler) },
		"gateway": func(w http.ResponseWriter, _ *http.Request) bool { w.WriteHeader(502); return true },
	} {
		t.Run(name, func(t *testing.T) {
			s, l := newConnect(t, 3)
			s.after = broken
			err := l.client.Stop(t.Context(), "east-west.source")
			require.ErrorIs(t, err, fault.ErrUnclear)
			require.Equal(t, 1, s.count("PUT"))
			s.after = nil
			require.Equal(t, "STOPPED", s.connectors["east-west.source"].wanted, "it had been acted upon")
			// A read may go anywhere.
			fails := 2
			s.hook = func(w http.ResponseWriter, r *http.Request) bool {
				fails--
				return fails >= 0 && broken(w, r)
			}
			_, err = l.client.Connectors(t.Context())
			require.NoError(t, err)
		})
	}
}

func TestConnectorsAreMadeAndUnmade(t *testing.T) {
	s, l := newConnect(t, 1)
	c := l.client
	list := []Setting{{Name: "connector.class", Value: sourceClass}, {Name: "target.cluster.sasl.jaas.config", Secret: secret.New("s3cret")}, {Name: "source.cluster.alias", Value: "west"}}
	require.NoError(t, c.Create(t.Context(), "west-east.source", Stopped, list))
	require.Equal(t, "s3cret", s.connectors["west-east.source"].config["target.cluster.sasl.jaas.config"])
	made, err := c.Connector(t.Context(), "west-east.source")
	require.NoError(t, err)
	require.True(t, made.Idle())
	require.ErrorIs(t, c.Create(t.Context(), "west-east.source", Stopped, list), fault.ErrConflict)

	err = c.Create(t.Context(), "new", Running, list[1:])
	require.ErrorIs(t, err, fault.ErrInvalid)
	require.NotContains(t, err.Error(), "s3cret")

	require.NoError(t, c.SetOffsets(t.Context(), "west-east.source", []Stored{{"west", replication.Partition{Topic: "orders"}, 9}}))
	got, err := c.Offsets(t.Context(), "west-east.source")
	require.NoError(t, err)
	require.Equal(t, []Stored{{"west", replication.Partition{Topic: "orders"}, 9}}, got)
	require.NoError(t, c.Forget(t.Context(), "west-east.source"))
	got, err = c.Offsets(t.Context(), "west-east.source")
	require.NoError(t, err)
	require.Empty(t, got)

	require.NoError(t, c.Configure(t.Context(), "west-east.source", list))
	require.NoError(t, c.Pause(t.Context(), "west-east.source"))
	require.NoError(t, c.Delete(t.Context(), "west-east.source"))
	_, err = c.Connector(t.Context(), "west-east.source")
	require.ErrorIs(t, err, fault.ErrNotFound)
	require.ErrorIs(t, c.SetOffsets(t.Context(), "east-west.source", nil), fault.ErrNotReady, "it runs")
}

func TestSettingsKeepNoSecrets(t *testing.T) {
	_, l := newConnect(t, 1)
	all, err := l.client.Connectors(t.Context())
	require.NoError(t, err)
	require.NotContains(t, fmt.Sprintf("%+v", all), canary)
	require.Equal(t, "mm2", all["east-west.source"].settings["target.cluster.username"])
	require.NotContains(t, all["east-west.source"].settings, "tasks.max", "what nobody looks at is dropped")
	c, err := l.client.Connector(t.Context(), "east-west.source")
	require.NoError(t, err)
	require.NotContains(t, fmt.Sprintf("%+v", c), canary)
}

func TestCause(t *testing.T) {
	require.Equal(t, "org.apache.kafka.connect.errors.ConnectException: Unrecoverable exception from producer send callback: "+
		"org.apache.kafka.common.errors.TopicAuthorizationException: Not authorized to access topics: [orders]",
		cause("org.apache.kafka.connect.errors.ConnectException: Unrecoverable exception from producer send callback\n\tat org.apache.kafka.connect.runtime.X\n"+
			"Caused by: java.util.X: y\n\tat z\nCaused by: org.apache.kafka.common.errors.TopicAuthorizationException: Not authorized to access topics: [orders]\n\tat q\n"))
	require.Equal(t, "password=***", cause("password="+canary))
	require.Empty(t, cause(""))
	require.Less(t, len(cause(strings.Repeat("x", 1<<20))), 1<<10)
}

func TestHealthNamesTheWorkerThatIsDown(t *testing.T) {
	s, l := newConnect(t, 3)
	s.workers[1].Close()
	s.hook = func(w http.ResponseWriter, r *http.Request) bool { // before 4.0
		if r.URL.Path == "/health" {
			reply(w, 404, object{"error_code": 404, "message": "HTTP 404 Not Found"})
		}
		return r.URL.Path == "/health"
	}
	out := l.client.Health(t.Context())
	require.Equal(t, []replication.Status{replication.OK, replication.Failed, replication.OK}, []replication.Status{out[0].Status, out[1].Status, out[2].Status})
	require.Equal(t, s.workers[1].URL, out[1].Name)
}

func TestHostileAnswersNeitherHangNorPanic(t *testing.T) {
	body := func(b string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, b) }
	}
	for name, h := range map[string]http.HandlerFunc{
		"empty":            body(""),
		"html":             body("<html>log in</html>"),
		"null":             body("null"),
		"list":             body("[]"),
		"number":           body("7"),
		"cut":              body(`{"east-west.source":{"status":`),
		"states are lists": body(`{"east-west.source":{"status":{"connector":{"state":[]}}},"offsets":{}}`),
		"deep":             body(`{"east-west.source":` + strings.Repeat("[", 1<<20)),
		"huge": func(w http.ResponseWriter, _ *http.Request) {
			chunk := []byte(strings.Repeat(" ", 1<<16))
			for {
				if _, err := w.Write(chunk); err != nil {
					return
				}
			}
		},
		"huge by its own word": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", fmt.Sprint(int64(1)<<40))
			_, _ = io.WriteString(w, "{")
		},
		"redirects for ever": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path+"/x", http.StatusFound) },
		"hangs":              func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"html error": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(404)
			_, _ = io.WriteString(w, "<html><b>404</b>")
		},
		"status 600": func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(600) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body) // or the server does not notice that the client went away
				h(w, r)
			}))
			defer srv.Close()
			_, l := newConnect(t, 1, func(c *Config) { c.Connect = []string{srv.URL} })
			l.client.workers[0].Limit = 1 << 21
			l.client.workers[0].HTTP.Timeout = 100 * time.Millisecond
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
			defer cancel()
			_, err := l.Mirrors(ctx)
			require.Error(t, err)
			_, err = l.Status(ctx)
			require.Error(t, err)
			_, err = l.client.Offsets(ctx, "east-west.source")
			require.Error(t, err)
			_, err = l.Advice(ctx)
			require.Error(t, err)
			require.Error(t, l.PatchOffsets(ctx, map[replication.Partition]int64{{Topic: "orders"}: 1}))
		})
	}
}

func FuzzConnectors(f *testing.F) {
	f.Add([]byte(`{"name":"a","connector":{"state":"RUNNING","trace":"x\nCaused by: y"},"tasks":[{"id":0,"state":"FAILED","trace":"z"}]}`), []byte(`{"topics":"a,b(","x.sasl.jaas.config":"username=\"u\" password=\"p\";"}`))
	f.Fuzz(func(t *testing.T, status, config []byte) {
		var w *wireStatus
		if json.Unmarshal(status, &w) != nil {
			w = nil
		}
		c := w.connector("a")
		_ = json.Unmarshal(config, &c.settings)
		v := look{source: c}
		state, _, _ := v.state()
		require.NotEmpty(t, state)
		if state == replication.MirrorStopped {
			require.True(t, c.Idle())
		}
		c.outcomes()
		_, _ = c.settings.topics().matcher().match("orders")
		require.GreaterOrEqual(t, refreshWait(c.settings, c.settings), time.Duration(0))
	})
}

func FuzzOffsets(f *testing.F) {
	f.Add([]byte(`{"offsets":[{"partition":{"cluster":"A","partition":0,"topic":"orders"},"offset":{"offset":41}},{"partition":null,"offset":null}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var w wireOffsets
		if json.Unmarshal(b, &w) != nil || w.Offsets == nil {
			return
		}
		for _, s := range w.stored() {
			require.True(t, s.Partition.Partition >= 0 && s.Offset >= 0)
		}
	})
}
