package apache_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"switchback/internal/secret"
	"switchback/lab/apache"
	"switchback/lab/servers"
	"switchback/lab/tree"
)

const topic = "orders.00"

// pair is two clusters, a worker of Kafka Connect at each, and a mirror from east to west.
type pair struct {
	dir      string
	tree     tree.Tree
	clusters map[string]apache.Cluster
	workers  map[string]apache.Worker
	secrets  []string
}

func (p *pair) login(cluster, user string) secret.Login {
	password := "secret-of-" + user + "-on-" + cluster
	if !slices.Contains(p.secrets, password) {
		p.secrets = append(p.secrets, password)
	}
	return secret.Login{Username: user, Password: secret.New(password)}
}

func (p *pair) client(t *testing.T, cluster, user string, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	var brokers []string
	for _, n := range p.clusters[cluster].Nodes {
		brokers = append(brokers, "127.0.0.1:"+strconv.Itoa(n.Client))
	}
	client, err := connect(p.login(cluster, user), append(opts, kgo.SeedBrokers(brokers...))...)
	require.NoError(t, err)
	t.Cleanup(client.Close)
	return client
}

func connect(user secret.Login, opts ...kgo.Opt) (*kgo.Client, error) {
	auth := scram.Auth{User: user.Username, Pass: user.Password.Reveal()}
	return kgo.NewClient(append(opts, kgo.SASL(auth.AsSha512Mechanism()), kgo.MetadataMinAge(50*time.Millisecond), kgo.RetryTimeout(20*time.Second))...)
}

// open skips the test where Kafka cannot run, and starts nothing yet.
func open(t *testing.T) (*pair, apache.Runtime) {
	t.Helper()
	if testing.Short() {
		t.Skip("real brokers take their time; make test plays this")
	}
	if missing := apache.Missing(); missing != "" {
		t.Skip(missing)
	}
	runtime, err := apache.Fetch(t.Context())
	require.NoError(t, err)
	p := &pair{dir: t.TempDir(), clusters: map[string]apache.Cluster{}, workers: map[string]apache.Worker{}}
	t.Cleanup(func() { require.NoError(t, p.tree.Down(context.Background())) })
	return p, runtime
}

// cluster starts one, with users and the mirror's grants.
func (p *pair) cluster(t *testing.T, runtime apache.Runtime, name, id string, brokers int) {
	t.Helper()
	c := apache.Cluster{Name: "kafka-" + name, ID: id, Dir: filepath.Join(p.dir, name), Logs: filepath.Join(p.dir, "logs")}
	free, err := servers.FreePorts(t.Context(), 3*brokers)
	require.NoError(t, err)
	for n := range brokers {
		c.Nodes = append(c.Nodes, apache.Node{Client: free[3*n], Internal: free[3*n+1], Controller: free[3*n+2]})
	}
	p.clusters[name] = c
	specs, err := c.Brokers(t.Context(), runtime)
	require.NoError(t, err)
	require.NoError(t, p.tree.Start(t.Context(), specs...))
	require.NoError(t, c.SetUsers(t.Context(), p.users(name), func(ctx context.Context, broker string, user secret.Login) error {
		client, err := connect(user, kgo.SeedBrokers(broker))
		if err != nil {
			return err
		}
		defer client.Close()
		return client.Ping(ctx)
	}))
	for _, b := range apache.Grants() {
		_, err := kadm.NewClient(p.client(t, name, "lab")).CreateACLs(t.Context(), b)
		require.NoError(t, err)
	}
}

// mirror starts both clusters, the workers, and the connectors from east to west.
func mirror(t *testing.T, exactlyOnce bool) *pair {
	t.Helper()
	p, runtime := open(t)
	begun := time.Now()
	p.cluster(t, runtime, "east", "east-AAAAAAAAAAAAAAAAA", 1)
	p.cluster(t, runtime, "west", "west-AAAAAAAAAAAAAAAAA", 1)
	_, err := kadm.NewClient(p.client(t, "east", "lab")).CreateTopic(t.Context(), 2, -1, nil, topic)
	require.NoError(t, err)
	var specs []tree.Spec
	for name := range p.clusters {
		free, err := servers.FreePorts(t.Context(), 1)
		require.NoError(t, err)
		p.workers[name] = p.worker(name, p.dir, free[0], exactlyOnce)
		spec, err := p.workers[name].Spec(runtime)
		require.NoError(t, err)
		specs = append(specs, spec)
	}
	require.NoError(t, p.tree.Start(t.Context(), specs...))
	flow := apache.Flow{From: "east", To: "west", FromBootstrap: p.workers["east"].Bootstrap, ToBootstrap: p.workers["west"].Bootstrap,
		Topics: []string{apache.TopicsOf("orders")}, Groups: []string{"billing"}, Policy: apache.Identity, Replicas: 1}
	connectors, err := flow.Connectors()
	require.NoError(t, err)
	require.NoError(t, p.workers["west"].Create(t.Context(), connectors...))
	t.Logf("ready after %v", time.Since(begun).Round(time.Millisecond))
	return p
}

func (p *pair) users(cluster string) []secret.Login {
	var users []secret.Login
	for _, user := range append([]string{"lab"}, apache.Users...) {
		users = append(users, p.login(cluster, user))
	}
	return users
}

func (p *pair) worker(cluster, dir string, port int, exactlyOnce bool) apache.Worker {
	w := apache.Worker{
		Name: "connect-" + cluster, Dir: filepath.Join(dir, "connect", cluster), Log: filepath.Join(dir, "logs", "connect-"+cluster+".log"),
		Port: port, Replicas: min(len(p.clusters[cluster].Nodes), 3), ExactlyOnce: exactlyOnce, Login: p.login("connect", "switchback"),
		Passwords: map[string]secret.Value{
			apache.ConnectUser: p.login(cluster, apache.ConnectUser).Password, apache.DataUser: p.login(cluster, apache.DataUser).Password,
			apache.AdminUser + ".east": p.login("east", apache.AdminUser).Password, apache.AdminUser + ".west": p.login("west", apache.AdminUser).Password,
		},
	}
	for _, n := range p.clusters[cluster].Nodes {
		w.Bootstrap = append(w.Bootstrap, "127.0.0.1:"+strconv.Itoa(n.Client))
	}
	return w
}

func (p *pair) produce(t *testing.T, records int) {
	t.Helper()
	client := p.client(t, "east", "lab")
	for i := range records {
		require.NoError(t, client.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Key: fmt.Append(nil, i), Value: []byte("v")}).FirstErr())
	}
}

// holds waits until a cluster's topic has so many committed records. Its end says something else where a mirror writes in
// transactions, whose markers have offsets too.
func (p *pair) holds(t *testing.T, cluster string, records int) {
	t.Helper()
	client := p.client(t, cluster, "lab", kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()),
		kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(100*time.Millisecond))
	found := 0
	p.eventually(t, fmt.Sprintf("%d records on %s", records, cluster), func(ctx context.Context) error {
		wait, cancel := context.WithTimeout(ctx, 500*time.Millisecond)
		defer cancel()
		found += client.PollFetches(wait).NumRecords()
		if found < records {
			return fmt.Errorf("%d records", found)
		}
		return nil
	})
	wait, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	require.Equal(t, records, found+client.PollFetches(wait).NumRecords(), "no record is there twice")
}

func (p *pair) eventually(t *testing.T, what string, look func(ctx context.Context) error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		err := look(ctx)
		if err == nil {
			return
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-ctx.Done():
			require.FailNow(t, "waited in vain for "+what, last.Error())
		case <-tick.C:
		}
	}
}

var denied = regexp.MustCompile(`Principal = User:(\S+) is Denied operation = (\S+) .*on resource = (\S+) for request = (\S+)`)

// denials are what the brokers refused to Connect and MirrorMaker 2, by their own logs.
func (p *pair) denials(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, s := range p.tree.Status() {
		if !strings.HasPrefix(s.Name, "kafka-") {
			continue
		}
		log, err := os.ReadFile(s.Log)
		require.NoError(t, err)
		for _, d := range denied.FindAllStringSubmatch(string(log), -1) {
			if line := strings.Join(d[1:], " "); !slices.Contains(all, line) {
				all = append(all, line)
			}
		}
	}
	return all
}

func (p *pair) everythingIsMirrored(t *testing.T) {
	p.produce(t, 20)
	east, west := kadm.NewClient(p.client(t, "east", "lab")), kadm.NewClient(p.client(t, "west", "lab"))
	p.holds(t, "west", 20)

	ends, err := east.ListEndOffsets(t.Context(), topic)
	require.NoError(t, err)
	require.NoError(t, east.CommitAllOffsets(t.Context(), "billing", ends.Offsets()))
	mirrored, err := west.ListEndOffsets(t.Context(), topic)
	require.NoError(t, err)
	_, err = east.UpdatePartitions(t.Context(), 3, topic)
	require.NoError(t, err)
	_, err = east.AlterTopicConfigs(t.Context(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: kadm.StringPtr("123456789")}}, topic)
	require.NoError(t, err)
	fence := kadm.NewACLs().Deny("User:*").DenyHosts("*").Operations(kadm.OpWrite).Topics(topic).ResourcePatternType(kadm.ACLPatternLiteral)
	_, err = east.CreateACLs(t.Context(), fence)
	require.NoError(t, err)

	p.eventually(t, "the group's offset", func(ctx context.Context) error {
		offsets, err := west.FetchOffsets(ctx, "billing")
		end, _ := mirrored.Lookup(topic, 0) // behind the last record there may be a marker
		if o, ok := offsets.Lookup(topic, 0); err == nil && (!ok || o.At < end.Offset-1 || o.At > end.Offset) {
			err = fmt.Errorf("it is %v", offsets)
		}
		return err
	})
	p.eventually(t, "the new partition", func(ctx context.Context) error {
		topics, err := west.ListTopics(ctx, topic)
		if n := len(topics[topic].Partitions); err == nil && n != 3 {
			err = fmt.Errorf("%d partitions", n)
		}
		return err
	})
	p.eventually(t, "the topic's setting", func(ctx context.Context) error {
		configs, err := west.DescribeTopicConfigs(ctx, topic)
		if err != nil {
			return err
		}
		for _, c := range configs[0].Configs {
			if c.Key == "retention.ms" && c.MaybeValue() == "123456789" {
				return nil
			}
		}
		return fmt.Errorf("not there yet")
	})
	p.eventually(t, "the fence, which ACL sync copies", func(ctx context.Context) error {
		found, err := west.DescribeACLs(ctx, fence)
		if err == nil && (len(found) != 1 || len(found[0].Described) != 1) {
			err = fmt.Errorf("not there yet: %v", found)
		}
		return err
	})
	for cluster, admin := range map[string]*kadm.Client{"east": east, "west": west} {
		_, err = admin.DeleteACLs(t.Context(), fence)
		require.NoError(t, err, cluster)
	}
}

func TestMirror(t *testing.T) {
	p := mirror(t, false)
	p.everythingIsMirrored(t)

	t.Run("the mirror was refused nothing", func(t *testing.T) { require.Empty(t, p.denials(t)) })

	t.Run("a killed broker comes back with its state", func(t *testing.T) {
		require.NoError(t, p.tree.Kill("kafka-east"))
		require.NoError(t, p.tree.StartAgain(t.Context(), "kafka-east"))
		p.holds(t, "east", 20)
		p.produce(t, 10)
		p.holds(t, "west", 30)
	})

	t.Run("a killed worker goes on where it was", func(t *testing.T) {
		require.NoError(t, p.tree.Kill("connect-west"))
		p.produce(t, 10)
		require.NoError(t, p.tree.StartAgain(t.Context(), "connect-west"))
		p.holds(t, "west", 40) // it had stored its offsets: a worker that had not would repeat some
	})

	t.Run("a connector that is there is left alone", func(t *testing.T) {
		require.NoError(t, p.workers["west"].Create(t.Context(), apache.Connector{Name: "east-west.source", Config: map[string]string{"connector.class": "Nothing"}}))
	})

	t.Run("no password is in arguments or logs", func(t *testing.T) {
		for _, s := range p.tree.Status() {
			args, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(s.PID), "cmdline"))
			require.NoError(t, err)
			log, err := os.ReadFile(s.Log)
			require.NoError(t, err)
			require.NotContains(t, string(args), "secret-of-", s.Name)
			require.NotContains(t, string(log), "secret-of-", s.Name)
		}
	})
}

func TestMirrorExactlyOnce(t *testing.T) {
	p := mirror(t, true)
	p.everythingIsMirrored(t)
	require.NoError(t, p.tree.Kill("connect-west"))
	p.produce(t, 10)
	require.NoError(t, p.tree.StartAgain(t.Context(), "connect-west"))
	p.holds(t, "west", 30)
	require.Empty(t, p.denials(t))
}

func TestThreeBrokers(t *testing.T) {
	p, runtime := open(t)
	p.cluster(t, runtime, "east", "east-AAAAAAAAAAAAAAAAA", 3)
	admin := kadm.NewClient(p.client(t, "east", "lab"))
	_, err := admin.CreateTopic(t.Context(), 2, -1, nil, topic)
	require.NoError(t, err)
	p.produce(t, 5)
	require.NoError(t, p.tree.Kill("kafka-east-2"))
	p.produce(t, 5) // two of three are enough
	require.NoError(t, p.tree.StartAgain(t.Context(), "kafka-east-2"))
	p.holds(t, "east", 10)
	p.eventually(t, "three replicas in step", func(ctx context.Context) error {
		topics, err := admin.ListTopics(ctx, topic)
		if err != nil {
			return err
		}
		for _, partition := range topics[topic].Partitions {
			if len(partition.ISR) != 3 {
				return fmt.Errorf("partition %d has %v", partition.Partition, partition.ISR)
			}
		}
		return nil
	})
	configs, err := admin.DescribeTopicConfigs(t.Context(), topic)
	require.NoError(t, err)
	for _, c := range configs[0].Configs {
		if c.Key == "min.insync.replicas" {
			require.Equal(t, "2", c.MaybeValue())
		}
	}
}

func TestConnectors(t *testing.T) {
	flow := apache.Flow{From: "west", To: "east", FromBootstrap: []string{"w:1", "w:2"}, ToBootstrap: []string{"e:1"},
		Topics: []string{apache.TopicsOf("orders"), apache.TopicsOf("re.turns")}, Groups: []string{"billing", "a.b"}, Policy: apache.Default, Replicas: 3}
	connectors, err := flow.Connectors()
	require.NoError(t, err)
	require.Len(t, connectors, 3)
	source, checkpoint, heartbeat := connectors[0], connectors[1], connectors[2]
	require.Equal(t, []string{"west-east.source", "west-east.checkpoint", "west-east.heartbeat"}, []string{source.Name, checkpoint.Name, heartbeat.Name})
	for _, c := range connectors {
		require.Equal(t, "west", c.Config["source.cluster.alias"], c.Name)
		require.Equal(t, "w:1,w:2", c.Config["source.cluster.bootstrap.servers"], c.Name)
		require.Equal(t, "target", c.Config["offset-syncs.topic.location"], c.Name)
		require.Contains(t, c.Config["replication.policy.class"], ".DefaultReplicationPolicy", c.Name)
		require.Contains(t, c.Config["source.cluster.sasl.jaas.config"], "${file:secrets.properties:mm2-admin.west}", c.Name)
		require.Contains(t, c.Config["target.cluster.sasl.jaas.config"], "${file:secrets.properties:mm2-admin.east}", c.Name)
		require.Contains(t, c.Config["topics.exclude"], `switchback\..*`, c.Name)
	}
	require.Equal(t, `orders\..*|re\.turns\..*`, source.Config["topics"])
	require.Equal(t, `billing|a\.b`, checkpoint.Config["groups"])
	require.Equal(t, "true", source.Config["sync.topic.acls.enabled"])
	require.Equal(t, "3", source.Config["replication.factor"])
	require.NotContains(t, heartbeat.Config, "groups")
	require.NotContains(t, source.Config, "heartbeats.topic.replication.factor")
}
