package activities

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"switchback/internal/fault"
	"switchback/replication"
	"switchback/runbooks"
)

// clustersAnswer: both are there, are who they should be, and are two.
func clustersAnswer(ctx context.Context, s *survey) error {
	var ids [2]replication.Identity
	sites := []Site{s.in.Route.From, s.in.Route.To}
	err := sideBySide(
		func() (err error) { ids[0], err = s.r.from.Identity(ctx); return err },
		func() (err error) { ids[1], err = s.r.to.Identity(ctx); return err },
	)
	if err != nil {
		return err
	}
	for i, id := range ids {
		switch want := sites[i].Cluster.ID; {
		case want != "" && want != id.ClusterID:
			s.problem("cluster identity", fmt.Sprintf("%s answers as cluster %s, the runbook says %s", sites[i].Name, id.ClusterID, want), "correct bootstrap or id of the cluster in the runbook")
		default:
			s.ok("cluster identity", "%s is cluster %s with %d live brokers", sites[i].Name, id.ClusterID, len(id.Brokers))
		}
	}
	if ids[0].ClusterID == ids[1].ClusterID {
		s.problem("cluster identity", fmt.Sprintf("%s and %s are the same cluster %s", sites[0].Name, sites[1].Name, ids[0].ClusterID), "correct the bootstrap addresses in the runbook")
	}
	if c := s.status.SourceCluster; c != "" && c != ids[0].ClusterID {
		s.problem("link source", fmt.Sprintf("link %s mirrors from cluster %s, the run would leave from %s", s.status.Name, c, ids[0].ClusterID), "name the link that runs in this direction")
	}
	return nil
}

// configs that decide whether a record that fits on the source fits on the target, or lives as long there.
var comparedConfigs = []string{"max.message.bytes", "cleanup.policy", "retention.ms", "retention.bytes", "min.insync.replicas", "message.timestamp.type"}

// configsFit compares what decides about records on both clusters.
func configsFit(ctx context.Context, s *survey) error {
	names := Scope{Topics: s.topics}.TopicNames()
	var from, to map[string]map[string]string
	err := sideBySide(
		func() (err error) { from, err = s.r.from.TopicConfigs(ctx, names); return err },
		func() (err error) { to, err = s.r.to.TopicConfigs(ctx, names); return ignoreMissing(err) },
	)
	if err != nil {
		return wrap("read topic configs", err)
	}
	differ := 0
	for _, topic := range names {
		if to[topic] == nil {
			continue // mirrorsAreReady says that it is missing
		}
		for _, key := range comparedConfigs {
			a, b := from[topic][key], to[topic][key]
			if a == b {
				continue
			}
			differ++
			means := fmt.Sprintf("topic %s: %s is %s on %s and %s on %s", topic, key, orNone(a), s.in.Route.From.Name, orNone(b), s.in.Route.To.Name)
			do := "let the link sync topic configs, or set it on the target"
			if key == "cleanup.policy" || key == "max.message.bytes" {
				s.problem("topic configs", means, do)
			} else {
				s.warn("topic configs", means, do)
			}
		}
	}
	if differ == 0 {
		s.ok("topic configs", "%d topics have the same configs on both clusters", len(names))
	}
	return nil
}

// nothingDenies looks for DENY entries on the target that would stop the clients there: a copied fence, or the one that
// an earlier failover left.
func nothingDenies(_ context.Context, s *survey) error {
	var denies []string
	for _, c := range s.in.Runbook.Clients {
		for _, need := range s.needs(c) {
			if replication.Denies(s.acls[s.in.Route.To.Name], need) {
				denies = append(denies, fmt.Sprintf("%s %s on %s %s", need.Principal, need.Operation, strings.ToLower(need.ResourceType), need.Name))
			}
		}
	}
	if len(denies) == 0 {
		s.ok("DENY on the target", "no DENY entry stands in the way of the runbook's clients on %s", s.in.Route.To.Name)
		return nil
	}
	s.problem("DENY on the target", fmt.Sprintf("%d operations of the clients are denied on %s: %s", len(denies), s.in.Route.To.Name, firstFew(denies)),
		"these are a copy of a fence, or the fence of an earlier failover: remove them from the target before clients are sent there")
	return nil
}

// needs lists what a client does on the source, as far as its ACLs allow: it must be allowed the same on the target. Of a
// source that is lost nobody knows them: then it is what the target's own grants mean to allow.
func (s *survey) needs(c runbooks.Client) []replication.Request {
	var list []replication.Request
	acls := s.acls[s.in.Route.From.Name]
	switch {
	case s.in.Route.SourceLost && acls == nil:
		acls = slices.DeleteFunc(slices.Clone(s.acls[s.in.Route.To.Name]), func(a replication.ACL) bool { return a.Permission == replication.Deny })
	case s.in.Route.SourceLost: // an escalated run, or one that died, has fenced it: that says nothing of what its clients need
		fence := append(replication.TopicFence(Scope{Topics: s.topics}.TopicNames()), replication.GroupFence(c.Groups)...)
		acls = replication.Missing(acls, fence)
	}
	add := func(resource, name, op string) {
		need := replication.Request{Principal: c.Principal, Host: "*", ResourceType: resource, Name: name, Operation: op}
		if replication.Allowed(acls, need) {
			list = append(list, need)
		}
	}
	for _, t := range s.topics {
		if c.Role != runbooks.RoleConsumer {
			add(replication.ResourceTopic, t.Name, replication.OpWrite)
		}
		if c.Role != runbooks.RoleProducer {
			add(replication.ResourceTopic, t.Name, replication.OpRead)
		}
	}
	for _, g := range c.Groups {
		add(replication.ResourceGroup, g, replication.OpRead)
	}
	return list
}

// credentialsWork logs in to the target as each client, with the secret that the client will use, and checks what it may
// do there. Nobody is stopped before this is known.
func credentialsWork(clusters Clusters) func(context.Context, *survey) error {
	return func(ctx context.Context, s *survey) error {
		to := s.in.Route.To
		topics := Scope{Topics: s.topics}.TopicNames()
		granted := make([]map[string][]string, len(s.in.Runbook.Clients))
		findings := make([][]string, len(s.in.Runbook.Clients))
		jobs := make([]func() error, len(s.in.Runbook.Clients))
		for i, c := range s.in.Runbook.Clients {
			jobs[i] = func() error {
				path := s.in.Runbook.Credentials.PathFor(to.Name, c.Name)
				as, err := clusters.OpenAs(ctx, to, path)
				if err == nil {
					defer as.Close()
					var may replication.Grants
					may, err = renamed(as, s.r.link.Prefix()).Grants(ctx, topics, nil)
					granted[i], err = may.Topics, ignoreMissing(err)
				}
				switch {
				case err != nil:
					findings[i] = []string{fmt.Sprintf("%s cannot log in to %s with the secret at %s: %v", c.Name, to.Name, path, err)}
				case as.Principal() != c.Principal:
					findings[i] = []string{fmt.Sprintf("the secret at %s logs in as %s, the runbook says that %s is %s", path, as.Principal(), c.Name, c.Principal)}
				}
				return nil
			}
		}
		_ = sideBySide(jobs...) // each client has its own finding
		bad := 0
		for i, c := range s.in.Runbook.Clients {
			for _, means := range findings[i] {
				bad++
				s.problem("client credentials", means, "write working credentials for the target into Vault before the failover")
			}
			var lacks []string
			var create []replication.ACL
			does := s.needs(c)
			if len(does) == 0 {
				bad++
				s.problem("client grants", fmt.Sprintf("%s (%s) may do nothing with the runbook's topics on %s", c.Name, c.Principal, s.sites()[0]), "correct the client's principal in the runbook, or grant it what it needs")
			}
			for _, need := range does {
				may := replication.Allowed(s.acls[to.Name], need)
				if said, asked := granted[i][need.Name]; asked && need.ResourceType == replication.ResourceTopic && (need.Operation != replication.OpWrite || !s.isClosed(need.Principal, need.Name)) {
					may = slices.Contains(said, need.Operation) // as the brokers told the client itself
				}
				if !may {
					lacks = append(lacks, fmt.Sprintf("%s on %s %s", need.Operation, strings.ToLower(need.ResourceType), need.Name))
					create = append(create, allowing(need, s.r.link.Prefix()))
				}
			}
			if len(lacks) > 0 {
				bad++
				s.problem("client grants", fmt.Sprintf("%s (%s) lacks on %s: %s", c.Name, c.Principal, to.Name, firstFew(lacks)),
					"grant it on the target, because no link copies WRITE grants: `switchback plan planned "+s.in.Runbook.Metadata.Name+" --to "+to.Name+" --fix-grants` creates what is missing, or run "+
						firstFew(GrantCommands(to.Cluster.Bootstrap, create)))
			}
		}
		if bad == 0 {
			s.ok("client credentials", "%d clients logged in to %s with their own secrets and may do there what they do", len(s.in.Runbook.Clients), to.Name)
		}
		return nil
	}
}

// grantsAreThere checks what Switchback and the link must be allowed to do on both clusters, also for the way back.
func grantsAreThere(_ context.Context, s *survey) error {
	bad := 0
	for _, side := range s.sides() {
		var lacks []string
		check := func(principal, resource, name, op string) {
			need := replication.Request{Principal: principal, Host: "*", ResourceType: resource, Name: name, Operation: op}
			if !replication.Allowed(s.acls[side.site], need) {
				lacks = append(lacks, fmt.Sprintf("%s: %s on %s %s", principal, op, strings.ToLower(resource), name))
			}
		}
		me := side.k.Principal()
		check(me, replication.ResourceCluster, replication.ClusterName, "ALTER")
		check(me, replication.ResourceCluster, replication.ClusterName, "DESCRIBE")
		for _, t := range []string{MarksTopic, PositionsTopic, CanaryTopic} {
			check(me, replication.ResourceTopic, t, replication.OpWrite)
			check(me, replication.ResourceTopic, t, replication.OpRead)
		}
		for _, t := range s.topics {
			check(me, replication.ResourceTopic, t.Name, "DESCRIBE")
			check(me, replication.ResourceTopic, t.Name, replication.OpRead)
		}
		for _, g := range s.groups {
			check(me, replication.ResourceGroup, g.Name, replication.OpRead)
		}
		if cl := s.in.Route.Link.ClusterLinking; cl != nil && cl.Principal != "" {
			for _, t := range s.topics {
				check(cl.Principal, replication.ResourceTopic, t.Name, replication.OpRead)
			}
		}
		// Without its source the mirror is only stopped, and may be sealed already, by a run that died.
		if mm := s.in.Route.Link.MirrorMaker; mm != nil && side.site == s.in.Route.To.Name && !s.in.Route.SourceLost {
			for _, t := range s.topics {
				check(mm.Principals.Data, replication.ResourceTopic, t.Name, replication.OpWrite)
			}
		}
		if len(lacks) > 0 {
			bad++
			s.problem("own grants", fmt.Sprintf("on %s these are missing: %s", side.site, firstFew(lacks)), "grant them on both clusters: the way back needs the same")
		}
	}
	if bad == 0 {
		s.ok("own grants", "Switchback and the link may do on %s what the way there and the way back need", s.where())
	}
	return nil
}

// strandedCanBeKept: what a disaster leaves on the lost cluster is kept from expiring, which needs a right that nothing else does.
func strandedCanBeKept(_ context.Context, s *survey) error {
	const right = "ALTER_CONFIGS"
	for _, side := range []side{{s.in.Route.From.Name, s.r.from}, {s.in.Route.To.Name, s.r.to}} {
		me := side.k.Principal()
		if s.acls[side.site] == nil || me == "" { // a source that does not answer
			continue
		}
		var lacks []string
		for _, t := range s.topics {
			if !replication.Allowed(s.acls[side.site], replication.Request{Principal: me, Host: "*", ResourceType: replication.ResourceTopic, Name: t.Name, Operation: right}) {
				lacks = append(lacks, t.Name)
			}
		}
		if len(lacks) > 0 {
			s.warn("own grants", fmt.Sprintf("%s lacks %s on topics of %s: %s. After an unplanned failover from there nobody could keep the records that it stranded from expiring", me, right, side.site, firstFew(lacks)),
				"grant it "+right+" on the runbook's topics on both clusters")
		}
	}
	return nil
}

// targetOnlyACLs would be deleted by ACL sync, because the source lacks them.
func targetOnlyACLs(_ context.Context, s *survey) error {
	if !s.status.Syncs.ACLs.Enabled {
		s.ok("ACL sync", "ACL sync of link %s is off", s.status.Name)
		return nil
	}
	if s.in.Route.Link.ClusterLinking == nil {
		s.ok("ACL sync", "ACL sync of link %s only adds ACLs; it is denied to while the fence stands", s.status.Name)
		return nil
	}
	var only []string
	for _, acl := range replication.Missing(s.acls[s.in.Route.To.Name], s.acls[s.in.Route.From.Name]) {
		if s.in.Runbook.Topics.Match(acl.Name) || s.in.Runbook.Groups.Match(acl.Name) {
			only = append(only, acl.String())
		}
	}
	if len(only) > 0 {
		s.warn("ACL sync", fmt.Sprintf("%d ACLs of the runbook's topics and groups stand on %s only; ACL sync may delete them: %s", len(only), s.in.Route.To.Name, firstFew(only)), "make them on the source too")
		return nil
	}
	s.ok("ACL sync", "the target has no ACL of the runbook's topics that the source lacks; ACL sync will be off while the fence stands")
	return nil
}

// nobodyIsEverybody refuses what works only because of allow.everyone.if.no.acl.found (P12): a topic or group that no ACL
// names. The fence would be its first ACL, and deny everybody else, the mirror too. Where an ACL names it, the setting
// has no effect on it, whatever it is.
func nobodyIsEverybody(_ context.Context, s *survey) error {
	bare := 0
	for _, site := range s.sites() {
		var unnamed []string
		for _, t := range s.topics {
			if !replication.Named(s.acls[site], replication.ResourceTopic, t.Name) {
				unnamed = append(unnamed, "topic "+t.Name)
			}
		}
		for _, g := range s.groups {
			if !replication.Named(s.acls[site], replication.ResourceGroup, g.Name) {
				unnamed = append(unnamed, "group "+g.Name)
			}
		}
		if len(unnamed) == 0 {
			continue
		}
		bare++
		s.problem("allow.everyone.if.no.acl.found", fmt.Sprintf("on %s no ACL names %s: whoever uses them may do so only because allow.everyone.if.no.acl.found is true, or as a super user; a fence would be the first ACL and deny everybody else", site, firstFew(unnamed)),
			"give each topic and group explicit ALLOWs for its clients and the mirror")
	}
	if bare == 0 {
		s.ok("allow.everyone.if.no.acl.found", "every topic and group has ACLs of its own on %s, so a DENY denies only whom it should", s.where())
	}
	return nil
}

// recordsWork proves with a write that a run can keep what it must not forget (P20).
func recordsWork(ctx context.Context, s *survey) error {
	probe, stamp := "preflight/"+s.in.Run.Runbook, time.Now().UTC().Format(time.RFC3339Nano)
	for _, side := range s.sides() {
		rec := side.k.Records(MarksTopic)
		if !s.in.DryRun {
			if err := rec.Put(ctx, map[string][]byte{probe: []byte(stamp)}); err != nil {
				s.problem("own records", fmt.Sprintf("%s on %s cannot be written: %v", MarksTopic, side.site, err), "make Switchback's own topics (docs/operate.md has the commands), and grant WRITE on them to Switchback alone")
				continue
			}
		}
		got, err := rec.Load(ctx, probe)
		if err == nil && !s.in.DryRun && string(got[probe]) != stamp {
			err = fmt.Errorf("what was just written reads back as %q", got[probe])
		}
		if err != nil {
			s.problem("own records", fmt.Sprintf("%s on %s cannot be read: %v", MarksTopic, side.site, err), "make Switchback's own topics (docs/operate.md has the commands), and grant READ on them")
			continue
		}
		for _, acl := range replication.WriteGrants(s.acls[side.site], []string{MarksTopic, PositionsTopic}) {
			if acl.Principal != side.k.Principal() {
				s.warn("own records", fmt.Sprintf("on %s somebody else may write Switchback's own records: %s", side.site, acl), "let Switchback alone write them: runs trust what they say")
			}
		}
		s.ok("own records", "%s on %s can be written and read", MarksTopic, side.site)
	}
	if slices.ContainsFunc(s.status.Topics, func(t string) bool { return strings.HasPrefix(t, "switchback.") }) {
		s.problem("own records", "the link mirrors Switchback's own topics", "exclude switchback.* from the link")
	}
	return nil
}

// positionsStayShort: what a worker reads as a whole in a disaster is kept short by compaction, which leaves the segment that is
// written to alone (P20).
func positionsStayShort(ctx context.Context, s *survey) error {
	want := replication.OwnTopicSpec(PositionsTopic).Configs
	for _, side := range s.sides() {
		configs, err := side.k.TopicConfigs(ctx, []string{PositionsTopic})
		if err != nil {
			return wrap("read the configs of "+PositionsTopic+" on "+side.site, ignoreMissing(err)) // that it is missing is said elsewhere
		}
		var differ, set []string
		for _, key := range slices.Sorted(maps.Keys(want)) {
			set = append(set, key+"="+want[key])
			if is, there := configs[PositionsTopic][key]; there && is != want[key] {
				differ = append(differ, fmt.Sprintf("%s is %s, not %s", key, is, want[key]))
			}
		}
		if len(differ) > 0 {
			s.warn("own records", fmt.Sprintf("%s on %s grows beyond what is to be read in a hurry: %s", PositionsTopic, side.site, strings.Join(differ, ", ")),
				fmt.Sprintf("kafka-configs.sh --bootstrap-server %s --command-config admin.properties --alter --topic %s --add-config %s",
					strings.Join(s.bootstrap(side.site), ","), PositionsTopic, strings.Join(set, ",")))
		}
	}
	return nil
}

// bootstrap are the brokers that the runbook names for a site.
func (s *survey) bootstrap(site string) []string {
	if site == s.in.Route.From.Name {
		return s.in.Route.From.Cluster.Bootstrap
	}
	return s.in.Route.To.Cluster.Bootstrap
}

// nobodyElseWrites looks for grants on the target by which somebody could write there who is no client of the runbook,
// and whom no run stops (P11).
func nobodyElseWrites(_ context.Context, s *survey) error {
	known := map[string]bool{s.r.from.Principal(): true, s.r.to.Principal(): true}
	if cl := s.in.Route.Link.ClusterLinking; cl != nil {
		known[cl.Principal] = true
	}
	if mm := s.in.Route.Link.MirrorMaker; mm != nil {
		known[mm.Principals.Data], known[mm.Principals.Admin] = true, true
	}
	for _, c := range s.in.Runbook.Clients {
		known[c.Principal] = true
	}
	var strangers, everybody []string
	for _, acl := range replication.WriteGrants(s.acls[s.in.Route.To.Name], Scope{Topics: s.topics}.TopicNames()) {
		switch {
		case acl.Wildcard():
			everybody = append(everybody, acl.String())
		case !known[acl.Principal]:
			strangers = append(strangers, acl.String())
		}
	}
	if len(everybody) > 0 {
		s.warn("other writers", fmt.Sprintf("on %s everybody may write to the runbook's topics, and there is nobody whom a DENY could name in their place: %s", s.in.Route.To.Name, firstFew(everybody)),
			"grant WRITE to each client by its principal, then take this ALLOW away: neither the standby nor the way back can be closed while it stands")
	}
	if len(strangers) > 0 {
		s.warn("other writers", fmt.Sprintf("on %s others than the runbook's clients may write to its topics: %s", s.in.Route.To.Name, firstFew(strangers)), "name them as clients of the runbook, or take the grant away: no run stops them, and nothing closes the standby to them")
	}
	if len(strangers)+len(everybody) > 0 {
		return nil
	}
	s.ok("other writers", "nobody but the runbook's clients may write to its topics on %s", s.in.Route.To.Name)
	return nil
}

// clockSkew is how far clocks may be apart before times in a report mislead.
const clockSkew = 2 * time.Second

// clocksAgree compares this worker's clock with Temporal's, which the time for writes counts by (P35a), and with that of
// the brokers, where the canary topic is stamped by them.
func clocksAgree(ctx context.Context, s *survey) error {
	if behind := clockOf(ctx).behind; behind.Abs() > skewMost {
		s.problem("clocks", fmt.Sprintf("this worker's clock is %s away from Temporal's, or the worker took as long to begin; the time in which an attempt may write counts by both", behind.Round(time.Millisecond)), "see to the time service of the worker and of Temporal, then start again")
	}
	if s.in.DryRun {
		s.warn("clocks", "not looked at in a dry run, because it needs a record", "the run itself looks")
		return nil
	}
	for _, side := range s.sides() {
		canary, err := side.k.Canary(ctx, CanaryTopic)
		if err != nil {
			s.problem("canary", fmt.Sprintf("no record goes through %s on %s: %v", CanaryTopic, side.site, err), "make the topic (docs/operate.md has the command), and grant READ and WRITE on it to Switchback")
			continue
		}
		if !canary.Skewed {
			s.warn("clocks", fmt.Sprintf("the brokers of %s do not stamp %s, so their clock cannot be seen", side.site, CanaryTopic), "set message.timestamp.type=LogAppendTime on the topic")
			continue
		}
		if canary.Skew.Abs() > clockSkew+canary.RoundTrip/2 {
			s.warn("clocks", fmt.Sprintf("the clock of %s is %s away from this worker's", side.site, canary.Skew.Round(time.Millisecond)), "times in the report are off by as much; see to the time service")
			continue
		}
		s.ok("clocks", "%s: a record came back after %s; its clock agrees", side.site, canary.RoundTrip.Round(time.Millisecond))
	}
	return nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, fault.ErrNotFound) {
		return nil
	}
	return err
}

func orNone(v string) string {
	if v == "" {
		return "not set"
	}
	return v
}

func compare(a, b string) int { return strings.Compare(a, b) }

// firstFew lists at most five, and how many more.
func firstFew(list []string) string {
	if len(list) <= 5 {
		return strings.Join(list, ", ")
	}
	return strings.Join(list[:5], ", ") + fmt.Sprintf(" and %d more", len(list)-5)
}
