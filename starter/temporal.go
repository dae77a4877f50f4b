package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	enumspb "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"
	"google.golang.org/grpc"

	"switchback/activities"
	"switchback/internal/dial"
	"switchback/workflows"
)

// connected runs do with a client.
func (c *cli) connected(ctx context.Context, do func(context.Context, client.Client) error) error {
	dialing, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	t, err := c.dial(dialing, c)
	if err != nil {
		return fmt.Errorf("connect to Temporal at %s: %w", c.address, err)
	}
	defer t.Close()
	return do(ctx, t)
}

func dialTemporal(ctx context.Context, c *cli) (client.Client, error) {
	options := client.Options{
		HostPort: c.address, Namespace: c.namespace, Logger: slog.New(slog.DiscardHandler),
		ConnectionOptions: client.ConnectionOptions{DialOptions: []grpc.DialOption{grpc.WithDefaultCallOptions(grpc.WaitForReady(true))}},
	}
	if files := (dial.Files{CA: c.tlsCA, Cert: c.tlsCert, Key: c.tlsKey, ServerName: c.tlsServer}); c.tls || files != (dial.Files{}) {
		config, err := dial.TLS(files)
		if err != nil {
			return nil, err
		}
		options.ConnectionOptions.TLS = config
	}
	return client.DialContext(ctx, options)
}

// explain turns Temporal's errors into what an operator can act upon.
func (c *cli) explain(err error) string {
	var said *temporal.ApplicationError
	var ended *temporal.TerminatedError
	var denied *serviceerror.PermissionDenied
	var namespace *serviceerror.NamespaceNotFound
	var there *serviceerror.WorkflowExecutionAlreadyStarted
	switch {
	case errors.As(err, &said):
		return said.Message()
	case errors.As(err, &there):
		return "a run with this workflow id is there already: give another with --workflow-id, or none"
	case errors.As(err, &ended):
		return "the run was terminated in Temporal: it took nothing back. The next run of its runbook settles what it left"
	case errors.As(err, &namespace):
		return fmt.Sprintf("Temporal at %s has no namespace %s: give the right one with --namespace or TEMPORAL_NAMESPACE", c.address, c.namespace)
	case errors.As(err, &denied):
		return fmt.Sprintf("Temporal at %s does not allow it: %v", c.address, err)
	case away(err):
		return fmt.Sprintf("%v\nTemporal at %s does not answer (--address, TEMPORAL_ADDRESS), or no worker does.", err, c.address)
	}
	return err.Error()
}

// away is true where nobody answered.
func away(err error) bool {
	var unavailable *serviceerror.Unavailable
	var late *serviceerror.DeadlineExceeded
	var update *client.WorkflowUpdateServiceTimeoutOrCanceledError
	return errors.As(err, &unavailable) || errors.As(err, &late) || errors.As(err, &update) || errors.Is(err, context.DeadlineExceeded)
}

// errNoWorker is a task queue that nobody polls.
var errNoWorker = errors.New("no worker polls the task queue")

// worked is nil when a worker polls the task queue. A Temporal that cannot say so is believed to have one.
func (c *cli) worked(ctx context.Context, t client.Client) error {
	ctx, cancel := context.WithTimeout(ctx, min(c.timeout, 3*time.Second)) // it is asked on the side
	defer cancel()
	queue, err := t.DescribeTaskQueue(ctx, c.taskQueue, enumspb.TASK_QUEUE_TYPE_WORKFLOW)
	if err != nil || len(queue.GetPollers()) > 0 {
		return nil
	}
	return fmt.Errorf("%w %s in namespace %s: start one, or give its queue with --task-queue", errNoWorker, c.taskQueue, c.namespace)
}

// noSuchRun is a RUN that Temporal does not know.
type noSuchRun struct{ run string }

func (e noSuchRun) Error() string {
	return fmt.Sprintf("there is no run %s: give a workflow id, or the name of a runbook that has had a run. 'switchback runs' lists them", e.run)
}

// query asks a workflow. What nobody answers is said with what may be the reason.
func (c *cli) query(ctx context.Context, t client.Client, id, name string, into any) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	answer, err := t.QueryWorkflow(ctx, id, "", name)
	var gone *serviceerror.NotFound
	var unready *serviceerror.WorkflowNotReady
	var precondition *serviceerror.FailedPrecondition
	switch {
	case errors.As(err, &gone):
		return noSuchRun{id}
	case errors.As(err, &unready):
		return fmt.Errorf("%s has not begun yet: a worker has still to pick it up", id)
	case errors.As(err, &precondition) && strings.Contains(err.Error(), "poller"), err != nil && away(err):
		if none := c.worked(context.WithoutCancel(ctx), t); none != nil {
			return fmt.Errorf("%s cannot answer: %w", id, none)
		}
		return fmt.Errorf("ask %s for its %s: %w", id, name, err)
	case err != nil:
		return fmt.Errorf("ask %s for its %s: %w", id, name, err)
	}
	if err := answer.Get(into); err != nil {
		return fmt.Errorf("read the %s of %s: %w", name, id, err)
	}
	return nil
}

// entityOf is the id of a runbook's entity.
func entityOf(runbook string) string { return "runbook/" + runbook }

// resolve turns RUN into a workflow id: a runbook's name means its holder, or else its last run.
func (c *cli) resolve(ctx context.Context, t client.Client, run string) (string, error) {
	run = strings.TrimPrefix(run, entityOf(""))
	var entity activities.EntityStatus
	err := c.query(ctx, t, entityOf(run), activities.QueryEntity, &entity)
	switch {
	case errors.As(err, &noSuchRun{}):
		return run, nil // no runbook of that name has ever run: it is a workflow id
	case err != nil:
		return "", err
	case entity.Holder != nil:
		return entity.Holder.Run.WorkflowID, nil
	case entity.LastRun != nil:
		return entity.LastRun.WorkflowID, nil
	}
	return "", fmt.Errorf("runbook %s has had no run yet", run)
}

// statusOf asks a run how it is.
func (c *cli) statusOf(ctx context.Context, t client.Client, id string) (s workflows.Status, err error) {
	return s, c.query(ctx, t, id, workflows.QueryStatus, &s)
}
