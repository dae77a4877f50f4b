package consul

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hashicorp/consul/api"

	"switchback/internal/fault"
)

// Unknown is the epoch of an entry that holds none, or one that cannot be read. It is never taken for 0.
const Unknown int64 = -1

// The keys of an entry. Those of valueKeys, epoch and switchedBy may stand under clients/<client>/ too and win there.
const (
	keyCluster     = "cluster"
	keyBootstrap   = "bootstrap.servers"
	keyProtocol    = "security.protocol"
	keyMechanism   = "sasl.mechanism"
	keyCredentials = "credentials"
	keyTopicPrefix = "topic.prefix"
	keyEpoch       = "epoch"
	keySwitchedBy  = "switchedBy"
)

// Words of clients/<client>/desired.
const (
	Run  = "run"
	Stop = "stop"
)

// Words of an instance's state. Only Stopped means that no child runs and that none will start (P22).
const (
	Starting = "starting"
	Running  = "running"
	Stopping = "stopping"
	Stopped  = "stopped"
)

// Values is what a client needs to reach its cluster. Credentials is a Vault path, <mount>/<path>, in which {client}
// is filled in.
type Values struct {
	Cluster          string
	Bootstrap        string // host:port, comma separated
	SecurityProtocol string
	SASLMechanism    string
	Credentials      string
	TopicPrefix      string
}

// byKey lists the values under their keys.
func (v Values) byKey() map[string]string {
	return map[string]string{
		keyCluster: v.Cluster, keyBootstrap: v.Bootstrap, keyProtocol: v.SecurityProtocol,
		keyMechanism: v.SASLMechanism, keyCredentials: v.Credentials, keyTopicPrefix: v.TopicPrefix,
	}
}

func valuesOf(get func(key string) string) Values {
	return Values{
		Cluster: get(keyCluster), Bootstrap: get(keyBootstrap), SecurityProtocol: get(keyProtocol),
		SASLMechanism: get(keyMechanism), Credentials: get(keyCredentials), TopicPrefix: get(keyTopicPrefix),
	}
}

// State is an entry as one recursive, consistent read found it (P39).
type State struct {
	Values
	Epoch      int64 // Unknown when absent or garbled
	SwitchedBy string
	Clients    map[string]ClientState
	Index      uint64         // for Watch
	Keys       map[string]Key // everything, by the key relative to the prefix
}

// Key is one key as it was read. ModifyIndex is what a write of it is checked against.
type Key struct {
	Value       string
	ModifyIndex uint64
	Session     string
}

// ClientState is what an entry holds for one client.
type ClientState struct {
	Desired   string              // run, stop, or what stands there; "" when absent
	Overrides map[string]string   // keys that win for this client
	Instances map[string]Instance // by id; only those whose session is alive
	// Seen are the instances that were there when the last stop was asked for: id and host. It is how one that has
	// vanished since can be named (P22).
	Seen map[string]string
}

// Instance is what one running instance says of itself.
type Instance struct {
	State   string    `json:"state"`
	Epoch   int64     `json:"epoch"`
	Cluster string    `json:"cluster"`
	Since   time.Time `json:"since"`
	Host    string    `json:"host"`
	PID     int       `json:"pid,omitempty"`  // of the supervisor
	Boot    string    `json:"boot,omitempty"` // which kernel and process namespace PID belongs to
	// Killed says that the child which ran last did not end by itself when it was asked to (P36).
	Killed       bool   `json:"killed,omitempty"`
	KilledReason string `json:"killedReason,omitempty"`
	Reason       string `json:"reason,omitempty"` // what it waits for, in a sentence
}

// View is what one client sees: the shared values with its overrides.
type View struct {
	Values
	Epoch   int64
	Desired string
}

// For is the client's view. {client} in the credentials is filled in. An absent desired means run.
func (s State) For(client string) View {
	c := s.Clients[client]
	v := View{Values: valuesOf(func(key string) string {
		if own, ok := c.Overrides[key]; ok {
			return own
		}
		return s.Keys[key].Value
	}), Epoch: s.Epoch, Desired: c.Desired}
	if own, ok := c.Overrides[keyEpoch]; ok {
		v.Epoch = parseEpoch(own)
	}
	v.Credentials = strings.ReplaceAll(v.Credentials, "{client}", client)
	if v.Desired == "" {
		v.Desired = Run
	}
	return v
}

// Missing names the keys without which no client can start.
func (s State) Missing() []string {
	var missing []string
	for _, key := range []string{keyCluster, keyBootstrap, keyEpoch} {
		if s.Keys[key].Value == "" {
			missing = append(missing, key)
		}
	}
	return missing
}

// Read reads the entry in one recursive, consistent read. An entry without any key is a State with Epoch Unknown.
func (d *Discovery) Read(ctx context.Context) (State, error) {
	return d.list(ctx, &api.QueryOptions{RequireConsistent: true})
}

// watchFor bounds one blocking query, so that a half-open connection is noticed.
const watchFor = 20 * time.Second

// Watch waits until the entry is newer than index, or some 20 s, and reads it. Give it the Index of the State read last,
// 0 to read at once.
func (d *Discovery) Watch(ctx context.Context, index uint64) (State, error) {
	ctx, cancel := context.WithTimeout(ctx, watchFor+watchFor/16+5*time.Second)
	defer cancel()
	s, err := d.list(ctx, &api.QueryOptions{RequireConsistent: true, WaitIndex: index, WaitTime: watchFor})
	if err == nil && s.Index < index {
		s.Index = 0 // Consul was restored: indexes start again
	}
	return s, err
}

func (d *Discovery) list(ctx context.Context, q *api.QueryOptions) (State, error) {
	pairs, meta, err := d.client.KV().List(d.prefix+"/", q.WithContext(ctx))
	if err != nil {
		return State{Epoch: Unknown}, translate(d.doing("read"), reads, err)
	}
	if meta.ResultsFilteredByACLs { // half an entry is worse than none (P39)
		return State{Epoch: Unknown}, fault.Hint(fmt.Errorf("%s: some keys are hidden from the token: %w", d.doing("read"), fault.ErrDenied),
			"the token needs key_prefix read on %s/", d.prefix)
	}
	keys := make(map[string]Key, len(pairs))
	for _, p := range pairs {
		keys[strings.TrimPrefix(p.Key, d.prefix+"/")] = Key{strings.TrimSpace(string(p.Value)), p.ModifyIndex, p.Session}
	}
	s := parse(keys)
	s.Index = max(meta.LastIndex, 1)
	return s, nil
}

// parse makes sense of keys. Whatever is not understood is kept in Keys and means nothing.
func parse(keys map[string]Key) State {
	s := State{
		Values:     valuesOf(func(key string) string { return keys[key].Value }),
		Epoch:      parseEpoch(keys[keyEpoch].Value),
		SwitchedBy: keys[keySwitchedBy].Value,
		Clients:    map[string]ClientState{},
		Keys:       keys,
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		part := strings.Split(key, "/")
		if len(part) < 3 || part[0] != "clients" || part[1] == "" {
			continue
		}
		c, ok := s.Clients[part[1]]
		if !ok {
			c = ClientState{Overrides: map[string]string{}, Instances: map[string]Instance{}, Seen: map[string]string{}}
		}
		value := keys[key].Value
		switch {
		case len(part) == 4 && part[2] == "instances" && part[3] != "":
			c.Instances[part[3]] = parseInstance(value)
		case len(part) != 3:
		case part[2] == "desired":
			c.Desired = value
		case part[2] == "seen":
			_ = json.Unmarshal([]byte(value), &c.Seen) // garbled: nothing was seen, and the expected number still holds
		case slices.Contains(overridable, part[2]):
			c.Overrides[part[2]] = value
		}
		s.Clients[part[1]] = c
	}
	return s
}

var overridable = []string{
	keyCluster, keyBootstrap, keyProtocol, keyMechanism, keyCredentials, keyTopicPrefix, keyEpoch, keySwitchedBy,
}

// parseInstance never takes what it cannot read for stopped.
func parseInstance(value string) Instance {
	i := Instance{Epoch: Unknown}
	if err := json.Unmarshal([]byte(value), &i); err != nil || i.State == "" {
		return Instance{State: "unknown", Epoch: Unknown, Reason: "what it wrote cannot be read"}
	}
	return i
}

func parseEpoch(value string) int64 {
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n < 0 {
		return Unknown
	}
	return n
}
