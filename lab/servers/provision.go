package servers

import (
	"context"
	"errors"
	"fmt"
	"time"

	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/api/operatorservice/v1"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/api/workflowservice/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/types/known/durationpb"
)

// ProvisionTemporal makes a namespace and the search attributes that runs set, where they are missing: the development server
// is started with them, any other is not. It returns when they can be used.
func ProvisionTemporal(ctx context.Context, address, namespace string) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	temporal, err := client.DialContext(ctx, client.Options{HostPort: address, Namespace: namespace, Logger: Silent{}})
	if err != nil {
		return fmt.Errorf("provision Temporal at %s: %w", address, err)
	}
	defer temporal.Close()
	for _, step := range []func(context.Context, client.Client, string) error{makeNamespace, makeSearchAttributes, searchable} {
		if err := step(ctx, temporal, namespace); err != nil {
			return fmt.Errorf("provision Temporal at %s: %w", address, err)
		}
	}
	return nil
}

func makeNamespace(ctx context.Context, temporal client.Client, namespace string) error {
	_, err := temporal.WorkflowService().RegisterNamespace(ctx, &workflowservice.RegisterNamespaceRequest{
		Namespace: namespace, WorkflowExecutionRetentionPeriod: durationpb.New(7 * 24 * time.Hour),
	})
	var there *serviceerror.NamespaceAlreadyExists
	if err != nil && !errors.As(err, &there) {
		return fmt.Errorf("register namespace %s: %w", namespace, err)
	}
	return nil
}

// makeSearchAttributes waits for the namespace as well: servers learn of a new one after some seconds.
func makeSearchAttributes(ctx context.Context, temporal client.Client, namespace string) error {
	return Until(ctx, func() error {
		there, err := temporal.OperatorService().ListSearchAttributes(ctx, &operatorservice.ListSearchAttributesRequest{Namespace: namespace})
		if err != nil {
			return fmt.Errorf("list search attributes: %w", err)
		}
		missing := map[string]enums.IndexedValueType{}
		for _, name := range SearchAttributes {
			if _, ok := there.GetCustomAttributes()[name]; !ok {
				missing[name] = enums.INDEXED_VALUE_TYPE_KEYWORD
			}
		}
		if len(missing) == 0 {
			return nil
		}
		if _, err := temporal.OperatorService().AddSearchAttributes(ctx, &operatorservice.AddSearchAttributesRequest{
			Namespace: namespace, SearchAttributes: missing,
		}); err != nil {
			return fmt.Errorf("add search attributes: %w", err)
		}
		return nil
	})
}

// searchable returns when the frontend finds workflows by each attribute, which it does not from the first moment on.
func searchable(ctx context.Context, temporal client.Client, namespace string) error {
	return Until(ctx, func() error {
		for _, name := range SearchAttributes {
			if _, err := temporal.CountWorkflow(ctx, &workflowservice.CountWorkflowExecutionsRequest{Namespace: namespace, Query: name + " = 'nothing'"}); err != nil {
				return fmt.Errorf("search by %s: %w", name, err)
			}
		}
		return nil
	})
}

// Until repeats what fails, and returns its last error when the context ends.
func Until(ctx context.Context, do func() error) error {
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := do()
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}
