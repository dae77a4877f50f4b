package e2e_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	enums "go.temporal.io/api/enums/v1"
	sdk "go.temporal.io/sdk/client"

	"switchback/lab/setup"
	"switchback/replication"
	"switchback/runbooks"
	"switchback/workflows"
)

// The other set-ups of the lab on Apache Kafka.

// soonGivenUp waits for a mirror's stop no longer than a test has to: with a dead source connectors take a minute.
func soonGivenUp(b *runbooks.Runbook) { b.Budgets.Promote = runbooks.Duration(10 * time.Second) }

// The default policy renames topics: after a disaster clients are told the prefix, groups go on under the new names, and
// what was lost is counted under the old ones.
func TestUnplannedFailoverOverRenamedMirrors(t *testing.T) {
	s := onMirrors(t, policy(setup.Default), edited(soonGivenUp))
	p := s.play(t, "orders")
	p.flows("east")
	s.does(t, "the groups' offsets are mirrored", func(ctx context.Context) error { return p.HandedOver(ctx, "east", "west") })
	run := p.unplanned("renamed", p.dies("east"))
	p.approved(run)
	out := p.ends(run, workflows.Completed)
	p.flows("west")
	s.does(t, "start east again", func(ctx context.Context) error { return p.BringBack(ctx, "east") })
	p.fenced("east")
	t.Log(p.wellAfter("west", out))
}

// The old cluster answers and is fenced by the run itself. What the mirror brought over cannot be told from its marks, so the
// loss is open until both clusters were compared: by who would otherwise have waited for the fence.
func TestP18_AnOldClusterThatAnswersIsComparedRecordByRecord(t *testing.T) {
	s := onMirrors(t)
	p := s.play(t, "orders")
	p.flows("east")
	s.does(t, "the groups' offsets are mirrored", func(ctx context.Context) error { return p.HandedOver(ctx, "east", "west") })
	run := p.unplanned("east-answers", time.Now())
	p.approved(run)
	out := p.ends(run, workflows.Completed)
	require.Contains(t, out.Sentence, ", open", "its report may have the number already")
	p.flows("west")
	p.fenced("east")
	for _, o := range p.report(out).Offsets {
		require.Equal(t, replication.ProofExact, strings.Split(o.Proof, ";")[0], "the source says where groups stand: %s %s-%d", o.Group, o.Topic, o.Partition)
	}
	t.Log(p.wellAfter("west", out))
}

// Cluster Linking between real brokers, two workloads on one link: one goes over as planned, the other when its cluster is
// killed. Somebody wants it back before the old cluster answers. That is refused, because nothing mirrors that way, but
// for as long as it was tried nobody might fence the cluster that it went to; afterwards it waits for its fence as before,
// and gets it.
func TestP13_ClusterLinkingBetweenRealBrokers(t *testing.T) {
	if missing := setup.Missing(setup.Options{Kafka: setup.Apache}); missing != "" {
		t.Skip(missing)
	}
	s := up(t, func(o *setup.Options) {
		o.Kafka, o.Link, o.Workloads = setup.Apache, setup.ClusterLinking, append(o.Workloads, small("returns"))
	})
	orders, returns := s.play(t, "orders"), s.play(t, "returns")
	orders.flows("east")
	returns.flows("east")
	eventually(t, "the link to be well", func() (bool, error) {
		goes, _, found := returns.plans("planned")
		return goes, errors.New(found)
	})
	before := returns.look()
	planned := returns.ends(returns.start("as-planned"), workflows.Completed)
	returns.wentOver(before)
	returns.flows("west")
	returns.clean("west", planned)

	s.does(t, "the groups' offsets are mirrored", func(ctx context.Context) error { return orders.HandedOver(ctx, "east", "west") })
	run := orders.unplanned("east-is-gone", orders.dies("east"))
	orders.approved(run)
	out := orders.ends(run, workflows.Completed)
	orders.flows("west")

	waits, there, err := orders.Fencing(t.Context(), "east")
	require.NoError(t, err)
	require.True(t, there)
	require.Nil(t, waits.Fenced)
	waited, err := orders.Temporal.DescribeWorkflowExecution(t.Context(), waits.Workflow, "")
	require.NoError(t, err)
	back, err := orders.Temporal.ExecuteWorkflow(t.Context(), sdk.StartWorkflowOptions{ID: "too-early", TaskQueue: setup.TaskQueue}, "PlannedFailover",
		workflows.PlannedInput{Runbook: "orders", To: "east", Reason: "exercise", By: setup.Requester, Override: "somebody is in a hurry"})
	require.NoError(t, err)
	refused := orders.ends(back, workflows.FailedRun)
	require.Contains(t, refused.Sentence, "so nothing was changed")
	eventually(t, "east to be waited for as before", func() (bool, error) {
		now, there, err := orders.Fencing(t.Context(), "east")
		return there && now.Ended == "" && now.Since.Equal(waits.Since) && now.Run == waits.Run, err
	})
	ended, err := orders.Temporal.DescribeWorkflowExecution(t.Context(), waits.Workflow, waited.GetWorkflowExecutionInfo().GetExecution().GetRunId())
	require.NoError(t, err)
	require.Equal(t, enums.WORKFLOW_EXECUTION_STATUS_CANCELED, ended.GetWorkflowExecutionInfo().GetStatus(), "while the run looked at east nobody might fence it")

	s.does(t, "start east again", func(ctx context.Context) error { return orders.BringBack(ctx, "east") })
	orders.fenced("east")
	acls := strings.Join(s.acls(t, "east"), "\n")
	for _, acl := range orders.fence() {
		require.Contains(t, acls, acl)
	}
	t.Log(orders.wellAfter("west", out))
}
