package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"unicode"

	"switchback/internal/fault"
)

// Error is an answer of a service that is no success. It unwraps to one of package fault's sentinels.
type Error struct {
	Status  int    // HTTP status
	Code    int    // the service's own error_code, 0 when the body had none
	Message string // the service's own words, shortened, without credentials
	Kind    error  // the sentinel
}

func (e *Error) Error() string {
	return fmt.Sprintf("%v: HTTP %d, code %d: %s", e.Kind, e.Status, e.Code, e.Message)
}

// Unwrap returns the sentinel.
func (e *Error) Unwrap() error { return e.Kind }

// AsError finds the service's own answer in an error.
func AsError(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e)
	return e, ok
}

// What is wrong with an answer of 2xx, or of any status that is too large. Neither is a sentinel of package fault: it is
// the wrong endpoint, or a broken one.
var (
	ErrTooLarge  = errors.New("the answer is larger than this client reads")
	ErrMalformed = errors.New("the answer cannot be understood")
)

// Effect says what a request can have done when its answer is missing.
type Effect bool

// A request that reads can have done nothing, whatever happened; one that writes may have been acted upon.
const (
	Reading Effect = false
	Writing Effect = true
)

// refusal is the error of a status outside 2xx, in the service's own words where it has some.
func (c *Client) refusal(eff Effect, status int, body []byte, secrets []string) error {
	var e struct {
		Code    any `json:"error_code"`
		Message any `json:"message"`
	}
	message, code := string(body), 0
	if json.Unmarshal(body, &e) == nil {
		message, code = words(e.Message), number(e.Code)
	}
	if message = Plain(message, append(secrets, c.secrets...)); message == "" {
		message = http.StatusText(status)
	}
	hint, kind := c.kind(eff, status, code, message)
	return fault.Hint(&Error{Status: status, Code: code, Message: message, Kind: kind}, "%s", hint)
}

func words(v any) string {
	switch v := v.(type) {
	case nil:
		return ""
	case string:
		return v
	}
	return fmt.Sprint(v)
}

func number(v any) int {
	f, ok := v.(float64)
	if !ok || f != float64(int32(f)) {
		return 0
	}
	return int(f)
}

// transport translates a request that got no answer, or none that can be read. sent says that a connection stood, so
// that the service may have seen the request.
func (c *Client) transport(ctx context.Context, eff Effect, sent bool, err error) error {
	var ue *url.Error
	if errors.As(err, &ue) { // the query of a request is nobody's business in a report
		err = fmt.Errorf("%s: %w", strings.ToUpper(ue.Op), ue.Err)
	}
	if ctxErr := ctx.Err(); ctxErr != nil && !errors.Is(err, ctxErr) {
		err = fmt.Errorf("%w: %w", ctxErr, err)
	}
	if sent && eff == Writing {
		return fault.Hint(fmt.Errorf("%w: %w", fault.ErrUnclear, err), "the request may have been acted upon; read the state before asking again")
	}
	if errors.Is(err, ErrTooLarge) || errors.Is(err, ErrMalformed) {
		return fault.Hint(err, "%s", c.should)
	}
	return fault.Hint(fmt.Errorf("%w: %w", fault.ErrUnreachable, err), "check the address, the network and the certificate authority of the REST endpoint")
}

var (
	tags     = regexp.MustCompile(`(?s)<(style|script)[^>]*>.*?</(style|script)>|<[^>]*>`)
	password = regexp.MustCompile(`(?i)((?:password|secret|token)\\*["']?\s*[=:]\s*)(\\*"[^"]*"?|\\*'[^']*'?|[^\s,;}]+)`)
)

// Plain makes a message of a service fit for an error: one line, short, without markup, without the secrets given and
// without what looks like one.
func Plain(message string, secrets []string) string {
	if len(message) > 16<<10 {
		message = message[:16<<10]
	}
	for _, s := range secrets {
		if s != "" {
			message = strings.ReplaceAll(message, s, "***")
		}
	}
	message = password.ReplaceAllString(message, "$1***")
	message = tags.ReplaceAllString(message, " ")
	message = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return ' '
		}
		return r
	}, message)
	message = strings.Join(strings.Fields(message), " ")
	if r := []rune(message); len(r) > 300 {
		message = string(r[:300]) + "…"
	}
	return message
}
