package activities

import (
	"context"
	"fmt"

	"switchback/replication"
)

// checks are those of preflight that need no source, and what only an unplanned run has to know. What concerns the source,
// or costs something without forbidding anything, is a warning: the decision is a person's.
func (s *assessment) checks(clusters Clusters) []func(context.Context, *survey) error {
	bare := nobodyIsEverybody
	if !s.seals() { // no DENY is made on the target, so none can be the first ACL there
		bare = softened(bare)
	}
	return []func(context.Context, *survey) error{
		s.sourceAnswers, s.targetIsWhole, s.linkCanFailOver, s.positionsAreFresh, s.groupsLiveOnce,
		discoveryIsReady, credentialsWork(clusters), grantsAreThere, softened(strandedCanBeKept), nothingDenies, recordsWork, softened(positionsStayShort), clocksAgree, bare,
		softened(clientsAreAlive), softened(nobodyElseWrites), softened(adviceIsHeard), softened(sealHolds(clusters)), softened(standbyIsClosed),
	}
}

// softened turns a check's problems into warnings.
func softened(check func(context.Context, *survey) error) func(context.Context, *survey) error {
	return func(ctx context.Context, s *survey) error {
		if err := check(ctx, s); err != nil {
			s.warn("looking", err.Error(), "")
		}
		for i := range s.result.Findings {
			if s.result.Findings[i].Level == LevelProblem {
				s.result.Findings[i].Level = LevelWarning
			}
		}
		return nil
	}
}

// sourceAnswers says how much of the source is left. One that is whole is no reason for an unplanned failover.
func (s *assessment) sourceAnswers(_ context.Context, part *survey) error {
	from := s.out.From
	switch {
	case !from.Answers:
		part.warn("source", fmt.Sprintf("%s does not answer: %s", from.Site, from.Why), "whoever is cut off from us may still write there, until it is fenced")
	case len(from.Silent) > 0 || len(from.Leaderless) > 0:
		part.warn("source", fmt.Sprintf("%s answers in part: %d brokers do, these do not: %s; partitions without a leader: %s", from.Site, from.Brokers, firstFew(from.Silent), firstFew(from.Leaderless)),
			"what its live brokers take is stranded there, until it is fenced")
	default:
		part.warn("source", fmt.Sprintf("%s answers, with %d brokers", from.Site, from.Brokers), "a planned failover loses nothing: is this one needed?")
	}
	return nil
}

// targetIsWhole: nothing of the cluster that everybody is about to use may be in doubt.
func (s *assessment) targetIsWhole(_ context.Context, part *survey) error {
	to := s.out.To
	if !to.Answers || len(to.Leaderless) > 0 {
		part.problem("target", fmt.Sprintf("%s is not whole: %d brokers answer, partitions without a leader: %s %s", to.Site, to.Brokers, firstFew(to.Leaderless), to.Why), "bring its brokers back first")
		return nil
	}
	lost := down(s.onTarget)
	if silent := len(to.Silent) - len(lost); silent > 0 {
		part.problem("target", fmt.Sprintf("%d brokers of %s that it holds for live do not answer: %s", silent, to.Site, firstFew(to.Silent)), "bring them back, or wait until their cluster has given them up")
		return nil
	}
	if len(lost) > 0 {
		part.warn("target", fmt.Sprintf("brokers %v of %s are down; every partition has a leader without them", lost, to.Site), "one more that fails may cost partitions: bring them back")
		return nil
	}
	part.ok("target", "%s is whole: %d brokers answer and every partition has a leader", to.Site, to.Brokers)
	return nil
}

// linkCanFailOver looks at every mirror's state, and asks the link with validate_only where it can be asked.
func (s *assessment) linkCanFailOver(ctx context.Context, part *survey) error {
	if len(s.topics) == 0 {
		part.problem("topics", fmt.Sprintf("link %s mirrors no topic that matches the runbook's patterns", s.status.Name), "correct topics.include of the runbook, or name another link")
		return nil
	}
	if len(s.bare) > 0 {
		part.warn("mirrors", fmt.Sprintf("%d topics of the runbook are not mirrored, all of their records stay behind: %s", len(s.bare), firstFew(s.bare)), "make them on "+s.in.Route.To.Name+" for the clients that need them")
	}
	states := map[replication.MirrorState]int{}
	var open []string
	for _, t := range s.topics {
		m := s.mirrors[t.Name]
		states[m.State]++
		switch m.State {
		case replication.MirrorStopped, replication.MirrorStopping:
			continue
		case replication.MirrorFailed, replication.MirrorUnknown:
			part.warn("mirrors", fmt.Sprintf("the mirror of %s is %s (%s %s)", t.Name, m.State, m.Raw, m.Reason), "what it lacks is lost, and it may not become writable")
		}
		open = append(open, t.Name)
	}
	valid, err := s.r.link.ValidateStop(ctx, replication.Failover, open)
	if err != nil {
		part.warn("mirrors", "the link could not be asked whether it would fail over: "+err.Error(), "the failover itself will find out")
		return nil
	}
	refused := only(valid, replication.Failed)
	_, text := notOK(refused)
	switch {
	case len(refused) > 0 && len(refused) == len(open):
		part.problem("mirrors", "the link would fail over no topic: "+text, "see to the link: without it nothing is writable on "+s.in.Route.To.Name)
	case len(refused) > 0:
		part.warn("mirrors", fmt.Sprintf("the link would not fail over %d topics: %s", len(refused), text), "nobody can write to them on "+s.in.Route.To.Name+" after the switch")
	default:
		part.ok("mirrors", "%d mirrors can be failed over (%s)", len(open), counted(states))
	}
	return nil
}

func counted(states map[replication.MirrorState]int) string {
	text := ""
	for _, state := range []replication.MirrorState{replication.MirrorActive, replication.MirrorPaused, replication.MirrorStarting, replication.MirrorSourceLost,
		replication.MirrorStopping, replication.MirrorStopped, replication.MirrorFailed, replication.MirrorUnknown} {
		if n := states[state]; n > 0 {
			if text != "" {
				text += ", "
			}
			text += fmt.Sprintf("%d %s", n, state)
		}
	}
	return text
}

// positionsAreFresh says from when the numbers are.
func (s *assessment) positionsAreFresh(_ context.Context, part *survey) error {
	if s.evidence.sample == nil {
		part.warn("positions", "nobody has ever seen both ends of the mirrors: what is lost cannot be bounded", "start the watch of this runbook while both clusters answer")
		return nil
	}
	part.ok("positions", "both ends were last seen %s; the source answered last %s", agoText(s.out.Sampled), agoText(s.out.LastAnswer))
	return nil
}

// groupsLiveOnce: a group that has members on the target would not be moved under them (P25).
func (s *assessment) groupsLiveOnce(ctx context.Context, part *survey) error {
	bad, err := part.aliveThere(ctx)
	if err == nil && bad == 0 {
		part.ok("groups", "%d groups, none of them alive on %s", len(s.groups), s.in.Route.To.Name)
	}
	return err
}
