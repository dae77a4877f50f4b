package e2e_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/lab/tree"
	"switchback/workflows"
)

// Consul and Vault are killed. Clients go on as if nothing had happened, and the workload goes over once both are back.
func TestSupervisorsKeepHealthyClientsWithoutConsulAndVault(t *testing.T) {
	s := up(t)
	p := s.play(t, "orders")
	p.flows("east")
	before := p.look()
	processes := s.running()
	require.NoError(t, s.Kill("consul"))
	require.NoError(t, s.Kill("vault"))
	until := time.Now().Add(12 * time.Second) // longer than a Consul session lives
	for time.Now().Before(until) {
		p.flows("east")
	}
	for _, name := range []string{"consul", "vault"} {
		s.does(t, "start "+name, func(ctx context.Context) error { return s.StartAgain(ctx, name) })
	}
	after := s.running()
	for _, name := range []string{"checkout-1", "checkout-2", "billing-1", "billing-2", "shipping-1"} {
		require.Equal(t, processes[name], after[name], "%s was not kept", name)
	}
	eventually(t, "every instance to be back in Consul", func() (bool, error) {
		entry, err := p.Lab.Discovery("orders")
		if err != nil {
			return false, err
		}
		defer entry.Close()
		state, err := entry.Read(t.Context())
		instances := 0
		for _, c := range state.Clients {
			instances += len(c.Instances)
		}
		return instances == 5, err
	})
	out := p.ends(p.start("after-the-outage"), workflows.Completed)
	p.wentOver(before)
	p.flows("west")
	p.clean("west", out)
}

// running are the lab's processes by name.
func (s *stage) running() map[string]int {
	pids := map[string]int{}
	for _, process := range s.Status() {
		if process.State == tree.Running {
			pids[process.Name] = process.PID
		}
	}
	return pids
}

// A supervisor's token of Vault lives for seconds. It is renewed, so that the switch finds a supervisor that may still
// read its secret for the target.
func TestATokenOfVaultIsRenewed(t *testing.T) {
	s := up(t)
	vault, err := s.Vault()
	require.NoError(t, err)
	_, err = vault.Logical().WriteWithContext(t.Context(), "auth/approle/role/checkout", map[string]any{"token_policies": "checkout", "token_ttl": "4s", "token_max_ttl": "1h"})
	require.NoError(t, err)
	s.change(t, "checkout-1", func(*tree.Spec) {}) // logs in anew
	p := s.play(t, "orders")
	p.flows("east")
	before := p.look()
	eventually(t, "the token to outlive itself by renewal", func() (bool, error) {
		listed, err := vault.Logical().ListWithContext(t.Context(), "auth/token/accessors")
		if err != nil {
			return false, err
		}
		for _, accessor := range listed.Data["keys"].([]any) {
			token, err := vault.Auth().Token().LookupAccessorWithContext(t.Context(), accessor.(string))
			if err != nil {
				continue // it has expired meanwhile
			}
			created, err := token.Data["creation_ttl"].(json.Number).Int64()
			if err != nil || created != 4 {
				continue
			}
			at, err := token.Data["creation_time"].(json.Number).Int64()
			if err == nil && time.Since(time.Unix(at, 0)) > 10*time.Second {
				return true, nil
			}
		}
		return false, nil
	})
	out := p.ends(p.start("with-a-renewed-token"), workflows.Completed)
	p.wentOver(before)
	p.flows("west")
	p.clean("west", out)
}
