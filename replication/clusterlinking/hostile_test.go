package clusterlinking

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
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
		status, code int
		message      string
		read, write  error
	}{
		{400, 40002, "Topic 'x' already exists.", fault.ErrConflict, fault.ErrConflict},
		{400, 400, "Cannot deserialize", fault.ErrInvalid, fault.ErrInvalid},
		{400, 40035, "version", fault.ErrInvalid, fault.ErrInvalid},
		{401, 40101, "Authentication failed", fault.ErrUnauthenticated, fault.ErrUnauthenticated},
		{401, 0, "", fault.ErrUnauthenticated, fault.ErrUnauthenticated},
		{403, 40301, "Request is not authorized", fault.ErrDenied, fault.ErrDenied},
		{404, 404, "Cluster link 'x' does not exist.", fault.ErrNotFound, fault.ErrNotFound},
		{405, 405, "Method Not Allowed", fault.ErrInvalid, fault.ErrInvalid},
		{408, 0, "", fault.ErrUnreachable, fault.ErrUnclear},
		{409, 40902, "Cluster link 'x' already exists.", fault.ErrConflict, fault.ErrConflict},
		{429, 0, "<html>", fault.ErrUnreachable, fault.ErrUnreachable},
		{301, 0, "", fault.ErrInvalid, fault.ErrInvalid},
		{500, 500, "it already exists", fault.ErrUnreachable, fault.ErrUnclear},
		{503, 50003, "", fault.ErrUnreachable, fault.ErrUnclear},
		{504, 0, "", fault.ErrUnreachable, fault.ErrUnclear},
	} {
		for eff, want := range map[rest.Effect]error{rest.Reading: tc.read, rest.Writing: tc.write} {
			hint, kind := sentinel(eff, tc.status, tc.code, tc.message)
			require.ErrorIs(t, kind, want, "%+v", tc)
			require.NotEmpty(t, hint)
		}
	}
}

func TestErrorsShowNoCredentials(t *testing.T) {
	s, l := newService(t)
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		reply(w, 400, object{"error_code": 40002, "message": `bad sasl.jaas.config: username="key" password="other-one" ` + canary + ` s3cret` + "\n\x1b[31m"})
		return true
	}
	err := l.Client().CreateLink(t.Context(), NewLink{Name: "new", Configs: []ConfigEntry{{Name: "sasl.jaas.config", Secret: secret.New("s3cret")}}})
	require.ErrorIs(t, err, fault.ErrInvalid)
	for _, bad := range []string{canary, "s3cret", "other-one", "\x1b", "\n"} {
		require.NotContains(t, err.Error(), bad)
	}
	for _, rest := range []string{"https://u:" + canary + "@host", "http://[" + canary, canary, "ftp://host", "https://host?x=1", ""} {
		_, err := New(Config{REST: rest, ClusterID: "c", Link: "l"})
		require.ErrorIs(t, err, fault.ErrInvalid, rest)
		if rest != canary {
			require.NotContains(t, err.Error(), canary)
		}
	}
	for _, name := range []string{"", "-", ".", ".."} {
		_, err := New(Config{REST: "https://host", ClusterID: "c", Link: name})
		require.ErrorIs(t, err, fault.ErrInvalid)
	}
}

func TestReadsAreRepeatedAndWritesNever(t *testing.T) {
	s, l := newService(t)
	n := 0
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if n++; n > 2 {
			return false
		}
		w.Header().Set("Retry-After", "0")
		w.Header().Set("Content-Type", "text/html")
		w.WriteHeader(429)
		_, _ = io.WriteString(w, "<html><title>Error 429</title></html>")
		return true
	}
	ms, err := l.Mirrors(t.Context())
	require.NoError(t, err)
	require.Len(t, ms, 2)
	require.Equal(t, 3, n)

	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		reply(w, 503, object{"error_code": 50003, "message": "busy"})
		return true
	}
	s.calls = nil
	_, err = l.Mirrors(t.Context())
	require.ErrorIs(t, err, fault.ErrUnreachable)
	require.ErrorContains(t, err, "busy")
	require.Len(t, s.calls, rest.RetryMax+1)
	s.calls = nil
	err = l.Client().AlterConfigs(t.Context(), "east/west", []ConfigChange{{Name: "a", Reset: true}})
	require.ErrorIs(t, err, fault.ErrUnclear)
	require.Len(t, s.calls, 1)
	require.Equal(t, 1, s.writes())
}

func TestAWriteThatWasNotSentIsNotUnclear(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := ln.Addr().String()
	require.NoError(t, ln.Close())
	l, err := New(Config{REST: "http://" + address, ClusterID: "c", Link: "l"})
	require.NoError(t, err)
	_, err = l.Stop(t.Context(), replication.Promote, []string{"orders"})
	require.ErrorIs(t, err, fault.ErrUnreachable)
	require.NotErrorIs(t, err, fault.ErrUnclear)
}

func TestAResetAfterSendingIsUnclearAndNotRepeated(t *testing.T) {
	var n atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n.Add(1)
		_, _ = io.ReadAll(r.Body)
		panic(http.ErrAbortHandler)
	}))
	defer srv.Close()
	l, err := New(Config{REST: srv.URL, ClusterID: "c", Link: "l"})
	require.NoError(t, err)
	defer l.Close()
	_, err = l.Stop(t.Context(), replication.Promote, []string{"orders"})
	require.ErrorIs(t, err, fault.ErrUnclear)
	require.EqualValues(t, 1, n.Load())
	// A look beforehand that asks for nothing can have done nothing.
	_, err = l.ValidateStop(t.Context(), replication.Promote, []string{"orders"})
	require.ErrorIs(t, err, fault.ErrUnreachable)
}

func TestHostileAnswersNeitherHangNorPanic(t *testing.T) {
	zipped := func(content string, cut int) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		_, _ = z.Write([]byte(content))
		_ = z.Close()
		return b.Bytes()[:b.Len()-cut]
	}
	body := func(b string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, b) }
	}
	for name, h := range map[string]http.HandlerFunc{
		"empty":          body(""),
		"html":           body("<html>welcome</html>"),
		"null":           body("null"),
		"no data":        body("{}"),
		"data is null":   body(`{"data":null}`),
		"data is object": body(`{"data":{}}`),
		"item is number": body(`{"data":[1]}`),
		"cut":            body(`{"data":[{"mirror_topic_name":"a"`),
		"two documents":  body(`{"data":[]}{"data":[]}`),
		"deep":           body(`{"data":` + strings.Repeat("[", 1<<20)),
		"deep unknown":   body(`{"data":[],"x":` + strings.Repeat(`{"a":`, 1<<17) + "1" + strings.Repeat("}", 1<<17) + "}"),
		"huge": func(w http.ResponseWriter, _ *http.Request) {
			chunk := bytes.Repeat([]byte(" "), 1<<16)
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
		"bomb": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(zipped(strings.Repeat(" ", 4<<20), 0))
		},
		"truncated gzip": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = w.Write(zipped(`{"data":[]}`, 9))
		},
		"no gzip": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Encoding", "gzip")
			_, _ = io.WriteString(w, `{"data":[]}`)
		},
		"redirects for ever": func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, r.URL.Path+"/x", http.StatusFound) },
		"hangs":              func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() },
		"trickles": func(w http.ResponseWriter, r *http.Request) {
			tick := time.NewTicker(time.Millisecond)
			defer tick.Stop()
			for {
				select {
				case <-r.Context().Done():
					return
				case <-tick.C:
					_, _ = io.WriteString(w, " ")
					_ = http.NewResponseController(w).Flush()
				}
			}
		},
		"asks to wait a day": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "86400")
			w.WriteHeader(429)
		},
		"error is no object": func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(400)
			_, _ = io.WriteString(w, `[{"error_code":{}}`)
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
			l, err := New(Config{REST: srv.URL, ClusterID: "c", Link: "l"})
			require.NoError(t, err)
			defer l.Close()
			l.client.rest.Limit = 1 << 21
			l.client.rest.HTTP.Timeout = 150 * time.Millisecond
			l.client.rest.Reads.RetryWaitMin, l.client.rest.Reads.RetryWaitMax = time.Millisecond, time.Millisecond
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
			defer cancel()
			_, err = l.Mirrors(ctx)
			require.Error(t, err)
			_, err = l.Status(ctx)
			require.Error(t, err)
			_, err = l.client.Links(ctx)
			require.Error(t, err)
			out, err := l.Stop(t.Context(), replication.Promote, []string{"a"})
			require.Error(t, err)
			require.NotEqual(t, replication.OK, out[0].Status)
		})
	}
}

func TestAThousandTopicsOfAHundredPartitionsFit(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"data":[`)
	for i := range 1000 {
		if i > 0 {
			b.WriteByte(',')
		}
		fmt.Fprintf(&b, `{"mirror_topic_name":"a-rather-long-name-of-a-topic-%d","mirror_status":"ACTIVE","num_partitions":100,"mirror_lags":[`, i)
		for p := range 100 {
			if p > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, `{"partition":%d,"lag":9223372036854775807,"last_source_fetch_offset":9223372036854775807}`, p)
		}
		b.WriteString(`]}`)
	}
	b.WriteString(`]}`)
	require.Less(t, b.Len(), rest.MaxAnswer/4)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, b.String()) }))
	defer srv.Close()
	l, err := New(Config{REST: srv.URL, ClusterID: "c", Link: "l"})
	require.NoError(t, err)
	defer l.Close()
	ms, err := l.Mirrors(t.Context())
	require.NoError(t, err)
	require.Len(t, ms, 1000)
	require.Len(t, ms[999].Lag, 100)
}

func TestAbsentLagIsUnknown(t *testing.T) {
	var l list[wireMirror]
	require.NoError(t, json.Unmarshal([]byte(`{"data":[{"mirror_topic_name":"a","mirror_status":7,"num_partitions":"x","state_time_ms":1.5,"surprise":{},
		"mirror_lags":[{"partition":3,"lag":null},{"partition":2},{"partition":1,"lag":"5","last_source_fetch_offset":4},{"lag":1},{"partition":0,"lag":-1},{"partition":99999999999,"lag":0}]}]}`), &l))
	m := l.items[0].mirror()
	require.Empty(t, m.Lag)
	require.Equal(t, map[int32]int64{1: 4}, m.Fetched)
	require.Equal(t, replication.MirrorUnknown, m.State)
	require.Equal(t, "7", m.Raw)
	require.Zero(t, m.Partitions)
	require.True(t, m.Since.IsZero())
}

func TestConfigsOfOlderServices(t *testing.T) {
	s, l := newService(t)
	s.deviates = true
	s.hook = func(w http.ResponseWriter, _ *http.Request) bool {
		_, _ = io.WriteString(w, `{"data":[{"name":"acl.sync.enable","value":"true","sensitive":false,"source":"DYNAMIC_CLUSTER_LINK_CONFIG"},
			{"name":"consumer.offset.sync.enable","value":null,"source":"DEFAULT_CONFIG"},{"name":"sasl.jaas.config","value":"`+canary+`","sensitive":true},
			{"name":"x","value":"`+canary+`","is_sensitive":"true"}]}`)
		return true
	}
	now, err := l.readSyncs(t.Context())
	require.NoError(t, err)
	require.Equal(t, replication.Sync{Enabled: true}, now.ACLs)
	require.Equal(t, replication.Sync{Default: true}, now.Offsets)
	configs, err := l.client.configs(t.Context(), "east/west")
	require.NoError(t, err)
	require.NotContains(t, fmt.Sprint(configs), canary)
	s.hook = func(w http.ResponseWriter, _ *http.Request) bool {
		_, _ = io.WriteString(w, `{"data":[]}`)
		return true
	}
	require.Error(t, l.HoldsBack(t.Context(), []string{"g"})) // settings that are not told are not "off"
}

func TestJudge(t *testing.T) {
	_, l := newService(t)
	for body, want := range map[string]replication.Status{
		`{"data":[{"mirror_topic_name":"a"}]}`:                                            replication.Pending,
		`{"data":[{"mirror_topic_name":"a","error_code":0}]}`:                             replication.Pending,
		`{"data":[{"mirror_topic_name":"a","error_code":"x"}]}`:                           refused,
		`{"data":[{"mirror_topic_name":"a","error_message":"no"}]}`:                       refused,
		`{"data":[{"mirror_topic_name":"a","error_code":400},{"mirror_topic_name":"a"}]}`: refused,
		`{"data":[{"mirror_topic_name":"a"},{"mirror_topic_name":"a","error_code":400}]}`: refused,
		`{"data":[{"mirror_topic_name":"b"}]}`:                                            replication.Unclear,
	} {
		var items list[wireAltered]
		require.NoError(t, json.Unmarshal([]byte(body), &items))
		var as []Altered
		for _, w := range items.items {
			as = append(as, l.client.altered(w))
		}
		require.Equal(t, want, judge([]string{"a"}, as, false)[0].Status, body)
	}
}

func FuzzMirrors(f *testing.F) {
	f.Add([]byte(`{"data":[{"mirror_topic_name":"a","mirror_status":"ACTIVE","mirror_lags":[{"partition":0,"lag":0}]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var l list[wireMirror]
		if json.Unmarshal(b, &l) == nil {
			for _, w := range l.items {
				for p, lag := range w.mirror().Lag {
					require.True(t, p >= 0 && lag >= 0)
				}
			}
		}
		var a list[wireAltered]
		_ = json.Unmarshal(b, &a)
		for _, w := range a.items {
			(&Client{rest: rest.New(rest.Config{})}).altered(w)
		}
	})
}

func FuzzLinks(f *testing.F) {
	f.Add([]byte(`{"data":[{"link_name":"a","link_state":"ACTIVE","tasks":[{"task_name":"AclSync","state":"IN_ERROR","errors":[{"error_code":"X"}]}]}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var l list[wireLink]
		_ = json.Unmarshal(b, &l)
		for _, w := range l.items {
			health(w, "", nil)
		}
	})
}

func FuzzConfigs(f *testing.F) {
	f.Add([]byte(`{"data":[{"name":"acl.sync.enable","value":null,"is_default":true,"is_sensitive":false}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		var l list[wireConfig]
		_ = json.Unmarshal(b, &l)
		m := map[string]wireConfig{}
		for _, w := range l.items {
			m[string(w.Name)] = w
		}
		s := syncsOf(m)
		require.True(t, refreshWait(m) >= 0 && s.ACLs.Interval >= 0)
	})
}
