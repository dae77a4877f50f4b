package clusterlinking

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"unicode"

	"switchback/internal/fault"
)

// Error is an answer of the service that is no success. It unwraps to one of package fault's sentinels.
type Error struct {
	Status  int    // HTTP status
	Code    int    // the service's own error_code, 0 when the body had none
	Message string // the service's own words, shortened, without credentials
	kind    error
}

func (e *Error) Error() string {
	return fmt.Sprintf("%v: HTTP %d, code %d: %s", e.kind, e.Status, e.Code, e.Message)
}

// Unwrap returns the sentinel.
func (e *Error) Unwrap() error { return e.kind }

var (
	errTooLarge  = errors.New("the answer is larger than this client reads")
	errMalformed = errors.New("the answer cannot be understood")
)

// effect says what a request can have done when its answer is missing.
type effect bool

const (
	reads  effect = false // nothing, whatever happened: GET, and validate_only
	writes effect = true
)

// answerError translates a status outside 2xx. A write that the service failed on with 5xx may have been acted upon.
func answerError(eff effect, status, code int, message string) error {
	hint, kind := sentinel(eff, status, code, message)
	return fault.Hint(&Error{Status: status, Code: code, Message: message, kind: kind}, "%s", hint)
}

func sentinel(eff effect, status, code int, message string) (hint string, kind error) {
	switch {
	case status == http.StatusUnauthorized || code == 40101:
		return "check the link's API key and secret", fault.ErrUnauthenticated
	case status == http.StatusForbidden || code/100 == 403:
		return deniedHint(eff), fault.ErrDenied
	case status == http.StatusNotFound || code/100 == 404:
		return "check the cluster id and the link's name, and that this is the cluster that hosts the link", fault.ErrNotFound
	case status == http.StatusTooManyRequests:
		// The filter that answers 429 stands in front of the service, so the request was not acted upon.
		return "the service limits the rate of requests; try again later", fault.ErrUnreachable
	case status == http.StatusConflict, alreadyExists(message) && status < 500:
		return "read the state and decide by it", fault.ErrConflict
	case status == http.StatusRequestTimeout, status >= 500, status < 200:
		if eff == writes {
			return "the request may have been acted upon; read the state before asking again", fault.ErrUnclear
		}
		return "the service is failing; look at its logs", fault.ErrUnreachable
	case status >= 300 && status < 400:
		return "the endpoint redirects, which is not followed with credentials; set rest: to the final address", fault.ErrInvalid
	case code == 40035:
		return "the cluster's version is too old for this request", fault.ErrInvalid
	}
	return "the service refuses this request and will refuse it again", fault.ErrInvalid
}

func deniedHint(eff effect) string {
	if eff == writes {
		return "Switchback's principal needs ALTER on CLUSTER of the target (CloudClusterAdmin on Confluent Cloud)"
	}
	return "Switchback's principal needs DESCRIBE on CLUSTER of the target"
}

func alreadyExists(message string) bool {
	return strings.Contains(strings.ToLower(message), "already exists")
}

// transportError translates a request that got no answer. sent says that a connection stood, so that the service may
// have seen the request.
func transportError(ctx context.Context, eff effect, sent bool, err error) error {
	if ctxErr := ctx.Err(); ctxErr != nil && !errors.Is(err, ctxErr) {
		err = fmt.Errorf("%w: %w", ctxErr, err)
	}
	if sent && eff == writes {
		return fault.Hint(fmt.Errorf("%w: %w", fault.ErrUnclear, err), "the request may have been acted upon; read the state before asking again")
	}
	if errors.Is(err, errTooLarge) || errors.Is(err, errMalformed) {
		return fault.Hint(err, "check that rest: is a Kafka REST v3 endpoint with Cluster Linking")
	}
	return fault.Hint(fmt.Errorf("%w: %w", fault.ErrUnreachable, err), "check the address, the network and the certificate authority of the REST endpoint")
}

var (
	tags     = regexp.MustCompile(`(?s)<(style|script)[^>]*>.*?</(style|script)>|<[^>]*>`)
	password = regexp.MustCompile(`(?i)((?:password|secret|token)\\*["']?\s*[=:]\s*)(\\*"[^"]*"?|\\*'[^']*'?|[^\s,;}]+)`)
)

// plain makes a message of the service fit for an error: one line, short, without markup and without credentials.
func plain(message string, secrets []string) string {
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

func asError(err error) (*Error, bool) {
	var e *Error
	ok := errors.As(err, &e)
	return e, ok
}
