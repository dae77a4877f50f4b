package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/activities"
	"switchback/internal/consul"
	"switchback/internal/dial"
	"switchback/internal/fault"
	"switchback/internal/secret"
	"switchback/replication"
	"switchback/replication/clusterlinking"
	"switchback/replication/kafka"
	"switchback/replication/mirrormaker"
	"switchback/runbooks"
)

// systems opens what activities ask for, with credentials looked up in Vault at that moment. Connections to clusters and
// discovery entries are kept and shared.
type systems struct {
	vault    *vaults
	log      *slog.Logger
	clusters *kept[*kafka.Cluster]
	entries  *kept[*consul.Discovery]

	mu  sync.Mutex
	web map[dial.Files]*http.Client // for REST: connections outlive the links that are opened for one activity
}

func newSystems(v *vaults, log *slog.Logger) *systems {
	return &systems{
		vault: v, log: log, web: map[dial.Files]*http.Client{},
		clusters: newKept(time.Now, (*kafka.Cluster).LoginLost),
		entries:  newKept[*consul.Discovery](time.Now, nil),
	}
}

// close is for the end, when no activity runs any more; what still uses a connection may finish.
func (s *systems) close() {
	s.clusters.close()
	s.entries.close()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.web {
		c.CloseIdleConnections()
	}
}

// clusters opens Kafka clusters for activities.
type clusters struct{ *systems }

func (c clusters) Open(ctx context.Context, site activities.Site) (activities.Kafka, error) {
	key := fmt.Sprintf("%s %+v", site.Name, site.Cluster) // references to secrets, no secrets
	o, err := c.clusters.take(key, func() (*kafka.Cluster, string, error) { return c.connect(ctx, site, site.Cluster.Credentials.Vault) })
	if err != nil {
		return nil, err
	}
	return &cluster{Cluster: o.conn, principal: o.principal, done: sync.OnceFunc(func() { c.clusters.giveBack(o) })}, nil
}

// OpenAs is never kept: it is there to prove that the credentials work now.
func (c clusters) OpenAs(ctx context.Context, site activities.Site, vaultPath string) (activities.Kafka, error) {
	conn, principal, err := c.connect(ctx, site, vaultPath)
	if err != nil {
		return nil, err
	}
	return &cluster{Cluster: conn, principal: principal, done: sync.OnceFunc(conn.Close)}, nil
}

// SuperUser asks with a connection of its own on either side, like OpenAs.
func (c clusters) SuperUser(ctx context.Context, site activities.Site, vaultPath string, mayMake bool) (string, bool, error) {
	mine, _, err := c.connect(ctx, site, site.Cluster.Credentials.Vault)
	if err != nil {
		return "", false, err
	}
	defer mine.Close()
	theirs, principal, err := c.connect(ctx, site, vaultPath)
	if err != nil {
		return "", false, err
	}
	defer theirs.Close()
	if mayMake {
		if err := mine.EnsureProbe(ctx, principal); err != nil {
			return principal, false, err
		}
	}
	super, err := mine.SuperUser(ctx, theirs, principal)
	return principal, super, err
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

func (l links) Open(ctx context.Context, r activities.Route, from, to activities.Kafka) (link replication.Link, err error) {
	switch {
	case r.Link.ClusterLinking != nil:
		link, err = l.clusterLinking(ctx, *r.Link.ClusterLinking, from, to)
	case r.Link.MirrorMaker != nil:
		link, err = l.mirrorMaker(ctx, *r.Link.MirrorMaker, from, to)
	default:
		err = fault.Hint(fmt.Errorf("it has no backend: %w", fault.ErrInvalid), "add clusterLinking or mirrormaker to the runbook")
	}
	if err != nil {
		return nil, fmt.Errorf("open the link from %s to %s: %w", r.From.Name, r.To.Name, err)
	}
	return link, nil
}

func (l links) clusterLinking(ctx context.Context, cl runbooks.ClusterLinking, from, to activities.Kafka) (replication.Link, error) {
	login, err := l.vault.Login(ctx, cl.Credentials)
	if err != nil {
		return nil, err
	}
	web, err := l.rest(dial.Files{CA: cl.CA})
	if err != nil {
		return nil, err
	}
	return clusterlinking.New(clusterlinking.Config{
		REST: cl.REST, PathPrefix: cl.PathPrefix, ClusterID: cl.Cluster, Link: cl.Link, Login: login, HTTP: web, Source: from, Target: to, Logger: l.log,
	})
}

func (l links) mirrorMaker(ctx context.Context, mm runbooks.MirrorMaker, from, to activities.Kafka) (replication.Link, error) {
	target, ok := to.(*cluster)
	if !ok {
		return nil, fmt.Errorf("records cannot be compared through a %T: %w", to, fault.ErrInvalid)
	}
	source := logsOf(from)
	var login secret.Login
	if mm.Credentials.Vault != "" {
		var err error
		if login, err = l.vault.Login(ctx, mm.Credentials); err != nil {
			return nil, err
		}
	}
	web, err := l.rest(dial.Files{CA: mm.CA, Cert: mm.Cert, Key: mm.Key})
	if err != nil {
		return nil, err
	}
	return mirrormaker.New(mirrormaker.Config{
		Workers: mirrormaker.Workers{Connect: mm.Connect, Login: login, HTTP: web},
		Source:  mm.Source, Checkpoint: mm.Checkpoint, Heartbeat: mm.Heartbeat,
		Names: mirrormaker.Names{Source: mm.Alias["source"], Target: mm.Alias["target"], Policy: mm.Policy},
		Data:  mm.Principals.Data, Admin: mm.Principals.Admin, From: from, To: target, Logger: l.log,
		Compare: func(names mirrormaker.Names, committed bool) mirrormaker.Records {
			c := mirrormaker.Comparer{From: source, To: target.Cluster, Names: names, Committed: committed}
			// What was copied from the target has its original there, and is left out on the way back (P26). While nobody can say
			// which cluster that is, such records are looked for, and not found: never equal by mistake.
			if there, err := target.Identity(ctx); err == nil {
				c.Dropped = kafka.CopiedFrom(there.ClusterID)
			}
			return c
		},
	})
}

// logsOf are the logs of a source. Of one that could not even be opened there are none, and whoever asks for them is told why.
func logsOf(from activities.Kafka) mirrormaker.Logs {
	if c, ok := from.(*cluster); ok {
		return c.Cluster
	}
	return unopened{from}
}

// unopened is a source without a connection: its credentials went with its region.
type unopened struct{ activities.Kafka }

func (u unopened) ReadRanges(ctx context.Context, _ []replication.Range, _ bool, _ func(int, *kgo.Record) error) error {
	_, err := u.Identity(ctx)
	return err
}

// rest is the HTTP client for services whose certificate that authority signed, with a client certificate where there is
// one; without an authority it is the system's.
func (s *systems) rest(files dial.Files) (*http.Client, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.web[files]; c != nil {
		return c, nil
	}
	config, err := dial.TLS(files)
	if err != nil {
		return nil, err
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig, transport.MaxResponseHeaderBytes = config, 1<<20
	s.web[files] = &http.Client{Transport: transport}
	return s.web[files], nil
}

// consuls opens discovery entries for activities.
type consuls struct{ *systems }

func (c consuls) Open(ctx context.Context, e runbooks.Discovery) (activities.Entry, error) {
	d, noted, err := c.discovery(ctx, e)
	if err != nil {
		return nil, err
	}
	return entry{d, noted}, nil
}

// discovery is an entry and what its users tell of their errors: after a token that Consul no longer knows the next one
// logs in anew. It is given back at once, because closing it only gives idle connections back: who holds one goes on.
func (c consuls) discovery(ctx context.Context, e runbooks.Discovery) (*consul.Discovery, func(error) error, error) {
	key := fmt.Sprintf("%+v", e.Consul) // references to secrets, no secrets
	o, err := c.entries.take(key, func() (*consul.Discovery, string, error) {
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
		return nil, nil, err
	}
	c.entries.giveBack(o)
	return o.conn, func(err error) error { c.entries.forget(o, key, err); return err }, nil
}

// entry translates between a discovery entry's words and those of activities.
type entry struct {
	d     *consul.Discovery
	noted func(error) error
}

func (e entry) Read(ctx context.Context) (activities.EntryState, error) {
	s, err := e.d.Read(ctx)
	if err != nil {
		return activities.EntryState{}, e.noted(err)
	}
	out := activities.EntryState{
		Cluster: s.Cluster, BootstrapServers: s.Bootstrap, SecurityProtocol: s.SecurityProtocol, SASLMechanism: s.SASLMechanism,
		Credentials: s.Credentials, TopicPrefix: s.TopicPrefix, Epoch: s.Epoch, SwitchedBy: s.SwitchedBy, Clients: map[string]activities.ClientEntry{},
	}
	for name, c := range s.Clients {
		client := activities.ClientEntry{Desired: c.Desired, Overrides: c.Overrides}
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
	return result.Changed, e.noted(err)
}

func (e entry) SetDesired(ctx context.Context, epoch int64, desired map[string]string) (bool, error) {
	changed, err := e.d.SetDesired(ctx, epoch, desired)
	return changed, e.noted(err)
}

func (e entry) Withdraw(ctx context.Context, epoch int64) (bool, error) {
	changed, err := e.d.Withdraw(ctx, epoch)
	return changed, e.noted(err)
}
