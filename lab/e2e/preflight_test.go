package e2e_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/lab/linkservice"
	"switchback/runbooks"
	"switchback/workflows"
)

// What forbids a run is found before anybody was stopped: the run fails, names it and says what to do, and everything
// stands as it stood. Then it is mended, and the same runbook goes over.
func TestPreflightForbidsAndNothingIsChanged(t *testing.T) {
	s := up(t)
	whole := s.play(t, "orders")
	whole.flows("east")
	beginning := whole.look()
	for _, tc := range []struct {
		name  string
		wreck func(p *play) (mend func())
		says  []string
	}{
		{"a mirror has failed", func(p *play) func() {
			return s.linkFault(p.t, linkservice.Fault{Kind: "topicStatus", Topic: "orders.01", Value: "FAILED"})
		}, []string{"mirrors: topic orders.01", "FAILED", "mirror it, or exclude it"}},
		{"a mirror is in a state that nobody knows", func(p *play) func() {
			return s.linkFault(p.t, linkservice.Fault{Kind: "topicStatus", Topic: "orders.01", Value: "PENDING_TELEPORT"})
		}, []string{"mirrors: topic orders.01", "PENDING_TELEPORT"}},
		{"credentials that do not log in to the target", func(p *play) func() {
			get, put := s.secret(p.t, "west/checkout")
			before := get()
			put(map[string]any{"username": "checkout", "password": "of-some-other-day"})
			return func() { put(before) }
		}, []string{"client credentials: checkout cannot log in to west with the secret at kafka/west/checkout"}},
		{"no secret for the target at all", func(p *play) func() {
			return s.withoutSecret(p.t, "west/billing")
		}, []string{"client credentials: billing cannot log in to west"}},
		{"WRITE is not granted on the target", func(p *play) func() {
			s.setSync(p.t, "acl.sync.enable", "false") // or it would come back by itself
			admin := s.admin(p.t, "west")
			write := func() *kadm.ACLBuilder {
				return kadm.NewACLs().Topics("orders.").ResourcePatternType(kadm.ACLPatternPrefixed).Operations(kadm.OpWrite).Allow("User:checkout").AllowHosts("*")
			}
			deleted, err := admin.DeleteACLs(p.t.Context(), write())
			require.NoError(p.t, err)
			require.Len(p.t, deleted[0].Deleted, 1)
			return func() {
				_, err := admin.CreateACLs(p.t.Context(), write())
				require.NoError(p.t, err)
				s.aclSync(p.t, beginning, "true")
			}
		}, []string{"client grants: checkout (User:checkout) lacks on west: WRITE on topic orders.00"}},
		{"a DENY stands on the target", func(p *play) func() {
			s.setSync(p.t, "acl.sync.enable", "false")
			admin := s.admin(p.t, "west")
			deny := func() *kadm.ACLBuilder {
				return kadm.NewACLs().Topics("orders.00").ResourcePatternType(kadm.ACLPatternLiteral).Operations(kadm.OpWrite).Deny("User:*").DenyHosts("*")
			}
			_, err := admin.CreateACLs(p.t.Context(), deny())
			require.NoError(p.t, err)
			return func() {
				_, err := admin.DeleteACLs(p.t.Context(), deny())
				require.NoError(p.t, err)
				s.aclSync(p.t, beginning, "true")
			}
		}, []string{"DENY on the target: 1 operations of the clients are denied on west: User:checkout WRITE on topic orders.00"}},
		{"P25 a group of the same name lives on the target", func(p *play) func() {
			c, err := p.Lab.Kafka("west", "lab", kgo.ClientID("stray"), kgo.ConsumerGroup("billing"), kgo.ConsumeTopics("orders.00"), kgo.DisableAutoCommit())
			require.NoError(p.t, err)
			p.t.Cleanup(c.Close)
			admin := s.admin(p.t, "west")
			eventually(p.t, "the group to live on west", func() (bool, error) {
				described, err := admin.DescribeGroups(p.t.Context(), "billing")
				return described["billing"].State == "Stable", err
			})
			return c.Close
		}, []string{"groups: group billing has members on west: stray", "a group is unique over both clusters"}},
		{"the link does not let Switchback in", func(p *play) func() {
			return s.linkFault(p.t, linkservice.Fault{Kind: "unauthorized"})
		}, []string{"link"}},
		{"a client is not there", func(p *play) func() {
			require.NoError(p.t, s.Stop(p.t.Context(), "shipping-1"))
			return func() { require.NoError(p.t, s.StartAgain(p.t.Context(), "shipping-1")) }
		}, []string{"clients: client shipping has no running instance that discovery knows of, the runbook expects 1"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			p := s.play(t, "orders")
			mend := tc.wreck(p)
			wrecked := s.acls(t, "west")
			out := p.ends(p.start("forbidden-"+runbooks.PlannedFailoverSteps[0]+"-"+t.Name()[len(t.Name())-8:]), workflows.FailedRun)
			require.Contains(t, out.Sentence, "so nothing was changed")
			for _, says := range tc.says {
				require.Contains(t, out.Sentence, says)
			}
			require.Equal(t, wrecked, s.acls(t, "west"))
			mend()
			p.cameBack(beginning, false)
		})
	}
	p := s.play(t, "orders")
	out := p.ends(p.start("allowed"), workflows.Completed)
	p.wentOver(beginning)
	p.flows("west")
	p.clean("west", out)
}
