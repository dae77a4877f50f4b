package main

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"

	"switchback/activities"
)

// protection says to Prometheus since when workloads are without protection, as their entities know it. It is asked again
// every so often by each worker, so that it survives any of them.
type protection struct {
	unprotected, unfenced *prometheus.GaugeVec
}

const (
	protectionEvery = 30 * time.Second
	protectionTime  = 10 * time.Second // for one round
)

func newProtection(registry prometheus.Registerer) *protection {
	p := &protection{
		unprotected: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "switchback_unprotected_since_timestamp_seconds",
			Help: "Since when nothing mirrors the workload, in seconds since 1970. Absent while it is protected."}, []string{"runbook", "cluster"}),
		unfenced: prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "switchback_unfenced_since_timestamp_seconds",
			Help: "Since when a cluster that the workload left waits for its fence, in seconds since 1970. Absent when it is fenced."}, []string{"runbook", "cluster"}),
	}
	registry.MustRegister(p.unprotected, p.unfenced)
	return p
}

// keep asks until the context ends.
func (p *protection) keep(ctx context.Context, t client.Client, log *slog.Logger) {
	tick := time.NewTicker(protectionEvery)
	defer tick.Stop()
	for {
		if err := p.look(ctx, t); err != nil && ctx.Err() == nil {
			log.Warn("since when workloads are unprotected could not be asked; the metric stays as it was", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// look asks the entity of every runbook. What cannot be asked leaves everything as it was: no metric would say "protected".
func (p *protection) look(ctx context.Context, t client.Client) error {
	ctx, cancel := context.WithTimeout(ctx, protectionTime)
	defer cancel()
	var all []activities.EntityStatus
	var page []byte
	for {
		answer, err := t.ListWorkflow(ctx, &workflowservice.ListWorkflowExecutionsRequest{
			Query: `WorkflowType = "` + activities.EntityWorkflow + `" AND ExecutionStatus = "Running"`, NextPageToken: page,
		})
		if err != nil {
			return err
		}
		for _, e := range answer.GetExecutions() {
			id := e.GetExecution().GetWorkflowId()
			if !strings.HasPrefix(id, "runbook/") {
				continue
			}
			said, err := t.QueryWorkflow(ctx, id, "", activities.QueryEntity)
			if err != nil {
				return err
			}
			var status activities.EntityStatus
			if err := said.Get(&status); err != nil {
				return err
			}
			all = append(all, status)
		}
		if page = answer.GetNextPageToken(); len(page) == 0 {
			break
		}
	}
	p.set(all)
	return nil
}

func (p *protection) set(all []activities.EntityStatus) {
	p.unprotected.Reset()
	p.unfenced.Reset()
	for _, s := range all {
		runbook := strings.TrimPrefix(s.Entity, "runbook/")
		if s.UnprotectedSince != nil {
			p.unprotected.WithLabelValues(runbook, s.Active).Set(float64(s.UnprotectedSince.Unix()))
		}
		for _, f := range s.Fencing {
			if f.Fenced == nil {
				p.unfenced.WithLabelValues(runbook, f.Cluster).Set(float64(f.Since.Unix()))
			}
		}
	}
}
