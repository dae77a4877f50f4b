package e2e_test

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"switchback/activities"
	"switchback/lab/setup"
	"switchback/workflows"
)

// A home that comes back without what it had. What was stranded there is lost for ever: the run says so and asks for consent, topic
// by topic; then the workload goes home to a cluster that is mirrored from the start.

// loses is a workload that was moved to west when east died with records that were not mirrored: so many were acknowledged.
func (s *stage) loses(t *testing.T) (p *play, stranded int64) {
	t.Helper()
	p = s.play(t, "orders")
	p.flows("east")
	s.does(t, "the groups' offsets are mirrored", func(ctx context.Context) error { return p.HandedOver(ctx, "east", "west") })
	s.holdUp(t, p.Workload)
	p.flows("east")
	run := p.unplanned("east-is-gone", p.dies("east"))
	p.approved(run)
	p.ends(run, workflows.Completed)
	p.flows("west")
	stranded, err := p.Missing(t.Context(), "west")
	require.NoError(t, err)
	require.Positive(t, stranded, "nothing is stranded, so there is nothing to show")
	return p, stranded
}

// givesUp has a failback refused until the loss of every topic in which something was stranded is accepted by name, and goes home.
func (p *play) givesUp(why string) (home workflows.Result, plan workflows.FailbackPlan) {
	p.t.Helper()
	refused := p.ends(p.failback("unnamed", workflows.FailbackInput{}), workflows.FailedRun)
	require.Contains(p.t, refused.Sentence, "recovery impossible")
	require.Contains(p.t, refused.Sentence, why)
	require.Contains(p.t, refused.Sentence, "--accept-loss")
	p.stage.operator(p.t).json(1, &plan, "plan", "failback", "orders")
	var names []string
	for _, topic := range plan.Turn.Worst {
		if topic.Lost > 0 || topic.Open {
			names = append(names, topic.Topic)
		}
	}
	require.NotEmpty(p.t, names)
	home = p.ends(p.failback("named", workflows.FailbackInput{AcceptLoss: names}), workflows.Completed)
	p.flows("east")
	said := strings.Join(p.report(home).Deviations, "\n")
	for _, name := range names {
		require.Contains(p.t, said, "topic "+name+": recovery impossible")
	}
	return home, plan
}

// lostOnly ends the traffic: what was stranded is lost, and nothing else is wrong at home.
func (p *play) lostOnly(lost int64) {
	p.t.Helper()
	p.stage.does(p.t, "the groups read everything", func(ctx context.Context) error { return p.SettleOn(ctx, "east") })
	v := p.judge("east", "")
	p.t.Log(v)
	require.EqualValues(p.t, lost, v.Lost, "%s", v)
	require.Zero(p.t, v.TwoClusters, "%s", v)
	missing, err := p.Missing(p.t.Context(), "east")
	require.NoError(p.t, err)
	require.Equal(p.t, lost, missing, "all others are at home")
}

func TestI4_FailbackToAClusterThatCameBackEmpty(t *testing.T) {
	t.Parallel()
	for name, with := range map[string]func(*setup.Options){
		"a bidirectional link":      func(*setup.Options) {},
		"a link for each direction": func(o *setup.Options) { o.OneWayLink = true },
	} {
		t.Run(name, func(t *testing.T) {
			s := up(t, with, appending)
			p, stranded := s.loses(t)
			s.does(t, "start east on new disks", func(ctx context.Context) error { return s.StartEmpty(ctx, "east", false) })
			var f workflows.FencingStatus
			s.does(t, "fence east", func(ctx context.Context) (err error) { f, err = p.Fenced(ctx, "east"); return err })
			require.Contains(t, f.Ended, "gone for ever")
			require.LessOrEqual(t, f.Loss.AtLeast, stranded)
			require.False(t, f.Loss.Closed(), "nobody can count it any more")
			_, plan := p.givesUp("east came back without it")
			require.Equal(t, "mirror everything", string(plan.Turn.Way))
			p.lostOnly(stranded)
		})
	}
}

// One topic was deleted at home: the others are recovered as ever, and only what was stranded in that one is given up.
func TestI4_FailbackToAClusterThatCameBackInPart(t *testing.T) {
	t.Parallel()
	for name, with := range map[string]func(*setup.Options){
		"truncate and restore": func(*setup.Options) {},
		"delete and mirror":    func(o *setup.Options) { o.OneWayLink = true },
	} {
		t.Run(name, func(t *testing.T) {
			s := up(t, with, appending)
			p := s.afterADisaster(t)
			stranded := s.deleted(t, "orders.01", p)
			_, plan := p.givesUp("east came back without it")
			require.Equal(t, name, string(plan.Turn.Way))
			require.EqualValues(t, stranded, plan.Turn.Lost, "it was counted while it was there")
			p.lostOnly(stranded)
		})
	}
}

// deleted deletes a topic at home, and says how many acknowledged records west lacks of it.
func (s *stage) deleted(t *testing.T, topic string, p *play) (stranded int64) {
	t.Helper()
	admin, err := s.Kafka("east", "lab")
	require.NoError(t, err)
	defer admin.Close()
	stranded, err = p.MissingOf(t.Context(), "west", topic)
	require.NoError(t, err)
	require.Positive(t, stranded)
	_, err = kadm.NewClient(admin).DeleteTopic(t.Context(), topic)
	require.NoError(t, err)
	return stranded
}

// Over MirrorMaker 2 the connectors of the way home begin at the first offset, whether it is the old cluster on new disks or
// another one under its name.
func TestI4_FailbackOverMirrorMakerToAClusterThatCameBackEmpty(t *testing.T) {
	t.Parallel()
	for name, another := range map[string]bool{"the same cluster id": false, "another cluster id": true} {
		t.Run(name, func(t *testing.T) {
			s := up(t, onApache(t), setup.Impatient, appending)
			p, stranded := s.loses(t)
			was := s.ClusterID("east")
			s.does(t, "start east on new disks", func(ctx context.Context) error { return s.StartEmpty(ctx, "east", another) })
			var f workflows.FencingStatus
			s.does(t, "fence east", func(ctx context.Context) (err error) { f, err = p.Fenced(ctx, "east"); return err })
			require.Contains(t, f.Ended, "gone for ever")
			if another { // the runbook names its id
				var plan workflows.FailbackPlan
				s.operator(t).json(1, &plan, "plan", "failback", "orders")
				require.True(t, slices.ContainsFunc(plan.Turn.Findings, func(f activities.Finding) bool { return f.Check == "cluster identity" }))
				raw, err := os.ReadFile(s.RunbookFile("orders"))
				require.NoError(t, err)
				require.NoError(t, os.WriteFile(s.RunbookFile("orders"), []byte(strings.ReplaceAll(string(raw), was, s.ClusterID("east"))), 0o600))
			}
			_, plan := p.givesUp("lost for ever")
			require.Equal(t, "mirror everything", string(plan.Turn.Way))
			p.lostOnly(stranded)
		})
	}
}
