package clusterlinking

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"switchback/internal/secret"
	"switchback/replication"
)

func TestMain(m *testing.M) {
	openapi3filter.RegisterBodyDecoder("text/html", func(body io.Reader, _ http.Header, _ *openapi3.SchemaRef, _ openapi3filter.EncodingFn) (any, error) {
		b, err := io.ReadAll(body)
		return string(b), err
	})
	goleak.VerifyTestMain(m)
}

const canary = "canary-7f3a"

// spec holds requests and answers against the service's own description.
var spec = sync.OnceValue(func() *openapi3.T {
	doc, err := openapi3.NewLoader().LoadFromFile("testdata/cluster-linking-openapi.yaml")
	if err != nil {
		panic(err)
	}
	return doc
})

func route(r *http.Request) (*routers.Route, map[string]string) {
	var best string
	var params map[string]string
	for path := range spec().Paths.Map() {
		names := regexp.MustCompile(`\{(\w+)\}`).FindAllStringSubmatch(path, -1)
		pattern := regexp.MustCompile(`\{\w+\}`).ReplaceAllString(path, `([^/]+)`)
		m := regexp.MustCompile("^" + pattern + "$").FindStringSubmatch(r.URL.EscapedPath())
		if m == nil || best != "" && strings.Count(path, "{") > strings.Count(best, "{") {
			continue
		}
		best, params = path, map[string]string{}
		for i, n := range names {
			params[n[1]], _ = url.PathUnescape(m[i+1])
		}
	}
	if best == "" {
		return nil, nil
	}
	item := spec().Paths.Value(best)
	op := item.GetOperation(r.Method)
	if op == nil {
		return nil, nil
	}
	return &routers.Route{Spec: spec(), Path: best, PathItem: item, Method: r.Method, Operation: op}, params
}

// service is a small Cluster Linking service: one link's configuration and mirrors, whose answers a test may replace.
type service struct {
	t       *testing.T
	mu      sync.Mutex
	url     string
	configs map[string]string // what is set; the rest is default
	mirrors map[string]string // topic: mirror_status
	calls   []string          // method and path, in order
	bodies  []string
	// hook may answer instead; deviates says that its answer is outside the specification on purpose.
	hook     func(w http.ResponseWriter, r *http.Request) bool
	deviates bool
	noAlter  bool // PUT configs:alter is refused, as older services do
}

var defaults = map[string]string{
	offsetKeys.enable: "false", offsetKeys.interval: "30000", offsetKeys.filter: "",
	aclKeys.enable: "false", aclKeys.interval: "5000", aclKeys.filter: "",
	topicKeys.enable: "false", topicKeys.filter: "", "topic.config.sync.ms": "5000", "metadata.max.age.ms": "300000",
	"link.mode": "DESTINATION", "cluster.link.paused": "false", "sasl.jaas.config": canary,
}

func newService(t *testing.T) (*service, *Link) {
	s := &service{t: t, configs: map[string]string{}, mirrors: map[string]string{"orders": "ACTIVE", "payments": "ACTIVE"}}
	srv := httptest.NewServer(s)
	t.Cleanup(srv.Close)
	s.url = srv.URL
	l, err := New(Config{REST: srv.URL, ClusterID: "lkc-w", Link: "east/west", Login: secret.Login{Username: "key", Password: secret.New(canary)}})
	require.NoError(t, err)
	t.Cleanup(l.Close)
	l.poll, l.settle = time.Millisecond, 20*time.Millisecond
	l.client.rest.Reads.RetryWaitMin, l.client.rest.Reads.RetryWaitMax = time.Millisecond, 2*time.Millisecond
	return s, l
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	s.calls, s.bodies = append(s.calls, r.Method+" "+r.URL.RequestURI()), append(s.bodies, string(body))
	user, pass, _ := r.BasicAuth()
	if user != "key" || pass != canary {
		s.t.Errorf("%s came without credentials", r.URL.Path)
	}
	rt, params := route(r)
	if rt == nil && !strings.Contains(r.URL.Path, "/topics/") { // topics are outside the subset of the specification
		s.t.Errorf("%s %s is not in the specification", r.Method, r.URL.Path)
	}
	in := &openapi3filter.RequestValidationInput{Request: r, PathParams: params, QueryParams: r.URL.Query(), Route: rt,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc, IncludeResponseStatus: true}}
	if rt != nil {
		if err := openapi3filter.ValidateRequest(context.Background(), in); err != nil {
			s.t.Errorf("request against the specification: %v", err)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	rec := httptest.NewRecorder()
	if s.hook != nil && s.deviates && s.hook(w, r) {
		return
	}
	if s.hook == nil || !s.hook(rec, r) {
		s.answer(rec, r, params["config_name"], body)
	}
	if rt != nil && !s.deviates {
		out := &openapi3filter.ResponseValidationInput{RequestValidationInput: in, Status: rec.Code, Header: rec.Header(), Options: in.Options}
		if err := openapi3filter.ValidateResponse(context.Background(), out.SetBodyBytes(rec.Body.Bytes())); err != nil {
			s.t.Errorf("answer against the specification: %v", err)
		}
	}
	for k, v := range rec.Header() {
		w.Header()[k] = v
	}
	w.WriteHeader(rec.Code)
	_, _ = w.Write(rec.Body.Bytes())
}

type object = map[string]any

func (s *service) answer(w http.ResponseWriter, r *http.Request, config string, body []byte) {
	path := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
	switch {
	case r.Method == http.MethodGet && path == "configs":
		var data []object
		for k, d := range defaults {
			v, set := s.configs[k]
			if !set {
				v = d
			}
			data = append(data, object{"kind": "KafkaLinkConfigData", "metadata": object{"self": "x"}, "cluster_id": "lkc-w", "link_name": "east/west",
				"name": k, "value": v, "is_default": !set, "is_read_only": false, "is_sensitive": k == "sasl.jaas.config", "source": "DYNAMIC_CLUSTER_LINK_CONFIG", "synonyms": []string{}})
		}
		reply(w, 200, listed(data))
	case r.Method == http.MethodPut && path == "configs:alter":
		if s.noAlter {
			reply(w, 405, object{"error_code": 405, "message": "HTTP 405 Method Not Allowed"})
			return
		}
		var in struct {
			Data []struct{ Name, Value, Operation string }
		}
		_ = json.Unmarshal(body, &in)
		for _, c := range in.Data {
			s.set(c.Name, c.Value, c.Operation == "DELETE")
		}
		w.WriteHeader(204)
	case config != "":
		var in struct{ Value string }
		_ = json.Unmarshal(body, &in)
		s.set(config, in.Value, r.Method == http.MethodDelete)
		w.WriteHeader(204)
	case r.Method == http.MethodGet && path == "mirrors":
		data := []object{}
		for topic, state := range s.mirrors {
			data = append(data, object{"kind": "KafkaMirrorData", "metadata": object{"self": "x"}, "link_name": "east/west", "mirror_topic_name": topic, "source_topic_name": topic,
				"num_partitions": 2, "mirror_status": state, "state_time_ms": 1700000000000,
				"mirror_lags": []object{{"partition": 1, "lag": 7, "last_source_fetch_offset": -1}, {"partition": 0, "lag": 0, "last_source_fetch_offset": 12}}})
		}
		reply(w, 200, listed(data))
	case strings.HasPrefix(path, "mirrors:"):
		var in struct {
			Names []string `json:"mirror_topic_names"`
		}
		_ = json.Unmarshal(body, &in)
		var data []object
		for _, n := range in.Names {
			item := object{"kind": "AlterMirrorsData", "metadata": object{"self": "x"}, "mirror_topic_name": n, "error_code": nil, "error_message": nil,
				"mirror_lags": []object{}, "messages_truncated": -1, "partition_level_truncation_data": []object{}}
			switch {
			case s.mirrors[n] == "STOPPED", s.mirrors[n] == "PENDING_STOPPED":
				item["error_code"], item["error_message"] = 400, "no such transition"
			case s.mirrors[n] == "FAILED":
				item["error_code"], item["error_message"] = 401, "Not authorized"
			case r.URL.Query().Get("validate_only") != "true":
				s.mirrors[n] = "PENDING_STOPPED"
			}
			data = append(data, item)
		}
		reply(w, 200, listed(data))
	case r.Method == http.MethodGet:
		reply(w, 200, object{"kind": "KafkaLinkData", "metadata": object{"self": "x"}, "link_name": "east/west", "cluster_link_id": "id", "source_cluster_id": "lkc-e", "remote_cluster_id": nil,
			"topic_names": []string{"payments", "orders"}, "link_state": "ACTIVE", "link_error": "NO_ERROR", "tasks": []object{{"task_name": "AclSync", "state": "NOT_CONFIGURED", "errors": []object{}}}})
	default:
		w.WriteHeader(204)
	}
}

func (s *service) set(name, value string, reset bool) {
	if reset {
		delete(s.configs, name)
		return
	}
	s.configs[name] = value
	for _, k := range []syncKeys{offsetKeys, aclKeys, topicKeys} {
		if name == k.enable && value == "false" {
			delete(s.configs, k.filter) // turning a sync off clears its filter
		}
	}
}

func (s *service) writes() (n int) {
	return len(slices.DeleteFunc(slices.Clone(s.calls), func(c string) bool { return strings.HasPrefix(c, "GET") }))
}

func listed(data any) object {
	return object{"kind": "List", "metadata": object{"self": "x", "next": nil}, "data": data}
}

func reply(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}

// offsets is one cluster's ends.
type offsets []replication.Ends

func (o offsets) Ends(context.Context, []string) ([]replication.Ends, error) { return o, nil }

func end(p int32, hw int64) replication.Ends {
	return replication.Ends{Partition: replication.Partition{Topic: "orders", Partition: p}, HighWatermark: hw}
}
