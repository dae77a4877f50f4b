package setup

import (
	"context"
	"slices"
	"strings"

	"switchback/internal/consul"
)

// A lab with Options.Regional has two Consuls and two Vaults: those that everything depends on, and those of east's region, which
// may be lost with it.
const (
	everywhereConsul, everywhereVault = "consul", "vault"
	regionalConsul, regionalVault     = "consul-east", "vault-east"
	// regionalToken is where the worker's token for the region's Consul stands.
	regionalToken = "east/consul-worker"
)

func (l *Lab) regional() bool { return len(l.state.Ports[regionalConsul]) > 0 }

// with is the server that every lab has, and that of the region where there is one.
func (l *Lab) with(server, ofRegion string) []string {
	if l.regional() {
		return []string{server, ofRegion}
	}
	return []string{server}
}

// standsIn says whether a secret is in a Vault. Clients use one Vault and work on both clusters, so that theirs are in both.
func (l *Lab) standsIn(name, path string) bool {
	below := strings.HasPrefix(path, Clusters[0]+"/")
	if name == regionalVault {
		return below
	}
	if !l.regional() {
		return true
	}
	client := slices.ContainsFunc(l.options.clients(), func(c Client) bool { return path == Clusters[0]+"/"+c.Name })
	return !below || client
}

// RegionProcesses are the servers that are lost with the region of a cluster, besides its brokers.
func (l *Lab) RegionProcesses(cluster string) []string {
	if !l.regional() || cluster != Clusters[0] {
		return nil
	}
	return []string{regionalConsul, regionalVault}
}

// RegionalDiscovery reads the entry of a workload in the region's own Consul.
func (l *Lab) RegionalDiscovery(ctx context.Context, workload string) (consul.State, error) {
	entry, err := consul.Open(consul.Config{Address: l.url(regionalConsul), Token: l.consulToken("manager"), Prefix: Prefix(workload), TLS: consul.TLS{CAFile: l.CA()}})
	if err != nil {
		return consul.State{}, err
	}
	defer entry.Close()
	return entry.Read(ctx)
}
