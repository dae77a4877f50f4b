package activities

import (
	"context"
	"fmt"
	"slices"

	"switchback/internal/killpoint"
	"switchback/replication"
	"switchback/runbooks"
)

// Preflight checks whether a run could go now. Its checks are in the files preflight_*.go, one function each; all of
// them look at the same survey, made once.
type Preflight struct {
	Outside
}

// Levels of a finding.
const (
	LevelOK      = "ok"
	LevelWarning = "warning"
	LevelProblem = "problem"
)

// Finding is the result of one check: what was found, what it means, what to do.
type Finding struct {
	Check string `json:"check"`
	Level string `json:"level"`
	Means string `json:"means"`
	Do    string `json:"do,omitempty"`
}

// PreflightInput is the whole runbook and the way to go. With DryRun nothing is written anywhere.
type PreflightInput struct {
	Run     Run              `json:"run"`
	Runbook runbooks.Runbook `json:"runbook"`
	Route   Route            `json:"route"`
	Epoch   int64            `json:"epoch"` // what discovery held when the run acquired
	DryRun  bool             `json:"dryRun,omitempty"`
}

// PreflightResult says whether to go. The resolved topics and groups are stored as the run's scope on both clusters.
type PreflightResult struct {
	Findings     []Finding `json:"findings"`
	Topics       int       `json:"topics"`
	Partitions   int       `json:"partitions"`
	Groups       int       `json:"groups"`
	Lag          int64     `json:"lag"`                  // records behind now, replication.Unknown if unknown
	DrainSeconds float64   `json:"drainSeconds"`         // at the measured rate; negative if unknown
	LinkName     string    `json:"linkName"`             // for the link's lock
	StopIsFinal  bool      `json:"stopIsFinal"`          // promote, not the switch, is the point of no return (P15)
	SealProven   bool      `json:"sealProven,omitempty"` // the mirror's principals were seen to obey ACLs (P10)
	QuietSeconds float64   `json:"quietSeconds"`         // how long suspend-syncs will wait for cycles to pass
}

// Problems counts the findings that forbid a run.
func (r PreflightResult) Problems() int {
	n := 0
	for _, f := range r.Findings {
		if f.Level == LevelProblem {
			n++
		}
	}
	return n
}

// survey is what the checks look at: read once, side by side.
type survey struct {
	in     PreflightInput
	r      *route
	topics []replication.Topic // of the runbook, on the source
	groups []replication.Group // of the runbook, on the source
	status replication.LinkStatus
	ends   map[string][]replication.Ends // by site name
	acls   map[string][]replication.ACL  // by site name, without those that close the standby
	closed []replication.ACL             // that close it for the runbook's clients (P11)
	entry  EntryState
	result *PreflightResult
}

// Check runs every check side by side. It fails only when it could not do its work; what is wrong is a finding.
func (a *Preflight) Check(ctx context.Context, in PreflightInput) (out PreflightResult, err error) {
	ctx, _ = begin(ctx)
	out.Lag, out.DrainSeconds = replication.Unknown, -1
	r, err := a.open(ctx, in.Route)
	if err != nil {
		return PreflightResult{Findings: []Finding{unreachable(err)}}, nil
	}
	defer r.close()
	s := &survey{in: in, r: r, result: &out, ends: map[string][]replication.Ends{}, acls: map[string][]replication.ACL{}}
	if err := a.look(ctx, s); err != nil {
		return PreflightResult{Findings: []Finding{unreachable(err)}}, nil
	}
	killpoint.Reach("Check/middle")
	checks := []func(context.Context, *survey) error{
		clustersAnswer, linkIsHealthy, mirrorsAreReady, configsFit, groupsAreReady, nothingDenies, credentialsWork(a.Clusters),
		grantsAreThere, strandedCanBeKept, targetOnlyACLs, nobodyIsEverybody, drainFits, discoveryIsReady, clientsAreAlive, transactionsAreAccepted,
		recordsWork, positionsStayShort, clocksAgree, nobodyElseWrites, adviceIsHeard, sealHolds(a.Clusters), standbyIsClosed,
	}
	s.all(ctx, checks)
	out.Topics, out.Groups, out.LinkName = len(s.topics), len(s.groups), s.status.Name
	for _, t := range s.topics {
		out.Partitions += t.Partitions
	}
	out.StopIsFinal, out.QuietSeconds = r.link.StopIsFinal(), quietAfter(r.link, s.status.Syncs).Seconds()
	out.Findings = shorten(out.Findings)
	if in.DryRun || out.Problems() > 0 { // a run with problems does not go on
		return out, nil
	}
	return out, r.records.putScope(ctx, in.Run.ID(), Scope{Topics: s.topics, Groups: groupNames(s.groups), Alive: withMembers(s.groups), Reads: reads(s.groups)})
}

// all runs checks side by side, each on a survey of its own, and gathers what they find in the result.
func (s *survey) all(ctx context.Context, checks []func(context.Context, *survey) error) {
	parts := make([]PreflightResult, len(checks))
	jobs := make([]func() error, len(checks))
	for i, check := range checks {
		jobs[i] = func() error {
			part := &survey{in: s.in, r: s.r, topics: s.topics, groups: s.groups, status: s.status, ends: s.ends, acls: s.acls, closed: s.closed, entry: s.entry, result: &PreflightResult{Lag: replication.Unknown, DrainSeconds: -1}}
			if err := check(ctx, part); err != nil {
				part.problem("looking", err.Error(), "see to it that this can be looked at, then start again")
			}
			parts[i] = *part.result
			return nil
		}
	}
	_ = sideBySide(jobs...) // a check's error is a finding
	for _, part := range parts {
		s.result.Findings = append(s.result.Findings, part.Findings...)
		s.result.SealProven = s.result.SealProven || part.SealProven
		if part.DrainSeconds >= 0 {
			s.result.Lag, s.result.DrainSeconds = part.Lag, part.DrainSeconds
		}
	}
}

// side is one cluster of a survey.
type side struct {
	site string
	k    Kafka
}

// sides are the clusters that must be fit: both, or the target alone where the source may be lost.
func (s *survey) sides() []side {
	to := side{s.in.Route.To.Name, s.r.to}
	if s.in.Route.SourceLost {
		return []side{to}
	}
	return []side{{s.in.Route.From.Name, s.r.from}, to}
}

// sites are their names.
func (s *survey) sites() []string {
	if s.in.Route.SourceLost {
		return []string{s.in.Route.To.Name}
	}
	return []string{s.in.Route.From.Name, s.in.Route.To.Name}
}

// where names them in a sentence.
func (s *survey) where() string {
	if s.in.Route.SourceLost {
		return s.in.Route.To.Name
	}
	return "both clusters"
}

// look reads what the checks need, side by side.
func (a *Preflight) look(ctx context.Context, s *survey) error {
	if err := sideBySide(
		func() (err error) {
			s.topics, err = s.r.from.Topics(ctx, s.in.Runbook.Topics.Match)
			return wrap("list topics of "+s.in.Route.From.Name, err)
		},
		func() (err error) {
			s.groups, err = s.r.from.Groups(ctx, s.in.Runbook.Groups.Match)
			return wrap("list groups of "+s.in.Route.From.Name, err)
		},
		func() (err error) { s.status, err = s.r.link.Status(ctx); return wrap("read the link", err) },
		func() (err error) {
			s.entry, err = readEntry(ctx, a.Consuls, requiredOf(s.in.Runbook.Discovery))
			return err
		},
	); err != nil {
		return err
	}
	slices.SortFunc(s.topics, func(a, b replication.Topic) int { return compare(a.Name, b.Name) })
	names := Scope{Topics: s.topics}.TopicNames()
	var fromEnds, toEnds []replication.Ends
	var fromACLs, toACLs []replication.ACL
	err := sideBySide(
		func() (err error) {
			fromEnds, err = s.r.from.Ends(ctx, names)
			return wrap("read the ends of the source", err)
		},
		func() (err error) {
			toEnds, err = s.r.to.Ends(ctx, names)
			return wrap("read the ends of the target", ignoreMissing(err))
		},
		func() (err error) {
			fromACLs, err = s.r.from.ACLs(ctx)
			return wrap("read the ACLs of the source", err)
		},
		func() (err error) { toACLs, err = s.r.to.ACLs(ctx); return wrap("read the ACLs of the target", err) },
		func() error { s.readClosed(ctx); return nil },
	)
	from, to := s.in.Route.From.Name, s.in.Route.To.Name
	s.ends[from], s.ends[to], s.acls[from], s.acls[to] = fromEnds, toEnds, fromACLs, s.willStand(toACLs)
	return err
}

func (s *survey) add(check, level, means, do string) {
	s.result.Findings = append(s.result.Findings, Finding{Check: check, Level: level, Means: means, Do: do})
}
func (s *survey) ok(check, format string, args ...any) {
	s.add(check, LevelOK, fmt.Sprintf(format, args...), "")
}
func (s *survey) warn(check, means, do string)    { s.add(check, LevelWarning, means, do) }
func (s *survey) problem(check, means, do string) { s.add(check, LevelProblem, means, do) }

func unreachable(err error) Finding {
	return Finding{Check: "reachability", Level: LevelProblem, Means: err.Error(),
		Do: "a planned failover needs both clusters, the link and discovery; if the source is gone this is an unplanned one"}
}

func groupNames(groups []replication.Group) []string {
	names := make([]string, len(groups))
	for i, g := range groups {
		names[i] = g.Name
	}
	slices.Sort(names)
	return names
}

// reads are the topics that the members of each group subscribe to, for groups that have members.
func reads(groups []replication.Group) map[string][]string {
	all := map[string][]string{}
	for _, g := range groups {
		var topics []string
		for _, m := range g.Members {
			topics = append(topics, m.Topics...)
		}
		if len(topics) > 0 {
			slices.Sort(topics)
			all[g.Name] = slices.Compact(topics)
		}
	}
	return all
}

func withMembers(groups []replication.Group) []string {
	return groupNames(slices.DeleteFunc(slices.Clone(groups), func(g replication.Group) bool { return len(g.Members) == 0 }))
}

// maxFindings keeps the result far below what a history may carry; problems come first.
const maxFindings = 150

func shorten(findings []Finding) []Finding {
	rank := map[string]int{LevelProblem: 0, LevelWarning: 1, LevelOK: 2}
	slices.SortStableFunc(findings, func(a, b Finding) int { return rank[a.Level] - rank[b.Level] })
	if len(findings) <= maxFindings {
		return findings
	}
	left := len(findings) - maxFindings
	last := findings[maxFindings].Level // what is left out is at most as bad as this
	return append(findings[:maxFindings], Finding{Check: "more", Level: last, Means: fmt.Sprintf("and %d more findings like these", left)})
}
