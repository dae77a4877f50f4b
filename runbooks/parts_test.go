package runbooks

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// everyPart holds what base does not: MirrorMaker 2, clients of every kind, recovery, hooks and drills.
var everyPart = strings.NewReplacer(
	`clusterLinking: {rest: "https://rest.west:8090", cluster: lkc-w, link: east-west, credentials: {vault: kafka/west/rest}}`,
	`mirrormaker: {connect: ["https://connect:8083"], source: east-west.source, checkpoint: east-west.checkpoint, alias: {source: east, target: west}, policy: identity, principals: {data: "User:mm2-data", admin: "User:mm2"},
     ca: /etc/connect/ca.pem, cert: /etc/connect/tls.pem, key: /etc/connect/tls.key, credentials: {vault: kafka/west/connect}}`,
	`role: producer, supervised: {instances: 3}`,
	`role: producer, kubernetes: {namespace: shop, deployment: checkout}, placement: {east: {context: east}, west: {context: west, replicas: 4}}`,
	`supervised: {instances: 2}}`, `paged: {team: mainframe, via: pagerduty}}
gates: {planned: {approvals: 1}, unplanned: {approvals: 2, expiry: 15m}, approvers: [alice, bob]}
budgets: {drain: 5m, catchUp: 2m}
recovery: {default: append, topics: {"customers": divert}}
hooks: [{after: verify, workflow: RefreshDashboards, taskQueue: platform}]
drills: [{kind: readiness, every: 30m}, {kind: roundtrip, cron: "0 10 * * 2", soak: 15m}]`,
).Replace(base)

func TestEveryPartLoads(t *testing.T) {
	r := parsed(t, everyPart)
	require.Equal(t, "east-west.source", r.Links[0].MirrorMaker.Source)
	require.Equal(t, "/etc/connect/tls.key", r.Links[0].MirrorMaker.Key)
	require.Equal(t, "kafka/west/connect", r.Links[0].MirrorMaker.Credentials.Vault)
	require.Equal(t, 4, r.Clients[0].Placement["west"].Replicas)
	require.Equal(t, "mainframe", r.Clients[1].Paged.Team)
	require.Equal(t, "divert", r.Recovery.Topics["customers"])
	require.Equal(t, 15*time.Minute, r.Drills[1].Soak.D())
	require.Equal(t, 2*time.Minute, r.Budgets.CatchUp.D())
	require.NoError(t, compiled(t).Validate(instance(t, []byte(everyPart))))
}

func TestWrongParts(t *testing.T) {
	for _, tc := range []struct{ name, old, now, want string }{
		{"one alias", `alias: {source: east, target: west}`, `alias: {source: east}`,
			`r.yaml:16:137: links[0].mirrormaker.alias: must give the two different aliases that MirrorMaker 2 uses: {source: east, target: west}`},
		{"unknown policy", `policy: identity`, `policy: identty`,
			`r.yaml:16:174: links[0].mirrormaker.policy: "identty" is unknown: use identity or default (did you mean identity?)`},
		{"no worker", `["https://connect:8083"]`, `[]`,
			`r.yaml:16:42: links[0].mirrormaker.connect: is empty: name at least one Connect worker, such as [http://connect:8083]`},
		{"a worker twice", `["https://connect:8083"]`, `["https://connect:8083", "https://connect:8083"]`,
			`r.yaml:16:76: links[0].mirrormaker.connect[1]: stands twice: name each worker once`},
		{"credentials in the clear", `["https://connect:8083"]`, `["https://connect:8083", "http://connect-2:8083"]`,
			`r.yaml:16:76: links[0].mirrormaker.connect[1]: would send credentials in the clear: use https (http is for this machine alone)`},
		{"credentials in the file", `vault: kafka/west/connect`, `vault: "admin:secret"`,
			`r.yaml:17:100: links[0].mirrormaker.credentials.vault: looks like a secret itself: remove it here, change it, keep it in Vault and name the place as <mount>/<path>`},
		{"half a certificate", `, key: /etc/connect/tls.key`, ``,
			`r.yaml:16:28: links[0].mirrormaker: names half of a client certificate: give both cert and key`},
		{"certificates without TLS", `["https://connect:8083"]`, `["http://127.0.0.1:8083"]`,
			`r.yaml:16:28: links[0].mirrormaker: has ca, cert or key, which mean nothing without https: remove them, or use https under connect`},
		{"an unknown key of TLS", `key: /etc/connect/tls.key`, `keyy: /etc/connect/tls.key`,
			`r.yaml:17:59: links[0].mirrormaker.keyy: is an unknown key (did you mean key?)`},
		{"no name of a connector", `checkpoint: east-west.checkpoint`, `checkpoint: "east west"`,
			`r.yaml:16:103: links[0].mirrormaker.checkpoint: "east west" is not a name: use letters, digits, dot, _ and -`},
		{"mirror and client share a principal", `data: "User:mm2-data"`, `data: "User:billing"`,
			`r.yaml:16:205: links[0].mirrormaker.principals.data: User:billing is the principal of client billing too: give the mirror one of its own, because it is denied during a switch`},
	} {
		t.Run(tc.name, func(t *testing.T) {
			require.Contains(t, everyPart, tc.old)
			_, err := Parse("r.yaml", []byte(strings.Replace(everyPart, tc.old, tc.now, 1)))
			require.EqualError(t, err, tc.want)
		})
	}
}
