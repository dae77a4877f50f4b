package main

import (
	"context"
	"errors"
	"log/slog"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"switchback/activities"
	"switchback/internal/fault"
	"switchback/internal/vault/vaulttest"
	"switchback/replication"
	"switchback/runbooks"
)

// twoVaults are the worker's own and that of region east.
func twoVaults(t *testing.T) (main, east *vaulttest.Server, v *vaults) {
	t.Helper()
	main, east = vaulttest.New(t), vaulttest.New(t)
	role, id := vaulttest.Files(t)
	at := func(s *vaulttest.Server) Vault { return Vault{Address: s.URL, RoleIDFile: role, SecretIDFile: id} }
	v, err := openVaults(Settings{Vault: at(main), Vaults: []RegionalVault{{"kafka/east/", at(east)}}}, slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	t.Cleanup(v.close)
	return main, east, v
}

func ref(path string) runbooks.SecretRef { return runbooks.SecretRef{Vault: path} }

func TestSecretsOfARegionAreInItsOwnVault(t *testing.T) {
	main, east, v := twoVaults(t)
	east.Put("kafka/east/switchback", "username", "of-east", "password", canary)
	main.Put("kafka/eastern", "username", "of-main", "password", canary)
	main.Put("kafka/west/switchback", "username", "of-west", "password", canary)
	for path, user := range map[string]string{"kafka/east/switchback": "of-east", "kafka/eastern": "of-main", "kafka/west/switchback": "of-west"} {
		login, err := v.Login(within(t), ref(path))
		require.NoError(t, err)
		require.Equal(t, user, login.Username)
	}
	changed, err := v.Copy(within(t), "kafka/west/switchback", "kafka/east/active")
	require.NoError(t, err)
	require.True(t, changed)
	copied, version := east.Get("kafka/east/active")
	require.Equal(t, "of-west", copied["username"])
	require.Equal(t, 1, version)

	east.SetDown(true)
	require.NoError(t, v.mayLogIn(within(t), slog.New(slog.DiscardHandler)), "a region that is gone keeps no worker from starting")
	_, err = v.Login(within(t), ref("kafka/east/switchback"))
	require.ErrorIs(t, err, fault.ErrUnreachable)
	_, err = v.Login(within(t), ref("kafka/west/switchback"))
	require.NoError(t, err)
}

func TestVaultsOfRegionsAreSettings(t *testing.T) {
	s, err := settingsOf(t, good+`
vaults:
  - {prefix: kafka/east, address: "https://vault.east:8200", roleIdFile: /run/role, secretIdFile: /run/secret, tls: {ca: /ca}}
`, nil, nil)
	require.NoError(t, err)
	require.Len(t, s.Vaults, 1)
	require.Equal(t, "kafka/east", s.Vaults[0].Prefix)
	require.Equal(t, "/run/secret", s.Vaults[0].SecretIDFile)
	require.Equal(t, "/ca", s.Vaults[0].TLS.CA)
	for text, says := range map[string]string{
		"vaults: [{prefix: a, adress: x}]":                 "adress",
		"vaults: [{address: \"http://v\", tokenFile: /t}]": `vaults[0].prefix is ""`,
		"vaults: [{prefix: a, address: v, tokenFile: /t}]": `vaults[0].address is "v"`,
		"vaults: [{prefix: a, address: \"http://v\"}]":     "give vaults[0].roleIdFile",
		"vaults: [{prefix: a, address: \"http://v\", tokenFile: /t}, {prefix: a/, address: \"http://w\", tokenFile: /t}]": `vaults[1].prefix is "a/"`,
	} {
		_, err := settingsOf(t, good+text+"\n", nil, nil)
		require.ErrorContains(t, err, says)
	}
}

// The credentials of a source that is lost may be lost with it. MirrorMaker 2 is failed over all the same: what it has to know
// stands on the target, and nothing is compared with a source that nobody can open.
func TestALinkIsOpenedWithoutTheCredentialsOfALostSource(t *testing.T) {
	west, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "orders"))
	require.NoError(t, err)
	t.Cleanup(west.Close)
	_, s, _ := opening(t)
	plain := runbooks.Security{Protocol: "PLAINTEXT"}
	route := activities.Route{
		From: activities.Site{Name: "east", Cluster: runbooks.Cluster{Bootstrap: []string{"127.0.0.1:1"}, Security: runbooks.Security{Protocol: "SASL_PLAINTEXT", Mechanism: "SCRAM-SHA-512"},
			Credentials: ref("kafka/east/switchback")}},
		To: activities.Site{Name: "west", Cluster: runbooks.Cluster{Bootstrap: west.ListenAddrs(), Security: plain}},
		Link: runbooks.Link{MirrorMaker: &runbooks.MirrorMaker{Connect: []string{"http://127.0.0.1:1"}, Source: "s", Checkpoint: "c",
			Alias: map[string]string{"source": "east", "target": "west"}, Policy: "identity", Principals: runbooks.Principals{Data: "User:d", Admin: "User:a"}}},
		SourceLost: true,
	}
	to, err := clusters{s}.Open(within(t), route.To)
	require.NoError(t, err)
	link, err := links{s}.Open(within(t), route, shut{}, to)
	require.NoError(t, err)
	stood := []replication.GroupOffsets{{Group: "billing", Offsets: []replication.Translated{{Partition: replication.Partition{Topic: "orders"}, Source: replication.Unknown, Target: 3}}}}
	known, err := link.LastKnown(within(t), stood)
	require.NoError(t, err)
	require.Equal(t, replication.Unknown, known[0].Offsets[0].Target, "no checkpoint, and nobody made one up")
	require.ErrorIs(t, logsOf(shut{}).ReadRanges(within(t), nil, false, nil), fault.ErrUnreachable)

	_, err = clusters{s}.Open(within(t), route.From)
	require.ErrorIs(t, err, fault.ErrNotFound, "a planned run still demands them")
}

// shut is a source that does not answer, as activities hand it to a link.
type shut struct{ activities.Kafka }

func (shut) Identity(context.Context) (replication.Identity, error) {
	return replication.Identity{}, fault.ErrUnreachable
}

// A Vault that is away is no reason to give up a cluster that is there.
func TestAnOldConnectionIsUsedOnWhileVaultIsAway(t *testing.T) {
	p := newPool()
	old := p.get(t, "east")
	p.giveBack(old)
	p.now = p.now.Add(keepFor)
	away := func() (*wire, string, error) { p.opens++; return nil, "", fault.ErrUnreachable }
	c, err := p.take("east", away)
	require.NoError(t, err)
	require.Same(t, old.conn, c.conn)
	p.giveBack(c)
	c, err = p.take("east", away)
	require.NoError(t, err)
	p.giveBack(c)
	require.Equal(t, 2, p.opens, "it is not asked each time")
	p.now = p.now.Add(keepOn)
	require.NotSame(t, old.conn, p.get(t, "east").conn, "and a new one takes its place once Vault is back")
	require.Equal(t, 1, old.conn.ends())

	p.now = p.now.Add(keepFor)
	_, err = p.take("east", func() (*wire, string, error) { return nil, "", fault.ErrDenied })
	require.ErrorIs(t, err, fault.ErrDenied, "what Vault says counts")
	_, err = p.take("north", away)
	require.True(t, errors.Is(err, fault.ErrUnreachable))
}
