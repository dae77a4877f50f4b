package e2e_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/lab/linkservice"
	"switchback/runbooks"
	"switchback/workflows"
)

// Past the point of no return a run goes forward or parks, and says who must do what. Nothing rolls it back.

// A promote that hangs is finished by failover: equality was proven, so nothing is lost by it.
func TestP15_APromoteThatHangsGetsAFailover(t *testing.T) {
	s := up(t, edited(func(b *runbooks.Runbook) { b.Budgets.Promote = runbooks.Duration(8 * time.Second) }))
	p := s.play(t, "orders")
	p.flows("east")
	before := p.look()
	let := s.linkFault(t, linkservice.Fault{Kind: "stuck", Topic: "orders.01"})
	s.linkFault(t, linkservice.Fault{Kind: "slow", Path: "mirrors:failover", Delay: 1})
	run := p.start("hanging-promote")
	p.reaches(run, string(workflows.Promote))
	for _, order := range []string{workflows.UpdateAbort, workflows.UpdateRollback} {
		require.Contains(t, p.refused(run, order), "past its point of no return (promote was sent)")
	}
	require.NoError(t, p.Temporal.CancelWorkflow(t.Context(), run.GetID(), "")) // means abort, and that is refused
	eventually(t, "the link to be asked for a failover", func() (bool, error) { return s.linkHits(t, "mirrors:failover") > 0, nil })
	let()
	out := p.ends(run, workflows.Completed)
	require.Contains(t, out.Deviations, "promote did not end, so these topics were failed over, without loss because both sides were proven equal: orders.01")
	p.wentOver(before)
	p.flows("west")
	p.clean("west", out)
}

// Consul is away when traffic is to be switched: the run parks, and goes on at an operator's word.
func TestASwitchThatFailsParksAndIsRetried(t *testing.T) {
	s := up(t)
	p := s.play(t, "orders")
	p.flows("east")
	before := p.look()
	let := s.linkFault(t, linkservice.Fault{Kind: "stuck", Topic: "orders.01"})
	run := p.start("no-consul")
	p.reaches(run, string(workflows.Promote))
	require.NoError(t, s.Kill("consul"))
	let()
	p.reaches(run, "parked")
	status, err := p.Status(t.Context(), run.GetID())
	require.NoError(t, err)
	require.Contains(t, status.Parked, "switch failed")
	require.Contains(t, status.Parked, "An operator must mend that and `retry`; the run only goes forward from here, abort and rollback are refused.")
	require.Contains(t, p.refused(run, workflows.UpdateAbort), "past its point of no return")
	require.Contains(t, p.refused(run, workflows.UpdateSkip), "may not be skipped")
	s.does(t, "start Consul", func(ctx context.Context) error { return s.StartAgain(ctx, "consul") })
	p.order(run, workflows.UpdateRetry)
	out := p.ends(run, workflows.Completed)
	p.wentOver(before)
	p.flows("west")
	p.clean("west", out)
}

// A client's secret for the target vanishes from Vault during the run: starting it fails, the run parks and names it, and
// goes on once the secret is back.
func TestAStartThatFailsParksAndIsRetried(t *testing.T) {
	s := up(t, approvals(1), edited(func(b *runbooks.Runbook) { b.Budgets.StartClients = runbooks.Duration(6 * time.Second) }))
	p := s.play(t, "orders")
	p.flows("east")
	before := p.look()
	run := p.start("no-secret")
	p.reaches(run, string(workflows.Approve))
	put := s.withoutSecret(t, "west/checkout")
	p.order(run, workflows.UpdateApprove)
	p.reaches(run, "parked")
	status, err := p.Status(t.Context(), run.GetID())
	require.NoError(t, err)
	require.Contains(t, status.Parked, "start-clients failed")
	require.Contains(t, status.Parked, "checkout-1")
	require.Contains(t, p.refused(run, workflows.UpdateRollback), "past its point of no return")
	put()
	p.order(run, workflows.UpdateRetry)
	out := p.ends(run, workflows.Completed)
	p.wentOver(before)
	p.flows("west")
	p.clean("west", out)
}

// secret is a path of Vault's KV store.
func (s *stage) secret(t *testing.T, path string) (get func() map[string]any, put func(map[string]any)) {
	t.Helper()
	vault, err := s.Vault()
	require.NoError(t, err)
	kv := vault.KVv2("kafka")
	get = func() map[string]any {
		t.Helper()
		secret, err := kv.Get(t.Context(), path)
		require.NoError(t, err)
		return secret.Data
	}
	put = func(data map[string]any) {
		t.Helper()
		_, err := kv.Put(t.Context(), path, data)
		require.NoError(t, err)
	}
	return get, put
}

// withoutSecret deletes one, and returns how to put it back.
func (s *stage) withoutSecret(t *testing.T, path string) (put func()) {
	t.Helper()
	get, set := s.secret(t, path)
	before := get()
	vault, err := s.Vault()
	require.NoError(t, err)
	require.NoError(t, vault.KVv2("kafka").Delete(t.Context(), path))
	return func() { t.Helper(); set(before) }
}
