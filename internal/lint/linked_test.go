package lint

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestNothingUnderABusinessSourceLicenceIsLinked: of Consul and Vault only the API clients, which are under the MPL, are
// part of the product; the servers are run by the lab as programs of their own.
func TestNothingUnderABusinessSourceLicenceIsLinked(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "-f", "{{with .Module}}{{.Path}}{{end}}", "switchback/worker", "switchback/starter", "switchback/supervisor").CombinedOutput()
	require.NoError(t, err, string(out))
	linked := map[string]bool{}
	for _, module := range strings.Fields(string(out)) {
		linked[module] = true
	}
	require.True(t, linked["github.com/hashicorp/vault/api"], "the list is not what it seems: %v", linked)
	require.True(t, linked["go.temporal.io/sdk"])
	for _, server := range []string{"github.com/hashicorp/vault", "github.com/hashicorp/vault/sdk", "github.com/hashicorp/consul", "go.temporal.io/server", "switchback/lab"} {
		require.False(t, linked[server], "%s is linked into the product", server)
	}
	all, err := exec.Command("go", "list", "-m", "-f", "{{.Path}}", "all").CombinedOutput()
	require.NoError(t, err, string(all))
	for module := range strings.Lines(string(all)) {
		switch strings.TrimSpace(module) {
		case "github.com/hashicorp/vault", "github.com/hashicorp/consul":
			t.Errorf("%s is in the product's build list", strings.TrimSpace(module))
		}
	}
}
