package runbooks

import (
	"strings"
	"time"
)

// applyDefaults fills in what a file leaves out; this is the only place that knows defaults. A key that was written is
// never touched, also when it says zero: approvals: 0 means none. Doing it twice changes nothing.
//
//	gates.planned            1 approval, expiry 1h
//	gates.unplanned          2 approvals, expiry 15m
//	gates.recovery           1 approval, expiry 1h
//	gates.antiFlap           30m
//	budgets                  drain 5m, catchUp 0s, stopClients 2m, startClients 5m, promote 2m, verify 1m
//	groups.withoutCommit     earliest
//	security.mechanism       SCRAM-SHA-512 where the protocol is SASL
//	clusterLinking.pathPrefix /kafka/v3
//	discovery.required       true if there is one entry
//	clients                  principal User:<name>, whenKilled go-on
func (r *Runbook) applyDefaults(written func(key string) bool) {
	number := func(key string, v *int, d int) {
		if *v == 0 && !written(key) {
			*v = d
		}
	}
	span := func(key string, v *Duration, d time.Duration) {
		if *v == 0 && !written(key) {
			*v = Duration(d)
		}
	}
	text := func(key string, v *string, d string) {
		if *v == "" && !written(key) {
			*v = d
		}
	}

	number("gates.planned.approvals", &r.Gates.Planned.Approvals, 1)
	span("gates.planned.expiry", &r.Gates.Planned.Expiry, time.Hour)
	number("gates.unplanned.approvals", &r.Gates.Unplanned.Approvals, 2)
	span("gates.unplanned.expiry", &r.Gates.Unplanned.Expiry, 15*time.Minute)
	number("gates.recovery.approvals", &r.Gates.Recovery.Approvals, 1)
	span("gates.recovery.expiry", &r.Gates.Recovery.Expiry, time.Hour)

	span("gates.antiFlap", &r.Gates.AntiFlap, 30*time.Minute)

	span("budgets.drain", &r.Budgets.Drain, 5*time.Minute)
	span("budgets.stopClients", &r.Budgets.StopClients, 2*time.Minute)
	span("budgets.startClients", &r.Budgets.StartClients, 5*time.Minute)
	span("budgets.promote", &r.Budgets.Promote, 2*time.Minute)
	span("budgets.verify", &r.Budgets.Verify, time.Minute)

	text("groups.withoutCommit", &r.Groups.WithoutCommit, "earliest")
	for name, c := range r.Clusters {
		if strings.HasPrefix(c.Security.Protocol, "SASL") {
			text(join("clusters", name)+".security.mechanism", &c.Security.Mechanism, "SCRAM-SHA-512")
			r.Clusters[name] = c
		}
	}
	for i := range r.Links {
		if cl := r.Links[i].ClusterLinking; cl != nil {
			text(index("links", i)+".clusterLinking.pathPrefix", &cl.PathPrefix, "/kafka/v3")
		}
	}
	if len(r.Discovery) == 1 && !written("discovery[0].required") {
		r.Discovery[0].Required = true
	}
	for i := range r.Clients {
		c := &r.Clients[i]
		text(index("clients", i)+".principal", &c.Principal, "User:"+c.Name)
		text(index("clients", i)+".whenKilled", &c.WhenKilled, "go-on")
	}
}
