package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"switchback/activities"
	"switchback/replication"
	"switchback/workflows"
)

var lacking = activities.GrantsResult{On: "west", Missing: 1,
	Commands: []string{"kafka-acls.sh --bootstrap-server west:9092 --command-config admin.properties --add --allow-principal User:checkout --operation Write --topic orders"},
	Advice:   []string{"ACL sync of link east-west is on and deletes on west what east lacks"}}

func TestPlanSaysWhatClientsLackAndChangesNothing(t *testing.T) {
	f := newFake()
	f.result = lacking
	a := f.ask(t, "plan", "planned", "orders", "--to", "west", "--fix-grants")
	require.Equal(t, 1, a.code, "something is missing")
	golden(t, "grants.txt", a.out)
	require.Equal(t, []any{workflows.GrantsRequest{Runbook: "orders", To: "west", By: "ann", DryRun: true}}, f.inputs)
	require.Equal(t, "grants-orders-20260314-030000.000", f.started[0].ID)
	require.Contains(t, f.started[0].StaticSummary, "Dry run")

	f.result = activities.GrantsResult{On: "west"}
	a = f.ask(t, "plan", "planned", "orders", "--to", "west", "--fix-grants")
	require.Equal(t, 0, a.code)
	require.Equal(t, "The clients of orders lack nothing on west. Nothing was changed.\n", a.out)
}

func TestPlanCreatesWhatClientsLackWhenItIsToldToBeSure(t *testing.T) {
	f := newFake()
	f.result = activities.GrantsResult{On: "west", Missing: 1, Made: 1, Brokers: 3, Text: "1 ALLOW made on west, as each of 3 brokers says itself",
		ACLs: []replication.ACL{{ResourceType: "TOPIC", Pattern: "LITERAL", Name: "orders", Principal: "User:checkout", Host: "*", Operation: "WRITE", Permission: "ALLOW"}}}
	a := f.ask(t, "plan", "planned", "orders", "--to", "west", "--from", "east", "--fix-grants", "--yes")
	require.Equal(t, 0, a.code, a.err)
	require.Equal(t, "1 ALLOW made on west, as each of 3 brokers says itself:\n  ALLOW WRITE on TOPIC LITERAL orders for User:checkout from *\n", a.out)
	require.Equal(t, []any{workflows.GrantsRequest{Runbook: "orders", From: "east", To: "west", By: "ann"}}, f.inputs)

	a = f.ask(t, "plan", "planned", "orders", "--to", "west", "--fix-grants", "--yes", "-o", "json")
	require.Equal(t, 0, a.code)
	goldenJSON(t, "grants.json", a.out)
}

func TestYesWithoutFixGrantsIsMisused(t *testing.T) {
	require.Equal(t, 2, newFake().ask(t, "plan", "planned", "orders", "--to", "west", "--yes").code)
}

// In a disaster as well, where the cluster that the clients are on may say nothing.
func TestAnUnplannedPlanFixesGrantsToo(t *testing.T) {
	f := newFake()
	f.result = lacking
	a := f.ask(t, "plan", "unplanned", "orders", "--to", "west", "--fix-grants")
	require.Equal(t, 1, a.code, "something is missing")
	require.Equal(t, []any{workflows.GrantsRequest{Runbook: "orders", To: "west", By: "ann", DryRun: true, Unplanned: true}}, f.inputs)
	require.Equal(t, 2, newFake().ask(t, "plan", "unplanned", "orders", "--to", "west", "--yes").code)
}
