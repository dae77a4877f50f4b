package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"time"

	"switchback/activities"
	"switchback/internal/consul"
	"switchback/internal/fault"
	"switchback/internal/secret"
	"switchback/internal/vault"
	"switchback/replication"
	"switchback/replication/clusterlinking"
	"switchback/replication/kafka"
	"switchback/runbooks"
)

// systems opens what activities ask for, with credentials looked up in Vault at that moment. Connections to clusters and
// discovery entries are kept and shared: a login takes tens of milliseconds, and the switch window is short.
type systems struct {
	vault *vault.Vault
	log   *slog.Logger

	mu       sync.Mutex
	clusters map[string]*opened[*kafka.Cluster]
	entries  map[string]*opened[*consul.Discovery]
}

// opened is a kept connection. It is replaced after keepFor, so that rotated credentials are picked up.
type opened[T interface{ Close() }] struct {
	conn      T
	principal string
	since     time.Time
	users     int
	stale     bool
}

const keepFor = 10 * time.Minute

func newSystems(v *vault.Vault, log *slog.Logger) *systems {
	return &systems{vault: v, log: log, clusters: map[string]*opened[*kafka.Cluster]{}, entries: map[string]*opened[*consul.Discovery]{}}
}

func (s *systems) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.clusters {
		c.conn.Close()
	}
	for _, e := range s.entries {
		e.conn.Close()
	}
}

// kept returns the connection under key, made when there is none or when it is old.
func kept[T interface{ Close() }](s *systems, in map[string]*opened[T], key string, open func() (T, string, error)) (*opened[T], error) {
	s.mu.Lock()
	if have := in[key]; have != nil && time.Since(have.since) < keepFor {
		have.users++
		s.mu.Unlock()
		return have, nil
	}
	s.mu.Unlock()
	conn, principal, err := open()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if old := in[key]; old != nil {
		if old.stale = true; old.users == 0 {
			old.conn.Close()
		}
	}
	in[key] = &opened[T]{conn: conn, principal: principal, since: time.Now(), users: 1}
	return in[key], nil
}

func release[T interface{ Close() }](s *systems, o *opened[T]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if o.users--; o.users == 0 && o.stale {
		o.conn.Close()
	}
}

// clusters opens Kafka clusters for activities.
type clusters struct{ *systems }

func (c clusters) Open(ctx context.Context, site activities.Site) (activities.Kafka, error) {
	o, err := kept(c.systems, c.clusters, site.Name+" "+strings.Join(site.Cluster.Bootstrap, ",")+" "+site.Cluster.Credentials.Vault,
		func() (*kafka.Cluster, string, error) { return c.connect(ctx, site, site.Cluster.Credentials.Vault) })
	if err != nil {
		return nil, err
	}
	return &cluster{Cluster: o.conn, principal: o.principal, done: sync.OnceFunc(func() { release(c.systems, o) })}, nil
}

// OpenAs is never kept: it is there to prove that the credentials work now.
func (c clusters) OpenAs(ctx context.Context, site activities.Site, vaultPath string) (activities.Kafka, error) {
	conn, principal, err := c.connect(ctx, site, vaultPath)
	if err != nil {
		return nil, err
	}
	return &cluster{Cluster: conn, principal: principal, done: conn.Close}, nil
}

func (c clusters) connect(ctx context.Context, site activities.Site, vaultPath string) (*kafka.Cluster, string, error) {
	var login secret.Login
	if strings.HasPrefix(site.Cluster.Security.Protocol, "SASL") {
		var err error
		if login, err = c.vault.Login(ctx, runbooks.SecretRef{Vault: vaultPath}); err != nil {
			return nil, "", err
		}
	}
	conn, err := kafka.Open(kafka.Config{Name: site.Name, Bootstrap: site.Cluster.Bootstrap, Security: site.Cluster.Security, Login: login, ClientID: "switchback", Logger: c.log})
	return conn, "User:" + login.Username, err
}

// cluster is a Kafka cluster as activities see it.
type cluster struct {
	*kafka.Cluster
	principal string
	done      func()
}

func (c *cluster) Close()                                  { c.done() }
func (c *cluster) Principal() string                       { return c.principal }
func (c *cluster) Records(topic string) activities.Records { return c.Cluster.Records(topic) }

// links opens replication backends for activities.
type links struct{ *systems }

func (l links) Open(ctx context.Context, r activities.Route, from, to activities.Kafka) (replication.Link, error) {
	cl := r.Link.ClusterLinking
	if cl == nil {
		return nil, fault.Hint(fmt.Errorf("the link from %s to %s has no backend that this version knows: %w", r.From.Name, r.To.Name, fault.ErrInvalid), "MirrorMaker 2 is not supported yet; use clusterLinking")
	}
	login, err := l.vault.Login(ctx, cl.Credentials)
	if err != nil {
		return nil, err
	}
	config := clusterlinking.Config{REST: cl.REST, PathPrefix: cl.PathPrefix, ClusterID: cl.Cluster, Link: cl.Link, Login: login, Source: from, Target: to, Logger: l.log}
	if cl.CA != "" {
		if config.TLS, err = tlsWith(cl.CA); err != nil {
			return nil, err
		}
	}
	return clusterlinking.New(config)
}

func tlsWith(ca string) (*tls.Config, error) {
	pem, err := os.ReadFile(ca)
	if err != nil {
		return nil, fmt.Errorf("read the authorities: %w: %w", err, fault.ErrInvalid)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no PEM certificate: %w", ca, fault.ErrInvalid)
	}
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}, nil
}

// consuls opens discovery entries for activities.
type consuls struct{ *systems }

func (c consuls) Open(ctx context.Context, e runbooks.Discovery) (activities.Entry, error) {
	d, err := c.discovery(ctx, e)
	if err != nil {
		return nil, err
	}
	return entry{d}, nil
}

// discovery is kept until the worker ends: Consul's tokens are renewed in place, and its connections heal themselves.
func (c consuls) discovery(ctx context.Context, e runbooks.Discovery) (*consul.Discovery, error) {
	o, err := kept(c.systems, c.entries, e.Consul.Address+" "+e.Consul.Prefix+" "+e.Consul.Token.Vault, func() (*consul.Discovery, string, error) {
		var token secret.Value
		if e.Consul.Token.Vault != "" {
			var err error
			if token, err = c.vault.Token(ctx, e.Consul.Token); err != nil {
				return nil, "", err
			}
		}
		d, err := consul.Open(consul.Config{Address: e.Consul.Address, Token: token, Prefix: e.Consul.Prefix, Datacenter: e.Consul.Datacenter, TLS: consul.TLS{CAFile: e.Consul.CA}})
		return d, "", err
	})
	if err != nil {
		return nil, err
	}
	release(c.systems, o)
	return o.conn, nil
}

// entry translates between a discovery entry's words and those of activities.
type entry struct{ d *consul.Discovery }

func (e entry) Read(ctx context.Context) (activities.EntryState, error) {
	s, err := e.d.Read(ctx)
	if err != nil {
		return activities.EntryState{}, err
	}
	out := activities.EntryState{
		Cluster: s.Cluster, BootstrapServers: s.Bootstrap, SecurityProtocol: s.SecurityProtocol, SASLMechanism: s.SASLMechanism,
		Credentials: s.Credentials, TopicPrefix: s.TopicPrefix, Epoch: s.Epoch, SwitchedBy: s.SwitchedBy, Clients: map[string]activities.ClientEntry{},
	}
	for name, c := range s.Clients {
		client := activities.ClientEntry{Desired: c.Desired}
		for key := range c.Overrides {
			client.Overrides = append(client.Overrides, key)
		}
		for id, i := range c.Instances {
			client.Instances = append(client.Instances, activities.Instance{ID: id, State: i.State, Epoch: i.Epoch, Cluster: i.Cluster, Since: i.Since, Host: i.Host, Killed: i.Killed})
		}
		out.Clients[name] = client
	}
	return out, nil
}

func (e entry) Switch(ctx context.Context, expect int64, to activities.EntryState) (bool, error) {
	result, err := e.d.Switch(ctx, consul.SwitchInput{Expect: expect, Epoch: to.Epoch, By: to.SwitchedBy, Values: consul.Values{
		Cluster: to.Cluster, Bootstrap: to.BootstrapServers, SecurityProtocol: to.SecurityProtocol,
		SASLMechanism: to.SASLMechanism, Credentials: to.Credentials, TopicPrefix: to.TopicPrefix,
	}})
	return result.Changed, err
}

func (e entry) SetDesired(ctx context.Context, epoch int64, desired map[string]string) (bool, error) {
	return e.d.SetDesired(ctx, epoch, desired)
}
