package activities

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"switchback/internal/fault"
	"switchback/internal/killpoint"
	"switchback/replication"
	"switchback/runbooks"
)

// PlanRecoveryInput says which topics and groups the runbook means, and what is to happen to each topic.
type PlanRecoveryInput struct {
	RecoveryInput
	Topics   runbooks.Patterns `json:"topics"`
	Groups   runbooks.Groups   `json:"groups"`
	Recovery runbooks.Recovery `json:"recovery"`
	DryRun   bool              `json:"dryRun,omitempty"` // nothing is written anywhere
}

// RecoveryPlan is what a recovery would do. It never holds a value.
type RecoveryPlan struct {
	Tail       string                    `json:"tail"`   // the mark set: <id of the old cluster>/<run that kept it>
	Epoch      int64                     `json:"epoch"`  // of the switch that it belongs to
	Marked     time.Time                 `json:"marked"` // when the mirrors stopped
	Shards     int                       `json:"shards"`
	Partitions int                       `json:"partitions"` // that have something stranded
	Topics     []StrandedTopic           `json:"topics,omitempty"`
	Worst      []replication.Stranded    `json:"worst,omitempty"` // partitions, at most strandedShown, the longest first
	Total      StrandedTopic             `json:"total"`
	Read       []replication.ReadAlready `json:"read,omitempty"`       // who would read twice what is appended (P32)
	Mismatched []replication.Outcome     `json:"mismatched,omitempty"` // partitions whose boundary is not what the mark says (P18)
	Findings   []Finding                 `json:"findings,omitempty"`   // a problem forbids the recovery
	Finished   bool                      `json:"finished,omitempty"`   // an earlier one has accounted for everything
	Older      []OlderTail               `json:"older,omitempty"`      // what earlier switches stranded and nobody has accounted for
	Text       string                    `json:"text"`
}

// StrandedTopic counts the tails of one topic. Its Tally is what would become of them; Recovered is what would be copied.
type StrandedTopic struct {
	Topic      string                `json:"topic"`
	Treatment  replication.Treatment `json:"treatment,omitempty"`
	Into       string                `json:"into,omitempty"`
	Partitions int                   `json:"partitions"`
	Offsets    int64                 `json:"offsets"`
	replication.Tally
	Bytes int64     `json:"bytes"`
	First time.Time `json:"first,omitzero"`
	Last  time.Time `json:"last,omitzero"`
	Done  int64     `json:"done"` // offsets that an earlier recovery has handled
	Gone  []string  `json:"gone,omitempty"`
}

// What of a plan fits a history.
const (
	strandedShown = 60
	topicsShown   = 100
)

// PlanRecovery finds the newest marks of the old cluster whose switch led to where the workload is, proves that the old
// cluster is fenced on every broker and quiet (P6, P7), checks the boundary of each partition by comparing records (P18),
// and counts what is stranded beyond. It stores the tails, and with the first one the number of shards (P30).
func (a *Recovery) PlanRecovery(ctx context.Context, in PlanRecoveryInput) (out RecoveryPlan, err error) {
	ctx, _ = begin(ctx)
	r, err := a.begun(ctx, in.RecoveryInput)
	if err != nil {
		return out, err
	}
	defer r.close()
	p := &recoveryPlan{recovering: r, in: in, out: &out}
	if err := p.find(ctx); err != nil || out.Finished || p.refused() {
		return out, err
	}
	if err := p.fencedAndQuiet(ctx); err != nil || p.refused() {
		return out, err
	}
	if err := p.look(ctx); err != nil {
		return out, err
	}
	p.boundaries(ctx)
	if err := p.tails(ctx); err != nil {
		return out, err
	}
	if err := p.readAlready(ctx); err != nil {
		return out, err
	}
	p.sum()
	if in.DryRun || p.refused() {
		return out, nil
	}
	killpoint.Reach("PlanRecovery/middle")
	return out, p.keep(ctx)
}

// recoveryPlan is a plan in the making.
type recoveryPlan struct {
	*recovering
	in         PlanRecoveryInput
	out        *RecoveryPlan
	marks      markSet
	from, to   replication.Identity
	here       map[string]replication.Topic // on the old cluster
	there      map[string]replication.Topic // on the new one, by the old one's names
	configs    map[string]map[string]string // of the new one's topics, by the old one's names
	ends       map[replication.Partition]replication.Ends
	present    map[replication.Partition]replication.Ends // of the new cluster, by the old one's names
	mismatched map[replication.Partition]string
	anew       map[string]string // topics that are others on one of the clusters than when they were marked, and why
	done       map[replication.Partition]replication.Recovered
	list       []replication.Stranded
}

func (p *recoveryPlan) add(check, level, means, do string) {
	p.out.Findings = append(p.out.Findings, Finding{Check: check, Level: level, Means: means, Do: do})
}

func (p *recoveryPlan) refused() bool {
	return PreflightResult{Findings: p.out.Findings}.Problems() > 0
}

// find picks the mark set.
func (p *recoveryPlan) find(ctx context.Context) error {
	from, to := p.in.Route.From.Name, p.in.Route.To.Name
	err := sideBySide(
		func() (err error) {
			p.from, err = p.route.from.Identity(ctx)
			return wrap("read the identity of "+from, err)
		},
		func() (err error) { p.to, err = p.route.to.Identity(ctx); return wrap("read the identity of "+to, err) },
	)
	if err != nil {
		return err
	}
	sets, err := markSets(ctx, p.records.to, p.from.ClusterID, p.to.ClusterID, p.in.Topics.Match)
	if err != nil {
		return err
	}
	if err := p.older(ctx, sets); err != nil {
		return err
	}
	if len(sets) == 0 {
		if why, err := p.elsewhere(ctx); err != nil || why != "" {
			p.add("marks", LevelProblem, why+": what was stranded is not on it, and no recovery can bring it back from here", "bring back the cluster that had it, if anybody can; a failback takes the consent to its loss by name")
			return err
		}
		p.add("marks", LevelProblem, fmt.Sprintf("%s keeps no marks of a switch from %s (cluster id %s) to it, so nobody knows what %s lacks", to, from, p.from.ClusterID, to),
			"name the cluster that the workload left with --from; where a run skipped keep-marks, compare both clusters by hand")
		return nil
	}
	p.marks = sets[0]
	p.out.Tail, p.out.Epoch, p.out.Marked = p.from.ClusterID+"/"+p.marks.Run, p.marks.Epoch, p.marks.Seen
	var done keptDone
	switch err := p.records.get(ctx, recoveredKey(p.out.Tail), &done); {
	case err == nil && done.Gave != "":
		p.out.Finished = true
		p.out.Text = fmt.Sprintf("what the switch at epoch %d stranded on %s was given up by run %s at %s: %s", p.marks.Epoch, from, done.Run, done.At.Format(time.RFC3339), done.Gave)
	case err == nil:
		p.out.Finished = true
		p.out.Text = fmt.Sprintf("everything that the switch at epoch %d stranded on %s was accounted for by run %s at %s", p.marks.Epoch, from, done.Run, done.At.Format(time.RFC3339))
	case !errors.Is(err, fault.ErrNotFound):
		return err
	}
	return nil
}

// elsewhere says that another cluster answers under the name of the one that was left; empty where it does not.
func (p *recoveryPlan) elsewhere(ctx context.Context) (string, error) {
	from := p.in.Route.From.Name
	sets, err := markSetsWhere(ctx, p.records.to, func(m replication.Mark) bool {
		return m.From == from && m.TargetCluster == p.to.ClusterID && p.in.Topics.Match(m.Topic)
	})
	if err != nil || len(sets) == 0 {
		return "", err
	}
	return otherCluster(from, sets[0].Marks[0], p.from.ClusterID), nil
}

// fencedAndQuiet: nobody can write to the old cluster while it is read, and nobody does (P6, P7, P31).
func (p *recoveryPlan) fencedAndQuiet(ctx context.Context) error {
	site := p.in.Route.From.Name
	there, err := p.route.from.Topics(ctx, p.in.Topics.Match)
	if err != nil {
		return wrap("list topics of "+site, err)
	}
	p.here = map[string]replication.Topic{}
	for _, t := range there {
		p.here[t.Name] = t
	}
	names := Scope{Topics: there}.TopicNames()
	if len(names) == 0 {
		p.add("topics", LevelProblem, fmt.Sprintf("%s has none of the runbook's topics: it is empty and new, or they were deleted, and what was stranded there is gone", site), "keep what the report of the failover says as the final loss")
		return nil
	}
	outcomes, err := p.route.from.ACLsOnEveryBroker(ctx, replication.TopicFence(names), true)
	if err != nil {
		return wrap("read the fence of "+site+" back", err)
	}
	if _, text := notOK(outcomes); text != "" || len(outcomes) == 0 {
		p.add("fence", LevelProblem, fmt.Sprintf("%s is not fenced on every broker, so somebody may still write there while it is read: %s", site, text),
			"wait until the run's fence workflow has fenced it (`switchback status RUNBOOK` says for what it waits), then start again")
		return nil
	}
	p.add("fence", LevelOK, fmt.Sprintf("WRITE is denied on %d topics of %s, as each broker says itself", len(names), site), "")
	return p.quiet(ctx, names)
}

// quiet reads the ends twice. Transactions that fenced clients left open are ended first, except in a dry run (P9).
func (p *recoveryPlan) quiet(ctx context.Context, names []string) error {
	var last []replication.Ends
	logs := &Logs{}
	text := ""
	err := until(ctx, time.Now().Add(quietTime), lookEvery, func(ctx context.Context) (bool, string, error) {
		now, err := p.route.from.Ends(ctx, names)
		if _, some := errors.AsType[*replication.Partial](err); err != nil && !some {
			return false, "", err
		}
		before := last
		if last = now; before == nil {
			return false, "a second look", nil
		}
		var unsettled []replication.Outcome
		for _, o := range replication.Quiescent(before, now).Not {
			if o.Status == replication.Pending { // what cannot be read is said partition by partition
				unsettled = append(unsettled, o)
			}
		}
		if len(unsettled) == 0 {
			return true, "", nil
		}
		if _, text = notOK(unsettled); !p.in.DryRun {
			if ctx, err = p.again(ctx); err == nil {
				_, err = logs.endTransactions(ctx, p.route.from, open(now))
			}
		}
		return false, text, err
	})
	switch {
	case err != nil && text != "":
		p.add("quiet", LevelProblem, fmt.Sprintf("%s is not quiet behind its fence: %s", p.in.Route.From.Name, text),
			"a super user writes there, or a transaction is open: stop who does, or end it, then start again")
	case err != nil:
		return wrap("read the ends of "+p.in.Route.From.Name, err)
	}
	p.ends = map[replication.Partition]replication.Ends{}
	for _, e := range last {
		p.ends[e.Partition] = e
	}
	return nil
}

// look reads what the new cluster has, and how far earlier recoveries of the same marks came.
func (p *recoveryPlan) look(ctx context.Context) error {
	site := p.in.Route.To.Name
	var topics []replication.Topic
	err := sideBySide(
		func() (err error) {
			topics, err = p.route.to.Topics(ctx, p.in.Topics.Match)
			return wrap("list topics of "+site, err)
		},
		func() (err error) { p.done, err = p.progress(ctx, p.out.Tail); return err },
	)
	if err != nil {
		return err
	}
	p.there = map[string]replication.Topic{}
	for _, t := range topics {
		p.there[t.Name] = t
	}
	p.anew = map[string]string{}
	for _, m := range p.marks.Marks {
		if why := cmp.Or(madeAnew(p.in.Route.From.Name, m.SourceTopic, p.here[m.Topic].ID), madeAnew(site, m.TargetTopic, p.there[m.Topic].ID)); why != "" {
			p.anew[m.Topic] = why
		}
	}
	names := Scope{Topics: topics}.TopicNames()
	ends, err := p.route.to.Ends(ctx, names)
	if _, some := errors.AsType[*replication.Partial](err); err != nil && !some {
		return wrap("read the ends of "+site, err)
	}
	p.present = map[replication.Partition]replication.Ends{}
	for _, e := range ends {
		p.present[e.Partition] = e
	}
	p.configs, err = p.route.to.TopicConfigs(ctx, names)
	return wrap("read the settings of the topics of "+site, err)
}

// keep stores the tails under the run, and the plan that names it. The number of shards is the first plan's (P30).
func (p *recoveryPlan) keep(ctx context.Context) error {
	if err := putList(ctx, p.records, tailsKey(p.out.Tail, p.guard.Run.ID()), p.list); err != nil {
		return err
	}
	return p.records.put(ctx, map[string]any{recoveryKey(p.out.Tail): keptPlan{Shards: p.out.Shards, Run: p.guard.Run.ID(), At: time.Now().UTC()}})
}

// shards are those of the first plan for these marks, or as many as suit.
func (p *recoveryPlan) shards(ctx context.Context) (int, error) {
	var kept keptPlan
	err := p.records.get(ctx, recoveryKey(p.out.Tail), &kept)
	if err == nil && kept.Shards > 0 {
		return kept.Shards, nil
	}
	copied := 0
	for _, s := range p.list {
		if s.Gone == "" && s.Treatment.Copies() {
			copied++
		}
	}
	return shardsFor(copied, len(p.to.Brokers)), ignoreMissing(err)
}

// readAlready counts what groups have read on the old cluster beyond the marks: they read it again where it is appended (P32).
func (p *recoveryPlan) readAlready(ctx context.Context) error {
	site := p.in.Route.From.Name
	groups, err := p.route.from.Groups(ctx, p.in.Groups.Match)
	if err != nil {
		return wrap("list groups of "+site, err)
	}
	names := groupNames(groups)
	read := make([]map[replication.Partition]int64, len(names))
	err = each(names, func(i int, group string) (err error) {
		read[i], err = p.route.from.Committed(ctx, group)
		return wrap("read the offsets of group "+group+" on "+site, err)
	})
	if err != nil {
		return err
	}
	for i, group := range names {
		twice := map[string]int64{}
		for _, s := range p.list {
			if at, ok := read[i][s.Partition]; ok && at > s.From && s.Gone == "" && s.Treatment == replication.TreatAppend {
				twice[s.Topic] += min(at, s.To) - s.From
			}
		}
		for topic, n := range twice {
			p.out.Read = append(p.out.Read, replication.ReadAlready{Group: group, Topic: topic, Records: n})
		}
	}
	slices.SortFunc(p.out.Read, func(a, b replication.ReadAlready) int { return cmp.Compare(b.Records, a.Records) })
	for i, t := range p.out.Read {
		if i == 10 {
			p.add("read already", LevelWarning, fmt.Sprintf("%d more pairs of group and topic have read stranded records", len(p.out.Read)-i), "")
			break
		}
		p.add("read already", LevelWarning, fmt.Sprintf("group %s has read %d of the stranded offsets of %s on %s already, and reads their copies again where they are appended", t.Group, t.Records, t.Topic, site),
			"approve that, or give the topic the treatment divert")
	}
	p.out.Read = p.out.Read[:min(len(p.out.Read), strandedShown)]
	return nil
}
