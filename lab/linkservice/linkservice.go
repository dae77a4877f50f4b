// Package linkservice is the lab's double of Confluent Cluster Linking: the REST v3 API of links and mirrors in front of
// a mirror engine that copies record batches between the lab's clusters and keeps their offsets. It is meant to be as hard
// to live with as the product: asynchronous, partial, and as wrong as a test asks it to be.
//
// Start reading at Config and Serve. Then:
//
//	state.go        links and mirrors as they are stored
//	api.go          the door: routes, login, errors; links.go, configs.go, mirrors.go, alter.go answer
//	runner.go       one per link half that pulls: its connection, its health, its loops
//	engine.go       reads from the source; produce.go writes to the target, batch.go rewrites;
//	transitions.go  moves mirrors from state to state
//	reverse.go      reverse-and-start, reverse-and-pause, truncate-and-restore
//	offsets.go, acls.go, topics.go   the syncs
//	faults.go       misbehaviour, switched on through /lab/faults
//
// What the double cannot do: sources with transactions, compaction or gaps make a mirror FAILED, because a broker
// cannot be given a gap; truncation recreates the topic. In front of real brokers a mirror is kept from clients by nothing
// but ACLs: offsets are kept because the engine alone writes there, in order, and a mirror into which somebody else has
// written becomes FAILED.
package linkservice

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/internal/dial"
	"switchback/lab/kafka"
)

// Config says what to serve. It is plain JSON; a file that holds it must be mode 0600, because of the passwords.
type Config struct {
	Addr     string            `json:"addr"` // host:port of the API, one for all clusters
	Dir      string            `json:"dir"`  // state lives here; made when missing
	Clusters []ClusterEndpoint `json:"clusters"`
	Users    []User            `json:"users"` // HTTP basic logins of the API
	Timings  Timings           `json:"timings"`
	// PEM files: the service trusts CAFile and goes to the clusters over TLS; with the other two it serves TLS.
	CAFile   string `json:"caFile,omitempty"`
	CertFile string `json:"certFile,omitempty"`
	KeyFile  string `json:"keyFile,omitempty"`
}

// User is one login of the API.
type User struct {
	Name     string         `json:"name"`
	Password kafka.Password `json:"password"`
}

// ClusterEndpoint is one cluster of the lab.
type ClusterEndpoint struct {
	Name       string   `json:"name"`
	ID         string   `json:"id"` // the id in URLs and the one that its brokers answer
	Bootstrap  []string `json:"bootstrap"`
	ControlURL string   `json:"controlUrl"` // control endpoint of package kafka; empty for real brokers, which do not refuse clients' writes to mirrors
	// Admin is the login with which the cluster's own side of a link writes: the lab's super user.
	Admin User `json:"admin"`
	// Link is the principal with which links read from this cluster when a link's configs bring no sasl.jaas.config. It
	// needs READ, DESCRIBE and DESCRIBE_CONFIGS on topics, READ and DESCRIBE on groups, DESCRIBE on the cluster.
	Link User `json:"link"`
}

// Timings are those of the double; zero means the default in brackets.
type Timings struct {
	PendingMillis       int `json:"pendingMillis"`       // least time in PENDING_STOPPED and the other pending states [0]
	SyncInFlightMillis  int `json:"syncInFlightMillis"`  // between a sync cycle's reads and its writes [0]
	MinSyncMillis       int `json:"minSyncMillis"`       // the least consumer.offset.sync.ms that is accepted [1000]
	AutoCreateMillis    int `json:"autoCreateMillis"`    // auto-create of mirrors and check of topics [1000]
	AvailabilityMillis  int `json:"availabilityMillis"`  // default of availability.check.ms [60000]
	AvailabilityChecks  int `json:"availabilityChecks"`  // default of availability.check.consecutive.failure.threshold [5]
	RequestMillis       int `json:"requestMillis"`       // longest wait for a broker's answer [3000]
	EngineRestMillis    int `json:"engineRestMillis"`    // rest between two copies; fewer, larger requests [4]
	StateIntervalMillis int `json:"stateIntervalMillis"` // how often positions are stored, and read-only topics checked [500]
}

func (t Timings) withDefaults() Timings {
	def := func(v *int, d int) {
		if *v == 0 {
			*v = d
		}
	}
	def(&t.MinSyncMillis, 1000)
	def(&t.AutoCreateMillis, 1000)
	def(&t.AvailabilityMillis, 60_000)
	def(&t.AvailabilityChecks, 5)
	def(&t.RequestMillis, 3000)
	def(&t.EngineRestMillis, 4)
	def(&t.StateIntervalMillis, 500)
	return t
}

func millis(n int) time.Duration { return time.Duration(n) * time.Millisecond }

// Service is the running double.
type Service struct {
	URL string // http(s)://host:port

	cfg      Config
	log      *slog.Logger
	clusters map[string]*cluster // by id
	tls      *tls.Config         // for clusters that speak it
	http     *http.Server
	served   chan error
	ctx      context.Context
	stop     context.CancelFunc
	work     sync.WaitGroup

	mu      sync.Mutex // guards state, runners and what hangs on them
	state   state
	dirty   bool
	runners map[*link]*runner
	faults  faults
}

// cluster is one side, with the service's own connection to it.
type cluster struct {
	ClusterEndpoint
	client *kgo.Client
	away   bool       // keepUp's: the last push failed
	pushMu sync.Mutex // one push of the read-only topics at a time, so that a stale list never overtakes a newer one
}

// Serve runs the service until ctx ends. It returns an error when it cannot start, or when the API fails.
func Serve(ctx context.Context, cfg Config) error {
	s, err := Start(ctx, cfg)
	if err != nil {
		return err
	}
	defer s.Close()
	select {
	case <-ctx.Done():
		return nil
	case err := <-s.served:
		return fmt.Errorf("serve the link API: %w", err)
	}
}

// Start starts the service and returns once the API answers. Clusters may be away. The caller closes it.
func Start(ctx context.Context, cfg Config) (*Service, error) {
	cfg.Timings = cfg.Timings.withDefaults()
	if cfg.Dir == "" || len(cfg.Clusters) == 0 || len(cfg.Users) == 0 {
		return nil, errors.New("the link service needs a dir, clusters and at least one API user")
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the link service: %w", err)
	}
	s := &Service{cfg: cfg, log: slog.Default().With("part", "link service"), clusters: map[string]*cluster{}, runners: map[*link]*runner{}, served: make(chan error, 1)}
	s.ctx, s.stop = context.WithCancel(ctx)
	if err := s.load(); err != nil {
		return nil, err
	}
	var err error
	if s.tls, err = dial.TLS(dial.Files{CA: cfg.CAFile}); err != nil {
		return nil, fmt.Errorf("connect to the clusters: %w", err)
	}
	for _, c := range cfg.Clusters {
		client, err := s.connect(c.Bootstrap, c.Admin)
		if err != nil {
			return nil, fmt.Errorf("cluster %s: %w", c.Name, err)
		}
		s.clusters[c.ID] = &cluster{ClusterEndpoint: c, client: client}
	}
	ln, err := listen(ctx, cfg.Addr)
	if err != nil {
		return nil, err
	}
	s.URL = "http://" + ln.Addr().String()
	if cfg.CertFile != "" {
		s.URL = "https://" + ln.Addr().String()
	}
	s.http = &http.Server{Handler: s.routes(), ReadHeaderTimeout: 10 * time.Second}
	go func() { s.served <- s.serve(ln) }()
	s.mu.Lock()
	for _, l := range s.state.Links {
		s.startRunner(l)
	}
	s.mu.Unlock()
	s.every(s.ctx, func() time.Duration { return millis(cfg.Timings.StateIntervalMillis) }, s.keepUp)
	return s, nil
}

func (s *Service) serve(ln net.Listener) error {
	if s.cfg.CertFile != "" {
		return s.http.ServeTLS(ln, s.cfg.CertFile, s.cfg.KeyFile)
	}
	return s.http.Serve(ln)
}

// Close ends all work and stores the state.
func (s *Service) Close() {
	s.stop()
	_ = s.http.Close()
	s.work.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.runners {
		r.disconnect()
	}
	for _, c := range s.clusters {
		c.client.Close()
	}
	if err := s.save(); err != nil {
		s.log.Error("state not stored", "error", err)
	}
}

// every runs do again and again, with the interval in between, until ctx ends or the service does.
func (s *Service) every(ctx context.Context, interval func() time.Duration, do func(context.Context)) {
	s.work.Go(func() {
		for {
			do(ctx)
			select {
			case <-ctx.Done():
				return
			case <-time.After(interval()):
			}
		}
	})
}

// keepUp stores positions that moved, and makes sure that each cluster still refuses writes to its mirrors: either
// process may have been started anew.
func (s *Service) keepUp(ctx context.Context) {
	s.mu.Lock()
	if s.dirty {
		if err := s.save(); err != nil {
			s.log.Error("state not stored", "error", err)
		}
	}
	s.mu.Unlock()
	for _, c := range s.clusters {
		err := s.pushReadOnly(ctx, c.ID)
		if away := err != nil; away != c.away && ctx.Err() == nil {
			c.away = away
			s.log.Info("read-only topics of a cluster", "cluster", c.Name, "confirmed", !away, "error", err)
		}
	}
}

func listen(ctx context.Context, addr string) (net.Listener, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		ln, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
		if err == nil {
			return ln, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("listen on %s: %w", addr, err)
		case <-time.After(50 * time.Millisecond): // a process that has just been killed may still hold the port
		}
	}
}

func (s *Service) statePath() string { return filepath.Join(s.cfg.Dir, "links.json") }
