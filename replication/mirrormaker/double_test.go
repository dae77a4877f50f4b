package mirrormaker

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/internal/secret"
	"switchback/replication"
)

// canary is in every password; it must not be seen in any error or result.
const canary = "canary-7f3a"

type object = map[string]any

// connector of the double. What is asked of it happens later, after so many looks at its status.
type connector struct {
	config  map[string]string
	state   string
	tasks   []object
	offsets []object
	wanted  string // where it is going, "" when it is there
	looks   int    // until the connector is there; its tasks end one look later
}

// connect is a Connect cluster of several workers, as far as it promises anything: it answers before it acts, refuses
// while it rebalances, and takes offsets of a stopped connector alone. Tests replace answers through hook.
type connect struct {
	t          *testing.T
	mu         sync.Mutex
	workers    []*httptest.Server
	connectors map[string]*connector
	slow       int // looks until what was asked for is there
	unready    int // requests to be refused with 409 from now on
	exactly    bool
	refuses    string              // setting that validation finds wrong
	remembered map[string][]object // offsets of connectors that were deleted, by name
	cluster    string
	calls      []string // worker, method and path
	hook       func(w http.ResponseWriter, r *http.Request) bool
	after      func(w http.ResponseWriter, r *http.Request) bool // instead of the answer, once it was acted upon
}

const jaas = `org.apache.kafka.common.security.scram.ScramLoginModule required username="mm2" password="` + canary + `";`

func sourceConfig() map[string]string {
	return map[string]string{
		"connector.class": sourceClass, "name": "east-west.source", "tasks.max": "2", "source.cluster.alias": "east", "target.cluster.alias": "west",
		"source.cluster.bootstrap.servers": "east:9092", "target.cluster.bootstrap.servers": "west:9092",
		"source.cluster.sasl.jaas.config": jaas, "target.cluster.sasl.jaas.config": jaas, "source.cluster.ssl.keystore.password": canary,
		"topics": `orders, payments\..*`, "topics.exclude": `payments\.secret`, "replication.policy.class": identityClass,
		"key.converter": bytesConverter, "value.converter": bytesConverter, "header.converter": bytesConverter,
		"offset-syncs.topic.location": "target", "refresh.topics.interval.seconds": "1", "sync.topic.acls.interval.seconds": "5",
		"sync.topic.configs.interval.seconds": "7", "source.consumer.isolation.level": "read_committed", "exactly.once.support": "required",
	}
}

func checkpointConfig() map[string]string {
	return map[string]string{
		"connector.class": checkpointClass, "source.cluster.alias": "east", "target.cluster.alias": "west",
		"source.cluster.bootstrap.servers": "east:9092", "target.cluster.bootstrap.servers": "west:9092", "replication.policy.class": identityClass,
		"groups": "billing,shipping-.*", "refresh.groups.interval.seconds": "30", "emit.checkpoints.interval.seconds": "2",
		"sync.group.offsets.enabled": "true", "sync.group.offsets.interval.seconds": "3", "target.cluster.sasl.jaas.config": jaas,
	}
}

func taskOf(id int, state, trace string) object {
	o := object{"id": id, "state": state, "worker_id": "127.0.0.1:8083", "version": "4.3.1"}
	if trace != "" {
		o["trace"] = trace
	}
	return o
}

func stored(topic string, partition, offset int) object {
	return object{"partition": object{"cluster": "east", "partition": partition, "topic": topic}, "offset": object{"offset": offset}}
}

// newConnect is a Connect cluster with the three connectors of east to west, and a Link over it.
func newConnect(t *testing.T, workers int, change ...func(*Config)) (*connect, *Link) {
	t.Helper()
	s := &connect{t: t, slow: 2, exactly: true, cluster: "cluster-west", connectors: map[string]*connector{
		"east-west.source": {config: sourceConfig(), state: "RUNNING", tasks: []object{taskOf(1, "RUNNING", ""), taskOf(0, "RUNNING", "")},
			offsets: []object{stored("orders", 0, 41), stored("orders", 1, 7)}},
		"east-west.checkpoint": {config: checkpointConfig(), state: "RUNNING", tasks: []object{taskOf(0, "RUNNING", "")}},
		"east-west.heartbeat":  {config: map[string]string{"connector.class": "org.apache.kafka.connect.mirror.MirrorHeartbeatConnector"}, state: "RUNNING", tasks: []object{taskOf(0, "RUNNING", "")}},
		"somebody.elses":       {config: map[string]string{"password": canary}, state: "RUNNING"},
	}}
	cfg := Config{
		Workers: Workers{Login: secret.Login{Username: "admin", Password: secret.New(canary)}},
		Source:  "east-west.source", Checkpoint: "east-west.checkpoint", Heartbeat: "east-west.heartbeat",
		Names: Names{Source: "east", Target: "west", Policy: PolicyIdentity}, Data: "User:mm2", Admin: "User:mm2",
		To:      &kafkaCluster{id: "cluster-west", topics: []string{"orders", "payments.in", "payments.secret", "local", "__consumer_offsets", "mm2-offset-syncs.east.internal", "heartbeats", "east.heartbeats"}, acls: granted("orders", "payments.in")},
		From:    &kafkaCluster{id: "cluster-east", topics: []string{"orders", "payments.in"}},
		Compare: func(Names, bool) Records { return nil },
	}
	for i := range workers {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.serve(i, w, r) }))
		t.Cleanup(srv.Close)
		s.workers = append(s.workers, srv)
		cfg.Connect = append(cfg.Connect, srv.URL)
	}
	for _, c := range change {
		c(&cfg)
	}
	l, err := New(cfg)
	require.NoError(t, err)
	t.Cleanup(l.Close)
	l.poll, l.settle, l.client.pause, l.client.patience = time.Millisecond, 50*time.Millisecond, time.Millisecond, 200*time.Millisecond
	return s, l
}

func (s *connect) serve(worker int, w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	s.calls = append(s.calls, fmt.Sprintf("%d %s %s", worker, r.Method, r.URL.RequestURI()))
	if user, pass, _ := r.BasicAuth(); user != "admin" || pass != canary {
		reply(w, 401, object{"error_code": 401, "message": "User cannot access the resource."})
		return
	}
	if s.hook != nil && s.hook(w, r) {
		return
	}
	if s.unready > 0 {
		s.unready--
		reply(w, 409, object{"error_code": 409, "message": "Cannot complete request because of a conflicting operation (e.g. worker rebalance)"})
		return
	}
	rec := httptest.NewRecorder()
	s.answer(rec, r, body)
	if s.after != nil && s.after(w, r) {
		return
	}
	maps.Copy(w.Header(), rec.Header())
	w.WriteHeader(rec.Code)
	_, _ = w.Write(rec.Body.Bytes())
}

func (s *connect) answer(w http.ResponseWriter, r *http.Request, body []byte) {
	parts := strings.Split(strings.Trim(r.URL.EscapedPath(), "/"), "/")
	switch {
	case parts[0] == "":
		reply(w, 200, object{"version": "4.3.1", "commit": "x", "kafka_cluster_id": s.cluster})
	case parts[0] == "health":
		reply(w, 200, object{"status": "healthy", "message": "Worker has completed startup and is ready to handle requests."})
	case parts[0] == "connector-plugins":
		s.validate(w, body)
	case len(parts) == 1 && r.Method == http.MethodGet:
		all := object{}
		for name, c := range s.connectors {
			all[name] = object{"status": s.status(name), "info": object{"name": name, "config": c.config, "tasks": []object{}, "type": "source"}}
		}
		reply(w, 200, all)
	case len(parts) == 1:
		s.create(w, body)
	default:
		name, _ := url.PathUnescape(parts[1])
		c := s.connectors[name]
		if c == nil && (len(parts) != 3 || parts[2] != "config" || r.Method != http.MethodPut) {
			reply(w, 404, object{"error_code": 404, "message": "Connector " + name + " not found"})
			return
		}
		s.one(w, r, name, c, strings.Join(parts[2:], "/"), body)
	}
}

func (s *connect) one(w http.ResponseWriter, r *http.Request, name string, c *connector, what string, body []byte) {
	switch r.Method + " " + what {
	case "GET config":
		reply(w, 200, c.config)
	case "PUT config":
		var in map[string]string
		_ = json.Unmarshal(body, &in)
		if c == nil {
			s.connectors[name] = &connector{config: in, state: "RUNNING"}
			reply(w, 201, object{"name": name, "config": in})
			return
		}
		c.config = in // a stopped one stays stopped
		reply(w, 200, object{"name": name, "config": in})
	case "GET status":
		reply(w, 200, s.status(name))
	case "PUT stop":
		c.wanted, c.looks = "STOPPED", s.slow
		w.WriteHeader(204)
	case "PUT pause":
		c.state = "PAUSED"
		w.WriteHeader(202)
	case "PUT resume":
		c.wanted, c.looks = "RUNNING", s.slow
		w.WriteHeader(202)
	case "POST restart":
		for i := range c.tasks {
			c.tasks[i] = taskOf(i, "RUNNING", "")
		}
		reply(w, 202, s.status(name))
	case "DELETE ":
		delete(s.connectors, name)
		w.WriteHeader(204)
	case "GET offsets":
		reply(w, 200, object{"offsets": append([]object{}, c.offsets...)})
	case "PATCH offsets", "DELETE offsets":
		if c.state != "STOPPED" || len(c.tasks) > 0 {
			reply(w, 400, object{"error_code": 400, "message": "Connectors must be in the STOPPED state before their offsets can be modified. This can be done for the specified connector by issuing a 'PUT' request to the '/connectors/" + name + "/stop' endpoint"})
			return
		}
		s.alter(c, body)
		reply(w, 200, object{"message": "The offsets for this connector have been altered successfully"})
	default:
		reply(w, 405, object{"error_code": 405, "message": "HTTP 405 Method Not Allowed"})
	}
}

// status moves what was asked for one look further.
func (s *connect) status(name string) object {
	c := s.connectors[name]
	if c.wanted != "" {
		switch c.looks--; {
		case c.looks == 0:
			c.state = c.wanted
		case c.looks < 0:
			c.tasks = nil
			if c.wanted == "RUNNING" {
				c.tasks = []object{taskOf(0, "RUNNING", "")}
			}
			c.wanted = ""
		}
	}
	tasks := c.tasks
	if tasks == nil {
		tasks = []object{}
	}
	return object{"name": name, "connector": object{"state": c.state, "worker_id": "127.0.0.1:8083"}, "tasks": tasks, "type": "source"}
}

func (s *connect) alter(c *connector, body []byte) {
	var in struct {
		Offsets []object `json:"offsets"`
	}
	if len(body) == 0 {
		c.offsets = nil
	}
	_ = json.Unmarshal(body, &in)
	for _, change := range in.Offsets {
		key := fmt.Sprint(change["partition"])
		c.offsets = slices.DeleteFunc(c.offsets, func(o object) bool {
			var p object
			b, _ := json.Marshal(o["partition"])
			_ = json.Unmarshal(b, &p)
			return fmt.Sprint(p) == key
		})
		if change["offset"] != nil {
			c.offsets = append(c.offsets, change)
		}
	}
}

func (s *connect) create(w http.ResponseWriter, body []byte) {
	var in struct {
		Name    string            `json:"name"`
		Config  map[string]string `json:"config"`
		Initial string            `json:"initial_state"`
	}
	_ = json.Unmarshal(body, &in)
	switch {
	case s.connectors[in.Name] != nil:
		reply(w, 409, object{"error_code": 409, "message": "Connector " + in.Name + " already exists"})
	case in.Config["connector.class"] == "":
		reply(w, 400, object{"error_code": 400, "message": "Connector config " + fmt.Sprint(in.Config) + " contains no connector type"})
	default:
		made := &connector{config: in.Config, state: in.Initial, offsets: s.remembered[in.Name]}
		if in.Initial == "RUNNING" {
			made.tasks = []object{taskOf(0, "RUNNING", "")}
		}
		s.connectors[in.Name] = made
		reply(w, 201, object{"name": in.Name, "config": in.Config, "tasks": []object{}})
	}
}

func (s *connect) validate(w http.ResponseWriter, body []byte) {
	var in map[string]string
	_ = json.Unmarshal(body, &in)
	errs := []string{}
	if in["exactly.once.support"] == "required" && !s.exactly {
		errs = append(errs, "This worker does not have exactly-once source support enabled.")
	}
	value := func(name string, errs []string) object {
		return object{"definition": object{"name": name}, "value": object{"name": name, "value": in[name], "errors": errs}}
	}
	brokers := []string{}
	if in["source.cluster.bootstrap.servers"] == "" {
		brokers = []string{"missing"}
	}
	if s.refuses != "" && in[s.refuses] != "" {
		brokers = append(brokers, "Invalid value "+in[s.refuses]+" for configuration "+s.refuses)
	}
	reply(w, 200, object{"name": in["connector.class"], "error_count": len(errs), "configs": []object{value("exactly.once.support", errs), value("source.cluster.bootstrap.servers", brokers)}})
}

func (s *connect) count(method string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, c := range s.calls {
		if strings.Contains(c, " "+method+" ") {
			n++
		}
	}
	return n
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// kafkaCluster is what a link asks of a cluster.
type kafkaCluster struct {
	id     string
	topics []string
	acls   []replication.ACL
	err    error
}

func (k *kafkaCluster) Identity(context.Context) (replication.Identity, error) {
	return replication.Identity{ClusterID: k.id}, k.err
}

func (k *kafkaCluster) Topics(_ context.Context, match func(string) bool) (out []replication.Topic, err error) {
	for _, t := range k.topics {
		if match(t) {
			out = append(out, replication.Topic{Name: t, Partitions: 2})
		}
	}
	return out, k.err
}

func (k *kafkaCluster) ACLs(context.Context) ([]replication.ACL, error) { return k.acls, k.err }

func granted(topics ...string) (acls []replication.ACL) {
	for _, t := range topics {
		acls = append(acls, replication.ACL{ResourceType: "TOPIC", Pattern: "LITERAL", Name: t, Principal: "User:mm2", Host: "10.0.0.1", Operation: "WRITE", Permission: "ALLOW"},
			replication.ACL{ResourceType: "TOPIC", Pattern: "LITERAL", Name: t, Principal: "User:mm2", Host: "*", Operation: "ALTER_CONFIGS", Permission: "ALLOW"})
	}
	return append(acls, replication.ACL{ResourceType: "TOPIC", Pattern: "PREFIXED", Name: "mm2-offset-syncs.", Principal: "User:mm2", Host: "*", Operation: "WRITE", Permission: "ALLOW"})
}

// ungranted takes an operation away from the mirror.
func ungranted(operation, name string) (acls []replication.ACL) {
	for _, a := range granted("orders", "payments.in") {
		if a.Operation != operation || a.Name != name {
			acls = append(acls, a)
		}
	}
	return acls
}
