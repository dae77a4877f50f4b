package main

import (
	"testing"

	"github.com/stretchr/testify/require"

	"switchback/replication"
	"switchback/workflows"
)

func unprotected() workflows.Protected {
	list := []replication.Difference{
		{Kind: replication.KindMirror, Name: "orders", Level: replication.LevelProblem, Is: "paused", Should: "active", Mend: "resume it; it goes on where it stands", Action: "resume"},
		{Kind: replication.KindMirror, Name: "payments", Level: replication.LevelProblem, Is: "stopped", Should: "active", Do: "run failback"},
	}
	return workflows.Protected{Runbook: "orders", From: "east", To: "west", Found: list, IDs: []string{list[0].ID(), list[1].ID()}, Left: list,
		Text: "orders on east, protected by west: 2 differences, 1 of them can be mended; nothing was changed; protection does not stand"}
}

func TestProtectShowsAndChangesNothing(t *testing.T) {
	f := newFake()
	f.result = unprotected()
	a := f.ask(t, "protect", "orders", "--dry-run")
	require.Equal(t, 1, a.code, "protection does not stand")
	golden(t, "protect-dry-run.txt", a.out)
	require.Equal(t, []any{workflows.ProtectRequest{Runbook: "orders", By: "ann", DryRun: true}}, f.inputs)
	require.Equal(t, "protect-orders-20260314-030000.000", f.started[0].ID)
	require.Contains(t, f.started[0].StaticSummary, "Dry run")
}

func TestProtectMends(t *testing.T) {
	f := newFake()
	out := unprotected()
	out.Mended = []replication.Outcome{{Name: out.IDs[0], Status: replication.OK}}
	out.Left, out.Stands = out.Found[1:], true
	out.Text = "orders on east, protected by west: 2 differences, 1 mended, 1 left; protection stands"
	f.result = out
	a := f.ask(t, "protect", "orders", "--apply", out.IDs[0], "--from", "east", "--to", "west", "--reason", "after the drill")
	require.Equal(t, 0, a.code, a.err)
	golden(t, "protect.txt", a.out)
	require.Equal(t, []any{workflows.ProtectRequest{Runbook: "orders", From: "east", To: "west", By: "ann", Reason: "after the drill", Apply: []string{out.IDs[0]}}}, f.inputs)
	a = f.ask(t, "protect", "orders", "-o", "json")
	require.Equal(t, 0, a.code)
	goldenJSON(t, "protect.json", a.out)
}

func TestProtectThatYieldedIsWell(t *testing.T) {
	f := newFake()
	f.result = workflows.Protected{Runbook: "orders", Yielded: true, Text: "run planned/1 (planned failover) holds the runbook or its link: nothing was changed"}
	a := f.ask(t, "protect", "orders")
	require.Equal(t, 0, a.code)
	require.Equal(t, "run planned/1 (planned failover) holds the runbook or its link: nothing was changed.\n", a.out)
}

func TestProtectMisused(t *testing.T) {
	require.Equal(t, 2, newFake().ask(t, "protect", "orders", "--dry-run", "--apply", "x").code)
	require.Equal(t, 2, newFake().ask(t, "protect").code)
}
