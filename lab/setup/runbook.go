package setup

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/goccy/go-yaml"

	"switchback/lab/servers"
	"switchback/runbooks"
)

// Requester asks for the lab's runs, and Approvers are who may approve them: an unplanned one needs both.
const Requester = "operator"

// Approvers of every runbook of the lab.
var Approvers = []string{"operator-2", "operator-3"}

// writeRunbooks writes the file of each workload that has none yet: it may have been edited since.
func (l *Lab) writeRunbooks() error {
	for _, w := range l.options.Workloads {
		file := l.RunbookFile(w.Name)
		if _, err := os.Stat(file); err == nil {
			continue
		} else if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		r := l.runbook(w)
		if l.options.EditRunbook != nil {
			l.options.EditRunbook(&r)
		}
		data, err := yaml.Marshal(r)
		if err != nil {
			return fmt.Errorf("write runbook %s: %w", w.Name, err)
		}
		if err := servers.WriteFile(file, data); err != nil {
			return err
		}
		if _, err := runbooks.Load(file); err != nil {
			return fmt.Errorf("the lab wrote a runbook that is wrong: %w", err)
		}
	}
	return nil
}

func (l *Lab) runbook(w Workload) runbooks.Runbook {
	home, other := Clusters[0], Clusters[1]
	seconds := func(n int) runbooks.Duration { return runbooks.Duration(time.Duration(n) * time.Second) }
	r := runbooks.Runbook{
		APIVersion: runbooks.APIVersion, Kind: runbooks.Kind,
		Metadata:   runbooks.Metadata{Name: w.Name, Owner: "lab", Description: "Made-up traffic of the lab"},
		Objectives: runbooks.Objectives{RTO: seconds(60), RPO: runbooks.RPO{Time: seconds(30), Records: 10_000}},
		Clusters:   map[string]runbooks.Cluster{},
		Home:       home,
		Links:      []runbooks.Link{l.runbookLink(home, other)},
		Topics:     runbooks.Patterns{Include: []string{w.Name + ".*"}},
		Groups:     runbooks.Groups{Include: w.Groups(), WithoutCommit: "earliest"},
		Discovery: []runbooks.Discovery{{Required: true, Consul: runbooks.Consul{
			Address: l.ConsulURL(), Token: runbooks.SecretRef{Vault: mount + "/consul/" + workerPart}, Prefix: Prefix(w.Name), CA: l.CA(),
		}}},
		Credentials: runbooks.Credentials{Vault: runbooks.ClientSecrets{Mount: mount, Path: "{cluster}/{client}"}},
		Gates: runbooks.Gates{
			Planned:   runbooks.Gate{Approvals: 0, Expiry: seconds(3600)},
			Unplanned: runbooks.Gate{Approvals: len(Approvers), Expiry: seconds(900)}, Approvers: Approvers,
		},
		Budgets: runbooks.Budgets{
			Drain: seconds(30), StopClients: seconds(20), StartClients: seconds(30), Promote: seconds(30), Verify: seconds(30),
		},
	}
	r.Recovery = &runbooks.Recovery{Default: "append"}
	if l.options.Link == MirrorMaker { // connectors whose source is dead take a minute to stop, behind their seal
		r.Budgets.Promote = seconds(100)
	}
	r.Links = append(r.Links, l.runbookLink(other, home)) // the way home; what is not there yet a failback makes
	for _, cluster := range Clusters {
		r.Clusters[cluster] = runbooks.Cluster{
			Bootstrap: l.Bootstrap(cluster), ID: l.ClusterID(cluster),
			Security:    runbooks.Security{Protocol: l.certs.protocol(), Mechanism: "SCRAM-SHA-512", CA: l.kafkaCA()},
			Credentials: runbooks.SecretRef{Vault: strings.Join([]string{mount, cluster, switchback}, "/")},
		}
	}
	if l.regional() {
		r.Discovery = append(r.Discovery, runbooks.Discovery{Consul: runbooks.Consul{
			Address: l.url(regionalConsul), Token: runbooks.SecretRef{Vault: mount + "/" + regionalToken}, Prefix: Prefix(w.Name), CA: l.CA(),
		}})
	}
	for _, c := range w.Clients {
		client := runbooks.Client{
			Name: c.Name, Role: c.Role, Principal: "User:" + c.Name, Supervised: &runbooks.Supervised{Instances: c.Instances},
			Tolerates: runbooks.Tolerates{Duplicates: c.Role == runbooks.RoleProducer}, WhenKilled: "go-on",
		}
		if c.Group != "" {
			client.Groups = []string{c.Group}
		}
		r.Clients = append(r.Clients, client)
	}
	return r
}

// runbookLink is one direction of the link, asked for at the cluster that it goes to.
func (l *Lab) runbookLink(from, to string) runbooks.Link {
	if l.options.Link == MirrorMaker {
		return l.mirrorMakerLink(from, to)
	}
	return runbooks.Link{From: from, To: to, ClusterLinking: &runbooks.ClusterLinking{
		REST: l.LinkURL(), PathPrefix: "/kafka/v3", Cluster: l.ClusterID(to), Link: LinkName,
		Credentials: runbooks.SecretRef{Vault: mount + "/" + to + "/link-rest"}, Principal: "User:" + linkUser, CA: l.CA(),
	}}
}
