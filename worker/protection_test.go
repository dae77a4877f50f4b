package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	commonpb "go.temporal.io/api/common/v1"
	workflowpb "go.temporal.io/api/workflow/v1"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/converter"

	"switchback/activities"
)

// entities is a Temporal that holds entity workflows.
type entities struct {
	client.Client
	status map[string]activities.EntityStatus
	away   error
}

func (e entities) ListWorkflow(context.Context, *workflowservice.ListWorkflowExecutionsRequest) (*workflowservice.ListWorkflowExecutionsResponse, error) {
	out := &workflowservice.ListWorkflowExecutionsResponse{}
	for id := range e.status {
		out.Executions = append(out.Executions, &workflowpb.WorkflowExecutionInfo{Execution: &commonpb.WorkflowExecution{WorkflowId: id}})
	}
	return out, nil
}

func (e entities) QueryWorkflow(_ context.Context, id, _, _ string, _ ...any) (converter.EncodedValue, error) {
	if e.away != nil {
		return nil, e.away
	}
	p, err := converter.GetDefaultDataConverter().ToPayloads(e.status[id])
	return client.NewValue(p), err
}

func gathered(t *testing.T, r *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	require.NoError(t, err)
	out := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := f.GetName()
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			out[name] = m.GetGauge().GetValue()
		}
	}
	return out
}

func TestMetricsSaySinceWhenAWorkloadIsUnprotected(t *testing.T) {
	since, fenced := time.Unix(1_790_000_000, 0).UTC(), time.Unix(1_790_000_500, 0).UTC()
	fake := entities{status: map[string]activities.EntityStatus{
		"runbook/orders": {Entity: "runbook/orders", Active: "west", UnprotectedSince: &since, Fencing: []activities.Fencing{
			{Cluster: "east", Since: since}, {Cluster: "north", Since: since, Fenced: &fenced},
		}},
		"runbook/calm":   {Entity: "runbook/calm", Active: "east"},
		"link/east-west": {Entity: "link/east-west"},
	}}
	registry := prometheus.NewRegistry()
	p := newProtection(registry)
	require.NoError(t, p.look(t.Context(), fake))
	want := map[string]float64{
		"switchback_unprotected_since_timestamp_seconds west orders": 1_790_000_000,
		"switchback_unfenced_since_timestamp_seconds east orders":    1_790_000_000,
	}
	require.Equal(t, want, gathered(t, registry))

	fake.away = errors.New("no worker answers")
	require.Error(t, p.look(t.Context(), fake))
	require.Equal(t, want, gathered(t, registry), "what cannot be asked is not protected")

	fake.away = nil
	fake.status["runbook/orders"] = activities.EntityStatus{Entity: "runbook/orders", Active: "west"}
	require.NoError(t, p.look(t.Context(), fake))
	for name := range gathered(t, registry) {
		require.False(t, strings.HasPrefix(name, "switchback_un"), name)
	}
}
