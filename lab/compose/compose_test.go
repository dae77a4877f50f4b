// Package compose holds the files that docker-compose.yml mounts beside those of package apache, and the tests that keep it
// true. No container engine is needed, and none is used: the file is loaded with the library that `docker compose` loads it
// with, and every image, command, flag, file, variable, secret and place in it is held against the repository, against what
// `lab provision secrets` makes, and against the programs themselves. What is inside of other people's images is written down
// in commands_test.go and not looked up.
//
// Start reading at TestComposeFile; check_test.go and commands_test.go are the checks.
package compose_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"switchback/lab/cli"
	"switchback/lab/servers"
	"switchback/lab/setup"
	"switchback/runbooks"
)

// folder is what a container finds at /lab, as the first job makes it, and as a second `up` leaves it.
func folder(t *testing.T, root string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "lab")
	for range 2 {
		var out bytes.Buffer
		code := cli.Run(t.Context(), []string{"provision", "secrets", "--config", filepath.Join(root, "lab", "compose", "provision.yaml"), "--dir", dir}, &out, &out)
		require.Zero(t, code, out.String())
	}
	return dir
}

// places where servers are, by the name that the settings have for them: hosts and ports of services.
func (c *check) places() {
	aliases := map[string]bool{}
	for name, s := range c.project.Services {
		aliases[name] = true
		for _, n := range s.Networks {
			if n != nil {
				for _, a := range n.Aliases {
					aliases[a] = true
				}
			}
		}
		for network := range s.Networks {
			side, internal := strings.CutSuffix(network, "-internal")
			if internal && name != "kafka-"+side && name != "servers" {
				c.wrong(name, "is in the network %s, where nobody is asked who they are", network)
			}
		}
	}
	for server, host := range c.settings.Hosts {
		if !aliases[host] {
			c.wrong("provision.yaml", "%s is at %s, which is no service", server, host)
		}
	}
	for _, cluster := range setup.Clusters {
		broker := c.project.Services["kafka-"+cluster]
		if id := broker.Environment["KAFKA_CLUSTER_ID"]; id == nil || *id != c.settings.ClusterIDs[cluster] {
			c.wrong("kafka-"+cluster, "its cluster id is not that of provision.yaml")
		}
		for server, listener := range map[string]string{cluster: "CLIENT", cluster + "-internal": "INTERNAL"} {
			at := listener + "://" + c.settings.Address(server)
			if given := broker.Environment["KAFKA_ADVERTISED_LISTENERS"]; given == nil || !slices.Contains(strings.Split(*given, ","), at) {
				c.wrong("kafka-"+cluster, "does not advertise %s", at)
			}
		}
		worker := setup.ConnectProcess(cluster)
		for variable, want := range map[string]string{"CONNECT_GROUP": worker, "CONNECT_BOOTSTRAP": c.settings.Address(cluster), "CONNECT_LISTENERS": "http://" + c.settings.Address(worker)} {
			if given := c.project.Services[worker].Environment[variable]; given == nil || *given != want {
				c.wrong(worker, "%s is not %s", variable, want)
			}
		}
		if c.project.Services[worker].NetworkMode != c.project.Services["worker"].NetworkMode {
			c.wrong(worker, "listens at 127.0.0.1, and the worker has another network")
		}
	}
}

// workload: the clients are those that the runbook waits for, on the topics that are made.
func (c *check) workload() {
	for _, w := range c.settings.Workloads {
		for _, client := range w.Clients {
			found := 0
			for name, s := range c.project.Services {
				words := slices.Concat(s.Entrypoint, s.Command)
				if !slices.Contains(words, "--client="+client.Name) {
					continue
				}
				found++
				want := []string{"--instance=" + name, "--consul-prefix=" + setup.Prefix(w.Name), client.Role, "--topics=" + strings.Join(w.TopicNames(), ",")}
				if client.Group != "" {
					want = append(want, "--group="+client.Group)
				}
				for _, word := range want {
					if !slices.Contains(words, word) {
						c.wrong(name, "is not started with %s", word)
					}
				}
			}
			if found != client.Instances {
				c.wrong(client.Name, "has %d services, and the runbook waits for %d", found, client.Instances)
			}
		}
	}
}

// open is a check of the compose file of this repository.
func open(t *testing.T) (c check, file []byte) {
	t.Helper()
	root, err := servers.Root()
	require.NoError(t, err)
	file, err = os.ReadFile(filepath.Join(root, "docker-compose.yml"))
	require.NoError(t, err)
	dockerfile, err := os.ReadFile(filepath.Join(root, "Dockerfile"))
	require.NoError(t, err)
	c = check{root: root, made: folder(t, root), programs: openPrograms(t, dockerfile)}
	c.settings, err = setup.ReadElsewhere(filepath.Join(root, "lab", "compose", "provision.yaml"))
	require.NoError(t, err)
	var made map[string]string
	require.NoError(t, servers.ReadJSON(filepath.Join(c.made, "secrets.json"), &made))
	for _, value := range made {
		c.secrets = append(c.secrets, []byte(value))
	}
	require.Greater(t, len(c.secrets), 20)
	return c, file
}

func TestComposeFile(t *testing.T) {
	c, file := open(t)
	var err error
	c.project, err = load(t.Context(), c.root, file)
	require.NoError(t, err)
	require.Greater(t, len(c.project.Services), 15)
	require.Empty(t, c.all(file))

	ignored, err := os.ReadFile(filepath.Join(c.root, ".gitignore"))
	require.NoError(t, err)
	require.Contains(t, strings.Split(string(ignored), "\n"), "/.compose/")
	ignored, err = os.ReadFile(filepath.Join(c.root, ".dockerignore"))
	require.NoError(t, err)
	require.Contains(t, strings.Split(string(ignored), "\n"), ".compose", "secrets would be copied into an image")
}

// TestSpoiledComposeFiles: every check can fail.
func TestSpoiledComposeFiles(t *testing.T) {
	whole, file := open(t)
	for name, tc := range map[string]struct{ was, is, says string }{
		"no version":            {"image: postgres:17.6", "image: postgres:latest", "postgres: image postgres:latest is not pinned"},
		"another Kafka":         {"x-connect: &connect\n  image: apache/kafka:4.3.1", "x-connect: &connect\n  image: apache/kafka:4.2.0", "is not the version that the lab runs"},
		"no Dockerfile":         {"build: {context: .}", "build: {context: ./docs}", "without a Dockerfile"},
		"no health check":       {"    healthcheck:\n      test: [CMD, nc, -z, 127.0.0.1, \"7233\"]\n      interval: 2s\n      retries: 60\n", "", "temporal: goes on, and has no health check"},
		"waits for an end":      {"vault: {condition: service_healthy}", "vault: {condition: service_completed_successfully}", "servers: waits for vault"},
		"waits for nobody":      {"connect-west: {condition: service_healthy}", "connect-north: {condition: service_healthy}", "undefined service"},
		"root":                  {"image: hashicorp/consul:1.21.5\n    user: \"100:1000\"", "image: hashicorp/consul:1.21.5\n    user: \"0:0\"", "consul: runs as root"},
		"no user":               {"image: postgres:17.6\n    user: \"999:999\"\n", "image: postgres:17.6\n", "postgres: reads files and names no user"},
		"another reader":        {"--own=postgres/password=999:999", "--own=postgres/password=70:70", "but it belongs to 70:70"},
		"no such file":          {"./lab/compose/vault.hcl:", "./lab/compose/vault.json:", "neither the repository has nor the set-up makes"},
		"not made":              {"./.compose/reports:/lab/reports", "./.compose/report:/lab/reports", "neither the repository has nor the set-up makes"},
		"writes the repository": {"./lab/compose/vault.hcl:/etc/lab/vault.hcl:ro", "./lab/compose/vault.hcl:/etc/lab/vault.hcl", "vault: may write"},
		"variable missing":      {"      KAFKA_MIN_ISR: \"1\"\n", "", "kafka-east: a file asks for the variable KAFKA_MIN_ISR"},
		"variable of a script":  {"      KAFKA_CLUSTER_ID: c3dpdGNoYmFjay1lYXN0MQ\n", "", "kafka-east: a file asks for the variable KAFKA_CLUSTER_ID"},
		"variable unknown":      {"CONNECT_EXACTLY_ONCE: disabled", "CONNECT_EXACTLY_ONCE: disabled\n      CONNECT_EXACTLY_TWICE: disabled", "nobody asks for the variable CONNECT_EXACTLY_TWICE"},
		"secret in a variable":  {"POSTGRES_DB: temporal", "POSTGRES_DB: temporal\n      POSTGRES_PASSWORD: temporal", "POSTGRES_PASSWORD would hold a secret"},
		"secret from outside":   {"worker-role-id: {file: .compose/parts/worker/role-id}", "worker-role-id: {environment: ROLE}", "secret worker-role-id: is no file"},
		"secret in git":         {"{file: .compose/parts/worker/role-id}", "{file: ./README.md}", "lies outside of .compose"},
		"secret not made":       {"{file: .compose/parts/worker/role-id}", "{file: .compose/parts/worker/role}", "nobody makes"},
		"secret without reader": {"secrets: [postgres-password]", "secrets: []", "secret postgres-password: nobody reads it"},
		"program of nobody":     {"entrypoint: [worker]", "entrypoint: [workers]", "worker: runs workers"},
		"program of another":    {"test: [CMD, nc, -z, 127.0.0.1, \"7233\"]", "test: [CMD, curl, \"http://127.0.0.1:7233\"]", "temporal: runs curl"},
		"unknown command":       {"entrypoint: [lab, provision, connectors]", "entrypoint: [lab, provision, connector]", "connectors: there is no command"},
		"unknown flag of lab":   {"command: [--config=/etc/lab/provision.yaml, --dir=/lab]\n    depends_on:\n      connect-west", "command: [--configs=/etc/lab/provision.yaml, --dir=/lab]\n    depends_on:\n      connect-west", "lab has no flag --configs"},
		"unknown flag of ours":  {"--metrics.address=", "--metrics.addr=", "worker has no flag --metrics.addr"},
		"unknown flag, wrapper": {"- --client=billing", "- --client-name=billing", "supervisor has no flag --client-name"},
		"unknown flag, wrapped": {"--group=shipping]", "--group=shipping, --sleep=1]", "lab has no flag --sleep"},
		"not mounted":           {"      - {source: worker-secret-id, target: /lab/parts/worker/secret-id}\n", "", "secret worker-secret-id: nobody reads it"},
		"settings not mounted":  {"      - ./.compose/worker:/lab/worker:ro\n", "", "worker: names /lab/worker/settings.yaml, where nothing is mounted"},
		"script not mounted":    {"      - ./lab/compose/broker.sh:/etc/lab/broker.sh:ro\n      - kafka-east:", "      - kafka-east:", "kafka-east: names /etc/lab/broker.sh"},
		"open to all":           {"\"127.0.0.1:8200:8200\"", "\"8200:8200\"", "vault: publishes port 8200"},
		"into the back room":    {"image: temporalio/ui:2.42.1\n", "image: temporalio/ui:2.42.1\n    networks: [default, east-internal]\n", "temporal-ui: is in the network east-internal"},
		"another cluster":       {"KAFKA_CLUSTER_ID: c3dpdGNoYmFjay13ZXN0MQ", "KAFKA_CLUSTER_ID: c3dpdGNoYmFjay1lYXN0MQ", "kafka-west: its cluster id"},
		"another address":       {"ADVERTISED_LISTENERS: CLIENT://kafka-west:9092", "ADVERTISED_LISTENERS: CLIENT://west:9092", "kafka-west: does not advertise CLIENT://kafka-west:9092"},
		"another network":       {"entrypoint: [worker]\n    network_mode: service:beside-connect\n", "entrypoint: [worker]\n", "connect-west: listens at 127.0.0.1"},
		"another group":         {"CONNECT_GROUP: connect-west", "CONNECT_GROUP: connect", "connect-west: CONNECT_GROUP is not connect-west"},
		"no such host":          {"  temporal:\n    image", "  temporal-server:\n    image", "undefined service"},
		"another topic":         {"--instance=billing-1, --ledger=/lab/ledger, \"--topics=orders.00,orders.01,", "--instance=billing-1, --ledger=/lab/ledger, \"--topics=orders.00,", "billing-1: is not started with --topics"},
		"an instance too few":   {"--client=shipping", "--client=checkout", "has 0 services, and the runbook waits for 1"},
	} {
		t.Run(name, func(t *testing.T) {
			require.GreaterOrEqual(t, bytes.Count(file, []byte(tc.was)), 1, "the file has changed: spoil it in another way")
			spoiled := []byte(strings.Replace(string(file), tc.was, tc.is, 1))
			c := whole
			project, err := load(t.Context(), c.root, spoiled)
			if err != nil {
				require.ErrorContains(t, err, tc.says)
				return
			}
			c.project = project
			require.Contains(t, strings.Join(c.all(spoiled), "\n"), tc.says)
		})
	}
	t.Run("a secret in the file", func(t *testing.T) {
		c := whole
		spoiled := append(slices.Clone(file), "\n# "+string(c.secrets[0])+"\n"...)
		var err error
		c.project, err = load(t.Context(), c.root, spoiled)
		require.NoError(t, err)
		require.Contains(t, c.all(spoiled), "the file holds a secret")
	})
}

// TestWhatTheFirstJobMakes: files lead to the servers of the compose file, secrets are nowhere but in files of mode 0600.
func TestWhatTheFirstJobMakes(t *testing.T) {
	root, err := servers.Root()
	require.NoError(t, err)
	dir := folder(t, root)
	loaded, err := runbooks.Load(filepath.Join(dir, "runbooks", "orders.yaml"))
	require.NoError(t, err)
	r := loaded.Runbook
	require.Equal(t, []string{"kafka-west:9092"}, r.Clusters["west"].Bootstrap)
	require.Equal(t, "https://consul:8500", r.Discovery[0].Consul.Address)
	require.Equal(t, []string{"http://127.0.0.1:8083"}, r.Links[0].MirrorMaker.Connect)

	settings, err := os.ReadFile(filepath.Join(dir, "worker", "settings.yaml"))
	require.NoError(t, err)
	require.Contains(t, string(settings), "temporal:7233")
	require.Contains(t, string(settings), "https://vault:8200")
	var consul struct {
		Listen string `json:"client_addr"`
		Data   string `json:"data_dir"`
	}
	text, err := os.ReadFile(filepath.Join(dir, "consul", "settings.json"))
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &consul))
	require.Equal(t, "0.0.0.0 /consul/data", consul.Listen+" "+consul.Data)
	passwords, err := os.ReadFile(filepath.Join(dir, "connect", "west", "secrets.properties"))
	require.NoError(t, err)
	for _, key := range []string{"connect=", "mm2-data=", "mm2-admin.east=", "mm2-admin.west="} {
		require.Contains(t, string(passwords), key)
	}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		require.NoError(t, err)
		if d.Type().IsRegular() {
			info, err := d.Info()
			require.NoError(t, err)
			want := os.FileMode(0o600)
			if name := filepath.Base(path); name == "ca.pem" || name == "server.pem" {
				want = 0o644 // no secrets
			}
			require.Equal(t, want, info.Mode(), path)
		}
		return nil
	}))
}

func TestAFolderServesOneSetUp(t *testing.T) {
	root, err := servers.Root()
	require.NoError(t, err)
	dir := folder(t, root)
	file := filepath.Join(root, "lab", "compose", "provision.yaml")
	right, err := os.ReadFile(file)
	require.NoError(t, err)
	for name, tc := range map[string]struct{ was, is, says string }{
		"other servers": {"consul: consul\n", "consul: consul-2\n", "was made for other servers"},
		"unknown key":   {"policy: identity", "polcy: identity", "unknown field"},
		"no TLS":        {"tls: true\n", "", "passwords would go from host to host in the clear"},
		"no port":       {"  vault: [8200]\n", "", "ports has no vault"},
		"a double":      {"kafka: apache", "kafka: kfake", "kafka and link have to be apache and mirrormaker"},
		"no id":         {"west: c3dpdGNoYmFjay13ZXN0MQ", "north: c3dpdGNoYmFjay13ZXN0MQ", "clusterIds has no west"},
	} {
		t.Run(name, func(t *testing.T) {
			require.Contains(t, string(right), tc.was)
			spoiled := filepath.Join(t.TempDir(), "provision.yaml")
			require.NoError(t, os.WriteFile(spoiled, []byte(strings.Replace(string(right), tc.was, tc.is, 1)), 0o600))
			var out bytes.Buffer
			require.NotZero(t, cli.Run(t.Context(), []string{"provision", "secrets", "--config", spoiled, "--dir", dir}, &out, &out))
			require.Contains(t, out.String(), tc.says)
		})
	}
}

func TestOwnersAreWrittenAsNumbers(t *testing.T) {
	for _, flag := range []string{"--owner=switchback", "--owner=1000", "--own=1000:1000", "--own=consul/settings.json=consul:consul"} {
		var out bytes.Buffer
		require.Equal(t, 2, cli.Run(t.Context(), []string{"provision", "secrets", flag, "--dir", t.TempDir()}, &out, &out), flag)
		require.Contains(t, out.String(), "is no owner")
	}
}
