package linkservice

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"switchback/lab/kafka"
)

// runner does the work of one link half: it watches the other side, and where this half pulls it copies and syncs.
type runner struct {
	s      *Service
	l      *link
	ctx    context.Context
	cancel context.CancelFunc
	wake   chan struct{} // transitions have something to do
	data   chan struct{} // the engine has something to do

	// producing is held over each write to the target, and over the moment in which a mirror stops.
	producing sync.Mutex
	next      map[tp]int64 // the engine's: offset to copy next; missing: to be read from the target
	leaders   leaders      // the engine's

	connMu sync.Mutex
	client *kgo.Client
	login  string // what client was made from

	// Guarded by Service.mu.
	failures int
	linkErr  string // "" is well
	linkMsg  string
	sinceMs  int64              // when linkErr last changed
	tasks    map[string][]fault // errors of the last cycle of each task
}

// tp is a partition of a mirror topic.
type tp struct {
	topic     string
	partition int32
}

// startRunner is called with s.mu held.
func (s *Service) startRunner(l *link) {
	ctx, cancel := context.WithCancel(s.ctx)
	r := &runner{s: s, l: l, ctx: ctx, cancel: cancel, wake: make(chan struct{}, 1), data: make(chan struct{}, 1), tasks: map[string][]fault{}, sinceMs: time.Now().UnixMilli()}
	s.runners[l] = r
	s.every(ctx, r.interval("availability.check.ms"), r.check)
	if !l.pulls() {
		return
	}
	s.work.Go(r.copyLoop)
	s.work.Go(r.transitionLoop)
	s.every(ctx, r.interval("consumer.offset.sync.ms"), r.syncOffsets)
	s.every(ctx, r.interval("acl.sync.ms"), r.syncACLs)
	s.every(ctx, r.interval("topic.config.sync.ms"), r.syncTopicConfigs)
	s.every(ctx, func() time.Duration { return millis(s.cfg.Timings.AutoCreateMillis) }, r.watchTopics)
}

// pulls says whether mirrors can live on this half.
func (l *link) pulls() bool { return l.Configs["link.mode"] != "SOURCE" }

func (r *runner) interval(config string) func() time.Duration {
	return func() time.Duration {
		n, err := strconv.Atoi(r.config(config))
		if err != nil || n < 1 {
			n = 1000
		}
		return millis(n)
	}
}

// config reads a link config, or its default.
func (r *runner) config(name string) string {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	return r.s.effective(r.l, name)
}

func (r *runner) poke() {
	for _, ch := range []chan struct{}{r.wake, r.data} {
		select {
		case ch <- struct{}{}:
		default:
		}
	}
}

func (r *runner) target() *cluster { return r.s.clusters[r.l.Cluster] }

// task keeps the errors of a task's cycle; none is a cycle that went well.
func (r *runner) task(name string, errs ...fault) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.tasks[name] = errs
}

// check is one availability check.
func (r *runner) check(ctx context.Context) {
	err := r.reach(ctx)
	if ctx.Err() != nil {
		return
	}
	if err == nil {
		r.healthy()
		return
	}
	threshold, _ := strconv.Atoi(r.config("availability.check.consecutive.failure.threshold"))
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.failures++
	kind := classify(err)
	if r.failures >= threshold && r.linkErr != kind {
		r.linkErr, r.linkMsg, r.sinceMs = kind, err.Error(), time.Now().UnixMilli()
	}
}

// healthy notes that the other side has answered.
func (r *runner) healthy() {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	r.failures = 0
	if r.linkErr != "" {
		r.linkErr, r.linkMsg, r.sinceMs = "", "", time.Now().UnixMilli()
	}
}

// reach logs in to the other side and compares its cluster id.
func (r *runner) reach(ctx context.Context) error {
	if _, err := r.remote(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, millis(r.s.cfg.Timings.RequestMillis))
	defer cancel()
	req := kmsg.NewPtrMetadataRequest() // not through kadm, which may answer from memory
	req.Topics = []kmsg.MetadataRequestTopic{}
	resp, err := req.RequestWith(ctx, r.requester())
	if err != nil {
		return err
	}
	if resp.ClusterID == nil || *resp.ClusterID != r.l.Remote {
		return fmt.Errorf("the remote cluster is not %s as expected", r.l.Remote)
	}
	return nil
}

// remote is a client of the other side; it is made anew when the link's connection configs have changed.
func (r *runner) remote() (*kadm.Client, error) {
	r.s.mu.Lock()
	bootstrap, user, err := r.s.credentials(r.l)
	r.s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	login := fmt.Sprintf("%s %s %t %s %s", bootstrap, user.mechanism, user.encrypted, user.Name, string(user.Password))
	r.connMu.Lock()
	defer r.connMu.Unlock()
	if r.client == nil || r.login != login {
		if r.client != nil {
			r.client.Close()
		}
		if r.client, err = r.s.dial(bootstrap, user); err != nil {
			return nil, err
		}
		r.login = login
	}
	return kadm.NewClient(r.client), nil
}

// requester is the raw client behind remote.
func (r *runner) requester() *kgo.Client {
	r.connMu.Lock()
	defer r.connMu.Unlock()
	return r.client
}

func (r *runner) disconnect() {
	r.connMu.Lock()
	defer r.connMu.Unlock()
	if r.client != nil {
		r.client.Close() // and kept: who still uses it gets an error
	}
}

// fresh keeps kadm from answering a metadata request from memory, which it does unless authorized operations are asked for.
func fresh(ctx context.Context) context.Context { return kadm.WithAuthorizedOps(ctx) }

// login is a user with the SASL mechanism that it comes with, and whether over TLS.
type login struct {
	User
	mechanism string
	encrypted bool
}

var (
	jaasUser     = regexp.MustCompile(`username=["']([^"']*)["']`)
	jaasPassword = regexp.MustCompile(`password=["']([^"']*)["']`)
)

// credentials says where and as whom a half reads from the other side; s.mu is held.
func (s *Service) credentials(l *link) ([]string, login, error) {
	end := s.clusters[l.Remote]
	bootstrap, user := end.Bootstrap, login{end.Link, "SCRAM-SHA-512", s.cfg.CAFile != ""}
	configs, prefix := l.Configs, ""
	if configs["connection.mode"] == "INBOUND" {
		other := s.other(l)
		if other == nil {
			return nil, user, errors.New("the other half of the link has not connected yet")
		}
		configs, prefix = other.Configs, "local."
	} else if b := configs["bootstrap.servers"]; b != "" {
		bootstrap = strings.Split(b, ",")
	}
	if protocol := configs[prefix+"security.protocol"]; protocol != "" {
		user.encrypted = strings.HasSuffix(protocol, "SSL")
	}
	if jaas := configs[prefix+"sasl.jaas.config"]; jaas != "" {
		name, password := jaasUser.FindStringSubmatch(jaas), jaasPassword.FindStringSubmatch(jaas)
		if name == nil || password == nil {
			return nil, user, fmt.Errorf("%ssasl.jaas.config names no username and password", prefix)
		}
		user.Name, user.Password = name[1], kafka.Password(password[1])
		if m := configs[prefix+"sasl.mechanism"]; m != "" {
			user.mechanism = m
		}
	}
	return bootstrap, user, nil
}

func (s *Service) connect(bootstrap []string, u User) (*kgo.Client, error) {
	return s.dial(bootstrap, login{u, "SCRAM-SHA-512", s.cfg.CAFile != ""})
}

// dial makes a client; it does not connect yet. Versions stay where topics are named, not numbered.
func (s *Service) dial(bootstrap []string, u login) (*kgo.Client, error) {
	var mechanism sasl.Mechanism
	auth := scram.Auth{User: u.Name, Pass: string(u.Password)}
	switch u.mechanism {
	case "SCRAM-SHA-512":
		mechanism = auth.AsSha512Mechanism()
	case "SCRAM-SHA-256":
		mechanism = auth.AsSha256Mechanism()
	case "PLAIN":
		mechanism = plain.Auth{User: u.Name, Pass: string(u.Password)}.AsMechanism()
	default:
		return nil, fmt.Errorf("sasl.mechanism %q is not one of SCRAM-SHA-512, SCRAM-SHA-256, PLAIN", u.mechanism)
	}
	wait := millis(s.cfg.Timings.RequestMillis)
	options := []kgo.Opt{
		kgo.SeedBrokers(bootstrap...), kgo.SASL(mechanism), kgo.ClientID("cluster-link"), kgo.MaxVersions(kversion.V3_0_0()),
		kgo.RequestRetries(1), kgo.RetryTimeout(wait), kgo.RequestTimeoutOverhead(wait), kgo.MetadataMinAge(10 * time.Millisecond),
		kgo.RetryBackoffFn(func(int) time.Duration { return 50 * time.Millisecond }),
		kgo.DialTimeout(wait),
	}
	if u.encrypted {
		options = append(options, kgo.DialTLSConfig(s.tls))
	}
	return kgo.NewClient(options...)
}

// classify names a connection error as link_error does. A fake broker ends the connection when a login is wrong (EOF).
func classify(err error) string {
	var dns *net.DNSError
	var op *net.OpError
	switch text := err.Error(); {
	case errors.Is(err, kerr.SaslAuthenticationFailed), errors.Is(err, io.EOF), strings.Contains(strings.ToLower(text), "sasl"):
		return "AUTHENTICATION_ERROR"
	case errors.As(err, &dns):
		return "UNRESOLVABLE_BOOTSTRAP_ERROR"
	case errors.As(err, &op) && op.Op == "dial":
		return "BOOTSTRAP_TCP_CONNECTION_FAILED_ERROR"
	case errors.Is(err, context.DeadlineExceeded):
		return "TIMEOUT_ERROR"
	}
	return "UNKNOWN"
}
