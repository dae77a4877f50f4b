package activities

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"go.temporal.io/sdk/converter"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/temporal"
	"go.temporal.io/sdk/testsuite"
	"go.temporal.io/sdk/worker"
	"go.temporal.io/sdk/workflow"

	"switchback/internal/fault"
	"switchback/internal/secret"
	"switchback/replication"
	"switchback/replication/kafka"
	"switchback/runbooks"
)

// canary is every password of the world: wherever it is seen, a secret has leaked.
const canary = "canary-5d1f-secret"

const (
	me       = "switchback"
	checkout = "checkout" // a producer
	billing  = "billing"  // a consumer
	linkUser = "link"
	admin    = "admin" // a super user, for what a workload or an operator does
)

// world is two real fake clusters reached through the real adapter, and doubles of the link, discovery, Vault and the
// client applications. Every write of an activity goes through do, where a test can end the process or break the call.
type world struct {
	t          testing.TB
	east, west *kfake.Cluster
	link       *fakeLink
	back       replication.Link      // the way home, where a test has one
	entries    map[string]*fakeEntry // by address
	apps       *fakeApps
	passwords  map[string]string // by Vault path; canary unless set
	epoch      int64
	seen       []string // what left the activities: results, errors, heartbeats

	mu     sync.Mutex
	conns  map[string]*kafka.Cluster
	trace  []string // writes in order
	before map[string]func(context.Context) error
	after  map[string]func(context.Context) error
	ends   func(site string, ends []replication.Ends)
	kill   *kill
	losing bool               // the store of the target acknowledges and forgets
	away   map[string]error   // sites that are cut off from the activities
	heard  func(text string)  // of what left them
	wrote  func(point string) // after each write
	listen time.Duration      // for a site that is away
	down   []int32            // brokers of east that it has given up
	cancel context.CancelFunc
}

// Most of the tests wait: more of them run side by side than there are processors.
func TestMain(m *testing.M) {
	flag.Parse()
	if err := flag.Set("test.parallel", "6"); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// kill ends the process at the nth write, before or after it was done. From then on nothing it does has an effect.
type kill struct {
	at    int
	after bool
	dead  bool
}

var errKilled = errors.New("the process is dead")

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, epoch: 7, conns: map[string]*kafka.Cluster{}, passwords: map[string]string{},
		before: map[string]func(context.Context) error{}, after: map[string]func(context.Context) error{}}
	w.east, w.west = w.cluster("east-id"), w.cluster("west-id")
	w.link = newLink(w)
	w.entries = map[string]*fakeEntry{"consul.west": newEntry(w, "consul.west"), "consul.east": newEntry(w, "consul.east")}
	w.apps = &fakeApps{w}
	t.Cleanup(func() {
		for _, c := range w.conns {
			c.Close()
		}
	})
	for _, site := range []string{"east", "west"} {
		w.provision(site)
	}
	require.NoError(t, w.recordsNow().putScope(context.Background(), w.guard().Run.ID(), Scope{
		Topics: []replication.Topic{{Name: "orders", Partitions: 2}, {Name: "payments", Partitions: 1}}, Groups: []string{"billing"},
		Alive: []string{"billing"}, Reads: map[string][]string{"billing": {"orders"}}}))
	w.trace = nil
	return w
}

func (w *world) cluster(id string) *kfake.Cluster {
	c, err := kfake.NewCluster(kfake.NumBrokers(3), kfake.ClusterID(id), kfake.EnableSASL(), kfake.EnableACLs(),
		kfake.Superuser("SCRAM-SHA-512", admin, canary), kfake.User("SCRAM-SHA-512", me, canary),
		kfake.User("SCRAM-SHA-512", checkout, canary), kfake.User("SCRAM-SHA-512", billing, canary))
	require.NoError(w.t, err)
	w.t.Cleanup(c.Close)
	return c
}

func allow(principal, resource, pattern, name string, operations ...string) (acls []replication.ACL) {
	for _, op := range operations {
		acls = append(acls, replication.ACL{ResourceType: resource, Pattern: pattern, Name: name, Principal: "User:" + principal, Host: "*", Operation: op, Permission: replication.Allow})
	}
	return acls
}

// provision makes topics and grants as Protect would.
func (w *world) provision(site string) {
	w.t.Helper()
	c := w.as(site, admin)
	ctx := context.Background()
	for _, topic := range []replication.NewTopic{{Name: "orders", Partitions: 2}, {Name: "payments", Partitions: 1}} {
		require.NoError(w.t, c.CreateTopic(ctx, topic))
	}
	require.NoError(w.t, c.Records(MarksTopic).Ensure(ctx))
	require.NoError(w.t, c.Records(PositionsTopic).Ensure(ctx))
	require.NoError(w.t, c.EnsureCanary(ctx, CanaryTopic))
	acls := slices.Concat(
		allow(me, "CLUSTER", "LITERAL", replication.ClusterName, "ALTER", "DESCRIBE", "IDEMPOTENT_WRITE"),
		allow(me, "TOPIC", "PREFIXED", "switchback.", "READ", "WRITE", "DESCRIBE_CONFIGS"),
		allow(me, "TRANSACTIONAL_ID", "LITERAL", "*", "WRITE", "DESCRIBE"),
		allow(me, "GROUP", "LITERAL", "*", "READ"))
	for _, topic := range []string{"orders", "payments"} {
		acls = append(acls, slices.Concat(allow(me, "TOPIC", "LITERAL", topic, "READ", "DESCRIBE_CONFIGS", "ALTER_CONFIGS"),
			allow(linkUser, "TOPIC", "LITERAL", topic, "READ"), allow(checkout, "TOPIC", "LITERAL", topic, "WRITE"), allow(billing, "TOPIC", "LITERAL", topic, "READ"))...)
	}
	acls = append(acls, allow(billing, "GROUP", "LITERAL", "billing", "READ")...)
	require.NoError(w.t, c.CreateACLs(ctx, acls))
}

func (w *world) fake(site string) *kfake.Cluster {
	if site == "east" {
		return w.east
	}
	return w.west
}

// as is a kept connection past the activities.
func (w *world) as(site, user string) *kafka.Cluster {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.conns[site+user] == nil {
		w.conns[site+user] = w.dial(site, user, canary)
	}
	return w.conns[site+user]
}

func (w *world) dial(site, user, password string) *kafka.Cluster {
	c, err := kafka.Open(kafka.Config{Name: site, Bootstrap: w.fake(site).ListenAddrs(), Login: secret.Login{Username: user, Password: secret.New(password)},
		Security: runbooks.Security{Protocol: "SASL_PLAINTEXT", Mechanism: "SCRAM-SHA-512"}})
	require.NoError(w.t, err)
	return c
}

// raw is a client of the workload.
func (w *world) raw(site, user string, opts ...kgo.Opt) *kgo.Client {
	w.t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(w.fake(site).ListenAddrs()...), kgo.ProducerLinger(0), kgo.RecordPartitioner(kgo.ManualPartitioner()),
		kgo.SASL(scram.Auth{User: user, Pass: canary}.AsSha512Mechanism())}, opts...)...)
	require.NoError(w.t, err)
	w.t.Cleanup(cl.Close)
	return cl
}

// fill writes n records to a partition of the source and mirrors them.
func (w *world) fill(topic string, partition int32, n int) {
	w.t.Helper()
	w.write("east", topic, partition, n)
	w.write("west", topic, partition, n)
}

func (w *world) write(site, topic string, partition int32, n int) {
	w.t.Helper()
	cl := w.raw(site, admin)
	for range n {
		require.NoError(w.t, cl.ProduceSync(context.Background(), &kgo.Record{Topic: topic, Partition: partition, Value: []byte("v")}).FirstErr())
	}
}

func (w *world) recordsNow() records {
	return records{from: w.as("east", admin).Records(MarksTopic), to: w.as("west", admin).Records(MarksTopic)}
}

func (w *world) guard() Guard {
	return Guard{Run: Run{Runbook: "orders", WorkflowID: "planned-orders", FirstRunID: "r1"}, Discovery: w.runbook().RequiredDiscovery(), Epoch: w.epoch}
}

func (w *world) route() Route {
	book := w.runbook()
	return Route{From: Site{Name: "east", Cluster: book.Clusters["east"]}, To: Site{Name: "west", Cluster: book.Clusters["west"]}, Link: book.Links[0]}
}

func (w *world) runbook() runbooks.Runbook {
	cluster := func(site string) runbooks.Cluster {
		return runbooks.Cluster{Bootstrap: w.fake(site).ListenAddrs(), Security: runbooks.Security{Protocol: "SASL_PLAINTEXT", Mechanism: "SCRAM-SHA-512"},
			Credentials: runbooks.SecretRef{Vault: "kafka/" + site + "/" + me}}
	}
	return runbooks.Runbook{
		Metadata: runbooks.Metadata{Name: "orders"}, Home: "east",
		Clusters: map[string]runbooks.Cluster{"east": cluster("east"), "west": cluster("west")},
		Links:    []runbooks.Link{{From: "east", To: "west", ClusterLinking: &runbooks.ClusterLinking{Link: "east-west", Principal: "User:" + linkUser}}},
		Topics:   runbooks.Patterns{Include: []string{"orders", "payments*"}}, Groups: runbooks.Groups{Include: []string{"billing*"}, WithoutCommit: "earliest"},
		Discovery: []runbooks.Discovery{{Consul: runbooks.Consul{Address: "consul.west", Prefix: "kafka/orders"}, Required: true},
			{Consul: runbooks.Consul{Address: "consul.east", Prefix: "kafka/orders"}}},
		Credentials: runbooks.Credentials{Vault: runbooks.ClientSecrets{Mount: "kafka", Path: "{cluster}/{client}"}, Copy: &runbooks.CredentialsCopy{To: "kafka/active/{client}"}},
		Clients: []runbooks.Client{{Name: checkout, Role: runbooks.RoleProducer, Principal: "User:checkout", Supervised: &runbooks.Supervised{Instances: 1}},
			{Name: billing, Role: runbooks.RoleConsumer, Principal: "User:billing", Groups: []string{"billing"}, Supervised: &runbooks.Supervised{Instances: 1}}},
		Budgets: runbooks.Budgets{Drain: runbooks.Duration(time.Minute)}, Objectives: runbooks.Objectives{RTO: runbooks.Duration(5 * time.Minute)},
	}
}

func (w *world) outside() Outside {
	return Outside{Clusters: w, Links: worldLinks{w}, Consuls: worldConsuls{w}}
}

// soon is a deadline for waits that must end well, late one for those that must not.
func soon() time.Time { return time.Now().Add(10 * time.Second) }
func late() time.Time { return time.Now().Add(2500 * time.Millisecond) }

// run executes one attempt in Temporal's test environment, with the interceptor, and notes all that leaves it.
func run[R any](w *world, activity, in any) (R, error) {
	w.t.Helper()
	var out R
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestActivityEnvironment()
	env.SetTestTimeout(time.Minute)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w.mu.Lock()
	w.cancel = cancel
	w.mu.Unlock()
	env.SetWorkerOptions(worker.Options{BackgroundActivityContext: ctx, Interceptors: []interceptor.WorkerInterceptor{&Interceptor{}}})
	env.SetOnActivityHeartbeatListener(func(_ *activityInfo, details converter.EncodedValues) {
		var text string
		if details.HasValues() && details.Get(&text) == nil {
			w.note(text)
		}
	})
	for _, a := range w.all() {
		env.RegisterActivity(a)
	}
	value, err := env.ExecuteActivity(activity, in)
	if err != nil {
		w.note(err.Error())
		return out, err
	}
	require.NoError(w.t, value.Get(&out))
	w.note(fmt.Sprintf("%+v", out))
	return out, nil
}

// attempts lets Temporal retry as a workflow would.
func attempts[R any](w *world, activity, in any) (out R, err error) {
	var suite testsuite.WorkflowTestSuite
	env := suite.NewTestWorkflowEnvironment()
	env.SetTestTimeout(time.Minute)
	env.SetWorkerOptions(worker.Options{Interceptors: []interceptor.WorkerInterceptor{&Interceptor{}, &handing{change: eachItsOwnStart()}}})
	for _, a := range w.all() {
		env.RegisterActivity(a)
	}
	env.ExecuteWorkflow(func(ctx workflow.Context) (R, error) {
		var out R
		ctx = workflow.WithActivityOptions(ctx, workflow.ActivityOptions{StartToCloseTimeout: time.Minute,
			RetryPolicy: &temporal.RetryPolicy{InitialInterval: 10 * time.Millisecond, MaximumAttempts: 5}})
		err := workflow.ExecuteActivity(ctx, activity, in).Get(ctx, &out)
		return out, err
	})
	if err := env.GetWorkflowError(); err != nil {
		return out, err
	}
	return out, env.GetWorkflowResult(&out)
}

func (w *world) all() []any {
	o := w.outside()
	return []any{&Preflight{o}, &Assess{o}, &Syncs{o}, &Fences{o}, &Logs{o}, &Groups{o}, &Mirrors{o}, &Verify{o}, &Recovery{o, worldRecoverers{w}}, &Turns{o, worldRecoverers{w}},
		&Discovery{Consuls: worldConsuls{w}, Secrets: w}, &Clients{w.apps}, &Reports{Dir: w.t.TempDir(), Outside: o}}
}

func (w *world) note(text string) {
	w.mu.Lock()
	w.seen = append(w.seen, text)
	w.mu.Unlock()
	if w.heard != nil {
		w.heard(text)
	}
}

// typeOf is the type of application error that a workflow would see.
func typeOf(err error) string {
	var app *temporal.ApplicationError
	if errors.As(err, &app) {
		return app.Type()
	}
	return ""
}

// do is one write of an activity.
func (w *world) do(ctx context.Context, point string, write func() error) error {
	w.mu.Lock()
	n := len(w.trace)
	w.trace = append(w.trace, point)
	before, after, k := w.before[point], w.after[point], w.kill
	if k != nil && (k.dead || k.at == n && !k.after) {
		k.dead = true
		w.cancel()
		w.mu.Unlock()
		return errKilled
	}
	w.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if before != nil {
		if err := before(ctx); err != nil {
			return err
		}
	}
	if err := write(); err != nil {
		return err
	}
	if w.wrote != nil {
		w.wrote(point)
	}
	if k != nil && k.at == n {
		w.mu.Lock()
		defer w.mu.Unlock()
		k.dead = true
		w.cancel()
		return errKilled
	}
	if after != nil {
		return after(ctx)
	}
	return nil
}

func (w *world) took(point string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.trace {
		if p == point || strings.HasPrefix(p, point+" ") {
			n++
		}
	}
	return n
}

// Open and OpenAs are the Clusters of the activities.
func (w *world) Open(_ context.Context, site Site) (Kafka, error) {
	w.mu.Lock()
	err := w.away[site.Name]
	w.mu.Unlock()
	if err != nil {
		return nil, err
	}
	return &tapped{Cluster: w.as(site.Name, me), w: w, site: site.Name, close: func() {}}, nil
}

func (w *world) OpenAs(_ context.Context, site Site, path string) (Kafka, error) {
	password, ok := w.passwords[path]
	if !ok {
		password = canary
	}
	user := path[strings.LastIndexByte(path, '/')+1:]
	c := w.dial(site.Name, user, password)
	return &tapped{Cluster: c, w: w, site: site.Name, as: user, close: c.Close}, nil
}

func (w *world) SuperUser(ctx context.Context, site Site, path string, mayMake bool) (string, bool, error) {
	mine := w.as(site.Name, admin)
	as, err := w.OpenAs(ctx, site, path)
	if err != nil {
		return "", false, err
	}
	defer as.Close()
	if mayMake {
		if err := mine.EnsureProbe(ctx, as.Principal()); err != nil {
			return "", false, err
		}
	}
	super, err := mine.SuperUser(ctx, as.(*tapped).Cluster, as.Principal())
	return as.Principal(), super, err
}

// Copy is Vault's.
func (w *world) Copy(ctx context.Context, from, to string) (bool, error) {
	return true, w.do(ctx, "vault.Copy "+from+" "+to, func() error { return nil })
}

// tapped is the real adapter with its writes going through do.
type tapped struct {
	*kafka.Cluster
	w        *world
	site, as string
	close    func()
}

func (k *tapped) Principal() string {
	if k.as != "" {
		return "User:" + k.as
	}
	return "User:" + me
}
func (k *tapped) Close() { k.close() }

func (k *tapped) Topics(ctx context.Context, match func(string) bool) ([]replication.Topic, error) {
	topics, err := k.Cluster.Topics(ctx, match)
	for i := range topics {
		if k.site == "east" {
			topics[i].Offline = k.w.down
		}
	}
	return topics, err
}

func (k *tapped) Ends(ctx context.Context, topics []string) ([]replication.Ends, error) {
	ends, err := k.Cluster.Ends(ctx, topics)
	k.w.mu.Lock()
	defer k.w.mu.Unlock()
	if k.w.ends != nil && len(ends) > 0 { // on a busy machine a look may fail as a whole
		k.w.ends(k.site, ends)
	}
	return ends, err
}

func (k *tapped) CreateACLs(ctx context.Context, acls []replication.ACL) error {
	return k.w.do(ctx, k.site+".CreateACLs", func() error { return k.Cluster.CreateACLs(ctx, acls) })
}
func (k *tapped) DeleteACLs(ctx context.Context, acls []replication.ACL) error {
	return k.w.do(ctx, k.site+".DeleteACLs", func() error { return k.Cluster.DeleteACLs(ctx, acls) })
}
func (k *tapped) Commit(ctx context.Context, group string, offsets map[replication.Partition]int64) error {
	return k.w.do(ctx, k.site+".Commit", func() error { return k.Cluster.Commit(ctx, group, offsets) })
}
func (k *tapped) RemoveMembers(ctx context.Context, group string, m []replication.Member) error {
	return k.w.do(ctx, k.site+".RemoveMembers", func() error { return k.Cluster.RemoveMembers(ctx, group, m) })
}
func (k *tapped) EndTransactions(ctx context.Context, ids []string) error {
	return k.w.do(ctx, k.site+".EndTransactions", func() error { return k.Cluster.EndTransactions(ctx, ids) })
}
func (k *tapped) AbortTransactions(ctx context.Context, open []replication.Writer) error {
	return k.w.do(ctx, k.site+".AbortTransactions", func() error { return k.Cluster.AbortTransactions(ctx, open) })
}
func (k *tapped) AlterTopicConfigs(ctx context.Context, changes map[string]map[string]*string) error {
	return k.w.do(ctx, k.site+".AlterTopicConfigs", func() error { return k.Cluster.AlterTopicConfigs(ctx, changes) })
}
func (k *tapped) Canary(ctx context.Context, topic string) (c replication.Canary, err error) {
	err = k.w.do(ctx, k.site+".Canary", func() (err error) { c, err = k.Cluster.Canary(ctx, topic); return err })
	return c, err
}
func (k *tapped) Records(topic string) Records { return tappedRecords{k.Cluster.Records(topic), k} }

type tappedRecords struct {
	*kafka.Store
	k *tapped
}

func (r tappedRecords) Put(ctx context.Context, entries map[string][]byte) error {
	return r.k.w.do(ctx, r.k.site+".Put", func() error {
		if r.k.w.losing && r.k.site == "west" {
			return nil
		}
		return r.Store.Put(ctx, entries)
	})
}

// worldLinks and worldConsuls open the doubles.
type (
	worldLinks   struct{ w *world }
	worldConsuls struct{ w *world }
)

func (l worldLinks) Open(_ context.Context, r Route, _, _ Kafka) (replication.Link, error) {
	if r.From.Name == "west" && l.w.back != nil {
		return l.w.back, nil
	}
	return l.w.link, nil
}
func (c worldConsuls) Open(_ context.Context, d runbooks.Discovery) (Entry, error) {
	if d.Consul.Prefix == "" || d.Consul.Prefix == "kafka/orders" {
		return c.w.entries[d.Consul.Address], nil
	}
	c.w.mu.Lock()
	defer c.w.mu.Unlock()
	place := d.Consul.Address + "/" + d.Consul.Prefix
	if c.w.entries[place] == nil {
		c.w.entries[place] = &fakeEntry{w: c.w, address: place, state: EntryState{Epoch: replication.Unknown, Clients: map[string]ClientEntry{}}}
	}
	return c.w.entries[place], nil
}

// denies are the DENY entries of a cluster.
func (w *world) denies(site string) (list []string) {
	acls, err := w.as(site, admin).ACLs(context.Background())
	require.NoError(w.t, err)
	for _, a := range acls {
		if a.Permission == replication.Deny {
			list = append(list, a.String())
		}
	}
	slices.Sort(list)
	return list
}

// state is everything that a run can leave behind, for comparing ends.
func (w *world) state() map[string]any {
	w.t.Helper()
	ctx := context.Background()
	s := map[string]any{"east denies": w.denies("east"), "west denies": w.denies("west"), "link": w.link.describe()}
	for _, site := range []string{"east", "west"} {
		offsets, err := w.as(site, admin).Committed(ctx, "billing")
		require.NoError(w.t, err)
		s[site+" offsets"] = offsets
		stored, err := w.as(site, admin).Records(MarksTopic).Load(ctx, "acls/")
		require.NoError(w.t, err)
		for _, key := range slices.Sorted(maps.Keys(stored)) {
			s[site+" "+key] = string(stored[key])
		}
	}
	for address, e := range w.entries {
		state := e.state
		state.BootstrapServers = fmt.Sprint(state.BootstrapServers != "") // ports differ between worlds
		s[address] = state
	}
	return s
}

// everywhere runs act once whole, and then once for each write with the process ending before or after it, followed by
// a new attempt: the end must be the same every time (I6).
func everywhere(t *testing.T, setup func(t *testing.T) *world, act func(w *world) error) {
	t.Helper()
	whole := setup(t)
	require.NoError(t, act(whole))
	want, writes := whole.state(), len(whole.trace)
	require.NotZero(t, writes, "an activity that writes nothing cannot be tested here")
	require.NoError(t, act(whole), "twice")
	require.Equal(t, want, whole.state(), "twice")
	for n := range writes {
		for _, after := range []bool{false, true} {
			t.Run(fmt.Sprintf("killed at write %d, after it %v", n, after), func(t *testing.T) {
				t.Parallel()
				w := setup(t)
				w.kill = &kill{at: n, after: after}
				_ = act(w) // nobody hears what a dead process says
				w.kill = nil
				require.NoError(t, act(w), "%v", w.trace)
				require.Equal(t, want, w.state(), "%v", w.trace)
			})
		}
	}
}

func hanging(ctx context.Context) error {
	<-ctx.Done()
	return fmt.Errorf("%w: %w", fault.ErrUnclear, ctx.Err())
}
