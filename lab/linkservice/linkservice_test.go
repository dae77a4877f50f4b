package linkservice

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/getkin/kin-openapi/openapi3"
	"github.com/getkin/kin-openapi/openapi3filter"
	"github.com/getkin/kin-openapi/routers"
	"github.com/getkin/kin-openapi/routers/gorillamux"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"switchback/lab/kafka"
)

const link1 = "/kafka/v3/clusters/lkc-west/links/east-west"

func init() { // the API answers 429 with a page
	openapi3filter.RegisterBodyDecoder("text/html", openapi3filter.RegisteredBodyDecoder("text/plain"))
}

// lab is two clusters and the service between them, for one test.
type lab struct {
	*testing.T
	east, west *kafka.Server
	configs    map[string]kafka.Config
	cfg        Config
	svc        *Service
	router     routers.Router
}

func newLab(t *testing.T, tune func(*Config)) *lab {
	t.Helper()
	return newLabOf(t, 1, tune)
}

func newLabOf(t *testing.T, brokers int, tune func(*Config)) *lab {
	t.Helper()
	l := &lab{T: t, configs: map[string]kafka.Config{}}
	for _, name := range []string{"east", "west"} {
		l.configs[name] = kafka.Config{
			Name: name, Dir: t.TempDir(), ClusterID: "lkc-" + name, Control: "127.0.0.1:0", Ports: make([]int, brokers),
			Superuser: kafka.User{Name: "lab", Password: "lab-secret"},
			Users: []kafka.User{
				{Name: "link", Password: "link-secret", ACLs: []kafka.ACL{
					{Resource: "topic", Name: "*", Operation: "read"}, {Resource: "topic", Name: "*", Operation: "describe_configs"},
					{Resource: "group", Name: "*", Operation: "read"}, {Resource: "cluster", Name: "kafka-cluster", Operation: "describe"},
				}},
				{Name: "shop", Password: "shop-secret", ACLs: []kafka.ACL{{Resource: "topic", Name: "*", Operation: "write"}, {Resource: "topic", Name: "*", Operation: "read"}, {Resource: "group", Name: "*", Operation: "read"}}},
			},
		}
	}
	l.east, l.west = l.startKafka("east"), l.startKafka("west")
	l.cfg = Config{Addr: "127.0.0.1:0", Dir: t.TempDir(), Users: []User{{"api", "api-secret"}},
		Timings: Timings{MinSyncMillis: 10, AutoCreateMillis: 20, AvailabilityMillis: 30, AvailabilityChecks: 2, RequestMillis: 2000, StateIntervalMillis: 50}}
	for name, s := range map[string]*kafka.Server{"east": l.east, "west": l.west} {
		l.cfg.Clusters = append(l.cfg.Clusters, ClusterEndpoint{Name: name, ID: "lkc-" + name, Bootstrap: s.Bootstrap, ControlURL: s.ControlURL,
			Admin: User{"lab", "lab-secret"}, Link: User{"link", "link-secret"}})
	}
	if tune != nil {
		tune(&l.cfg)
	}
	l.startService()
	t.Cleanup(func() { l.svc.Close() })
	doc, err := openapi3.NewLoader().LoadFromFile("testdata/cluster-linking-openapi.yaml")
	l.ok(err)
	doc.Servers = nil
	// The product answers null for the value of an unset or sensitive config, which its document does not allow.
	doc.Components.Schemas["ListLinkConfigsResponseData_allOf"].Value.Properties["value"].Value.Nullable = true
	l.router, err = gorillamux.NewRouter(doc)
	l.ok(err)
	return l
}

// startKafka starts a cluster, the second time on the ports of the first.
func (l *lab) startKafka(name string) *kafka.Server {
	l.Helper()
	s, err := kafka.Start(context.Background(), l.configs[name])
	l.ok(err)
	l.Cleanup(s.Close)
	cfg := l.configs[name]
	cfg.Control = strings.TrimPrefix(s.ControlURL, "http://")
	cfg.Ports = nil
	for _, b := range s.Bootstrap {
		var port int
		_, err := fmt.Sscanf(b, "127.0.0.1:%d", &port)
		l.ok(err)
		cfg.Ports = append(cfg.Ports, port)
	}
	l.configs[name] = cfg
	return s
}

func (l *lab) startService() {
	l.Helper()
	var err error
	l.svc, err = Start(context.Background(), l.cfg)
	l.ok(err)
}

func (l *lab) ok(err error) {
	l.Helper()
	if err != nil {
		l.Fatal(err)
	}
}

func (l *lab) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	l.Cleanup(cancel)
	return ctx
}

// until waits for a condition.
func (l *lab) until(what string, cond func() bool) {
	l.Helper()
	deadline := time.After(15 * time.Second)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-deadline:
			l.Fatalf("not within 15 s: %s", what)
		case <-tick.C:
		}
	}
}

// raw sends a request without looking at the document.
func (l *lab) raw(method, path, body string) (*http.Response, []byte, error) {
	req, err := http.NewRequestWithContext(l.ctx(), method, l.svc.URL+path, strings.NewReader(body))
	l.ok(err)
	req.SetBasicAuth("api", "api-secret")
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, b, err
}

// call sends a request and holds it and its answer against the OpenAPI document.
func (l *lab) call(method, path, body string, want int) map[string]any {
	l.Helper()
	resp, b, err := l.raw(method, path, body)
	l.ok(err)
	if resp.StatusCode != want {
		l.Fatalf("%s %s: %d %s, want %d", method, path, resp.StatusCode, b, want)
	}
	l.conforms(method, path, body, resp, b)
	out := map[string]any{}
	if len(b) > 0 {
		l.ok(json.Unmarshal(b, &out))
	}
	return out
}

func (l *lab) conforms(method, path, body string, resp *http.Response, answer []byte) {
	l.Helper()
	req, err := http.NewRequestWithContext(l.ctx(), method, "http://test"+path, strings.NewReader(body))
	l.ok(err)
	req.Header.Set("Content-Type", "application/json")
	route, params, err := l.router.FindRoute(req)
	if err != nil {
		l.Fatalf("%s %s: %v", method, path, err)
	}
	in := &openapi3filter.RequestValidationInput{Request: req, PathParams: params, Route: route,
		Options: &openapi3filter.Options{AuthenticationFunc: openapi3filter.NoopAuthenticationFunc}}
	l.ok(openapi3filter.ValidateRequest(l.ctx(), in))
	switch resp.StatusCode {
	case 403, 404, 409: // they occur, though the document does not list them
		return
	}
	if err := openapi3filter.ValidateResponse(l.ctx(), &openapi3filter.ResponseValidationInput{
		RequestValidationInput: in, Status: resp.StatusCode, Header: resp.Header, Body: io.NopCloser(bytes.NewReader(answer)),
		Options: in.Options,
	}); err != nil {
		l.Fatalf("%s %s: %v", method, path, err)
	}
}

func (l *lab) client(s *kafka.Server, user string, opts ...kgo.Opt) *kgo.Client {
	l.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(s.Bootstrap...),
		kgo.SASL(scram.Auth{User: user, Pass: user + "-secret"}.AsSha512Mechanism()), kgo.RecordPartitioner(kgo.ManualPartitioner())}, opts...)...)
	l.ok(err)
	l.Cleanup(cl.Close)
	return cl
}

func (l *lab) admin(s *kafka.Server) *kadm.Client { return kadm.NewClient(l.client(s, "lab")) }

func (l *lab) topic(s *kafka.Server, name string, partitions int32) {
	l.Helper()
	_, err := l.admin(s).CreateTopic(l.ctx(), partitions, 1, nil, name)
	l.ok(err)
}

func (l *lab) write(s *kafka.Server, topic string, partition int32, values ...string) {
	l.Helper()
	cl := l.client(s, "shop")
	for _, v := range values {
		l.ok(cl.ProduceSync(l.ctx(), &kgo.Record{Topic: topic, Partition: partition, Key: []byte("k"), Value: []byte(v),
			Headers: []kgo.RecordHeader{{Key: "h", Value: []byte(v)}}}).FirstErr())
	}
}

// read returns a partition's records as offset:time:key:value:headers.
func (l *lab) read(s *kafka.Server, topic string, partition int32, n int) []string {
	l.Helper()
	cl := l.client(s, "lab", kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: {partition: kgo.NewOffset().AtStart()}}))
	var out []string
	for len(out) < n {
		fs := cl.PollFetches(l.ctx())
		l.ok(fs.Err())
		fs.EachRecord(func(r *kgo.Record) {
			out = append(out, fmt.Sprintf("%d:%d:%s:%s:%v", r.Offset, r.Timestamp.UnixMilli(), r.Key, r.Value, r.Headers))
		})
	}
	return out
}

func (l *lab) createLink(configs ...string) {
	l.Helper()
	l.call("POST", "/kafka/v3/clusters/lkc-west/links?link_name=east-west", `{"source_cluster_id":"lkc-east","configs":[`+configJSON(configs...)+`]}`, 204)
}

func configJSON(pairs ...string) string {
	var out []string
	for i := 0; i+1 < len(pairs); i += 2 {
		out = append(out, fmt.Sprintf(`{"name":%q,"value":%q}`, pairs[i], pairs[i+1]))
	}
	return strings.Join(out, ",")
}

func (l *lab) mirror(topic string) {
	l.Helper()
	l.call("POST", link1+"/mirrors", fmt.Sprintf(`{"source_topic_name":%q}`, topic), 204)
}

func (l *lab) status(link, topic string) string {
	l.Helper()
	return fmt.Sprint(l.call("GET", link+"/mirrors/"+topic, "", 200)["mirror_status"])
}

func (l *lab) awaitStatus(link, topic, want string) {
	l.Helper()
	got := ""
	defer func() {
		if l.Failed() {
			l.Logf("%s is %s: %v", topic, got, l.call("GET", link, "", 200))
		}
	}()
	l.until(topic+" is "+want, func() bool { got = l.status(link, topic); return got == want })
}

// action asks for an action and returns the error_code of each topic, nil when accepted.
func (l *lab) action(link, action string, topics ...string) []any {
	l.Helper()
	b, err := json.Marshal(map[string]any{"mirror_topic_names": topics})
	l.ok(err)
	var out []any
	for _, d := range l.call("POST", link+"/mirrors:"+action, string(b), 200)["data"].([]any) {
		out = append(out, d.(map[string]any)["error_code"])
	}
	return out
}

func (l *lab) accepted(link, action string, topics ...string) {
	l.Helper()
	for i, code := range l.action(link, action, topics...) {
		if code != nil {
			l.Fatalf("%s of %s: error_code %v", action, topics[i], code)
		}
	}
}

func (l *lab) end(s *kafka.Server, topic string, partition int32) int64 {
	l.Helper()
	ends, err := l.admin(s).ListEndOffsets(l.ctx(), topic)
	l.ok(err)
	o, _ := ends.Lookup(topic, partition)
	return o.Offset
}

func (l *lab) fault(f Fault) {
	l.Helper()
	b, err := json.Marshal(f)
	l.ok(err)
	resp, answer, err := l.raw("POST", "/lab/faults", string(b))
	l.ok(err)
	if resp.StatusCode != 200 {
		l.Fatalf("fault: %s", answer)
	}
}

func (l *lab) noFaults() {
	l.Helper()
	_, _, err := l.raw("DELETE", "/lab/faults", "")
	l.ok(err)
}
