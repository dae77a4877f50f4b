package activities

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"switchback/internal/fault"
	"switchback/internal/killpoint"
	"switchback/replication"
	"switchback/runbooks"
)

// Grants gives the clients of a runbook on the target what they may do on the source. What it makes are ALLOWs: no fence,
// not lifted by a rollback, and recorded as made by Switchback in switchback.marks.
type Grants struct{ Outside }

// GrantsInput names the runbook and the way to go. With DryRun nothing is written anywhere.
type GrantsInput struct {
	Guard   Guard            `json:"guard"`
	Runbook runbooks.Runbook `json:"runbook"`
	Route   Route            `json:"route"`
	DryRun  bool             `json:"dryRun,omitempty"`
}

// GrantsResult says what clients lack on the target, or what was made for them. Lists are cut; the counts are not.
type GrantsResult struct {
	Acted
	On       string            `json:"on"`
	Missing  int               `json:"missing"`            // ALLOWs that were not there when it looked
	Made     int               `json:"made"`               // by this run, on every broker
	Brokers  int               `json:"brokers"`            // that said so themselves
	ACLs     []replication.ACL `json:"acls,omitempty"`     // missing, or made; at most grantsShown
	Commands []string          `json:"commands,omitempty"` // that create what is missing; at most grantsShown
	Advice   []string          `json:"advice,omitempty"`   // what else to know or to do
	Text     string            `json:"text"`
}

// grantsShown keeps a result far below what a history may carry.
const grantsShown = 200

// granted is one ALLOW that Switchback made, and for which run.
type granted struct {
	Run string          `json:"run"`
	ACL replication.ACL `json:"acl"`
}

func grantsKey(runbook, site string) string { return "grants/" + runbook + "/" + site + "/" }

// FixGrants creates exactly the ALLOWs that the runbook's clients lack on the target, and reads them back from every
// broker. What each needs is what its principal may do on the source with the runbook's topics and groups, by its role.
// It may run twice.
func (a *Grants) FixGrants(ctx context.Context, in GrantsInput) (out GrantsResult, err error) {
	ctx, out.Acted = begin(ctx)
	r, err := a.opened(ctx, in.Guard, in.Route)
	if err != nil {
		return out, err
	}
	defer r.close()
	l, err := lookAtGrants(ctx, r, in)
	if err != nil {
		return out, err
	}
	missing := l.missing()
	out.On, out.Missing = in.Route.To.Name, len(missing)
	out.Advice = l.advice(missing)
	if in.DryRun {
		out.show(missing, in.Route.To.Cluster.Bootstrap)
		out.Text = fmt.Sprintf("the runbook's clients lack %s on %s; nothing was changed", allows(len(missing)), out.On)
		return out, nil
	}
	made, err := grant(ctx, r, in, missing)
	if err != nil {
		return out, err
	}
	out.Changed, out.Made = len(made) > 0, len(made)
	if len(made) > 0 {
		if out.Brokers, err = everyBroker(ctx, r.to, made, true); err != nil {
			return out, wrap("read the grants back from "+out.On, err)
		}
	}
	out.show(made, nil)
	out.Text = fmt.Sprintf("%s made on %s, as each of %d brokers says itself", allows(out.Made), out.On, out.Brokers)
	if out.Made == 0 && l.lost != nil {
		out.Text = "the runbook's clients lack nothing on " + out.On + " that their roles need; nothing was changed"
	} else if out.Made == 0 {
		out.Text = "the runbook's clients may do on " + out.On + " what they do on " + in.Route.From.Name + "; nothing was changed"
	}
	return out, nil
}

func allows(n int) string {
	if n == 1 {
		return "1 ALLOW"
	}
	return fmt.Sprintf("%d ALLOWs", n)
}

func (r *GrantsResult) show(acls []replication.ACL, bootstrap []string) {
	r.ACLs = acls[:min(len(acls), grantsShown)]
	if bootstrap == nil {
		return
	}
	if r.Commands = GrantCommands(bootstrap, acls); len(r.Commands) > grantsShown {
		r.Advice = append(r.Advice, fmt.Sprintf("%d more commands are not shown", len(r.Commands)-grantsShown))
		r.Commands = r.Commands[:grantsShown]
	}
}

// grant records what is about to be made, makes it, and returns all that this run made, in this attempt or an earlier one.
func grant(ctx context.Context, r *route, in GrantsInput, missing []replication.ACL) (made []replication.ACL, err error) {
	key := grantsKey(in.Guard.Run.Runbook, in.Route.To.Name)
	before, err := getList[granted](ctx, r.records.to, key)
	if err != nil && !errors.Is(err, fault.ErrNotFound) {
		return nil, err
	}
	all := slices.Clone(before)
	for _, acl := range missing {
		if g := (granted{Run: in.Guard.Run.ID(), ACL: acl}); !slices.Contains(before, g) {
			all = append(all, g)
		}
	}
	if len(missing) > 0 {
		wctx, cancel, err := writing(ctx)
		if err != nil {
			return nil, err
		}
		defer cancel()
		if err := putList(wctx, r.records, key, all); err != nil {
			return nil, err
		}
		killpoint.Reach("FixGrants/middle")
		if err := r.to.CreateACLs(wctx, missing); err != nil {
			return nil, wrap("create ALLOWs on "+in.Route.To.Name, err)
		}
	}
	for _, g := range all {
		if g.Run == in.Guard.Run.ID() {
			made = append(made, g.ACL)
		}
	}
	return made, nil
}

// grantsLook is what decides about grants: who needs what, and what stands. DENY entries are left out on both sides: a
// fence on the source takes away no need, and what is denied on the standby must have its grant behind it (P11).
type grantsLook struct {
	in     GrantsInput
	prefix string // of mirrored topics on the target
	topics []string
	from   []replication.ACL
	to     []replication.ACL
	status replication.LinkStatus
	lost   error // why the source, which may be lost, does not say what clients do there
}

func lookAtGrants(ctx context.Context, r *route, in GrantsInput) (l grantsLook, err error) {
	l = grantsLook{in: in, prefix: r.link.Prefix()}
	err = sideBySide(
		func() error {
			topics, err := r.from.Topics(ctx, in.Runbook.Topics.Match)
			if sourceFailed(err) {
				return l.byMirrors(ctx, r)
			}
			l.topics = Scope{Topics: topics}.TopicNames()
			slices.Sort(l.topics)
			return wrap("list topics of "+in.Route.From.Name, err)
		},
		func() (err error) {
			if l.from, err = r.from.ACLs(ctx); sourceFailed(err) {
				l.from, l.lost = nil, err
				return nil
			}
			return wrap("read the ACLs of "+in.Route.From.Name, err)
		},
		func() (err error) { l.to, err = r.to.ACLs(ctx); return wrap("read the ACLs of "+in.Route.To.Name, err) },
		func() (err error) { l.status, err = r.link.Status(ctx); return wrap("read the link", err) },
	)
	deny := func(a replication.ACL) bool { return a.Permission == replication.Deny }
	l.from, l.to = slices.DeleteFunc(l.from, deny), slices.DeleteFunc(l.to, deny)
	return l, err
}

// byMirrors takes the topics from the link, where the source does not say which it has.
func (l *grantsLook) byMirrors(ctx context.Context, r *route) error {
	mirrors, err := mirrored(ctx, r.link, l.in.Runbook.Topics.Match)
	l.topics = slices.Sorted(maps.Keys(mirrors))
	return err
}

// needed says whether a client needs there what it asks for: what it may do on the source. Of a source that is lost nobody knows
// that: then a client that may do on the target what its role is about with none of the topics, or with none of its groups, was
// never granted it.
func (l grantsLook) needed(standing []replication.ACL, there replication.Request) bool {
	if l.lost == nil {
		return replication.Allowed(l.from, there)
	}
	if there.Operation != replication.OpWrite && there.Operation != replication.OpRead {
		return false
	}
	if there.ResourceType != replication.ResourceTopic {
		return true
	}
	return !slices.ContainsFunc(l.topics, func(topic string) bool {
		one := there
		one.Name = l.prefix + topic
		return replication.Allowed(standing, one)
	})
}

// missing are the ALLOWs that the clients lack, in the order of the runbook's clients. An operation that another one
// implies is not listed beside it.
func (l grantsLook) missing() (list []replication.ACL) {
	standing := slices.Clone(l.to)
	need := func(c runbooks.Client, resource, name string, operations ...string) {
		for _, op := range operations {
			there := replication.Request{Principal: c.Principal, Host: replication.Anywhere, ResourceType: resource, Name: name, Operation: op}
			acl := allowing(there, l.prefix)
			here := there
			here.Name = acl.Name
			if l.needed(l.to, there) && !replication.Allowed(standing, here) {
				standing, list = append(standing, acl), append(list, acl)
			}
		}
	}
	for _, c := range l.in.Runbook.Clients {
		for _, t := range l.topics {
			if c.Role != runbooks.RoleConsumer {
				need(c, replication.ResourceTopic, t, replication.OpWrite)
			}
			if c.Role != runbooks.RoleProducer {
				need(c, replication.ResourceTopic, t, replication.OpRead)
			}
			need(c, replication.ResourceTopic, t, replication.OpDescribe, "DESCRIBE_CONFIGS")
		}
		for _, g := range c.Groups {
			need(c, replication.ResourceGroup, g, replication.OpRead)
		}
		if c.Role != runbooks.RoleConsumer {
			need(c, replication.ResourceCluster, replication.ClusterName, "IDEMPOTENT_WRITE")
			own := l.transactional(c.Principal, standing)
			standing, list = append(standing, own...), append(list, own...)
		}
	}
	return list
}

// transactional are the entries by which the principal uses transactional ids on the source, as they are: which ids it
// uses nobody knows but itself.
func (l grantsLook) transactional(principal string, standing []replication.ACL) (list []replication.ACL) {
	for _, a := range replication.Missing(l.from, standing) {
		if a.ResourceType == replication.ResourceTxnID && a.Principal == principal && !slices.Contains(list, a) {
			list = append(list, a)
		}
	}
	return list
}

// advice is what to know about ALLOWs that are about to be made on the target.
func (l grantsLook) advice(missing []replication.ACL) (list []string) {
	to, from := l.in.Route.To, l.in.Route.From
	if l.lost != nil {
		list = append(list, fmt.Sprintf("%s does not say what the clients may do there (%v): what they lack is judged by their roles, for those that were given nothing of it on %s. "+
			"What they may do with transactional ids, and with single topics, nobody knows", from.Name, l.lost, to.Name))
	}
	if only := replication.Missing(missing, l.from); len(only) > 0 && l.lost == nil && l.status.Syncs.ACLs.Enabled && l.in.Route.Link.ClusterLinking != nil {
		list = append(list, fmt.Sprintf("ACL sync of link %s is on and deletes on %s what %s lacks: %d of these ALLOWs stand there only through a wider one. "+
			"Make them on %s too, or take these topics and groups out of the filter of ACL sync, or they will be gone again: %s",
			l.status.Name, to.Name, from.Name, len(only), from.Name, firstFew(GrantCommands(from.Cluster.Bootstrap, only))))
	}
	var unnamed []string
	for _, acl := range missing {
		if acl.ResourceType == replication.ResourceTopic && !replication.Named(l.to, acl.ResourceType, acl.Name) && !slices.Contains(unnamed, acl.Name) {
			unnamed = append(unnamed, acl.Name)
		}
	}
	if len(unnamed) > 0 {
		list = append(list, fmt.Sprintf("on %s no ACL names %s yet: if allow.everyone.if.no.acl.found is true there, the first ALLOW denies everybody else, the mirror too. Give the mirror's principal its own ALLOW first",
			to.Name, firstFew(unnamed)))
	}
	return list
}

// allowing is the ALLOW that grants a request on the target, where mirrored topics may have a prefix.
func allowing(r replication.Request, prefix string) replication.ACL {
	if r.ResourceType == replication.ResourceTopic {
		r.Name = prefix + r.Name
	}
	return replication.ACL{ResourceType: r.ResourceType, Pattern: replication.PatternLiteral, Name: r.Name, Principal: r.Principal,
		Host: replication.Anywhere, Operation: r.Operation, Permission: replication.Allow}
}

// operationWords are Kafka's operations as kafka-acls.sh takes them.
var operationWords = map[string]string{
	replication.OpRead: "Read", replication.OpWrite: "Write", replication.OpDescribe: "Describe", replication.OpAll: "All",
	"DESCRIBE_CONFIGS": "DescribeConfigs", "IDEMPOTENT_WRITE": "IdempotentWrite", "ALTER": "Alter", "ALTER_CONFIGS": "AlterConfigs",
	"CREATE": "Create", "DELETE": "Delete", "CLUSTER_ACTION": "ClusterAction",
}

// namesInCommand keeps a command short enough for a terminal.
const namesInCommand = 10

// GrantCommands are the ALLOWs as commands of Kafka's own tool that create them; several names of one kind share one.
func GrantCommands(bootstrap []string, acls []replication.ACL) (commands []string) {
	type kind struct{ resource, pattern, principal, host, operation string }
	var order []kind
	names := map[kind][]string{}
	for _, a := range acls {
		k := kind{a.ResourceType, a.Pattern, a.Principal, a.Host, a.Operation}
		if names[k] == nil {
			order = append(order, k)
		}
		names[k] = append(names[k], a.Name)
	}
	flags := map[string]string{replication.ResourceTopic: "--topic", replication.ResourceGroup: "--group", replication.ResourceTxnID: "--transactional-id"}
	for _, k := range order {
		begin := "kafka-acls.sh --bootstrap-server " + quoted(strings.Join(bootstrap, ",")) + " --command-config admin.properties --add --allow-principal " + quoted(k.principal)
		if k.host != replication.Anywhere {
			begin += " --allow-host " + quoted(k.host)
		}
		begin += " --operation " + or(operationWords[k.operation], k.operation)
		if k.pattern != replication.PatternLiteral {
			begin += " --resource-pattern-type " + strings.ToLower(k.pattern)
		}
		if k.resource == replication.ResourceCluster {
			commands = append(commands, begin+" --cluster")
			continue
		}
		for some := range slices.Chunk(names[k], namesInCommand) {
			command := begin
			for _, name := range some {
				command += " " + flags[k.resource] + " " + quoted(name)
			}
			commands = append(commands, command)
		}
	}
	return commands
}

// quoted is a word as a shell takes it.
func quoted(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune(":.,_-/", r)
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
