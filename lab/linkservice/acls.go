package linkservice

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// aclFilter is one entry of acl.filters.
type aclFilter struct {
	Resource struct {
		Type    string `json:"resourceType"`
		Pattern string `json:"patternType"`
		Name    string `json:"name"`
	} `json:"resourceFilter"`
	Access struct {
		Operation  string `json:"operation"`
		Permission string `json:"permissionType"`
		Principal  string `json:"principal"`
		Host       string `json:"host"`
	} `json:"accessFilter"`
}

// request turns the filter into Kafka's own; what is not said is any.
func (f aclFilter) request() (*kmsg.DescribeACLsRequest, error) {
	req := kmsg.NewPtrDescribeACLsRequest()
	anyOf := func(s string) string {
		if s == "" {
			return "any"
		}
		return s
	}
	optional := func(s string) *string {
		if s == "" || s == "*" {
			return nil
		}
		return &s
	}
	var err error
	if req.ResourceType, err = kmsg.ParseACLResourceType(anyOf(f.Resource.Type)); err != nil {
		return nil, err
	}
	if req.ResourcePatternType, err = kmsg.ParseACLResourcePatternType(anyOf(f.Resource.Pattern)); err != nil {
		return nil, err
	}
	if req.Operation, err = kmsg.ParseACLOperation(anyOf(f.Access.Operation)); err != nil {
		return nil, err
	}
	if req.PermissionType, err = kmsg.ParseACLPermissionType(anyOf(f.Access.Permission)); err != nil {
		return nil, err
	}
	req.Principal, req.Host = optional(f.Access.Principal), optional(f.Access.Host)
	if f.Resource.Name != "" {
		req.ResourceName = &f.Resource.Name
	}
	return req, nil
}

// acl is one entry, comparable.
type acl struct {
	resource  kmsg.ACLResourceType
	name      string
	pattern   kmsg.ACLResourcePatternType
	principal string
	host      string
	operation kmsg.ACLOperation
	allow     kmsg.ACLPermissionType
}

// syncACLs makes the target's ACLs inside the filters equal to the source's: it copies every one, DENY as well, and
// deletes what the source does not have.
func (r *runner) syncACLs(ctx context.Context) {
	if !r.syncing("acl.sync.enable") {
		return
	}
	var errs []fault
	if err := r.aclCycle(ctx); err != nil {
		errs = append(errs, taskFault(err))
	}
	if ctx.Err() == nil {
		r.task("AclSync", errs...)
	}
}

func (r *runner) aclCycle(ctx context.Context) error {
	filters := struct {
		ACLs []aclFilter `json:"aclFilters"`
	}{}
	if text := r.config("acl.filters"); text == "" {
		return nil
	} else if err := json.Unmarshal([]byte(text), &filters); err != nil {
		return fmt.Errorf("read acl.filters: %w", err)
	}
	if _, err := r.remote(); err != nil {
		return err
	}
	there, here := map[acl]bool{}, map[acl]bool{}
	for _, f := range filters.ACLs {
		if err := readACLs(ctx, f, r.requester(), there); err != nil {
			return fmt.Errorf("read ACLs of the source: %w", err)
		}
		if err := readACLs(ctx, f, r.target().client, here); err != nil {
			return fmt.Errorf("read ACLs of the destination: %w", err)
		}
	}
	r.rest(ctx, millis(r.s.cfg.Timings.SyncInFlightMillis))
	create, remove := kmsg.NewPtrCreateACLsRequest(), kmsg.NewPtrDeleteACLsRequest()
	for a := range there {
		if !here[a] {
			create.Creations = append(create.Creations, kmsg.CreateACLsRequestCreation{ResourceType: a.resource, ResourceName: a.name,
				ResourcePatternType: a.pattern, Principal: a.principal, Host: a.host, Operation: a.operation, PermissionType: a.allow})
		}
	}
	for a := range here {
		if !there[a] {
			remove.Filters = append(remove.Filters, kmsg.DeleteACLsRequestFilter{ResourceType: a.resource, ResourceName: &a.name,
				ResourcePatternType: a.pattern, Principal: &a.principal, Host: &a.host, Operation: a.operation, PermissionType: a.allow})
		}
	}
	if len(create.Creations) > 0 {
		if _, err := create.RequestWith(ctx, r.target().client); err != nil {
			return fmt.Errorf("create ACLs on the destination: %w", err)
		}
	}
	if len(remove.Filters) > 0 {
		if _, err := remove.RequestWith(ctx, r.target().client); err != nil {
			return fmt.Errorf("delete ACLs on the destination: %w", err)
		}
	}
	return nil
}

func readACLs(ctx context.Context, f aclFilter, cl kmsg.Requestor, into map[acl]bool) error {
	req, err := f.request()
	if err != nil {
		return err
	}
	resp, err := req.RequestWith(ctx, cl)
	if err != nil {
		return err
	}
	if err := errorOf(resp.ErrorCode); err != nil {
		return err
	}
	for _, res := range resp.Resources {
		for _, a := range res.ACLs {
			into[acl{res.ResourceType, res.ResourceName, res.ResourcePatternType, a.Principal, a.Host, a.Operation, a.PermissionType}] = true
		}
	}
	return nil
}
