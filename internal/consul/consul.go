// Package consul reads and writes the keys under which clients find their cluster: one discovery entry of a runbook.
//
// Start reading at State, which is what an entry holds, then Switch, SetDesired and Register, which are all that
// changes it. Every write is one transaction that is checked against what was read, so that nothing here can undo what
// somebody else did in between. Errors are those of package fault; no value of a secret passes through.
package consul

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/hashicorp/consul/api"
	"github.com/hashicorp/go-cleanhttp"

	"switchback/internal/fault"
	"switchback/internal/secret"
)

// Config says where an entry is. Prefix is that of the runbook's keys, such as kafka/orders.
type Config struct {
	Address    string
	Token      secret.Value
	Prefix     string
	Datacenter string
	TLS        TLS
}

// TLS holds names of PEM files. Empty means the system's roots and no client certificate.
type TLS struct {
	CAFile   string
	CertFile string
	KeyFile  string
}

// Discovery is one entry. It may be used by several goroutines; Close gives its connections back.
type Discovery struct {
	client    *api.Client
	transport *http.Transport
	address   string
	prefix    string
}

// Open prepares an entry and sends nothing. fault.ErrInvalid when the configuration cannot work.
func Open(cfg Config) (*Discovery, error) {
	prefix := strings.Trim(cfg.Prefix, "/")
	if cfg.Address == "" || prefix == "" {
		return nil, fmt.Errorf("open Consul: address and prefix are both needed: %w", fault.ErrInvalid)
	}
	transport := cleanhttp.DefaultPooledTransport()
	tls := api.TLSConfig{CAFile: cfg.TLS.CAFile, CertFile: cfg.TLS.CertFile, KeyFile: cfg.TLS.KeyFile}
	web, err := api.NewHttpClient(transport, tls)
	if err != nil {
		return nil, fmt.Errorf("open Consul at %s: %w: %w", cfg.Address, fault.ErrInvalid, err)
	}
	web.Transport = statuses{web.Transport}
	client, err := api.NewClient(&api.Config{
		Address: cfg.Address, Token: cfg.Token.Reveal(), Datacenter: cfg.Datacenter, HttpClient: web,
	})
	if err != nil {
		return nil, fmt.Errorf("open Consul at %s: %w: %w", cfg.Address, fault.ErrInvalid, err)
	}
	return &Discovery{client: client, transport: transport, address: cfg.Address, prefix: prefix}, nil
}

// Address is where the entry is, for messages.
func (d *Discovery) Address() string { return d.address }

// Prefix is that of the entry's keys, without slashes at its ends.
func (d *Discovery) Prefix() string { return d.prefix }

// Close closes idle connections.
func (d *Discovery) Close() { d.transport.CloseIdleConnections() }

func (d *Discovery) key(relative string) string { return d.prefix + "/" + relative }

func (d *Discovery) doing(what string) string {
	return fmt.Sprintf("%s %s in Consul at %s", what, d.prefix, d.address)
}
