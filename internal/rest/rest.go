// Package rest carries requests to HTTP services that replicate between clusters, and keeps their answers at arm's
// length: bounded in size and time, never followed elsewhere, stripped of credentials and markup before anybody reads
// them. Start at Client: Get repeats, Send never does. errors.go says what a missing answer may have done.
package rest

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-retryablehttp"

	"switchback/internal/fault"
	"switchback/internal/secret"
)

const (
	// MaxAnswer bounds an answer after decompression. A list of 1,000 mirrors with 100 partitions each is near 10 MiB.
	MaxAnswer = 64 << 20
	// requestTimeout bounds one attempt, its body included, so that a server that trickles cannot hold a caller.
	requestTimeout = 30 * time.Second
	// retryAfterMax bounds the wait that a server may ask for.
	retryAfterMax = time.Minute
	// RetryMax is how often Get repeats.
	RetryMax = 4
)

// Config says where a service is and how its refusals are to be read.
type Config struct {
	Base  string // scheme, host, port and what stands before the path of every request
	Login secret.Login
	TLS   *tls.Config
	HTTP  *http.Client // optional; its transport is used instead of one made from TLS
	// Kind translates a status outside 2xx into a sentinel of package fault and a hint for the operator. code and
	// message are the service's own, 0 and "" when it sent none.
	Kind func(eff Effect, status, code int, message string) (hint string, kind error)
	// Should is the hint for an answer that no such service gives.
	Should string
	// Connecting bounds how long Send waits for a connection; 0 leaves it to the transport. Short where there is another
	// address to try.
	Connecting time.Duration
}

// Client speaks with one endpoint. Safe for concurrent use; Limit, HTTP and Reads may be changed before the first use.
type Client struct {
	Limit int64                 // bytes of an answer
	HTTP  *http.Client          // carries everything
	Reads *retryablehttp.Client // repeats what Get asks

	base    string
	login   secret.Login
	kind    func(eff Effect, status, code int, message string) (string, error)
	should  string
	secrets []string
	connect time.Duration
}

// Address checks the address of a service, which stands under the key of a runbook, and returns it without a slash at
// its end. fault.ErrInvalid says what is wrong, and never repeats an address that may hold a password.
func Address(key, address string) (string, error) {
	u, err := url.Parse(address)
	switch {
	case err != nil:
		return "", fault.Hint(fmt.Errorf("%w: the address under %s is no URL", fault.ErrInvalid, key), "write it as https://host:port")
	case u.User != nil:
		return "", fault.Hint(fmt.Errorf("%w: the address under %s holds credentials", fault.ErrInvalid, key), "put them into Vault and name them under credentials:")
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.Fragment != "":
		return "", fault.Hint(fmt.Errorf("%w: the address %q under %s is no plain http or https address", fault.ErrInvalid, address, key), "write it as https://host:port")
	}
	return strings.TrimRight(u.Scheme+"://"+u.Host+u.EscapedPath(), "/"), nil
}

// New makes a Client; nothing is asked of the service yet.
func New(cfg Config) *Client {
	c := &Client{Limit: MaxAnswer, base: cfg.Base, login: cfg.Login, kind: cfg.Kind, should: cfg.Should, connect: cfg.Connecting}
	if p := cfg.Login.Password.Reveal(); p != "" {
		c.secrets = []string{p, url.QueryEscape(p), base64.StdEncoding.EncodeToString([]byte(cfg.Login.Username + ":" + p))}
	}
	hc := http.Client{}
	if cfg.HTTP != nil {
		hc = *cfg.HTTP
	} else {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.TLSClientConfig, t.MaxResponseHeaderBytes = cfg.TLS.Clone(), 1<<20
		hc.Transport = t
	}
	if hc.Timeout == 0 {
		hc.Timeout = requestTimeout
	}
	// Credentials are for this endpoint alone, and a redirected POST would turn into a GET.
	hc.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	c.HTTP = &hc
	c.Reads = &retryablehttp.Client{
		HTTPClient: &hc, RetryMax: RetryMax, RetryWaitMin: 200 * time.Millisecond, RetryWaitMax: 3 * time.Second,
		CheckRetry: func(ctx context.Context, r *http.Response, err error) (bool, error) {
			if errors.Is(err, ErrTooLarge) {
				return false, err // it will be as large again
			}
			return retryablehttp.DefaultRetryPolicy(ctx, r, err)
		},
		Backoff: func(low, high time.Duration, n int, r *http.Response) time.Duration {
			return min(retryablehttp.DefaultBackoff(low, high, n, r), retryAfterMax)
		},
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
	}
	return c
}

// Get reads path into out, repeating what a read may repeat.
func (c *Client) Get(ctx context.Context, path string, query url.Values, out any) error {
	req, err := c.request(ctx, http.MethodGet, path, query, nil)
	if err != nil {
		return err
	}
	rr, err := retryablehttp.FromRequest(req)
	if err != nil {
		return err
	}
	var body []byte
	read := false
	rr.SetResponseHandler(func(r *http.Response) (err error) {
		body, err = c.read(r)
		read = true
		return err
	})
	resp, err := c.Reads.Do(rr)
	if err == nil && !read { // the last of several 429 or 5xx
		body, err = c.read(resp)
	}
	if err != nil {
		if resp != nil {
			_ = resp.Body.Close()
		}
		return c.transport(ctx, Reading, true, err)
	}
	return c.answer(Reading, resp, body, out, nil)
}

// Send makes one request, once. With eff Writing it may change something, so that a missing answer is
// fault.ErrUnclear; with Reading nothing can have changed. secrets are taken out of what the service says.
func (c *Client) Send(ctx context.Context, eff Effect, method, path string, query url.Values, in, out any, secrets ...string) error {
	var connected atomic.Bool
	asked, cancel := context.WithCancel(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }}))
	defer cancel()
	var payload []byte
	if in != nil {
		var err error
		if payload, err = json.Marshal(in); err != nil {
			return err
		}
	}
	req, err := c.request(asked, method, path, query, payload)
	if err != nil {
		return err
	}
	if c.connect > 0 {
		defer time.AfterFunc(c.connect, func() {
			if !connected.Load() {
				cancel()
			}
		}).Stop()
	}
	resp, err := c.HTTP.Do(req) //nolint:bodyclose // read closes it
	if err != nil && asked.Err() != nil && ctx.Err() == nil {
		err = fmt.Errorf("no connection within %s", c.connect)
	}
	if err != nil {
		return c.transport(ctx, eff, connected.Load(), err)
	}
	body, err := c.read(resp)
	if err != nil && (resp.StatusCode >= 300 || out != nil) {
		return c.transport(ctx, eff, true, err)
	}
	return c.answer(eff, resp, body, out, secrets)
}

func (c *Client) request(ctx context.Context, method, path string, query url.Values, payload []byte) (*http.Request, error) {
	u := c.base + path
	if len(query) > 0 {
		u += "?" + query.Encode()
	}
	var body io.Reader
	if payload != nil {
		body = bytes.NewReader(payload)
	}
	req, err := http.NewRequestWithContext(ctx, method, u, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "application/json")
	req.Header.Set("User-Agent", "switchback")
	if payload != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.login.Username != "" || !c.login.Password.IsZero() {
		req.SetBasicAuth(c.login.Username, c.login.Password.Reveal())
	}
	return req, nil
}

func (c *Client) read(r *http.Response) ([]byte, error) {
	defer func() { _ = r.Body.Close() }()
	if r.ContentLength > c.Limit {
		return nil, fmt.Errorf("%w: %d bytes, of %d at most", ErrTooLarge, r.ContentLength, c.Limit)
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, c.Limit+1))
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if int64(len(body)) > c.Limit {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, c.Limit)
	}
	return body, nil
}

func (c *Client) answer(eff Effect, r *http.Response, body []byte, out any, secrets []string) error {
	if r.StatusCode < 200 || r.StatusCode > 299 {
		return c.refusal(eff, r.StatusCode, body, secrets)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return c.transport(context.Background(), eff, true, fmt.Errorf("%w: %w", ErrMalformed, err))
	}
	return nil
}

// Plain makes a message of the service fit for an error: one line, short, without markup and without credentials.
func (c *Client) Plain(message string) string { return Plain(message, c.secrets) }

// Close closes idle connections.
func (c *Client) Close() { c.HTTP.CloseIdleConnections() }
