package runbooks

import (
	"maps"
	"slices"
	"strings"
)

// PlannedFailoverSteps are the steps of a planned failover, in order: what hooks can follow, what the workflow runs,
// what the operator's pages and the reports list.
var PlannedFailoverSteps = []string{
	"preflight", "approve", "suspend-syncs", "stop-producers", "fence-source", "prove-quiescence", "drain", "stop-consumers",
	"hand-over-offsets", "promote", "keep-marks", "switch", "start-clients", "verify", "report",
}

// UnplannedFailoverSteps are the steps of an unplanned failover, in order.
var UnplannedFailoverSteps = []string{
	"assess", "approve", "suspend-syncs", "stop-clients", "fence-source", "fail-over", "keep-marks", "hand-over-offsets",
	"settle-transactions", "switch", "start-clients", "verify", "report",
}

// RecoverLaggedDataSteps are the steps of a recovery, in order.
var RecoverLaggedDataSteps = []string{"plan", "approve", "copy", "rewind", "read", "close-reading", "settle", "report"}

// Of is what happens to the stranded records of a topic: append, divert, rewind or report. A name counts before a pattern,
// and of two patterns the one that says more.
func (r Recovery) Of(topic string) string {
	if mode, ok := r.Topics[topic]; ok {
		return mode
	}
	mode, most := r.Default, -1
	for _, p := range sortedKeys(r.Topics) {
		if said := len(strings.NewReplacer("*", "", "?", "").Replace(p)); glob(p, topic) && said > most {
			mode, most = r.Topics[p], said
		}
	}
	return mode
}

// FailbackSteps are the steps of a failback, in order. One that stays where the workload is has no go-home.
var FailbackSteps = []string{"examine", "approve", "recover", "turn-round", "in-step", "go-home", "protect-home", "report"}

// Link is the link from one cluster to another.
func (r Runbook) Link(from, to string) (Link, bool) {
	for _, l := range r.Links {
		if l.From == from && l.To == to {
			return l, true
		}
	}
	return Link{}, false
}

// TopicPrefix is what the target puts before the names of mirrored topics; empty where mirrors keep their names.
func (l Link) TopicPrefix() string {
	if m := l.MirrorMaker; m != nil && m.Policy == "default" {
		return m.Alias["source"] + "."
	}
	return ""
}

// RequiredDiscovery is the entry that counts (P40); the zero Discovery if a runbook was never validated.
func (r Runbook) RequiredDiscovery() Discovery {
	for _, d := range r.Discovery {
		if d.Required {
			return d
		}
	}
	return Discovery{}
}

// ClientsByRole are the clients with one of the roles, in the order of the file.
func (r Runbook) ClientsByRole(roles ...string) []Client {
	var out []Client
	for _, c := range r.Clients {
		for _, role := range roles {
			if c.Role == role {
				out = append(out, c)
				break
			}
		}
	}
	return out
}

// Producing says whether the client writes, also if it reads as well.
func (c Client) Producing() bool { return c.Role == RoleProducer || c.Role == RoleBoth }

// Consuming says whether the client reads in consumer groups, also if it writes as well.
func (c Client) Consuming() bool { return c.Role == RoleConsumer || c.Role == RoleBoth }

// CredentialPath is <mount>/<path> of the client's secret for a cluster.
func (r Runbook) CredentialPath(cluster, client string) string {
	return r.Credentials.PathFor(cluster, client)
}

// CopyPath is <mount>/<path> of the one secret that a client reads whatever its cluster; false without credentials.copy.
func (r Runbook) CopyPath(client string) (string, bool) {
	if r.Credentials.Copy == nil {
		return "", false
	}
	return strings.ReplaceAll(r.Credentials.Copy.To, "{client}", client), true
}

// ClusterNames are the names of the clusters, sorted: ranging over the map has no order.
func (r Runbook) ClusterNames() []string {
	return slices.Sorted(maps.Keys(r.Clusters))
}

// Other is the cluster that cluster has a link with, from it or to it: of two clusters simply the other. It is "" when
// cluster is unknown, and when more than one answers.
func (r Runbook) Other(cluster string) string {
	other := ""
	for _, l := range r.Links {
		n := ""
		switch cluster {
		case l.From:
			n = l.To
		case l.To:
			n = l.From
		}
		if n == "" || n == other {
			continue
		}
		if other != "" {
			return ""
		}
		other = n
	}
	return other
}
