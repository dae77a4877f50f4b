package clusterlinking

import (
	"bytes"
	"context"
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

	"switchback/internal/secret"
)

const (
	// maxAnswer bounds an answer after decompression. A list of 1,000 mirrors with 100 partitions each is near 10 MiB.
	maxAnswer = 64 << 20
	// requestTimeout bounds one attempt, its body included, so that a server that trickles cannot hold a caller.
	requestTimeout = 30 * time.Second
	// retryAfterMax bounds the wait that a server may ask for.
	retryAfterMax = time.Minute
	retryMax      = 4
)

// Client speaks the Cluster Linking part of REST v3 with one cluster. It repeats reads and never a write: what became
// of a write whose answer is missing is for the caller to find out (fault.ErrUnclear). Safe for concurrent use.
type Client struct {
	base    string // scheme, host, prefix and cluster
	login   secret.Login
	http    *http.Client
	reads   *retryablehttp.Client
	limit   int64
	secrets []string
}

func newClient(cfg Config) (*Client, error) {
	u, err := url.Parse(cfg.REST)
	switch {
	case err != nil: // err repeats the text, which may hold a password
		return nil, invalid("the REST address is no URL", "write it as https://host:port")
	case u.User != nil:
		return nil, invalid("the REST address holds credentials", "put them into Vault and name them under credentials:")
	case u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.RawQuery != "" || u.Fragment != "":
		return nil, invalid(fmt.Sprintf("the REST address %q is no plain http or https address", cfg.REST), "write it as https://host:port")
	case badSegment(cfg.ClusterID):
		return nil, invalid("the cluster id is missing", "set cluster: to lkc-… or to the id that kafka-cluster prints")
	}
	prefix := cfg.PathPrefix
	if prefix == "" {
		prefix = "/kafka/v3"
	}
	c := &Client{
		base:  strings.TrimRight(u.Scheme+"://"+u.Host+u.EscapedPath(), "/") + "/" + strings.Trim(prefix, "/") + "/clusters/" + url.PathEscape(cfg.ClusterID),
		login: cfg.Login, limit: maxAnswer,
	}
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
	c.http = &hc
	c.reads = &retryablehttp.Client{
		HTTPClient: &hc, RetryMax: retryMax, RetryWaitMin: 200 * time.Millisecond, RetryWaitMax: 3 * time.Second,
		CheckRetry: func(ctx context.Context, r *http.Response, err error) (bool, error) {
			if errors.Is(err, errTooLarge) {
				return false, err // it will be as large again
			}
			return retryablehttp.DefaultRetryPolicy(ctx, r, err)
		},
		Backoff: func(low, high time.Duration, n int, r *http.Response) time.Duration {
			return min(retryablehttp.DefaultBackoff(low, high, n, r), retryAfterMax)
		},
		ErrorHandler: retryablehttp.PassthroughErrorHandler,
	}
	return c, nil
}

// get reads path into out, repeating what a read may repeat.
func (c *Client) get(ctx context.Context, path string, query url.Values, out any) error {
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
	resp, err := c.reads.Do(rr)
	if err == nil && !read { // the last of several 429 or 5xx
		body, err = c.read(resp)
	}
	if err != nil {
		if resp != nil {
			_ = resp.Body.Close()
		}
		return transportError(ctx, reads, true, c.strip(err))
	}
	return c.answer(reads, resp, body, out, nil)
}

// send makes one request that may change something, once. With eff reads (validate_only) nothing can have changed.
func (c *Client) send(ctx context.Context, eff effect, method, path string, query url.Values, in, out any, secrets ...string) error {
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	var payload []byte
	if in != nil {
		var err error
		if payload, err = json.Marshal(in); err != nil {
			return err
		}
	}
	req, err := c.request(ctx, method, path, query, payload)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req) //nolint:bodyclose // read closes it
	if err != nil {
		return transportError(ctx, eff, connected.Load(), c.strip(err))
	}
	body, err := c.read(resp)
	if err != nil && (resp.StatusCode >= 300 || out != nil) {
		return transportError(ctx, eff, true, c.strip(err))
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
	if r.ContentLength > c.limit {
		return nil, fmt.Errorf("%w: %d bytes, of %d at most", errTooLarge, r.ContentLength, c.limit)
	}
	body, err := io.ReadAll(io.LimitReader(r.Body, c.limit+1))
	if err != nil {
		return nil, fmt.Errorf("read the answer: %w", err)
	}
	if int64(len(body)) > c.limit {
		return nil, fmt.Errorf("%w: more than %d bytes", errTooLarge, c.limit)
	}
	return body, nil
}

func (c *Client) answer(eff effect, r *http.Response, body []byte, out any, secrets []string) error {
	if r.StatusCode < 200 || r.StatusCode > 299 {
		var e struct {
			Code    number `json:"error_code"`
			Message text   `json:"message"`
		}
		message := string(body)
		if json.Unmarshal(body, &e) == nil {
			message = string(e.Message)
		}
		if message = plain(message, append(secrets, c.secrets...)); message == "" {
			message = http.StatusText(r.StatusCode)
		}
		return answerError(eff, r.StatusCode, int(e.Code.or(0)), message)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(body, out); err != nil {
		return transportError(context.Background(), eff, true, fmt.Errorf("%w: %w", errMalformed, err))
	}
	return nil
}

// strip takes the address out of an error of net/http: the query of a request is nobody's business in a report.
func (c *Client) strip(err error) error {
	var ue *url.Error
	if errors.As(err, &ue) {
		return fmt.Errorf("%s: %w", strings.ToUpper(ue.Op), ue.Err)
	}
	return err
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }
