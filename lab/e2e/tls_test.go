package e2e_test

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/goccy/go-yaml"
	"github.com/stretchr/testify/require"

	"switchback/lab/setup"
	"switchback/lab/tree"
	"switchback/runbooks"
	"switchback/workflows"
)

func encrypted(o *setup.Options) { o.TLS = true }

// A whole run in which every connection is encrypted: clusters, link, Consul and Vault by themselves, Temporal through an
// endpoint in front of it.
func TestAPlannedFailoverOverTLS(t *testing.T) {
	s := up(t, encrypted)
	address := s.temporalOverTLS(t)
	s.change(t, "worker", func(spec *tree.Spec) {
		spec.Env = append(spec.Env, "SWITCHBACK_TEMPORAL_ADDRESS="+address, "SWITCHBACK_TEMPORAL_TLS_CA="+s.CA())
	})
	p := s.play(t, "orders")
	p.flows("east")
	before := p.look()
	o := s.operator(t)
	o.runs(0, "start", "planned", "orders", "--to", "west", "--workflow-id", "encrypted", "--by", "ann", "--reason", "exercise",
		"--address", address, "--tls-ca-path", s.CA())
	out := p.ends(p.Temporal.GetWorkflow(t.Context(), "encrypted", ""), workflows.Completed)
	p.wentOver(before)
	p.flows("west")
	require.True(t, p.clean("west", out).Agrees)

	entry, err := s.Discovery("orders")
	require.NoError(t, err)
	defer entry.Close()
	state, err := entry.Read(t.Context())
	require.NoError(t, err)
	require.Equal(t, "SASL_SSL", state.SecurityProtocol)

	t.Run("who does not trust the authority of Temporal is told so", func(t *testing.T) {
		_, says := o.runs(1, "status", "encrypted", "--address", address, "--tls")
		require.Contains(t, says, "certificate")
	})
}

// A worker that was not told of the authority behind one system goes no further than preflight, and what preflight needs:
// the run says which system it is and what to do, and everything stands as it stood.
func TestAWorkerWithoutTheAuthority(t *testing.T) {
	s := up(t, encrypted)
	p := s.play(t, "orders")
	p.flows("east")
	before := p.look()
	whole, err := os.ReadFile(s.RunbookFile("orders"))
	require.NoError(t, err)
	for _, tc := range []struct {
		name string
		edit func(*runbooks.Runbook)
		says []string
	}{
		{"of a cluster", func(b *runbooks.Runbook) {
			c := b.Clusters["west"]
			c.Security.CA = ""
			b.Clusters["west"] = c
		}, []string{"nothing was changed", "west", "certificate signed by unknown authority", "check security.ca"}},
		{"of the link", func(b *runbooks.Runbook) { b.Links[0].ClusterLinking.CA = "" },
			[]string{"nothing was changed", "read link east-west", "certificate signed by unknown authority", "check the address, the network and the certificate authority of the REST endpoint"}},
		{"of Consul", func(b *runbooks.Runbook) { b.Discovery[0].Consul.CA = "" },
			[]string{"Consul at " + s.ConsulURL(), "certificate signed by unknown authority", "check the CA file"}},
		{"a file that is not there", func(b *runbooks.Runbook) { b.Discovery[0].Consul.CA = "/nowhere/ca.pem" },
			[]string{"Consul", "/nowhere/ca.pem"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var b runbooks.Runbook
			require.NoError(t, yaml.Unmarshal(whole, &b))
			tc.edit(&b)
			raw, err := yaml.Marshal(b)
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(s.RunbookFile("orders"), raw, 0o600))
			p := s.play(t, "orders")
			out := p.ends(p.start("no-authority-"+filepath.Base(t.Name())), workflows.FailedRun)
			for _, says := range tc.says {
				require.Contains(t, out.Sentence, says)
			}
			p.cameBack(before, false)
		})
	}
	require.NoError(t, os.WriteFile(s.RunbookFile("orders"), whole, 0o600))

	t.Run("of Vault", func(t *testing.T) {
		s.change(t, "worker", func(spec *tree.Spec) { spec.Env = append(spec.Env, "SWITCHBACK_VAULT_TLS_CA=") })
		p := s.play(t, "orders")
		out := p.ends(p.start("no-authority-of-vault"), workflows.FailedRun)
		for _, says := range []string{"Vault at " + s.VaultURL(), "certificate signed by unknown authority", "check the CA file"} {
			require.Contains(t, out.Sentence, says)
		}
		p.cameBack(before, false)
	})
}

// temporalOverTLS is an endpoint with the lab's certificate in front of Temporal, whose development server has none.
func (s *stage) temporalOverTLS(t *testing.T) (address string) {
	t.Helper()
	at := func(file string) string { return filepath.Join(filepath.Dir(s.CA()), file) }
	pair, err := tls.LoadX509KeyPair(at("server.pem"), at("server-key.pem"))
	require.NoError(t, err)
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2"},
	})
	require.NoError(t, err)
	t.Cleanup(func() { _ = listener.Close() })
	go func() {
		for {
			outer, err := listener.Accept()
			if err != nil {
				return
			}
			go join(outer, s.TemporalAddress())
		}
	}()
	return listener.Addr().String()
}

// join carries bytes between a connection and an address until either side ends.
func join(outer net.Conn, address string) {
	defer outer.Close()
	inner, err := net.Dial("tcp", address)
	if err != nil {
		return
	}
	defer inner.Close()
	go func() {
		_, _ = io.Copy(inner, outer)
		_ = inner.Close()
	}()
	_, _ = io.Copy(outer, inner)
}
