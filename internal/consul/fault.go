package consul

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"

	"github.com/hashicorp/consul/api"

	"switchback/internal/fault"
)

// statuses turns answers that no call of the library can use into api.StatusError. Some of its calls drop the status
// code (transactions, sessions), and without it "denied" cannot be told from "down".
type statuses struct{ next http.RoundTripper }

func (t statuses) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(r)
	if err != nil || resp.StatusCode < 400 || resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusConflict {
		return resp, err
	}
	defer func() { _ = resp.Body.Close() }()
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 1024)) // only for the message
	return nil, api.StatusError{Code: resp.StatusCode, Body: strings.TrimSpace(string(body))}
}

// effect says whether a request could have changed something: without an answer a write is unclear, a read is not.
type effect bool

const (
	reads  effect = false
	writes effect = true
)

// translate puts an error of the library into the words of package fault.
func translate(doing string, e effect, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) {
		return fmt.Errorf("%s: %w", doing, err)
	}
	hint, sentinel := judge(e, err)
	err = fmt.Errorf("%s: %w: %w", doing, sentinel, err)
	if hint != "" {
		return fault.Hint(err, "%s", hint)
	}
	return err
}

func judge(e effect, err error) (hint string, kind error) {
	var status api.StatusError
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var op *net.OpError
	switch {
	case errors.As(err, &status):
		return judgeStatus(e, status)
	case errors.As(err, &certificate):
		return "check the CA file (consul.ca of the runbook's discovery entry, --consul-ca of supervisor) and the host name of the Consul address", fault.ErrUnreachable
	case errors.As(err, &record):
		return "check whether the Consul address wants http or https", fault.ErrUnreachable
	case errors.As(err, &op) && op.Op == "dial":
		return "", fault.ErrUnreachable
	case e == writes:
		return "", fault.ErrUnclear
	}
	return "", fault.ErrUnreachable
}

func judgeStatus(e effect, s api.StatusError) (hint string, kind error) {
	switch {
	case s.Code == http.StatusUnauthorized, s.Code == http.StatusForbidden && strings.Contains(s.Body, "ACL not found"):
		return "Consul does not know the token; check the token's file or Vault path", fault.ErrUnauthenticated
	case s.Code == http.StatusForbidden:
		return "the token needs key_prefix write on the prefix, and session write", fault.ErrDenied
	case s.Code == http.StatusTooManyRequests:
		return "", fault.ErrUnreachable
	case s.Code < 500:
		return "", fault.ErrInvalid
	case e == writes:
		return "", fault.ErrUnclear
	}
	return "", fault.ErrUnreachable
}

// conflict is a transaction that was rolled back, with the keys that were not as expected.
type conflict struct {
	keys  []string // relative to the prefix
	whats []string
}

func (c *conflict) Error() string {
	return fmt.Sprintf("%s changed since the keys were read (%s)", strings.Join(c.keys, ", "), strings.Join(c.whats, "; "))
}

func (c *conflict) Unwrap() error { return fault.ErrConflict }

func (c *conflict) names(key string) bool {
	for _, k := range c.keys {
		if k == key {
			return true
		}
	}
	return false
}

func (c *conflict) says(words string) bool {
	for _, w := range c.whats {
		if strings.Contains(w, words) {
			return true
		}
	}
	return false
}
