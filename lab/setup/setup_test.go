package setup_test

import (
	"context"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	consulapi "github.com/hashicorp/consul/api"
	vaultapi "github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/internal/secret"
	"switchback/lab/cli"
	"switchback/lab/setup"
	"switchback/runbooks"
)

// The test binary plays the lab's own program, the sample clients included, and a client that does nothing.
func TestMain(m *testing.M) {
	if len(os.Args) > 2 && os.Args[1] == "idle" {
		if err := os.WriteFile(os.Args[2], []byte(strconv.Itoa(os.Getpid())), 0o600); err != nil {
			panic(err)
		}
		select {}
	}
	if len(os.Args) > 1 && (os.Args[1] == "serve" || os.Args[1] == "client") {
		os.Exit(cli.Run(context.Background(), os.Args[1:], os.Stdout, os.Stderr))
	}
	os.Exit(m.Run())
}

func small(name string) setup.Workload {
	w := setup.DefaultWorkload(name)
	w.Topics, w.Partitions = 2, 3
	return w
}

func servers(t *testing.T, change func(*setup.Options)) setup.Options {
	t.Helper()
	o := setup.Options{
		Dir: t.TempDir(), Program: os.Args[0], WithoutWorker: true, WithoutClients: true,
		Workloads: []setup.Workload{small("orders")},
	}
	if change != nil {
		change(&o)
	}
	return o
}

func up(t *testing.T, o setup.Options) *setup.Lab {
	t.Helper()
	begun := time.Now()
	lab, err := setup.Up(t.Context(), o)
	require.NoError(t, err)
	t.Logf("the servers were ready after %v", time.Since(begun).Round(time.Millisecond))
	t.Cleanup(func() { require.NoError(t, lab.Down()) })
	return lab
}

func eventually(t *testing.T, condition func() bool, what string) {
	t.Helper()
	require.Eventually(t, condition, 15*time.Second, 20*time.Millisecond, what)
}

func produce(t *testing.T, lab *setup.Lab, cluster, user, topic string) error {
	t.Helper()
	client, err := lab.Kafka(cluster, user)
	require.NoError(t, err)
	defer client.Close()
	return client.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Key: []byte("k"), Value: []byte("v")}).FirstErr()
}

func endOf(t *testing.T, lab *setup.Lab, cluster, topic string) int64 {
	t.Helper()
	client, err := lab.Kafka(cluster, "switchback")
	require.NoError(t, err)
	defer client.Close()
	ends, err := kadm.NewClient(client).ListEndOffsets(t.Context(), topic)
	if err != nil || ends.Error() != nil {
		return -1
	}
	total := int64(0)
	ends.Each(func(o kadm.ListedOffset) { total += o.Offset })
	return total
}

func TestEverythingSurvivesKill(t *testing.T) {
	o := servers(t, nil)
	lab := up(t, o)
	require.NoError(t, produce(t, lab, "east", "checkout", "orders.00"))
	eventually(t, func() bool { return endOf(t, lab, "west", "orders.00") == 1 }, "the record is mirrored")
	consul, err := lab.Consul()
	require.NoError(t, err)
	_, err = consul.KV().Put(&consulapi.KVPair{Key: "kafka/orders/epoch", Value: []byte("2")}, nil)
	require.NoError(t, err)

	var names []string
	for _, p := range lab.Status() {
		names = append(names, p.Name)
		require.NoError(t, lab.Kill(p.Name))
	}
	require.ElementsMatch(t, []string{"temporal", "consul", "vault", "east", "west", "link"}, names)
	for _, name := range names {
		require.NoError(t, lab.StartAgain(t.Context(), name))
	}
	require.EqualValues(t, 1, endOf(t, lab, "east", "orders.00"))
	require.NoError(t, produce(t, lab, "east", "checkout", "orders.00"))
	eventually(t, func() bool { return endOf(t, lab, "west", "orders.00") == 2 }, "mirroring goes on")

	processes := lab.Status()
	require.NoError(t, lab.Down())
	for _, p := range processes {
		require.ErrorIs(t, syscall.Kill(p.PID, 0), syscall.ESRCH, "%s goes on", p.Name)
	}

	// A new start in the same folder: the same ports, and nothing of what happened since is undone.
	again := up(t, o)
	require.Equal(t, lab.Bootstrap("west"), again.Bootstrap("west"))
	require.EqualValues(t, 2, endOf(t, again, "west", "orders.00"))
	pair, _, err := consul.KV().Get("kafka/orders/epoch", nil)
	require.NoError(t, err)
	require.Equal(t, "2", string(pair.Value))
}

func TestEachPartMayOnlyWhatItNeeds(t *testing.T) {
	lab := up(t, servers(t, func(o *setup.Options) {
		o.Workloads = append(o.Workloads, small("returns"))
		o.Canary = "canary-in-the-lab-"
	}))

	t.Run("Kafka", func(t *testing.T) {
		require.NoError(t, produce(t, lab, "east", "checkout", "orders.01"))
		require.ErrorContains(t, produce(t, lab, "east", "billing", "orders.01"), "AUTHORIZATION_FAILED")
		require.ErrorContains(t, produce(t, lab, "east", "returns-checkout", "orders.01"), "AUTHORIZATION_FAILED")
		require.NoError(t, produce(t, lab, "east", "switchback", "orders.01"), "recoveries write there")
		require.Error(t, produce(t, lab, "west", "checkout", "orders.01"), "a mirror is read-only")
		for _, cluster := range setup.Clusters {
			require.NoError(t, produce(t, lab, cluster, "switchback", "switchback.canary"))
			require.Error(t, produce(t, lab, cluster, "checkout", "switchback.marks"))
		}
		client, err := lab.Kafka("west", "switchback")
		require.NoError(t, err)
		defer client.Close()
		meta, err := kadm.NewClient(client).Metadata(t.Context())
		require.NoError(t, err)
		require.Equal(t, lab.ClusterID("west"), meta.Cluster)
		require.NotEqual(t, lab.ClusterID("east"), meta.Cluster)
		require.Len(t, meta.Brokers, 3)
	})

	t.Run("Consul", func(t *testing.T) {
		put := func(part, key string) error {
			settings := consulapi.DefaultConfig()
			settings.Address, settings.Token = lab.ConsulURL(), lab.ConsulToken(part).Reveal()
			consul, err := consulapi.NewClient(settings)
			require.NoError(t, err)
			_, err = consul.KV().Put(&consulapi.KVPair{Key: key}, nil)
			return err
		}
		require.NoError(t, put("worker", "kafka/orders/probe"))
		require.NoError(t, put("worker", "kafka/returns/probe"))
		require.NoError(t, put("checkout", "kafka/orders/clients/checkout/instances/probe"))
		for part, key := range map[string]string{
			"worker": "elsewhere", "checkout": "kafka/orders/clients/checkout/desired",
			"billing": "kafka/orders/clients/checkout/instances/probe", "shipping": "kafka/orders/epoch",
		} {
			require.ErrorContains(t, put(part, key), "403", "%s writes %s", part, key)
		}
		worker := consulapi.DefaultConfig()
		worker.Address, worker.Token = lab.ConsulURL(), lab.ConsulToken("worker").Reveal()
		consul, err := consulapi.NewClient(worker)
		require.NoError(t, err)
		_, _, err = consul.Session().List(nil)
		require.NoError(t, err)
		nodes, _, err := consul.Catalog().Nodes(nil)
		require.NoError(t, err)
		require.Len(t, nodes, 1)
	})

	t.Run("Vault", func(t *testing.T) {
		for part, paths := range map[string]map[string]bool{
			"worker":   {"east/switchback": true, "west/link-rest": true, "consul/worker": true, "west/billing": true, "consul/checkout": false},
			"checkout": {"east/checkout": true, "west/checkout": true, "consul/checkout": true, "east/switchback": false, "east/billing": false},
		} {
			vault := vaultAs(t, lab, part)
			for path, allowed := range paths {
				_, err := vault.KVv2("kafka").Get(t.Context(), path)
				if allowed {
					require.NoError(t, err, "%s reads %s", part, path)
				} else {
					require.ErrorContains(t, err, "403", "%s reads %s", part, path)
				}
			}
		}
		got, err := vaultAs(t, lab, "checkout").KVv2("kafka").Get(t.Context(), "west/checkout")
		require.NoError(t, err)
		require.Contains(t, got.Data["password"], "canary-in-the-lab-")
	})

	t.Run("files", func(t *testing.T) {
		require.NoError(t, filepath.WalkDir(lab.Dir(), func(path string, d fs.DirEntry, err error) error {
			require.NoError(t, err)
			if d.IsDir() || strings.Contains(path, "/data/") {
				return nil // servers' own data is behind the folder's 0700
			}
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			info, err := d.Info()
			require.NoError(t, err)
			if holdsAny(data, lab.Secrets()) {
				require.Equal(t, fs.FileMode(0o600), info.Mode(), path)
				require.NotContains(t, path, "/logs/")
			}
			return nil
		}))
		info, err := os.Stat(lab.Dir() + "/kafka/east")
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o700), info.Mode().Perm())
	})

	t.Run("arguments", func(t *testing.T) {
		for _, p := range lab.Status() {
			args, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.PID), "cmdline"))
			require.NoError(t, err)
			require.False(t, holdsAny(args, lab.Secrets()), p.Name)
		}
	})
}

func TestRunbookAndLink(t *testing.T) {
	for name, oneWay := range map[string]bool{"bidirectional": false, "one-way": true} {
		t.Run(name, func(t *testing.T) {
			lab := up(t, servers(t, func(o *setup.Options) {
				o.OneWayLink = oneWay
				o.EditRunbook = func(r *runbooks.Runbook) { r.Metadata.Owner = "somebody else" }
			}))
			loaded, err := runbooks.Load(lab.RunbookFile("orders"))
			require.NoError(t, err)
			require.Equal(t, "somebody else", loaded.Runbook.Metadata.Owner)
			require.Equal(t, lab.ClusterID("west"), loaded.Runbook.Links[0].ClusterLinking.Cluster)
			require.Len(t, loaded.Runbook.Links, 2)
			for _, link := range loaded.Runbook.Links {
				login := lab.LinkLogin()
				request, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
					link.ClusterLinking.REST+"/kafka/v3/clusters/"+link.ClusterLinking.Cluster+"/links/"+link.ClusterLinking.Link+"/mirrors", nil)
				require.NoError(t, err)
				request.SetBasicAuth(login.Username, login.Password.Reveal())
				answer, err := http.DefaultClient.Do(request)
				require.NoError(t, err)
				require.NoError(t, answer.Body.Close())
				require.Equal(t, http.StatusOK, answer.StatusCode)
			}
		})
	}
}

func TestUpThatFailsLeavesNothing(t *testing.T) {
	o := servers(t, nil)
	lab := up(t, o)
	require.NoError(t, lab.Down())
	// Somebody else took Vault's port.
	stranger := &http.Server{Addr: strings.TrimPrefix(lab.VaultURL(), "http://"), ReadHeaderTimeout: time.Second}
	go func() { _ = stranger.ListenAndServe() }()
	defer stranger.Close()
	eventually(t, func() bool {
		answer, err := http.Get(lab.VaultURL())
		return err == nil && answer.Body.Close() == nil
	}, "the port is taken")
	_, err := setup.Up(t.Context(), o)
	require.ErrorContains(t, err, "start vault")
	_, err = (&http.Client{Timeout: time.Second}).Get(lab.ConsulURL())
	require.Error(t, err, "Consul is gone as well")
}

func TestClientsRunUnderTheirSupervisors(t *testing.T) {
	children := t.TempDir()
	lab := up(t, servers(t, func(o *setup.Options) {
		o.WithoutClients = false
		o.ClientCommand = func(_ setup.Workload, _ setup.Client, instance string, _ int) []string {
			return []string{os.Args[0], "idle", filepath.Join(children, instance)}
		}
	}))
	entry, err := lab.Discovery("orders")
	require.NoError(t, err)
	defer entry.Close()
	state, err := entry.Read(t.Context())
	require.NoError(t, err)
	for client, instances := range map[string]int{"checkout": 3, "billing": 2, "shipping": 1} {
		require.Len(t, state.Clients[client].Instances, instances)
	}
	child := func() int {
		data, _ := os.ReadFile(filepath.Join(children, "checkout-2")) // absent or empty until the child got so far
		pid, _ := strconv.Atoi(string(data))
		return pid
	}
	isGone := func(pid int) bool {
		stat, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ")
	}
	eventually(t, func() bool { return child() > 0 }, "the child starts")
	first := child()
	require.NoError(t, lab.Kill("checkout-2"))
	eventually(t, func() bool { return isGone(first) }, "the child ends with its supervisor")
	require.NoError(t, lab.StartAgain(t.Context(), "checkout-2"))
	eventually(t, func() bool { return child() > 0 && child() != first }, "a new child starts")
	second := child()
	require.NoError(t, lab.Down())
	eventually(t, func() bool { return isGone(second) }, "the child ends with the lab")
}

func vaultAs(t *testing.T, lab *setup.Lab, part string) *vaultapi.Client {
	t.Helper()
	vault, err := vaultapi.NewClient(&vaultapi.Config{Address: lab.VaultURL()})
	require.NoError(t, err)
	read := func(file string) string {
		data, err := os.ReadFile(file)
		require.NoError(t, err)
		return string(data)
	}
	login, err := vault.Logical().WriteWithContext(t.Context(), "auth/approle/login", map[string]any{
		"role_id": read(lab.Part(part).RoleIDFile), "secret_id": read(lab.Part(part).SecretIDFile),
	})
	require.NoError(t, err)
	vault.SetToken(login.Auth.ClientToken)
	return vault
}

func holdsAny(data []byte, secrets []secret.Value) bool {
	for _, s := range secrets {
		if strings.Contains(string(data), s.Reveal()) {
			return true
		}
	}
	return false
}

// A lab with TLS serves nothing in plain text that could be served with it, to nobody who does not trust its authority.
func TestTLSAlone(t *testing.T) {
	o := servers(t, func(o *setup.Options) { o.TLS = true })
	lab := up(t, o)
	get := func(client *http.Client, url string) (int, error) {
		answer, err := client.Get(url)
		if err != nil {
			return 0, err
		}
		return answer.StatusCode, answer.Body.Close()
	}
	for _, url := range []string{lab.ConsulURL(), lab.VaultURL(), lab.LinkURL()} {
		require.Contains(t, url, "https://")
		_, err := get(lab.HTTP(), url)
		require.NoError(t, err)
		_, err = get(http.DefaultClient, url)
		require.ErrorContains(t, err, "certificate signed by unknown authority")
		status, err := get(http.DefaultClient, strings.Replace(url, "https://", "http://", 1))
		require.True(t, err != nil || status == http.StatusBadRequest, "%s answers in plain text: %d", url, status)
	}
	for _, cluster := range setup.Clusters {
		require.NoError(t, produce(t, lab, cluster, "switchback", "switchback.canary"))
		plain, err := kgo.NewClient(kgo.SeedBrokers(lab.Bootstrap(cluster)...), kgo.RetryTimeout(time.Second))
		require.NoError(t, err)
		require.Error(t, plain.Ping(t.Context()))
		plain.Close()
	}
	require.NoError(t, produce(t, lab, "east", "checkout", "orders.00"))
	eventually(t, func() bool { return endOf(t, lab, "west", "orders.00") == 1 }, "the record is mirrored")
	for _, file := range []string{"ca.pem", "server.pem", "server-key.pem"} {
		info, err := os.Stat(filepath.Join(lab.Dir(), "tls", file))
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o600), info.Mode(), file)
	}
	require.NoError(t, lab.Down())

	o.TLS = false
	again, err := setup.Open(t.Context(), o)
	require.NoError(t, err)
	require.Equal(t, lab.VaultURL(), again.VaultURL(), "a folder keeps what it was made with")
	o.Dir = t.TempDir()
	_, err = setup.Open(t.Context(), o)
	require.NoError(t, err)
	o.TLS = true
	_, err = setup.Open(t.Context(), o)
	require.ErrorContains(t, err, "made without TLS")
}
