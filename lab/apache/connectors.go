package apache

import (
	"embed"
	"encoding/json"
	"fmt"
	"maps"
	"regexp"
	"strconv"
	"strings"
)

//go:embed connectors/*.json
var connectorFiles embed.FS

// Policies of replication: what a topic is called on the target.
const (
	Identity = "identity" // as on the source
	Default  = "default"  // with the source's alias and a dot before it
)

// Flow is one direction of a mirror. Connectors are called <from>-<to>.source, .checkpoint and .heartbeat.
type Flow struct {
	From, To                   string // aliases
	FromBootstrap, ToBootstrap []string
	TLS                        TLS // of both clusters
	Topics, Groups             []string
	Policy                     string
	Replicas                   int // on the target
}

// Names of the connectors of a flow: of its records, its groups and its heartbeats.
func (f Flow) Names() (source, checkpoint, heartbeat string) {
	flow := f.From + "-" + f.To
	return flow + ".source", flow + ".checkpoint", flow + ".heartbeat"
}

// Connectors of a flow: the files of the folder connectors, with what is different in this flow.
func (f Flow) Connectors() ([]Connector, error) {
	own := f.settings()
	source, checkpoint, heartbeat := f.Names()
	connectors := []Connector{{Name: source}, {Name: checkpoint}, {Name: heartbeat}}
	for i, file := range []string{"source", "checkpoint", "heartbeat"} {
		data, err := connectorFiles.ReadFile("connectors/" + file + ".json")
		if err == nil {
			err = json.Unmarshal(data, &connectors[i].Config)
		}
		if err != nil {
			return nil, fmt.Errorf("read the settings of connector %s: %w", connectors[i].Name, err)
		}
		for key, value := range own {
			if _, ok := connectors[i].Config[key]; ok {
				connectors[i].Config[key] = value
			}
		}
		for _, side := range []string{"source.cluster.", "target.cluster."} {
			maps.Copy(connectors[i].Config, f.TLS.trust(side))
		}
	}
	return connectors, nil
}

func (f Flow) settings() map[string]string {
	policy, replicas := "IdentityReplicationPolicy", strconv.Itoa(f.Replicas)
	if f.Policy == Default {
		policy = "DefaultReplicationPolicy"
	}
	login := func(cluster string) string {
		return fmt.Sprintf(`org.apache.kafka.common.security.scram.ScramLoginModule required username="%s" password="${file:secrets.properties:%s.%s}";`, AdminUser, AdminUser, cluster)
	}
	return map[string]string{
		"source.cluster.alias": f.From, "target.cluster.alias": f.To,
		"source.cluster.bootstrap.servers": strings.Join(f.FromBootstrap, ","), "target.cluster.bootstrap.servers": strings.Join(f.ToBootstrap, ","),
		"source.cluster.security.protocol": f.TLS.protocol(), "target.cluster.security.protocol": f.TLS.protocol(),
		"source.cluster.sasl.jaas.config": login(f.From), "target.cluster.sasl.jaas.config": login(f.To),
		"replication.policy.class": "org.apache.kafka.connect.mirror." + policy,
		"topics":                   strings.Join(f.Topics, "|"), "groups": quoted(f.Groups),
		"replication.factor": replicas, "offset-syncs.topic.replication.factor": replicas,
		"checkpoints.topic.replication.factor": replicas, "heartbeats.topic.replication.factor": replicas,
	}
}

// TopicsOf a workload, as a pattern of MirrorMaker 2: what begins with its name and a dot.
func TopicsOf(workload string) string { return regexp.QuoteMeta(workload) + `\..*` }

func quoted(names []string) string {
	all := make([]string, len(names))
	for i, n := range names {
		all[i] = regexp.QuoteMeta(n)
	}
	return strings.Join(all, "|")
}
