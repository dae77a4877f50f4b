package workflows

import (
	"go.temporal.io/sdk/workflow"

	"switchback/activities"
)

// Registry is what worker, test environment and replayer have in common.
type Registry interface {
	RegisterWorkflow(w any)
	RegisterWorkflowWithOptions(w any, options workflow.RegisterOptions)
}

// Register names every workflow of this package.
func Register(r Registry) {
	r.RegisterWorkflow(PlannedFailover)
	r.RegisterWorkflow(PlanFailover)
	r.RegisterWorkflow(Watch)
	r.RegisterWorkflow(FixGrants)
	r.RegisterWorkflow(Protect)
	r.RegisterWorkflow(UnplannedFailover)
	r.RegisterWorkflow(PlanUnplannedFailover)
	r.RegisterWorkflow(FenceWhenReachable)
	r.RegisterWorkflow(AlignDiscovery)
	r.RegisterWorkflow(RecoverLaggedData)
	r.RegisterWorkflow(PlanRecoverLaggedData)
	r.RegisterWorkflow(Failback)
	r.RegisterWorkflow(PlanFailback)
	r.RegisterWorkflowWithOptions(Entity, workflow.RegisterOptions{Name: activities.EntityWorkflow})
}
