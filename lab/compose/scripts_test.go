package compose_test

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"switchback/lab/servers"
)

// TestHealthOfConnect runs the script that a container asks with, in the folder that it finds.
func TestHealthOfConnect(t *testing.T) {
	root, err := servers.Root()
	require.NoError(t, err)
	made := folder(t, root)
	status := http.StatusOK
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		logins, err := os.ReadFile(filepath.Join(made, "connect", "west", "logins.properties"))
		user, password, ok := r.BasicAuth()
		if err != nil || !ok || user+"="+password+"\n" != string(logins) || r.URL.Path != "/health" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.WriteHeader(status)
	}))
	defer web.Close()
	ask := func(side string) error {
		cmd := exec.Command("bash", filepath.Join(root, "lab", "compose", "connect-health.sh"))
		cmd.Dir, cmd.Env = filepath.Join(made, "connect", side), append(os.Environ(), "CONNECT_LISTENERS="+web.URL)
		return cmd.Run()
	}
	require.NoError(t, ask("west"))
	status = http.StatusInternalServerError
	require.Error(t, ask("west"))
	status = http.StatusOK
	require.NoError(t, os.WriteFile(filepath.Join(made, "connect", "east", "logins.properties"), []byte("switchback=wrong\n"), 0o600))
	require.Error(t, ask("east"), "another password")
	web.Close()
	require.Error(t, ask("west"), "nobody listens")
}

// tool stands in for temporal-sql-tool: it writes down what it was given.
const tool = `#!/bin/sh
echo "$SQL_PASSWORD" "$@" >>"$CALLS"
`

// TestSchemaOfTemporal: the password is read from the file and stands in no argument; both databases get their own schema.
func TestSchemaOfTemporal(t *testing.T) {
	root, err := servers.Root()
	require.NoError(t, err)
	script, err := os.ReadFile(filepath.Join(root, "lab", "compose", "temporal-schema.sh"))
	require.NoError(t, err)
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, []byte(text), 0o700))
		return path
	}
	password := file("password", "from-the-file")
	file("temporal-sql-tool", tool)
	const where = "/run/secrets/postgres-password-of-temporal"
	require.Contains(t, string(script), where)
	cmd := exec.Command("sh", file("schema.sh", strings.ReplaceAll(string(script), where, password)))
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "CALLS="+filepath.Join(dir, "calls"))
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	calls, err := os.ReadFile(filepath.Join(dir, "calls"))
	require.NoError(t, err)
	const at = "from-the-file --plugin postgres12 --endpoint postgres --port 5432 --user temporal --database "
	require.Equal(t, at+"temporal create-database\n"+
		at+"temporal setup-schema --version 0.0\n"+
		at+"temporal update-schema --schema-name postgresql/v12/temporal\n"+
		at+"temporal_visibility create-database\n"+
		at+"temporal_visibility setup-schema --version 0.0\n"+
		at+"temporal_visibility update-schema --schema-name postgresql/v12/visibility\n", string(calls))
}
