package e2e_test

import (
	"context"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"

	"switchback/lab/setup"
	"switchback/lab/tree"
	"switchback/workflows"
)

// The answer to the transaction that switched is lost: the run sees its own name in the entry, and goes on. The epoch
// counts once.
func TestP02_ASwitchWhoseAnswerIsLostIsSeenAsDone(t *testing.T) {
	var consul *proxy
	s := up(t, throughProxy(t, &consul))
	p := s.play(t, "orders")
	p.flows("east")
	before := p.look()
	var switches atomic.Int32
	consul.onSwitch(func(forward func()) {
		forward()
		if switches.Add(1) == 1 {
			panic(http.ErrAbortHandler)
		}
	})
	out := p.ends(p.start("lost-answer"), workflows.Completed)
	require.EqualValues(t, 1, switches.Load(), "it must not ask twice: the first transaction was done")
	require.Equal(t, before.Epoch+1, out.Epoch)
	p.wentOver(before)
	p.flows("west")
	p.clean("west", out)
}

// Somebody changes keys between the run's read and its write. Where only a value was changed the transaction is refused,
// read anew and made; where the epoch was changed somebody else has gone on, and the run stops acting.
func TestP02_KeysChangedBetweenReadAndWrite(t *testing.T) {
	var consul *proxy
	s := up(t, func(o *setup.Options) { o.Workloads = append(o.Workloads, small("returns")) }, throughProxy(t, &consul))
	direct, err := s.Consul()
	require.NoError(t, err)
	put := func(key, value string) {
		_, err := direct.KV().Put(&api.KVPair{Key: key, Value: []byte(value)}, nil)
		require.NoError(t, err)
	}
	t.Run("a value", func(t *testing.T) {
		p := s.play(t, "orders")
		p.flows("east")
		before := p.look()
		var switches atomic.Int32
		consul.onSwitch(func(forward func()) {
			if switches.Add(1) == 1 {
				put(setup.Prefix("orders")+"/security.protocol", "SASL_SSL")
			}
			forward()
		})
		out := p.ends(p.start("changed-value"), workflows.Completed)
		require.Greater(t, switches.Load(), int32(1), "the first transaction must have been refused")
		p.wentOver(before)
		value, _, err := direct.KV().Get(setup.Prefix("orders")+"/security.protocol", nil)
		require.NoError(t, err)
		require.Equal(t, "SASL_PLAINTEXT", string(value.Value))
		p.flows("west")
		p.clean("west", out)
	})
	t.Run("P35 the epoch", func(t *testing.T) {
		p := s.play(t, "returns")
		p.flows("east")
		consul.onSwitch(func(forward func()) {
			put(setup.Prefix("returns")+"/epoch", "40")
			put(setup.Prefix("returns")+"/switchedBy", "somebody")
			forward()
		})
		out := p.ends(p.start("changed-epoch"), workflows.FailedRun)
		consul.onSwitch(nil)
		require.Contains(t, out.Sentence, "somebody else has switched this runbook meanwhile, so the run stopped acting and left all as it is")
		after := p.look()
		require.Equal(t, "east", after.Cluster)
		require.EqualValues(t, 40, after.Epoch)
		require.Equal(t, "somebody", after.SwitchedBy)
	})
}

// A supervisor that is cut off from Consul vanishes there while its child goes on writing. Vanished is not stopped: the
// run names it and comes back.
func TestP22_ASupervisorCutOffFromConsulIsNotStopped(t *testing.T) {
	s := up(t, approvals(1), edited(hasty))
	wire := proxyTo(t, s.ConsulURL())
	s.change(t, "checkout-1", func(spec *tree.Spec) {
		for i, arg := range spec.Args {
			if arg == "--consul-address" {
				spec.Args[i+1] = wire.URL
			}
		}
	})
	p := s.play(t, "orders")
	p.flows("east")
	before := p.look()
	run := p.start("cut-off")
	p.reaches(run, string(workflows.Approve))
	wire.cut.Store(true)
	wire.CloseClientConnections()
	s.forget(t, "orders", "checkout", "checkout-1")
	p.order(run, workflows.UpdateApprove)
	p.turnsBack(run)
	p.flows("east") // its child wrote all the time
	wire.cut.Store(false)
	out := p.ends(run, workflows.RolledBack)
	require.Contains(t, out.Sentence, "the runbook expects 2 instances, discovery knows 1 (checkout-2): one that it does not know may still run")
	p.cameBack(before, true)
	p.flows("east")
	p.clean("east", out)
}

// forget has Consul forget an instance, as it does when a session expires.
func (s *stage) forget(t *testing.T, workload, client, instance string) {
	t.Helper()
	consul, err := s.Consul()
	require.NoError(t, err)
	key := setup.Prefix(workload) + "/clients/" + client + "/instances/" + instance
	eventually(t, instance+" to be forgotten", func() (bool, error) {
		pair, _, err := consul.KV().Get(key, new(api.QueryOptions).WithContext(context.Background()))
		if err != nil || pair == nil {
			return pair == nil, err
		}
		_, err = consul.Session().Destroy(pair.Session, nil)
		return false, err
	})
}
