package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// settingsOf loads settings from a file's text, an environment and flags. FOLDER stands for one that exists.
func settingsOf(t *testing.T, file string, environ, args []string) (Settings, error) {
	t.Helper()
	dir := t.TempDir()
	f := flags()
	if file != "" {
		path := filepath.Join(dir, "worker.yaml")
		require.NoError(t, os.WriteFile(path, []byte(strings.ReplaceAll(file, "FOLDER", dir)), 0o600))
		args = append([]string{"--config", path}, args...)
	}
	require.NoError(t, f.Parse(args))
	return load(f, func() []string { return environ })
}

// good is what is needed at least, and spelt as people write YAML.
const good = `
temporal: {address: "temporal:7233", taskQueue: moves}
runbooks: FOLDER
vault: {address: "https://vault:8200", roleIdFile: /run/role, secretIdFile: /run/secret}
stopTimeout: 20s
`

func TestSettingsComeFromDefaultsFileEnvironmentAndFlagsInThisOrder(t *testing.T) {
	s, err := settingsOf(t, good, nil, nil)
	require.NoError(t, err)
	require.Equal(t, "temporal:7233", s.Temporal.Address)
	require.Equal(t, "moves", s.Temporal.TaskQueue)
	require.Equal(t, "default", s.Temporal.Namespace)
	require.Equal(t, "/run/role", s.Vault.RoleIDFile)
	require.Equal(t, 20*time.Second, s.StopTimeout)
	require.False(t, s.Temporal.TLS.on())

	environ := []string{"SWITCHBACK_TEMPORAL_ADDRESS=env:7233", "SWITCHBACK_TEMPORAL_TASKQUEUE=env", "SWITCHBACK_TEMPORAL_TLS_ENABLED=true",
		"SWITCHBACK_STOPTIMEOUT=7s", "SWITCHBACK_BY=ann", "SWITCHBACK_KILLPOINTS=points", "HOME=/root"}
	s, err = settingsOf(t, good, environ, []string{"--temporal.address", "flag:7233"})
	require.NoError(t, err)
	require.Equal(t, "flag:7233", s.Temporal.Address)
	require.Equal(t, "env", s.Temporal.TaskQueue)
	require.Equal(t, 7*time.Second, s.StopTimeout)
	require.True(t, s.Temporal.TLS.on())
}

func TestEverySettingCanBeWrittenInFileEnvironmentAndFlag(t *testing.T) {
	file := `
temporal:
  address: t:1
  namespace: ns
  taskQueue: q
  tls: {enabled: true, ca: /ca, cert: /cert, key: /key, serverName: name}
runbooks: FOLDER
reports: /reports
vault:
  address: http://v:2
  namespace: vns
  appRoleMount: roles
  tokenFile: /token
  tls: {ca: /vca, cert: /vcert, key: /vkey}
metrics: {address: ":9090"}
log: {level: debug, format: text}
stopTimeout: 1m
`
	s, err := settingsOf(t, file, nil, nil)
	require.NoError(t, err)
	var want Settings
	want.Temporal.Address, want.Temporal.Namespace, want.Temporal.TaskQueue = "t:1", "ns", "q"
	want.Temporal.TLS = TLS{PEMFiles: PEMFiles{"/ca", "/cert", "/key"}, Enabled: true, ServerName: "name"}
	want.Runbooks, want.Reports = s.Runbooks, "/reports"
	want.Vault.Address, want.Vault.Namespace, want.Vault.AppRoleMount, want.Vault.TokenFile = "http://v:2", "vns", "roles", "/token"
	want.Vault.TLS = PEMFiles{"/vca", "/vcert", "/vkey"}
	want.Metrics.Address, want.Log.Level, want.Log.Format, want.StopTimeout = ":9090", "debug", "text", time.Minute
	require.Equal(t, want, s)
}

func TestWrongSettingsAreSaidInASentence(t *testing.T) {
	for name, c := range map[string]struct {
		file    string
		environ []string
		args    []string
		says    string
	}{
		"unknown key":            {file: good + "retries: 3\n", says: "unknown key retries: there are temporal.address"},
		"misspelt key":           {file: strings.Replace(good, "roleIdFile", "role_id_file", 1), says: "unknown key vault.role_id_file: did you mean vault.roleidfile?"},
		"key in the wrong place": {file: good + "address: x:1\n", says: "unknown key address: did you mean temporal.address or vault.address or metrics.address?"},
		"twice":                  {file: good + "stoptimeout: 3s\n", says: "stoptimeout stands there twice"},
		"config in the file":     {file: good + "config: x\n", says: "unknown key config"},
		"not YAML":               {file: "temporal: [", says: "read settings"},
		"no such file":           {args: []string{"--config", "/nonexistent/worker.yaml"}, says: "read settings /nonexistent/worker.yaml"},
		"unknown variable":       {file: good, environ: []string{"SWITCHBACK_TEMPORAL_ADRESS=x:1"}, says: "the environment has SWITCHBACK_TEMPORAL_ADRESS, which is no setting"},
		"no port":                {file: good, args: []string{"--temporal.address", "temporal"}, says: `temporal.address is "temporal": give host:port`},
		"no namespace":           {file: good, args: []string{"--temporal.namespace="}, says: "temporal.namespace is empty"},
		"no task queue":          {file: good, args: []string{"--temporal.taskqueue="}, says: "temporal.taskQueue is empty"},
		"half a certificate":     {file: good, args: []string{"--temporal.tls.cert=/c"}, says: "temporal.tls needs both of cert and key"},
		"half of Vault's":        {file: good, args: []string{"--vault.tls.key=/k"}, says: "vault.tls needs both of cert and key"},
		"no Vault":               {file: "runbooks: FOLDER\n", says: `vault.address is "": give the URL of Vault, such as https://vault:8200`},
		"Vault without a scheme": {file: good, args: []string{"--vault.address", "vault:8200"}, says: `vault.address is "vault:8200": give the URL`},
		"no login":               {file: good, args: []string{"--vault.secretidfile="}, says: "the way to log in to Vault is not clear"},
		"two logins":             {file: good, args: []string{"--vault.tokenfile=/t"}, says: "the way to log in to Vault is not clear"},
		"level":                  {file: good, args: []string{"--log.level", "loud"}, says: `log.level is "loud": use debug, info, warn or error`},
		"format":                 {file: good, args: []string{"--log.format", "xml"}, says: `log.format is "xml": use json or text`},
		"time without unit":      {file: strings.Replace(good, "20s", "20", 1), says: "stopTimeout is 20ns: give a second or more, with its unit"},
		"no time":                {file: strings.Replace(good, "20s", "soon", 1), says: "stoptimeout"},
		"no reports":             {file: good, args: []string{"--reports="}, says: "reports is empty"},
		"no folder":              {file: good, args: []string{"--runbooks", "/nonexistent"}, says: `runbooks: "/nonexistent" is not a folder`},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := settingsOf(t, c.file, c.environ, c.args)
			require.ErrorContains(t, err, c.says)
		})
	}
}

func TestAllThatIsWrongIsSaidAtOnce(t *testing.T) {
	_, err := settingsOf(t, "runbooks: FOLDER\nlog: {level: loud}\n", nil, nil)
	require.ErrorContains(t, err, "vault.address")
	require.ErrorContains(t, err, "log.level")
}
