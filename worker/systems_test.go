package main

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"switchback/activities"
	"switchback/internal/consul/consultest"
	"switchback/internal/dial"
	"switchback/internal/fault"
	"switchback/internal/vault"
	"switchback/internal/vault/vaulttest"
	"switchback/runbooks"
)

// canary is in every password; it must not be seen in any log or error.
const canary = "canary-secret"

// opening is what the tests open things with: a Vault, the systems over it, and what they log.
func opening(t *testing.T) (*vaulttest.Server, *systems, *bytes.Buffer) {
	t.Helper()
	server := vaulttest.New(t)
	role, secretID := vaulttest.Files(t)
	logged := &bytes.Buffer{}
	log := slog.New(slog.NewTextHandler(logged, &slog.HandlerOptions{Level: slog.LevelWarn}))
	v, err := vault.Open(vault.Config{Address: server.URL, RoleIDFile: role, SecretIDFile: secretID, Log: log})
	require.NoError(t, err)
	s := newSystems(&vaults{main: v}, log)
	t.Cleanup(func() { s.close(); v.Close() })
	return server, s, logged
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestAClusterIsOpenedAnewOnceItsLoginIsRefused(t *testing.T) {
	east, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-512", "switchback", canary+"-new"))
	require.NoError(t, err)
	t.Cleanup(east.Close)
	secrets, s, logged := opening(t)
	secrets.Put("kafka/east/switchback", "username", "switchback", "password", canary+"-old")
	site := activities.Site{Name: "east", Cluster: runbooks.Cluster{
		Bootstrap: east.ListenAddrs(), Credentials: runbooks.SecretRef{Vault: "kafka/east/switchback"},
		Security: runbooks.Security{Protocol: "SASL_PLAINTEXT", Mechanism: "SCRAM-SHA-512"},
	}}

	old, err := clusters{s}.Open(within(t), site)
	require.NoError(t, err)
	_, err = old.Identity(within(t))
	require.ErrorIs(t, err, fault.ErrUnauthenticated)
	require.NotContains(t, err.Error(), canary)
	old.Close()

	secrets.Put("kafka/east/switchback", "username", "switchback", "password", canary+"-new")
	mended, err := clusters{s}.Open(within(t), site)
	require.NoError(t, err)
	_, err = mended.Identity(within(t))
	require.NoError(t, err)
	require.Equal(t, "User:switchback", mended.Principal())

	same, err := clusters{s}.Open(within(t), site)
	require.NoError(t, err)
	require.Same(t, mended.(*cluster).Cluster, same.(*cluster).Cluster, "and is shared from then on")
	mended.Close()
	mended.Close() // twice does not take it from the other
	_, err = same.Identity(within(t))
	require.NoError(t, err)
	same.Close()
	require.NotContains(t, logged.String(), canary)
}

func TestADifferentClusterOfTheSameNameIsAnotherConnection(t *testing.T) {
	_, s, _ := opening(t)
	site := activities.Site{Name: "east", Cluster: runbooks.Cluster{Bootstrap: []string{"127.0.0.1:1"}, Security: runbooks.Security{Protocol: "PLAINTEXT"}}}
	a, err := clusters{s}.Open(within(t), site)
	require.NoError(t, err)
	site.Cluster.Security.Protocol = "SSL" // the runbook was mended
	b, err := clusters{s}.Open(within(t), site)
	require.NoError(t, err)
	require.NotSame(t, a.(*cluster).Cluster, b.(*cluster).Cluster)
	a.Close()
	b.Close()
}

func TestASecretThatIsNotThereFailsTheOpen(t *testing.T) {
	_, s, _ := opening(t)
	_, err := clusters{s}.OpenAs(within(t), activities.Site{Name: "east", Cluster: runbooks.Cluster{
		Bootstrap: []string{"127.0.0.1:1"}, Security: runbooks.Security{Protocol: "SASL_SSL", Mechanism: "PLAIN"}}}, "kafka/east/nobody")
	require.ErrorIs(t, err, fault.ErrNotFound)
	require.ErrorContains(t, err, "kafka/east/nobody")
}

func TestAnEntryIsOpenedAnewOnceConsulRefusesItsToken(t *testing.T) {
	web := consultest.New(t)
	web.Put("kafka/orders/cluster", "east", "kafka/orders/epoch", "4", "kafka/orders/bootstrap.servers", "east:9092")
	secrets, s, _ := opening(t)
	secrets.Put("consul/switchback", "token", canary)
	where := runbooks.Discovery{Consul: runbooks.Consul{Address: web.URL, Prefix: "kafka/orders", Token: runbooks.SecretRef{Vault: "consul/switchback"}}}

	first, err := consuls{s}.Open(within(t), where)
	require.NoError(t, err)
	state, err := first.Read(within(t))
	require.NoError(t, err)
	require.Equal(t, int64(4), state.Epoch)
	again, err := consuls{s}.Open(within(t), where)
	require.NoError(t, err)
	require.Same(t, first.(entry).d, again.(entry).d)

	_ = again.(entry).noted(fault.ErrUnauthenticated) // what Consul says to a token that was deleted
	third, err := consuls{s}.Open(within(t), where)
	require.NoError(t, err)
	require.NotSame(t, first.(entry).d, third.(entry).d)
	_, err = first.Read(within(t))
	require.NoError(t, err, "who holds the old one goes on")
}

func TestLinksShareTheirConnections(t *testing.T) {
	_, s, _ := opening(t)
	a, err := s.rest(dial.Files{})
	require.NoError(t, err)
	b, err := s.rest(dial.Files{})
	require.NoError(t, err)
	require.Same(t, a, b)
	require.NotSame(t, http.DefaultTransport, a.Transport)

	wrong := filepath.Join(t.TempDir(), "ca.pem")
	require.NoError(t, os.WriteFile(wrong, []byte("no certificate"), 0o600))
	_, err = s.rest(dial.Files{CA: wrong})
	require.ErrorIs(t, err, fault.ErrInvalid)
	require.ErrorContains(t, err, wrong+" holds no PEM certificate")
}

func TestALinkWithoutABackendIsRefused(t *testing.T) {
	_, s, _ := opening(t)
	_, err := links{s}.Open(within(t), activities.Route{From: activities.Site{Name: "east"}, To: activities.Site{Name: "west"}}, nil, nil)
	require.ErrorIs(t, err, fault.ErrInvalid)
	require.ErrorContains(t, err, "open the link from east to west: it has no backend")
}

func TestAMirrorMakerLinkLogsInToConnect(t *testing.T) {
	connect := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "switchback" || password != canary {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, `{"east-west.source":{"status":{"connector":{"state":"PAUSED"},"tasks":[]},"info":{"config":{}}}}`)
	}))
	t.Cleanup(connect.Close)
	secrets, s, _ := opening(t)
	secrets.Put("kafka/west/connect", "username", "switchback", "password", canary)
	site := func(name string) (activities.Site, activities.Kafka) {
		site := activities.Site{Name: name, Cluster: runbooks.Cluster{Bootstrap: []string{"127.0.0.1:1"}, Security: runbooks.Security{Protocol: "PLAINTEXT"}}}
		conn, err := clusters{s}.Open(within(t), site)
		require.NoError(t, err)
		return site, conn
	}
	east, from := site("east")
	west, to := site("west")
	route := activities.Route{From: east, To: west, Link: runbooks.Link{MirrorMaker: &runbooks.MirrorMaker{
		Connect: []string{connect.URL}, Source: "east-west.source", Alias: map[string]string{"source": "east", "target": "west"}, Policy: "default",
		Credentials: runbooks.SecretRef{Vault: "kafka/west/connect"}, Principals: runbooks.Principals{Data: "User:mm2", Admin: "User:mm2"}}}}
	link, err := links{s}.Open(within(t), route, from, to)
	require.NoError(t, err)
	require.Equal(t, "east.", link.Prefix())
	_, err = link.Mirrors(within(t))
	require.ErrorIs(t, err, fault.ErrUnreachable, "Connect took the login; the target is not there")
	require.NotContains(t, err.Error(), canary)

	secrets.Put("kafka/west/connect", "username", "switchback", "password", canary+"-wrong")
	link, err = links{s}.Open(within(t), route, from, to)
	require.NoError(t, err)
	_, err = link.Mirrors(within(t))
	require.ErrorIs(t, err, fault.ErrUnauthenticated)
	require.NotContains(t, err.Error(), canary)

	route.Link.MirrorMaker.Connect = []string{"https://u:" + canary + "@connect"}
	_, err = links{s}.Open(within(t), route, from, to)
	require.ErrorIs(t, err, fault.ErrInvalid)
	require.NotContains(t, err.Error(), canary)
}
