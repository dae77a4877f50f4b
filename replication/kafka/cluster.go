// Package kafka is Switchback's own view of a Kafka cluster, over franz-go: ends of logs, writers, groups and their
// offsets, access control, canaries, and the compacted topics in which records of runs are kept.
//
// It reads and does one thing at a time and decides nothing: judgement is in package replication, order in workflows.
// Start reading at Open; then one file for each concept: ends.go, writers.go, acls.go, groups.go, grants.go, records.go
// (reading and writing records), store.go. Errors are those of package fault (errors.go); an operation on many things
// that failed for some returns what it has and a *replication.Partial that names the others.
//
// Client applications' records are never consumed with a group here, and nothing is retried past its context.
package kafka

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"switchback/internal/fault"
	"switchback/internal/secret"
	"switchback/replication"
	"switchback/runbooks"
)

// Bounds of one request. An operator waits for the answer, and a step's budget is a few seconds: a cluster that is
// gone must be told apart from a slow one well inside of it.
const (
	dialTimeout    = 2 * time.Second
	requestTimeout = 5 * time.Second // beyond what the request itself lets the broker take
	retryTimeout   = 6 * time.Second
	requestRetries = 4
	maxBackoff     = 400 * time.Millisecond

	hedgeAfter = 300 * time.Millisecond // what any broker can answer is asked of another one after it
	hedges     = 3                      // of them at once, so that two may be silent
)

// Config says how to reach a cluster, and as whom.
type Config struct {
	Name      string // as the runbook calls it; errors begin with it
	Bootstrap []string
	Security  runbooks.Security
	Login     secret.Login // ignored unless the protocol is SASL_*
	TLS       *tls.Config  // nil means the system's authorities, or Security.CA
	ClientID  string       // "switchback" by default
	Logger    *slog.Logger // nil is silence
}

// Cluster is an open cluster, safe for concurrent use. Close it.
type Cluster struct {
	name   string
	opts   []kgo.Opt
	client *kgo.Client
	logins *loginWatch

	mu       sync.Mutex
	producer *kgo.Client // made when first needed, dropped after an error
	records  map[string]*remembered
}

// Open checks the configuration and makes a client. It does not connect: the first request does. fault.ErrInvalid says
// what is wrong with the configuration.
func Open(cfg Config) (*Cluster, error) {
	watch := &loginWatch{}
	if cfg.ClientID == "" {
		cfg.ClientID = "switchback"
	}
	if len(cfg.Bootstrap) == 0 {
		return nil, fmt.Errorf("open cluster %s: %w: no bootstrap servers", cfg.Name, fault.ErrInvalid)
	}
	// Later versions of these name topics by their ids, which a topic made anew under the same name does not share.
	versions := kversion.Stable()
	versions.SetMaxKeyVersion(kmsg.Fetch.Int16(), 12)
	versions.SetMaxKeyVersion(kmsg.OffsetCommit.Int16(), 9)
	versions.SetMaxKeyVersion(kmsg.OffsetFetch.Int16(), 9)
	// Later versions of this one refuse a group that does not exist, instead of saying what may be done with it.
	versions.SetMaxKeyVersion(kmsg.DescribeGroups.Int16(), 5)

	opts := []kgo.Opt{
		kgo.SeedBrokers(cfg.Bootstrap...),
		kgo.ClientID(cfg.ClientID),
		kgo.MaxVersions(versions),
		kgo.DialTimeout(dialTimeout),
		kgo.RequestTimeoutOverhead(requestTimeout),
		kgo.RetryTimeout(retryTimeout),
		kgo.RequestRetries(requestRetries),
		kgo.RetryBackoffFn(backoff),
		kgo.DisableClientMetrics(), // or closing would wait a second for a last report to the brokers
		kgo.WithHooks(watch),
	}
	if cfg.Logger != nil {
		opts = append(opts, kgo.WithLogger(logger{cfg.Logger.With("cluster", cfg.Name)}))
	}
	encrypted, login, err := protocol(cfg.Security.Protocol)
	if err != nil {
		return nil, fmt.Errorf("open cluster %s: %w", cfg.Name, err)
	}
	if encrypted {
		conf, err := tlsConfig(cfg)
		if err != nil {
			return nil, fmt.Errorf("open cluster %s: %w", cfg.Name, err)
		}
		opts = append(opts, kgo.DialTLSConfig(conf))
	}
	if login {
		mechanism, err := mechanism(cfg.Security.Mechanism, cfg.Login)
		if err != nil {
			return nil, fmt.Errorf("open cluster %s: %w", cfg.Name, err)
		}
		opts = append(opts, kgo.SASL(mechanism))
	}
	client, err := kgo.NewClient(opts...)
	if err != nil {
		return nil, fmt.Errorf("open cluster %s: %w: %w", cfg.Name, fault.ErrInvalid, err)
	}
	return &Cluster{name: cfg.Name, opts: opts, client: client, logins: watch}, nil
}

// Close ends every connection. Requests under way fail.
func (c *Cluster) Close() {
	c.client.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.producer != nil {
		c.producer.Close()
		c.producer = nil
	}
}

// LoginLost is true once an operation has failed because the login was refused: the password has changed since Open, and
// only a new Cluster with the new one will do.
func (c *Cluster) LoginLost() bool { return c.logins.lost.Load() }

// Identity asks which cluster answers, and with which brokers.
func (c *Cluster) Identity(ctx context.Context) (replication.Identity, error) {
	resp, err := c.metadata(ctx, []string{})
	if err != nil {
		return replication.Identity{}, err
	}
	id := replication.Identity{Controller: resp.ControllerID}
	if resp.ClusterID != nil {
		id.ClusterID = *resp.ClusterID
	}
	for _, b := range resp.Brokers {
		id.Brokers = append(id.Brokers, replication.Broker{ID: b.NodeID, Host: b.Host, Port: b.Port})
	}
	slices.SortFunc(id.Brokers, func(a, b replication.Broker) int { return int(a.ID) - int(b.ID) })
	return id, nil
}

// metadata asks for topics by name; nil is every topic, an empty slice none. It is never answered from a cache and never
// makes a topic.
func (c *Cluster) metadata(ctx context.Context, topics []string) (*kmsg.MetadataResponse, error) {
	req := kmsg.NewPtrMetadataRequest()
	if topics != nil {
		req.Topics = []kmsg.MetadataRequestTopic{}
	}
	for _, t := range topics {
		rt := kmsg.NewMetadataRequestTopic()
		rt.Topic = kmsg.StringPtr(t)
		req.Topics = append(req.Topics, rt)
	}
	resp, err := req.RequestWith(ctx, c.ask())
	if err != nil {
		return nil, c.fail("read metadata", err, reading)
	}
	return resp, nil
}

// ask sends a request to whichever broker is right for it.
func (c *Cluster) ask() kmsg.Requestor { return prompt{c.client} }

// prompt gives up when the context ends. franz-go's own client goes on while a connection is being set up, and a broker
// that accepts connections and is silent would hold the caller for the whole time-out. What every broker can answer is asked of the
// next one when the first takes long.
type prompt struct{ cl *kgo.Client }

func (p prompt) Request(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	brokers, same := 1, func() kmsg.Request { return req }
	switch r := req.(type) {
	case *kmsg.MetadataRequest:
		brokers, same = hedges, func() kmsg.Request { c := *r; return &c }
	case *kmsg.DescribeACLsRequest:
		brokers, same = hedges, func() kmsg.Request { c := *r; return &c }
	}
	return promptly(ctx, brokers, func(ctx context.Context) (kmsg.Response, error) { return p.cl.Request(ctx, same()) })
}

// sharded asks every broker that holds a part of the answer; what is missing is an error in its shard.
func (c *Cluster) sharded(ctx context.Context, req kmsg.Request) []kgo.ResponseShard {
	shards, err := promptly(ctx, 1, func(ctx context.Context) ([]kgo.ResponseShard, error) { return c.client.RequestSharded(ctx, req), nil })
	if err != nil {
		return []kgo.ResponseShard{{Meta: kgo.BrokerMetadata{NodeID: -1}, Req: req, Err: err}}
	}
	return shards
}

// promptly does something once, and up to so many times at once while there is no answer. The first answer that is no error counts;
// franz-go asks another broker each time.
func promptly[T any](ctx context.Context, most int, do func(context.Context) (T, error)) (T, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, most)
	asked, failed := 0, 0
	ask := func() {
		asked++
		go func() {
			v, err := do(ctx)
			answers <- answer{v, err}
		}()
	}
	again := time.NewTicker(hedgeAfter)
	defer again.Stop()
	for ask(); ; {
		select {
		case a := <-answers:
			if failed++; a.err == nil || failed == asked {
				return a.value, a.err
			}
		case <-again.C:
			if asked < most {
				ask()
			}
		case <-ctx.Done():
			var none T
			return none, ctx.Err()
		}
	}
}

// on sends requests to one broker and no other.
func (c *Cluster) on(broker int32) kmsg.Requestor { return oneBroker{c.client.Broker(int(broker))} }

type oneBroker struct{ b *kgo.Broker }

func (o oneBroker) Request(ctx context.Context, req kmsg.Request) (kmsg.Response, error) {
	return o.b.RetriableRequest(ctx, req)
}

func backoff(tries int) time.Duration {
	return min(maxBackoff, 25*time.Millisecond<<min(tries, 10))
}

// pause waits before another attempt; false when the context ends first.
func pause(ctx context.Context, tries int) bool {
	t := time.NewTimer(backoff(tries))
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

func protocol(p string) (encrypted, login bool, err error) {
	switch p {
	case "SASL_SSL":
		return true, true, nil
	case "SASL_PLAINTEXT":
		return false, true, nil
	case "SSL":
		return true, false, nil
	case "PLAINTEXT", "":
		return false, false, nil
	}
	return false, false, fmt.Errorf("%w: security protocol %q is none of SASL_SSL, SASL_PLAINTEXT, SSL, PLAINTEXT", fault.ErrInvalid, p)
}

func mechanism(name string, login secret.Login) (sasl.Mechanism, error) {
	if login.Username == "" || login.Password.IsZero() {
		return nil, fmt.Errorf("%w: no user name or password to log in with", fault.ErrUnauthenticated)
	}
	auth := scram.Auth{User: login.Username, Pass: login.Password.Reveal()}
	switch name {
	case "SCRAM-SHA-512":
		return auth.AsSha512Mechanism(), nil
	case "SCRAM-SHA-256":
		return auth.AsSha256Mechanism(), nil
	case "PLAIN":
		return plain.Auth{User: login.Username, Pass: login.Password.Reveal()}.AsMechanism(), nil
	}
	return nil, fmt.Errorf("%w: SASL mechanism %q is none of SCRAM-SHA-512, SCRAM-SHA-256, PLAIN", fault.ErrInvalid, name)
}

func tlsConfig(cfg Config) (*tls.Config, error) {
	conf := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.TLS != nil {
		conf = cfg.TLS.Clone()
	}
	if cfg.Security.CA == "" {
		return conf, nil
	}
	pem, err := os.ReadFile(cfg.Security.CA)
	if err != nil {
		return nil, fault.Hint(fmt.Errorf("%w: read the authority's certificate: %w", fault.ErrInvalid, err), "security.ca must be a file on the worker")
	}
	conf.RootCAs = x509.NewCertPool()
	if !conf.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%w: %s holds no PEM certificate", fault.ErrInvalid, cfg.Security.CA)
	}
	return conf, nil
}

// loginWatch remembers whether the last login ended in the broker hanging up: some brokers do that instead of saying
// that the password is wrong, and what is left of it is a bare EOF.
type loginWatch struct {
	refused atomic.Bool
	lost    atomic.Bool // an operation failed because of a login
}

// note remembers that an operation failed because of a login.
func (w *loginWatch) note(err error) {
	if errors.Is(err, fault.ErrUnauthenticated) {
		w.lost.Store(true)
	}
}

// OnBrokerConnect forgets the login once nobody answers at all: that is another trouble.
func (w *loginWatch) OnBrokerConnect(_ kgo.BrokerMetadata, _ time.Duration, _ net.Conn, err error) {
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "dial" {
		w.refused.Store(false)
	}
}

func (w *loginWatch) OnBrokerRead(_ kgo.BrokerMetadata, key int16, _ int, _, _ time.Duration, err error) {
	if key == kmsg.SASLAuthenticate.Int16() {
		w.refused.Store(errors.Is(err, io.EOF))
	}
}

// logger hands franz-go's lines to slog. Its lines hold no credentials.
type logger struct{ *slog.Logger }

func (l logger) Level() kgo.LogLevel {
	switch {
	case l.Enabled(context.Background(), slog.LevelDebug):
		return kgo.LogLevelDebug
	case l.Enabled(context.Background(), slog.LevelInfo):
		return kgo.LogLevelInfo
	}
	return kgo.LogLevelWarn
}

func (l logger) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	to := map[kgo.LogLevel]slog.Level{kgo.LogLevelError: slog.LevelError, kgo.LogLevelWarn: slog.LevelWarn,
		kgo.LogLevelInfo: slog.LevelInfo, kgo.LogLevelDebug: slog.LevelDebug}[level]
	l.Logger.Log(context.Background(), to, msg, keyvals...)
}
