package clusterlinking

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"switchback/internal/fault"
	"switchback/internal/rest"
)

// Client speaks the Cluster Linking part of REST v3 with one cluster. It repeats reads and never a write: what became
// of a write whose answer is missing is for the caller to find out (fault.ErrUnclear). Safe for concurrent use.
type Client struct {
	rest    *rest.Client
	cluster string // id in the URL
}

func newClient(cfg Config) (*Client, error) {
	base, err := rest.Address("rest", cfg.REST)
	switch {
	case err != nil:
		return nil, err
	case badSegment(cfg.ClusterID):
		return nil, invalid("the cluster id is missing", "set cluster: to lkc-… or to the id that kafka-cluster prints")
	}
	prefix := cfg.PathPrefix
	if prefix == "" {
		prefix = "/kafka/v3"
	}
	return &Client{cluster: cfg.ClusterID, rest: rest.New(rest.Config{
		Base:  base + "/" + strings.Trim(prefix, "/") + "/clusters/" + url.PathEscape(cfg.ClusterID),
		Login: cfg.Login, TLS: cfg.TLS, HTTP: cfg.HTTP, Kind: sentinel,
		Should: "check that rest: is a Kafka REST v3 endpoint with Cluster Linking",
	})}, nil
}

func (c *Client) get(ctx context.Context, path string, query url.Values, out any) error {
	return c.rest.Get(ctx, path, query, out)
}

func (c *Client) send(ctx context.Context, eff rest.Effect, method, path string, query url.Values, in, out any, secrets ...string) error {
	return c.rest.Send(ctx, eff, method, path, query, in, out, secrets...)
}

// Close closes idle connections.
func (c *Client) Close() { c.rest.Close() }

// sentinel translates a status outside 2xx. A write that the service failed on with 5xx may have been acted upon.
func sentinel(eff rest.Effect, status, code int, message string) (hint string, kind error) {
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
		if eff == rest.Writing {
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

func deniedHint(eff rest.Effect) string {
	if eff == rest.Writing {
		return "Switchback's principal needs ALTER on CLUSTER of the target (CloudClusterAdmin on Confluent Cloud)"
	}
	return "Switchback's principal needs DESCRIBE on CLUSTER of the target"
}

func alreadyExists(message string) bool {
	return strings.Contains(strings.ToLower(message), "already exists")
}
