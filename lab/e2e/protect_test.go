package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	sdk "go.temporal.io/sdk/client"

	"switchback/activities"
	"switchback/lab/setup"
	"switchback/replication"
	"switchback/replication/mirrormaker"
	"switchback/workflows"
)

// protect runs Protect to its end.
func (p *play) protect(in workflows.ProtectRequest) (out workflows.Protected) {
	p.t.Helper()
	in.Runbook, in.By = p.Workload.Name, "operator-1"
	run, err := p.Temporal.ExecuteWorkflow(p.t.Context(), sdk.StartWorkflowOptions{TaskQueue: setup.TaskQueue, WorkflowTaskTimeout: activities.TaskTimeout}, "Protect", in)
	require.NoError(p.t, err)
	p.stage.does(p.t, "protect", func(ctx context.Context) error { return run.Get(ctx, &out) })
	p.t.Logf("protect: %s", out.Text)
	for _, d := range out.Left {
		p.t.Logf("  left: %s; %s%s", d, d.Mend, d.Do)
	}
	return out
}

// about are the differences of one kind, as lines.
func about(list []replication.Difference, kind string) (all []string) {
	for _, d := range list {
		if d.Kind == kind {
			all = append(all, d.String())
		}
	}
	slices.Sort(all)
	return all
}

// The lab's own topics are made by hand and lack what Protect sets. After the first time everything is as it should be; then
// somebody breaks one thing of each kind, under traffic. A dry run shows it and changes nothing, an operator mends it by the command
// line, and a second time there is nothing to do.
func TestProtectOverClusterLinking(t *testing.T) {
	s := up(t)
	p := s.play(t, "orders")
	p.flows("east")
	first := p.protect(workflows.ProtectRequest{})
	require.Empty(t, first.Left)
	require.True(t, first.Stands)
	require.Contains(t, about(first.Found, replication.KindOwnTopic), "own topic switchback.recovery on east is missing, should be there")
	whole := p.look()
	require.Empty(t, p.protect(workflows.ProtectRequest{}).Found)

	ctx := t.Context()
	west := s.admin(t, "west")
	gone := func(topic string) {
		t.Helper()
		r, err := west.DeleteTopic(ctx, topic)
		require.NoError(t, errors.Join(err, r.Err))
	}
	gone("orders.02")
	s.mirror(t, "pause", "orders.01")
	s.link(t, http.MethodPut, "/configs:alter", map[string]any{"data": []map[string]string{
		{"name": "consumer.offset.group.filters", "value": `{"groupFilters":[{"name":"somebody-elses","patternType":"LITERAL","filterType":"INCLUDE"}]}`, "operation": "SET"},
		{"name": "consumer.offset.sync.enable", "value": "false", "operation": "SET"},
		{"name": "auto.create.mirror.topics.enable", "value": "false", "operation": "SET"},
	}}, nil)
	gone("switchback.recovery")
	eventually(t, "the link to have forgotten the mirror", func() (bool, error) { return s.mirrors(t)["orders.02"] == "", nil })

	o := s.operator(t)
	var shown workflows.Protected
	eventually(t, "the link's tasks to have forgotten it too", func() (bool, error) { // a link in error may stand for what it says of its mirrors
		shown = workflows.Protected{}
		o.json(1, &shown, "protect", "orders", "--dry-run")
		return len(about(shown.Found, replication.KindLink)) == 0, fmt.Errorf("%v", about(shown.Found, replication.KindLink))
	})
	broken := p.look()
	o.json(1, &shown, "protect", "orders", "--dry-run")
	require.False(t, shown.Stands)
	require.Equal(t, []string{"mirror orders.01 is paused, should be active", "mirror orders.02 is not mirrored, should be active"}, about(shown.Found, replication.KindMirror))
	require.Len(t, about(shown.Found, replication.KindOffsetSync), 1)
	require.Equal(t, []string{"own topic switchback.recovery on west is missing, should be there"}, about(shown.Found, replication.KindOwnTopic))
	require.Equal(t, broken, p.look(), "a dry run changes nothing")

	out, _ := o.runs(0, "protect", "orders", "--apply", strings.Join(shown.IDs, ","))
	require.Contains(t, out, "protection stands")
	mended := p.look()
	require.Equal(t, whole.Mirrors, mended.Mirrors)
	require.Equal(t, "true", mended.Syncs["consumer.offset.sync.enable"])
	for _, group := range p.Workload.Groups() {
		require.Contains(t, includes(mended.Syncs["consumer.offset.group.filters"]), group)
	}
	require.Equal(t, whole.ACLs, mended.ACLs)
	require.Empty(t, p.protect(workflows.ProtectRequest{}).Found, "a second time there is nothing to do")
	require.Equal(t, mended, p.look())

	// What protects now is good enough to go.
	run := p.ends(p.start("protected"), workflows.Completed)
	p.flows("west")
	p.clean("west", run)

	// Gone there, nothing protects the workload: what stands in the way is named, and nothing is touched.
	before := p.look()
	left := p.protect(workflows.ProtectRequest{})
	require.False(t, left.Stands)
	require.Len(t, about(left.Left, replication.KindFence), 1)
	require.Len(t, about(left.Left, replication.KindMirror), 3)
	for _, d := range left.Left {
		require.False(t, d.Mendable() && d.Level == replication.LevelProblem, "%s", d)
	}
	require.Equal(t, before, p.look())
}

// A run holds the runbook: Protect yields, and mends when the run has come back.
func TestProtectYieldsToARun(t *testing.T) {
	s := up(t, approvals(1))
	p := s.play(t, "orders")
	p.flows("east")
	run := p.start("holds")
	p.reaches(run, string(workflows.Approve))
	before := p.look()
	out := p.protect(workflows.ProtectRequest{})
	require.True(t, out.Yielded)
	require.Contains(t, out.Text, "run holds/")
	require.Equal(t, before, p.look())
	p.order(run, workflows.UpdateAbort)
	p.ends(run, workflows.Aborted)
	require.Empty(t, p.protect(workflows.ProtectRequest{}).Left)
}

// strays writes to a topic of west as the workload's producer, past its supervisor.
func (s *stage) strays(t *testing.T, user, topic string) error {
	t.Helper()
	c, err := s.Kafka("west", user, kgo.RecordRetries(0))
	require.NoError(t, err)
	defer c.Close()
	return c.ProduceSync(t.Context(), &kgo.Record{Topic: topic, Value: []byte("stray")}).FirstErr()
}

// Real connectors: one is deleted, one is paused, a pattern lacks a topic. All of it is mended; the standby is closed to stray clients,
// and a planned run opens it (P11).
func TestP11_ProtectOverMirrorMakerClosesTheStandbyUntilARunOpensIt(t *testing.T) {
	s := onMirrors(t, edited(hasty))
	p := s.play(t, "orders")
	p.flows("east")
	l := s.mirrorMaker(t, mirrormaker.PolicyIdentity)
	first := p.protect(workflows.ProtectRequest{})
	require.Len(t, about(first.Found, replication.KindStandby), 1)
	require.Empty(t, about(first.Left, replication.KindStandby))
	require.True(t, first.Stands)
	producer := client(p.Workload, "producer").Name
	require.ErrorContains(t, s.strays(t, producer, "orders.00"), "TOPIC_AUTHORIZATION_FAILED")
	p.flows("east")

	ctx := t.Context()
	require.NoError(t, l.Client().Delete(ctx, "east-west.checkpoint"))
	require.NoError(t, l.Client().Pause(ctx, "east-west.heartbeat"))
	s.settings(t, "east-west.source", map[string]string{"topics": `orders\.0[01]`})
	eventually(t, "Connect to show it", func() (bool, error) {
		status, err := l.Status(ctx)
		return strings.Contains(status.Reason, "PAUSED") && !strings.Contains(status.Reason, "east-west.source"), err
	})
	var shown workflows.Protected
	eventually(t, "the dry run to show two more", func() (bool, error) { // Connect assigns tasks anew meanwhile
		shown = p.protect(workflows.ProtectRequest{DryRun: true})
		return len(about(shown.Found, replication.KindConnector)) == len(about(first.Left, replication.KindConnector))+2, fmt.Errorf("%v", about(shown.Found, replication.KindConnector))
	})
	require.Equal(t, []string{`mirror east-west.source topics is orders\.0[01], should be orders\.0[01],orders\.02`}, about(shown.Found, replication.KindMirror))
	mended := p.protect(workflows.ProtectRequest{Apply: shown.IDs})
	require.Equal(t, about(first.Left, replication.KindConnector), about(mended.Left, replication.KindConnector))
	require.Empty(t, about(mended.Left, replication.KindMirror))
	require.True(t, mended.Stands)
	status, err := l.Status(ctx)
	require.NoError(t, err)
	require.True(t, status.Healthy, status.Reason)
	before := len(p.denials("west"))
	again := p.protect(workflows.ProtectRequest{})
	require.Empty(t, again.Mended)
	require.Len(t, p.denials("west"), before)
	p.flows("east")

	out := p.ends(p.start("opens"), workflows.Completed)
	p.flows("west")
	for _, acl := range p.denials("west") {
		require.Contains(t, acl, "User:mm2-", "the clients' own DENYs are gone")
	}
	require.True(t, p.clean("west", out).Agrees)
	require.False(t, p.protect(workflows.ProtectRequest{To: "east"}).Stands)
}

// settings changes some of a connector's configuration, as somebody else would.
func (s *stage) settings(t *testing.T, connector string, set map[string]string) {
	t.Helper()
	var config map[string]string
	login, at := s.ConnectLogin(), s.ConnectURL("west")+"/connectors/"+connector+"/config"
	s.call(t, http.MethodGet, at, &login, nil, &config)
	for key, value := range set {
		config[key] = value
	}
	s.call(t, http.MethodPut, at, &login, config, nil)
}
