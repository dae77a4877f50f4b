package e2e_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"switchback/lab/setup"
	"switchback/runbooks"
)

// proxy stands between a part and Consul, so that a test can be in the middle of a request.
type proxy struct {
	*httptest.Server
	cut  atomic.Bool // no request gets through, none is answered
	mu   sync.Mutex
	hook func(forward func()) // sees the transactions that change the epoch; it forwards them or does not
}

// proxyTo starts one in front of an address.
func proxyTo(t *testing.T, address string) *proxy {
	t.Helper()
	target, err := url.Parse(address)
	require.NoError(t, err)
	p := &proxy{}
	through := httputil.NewSingleHostReverseProxy(target)
	through.ErrorHandler = func(http.ResponseWriter, *http.Request, error) { panic(http.ErrAbortHandler) }
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if p.cut.Load() {
			panic(http.ErrAbortHandler)
		}
		body, err := io.ReadAll(r.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		p.mu.Lock()
		seen := p.hook
		p.mu.Unlock()
		if seen == nil || r.URL.Path != "/v1/txn" || !strings.Contains(string(body), `/switchedBy"`) {
			through.ServeHTTP(w, r)
			return
		}
		answer := httptest.NewRecorder()
		forwarded := false
		seen(func() { forwarded = true; through.ServeHTTP(answer, r) })
		if !forwarded {
			panic(http.ErrAbortHandler)
		}
		for k, v := range answer.Header() {
			w.Header()[k] = v
		}
		w.WriteHeader(answer.Code)
		_, _ = w.Write(answer.Body.Bytes())
	}))
	t.Cleanup(func() { p.CloseClientConnections(); p.Close() })
	return p
}

// onSwitch sets what happens to the transactions that change the epoch.
func (p *proxy) onSwitch(do func(forward func())) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hook = do
}

// throughProxy has the worker reach Consul through a proxy. It is there once the lab is up.
func throughProxy(t *testing.T, into **proxy) func(*setup.Options) {
	return edited(func(b *runbooks.Runbook) {
		if *into == nil {
			*into = proxyTo(t, b.Discovery[0].Consul.Address)
		}
		b.Discovery[0].Consul.Address = (*into).URL
	})
}
