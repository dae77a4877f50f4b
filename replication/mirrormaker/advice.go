package mirrormaker

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"switchback/replication"
)

// Levels of advice.
const (
	fine    = "ok"
	warning = "warning"
	problem = "problem"
)

const (
	sourceClass     = "org.apache.kafka.connect.mirror.MirrorSourceConnector"
	checkpointClass = "org.apache.kafka.connect.mirror.MirrorCheckpointConnector"
	identityClass   = "org.apache.kafka.connect.mirror.IdentityReplicationPolicy"
	defaultClass    = "org.apache.kafka.connect.mirror.DefaultReplicationPolicy"
	bytesConverter  = "org.apache.kafka.connect.converters.ByteArrayConverter"
	smtFilter       = "org.apache.kafka.connect.transforms.Filter"
)

// advisor collects what the configuration of a link means for a run.
type advisor struct{ list []replication.Advice }

func (a *advisor) add(check, level, means, do string) {
	a.list = append(a.list, replication.Advice{Check: check, Level: level, Means: means, Do: do})
}

// Advice is what the connectors' own configuration means for a run, and whether a seal is likely to hold. What could not
// be looked at is a warning that says so; the error is for connectors that cannot be read at all.
func (l *Link) Advice(ctx context.Context) ([]replication.Advice, error) {
	v, err := l.look(ctx)
	if err != nil {
		return nil, err
	}
	source := v.source.settings
	a := &advisor{}
	a.identity(l.cfg, v)
	a.records(source)
	a.translation(l.cfg, source, v.checkpoint.known())
	a.topics(source.topics())
	l.adviseTransactions(ctx, a, source)
	l.adviseWorkers(ctx, a, source)
	l.adviseSeal(ctx, a, v)
	l.adviseGrants(ctx, a, source)
	l.adviseNames(ctx, a, source.topics().matcher())
	return a.list, nil
}

// identity: the connectors are what the runbook says they are.
func (a *advisor) identity(cfg Config, v look) {
	before := len(a.list)
	expect := func(c *Connector, key, usual, want string) {
		if c == nil {
			return
		}
		if got := c.settings.or(key, usual); got != want {
			a.add("connectors", problem, fmt.Sprintf("connector %s has %s=%s, the runbook says %s", c.Name, key, got, want), "correct the runbook, or the connector")
		}
	}
	policy := map[string]string{PolicyIdentity: identityClass, PolicyDefault: defaultClass}[cfg.Names.Policy]
	for c, class := range map[*Connector]string{&v.source: sourceClass, v.checkpoint: checkpointClass} {
		expect(c, "connector.class", "", class)
		expect(c, "enabled", "true", "true")
		expect(c, "source.cluster.alias", "source", cfg.Names.Source)
		expect(c, "target.cluster.alias", "target", cfg.Names.Target)
		expect(c, "replication.policy.class", defaultClass, policy)
		expect(c, "replication.policy.separator", ".", cfg.Names.separator())
		if c != nil && c.settings.first("topic.filter.class", "group.filter.class") != "" {
			a.add("connectors", warning, "connector "+c.Name+" has a filter of its own (topic.filter.class, group.filter.class): which topics and groups it selects cannot be told from here", "compare the plan's topics and groups with what you expect")
		}
	}
	for _, name := range v.missing {
		a.add("connectors", problem, "connector "+name+" of the runbook is not there", "create it, or take it out of the runbook")
	}
	slices.SortFunc(a.list[before:], func(x, y replication.Advice) int { return strings.Compare(x.Means, y.Means) })
	if len(a.list) == before {
		a.add("connectors", fine, "aliases, policy and classes of the connectors are those of the runbook", "")
	}
}

// records: what is on the target is what was on the source.
func (a *advisor) records(s settings) {
	if strings.EqualFold(s["errors.tolerance"], "all") {
		a.add("errors.tolerance", problem, "errors.tolerance=all: a record that the target refuses is counted as mirrored and lost, and under a seal all of them are (P17)",
			"set errors.tolerance=none on the source connector")
	}
	for _, key := range []string{"key.converter", "value.converter", "header.converter"} {
		switch got := s[key]; got {
		case bytesConverter:
		case "":
			a.add("converters", warning, key+" is not set on the source connector, so that the worker's own is used, which Connect does not tell", "set "+key+"="+bytesConverter+" on the connector")
		default:
			a.add("converters", problem, key+" is "+got+": records are changed on their way, or refused", "set "+key+"="+bytesConverter)
		}
	}
	for name := range strings.SplitSeq(s["transforms"], ",") {
		name = strings.TrimSpace(name)
		switch class := s["transforms."+name+".type"]; {
		case name == "":
		case class == smtFilter:
			a.add("transforms", warning, fmt.Sprintf("transform %s of the source connector leaves out records", name), "offsets of groups behind such a record are found by comparing records on either side of it; where that leaves doubt the report says how far off they are")
		default:
			a.add("transforms", problem, fmt.Sprintf("transform %s (%s) of the source connector changes records: they can neither be compared nor proven to have arrived", name, class), "mirror without transforms")
		}
	}
}

// translation: where groups go on can be told.
func (a *advisor) translation(cfg Config, source, checkpoint settings) {
	if !source.flag("emit.offset-syncs.enabled", true) {
		a.add("offset syncs", warning, "emit.offset-syncs.enabled=false: there are no anchors to compare records from", "set emit.offset-syncs.enabled=true on the source connector")
	} else if source.or("offset-syncs.topic.location", "source") != "target" {
		a.add("offset syncs", warning, "the offset syncs are kept on the source cluster and are gone with it: after a disaster groups go on from their checkpoints alone", "set offset-syncs.topic.location=target on the source and the checkpoint connector")
	} else {
		a.add("offset syncs", fine, "the offset syncs are kept on the target and survive the source", "")
	}
	switch {
	case cfg.Checkpoint == "":
		a.add("checkpoints", warning, "the runbook names no checkpoint connector: when the source is gone nobody knows where groups stood", "run a MirrorCheckpointConnector and name it under checkpoint:")
	case checkpoint == nil:
	case !checkpoint.flag("emit.checkpoints.enabled", true):
		a.add("checkpoints", warning, "emit.checkpoints.enabled=false: when the source is gone nobody knows where groups stood", "set it to true on the checkpoint connector")
	default:
		every, found := checkpoint.seconds("emit.checkpoints.interval.seconds", 60), checkpoint.seconds("refresh.groups.interval.seconds", 600)
		a.add("checkpoints", fine, fmt.Sprintf("checkpoints are written every %s, for groups that were there %s ago", every, found), "")
	}
}

// topics: what is Switchback's own is never mirrored (P20).
func (a *advisor) topics(f filter) {
	m := f.matcher()
	for _, own := range []string{"switchback.marks", "switchback.positions"} {
		if in, err := m.match(own); err != nil {
			a.add("filter", warning, err.Error(), "see to it that switchback.* is not mirrored")
			return
		} else if in {
			a.add("filter", problem, "the source connector mirrors "+own+", which would overwrite the marks of the other cluster", `add switchback\..* to topics.exclude of the source connector`)
			return
		}
	}
}

// adviseTransactions: what transactional producers, and tasks that restart, leave on the target.
func (l *Link) adviseTransactions(ctx context.Context, a *advisor, s settings) {
	if s.committed() {
		a.add("read_committed", fine, "aborted records are not mirrored", "")
	} else {
		a.add("read_committed", warning, "the mirror reads uncommitted records: those of aborted transactions stand on the target as if they were committed (P19)",
			"set source.consumer.isolation.level=read_committed on the source connector where producers are transactional")
	}
	const exactly = "exactly.once.support"
	complaints, err := l.client.Complaints(ctx, "MirrorSourceConnector", exactly, map[string]string{
		"connector.class": sourceClass, "name": l.cfg.Source, exactly: "required", "topics": "none", "tasks.max": "1",
		"source.cluster.alias": l.cfg.Names.Source, "target.cluster.alias": l.cfg.Names.Target, "source.consumer.isolation.level": "read_committed",
	})
	switch {
	case err != nil:
		a.add("exactly-once", warning, "whether the mirror is exactly-once cannot be told: "+err.Error(), "look for exactly.once.source.support in the workers' properties")
	case len(complaints) > 0 || !s.committed():
		a.add("exactly-once", warning, "exactly-once source support is off: a task of the mirror that restarts writes some records twice, and no run can undo that (P37)",
			"set exactly.once.source.support=enabled on the workers (preparing on all of them first) and read_committed on the connector")
	default:
		a.add("exactly-once", fine, "the mirror writes each record once", "")
	}
}

// adviseWorkers: who answers, and whether what they write goes to the target.
func (l *Link) adviseWorkers(ctx context.Context, a *advisor, s settings) {
	for _, o := range l.client.Health(ctx) {
		if o.Status != replication.OK {
			a.add("connect workers", warning, "worker "+o.Name+" does not answer: "+o.Reason, "start it, or take it out of the runbook")
		}
	}
	about, err := l.client.About(ctx)
	if err != nil {
		a.add("connect workers", warning, err.Error(), "see to the Connect workers")
		return
	}
	target, err := l.cfg.To.Identity(ctx)
	switch {
	case err != nil:
		a.add("connect workers", warning, "which cluster the workers write to cannot be compared: "+err.Error(), "see to the target cluster")
	case about.Cluster == target.ClusterID:
		a.add("connect workers", fine, fmt.Sprintf("Kafka Connect %s on the target cluster", about.Version), "")
	case s["producer.override.bootstrap.servers"] != "":
		a.add("connect workers", warning, "the Connect workers live on another cluster than the target and are told to write to "+s["producer.override.bootstrap.servers"], "see to it that this is the target, and that their own cluster survives what the source does not")
	default:
		a.add("connect workers", problem, fmt.Sprintf("the Connect workers live on cluster %s, the target is %s: what the connectors mirror goes elsewhere", about.Cluster, target.ClusterID), "name the Connect cluster on the target's side")
	}
}

// adviseSeal: the principals that would be denied are those that write, and ACLs hold them. super.users cannot be read;
// who writes without a grant is one, or is not who the runbook says.
func (l *Link) adviseSeal(ctx context.Context, a *advisor, v look) {
	before := len(a.list)
	s := v.source.settings
	for _, p := range []struct{ key, role, want, login string }{
		{"producer.override", "data", l.cfg.Data, s.first("producer.override.username")},
		{"target.cluster", "admin", l.cfg.Admin, s.first("target.admin.username", "admin.username", "target.cluster.username")},
	} {
		if p.login != "" && "User:"+p.login != p.want {
			a.add("principals", problem, fmt.Sprintf("the source connector logs in as User:%s (%s), the runbook says principals.%s is %s: the seal would deny the wrong one", p.login, p.key, p.role, p.want), "correct principals."+p.role+" of the runbook")
		}
	}
	acls, err := l.cfg.To.ACLs(ctx)
	if err != nil {
		a.add("principals", warning, "whether the mirror's principals are held by ACLs cannot be told: "+err.Error(), "let Switchback's principal DESCRIBE the cluster")
		return
	}
	topics, err := l.mirrored(ctx, s)
	if err != nil {
		a.add("principals", warning, err.Error(), "see to the target cluster")
		return
	}
	if v.source.State == Running && len(topics) > 0 {
		var without []string
		for _, t := range topics {
			grants := replication.WriteGrants(acls, []string{t.target.Name})
			if !slices.ContainsFunc(grants, func(g replication.ACL) bool { return g.Principal == l.cfg.Data || g.Wildcard() }) {
				without = append(without, t.target.Name)
			}
		}
		if len(without) == len(topics) {
			a.add("principals", problem, fmt.Sprintf("%s has no grant to write to any mirrored topic, such as %s, and the mirror runs: it is a super user, which ACLs do not hold, or not who writes", l.cfg.Data, without[0]),
				"let the workers' producers log in as a principal of their own that has grants and is no super user, and name it under principals.data")
		}
	}
	if len(a.list) == before {
		a.add("principals", fine, fmt.Sprintf("%s and %s can be denied by ACLs; a stop of the connectors takes 1 to 4 s, and about a minute when the source is gone", l.cfg.Data, l.cfg.Admin), "")
	}
}

// adviseNames: topics whose names MirrorMaker 2 takes for something else. Without the source nothing can be said.
func (l *Link) adviseNames(ctx context.Context, a *advisor, filter matcher) {
	if l.cfg.From == nil {
		return
	}
	var odd []string
	_, err := l.cfg.From.Topics(ctx, func(name string) bool {
		if in, err := filter.match(name); err == nil && in && !internal(name) && name != heartbeatsTopic {
			if oddity := l.cfg.Names.Oddity(name); oddity != "" {
				odd = append(odd, oddity)
			}
		}
		return false
	})
	if err != nil {
		return // preflight says that the source cannot be read
	}
	if len(odd) > 0 {
		a.add("names", warning, strings.Join(odd[:min(len(odd), 5)], "; ")+": such a topic is no part of a run", "rename it, if it holds records of the workload")
	}
}
