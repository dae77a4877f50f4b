package setup

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/hashicorp/go-uuid"

	"switchback/internal/secret"
	"switchback/lab/servers"
)

// State is what a lab keeps in its folder besides the servers' own data, so that a later start finds the same ports and
// the same clusters: lab.json.
type State struct {
	Ports      map[string][]int  `json:"ports"`
	ClusterIDs map[string]string `json:"clusterIds"`
	// Hosts that servers are reached at, by the names of Ports; 127.0.0.1 where there is none. Data are folders of servers'
	// state as those see them, which a lab that starts its servers itself decides.
	Hosts map[string]string `json:"hosts,omitempty"`
	Data  map[string]string `json:"data,omitempty"`
	TLS   bool              `json:"tls,omitempty"`
	// Empty in folders that are older than the choice.
	Kafka  string `json:"kafka,omitempty"`
	Link   string `json:"link,omitempty"`
	Policy string `json:"policy,omitempty"`
}

// keeps fills in what the options leave open with what the folder was made with. Anything else is an error: runbooks, keys
// and data say otherwise.
func (s State) keeps(o Options) (Options, error) {
	for _, c := range []struct {
		wanted     *string
		made, then string
	}{{&o.Kafka, s.Kafka, Kfake}, {&o.Link, s.Link, ClusterLinking}, {&o.Policy, s.Policy, Identity}} {
		made := cmp.Or(c.made, c.then)
		if *c.wanted != "" && *c.wanted != made {
			return o, fmt.Errorf("the lab in this folder was made with %s, not %s: choose another folder, or remove this one", made, *c.wanted)
		}
		*c.wanted = made
	}
	return o, nil
}

// ports that every lab has, by the name of the server that listens there.
var ports = []struct {
	name  string
	count int
}{
	{"east-control", 1}, {"west-control", 1}, {"link", 1}, {"vault", 1},
	{"temporal", 1}, {"temporal-ui", 1}, {"temporal-http", 1}, {"consul", 1}, {"consul-inner", 2},
}

// openState reads the state of a folder, or makes it.
func openState(ctx context.Context, dir string, o Options) (State, error) {
	file := filepath.Join(dir, "lab.json")
	var s State
	err := servers.ReadJSON(file, &s)
	if err == nil && o.TLS && !s.TLS { // its runbooks and keys in Consul say where to go without
		return s, fmt.Errorf("the lab in %s was made without TLS: choose another folder, or remove this one", dir)
	}
	if err == nil {
		return s, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return s, err
	}
	s = State{
		Ports: map[string][]int{}, ClusterIDs: map[string]string{}, TLS: o.TLS, Kafka: o.Kafka, Link: o.Link, Policy: o.Policy,
	}
	want := slices.Clone(ports)
	listens := func(name string, count int) {
		want = append(want, struct {
			name  string
			count int
		}{name, count})
	}
	if o.Regional {
		listens(regionalConsul, 1)
		listens(regionalConsul+"-inner", 2)
		listens(regionalVault, 1)
	}
	for _, cluster := range Clusters {
		listens(cluster, o.Brokers)
		if o.Kafka == Apache {
			listens(cluster+"-internal", o.Brokers)
			listens(cluster+"-controller", o.Brokers)
			listens(ConnectProcess(cluster), 1)
		}
		s.ClusterIDs[cluster] = random(16)
	}
	total := 0
	for _, p := range want {
		total += p.count
	}
	free, err := servers.FreePorts(ctx, total)
	if err != nil {
		return s, err
	}
	for _, p := range want {
		s.Ports[p.name], free = free[:p.count], free[p.count:]
	}
	return s, servers.WriteJSON(file, s)
}

func (s State) address(name string) string { return s.addresses(name)[0] }

func (s State) bootstrap(cluster string) []string { return s.addresses(cluster) }

// addresses are host:port of each port of a server.
func (s State) addresses(name string) []string {
	var all []string
	for _, port := range s.Ports[name] {
		all = append(all, net.JoinHostPort(cmp.Or(s.Hosts[name], "127.0.0.1"), strconv.Itoa(port)))
	}
	return all
}

// secrets keeps the passwords and tokens that the lab made up itself: secrets.json, mode 0600. Everything else
// reads them from Vault, or from the files made for it.
type secrets struct {
	file   string
	canary string

	mu     sync.Mutex
	values map[string]string
	dirty  bool
}

func openSecrets(dir, canary string) (*secrets, error) {
	s := &secrets{file: filepath.Join(dir, "secrets.json"), canary: canary, values: map[string]string{}}
	if err := servers.ReadJSON(s.file, &s.values); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return s, nil
}

// password returns the password of that name, made up the first time.
func (s *secrets) password(name string) secret.Value {
	return s.get(name, func() string { return s.canary + random(18) })
}

// token returns a Consul token of that name, which has to be a UUID.
func (s *secrets) token(name string) secret.Value {
	return s.get(name, func() string {
		id, err := uuid.GenerateUUID()
		if err != nil {
			panic(err) // no random numbers: nothing can go on
		}
		return id
	})
}

func (s *secrets) get(name string, makeUp func() string) secret.Value {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.values[name] == "" {
		s.values[name], s.dirty = makeUp(), true
	}
	return secret.New(s.values[name])
}

// save must come before a secret is used, or a crash would leave a server with one that nobody knows.
func (s *secrets) save() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.dirty {
		return nil
	}
	s.dirty = false
	return servers.WriteJSON(s.file, s.values)
}

// all secrets, for tests that look for them where they must not be.
func (s *secrets) all() []secret.Value {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []secret.Value
	for _, name := range slices.Sorted(maps.Keys(s.values)) {
		all = append(all, secret.New(s.values[name]))
	}
	return all
}

func random(bytes int) string {
	b := make([]byte, bytes)
	_, _ = rand.Read(b) // never fails
	// Kafka's tools take an id or a password that begins with a dash for a flag.
	return strings.ReplaceAll(base64.RawURLEncoding.EncodeToString(b), "-", "x")
}

// compact is JSON in one line, for settings that are JSON inside of strings.
func compact(v any) string {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // only maps and strings go in
	}
	return string(data)
}
