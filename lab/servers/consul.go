package servers

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"time"

	"github.com/hashicorp/consul/api"

	"switchback/internal/secret"
	"switchback/lab/tree"
)

// ConsulConfig says where the lab's Consul listens and keeps its state.
type ConsulConfig struct {
	Name    string // of the process; consul when empty
	Program string // see Build
	Dir     string
	Log     string
	Host    string       // where the API is reached; 127.0.0.1 when empty
	Listen  string       // the address that the API listens on; 127.0.0.1 when empty
	Data    string       // the server's state; a folder in Dir when empty
	Port    int          // HTTP API and UI
	Inner   [2]int       // RPC and gossip, used by nobody but the server itself
	Manager secret.Value // the token that may do everything: a UUID
	// CAFile, CertFile and KeyFile are PEM files; with them the API is served over TLS alone.
	CAFile, CertFile, KeyFile string
}

// Address is host:port of the HTTP API.
func (c ConsulConfig) Address() string {
	return net.JoinHostPort(cmp.Or(c.Host, "127.0.0.1"), strconv.Itoa(c.Port))
}

// WriteSettings writes the settings of a single server with ACLs on, which hold the manager's token, into its folder, mode
// 0600, and returns the file. Not -dev: the server's state survives kill -9.
func (c ConsulConfig) WriteSettings() (string, error) {
	settings := map[string]any{
		"node_name": "lab", "datacenter": "dc1", "primary_datacenter": "dc1",
		"server": true, "bootstrap_expect": 1,
		"data_dir":  cmp.Or(c.Data, filepath.Join(c.Dir, "data")),
		"bind_addr": "127.0.0.1", "client_addr": cmp.Or(c.Listen, "127.0.0.1"), "advertise_addr": "127.0.0.1",
		"ports": map[string]int{
			"http": c.Port, "server": c.Inner[0], "serf_lan": c.Inner[1],
			"https": -1, "dns": -1, "grpc": -1, "grpc_tls": -1, "serf_wan": -1,
		},
		"acl": map[string]any{
			"enabled": true, "default_policy": "deny", "enable_token_persistence": true,
			"tokens": map[string]string{"initial_management": c.Manager.Reveal(), "agent": c.Manager.Reveal()},
		},
		"performance":          map[string]any{"raft_multiplier": 1}, // a leader within a second or two of a start
		"limits":               map[string]any{"http_max_conns_per_client": 2000},
		"connect":              map[string]any{"enabled": false},
		"ui_config":            map[string]any{"enabled": true},
		"session_ttl_min":      "2s", // an instance that died is seen to be gone soon
		"leave_on_terminate":   false,
		"disable_update_check": true,
		"log_level":            "WARN",
	}
	if c.CertFile != "" {
		settings["tls"] = map[string]any{"https": map[string]string{"ca_file": c.CAFile, "cert_file": c.CertFile, "key_file": c.KeyFile}}
		ports := settings["ports"].(map[string]int)
		ports["https"], ports["http"] = ports["http"], -1
	}
	file := filepath.Join(c.Dir, "settings.json")
	return file, WriteJSON(file, settings)
}

// Consul is the server as a process.
func Consul(c ConsulConfig) (tree.Spec, error) {
	file, err := c.WriteSettings()
	if err != nil {
		return tree.Spec{}, fmt.Errorf("start Consul: %w", err)
	}
	return tree.Spec{
		Name: cmp.Or(c.Name, "consul"), Path: c.Program, Args: []string{"agent", "-config-file", file}, Dir: c.Dir, Log: c.Log, Grace: 5 * time.Second,
		Ready: func(ctx context.Context) error { return c.ready(ctx) },
	}, nil
}

// ready writes: a leader that cannot commit yet, or whose ACLs are not there yet, is not ready.
func (c ConsulConfig) ready(ctx context.Context) error {
	consul, err := c.Client()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if _, err := consul.KV().Put(&api.KVPair{Key: "lab/ready", Value: []byte("yes")}, new(api.WriteOptions).WithContext(ctx)); err != nil {
		return err
	}
	nodes, _, err := consul.Catalog().Nodes(new(api.QueryOptions).WithContext(ctx))
	if err != nil {
		return err
	}
	if len(nodes) == 0 { // sessions hang on a node of the catalog
		return errors.New("the server has not registered itself yet")
	}
	return nil
}

// Client is Consul's API with the manager's token.
func (c ConsulConfig) Client() (*api.Client, error) {
	settings := api.DefaultConfig()
	settings.Address, settings.Scheme, settings.Token = c.Address(), "http", c.Manager.Reveal()
	if c.CertFile != "" {
		settings.Scheme, settings.TLSConfig = "https", api.TLSConfig{CAFile: c.CAFile}
	}
	return api.NewClient(settings)
}
