package servers

import (
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	vaulthttp "github.com/hashicorp/vault/http"
	"github.com/hashicorp/vault/internalshared/configutil"
	"github.com/hashicorp/vault/vault"
	"github.com/stretchr/testify/require"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"switchback/internal/secret"
)

// TestNamespaceAndAttributesAreMade uses a namespace that the server was not started with.
func TestNamespaceAndAttributesAreMade(t *testing.T) {
	ctx, dir, tr := t.Context(), t.TempDir(), newTree(t)
	program, err := Build(ctx, "temporal")
	require.NoError(t, err)
	p := ports(t, 3)
	c := TemporalConfig{Program: program, Dir: dir, Log: filepath.Join(dir, "temporal.log"), Port: p[0], UIPort: p[1], HTTPPort: p[2]}
	require.NoError(t, tr.Start(ctx, Temporal(c)))
	for range 2 { // the second time everything is there
		require.NoError(t, ProvisionTemporal(ctx, c.Address(), "fresh"))
	}
	server, err := client.Dial(client.Options{HostPort: c.Address(), Namespace: "fresh", Logger: Silent{}})
	require.NoError(t, err)
	defer server.Close()
	for _, name := range SearchAttributes {
		require.Eventually(t, func() bool { // history looks namespaces up in its own time
			_, err = server.ExecuteWorkflow(ctx, client.StartWorkflowOptions{
				ID: name, TaskQueue: "nobody's", TypedSearchAttributes: temporal.NewSearchAttributes(temporal.NewSearchAttributeKeyKeyword(name).ValueSet("orders")),
			}, "Nothing")
			return err == nil
		}, 30*time.Second, 50*time.Millisecond, "%v", err)
	}
}

func TestVaultOfSomebodyElseIsOpened(t *testing.T) {
	data, keysDir := t.TempDir(), t.TempDir()
	serve := func() (address string, end func()) {
		core, err := vaultCore(VaultConfig{Dir: data})
		require.NoError(t, err)
		web := httptest.NewServer(vaulthttp.Handler.Handler(&vault.HandlerProperties{Core: core, ListenerConfig: &configutil.Listener{}}))
		return web.URL, func() {
			web.Close()
			require.NoError(t, core.Shutdown())
		}
	}
	address, end := serve()
	keys, err := InitializeVault(t.Context(), address, nil, keysDir)
	require.NoError(t, err)
	kept, err := ReadVaultKeys(keysDir)
	require.NoError(t, err)
	require.Equal(t, keys.RootToken.Reveal(), kept.RootToken.Reveal())
	for range 2 {
		require.NoError(t, UnsealVault(t.Context(), address, nil, kept))
	}
	_, err = InitializeVault(t.Context(), address, nil, keysDir)
	require.ErrorContains(t, err, "was initialized by somebody else")
	end()

	address, end = serve() // sealed again
	defer end()
	wrong := VaultKeys{Unseal: secret.New(strings.Repeat("00", 32))}
	require.Error(t, UnsealVault(t.Context(), address, nil, wrong))
	require.NoError(t, UnsealVault(t.Context(), address, nil, kept))
}
