package kafka

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"switchback/internal/fault"
	"switchback/replication"
)

// aclBatch bounds one request: a KRaft controller refuses a request that makes too many records at once.
const aclBatch = 1000

// aclAnswer is how long one broker may take to say which ACLs it holds: one that is dead but still listed must not
// hold up the verdict on the others.
const aclAnswer = 3 * time.Second

// ACLs lists every ACL. It needs DESCRIBE on the cluster. One broker answers for itself (P6): what counts is
// ACLsOnEveryBroker.
func (c *Cluster) ACLs(ctx context.Context) ([]replication.ACL, error) {
	acls, err := describeACLs(ctx, c.ask(), filterFor(nil))
	return acls, c.fail("list ACLs", err, reading)
}

// ACLsOnEveryBroker asks each live broker separately whether every entry of want stands there (present), or none does:
// authorizers are caches, and each broker answers for its own (P6). One outcome per broker, named by id and address:
// OK; Pending when its answer differs, with the count; Unclear when it does not answer; Failed when it refuses.
func (c *Cluster) ACLsOnEveryBroker(ctx context.Context, want []replication.ACL, present bool) ([]replication.Outcome, error) {
	id, err := c.Identity(ctx)
	if err != nil {
		return nil, err
	}
	if len(id.Brokers) == 0 {
		return nil, c.fail("read ACLs from every broker", fmt.Errorf("%w: metadata lists no broker", fault.ErrNotReady), reading)
	}
	outcomes := make([]replication.Outcome, len(id.Brokers))
	var wg sync.WaitGroup
	for i, b := range id.Brokers {
		wg.Go(func() {
			ctx, cancel := context.WithTimeout(ctx, aclAnswer)
			defer cancel()
			have, err := describeACLs(ctx, c.on(b.ID), filterFor(want)) // a request belongs to one broker: sending writes into it
			outcomes[i] = c.verdict(want, have, present, err)
			outcomes[i].Name = fmt.Sprintf("broker %d at %s:%d", b.ID, b.Host, b.Port)
		})
	}
	wg.Wait()
	return outcomes, nil
}

func (c *Cluster) verdict(want, have []replication.ACL, present bool, err error) replication.Outcome {
	if err != nil {
		bad := partial{}
		bad.add("", c.fail("read ACLs", err, reading))
		return bad.failed[0]
	}
	missing := replication.Missing(want, have)
	switch {
	case present && len(missing) > 0:
		return replication.Outcome{Status: replication.Pending,
			Reason: fmt.Sprintf("%d of %d are not there yet, such as %s", len(missing), len(want), missing[0])}
	case !present && len(missing) < len(want):
		still := replication.Missing(want, missing)
		return replication.Outcome{Status: replication.Pending,
			Reason: fmt.Sprintf("%d of %d still stand, such as %s", len(still), len(want), still[0])}
	}
	return replication.Outcome{Status: replication.OK}
}

// CreateACLs makes the entries; those that stand already stay. It needs ALTER on the cluster. A *replication.Partial
// names those that were not made.
func (c *Cluster) CreateACLs(ctx context.Context, acls []replication.ACL) error {
	bad := partial{op: "create ACLs", in: writing}
	for batch := range slices.Chunk(acls, aclBatch) {
		req := kmsg.NewPtrCreateACLsRequest()
		for _, a := range batch {
			w, err := words(a)
			if err != nil {
				return c.fail("create ACLs", err, writing)
			}
			cr := kmsg.NewCreateACLsRequestCreation()
			cr.ResourceType, cr.ResourcePatternType, cr.Operation, cr.PermissionType = w.resource, w.pattern, w.operation, w.permission
			cr.ResourceName, cr.Principal, cr.Host = a.Name, a.Principal, a.Host
			req.Creations = append(req.Creations, cr)
		}
		resp, err := req.RequestWith(ctx, c.ask())
		if err != nil {
			return c.fail("create ACLs", err, writing)
		}
		if len(resp.Results) != len(batch) {
			return c.fail("create ACLs", fmt.Errorf("%w: %d results for %d entries", fault.ErrUnclear, len(resp.Results), len(batch)), writing)
		}
		for i, r := range resp.Results {
			bad.add(batch[i].String(), coded(r.ErrorCode, r.ErrorMessage))
		}
	}
	return bad.err(c)
}

// DeleteACLs removes exactly the entries given, and none that only resembles them; one that is not there is no error.
// A *replication.Partial names those that were not removed.
func (c *Cluster) DeleteACLs(ctx context.Context, acls []replication.ACL) error {
	bad := partial{op: "delete ACLs", in: writing}
	for batch := range slices.Chunk(acls, aclBatch) {
		req := kmsg.NewPtrDeleteACLsRequest()
		for _, a := range batch {
			w, err := words(a)
			if err != nil {
				return c.fail("delete ACLs", err, writing)
			}
			f := kmsg.NewDeleteACLsRequestFilter()
			f.ResourceType, f.ResourcePatternType, f.Operation, f.PermissionType = w.resource, w.pattern, w.operation, w.permission
			f.ResourceName, f.Principal, f.Host = &a.Name, &a.Principal, &a.Host
			req.Filters = append(req.Filters, f)
		}
		resp, err := req.RequestWith(ctx, c.ask())
		if err != nil {
			return c.fail("delete ACLs", err, writing)
		}
		if len(resp.Results) != len(batch) {
			return c.fail("delete ACLs", fmt.Errorf("%w: %d results for %d entries", fault.ErrUnclear, len(resp.Results), len(batch)), writing)
		}
		for i, r := range resp.Results {
			bad.add(batch[i].String(), coded(r.ErrorCode, r.ErrorMessage))
			for _, m := range r.MatchingACLs {
				bad.add(batch[i].String(), coded(m.ErrorCode, m.ErrorMessage))
			}
		}
	}
	return bad.err(c)
}

func describeACLs(ctx context.Context, to kmsg.Requestor, req *kmsg.DescribeACLsRequest) ([]replication.ACL, error) {
	resp, err := req.RequestWith(ctx, to)
	if err != nil {
		return nil, err
	}
	if err := coded(resp.ErrorCode, resp.ErrorMessage); err != nil {
		return nil, err
	}
	var acls []replication.ACL
	for _, r := range resp.Resources {
		for _, a := range r.ACLs {
			acls = append(acls, replication.ACL{ResourceType: r.ResourceType.String(), Pattern: r.ResourcePatternType.String(),
				Name: r.ResourceName, Principal: a.Principal, Host: a.Host, Operation: a.Operation.String(), Permission: a.PermissionType.String()})
		}
	}
	return acls, nil
}

// filterFor is the narrowest filter that every entry of want passes: the answer of a cluster with many ACLs stays short.
func filterFor(want []replication.ACL) *kmsg.DescribeACLsRequest {
	req := kmsg.NewPtrDescribeACLsRequest()
	req.ResourceType, req.ResourcePatternType = kmsg.ACLResourceTypeAny, kmsg.ACLResourcePatternTypeAny
	req.Operation, req.PermissionType = kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny
	if len(want) == 0 {
		return req
	}
	first, err := words(want[0])
	if err != nil {
		return req
	}
	same := func(field func(replication.ACL) string) bool {
		return !slices.ContainsFunc(want, func(a replication.ACL) bool { return field(a) != field(want[0]) })
	}
	if same(func(a replication.ACL) string { return a.ResourceType }) {
		req.ResourceType = first.resource
	}
	if same(func(a replication.ACL) string { return a.Operation }) {
		req.Operation = first.operation
	}
	if same(func(a replication.ACL) string { return a.Permission }) {
		req.PermissionType = first.permission
	}
	if same(func(a replication.ACL) string { return a.Principal }) {
		req.Principal = &want[0].Principal
	}
	return req
}

// aclWords are an entry's words as the protocol numbers them.
type aclWords struct {
	resource   kmsg.ACLResourceType
	pattern    kmsg.ACLResourcePatternType
	operation  kmsg.ACLOperation
	permission kmsg.ACLPermissionType
}

// words refuses an entry that does not name one thing exactly: ANY or MATCH in a delete would remove what is not ours.
func words(a replication.ACL) (w aclWords, err error) {
	wrong := func(what, word string) (aclWords, error) {
		return aclWords{}, fmt.Errorf("%w: %q is no %s of an ACL", fault.ErrInvalid, word, what)
	}
	if w.resource, err = kmsg.ParseACLResourceType(a.ResourceType); err != nil || w.resource <= kmsg.ACLResourceTypeAny {
		return wrong("resource type", a.ResourceType)
	}
	if w.pattern, err = kmsg.ParseACLResourcePatternType(a.Pattern); err != nil || w.pattern < kmsg.ACLResourcePatternTypeLiteral {
		return wrong("pattern type", a.Pattern)
	}
	if w.operation, err = kmsg.ParseACLOperation(a.Operation); err != nil || w.operation <= kmsg.ACLOperationAny {
		return wrong("operation", a.Operation)
	}
	if w.permission, err = kmsg.ParseACLPermissionType(a.Permission); err != nil || w.permission <= kmsg.ACLPermissionTypeAny {
		return wrong("permission", a.Permission)
	}
	if a.Name == "" || a.Principal == "" || a.Host == "" {
		return aclWords{}, fmt.Errorf("%w: name, principal and host of an ACL may not be empty", fault.ErrInvalid)
	}
	return w, nil
}
