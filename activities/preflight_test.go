package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/replication"
	"switchback/runbooks"
)

func (w *world) preflight(change ...func(*PreflightInput)) PreflightResult {
	w.t.Helper()
	in := PreflightInput{Run: w.guard().Run, Runbook: w.runbook(), Route: w.route(), Epoch: w.epoch}
	for _, c := range change {
		c(&in)
	}
	out, err := run[PreflightResult](w, (*Preflight)(nil).Check, in)
	require.NoError(w.t, err)
	return out
}

// found are the findings of a check at a level, as one text.
func found(r PreflightResult, check, level string) string {
	var texts []string
	for _, f := range r.Findings {
		if f.Check == check && f.Level == level {
			texts = append(texts, f.Means)
		}
	}
	return strings.Join(texts, "\n")
}

func TestPreflightFindsNothingWrong(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.fill("orders", 0, 5)
	w.join("billing", kgo.ClientID("billing-1"))
	out := w.preflight()
	require.Zero(t, out.Problems(), "%+v", out.Findings)
	require.Equal(t, []any{2, 3, 1, int64(0), "east-west", true}, []any{out.Topics, out.Partitions, out.Groups, out.Lag, out.LinkName, out.StopIsFinal})
	require.Equal(t, (time.Second + cycleGrace).Seconds(), out.QuietSeconds)
	scope, err := w.recordsNow().scope(context.Background(), w.guard().Run.ID())
	require.NoError(t, err)
	require.Equal(t, map[string][]string{"billing": {"orders"}}, scope.Reads)
	for _, f := range out.Findings {
		require.NotEmpty(t, f.Means)
		require.True(t, f.Level == LevelOK || f.Do != "" || f.Check == "transactions", "%+v", f)
	}
}

func TestADryRunWritesNothing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	out := w.preflight(func(in *PreflightInput) { in.DryRun = true })
	require.Zero(t, out.Problems(), "%+v", out.Findings)
	require.Empty(t, w.trace)
}

func TestPreflightFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, tc := range map[string]struct {
		spoil        func(w *world)
		change       func(*PreflightInput)
		check, level string
		says         string
	}{
		"mirror failed":        {spoil: func(w *world) { w.link.set("orders", replication.MirrorFailed, "FAILED") }, check: "mirrors", level: LevelProblem, says: "topic orders: its mirror is failed (FAILED"},
		"mirror unknown":       {spoil: func(w *world) { w.link.set("orders", replication.MirrorUnknown, "NEW_WORD") }, check: "mirrors", level: LevelProblem, says: "NEW_WORD"},
		"not mirrored":         {spoil: func(w *world) { delete(w.link.mirrors, "payments") }, check: "mirrors", level: LevelProblem, says: "no mirror of this topic"},
		"narrow mirror":        {spoil: func(w *world) { w.link.mirrors["orders"].Partitions = 1 }, check: "mirrors", level: LevelProblem, says: "2 partitions on east and its mirror 1"},
		"link down":            {spoil: func(w *world) { w.link.healthy = false }, check: "link", level: LevelProblem, says: "LINK_FAILED"},
		"other workloads (P3)": {check: "other workloads", level: LevelWarning, says: "others"},
		"wrong password":       {spoil: func(w *world) { w.passwords["kafka/west/checkout"] = canary + "-wrong" }, check: "client credentials", level: LevelProblem, says: "checkout cannot log in to west with the secret at kafka/west/checkout"},
		"no WRITE on target": {spoil: func(w *world) {
			require.NoError(w.t, w.as("west", admin).DeleteACLs(ctx, allow(checkout, "TOPIC", "LITERAL", "orders", "WRITE")))
		}, check: "client grants", level: LevelProblem, says: "checkout (User:checkout) lacks on west: WRITE on topic orders"},
		"fence left on target": {spoil: func(w *world) {
			require.NoError(w.t, w.as("west", admin).CreateACLs(ctx, replication.TopicFence([]string{"orders"})))
		}, check: "DENY on the target", level: LevelProblem, says: "User:checkout WRITE on topic orders"},
		"link may not read": {spoil: func(w *world) {
			require.NoError(w.t, w.as("east", admin).DeleteACLs(ctx, allow(linkUser, "TOPIC", "LITERAL", "orders", "READ")))
		}, check: "own grants", level: LevelProblem, says: "User:link: READ on topic orders"},
		"stranger writes (P11)": {spoil: func(w *world) {
			require.NoError(w.t, w.as("west", admin).CreateACLs(ctx, allow("shadow", "TOPIC", "LITERAL", "*", "WRITE")))
		}, check: "other writers", level: LevelWarning, says: "User:shadow"},
		"everybody writes (P11)": {spoil: func(w *world) {
			require.NoError(w.t, w.as("west", admin).CreateACLs(ctx, allow("*", "TOPIC", "PREFIXED", "ord", "WRITE")))
		}, check: "other writers", level: LevelWarning, says: "everybody may write"},
		"stranded records would expire": {spoil: func(w *world) {
			require.NoError(w.t, w.as("east", admin).DeleteACLs(ctx, allow(me, "TOPIC", "LITERAL", "payments", "ALTER_CONFIGS")))
		}, check: "own grants", level: LevelWarning, says: "lacks ALTER_CONFIGS on topics of east: payments"},
		"positions grow (P20)": {spoil: func(w *world) {
			day := "86400000"
			require.NoError(w.t, w.as("west", admin).AlterTopicConfigs(ctx, map[string]map[string]*string{PositionsTopic: {"segment.ms": &day}}))
		}, check: "own records", level: LevelWarning, says: "segment.ms is 86400000, not 600000"},
		"stranger marks (P20)": {spoil: func(w *world) {
			require.NoError(w.t, w.as("west", admin).CreateACLs(ctx, allow("shadow", "TOPIC", "LITERAL", MarksTopic, "WRITE")))
		}, check: "own records", level: LevelWarning, says: "User:shadow"},
		"records refused (P20)": {spoil: func(w *world) {
			w.before["west.Put"] = func(context.Context) error { return errors.New("not authorized") }
		}, check: "own records", level: LevelProblem, says: "switchback.marks on west cannot be written"},
		"records lost (P20)":  {spoil: func(w *world) { w.losing = true }, check: "own records", level: LevelProblem, says: "what was just written reads back"},
		"discovery elsewhere": {spoil: func(w *world) { w.entries["consul.west"].state.Cluster = "south" }, check: "discovery", level: LevelProblem, says: `the workload is on "south"`},
		"no epoch":            {spoil: func(w *world) { w.entries["consul.west"].state.Epoch = replication.Unknown }, check: "discovery", level: LevelProblem, says: "missing or no number"},
		"no instance":         {spoil: func(w *world) { w.entries["consul.west"].state.Clients[checkout] = ClientEntry{Desired: DesiredRun} }, check: "clients", level: LevelProblem, says: "no running instance"},
		"pinned client": {spoil: func(w *world) {
			c := w.entries["consul.west"].state.Clients[checkout]
			c.Overrides = map[string]string{"cluster": "south"}
			w.entries["consul.west"].state.Clients[checkout] = c
		}, check: "discovery", level: LevelProblem, says: "clients/checkout/cluster"},
		"the same cluster": {change: func(in *PreflightInput) { in.Route.To = Site{Name: "east", Cluster: in.Route.From.Cluster} }, check: "cluster identity", level: LevelProblem, says: "are the same cluster east-id"},
		"another cluster":  {change: func(in *PreflightInput) { in.Route.To.Cluster.ID = "lkc-1" }, check: "cluster identity", level: LevelProblem, says: "answers as cluster west-id, the runbook says lkc-1"},
		"no topic":         {change: func(in *PreflightInput) { in.Runbook.Topics.Include = []string{"nothing"} }, check: "topics", level: LevelProblem, says: "no topic of east"},
		"alive there (P25)": {spoil: func(w *world) {
			w.raw("west", admin, kgo.ConsumerGroup("billing"), kgo.ConsumeTopics("orders"))
			w.stable("west", "billing")
		}, check: "groups", level: LevelProblem, says: "group billing has members on west"},
		"commits there (P25)": {spoil: func(w *world) {
			w.commit("east", "billing", map[replication.Partition]int64{at("orders", 0): 1})
			w.commit("west", "billing", map[replication.Partition]int64{at("orders", 0): 4})
		}, check: "groups", level: LevelProblem, says: "beyond 1, where 1 on east is there: no sync made it"},
		"commits there of older days (P29)": {spoil: func(w *world) {
			w.commit("east", "billing", map[replication.Partition]int64{at("orders", 0): 1})
			w.commit("west", "billing", map[replication.Partition]int64{at("orders", 0): 4})
		}, change: mirrorMaker, check: "groups", level: LevelWarning, says: "beyond 1, where 1 on east is there; offset sync never moves a group back, the run does"},
		"no commit (P24)": {spoil: func(w *world) {
			w.fill("orders", 1, 1)
			w.commit("east", "billing", map[replication.Partition]int64{at("orders", 0): 0})
		}, check: "groups", level: LevelWarning, says: "no commit on 1 partitions that hold records; it goes on there at the earliest offset"},
		"transactions (P19)":  {spoil: func(w *world) { w.transact() }, check: "transactions", level: LevelProblem, says: "ship"},
		"mirror stands still": {spoil: func(w *world) { w.write("east", "orders", 0, 2) }, check: "drain", level: LevelProblem, says: "2 records are not mirrored yet and none came"},
		"configs differ": {spoil: func(w *world) {
			require.NoError(w.t, w.as("west", admin).CreateTopic(ctx, replication.NewTopic{Name: "payments2", Partitions: 1, Configs: map[string]string{"cleanup.policy": "compact"}}))
			w.both("payments2")
		}, check: "topic configs", level: LevelProblem, says: "topic payments2: cleanup.policy is delete on east and compact on west"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			if tc.spoil != nil {
				tc.spoil(w)
			}
			out := w.preflight(func(in *PreflightInput) {
				if tc.change != nil {
					tc.change(in)
				}
			})
			require.Contains(t, found(out, tc.check, tc.level), tc.says, "%+v", out.Findings)
			for _, f := range out.Findings {
				require.NotContains(t, f.Means, canary)
			}
		})
	}
}

// mirrorMaker makes the route one over MirrorMaker 2, whose principals nobody here has heard of.
func mirrorMaker(in *PreflightInput) {
	in.Route.Link = runbooks.Link{From: "east", To: "west", MirrorMaker: &runbooks.MirrorMaker{Principals: runbooks.Principals{Data: "User:mm2", Admin: "User:mm2"}}}
}

// both makes the rest of a topic that is on the target only.
func (w *world) both(topic string) {
	require.NoError(w.t, w.as("east", admin).CreateTopic(context.Background(), replication.NewTopic{Name: topic, Partitions: 1}))
	for _, site := range []string{"east", "west"} {
		require.NoError(w.t, w.as(site, admin).CreateACLs(context.Background(), allow(me, "TOPIC", "LITERAL", topic, "READ", "DESCRIBE_CONFIGS")))
	}
}

func (w *world) transact() {
	cl := w.raw("east", admin, kgo.TransactionalID("ship"))
	require.NoError(w.t, cl.BeginTransaction())
	require.NoError(w.t, cl.ProduceSync(context.Background(), &kgo.Record{Topic: "orders", Value: []byte("v")}).FirstErr())
}

// A mirror that fetches in batches seems to stand still for a moment.
func TestABatchingMirrorIsNoProblem(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.write("east", "orders", 0, 2)
	time.AfterFunc(time.Second, func() { w.write("west", "orders", 0, 2) })
	out := w.preflight()
	require.Empty(t, found(out, "drain", LevelProblem))
	require.NotEmpty(t, found(out, "drain", LevelOK))
}

// A thousand groups cost what one does: their offsets are translated together.
func TestPreflightTranslatesAllGroupsInOnePass(t *testing.T) {
	t.Parallel()
	w := calm(t)
	w.fill("orders", 0, 5)
	for i := range 20 {
		w.commit("east", fmt.Sprintf("billing-%d", i), map[replication.Partition]int64{at("orders", 0): int64(i % 5)})
	}
	w.preflight(func(in *PreflightInput) { in.Runbook.Groups.Include = []string{"billing*"} })
	require.EqualValues(t, 1, w.link.passes.Load())
}

func TestPreflightWithAClusterOutOfReach(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.entries["consul.west"].down = errDown
	out := w.preflight()
	require.Equal(t, 1, out.Problems())
	require.Contains(t, found(out, "reachability", LevelProblem), "connection refused")
}

// What no ACL names is open only because of the brokers' setting, and the fence would close it to everybody else.
func TestP12_NobodyIsEverybody(t *testing.T) {
	t.Parallel()
	acls := allow(me, "TOPIC", "LITERAL", "orders", "READ")
	s := func(groups ...replication.Group) *survey {
		return &survey{in: PreflightInput{Route: Route{From: Site{Name: "east"}, To: Site{Name: "west"}}}, topics: []replication.Topic{{Name: "orders"}}, groups: groups,
			acls: map[string][]replication.ACL{"east": acls, "west": acls}, result: &PreflightResult{}}
	}
	fine := s()
	require.NoError(t, nobodyIsEverybody(context.Background(), fine))
	require.Zero(t, fine.result.Problems())
	open := s(replication.Group{Name: "billing"})
	require.NoError(t, nobodyIsEverybody(context.Background(), open))
	require.Equal(t, 2, open.result.Problems(), "on both clusters")
	require.Contains(t, found(*open.result, "allow.everyone.if.no.acl.found", LevelProblem), "group billing")
	bare := s()
	bare.acls["east"] = nil
	require.NoError(t, nobodyIsEverybody(context.Background(), bare))
	require.Contains(t, found(*bare.result, "allow.everyone.if.no.acl.found", LevelProblem), "on east no ACL names topic orders")
}

func TestFindingsFitAHistory(t *testing.T) {
	t.Parallel()
	var list []Finding
	for range 1000 {
		list = append(list, Finding{Level: LevelOK}, Finding{Level: LevelProblem})
	}
	short := shorten(list)
	require.Len(t, short, maxFindings+1)
	require.Equal(t, LevelProblem, short[maxFindings].Level)
	require.False(t, slices.ContainsFunc(short, func(f Finding) bool { return f.Level == LevelOK }))
}

func TestP10_TheSealIsProvenBeforehand(t *testing.T) {
	t.Parallel()
	credentials := &runbooks.PrincipalCredentials{Data: runbooks.SecretRef{Vault: "kafka/west/" + checkout}, Admin: runbooks.SecretRef{Vault: "kafka/west/" + checkout}}
	for name, tc := range map[string]struct {
		mirror       runbooks.Principals
		proven       bool
		level, means string
	}{
		"nobody can ask":        {mirror: runbooks.Principals{Data: "User:" + checkout, Admin: "User:" + checkout}, level: LevelWarning, means: "the seal is not trusted alone"},
		"held by ACLs":          {mirror: runbooks.Principals{Data: "User:" + checkout, Admin: "User:" + checkout, Credentials: credentials}, proven: true, level: LevelOK, means: "can be sealed at once"},
		"somebody else's login": {mirror: runbooks.Principals{Data: "User:mm2", Admin: "User:" + checkout, Credentials: credentials}, level: LevelProblem, means: "the runbook says that the mirror's data principal is User:mm2"},
		"a super user": {mirror: runbooks.Principals{Data: "User:" + admin, Admin: "User:" + checkout, Credentials: &runbooks.PrincipalCredentials{
			Data: runbooks.SecretRef{Vault: "kafka/west/" + admin}, Admin: credentials.Admin}}, level: LevelWarning, means: "whom no ACL holds: no seal is possible"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			out := w.preflight(func(in *PreflightInput) {
				in.Route.Link = runbooks.Link{From: "east", To: "west", MirrorMaker: &runbooks.MirrorMaker{Principals: tc.mirror}}
			})
			require.Equal(t, tc.proven, out.SealProven)
			require.Contains(t, found(out, "seal", tc.level), tc.means)
		})
	}
}
