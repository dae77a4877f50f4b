package mirrormaker

import (
	"fmt"
	"net/http"
	"strings"

	"switchback/internal/fault"
	"switchback/internal/rest"
)

// notConnect is what to do where something answers that is no Kafka Connect. MirrorMaker 2 in dedicated mode has no REST
// interface to be driven by, or one between its own nodes alone.
const notConnect = "connect: must name workers of Kafka Connect; MirrorMaker 2 in dedicated mode (connect-mirror-maker.sh) has no such interface: run its connectors on a Connect cluster"

// sentinel translates a status outside 2xx. A write that Connect failed on with 5xx may have been acted upon: it answers
// 500 `Request timed out` when its leader is slow, and goes on.
func sentinel(eff rest.Effect, status, code int, message string) (hint string, kind error) {
	said := strings.ToLower(message)
	switch {
	case status == http.StatusUnauthorized:
		return "check the user and password of Connect's REST interface in Vault, credentials: of the link", fault.ErrUnauthenticated
	case status == http.StatusForbidden:
		return "the user of Connect's REST interface may not do this", fault.ErrDenied
	case status == http.StatusNotFound && strings.Contains(said, "connector"):
		return "check the name of the connector in the runbook, and that this is the Connect cluster on the target's side", fault.ErrNotFound
	case status == http.StatusNotFound && code == 0: // not Connect's own words: a worker that starts knows none of its addresses yet
		return "what answers is no Kafka Connect, or one that is starting; " + notConnect, fault.ErrUnreachable
	case status == http.StatusNotFound, status == http.StatusMethodNotAllowed:
		return "Kafka Connect 3.6 or newer is needed, and " + notConnect, fault.ErrNotFound
	case status == http.StatusConflict && strings.Contains(said, "already exists"):
		return "read the connector and decide by it", fault.ErrConflict
	case status == http.StatusConflict: // a rebalance, or a worker behind its leader: refused before anything was done
		return "the Connect workers are rebalancing; it passes in seconds", fault.ErrUnreachable
	case status == http.StatusTooManyRequests: // a proxy in front of Connect
		return "something in front of Connect limits the rate of requests", fault.ErrUnreachable
	case status == http.StatusBadRequest && strings.Contains(said, "must be in the stopped state"):
		return "stop the connector and wait until it has no tasks", fault.ErrNotReady
	case status == http.StatusRequestTimeout, status >= 500, status < 200:
		if eff == rest.Writing {
			return "the request may have been acted upon; read the state before asking again", fault.ErrUnclear
		}
		return "Connect is failing; look at its workers' logs", fault.ErrUnreachable
	case status >= 300 && status < 400:
		return "the endpoint redirects, which is not followed with credentials; name the final address under connect:", fault.ErrInvalid
	}
	return "Connect refuses this request and will refuse it again", fault.ErrInvalid
}

func invalid(what, hint string) error {
	return fault.Hint(fmt.Errorf("%w: %s", fault.ErrInvalid, what), "%s", hint)
}
