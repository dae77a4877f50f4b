// Package kafka runs one fake Kafka cluster (kfake) as a server process of the lab: SASL SCRAM-SHA-512 for every user,
// ACLs in force, state in a folder so that kill -9 and a new start go on where the old process was.
//
// Start reading at Config and Serve. readonly.go holds what makes a topic a mirror: clients' writes are refused, and
// writes of the mirror engine are accepted there and nowhere else. control.go is the loopback HTTP endpoint through which
// the link service sets that list, and tests set the faults of faults.go. Nothing here knows links or runbooks.
package kafka

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Mechanism is the only SASL mechanism that the cluster offers.
const Mechanism = "SCRAM-SHA-512"

// Config says what to serve. It is plain JSON; a file that holds it must be mode 0600, because of the passwords.
type Config struct {
	Name      string `json:"name"`      // as runbooks call it: east, west
	Dir       string `json:"dir"`       // state lives here; made when missing
	ClusterID string `json:"clusterId"` // what the brokers answer
	Ports     []int  `json:"ports"`     // one broker for each, on 127.0.0.1; empty means one broker on a free port
	Control   string `json:"control"`   // host:port of the control endpoint, loopback only
	Superuser User   `json:"superuser"` // the lab's own: ACLs do not bind it
	// Users and their ACLs are seeded at the first start in Dir. Later starts keep what the folder says.
	Users []User `json:"users"`
	// PEM files; with them the brokers speak TLS. The control endpoint does not.
	CertFile string `json:"certFile,omitempty"`
	KeyFile  string `json:"keyFile,omitempty"`
}

// User is one SASL user with the ACLs that it is given at the first start. A Superuser's ACLs are ignored.
type User struct {
	Name     string   `json:"name"`
	Password Password `json:"password"`
	ACLs     []ACL    `json:"acls,omitempty"`
}

// Password is a password in a settings file: JSON shows it, printers and loggers do not.
type Password string

func (Password) String() string   { return "***" }
func (Password) GoString() string { return "***" }

// ACL is one entry, in Kafka's own words (upper or lower case).
type ACL struct {
	Resource  string `json:"resource"`          // topic, group, cluster, transactional_id
	Name      string `json:"name"`              // "*" for all; kafka-cluster for the cluster
	Pattern   string `json:"pattern,omitempty"` // literal (default) or prefixed
	Operation string `json:"operation"`         // read, write, describe, ...
	Deny      bool   `json:"deny,omitempty"`
}

// Server is a running cluster.
type Server struct {
	Bootstrap  []string // host:port of each broker
	ControlURL string   // http://host:port

	cfg      Config
	cluster  *kfake.Cluster
	http     *http.Server
	served   chan error
	readOnly readOnly
	faults   faults
	closing  sync.Once
}

// Serve runs the cluster until ctx ends, and then stores its state. It returns an error when it cannot start, or when
// the control endpoint fails.
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
		return fmt.Errorf("serve the control endpoint of cluster %s: %w", cfg.Name, err)
	}
}

// Start starts the cluster and returns once clients can connect. The caller closes it.
func Start(ctx context.Context, cfg Config) (*Server, error) {
	opts, err := options(cfg)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of cluster %s: %w", cfg.Name, err)
	}
	s := &Server{cfg: cfg, served: make(chan error, 1)}
	ready := make(chan struct{}) // no client is answered before the read-only topics are known
	opts = append(opts, kfake.ListenFn(func(network, address string) (net.Listener, error) {
		ln, err := listen(ctx, network, address)
		return &gatedListener{Listener: ln, ready: ready}, err
	}))
	if s.cluster, err = kfake.NewCluster(opts...); err != nil {
		return nil, fmt.Errorf("start cluster %s: %w", cfg.Name, err)
	}
	s.Bootstrap = s.cluster.ListenAddrs()
	if err := s.readOnly.load(s.cluster, filepath.Join(cfg.Dir, "readonly.json")); err != nil {
		s.cluster.Close()
		return nil, err
	}
	s.cluster.Control(s.control)
	if err := s.serveControl(ctx); err != nil {
		s.cluster.Close()
		return nil, err
	}
	close(ready)
	return s, nil
}

// Close stops the cluster and stores its state. It may be called twice.
func (s *Server) Close() {
	s.closing.Do(func() {
		_ = s.http.Close()
		s.faults.clear() // wakes whoever is held back
		s.cluster.Close()
	})
}

func options(cfg Config) ([]kfake.Opt, error) {
	if cfg.Name == "" || cfg.Dir == "" || cfg.ClusterID == "" || cfg.Superuser.Name == "" {
		return nil, errors.New("a cluster needs a name, a dir, a clusterId and a superuser")
	}
	ports := cfg.Ports
	if len(ports) == 0 {
		ports = []int{0}
	}
	opts := []kfake.Opt{
		kfake.NumBrokers(len(ports)), kfake.Ports(ports...), kfake.ClusterID(cfg.ClusterID),
		kfake.DataDir(filepath.Join(cfg.Dir, "data")), kfake.EnableSASL(), kfake.EnableACLs(),
		kfake.Superuser(Mechanism, cfg.Superuser.Name, string(cfg.Superuser.Password)),
	}
	if cfg.CertFile != "" {
		pair, err := tls.LoadX509KeyPair(cfg.CertFile, cfg.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("read the certificate of cluster %s: %w", cfg.Name, err)
		}
		opts = append(opts, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}))
	}
	for _, u := range cfg.Users {
		acls, err := seed(u)
		if err != nil {
			return nil, fmt.Errorf("user %s of cluster %s: %w", u.Name, cfg.Name, err)
		}
		opts = append(opts, kfake.User(Mechanism, u.Name, string(u.Password), acls...))
	}
	return opts, nil
}

func seed(u User) ([]kfake.ACL, error) {
	var out []kfake.ACL
	for _, a := range u.ACLs {
		if a.Pattern == "" {
			a.Pattern = "literal"
		}
		resource, err := kmsg.ParseACLResourceType(a.Resource)
		if err != nil {
			return nil, err
		}
		pattern, err := kmsg.ParseACLResourcePatternType(a.Pattern)
		if err != nil {
			return nil, err
		}
		operation, err := kmsg.ParseACLOperation(a.Operation)
		if err != nil {
			return nil, err
		}
		out = append(out, kfake.ACL{Resource: resource, Name: a.Name, Pattern: pattern, Operation: operation, Allow: !a.Deny})
	}
	return out, nil
}

// listen waits a little for a port that a process which has just been killed still holds.
func listen(ctx context.Context, network, address string) (net.Listener, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for {
		ln, err := new(net.ListenConfig).Listen(ctx, network, address)
		if !errors.Is(err, syscall.EADDRINUSE) {
			return ln, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("listen on %s: another process holds the port: %w", address, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

type gatedListener struct {
	net.Listener
	ready <-chan struct{}
}

func (l *gatedListener) Accept() (net.Conn, error) {
	<-l.ready
	return l.Listener.Accept()
}

// WriteJSON replaces a state file so that a crash leaves the old or the new one, never a part. Mode 0600.
func WriteJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name()) // in vain after the rename
	_, err = f.Write(b)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}
