package servers

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	vaultapi "github.com/hashicorp/vault/api"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"switchback/internal/secret"
	"switchback/lab/tree"
)

// The test binary plays Vault's process.
func TestMain(m *testing.M) {
	if dir := os.Getenv("SERVERS_TEST_VAULT"); dir != "" {
		panic(ServeVault(context.Background(), VaultConfig{Address: os.Args[1], Dir: dir}))
	}
	os.Exit(m.Run())
}

func ports(t *testing.T, n int) []int {
	t.Helper()
	found, err := FreePorts(t.Context(), n)
	require.NoError(t, err)
	return found
}

func newTree(t *testing.T) *tree.Tree {
	t.Helper()
	var tr tree.Tree
	t.Cleanup(func() { require.NoError(t, tr.Down(context.Background())) })
	return &tr
}

func TestVaultSurvivesKill(t *testing.T) {
	ctx, dir, tr := t.Context(), t.TempDir(), newTree(t)
	address := "127.0.0.1:" + strconv.Itoa(ports(t, 1)[0])
	require.NoError(t, tr.Start(ctx, tree.Spec{
		Name: "vault", Path: os.Args[0], Args: []string{address}, Env: []string{"SERVERS_TEST_VAULT=" + dir},
		Log: filepath.Join(dir, "vault.log"), Ready: Answers("http://" + address + "/v1/sys/health"),
	}))
	info, err := os.Stat(filepath.Join(dir, "keys.json"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode())
	keys, err := ReadVaultKeys(dir)
	require.NoError(t, err)
	vault, err := vaultapi.NewClient(&vaultapi.Config{Address: "http://" + address})
	require.NoError(t, err)
	vault.SetToken(keys.RootToken.Reveal())
	require.NoError(t, vault.Sys().MountWithContext(ctx, "kafka", &vaultapi.MountInput{Type: "kv", Options: map[string]string{"version": "2"}}))
	require.NoError(t, vault.Sys().EnableAuthWithOptionsWithContext(ctx, "approle", &vaultapi.EnableAuthOptions{Type: "approle"}))
	require.Eventually(t, func() bool { // a new KV v2 mount needs a moment
		_, err = vault.KVv2("kafka").Put(ctx, "east/one", map[string]any{"username": "one"})
		return err == nil
	}, 10*time.Second, 20*time.Millisecond)

	require.NoError(t, tr.Kill("vault"))
	require.NoError(t, tr.StartAgain(ctx, "vault"))
	got, err := vault.KVv2("kafka").Get(ctx, "east/one")
	require.NoError(t, err)
	require.Equal(t, "one", got.Data["username"])
}

func TestConsulSurvivesKill(t *testing.T) {
	ctx, dir, tr := t.Context(), t.TempDir(), newTree(t)
	program, err := Build(ctx, "consul")
	require.NoError(t, err)
	p := ports(t, 3)
	c := ConsulConfig{
		Program: program, Dir: dir, Log: filepath.Join(dir, "consul.log"), Port: p[0], Inner: [2]int{p[1], p[2]},
		Manager: secret.New("6b0ea6a4-0b7c-4f0e-8d2c-0c2f8d0f5b11"),
	}
	spec, err := Consul(c)
	require.NoError(t, err)
	begun := time.Now()
	require.NoError(t, tr.Start(ctx, spec))
	t.Logf("Consul was ready after %v", time.Since(begun))
	consul, err := c.Client()
	require.NoError(t, err)
	_, err = consul.KV().Put(&api.KVPair{Key: "kafka/orders/epoch", Value: []byte("7")}, nil)
	require.NoError(t, err)
	session, _, err := consul.Session().Create(&api.SessionEntry{TTL: "10s", Behavior: api.SessionBehaviorDelete}, nil)
	require.NoError(t, err)

	require.NoError(t, tr.Kill("consul"))
	begun = time.Now()
	require.NoError(t, tr.StartAgain(ctx, "consul"))
	t.Logf("Consul was ready again after %v", time.Since(begun))
	pair, _, err := consul.KV().Get("kafka/orders/epoch", nil)
	require.NoError(t, err)
	require.Equal(t, "7", string(pair.Value))
	kept, _, err := consul.Session().Info(session, nil)
	require.NoError(t, err)
	require.NotNil(t, kept, "sessions outlive the server's process")

	anonymous := api.DefaultConfig()
	anonymous.Address = c.Address()
	nobody, err := api.NewClient(anonymous)
	require.NoError(t, err)
	pair, _, _ = nobody.KV().Get("kafka/orders/epoch", nil)
	require.Nil(t, pair, "without a token nothing is read")
}

func TestTemporalSurvivesKill(t *testing.T) {
	for name, defaults := range map[string]bool{"tuned": false, "server's defaults": true} {
		t.Run(name, func(t *testing.T) {
			ctx, dir, tr := t.Context(), t.TempDir(), newTree(t)
			program, err := Build(ctx, "temporal")
			require.NoError(t, err)
			p := ports(t, 3)
			c := TemporalConfig{
				Program: program, Dir: dir, Log: filepath.Join(dir, "temporal.log"),
				Port: p[0], UIPort: p[1], HTTPPort: p[2], Defaults: defaults,
			}
			require.NoError(t, tr.Start(ctx, Temporal(c)))
			server, err := client.Dial(client.Options{HostPort: c.Address(), Logger: Silent{}})
			require.NoError(t, err)
			defer server.Close()
			_, err = server.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
				ID: "one", TaskQueue: "nobody's", TypedSearchAttributes: temporal.NewSearchAttributes(temporal.NewSearchAttributeKeyKeyword("SwitchbackRunbook").ValueSet("orders")),
			}, "Nothing")
			require.NoError(t, err)
			require.NoError(t, Answers("http://127.0.0.1:"+strconv.Itoa(c.UIPort))(ctx))

			require.NoError(t, tr.Kill("temporal"))
			require.NoError(t, tr.StartAgain(ctx, "temporal"))
			found, err := server.DescribeWorkflowExecution(ctx, "one", "")
			require.NoError(t, err)
			require.Equal(t, "Nothing", found.WorkflowExecutionInfo.Type.Name)
		})
	}
}

func TestTwoBuildersWaitForEachOther(t *testing.T) {
	path := filepath.Join(t.TempDir(), "tool.lock")
	var inside, most atomic.Int32
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() {
			err := Locked(t.Context(), path, func() error {
				most.Store(max(most.Load(), inside.Add(1)))
				defer inside.Add(-1)
				return exec.CommandContext(t.Context(), "true").Run() // long enough for another to get in
			})
			require.NoError(t, err)
		})
	}
	wg.Wait()
	require.EqualValues(t, 1, most.Load())

	holding, release := make(chan struct{}), make(chan struct{})
	go func() {
		_ = Locked(context.Background(), path, func() error { close(holding); <-release; return nil })
	}()
	<-holding
	ctx, cancel := context.WithTimeout(t.Context(), 150*time.Millisecond)
	defer cancel()
	require.ErrorIs(t, Locked(ctx, path, func() error { t.Error("the lock let two in"); return nil }), context.DeadlineExceeded)
	close(release)
}

func TestKeyNamesWhatIsBuilt(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600))
	}
	write("go.mod", "module a\n\ngo 1.26.0\n")
	write("go.sum", "")
	first, err := toolKey(t.Context(), dir)
	require.NoError(t, err)
	again, err := toolKey(t.Context(), dir)
	require.NoError(t, err)
	require.Equal(t, first, again)
	write("go.sum", "something else\n")
	other, err := toolKey(t.Context(), dir)
	require.NoError(t, err)
	require.NotEqual(t, first, other)
}

func TestOnlyTheVersionWantedIsTakenFromThePath(t *testing.T) {
	for _, tc := range []struct {
		answer, want string
		ok           bool
	}{
		{"Consul v1.21.0\nRevision 1\n", "v1.21.0\n", true},
		{"Consul v1.21.01\n", "v1.21.0", false},
		{"Consul v1.20.5\n", "v1.21.0", false},
		{"temporal version 1.5.1 (Server 1.29.1, UI 2.42.1)", "v1.5.1", true},
		{"temporal version 1.5.0 (Server 1.5.1, UI 2.42.1)", "v1.5.1", false},
		{"usage: consul", "v1.21.0", false},
	} {
		require.Equal(t, tc.ok, saysVersion(tc.answer, tc.want), tc.answer)
	}
	_, err := Build(t.Context(), "zookeeper")
	require.ErrorContains(t, err, "no such tool")
}

func TestProgressNamesTheWait(t *testing.T) {
	var said bytes.Buffer
	Progress = &said
	defer func() { Progress = os.Stderr }()
	path := filepath.Join(t.TempDir(), "tool.lock")
	ctx, cancel := context.WithCancel(t.Context())
	_ = Locked(ctx, path, func() error {
		cancel()
		return Locked(ctx, path, func() error { return nil })
	})
	require.Contains(t, said.String(), "Another process is making tool; waiting for it.")
}

// Two labs that start at the same moment must not be given the same port: one would talk to the other's server.
func TestAFreePortIsGivenOnce(t *testing.T) {
	ports, err := FreePorts(t.Context(), 20)
	require.NoError(t, err)
	for _, port := range ports {
		_, err := new(net.ListenConfig).Listen(t.Context(), "tcp", fmt.Sprintf("127.0.0.2:%d", port))
		require.Error(t, err, "another process could claim %d", port)
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", port))
		require.NoError(t, err, "the server itself must find %d free", port)
		require.NoError(t, l.Close())
	}
}
