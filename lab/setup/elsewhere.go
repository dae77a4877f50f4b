package setup

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	"go.temporal.io/sdk/client"
	"golang.org/x/sync/errgroup"

	"switchback/lab/servers"
)

// Elsewhere is a lab whose servers somebody else starts, such as docker-compose.yml: where they are, and what is to be in
// them. Its file has the keys of lab.json, and workloads.
type Elsewhere struct {
	State
	// Workloads as Options has them; DefaultWorkload("orders") when there are none.
	Workloads []Workload `json:"workloads"`
}

// ReadElsewhere reads the file (YAML). An unknown key is an error, and so is a server without a place.
func ReadElsewhere(file string) (Elsewhere, error) {
	var e Elsewhere
	text, err := os.ReadFile(file)
	if err != nil {
		return e, fmt.Errorf("read where the servers are: %w", err)
	}
	data, err := yaml.YAMLToJSON(text)
	if err != nil {
		return e, fmt.Errorf("read where the servers are in %s: %w", file, err)
	}
	strict := json.NewDecoder(strings.NewReader(string(data)))
	strict.DisallowUnknownFields()
	if err := strict.Decode(&e); err != nil {
		return e, fmt.Errorf("read where the servers are in %s: %w", file, err)
	}
	if err := e.check(); err != nil {
		return e, fmt.Errorf("read where the servers are in %s: %w", file, err)
	}
	return e, nil
}

func (e Elsewhere) check() error {
	if e.Kafka != Apache || e.Link != MirrorMaker {
		return fmt.Errorf("kafka and link have to be %s and %s: the doubles live in the lab's own processes", Apache, MirrorMaker)
	}
	need := []string{"consul", "consul-inner", "vault", "temporal", "postgres"}
	for _, cluster := range Clusters {
		if e.ClusterIDs[cluster] == "" {
			return fmt.Errorf("clusterIds has no %s: give the id that its brokers' folders are formatted with", cluster)
		}
		need = append(need, cluster, cluster+"-internal", cluster+"-controller", ConnectProcess(cluster))
	}
	if !e.TLS && len(e.Hosts) > 0 {
		return errors.New("tls has to be true: passwords would go from host to host in the clear")
	}
	for _, name := range need {
		if len(e.Ports[name]) == 0 {
			return fmt.Errorf("ports has no %s: give the ports that it listens on", name)
		}
	}
	if len(e.Ports["consul-inner"]) != 2 {
		return errors.New("ports.consul-inner has to be two: of RPC and gossip")
	}
	return nil
}

// OpenElsewhere opens the lab in a folder. What is in the folder stays as it is; a folder that was made for other servers is
// refused.
func OpenElsewhere(ctx context.Context, dir string, e Elsewhere) (*Lab, error) {
	var made State
	switch err := servers.ReadJSON(filepath.Join(dir, "lab.json"), &made); {
	case errors.Is(err, fs.ErrNotExist):
		if err := servers.WriteJSON(filepath.Join(dir, "lab.json"), e.State); err != nil {
			return nil, err
		}
	case err != nil:
		return nil, err
	case !reflect.DeepEqual(made, e.State):
		return nil, fmt.Errorf("%s was made for other servers than those of the settings: remove it and the servers' data, or take its settings back", dir)
	}
	return open(ctx, Options{
		Dir: dir, Kafka: e.Kafka, Link: e.Link, Policy: e.Policy, Brokers: len(e.Ports[Clusters[0]]), Workloads: e.Workloads,
	})
}

// WriteFiles writes everything that is read from files: secrets, each in a file of mode 0600, the settings of the servers and
// the worker, runbooks; and makes the folders that programs write to. It is the first thing to be done, before a server
// starts, and may be done again: what was made up once stays.
func (l *Lab) WriteFiles() error {
	if err := l.writeSecrets(); err != nil {
		return err
	}
	if err := errors.Join(l.makeDirs(), os.MkdirAll(l.path("vault"), 0o700)); err != nil {
		return err
	}
	if err := l.writeTemporalFiles(); err != nil {
		return err
	}
	if l.certs.on() { // two certificates are for everybody's eyes
		if err := errors.Join(os.Chmod(l.certs.ca, 0o644), os.Chmod(l.certs.cert, 0o644)); err != nil { //nolint:gosec // not the key
			return err
		}
	}
	if _, err := l.consulConfig(everywhereConsul).WriteSettings(); err != nil {
		return err
	}
	for _, cluster := range Clusters {
		if err := l.connectWorker(cluster).WriteFiles(); err != nil {
			return err
		}
	}
	if _, err := l.writeWorkerSettings(); err != nil {
		return err
	}
	return l.writeRunbooks()
}

// writeTemporalFiles writes the settings of a Temporal on Postgres, and Postgres' password.
func (l *Lab) writeTemporalFiles() error {
	password := l.secrets.password("postgres/temporal")
	if err := l.secrets.save(); err != nil {
		return err
	}
	for _, reader := range []string{"postgres", "temporal"} { // each has a user of its own
		if err := servers.WriteFile(l.path(reader, "password"), []byte(password.Reveal())); err != nil {
			return err
		}
	}
	postgres := servers.Postgres{Address: l.state.address("postgres"), User: "temporal", Password: password}
	settings, err := servers.TemporalOnPostgres(l.state.Ports["temporal"][0], postgres)
	if err != nil {
		return err
	}
	return servers.WriteFile(l.path("temporal", "compose.yaml"), settings)
}

// Provision puts into servers that run what belongs there: users, ACLs and topics, keys and tokens, secrets and roles, the
// namespace. The functions are those of Up. Connect can start only after it: its users are made here.
func (l *Lab) Provision(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return servers.ProvisionTemporal(ctx, l.TemporalAddress(), client.DefaultNamespace) })
	g.Go(func() error { return l.provisionConsul(ctx) })
	g.Go(func() error { return l.provisionVault(ctx) })
	for _, cluster := range Clusters {
		g.Go(func() error {
			if err := l.setUsers(ctx, cluster); err != nil {
				return err
			}
			return l.provisionKafka(ctx, cluster)
		})
	}
	return g.Wait()
}

// ProvisionConnectors makes the connectors of MirrorMaker 2, and returns when they run.
func (l *Lab) ProvisionConnectors(ctx context.Context) error { return l.createConnectors(ctx) }

// OpenVault initializes a Vault that is new, keeping its keys in the lab's folder, and unseals it. A real Vault's keys would
// never lie beside everything else; here it has to come back by itself.
func (l *Lab) OpenVault(ctx context.Context) error {
	keys, err := servers.ReadVaultKeys(l.path("vault"))
	if errors.Is(err, fs.ErrNotExist) {
		keys, err = servers.InitializeVault(ctx, l.VaultURL(), l.certs.http(), l.path("vault"))
	}
	if err != nil {
		return err
	}
	return servers.UnsealVault(ctx, l.VaultURL(), l.certs.http(), keys)
}

// KeepVaultOpen does OpenVault again and again until the context ends: a Vault that starts again is sealed. say is told what
// is in the way, once until it changes.
func (l *Lab) KeepVaultOpen(ctx context.Context, say func(string)) error {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	last := ""
	for {
		now := "Vault is open."
		if err := l.OpenVault(ctx); err != nil {
			now = err.Error()
		}
		if now != last && ctx.Err() == nil {
			say(now)
			last = now
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// Files lists the files of the lab's folder, by their path in it, sorted.
func (l *Lab) Files() ([]string, error) {
	var all []string
	err := filepath.WalkDir(l.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		name, err := filepath.Rel(l.dir, path)
		all = append(all, name)
		return err
	})
	slices.Sort(all)
	return all, err
}

// Address is host:port of a server's first port.
func (e Elsewhere) Address(name string) string { return e.address(name) }
