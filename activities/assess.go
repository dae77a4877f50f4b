package activities

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"switchback/internal/killpoint"
	"switchback/replication"
	"switchback/runbooks"
)

// Assess looks whether a workload could be failed over without its source, and says what that would lose.
type Assess struct{ Outside }

// Assess asks everybody side by side, with short deadlines: who answers, what is known of the positions, what would be
// lost if the run went now. It needs the target whole, and nothing of the source. What the runbook's patterns mean is
// taken from the mirrors, the last sample and whatever the source still says, and is stored on the target as the run's
// scope. It fails only when it could not do its work; what is wrong is a finding, and a problem forbids the run.
func (a *Assess) Assess(ctx context.Context, in AssessInput) (out AssessResult, err error) {
	ctx, _ = begin(ctx)
	in.Route.SourceLost = true
	out.Loss = replication.Loss{AtMost: replication.Unknown, Estimate: replication.Unknown, Bytes: replication.Unknown, Seconds: -1, Why: "nothing could be looked at"}
	out.From, out.To = Reach{Site: in.Route.From.Name}, Reach{Site: in.Route.To.Name}
	r, err := a.openAgain(ctx, in.Route, true)
	if err != nil {
		out.Findings = []Finding{cannotGo(err)}
		return out, nil
	}
	defer r.close()
	var result PreflightResult
	s := &assessment{survey: &survey{in: PreflightInput{Run: in.Run, Runbook: in.Runbook, Route: in.Route, Epoch: in.Epoch, DryRun: in.DryRun},
		r: r, result: &result, ends: map[string][]replication.Ends{}, acls: map[string][]replication.ACL{}}, out: &out}
	if err := s.look(ctx, a.Consuls); err != nil {
		out.Findings = []Finding{cannotGo(err)}
		return out, nil
	}
	killpoint.Reach("Assess/middle")
	s.all(ctx, s.checks(a.Clusters))
	out.Loss, out.Losses = s.evidence.loss(in.Outage)
	if in.Outage.IsZero() {
		out.Loss.Why += "; nobody said since when the source is lost, so time is counted up to now"
	}
	out.Clients = s.clients(out.Loss)
	out.Findings = shorten(result.Findings)
	out.Topics, out.Groups, out.LinkName = len(s.topics), len(s.groups), s.status.Name
	for _, t := range s.topics {
		out.Partitions += t.Partitions
	}
	out.StopIsFinal = r.link.StopIsFinal()
	out.SealProven = result.SealProven || !s.seals()
	if in.DryRun || (PreflightResult{Findings: out.Findings}).Problems() > 0 {
		return out, nil
	}
	return out, r.records.putScope(ctx, in.Run.ID(), s.scope())
}

func cannotGo(err error) Finding {
	return Finding{Check: "reachability", Level: LevelProblem, Means: err.Error(),
		Do: "an unplanned failover needs the target, the link and the required discovery entry; bring back what does not answer, then start again"}
}

// assessment is a survey of a workload whose source may be lost.
type assessment struct {
	*survey
	out      *AssessResult
	mirrors  map[string]replication.Mirror // by the source's name
	bare     []string                      // topics that nobody mirrors
	sources  []replication.Topic           // as the source itself lists them; none when it does not
	onTarget []replication.Topic
	there    []replication.Group // groups on the target
	sampled  map[string][]string // topics that groups read when Watch last saw them
	evidence evidence
}

// look reads what everything else looks at. Only the source may be silent.
func (s *assessment) look(ctx context.Context, consuls Consuls) error {
	to := s.in.Route.To.Name
	match := s.in.Runbook.Topics.Match
	var toACLs, fromACLs []replication.ACL
	err := sideBySide(
		func() (err error) { s.status, err = s.r.link.Status(ctx); return wrap("read the link", err) },
		func() (err error) {
			s.mirrors, err = mirrored(ctx, s.r.link, match)
			return err
		},
		func() (err error) {
			s.entry, err = readEntry(ctx, consuls, requiredOf(s.in.Runbook.Discovery))
			return err
		},
		func() (err error) {
			s.onTarget, err = s.r.to.Topics(ctx, match)
			return wrap("list topics of "+to, err)
		},
		func() (err error) {
			s.there, err = s.r.to.Groups(ctx, s.in.Runbook.Groups.Match)
			return wrap("list groups of "+to, err)
		},
		func() (err error) { toACLs, err = s.r.to.ACLs(ctx); return wrap("read the ACLs of "+to, err) },
		func() error { fromACLs, _ = s.r.from.ACLs(ctx); return nil },
		func() error { s.readClosed(ctx); return nil },
		func() error { s.sources, _ = s.r.from.Topics(ctx, match); return nil },
		func() error { s.groups, _ = s.r.from.Groups(ctx, s.in.Runbook.Groups.Match); return nil },
	)
	if err != nil {
		return err
	}
	s.acls[to], s.acls[s.in.Route.From.Name] = s.willStand(toACLs), fromACLs
	sample, _, err := seen(ctx, s.r, s.in.Run.Runbook)
	if err != nil {
		return wrap("read the last sample", err)
	}
	s.resolve(sample)
	names := append(Scope{Topics: s.topics}.TopicNames(), s.bare...)
	err = sideBySide(
		func() (err error) { s.evidence, err = gather(ctx, s.r, s.in.Run.Runbook, names, unhurried); return err },
		func() error { s.out.To = reachOf(ctx, s.r.to, to, s.onTarget); return nil },
		func() error { s.out.From = reachOf(ctx, s.r.from, s.in.Route.From.Name, s.sources); return nil },
	)
	if sample != nil {
		s.out.Sampled, s.out.LastAnswer = sample.Seen, sample.LastAnswer
	}
	return err
}

// mirrored are the link's mirrors of the runbook's topics, by the source's names.
func mirrored(ctx context.Context, link replication.Link, match func(string) bool) (map[string]replication.Mirror, error) {
	list, err := link.Mirrors(ctx)
	if err != nil {
		return nil, wrap("read the mirrors", err)
	}
	by := map[string]replication.Mirror{}
	for _, m := range list {
		if match(m.SourceTopic) {
			by[m.SourceTopic] = m
		}
	}
	return by, nil
}

// resolve says which topics and groups the runbook means. A topic without a mirror cannot be failed over: it is named, and
// its loss is counted.
func (s *assessment) resolve(sample *Sample) {
	partitions := map[string]replication.Topic{}
	for _, t := range s.onTarget {
		partitions[t.Name] = t
	}
	for name, m := range s.mirrors {
		t, ok := partitions[name]
		if !ok {
			t = replication.Topic{Name: name, Partitions: m.Partitions}
		}
		t.Offline = nil
		s.topics = append(s.topics, t)
	}
	slices.SortFunc(s.topics, func(a, b replication.Topic) int { return compare(a.Name, b.Name) })
	known := slices.Clone(s.sources)
	names := map[string]bool{}
	for _, g := range append(slices.Clone(s.there), s.groups...) {
		names[g.Name] = true
	}
	if sample != nil {
		known = append(known, sample.Topics...)
		for _, g := range sample.Groups {
			names[g] = true
		}
		s.sampled = sample.Reads
	}
	for _, t := range known {
		if _, ok := s.mirrors[t.Name]; !ok && s.in.Runbook.Topics.Match(t.Name) && !slices.Contains(s.bare, t.Name) {
			s.bare = append(s.bare, t.Name)
		}
	}
	for _, c := range s.in.Runbook.Clients {
		for _, g := range c.Groups {
			names[g] = true
		}
	}
	alive := s.groups
	s.groups = nil
	for name := range names {
		if at := slices.IndexFunc(alive, func(g replication.Group) bool { return g.Name == name }); at >= 0 {
			s.groups = append(s.groups, alive[at])
		} else if s.in.Runbook.Groups.Match(name) {
			s.groups = append(s.groups, replication.Group{Name: name})
		}
	}
	slices.SortFunc(s.groups, func(a, b replication.Group) int { return compare(a.Name, b.Name) })
}

// scope is what the run will move. Groups of the runbook's own clients must be alive after the switch, whether or not
// anybody can say now that they were before.
func (s *assessment) scope() Scope {
	scope := Scope{Topics: s.topics, Groups: groupNames(s.groups), Alive: withMembers(s.groups), Reads: map[string][]string{}}
	maps.Copy(scope.Reads, s.sampled)
	maps.Copy(scope.Reads, reads(s.groups)) // who answers knows better
	for _, c := range s.in.Runbook.Clients {
		for _, g := range c.Groups {
			if c.Role != runbooks.RoleProducer && slices.Contains(scope.Groups, g) && !slices.Contains(scope.Alive, g) {
				scope.Alive = append(scope.Alive, g)
			}
		}
	}
	return scope
}

// seals says whether the link is held by ACLs.
func (s *assessment) seals() bool {
	return len(s.r.link.Denials(replication.DenyTopics, Scope{Topics: s.topics}.TopicNames())) > 0
}

// clients says what those would meet that tolerate no loss, or no duplicates.
func (s *assessment) clients(loss replication.Loss) (list []string) {
	to := s.in.Route.To.Name
	for _, c := range s.in.Runbook.Clients {
		produces, consumes := c.Role != runbooks.RoleConsumer, c.Role != runbooks.RoleProducer
		if !c.Tolerates.Loss && loss.AtMost != 0 {
			what := "it will never read what is lost"
			if produces {
				what = "what it wrote last may be among what is lost"
			}
			list = append(list, fmt.Sprintf("%s tolerates no loss: %s (%s)", c.Name, what, loss))
		}
		if c.Tolerates.Duplicates {
			continue
		}
		if produces {
			list = append(list, fmt.Sprintf("%s tolerates no duplicates: what it sends again, because nobody acknowledged it, may be on %s already", c.Name, to))
		}
		if consumes {
			list = append(list, fmt.Sprintf("%s tolerates no duplicates: its groups (%s) go on where they were last known on %s, and read again what they had read since", c.Name, strings.Join(c.Groups, ", "), to))
		}
	}
	return list
}

// leaderlessShown bounds what a Reach names.
const leaderlessShown = 20

// reachOf asks a cluster's brokers one by one, and looks for partitions that nobody leads.
func reachOf(ctx context.Context, on Kafka, site string, topics []replication.Topic) Reach {
	out := Reach{Site: site}
	if why, yes := gone(on); yes {
		out.Why = why.Error()
		return out
	}
	ctx, cancel := context.WithTimeout(ctx, 2*patience)
	defer cancel()
	var ends []replication.Ends
	var outcomes []replication.Outcome
	err := sideBySide(
		func() (err error) { // a question about one ACL that nobody has made: what counts is that there is an answer
			outcomes, err = on.ACLsOnEveryBroker(ctx, replication.TopicFence([]string{PositionsTopic}), false)
			return err
		},
		func() error { ends, _ = on.Ends(ctx, Scope{Topics: topics}.TopicNames()); return nil },
	)
	if err != nil {
		out.Why = err.Error()
		return out
	}
	for _, o := range outcomes {
		if o.Status == replication.Unclear {
			out.Silent = append(out.Silent, o.Name)
			continue
		}
		out.Brokers++
	}
	out.Answers = out.Brokers > 0
	for _, id := range down(topics) {
		out.Silent = append(out.Silent, fmt.Sprintf("broker %d, which is down", id))
	}
	for _, e := range ends {
		if e.HighWatermark == replication.Unknown && len(out.Leaderless) < leaderlessShown {
			out.Leaderless = append(out.Leaderless, e.Name())
		}
	}
	return out
}

// down are brokers that hold replicas of the topics and that their cluster has given up.
func down(topics []replication.Topic) (brokers []int32) {
	for _, t := range topics {
		brokers = append(brokers, t.Offline...)
	}
	slices.Sort(brokers)
	return slices.Compact(brokers)
}

// agoText says how long ago something was.
func agoText(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return fmt.Sprintf("%s ago, at %s", time.Since(t).Round(time.Second), t.UTC().Format(time.RFC3339))
}
