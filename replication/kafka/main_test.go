package kafka

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/scram"
	"go.uber.org/goleak"

	"switchback/internal/secret"
	"switchback/replication"
	"switchback/runbooks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// Users of every fake cluster; their passwords are derived from their names, and grep for them finds what leaked.
const (
	admin  = "admin"  // a super user
	tool   = "tool"   // a plain user, for whom a test makes ACLs
	client = "client" // another
)

func password(user string) string { return "canary-" + user + "-secret" }

// fake starts a cluster with three brokers, SCRAM-SHA-512 and PLAIN logins, and ACLs.
func fake(t testing.TB, opts ...kfake.Opt) *kfake.Cluster {
	t.Helper()
	opts = append([]kfake.Opt{kfake.NumBrokers(3), kfake.ClusterID("east-id"), kfake.EnableSASL(), kfake.EnableACLs()}, opts...)
	for _, mechanism := range []string{"SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"} {
		opts = append(opts, kfake.Superuser(mechanism, admin, password(admin)),
			kfake.User(mechanism, tool, password(tool)), kfake.User(mechanism, client, password(client)))
	}
	c, err := kfake.NewCluster(opts...)
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// config is how user reaches the fake.
func config(f *kfake.Cluster, user string) Config {
	return Config{Name: "east", Bootstrap: f.ListenAddrs(), Login: secret.Login{Username: user, Password: secret.New(password(user))},
		Security: runbooks.Security{Protocol: "SASL_PLAINTEXT", Mechanism: "SCRAM-SHA-512"}}
}

// as opens the fake as user.
func as(t testing.TB, f *kfake.Cluster, user string) *Cluster {
	t.Helper()
	c, err := Open(config(f, user))
	require.NoError(t, err)
	t.Cleanup(c.Close)
	return c
}

// raw is a plain client of the super user, for what a workload does.
func raw(t testing.TB, f *kfake.Cluster, opts ...kgo.Opt) *kgo.Client {
	t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(f.ListenAddrs()...), kgo.ProducerLinger(0),
		kgo.SASL(scram.Auth{User: admin, Pass: password(admin)}.AsSha512Mechanism())}, opts...)...)
	require.NoError(t, err)
	t.Cleanup(cl.Close)
	return cl
}

func short(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func produce(t testing.TB, cl *kgo.Client, p replication.Partition, n int) {
	t.Helper()
	for range n {
		r := &kgo.Record{Topic: p.Topic, Partition: p.Partition, Value: []byte("v")}
		require.NoError(t, cl.ProduceSync(short(t), r).FirstErr())
	}
}

func part(topic string, p int32) replication.Partition {
	return replication.Partition{Topic: topic, Partition: p}
}

func eventually(t testing.TB, what string, is func() bool) {
	t.Helper()
	require.Eventually(t, is, 10*time.Second, 10*time.Millisecond, what)
}

func TestOpenRefusesWhatCannotWork(t *testing.T) {
	login := secret.Login{Username: "u", Password: secret.New("p")}
	for name, tc := range map[string]struct {
		cfg  Config
		says string
	}{
		"no bootstrap":  {Config{}, "no bootstrap servers"},
		"protocol":      {Config{Bootstrap: []string{"x:1"}, Security: runbooks.Security{Protocol: "TLS"}}, `"TLS" is none of`},
		"mechanism":     {Config{Bootstrap: []string{"x:1"}, Login: login, Security: runbooks.Security{Protocol: "SASL_SSL", Mechanism: "GSSAPI"}}, `"GSSAPI" is none of`},
		"no login":      {Config{Bootstrap: []string{"x:1"}, Security: runbooks.Security{Protocol: "SASL_SSL", Mechanism: "PLAIN"}}, "no user name or password"},
		"no authority":  {Config{Bootstrap: []string{"x:1"}, Security: runbooks.Security{Protocol: "SSL", CA: "/nonexistent/ca.pem"}}, "security.ca must be a file"},
		"not authority": {Config{Bootstrap: []string{"x:1"}, Security: runbooks.Security{Protocol: "SSL", CA: "main_test.go"}}, "holds no PEM certificate"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(tc.cfg)
			require.ErrorContains(t, err, tc.says)
		})
	}
}

func TestIdentityWithEveryMechanism(t *testing.T) {
	f := fake(t)
	for _, mechanism := range []string{"SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN"} {
		cfg := config(f, admin)
		cfg.Security.Mechanism = mechanism
		c, err := Open(cfg)
		require.NoError(t, err)
		id, err := c.Identity(short(t))
		c.Close()
		require.NoError(t, err, mechanism)
		require.Equal(t, "east-id", id.ClusterID)
		require.Len(t, id.Brokers, 3)
	}
}

// A broker that accepts connections and is silent holds up nothing that the others can answer.
func TestOneSilentBrokerHoldsUpNothing(t *testing.T) {
	f := fake(t)
	for _, key := range []kmsg.Key{kmsg.Metadata, kmsg.DescribeACLs} {
		onNode(f, key, 1, func(kmsg.Request) (kmsg.Response, error, bool) { return nil, nil, true })
	}
	c := as(t, f, admin)
	ctx, cancel := context.WithTimeout(t.Context(), requestTimeout-time.Second) // no request is given up before
	defer cancel()
	for range 6 { // brokers are asked in turn
		id, err := c.Identity(ctx)
		require.NoError(t, err)
		require.Len(t, id.Brokers, 3)
		_, err = c.ACLs(ctx)
		require.NoError(t, err)
	}
}

func TestSecretsAreNotSeen(t *testing.T) {
	f := fake(t)
	var log strings.Builder
	cfg := config(f, tool)
	cfg.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	c, err := Open(cfg)
	require.NoError(t, err)
	_, err = c.Identity(short(t))
	require.NoError(t, err)
	_, refused := c.ACLs(short(t))
	require.Error(t, refused)
	c.Close()
	require.Contains(t, log.String(), "cluster=east")
	require.NotContains(t, log.String()+refused.Error(), "canary-")
}

// allow gives user operations on a resource.
func allow(t testing.TB, c *Cluster, user, resource, name string, operations ...string) {
	t.Helper()
	var acls []replication.ACL
	for _, o := range operations {
		acls = append(acls, replication.ACL{ResourceType: resource, Pattern: "LITERAL", Name: name, Principal: "User:" + user,
			Host: "*", Operation: o, Permission: "ALLOW"})
	}
	require.NoError(t, c.CreateACLs(short(t), acls))
}

// onNode answers one key of one broker with fn, as long as the cluster lives.
func onNode(f *kfake.Cluster, key kmsg.Key, node int32, fn func(kmsg.Request) (kmsg.Response, error, bool)) {
	f.ControlKey(key.Int16(), func(req kmsg.Request) (kmsg.Response, error, bool) {
		f.KeepControl()
		if node >= 0 && f.CurrentNode() != node {
			return nil, nil, false
		}
		return fn(req)
	})
}
