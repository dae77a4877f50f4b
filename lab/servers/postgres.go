package servers

import (
	"fmt"

	"github.com/goccy/go-yaml"

	"switchback/internal/secret"
)

// Postgres is where a Temporal that is no development server keeps its state: databases temporal and temporal_visibility.
type Postgres struct {
	Address  string // host:port
	User     string
	Password secret.Value
}

// TemporalOnPostgres are the settings of temporal-server with all of its services in one process, on a frontend port; the
// other ports are its own affair. They hold the password: the server knows no other way but its environment.
func TemporalOnPostgres(port int, p Postgres) ([]byte, error) {
	type object = map[string]any
	database := func(name string, connections int) object {
		return object{"sql": object{
			"pluginName": "postgres12", "connectProtocol": "tcp", "connectAddr": p.Address, "databaseName": name,
			"user": p.User, "password": p.Password.Reveal(),
			"maxConns": connections, "maxIdleConns": connections, "maxConnLifetime": "1h",
		}}
	}
	services := object{}
	for i, name := range []string{"frontend", "history", "matching", "worker"} {
		services[name] = object{"rpc": object{"grpcPort": port + i, "membershipPort": port - 300 + i, "bindOnIP": "0.0.0.0"}}
	}
	settings := object{
		"log": object{"stdout": true, "level": "warn"},
		"persistence": object{
			"defaultStore": "default", "visibilityStore": "visibility", "numHistoryShards": 4,
			"datastores": object{"default": database("temporal", 20), "visibility": database("temporal_visibility", 5)},
		},
		// Its services find each other by what they write into the database: one process, one machine.
		"global":   object{"membership": object{"maxJoinDuration": "30s", "broadcastAddress": "127.0.0.1"}},
		"services": services,
		"clusterMetadata": object{
			"enableGlobalNamespace": false, "failoverVersionIncrement": 10, "masterClusterName": "active", "currentClusterName": "active",
			"clusterInformation": object{"active": object{
				"enabled": true, "initialFailoverVersion": 1, "rpcName": "frontend", "rpcAddress": fmt.Sprintf("127.0.0.1:%d", port),
			}},
		},
		"dcRedirectionPolicy": object{"policy": "noop"},
		// The values that the lab gives its development server.
		"dynamicConfigClient": object{"filepath": "/etc/lab/temporal-dynamic.yaml", "pollInterval": "60s"},
	}
	data, err := yaml.Marshal(settings)
	if err != nil {
		return nil, fmt.Errorf("write the settings of Temporal: %w", err)
	}
	return data, nil
}
