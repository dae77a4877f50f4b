package activities

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"switchback/replication"
)

func (w *world) grantsInput(dry bool) GrantsInput {
	return GrantsInput{Guard: w.guard(), Runbook: w.runbook(), Route: w.route(), DryRun: dry}
}

// fixGrants tries again where the two seconds for writes were over, as Temporal does.
func (w *world) fixGrants(in GrantsInput) (out GrantsResult, err error) {
	for range 5 {
		out, err = runOne[GrantsResult](w, &Grants{w.outside()}, (*Grants)(nil).FixGrants, in)
		if again := typeOf(err); again != TypeUnclear && again != TypeUnreachable || w.kill != nil {
			break
		}
	}
	return out, err
}

// without takes grants away from a cluster.
func (w *world) without(site string, acls ...replication.ACL) {
	w.t.Helper()
	require.NoError(w.t, w.as(site, admin).DeleteACLs(context.Background(), acls))
}

func (w *world) with(site string, acls ...replication.ACL) {
	w.t.Helper()
	require.NoError(w.t, w.as(site, admin).CreateACLs(context.Background(), acls))
}

// allows are the ALLOWs of a cluster for the workload's clients.
func (w *world) allows(site string) (list []string) {
	acls, err := w.as(site, admin).ACLs(context.Background())
	require.NoError(w.t, err)
	for _, a := range acls {
		if a.Permission == replication.Allow && slices.Contains([]string{"User:" + checkout, "User:" + billing}, a.Principal) {
			list = append(list, a.String())
		}
	}
	slices.Sort(list)
	return list
}

// lacking is a world whose target has none of the grants that the clients need.
func lacking(t *testing.T) *world {
	w := newWorld(t)
	w.with("east", allow(checkout, "TRANSACTIONAL_ID", "PREFIXED", "checkout-", "WRITE", "DESCRIBE")...)
	w.with("east", allow(checkout, "CLUSTER", "LITERAL", replication.ClusterName, "IDEMPOTENT_WRITE")...)
	for _, topic := range []string{"orders", "payments"} {
		w.without("west", allow(checkout, "TOPIC", "LITERAL", topic, "WRITE")...)
		w.without("west", allow(billing, "TOPIC", "LITERAL", topic, "READ")...)
	}
	w.without("west", allow(billing, "GROUP", "LITERAL", "billing", "READ")...)
	w.trace = nil
	return w
}

func TestGrantsThatAreMissingAreCreatedAndNothingElse(t *testing.T) {
	t.Parallel()
	w := lacking(t)
	dry, err := w.fixGrants(w.grantsInput(true))
	require.NoError(t, err)
	require.Equal(t, 8, dry.Missing, "%v", dry.ACLs)
	require.Empty(t, w.trace, "a dry run writes nothing")
	require.Empty(t, w.allows("west"))

	out, err := w.fixGrants(w.grantsInput(false))
	require.NoError(t, err)
	require.Equal(t, 8, out.Made)
	require.Equal(t, 3, out.Brokers)
	require.True(t, out.Changed)
	require.Equal(t, w.allows("east"), w.allows("west"), "the same as on the source")

	out, err = w.fixGrants(GrantsInput{Guard: Guard{Run: Run{Runbook: "orders", WorkflowID: "again", FirstRunID: "r"}, Discovery: w.guard().Discovery, Epoch: w.epoch}, Runbook: w.runbook(), Route: w.route()})
	require.NoError(t, err)
	require.False(t, out.Changed)
	require.Contains(t, out.Text, "nothing was changed")
}

func TestGrantsFollowWhatTheSourceAllows(t *testing.T) {
	t.Parallel()
	w := lacking(t)
	w.without("east", allow(checkout, "TOPIC", "LITERAL", "payments", "WRITE")...)
	w.with("east", replication.TopicFence([]string{"orders"})...) // a fence takes away no need
	w.with("west", replication.ACL{ResourceType: "TOPIC", Pattern: "LITERAL", Name: "orders", Principal: "User:" + checkout, Host: "*", Operation: "WRITE", Permission: replication.Deny})
	out, err := w.fixGrants(w.grantsInput(false))
	require.NoError(t, err)
	require.Equal(t, 7, out.Made)
	got := strings.Join(w.allows("west"), "\n")
	require.Contains(t, got, "ALLOW WRITE on TOPIC LITERAL orders for User:checkout", "the grant behind the standby's DENY")
	require.NotContains(t, got, "ALLOW WRITE on TOPIC LITERAL payments")
}

func TestGrantsAreMadeUnderTheNameThatTheTargetHasForTheTopic(t *testing.T) {
	t.Parallel()
	w := lacking(t)
	w.link.prefix = "east."
	out, err := w.fixGrants(w.grantsInput(true))
	require.NoError(t, err)
	require.Contains(t, out.Commands[0], "--topic east.orders")
}

func TestP04_GrantsAreRecordedBeforeTheyAreMade(t *testing.T) {
	t.Parallel()
	w := lacking(t)
	_, err := w.fixGrants(w.grantsInput(false))
	require.NoError(t, err)
	require.Less(t, slices.Index(w.trace, "west.Put"), slices.Index(w.trace, "west.CreateACLs"), "%v", w.trace)
	list, err := getList[granted](t.Context(), w.recordsNow().to, grantsKey("orders", "west"))
	require.NoError(t, err)
	require.Len(t, list, 8)
	require.Equal(t, w.guard().Run.ID(), list[0].Run)
	owned, err := w.recordsNow().owned(t.Context(), "orders", "west")
	require.NoError(t, err)
	require.Empty(t, owned.ACLs, "no rollback lifts them")
}

func TestGrantsSurviveAKillAtEachWrite(t *testing.T) {
	t.Parallel()
	for n := range 3 {
		for _, after := range []bool{false, true} {
			w := lacking(t)
			w.kill = &kill{at: n, after: after}
			_, _ = w.fixGrants(w.grantsInput(false)) // nobody hears what a dead process says
			w.kill = nil
			out, err := w.fixGrants(w.grantsInput(false))
			require.NoError(t, err)
			require.Equal(t, 8, out.Made, "the run says all that it made, in whichever attempt (killed at %d)", n)
			require.Equal(t, w.allows("east"), w.allows("west"))
			list, err := getList[granted](t.Context(), w.recordsNow().to, grantsKey("orders", "west"))
			require.NoError(t, err)
			require.Len(t, list, 8)
		}
	}
}

// P5: on Cluster Linking ACL sync deletes what the source lacks.
func TestP05_GrantsThatACLSyncWouldDeleteAreNamed(t *testing.T) {
	t.Parallel()
	w := lacking(t)
	w.without("east", allow(checkout, "TOPIC", "LITERAL", "orders", "WRITE")...)
	w.with("east", allow(checkout, "TOPIC", "PREFIXED", "ord", "WRITE")...)
	out, err := w.fixGrants(w.grantsInput(true))
	require.NoError(t, err)
	require.Len(t, out.Advice, 1)
	require.Contains(t, out.Advice[0], "ACL sync of link east-west is on and deletes on west what east lacks: 1 of these ALLOWs")
	require.Contains(t, out.Advice[0], "--operation Write --topic orders")
	w.link.now.ACLs.Enabled = false
	out, err = w.fixGrants(w.grantsInput(true))
	require.NoError(t, err)
	require.Empty(t, out.Advice)
}

func TestGrantsForATopicThatNoACLNamesCarryAWarning(t *testing.T) {
	t.Parallel()
	w := lacking(t)
	for _, who := range []string{me, linkUser} {
		w.without("west", allow(who, "TOPIC", "LITERAL", "payments", "READ", "DESCRIBE_CONFIGS", "ALTER_CONFIGS")...)
	}
	out, err := w.fixGrants(w.grantsInput(true))
	require.NoError(t, err)
	require.Contains(t, strings.Join(out.Advice, "\n"), "on west no ACL names payments yet")
}

func TestGrantsOfAStaleRunAreRefused(t *testing.T) {
	t.Parallel()
	w := lacking(t)
	w.entries["consul.west"].state.Epoch++
	_, err := w.fixGrants(w.grantsInput(false))
	require.Equal(t, TypeStale, typeOf(err))
	require.Empty(t, w.allows("west"))
}

func TestGrantCommands(t *testing.T) {
	t.Parallel()
	acls := slices.Concat(allow("checkout", "TOPIC", "LITERAL", "orders", "WRITE"), allow("checkout", "TOPIC", "LITERAL", "payments", "WRITE"),
		allow("CN=a b", "GROUP", "LITERAL", "billing", "READ"), allow("checkout", "CLUSTER", "LITERAL", replication.ClusterName, "IDEMPOTENT_WRITE"),
		allow("checkout", "TRANSACTIONAL_ID", "PREFIXED", "checkout-", "DESCRIBE"))
	const begin = "kafka-acls.sh --bootstrap-server b1:9092,b2:9092 --command-config admin.properties --add --allow-principal "
	require.Equal(t, []string{
		begin + "User:checkout --operation Write --topic orders --topic payments",
		begin + "'User:CN=a b' --operation Read --group billing",
		begin + "User:checkout --operation IdempotentWrite --cluster",
		begin + "User:checkout --operation Describe --resource-pattern-type prefixed --transactional-id checkout-",
	}, GrantCommands([]string{"b1:9092", "b2:9092"}, acls))
}

func TestPreflightNamesTheCommandsThatCreateWhatIsMissing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.without("west", allow(checkout, "TOPIC", "LITERAL", "orders", "WRITE")...)
	out := w.preflight(func(*PreflightInput) {})
	i := slices.IndexFunc(out.Findings, func(f Finding) bool { return f.Check == "client grants" })
	require.NotEqual(t, -1, i, "%+v", out.Findings)
	require.Contains(t, out.Findings[i].Do, "switchback plan planned orders --to west --fix-grants")
	require.Contains(t, out.Findings[i].Do, "--add --allow-principal User:checkout --operation Write --topic orders")
}

// A source that is gone says nothing of its clients' grants: their roles say what they need, where they were given nothing of it.
func TestGrantsAreFixedByRolesWhenTheSourceIsGone(t *testing.T) {
	t.Parallel()
	w := lacking(t)
	w.lose("east")
	in := w.grantsInput(true)
	in.Route.SourceLost = true
	dry, err := w.fixGrants(in)
	require.NoError(t, err)
	require.Contains(t, strings.Join(dry.Advice, " "), "judged by their roles")
	in.DryRun = false
	out, err := w.fixGrants(in)
	require.NoError(t, err)
	require.Equal(t, dry.Missing, out.Made)
	require.Equal(t, []string{
		"ALLOW READ on GROUP LITERAL billing for User:billing from *",
		"ALLOW READ on TOPIC LITERAL orders for User:billing from *", "ALLOW READ on TOPIC LITERAL payments for User:billing from *",
		"ALLOW WRITE on TOPIC LITERAL orders for User:checkout from *", "ALLOW WRITE on TOPIC LITERAL payments for User:checkout from *",
	}, w.allows("west"))
	again, err := w.fixGrants(in)
	require.NoError(t, err)
	require.Zero(t, again.Missing)

	w = newWorld(t)
	w.without("west", allow(checkout, "TOPIC", "LITERAL", "payments", "WRITE")...)
	w.lose("east")
	in.Guard, in.Runbook, in.Route = w.guard(), w.runbook(), w.route()
	in.Route.SourceLost = true
	out, err = w.fixGrants(in)
	require.NoError(t, err)
	require.Zero(t, out.Made, "who was given some topics may have been meant to have no more")
}
