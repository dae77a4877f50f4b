package activities

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"switchback/replication"
)

// linkIsHealthy: the link as a whole, its way back, and who else is on it.
func linkIsHealthy(_ context.Context, s *survey) error {
	st := s.status
	if !st.Healthy {
		s.problem("link", fmt.Sprintf("link %s is not healthy: %s", st.Name, st.Reason), "mend the link first; a planned failover needs it")
	} else {
		s.ok("link", "link %s is active", st.Name)
	}
	for _, t := range st.Tasks {
		if t.Status == replication.Failed {
			s.warn("link tasks", fmt.Sprintf("task %s of link %s is in error: %s", t.Name, st.Name, t.Reason), "see to it: what the task syncs is stale")
		}
	}
	switch {
	case s.in.Route.Link.ClusterLinking == nil:
		s.ok("way back", "over connectors of their own, set to the marks of this run")
	case st.Direction != replication.Bidirectional:
		s.warn("way back", fmt.Sprintf("link %s is one-way: there is no way back by truncate-and-restore", st.Name), "failback will delete the old topics and mirror everything back; a bidirectional link avoids that")
	default:
		s.ok("way back", "link %s is bidirectional", st.Name)
	}
	names := Scope{Topics: s.topics}.TopicNames()
	others := slices.DeleteFunc(slices.Clone(st.Topics), func(t string) bool { return slices.Contains(names, t) })
	if len(others) > 0 {
		means := fmt.Sprintf("%d topics of other workloads are on link %s: %s; ACL sync is off for them too during the run", len(others), st.Name, firstFew(others))
		if st.Syncs.ACLs.Enabled {
			means += " and stays off while the fence stands"
		}
		s.warn("other workloads", means, "tell their owners; their offset sync and auto-create are not touched")
	}
	if st.RefreshWait > 0 {
		s.ok("refresh", "a topic, group or ACL made in the last %s may not have been noticed by the link yet", st.RefreshWait)
	}
	if st.Syncs.Topics.Enabled {
		s.ok("auto-create", "auto-create of mirrors is on and is held back for the runbook's topics during the run")
	}
	return nil
}

// mirrorsAreReady: every topic is mirrored, active, and as wide as its source.
func mirrorsAreReady(ctx context.Context, s *survey) error {
	if len(s.topics) == 0 {
		s.problem("topics", "no topic of "+s.in.Route.From.Name+" matches the runbook's patterns", "correct topics.include of the runbook")
		return nil
	}
	states, err := mirrorStates(ctx, s.r.link, Scope{Topics: s.topics}.TopicNames())
	if err != nil {
		return err
	}
	bad := 0
	for _, t := range s.topics {
		m := states[t.Name]
		switch {
		case m.State != replication.MirrorActive:
			bad++
			s.problem("mirrors", fmt.Sprintf("topic %s: its mirror is %s (%s %s)", t.Name, m.State, m.Raw, m.Reason), "mirror it, or exclude it from the runbook; its records would be lost")
		case m.Partitions != t.Partitions:
			bad++
			s.problem("mirrors", fmt.Sprintf("topic %s has %d partitions on %s and its mirror %d", t.Name, t.Partitions, s.in.Route.From.Name, m.Partitions), "wait until the link has noticed the new partitions")
		}
	}
	if bad == 0 {
		s.ok("mirrors", "%d topics are mirrored and active, with the same partitions", len(s.topics))
	}
	return nil
}

// groupsAreReady: the groups exist, are synced and fresh, and live on one cluster only (P25).
func groupsAreReady(ctx context.Context, s *survey) error {
	names := groupNames(s.groups)
	bad, err := s.aliveThere(ctx)
	if err != nil {
		return err
	}
	if len(names) == 0 && len(s.in.Runbook.Groups.Include) > 0 {
		s.warn("groups", "no consumer group of "+s.in.Route.From.Name+" matches the runbook's patterns", "fine if nobody consumes; else correct groups.include")
		return nil
	}
	var plain []string
	for _, g := range s.groups {
		if g.Opaque {
			bad++
			s.problem("groups", fmt.Sprintf("group %s is a %s group, whose state cannot be handed over", g.Name, g.Type), "exclude it from the runbook")
			continue
		}
		plain = append(plain, g.Name)
	}
	n, err := s.groupsFresh(ctx, plain)
	if err != nil {
		return err
	}
	bad += n
	if s.status.Syncs.Offsets.Enabled {
		for _, o := range s.r.link.Synced(s.status.Syncs, names) {
			if o.Status != replication.OK {
				bad++
				s.warn("groups", fmt.Sprintf("group %s is outside of the link's offset sync: %s", o.Name, o.Reason), "a planned run writes its offsets itself; after a disaster they would be missing")
			}
		}
	}
	if bad == 0 {
		s.ok("groups", "%d groups, none of them alive on %s", len(names), s.in.Route.To.Name)
	}
	return nil
}

// aliveThere finds groups of the runbook that have members on the target (P25).
func (s *survey) aliveThere(ctx context.Context) (bad int, err error) {
	there, err := alive(ctx, s.r.to, s.in.Route.To.Name, s.in.Runbook.Groups.Match)
	for _, group := range there {
		s.problem("groups", group, "a group is unique over both clusters: stop these members or rename the group")
	}
	return len(there), err
}

// alive are the groups of a site's cluster that have members, with the members.
func alive(ctx context.Context, on Kafka, site string, match func(group string) bool) (list []string, err error) {
	groups, err := on.Groups(ctx, match)
	for _, g := range groups {
		if len(g.Members) > 0 {
			list = append(list, fmt.Sprintf("group %s has members on %s: %s", g.Name, site, members(g.Members)))
		}
	}
	return list, wrap("list groups of "+site, err)
}

// groupsFresh compares the groups' commits on both clusters: those on the target come from the sync, and are behind or
// equal. Higher ones were made by somebody else.
func (s *survey) groupsFresh(ctx context.Context, groups []string) (bad int, err error) {
	to := make([]map[replication.Partition]int64, len(groups))
	err = each(groups, func(i int, group string) (err error) {
		to[i], err = s.r.to.Committed(ctx, group)
		return wrap("read offsets of group "+group, err)
	})
	if err != nil {
		return 0, err
	}
	from, expected, err := s.expected(ctx, groups)
	if err != nil {
		return 0, err
	}
	var again []string // the sync may have brought what was committed since the source was read
	for i, group := range groups {
		if without := s.withoutCommit(from[i]); without > 0 {
			s.warn("groups", fmt.Sprintf("group %s has no commit on %d partitions that hold records; it goes on there at the %s offset", group, without, s.in.Runbook.Groups.WithoutCommit),
				"set groups.withoutCommit in the runbook if that is not what the consumers expect")
		}
		if _, found := beyond(expected[i], to[i]); found {
			again = append(again, group)
		}
	}
	from, expected, err = s.expected(ctx, again)
	if err != nil {
		return 0, err
	}
	for i, group := range again { // those who are beyond even now are not synced
		held := to[slices.Index(groups, group)]
		p, found := beyond(expected[i], held)
		if !found {
			continue
		}
		bad++
		at := slices.IndexFunc(from[i], func(t replication.Translated) bool { return t.Partition == p })
		means := fmt.Sprintf("group %s has a commit %d for %s on %s, beyond %d, where %d on %s is there", group, held[p], p.Name(), s.in.Route.To.Name, expected[i][p], from[i][at].Source, s.in.Route.From.Name)
		if s.in.Route.Link.MirrorMaker != nil { // whose sync never moves a group back, so that this may be of older days (P29)
			s.warn("groups", means+"; offset sync never moves a group back, the run does, and says so",
				"a group is unique over both clusters: if nobody has set it back on "+s.in.Route.From.Name+", find out who uses that name there")
		} else {
			s.problem("groups", means+": no sync made it",
				"a group is unique over both clusters: find out who uses that name there; if the group was set back on the source, wait for one cycle of the offset sync")
		}
	}
	return bad, nil
}

// beyond finds a partition, the first by name, for which the target holds more than is expected.
func beyond(expected, held map[replication.Partition]int64) (first replication.Partition, found bool) {
	for p, at := range held {
		if mine, ok := expected[p]; ok && at > mine && (!found || p.Name() < first.Name()) {
			first, found = p, true
		}
	}
	return first, found
}

// withoutCommit counts the partitions that hold records and that a group has not committed.
func (s *survey) withoutCommit(read []replication.Translated) (count int) {
	holds := map[replication.Partition]bool{}
	for _, e := range s.ends[s.in.Route.From.Name] {
		holds[e.Partition] = e.HighWatermark != e.Start
	}
	for _, t := range read {
		if t.Source == replication.Unknown && holds[t.Partition] {
			count++
		}
	}
	return count
}

// expected is where the groups stand on the source, and where that lies on the target, all in one pass. What cannot be
// translated exactly is left out.
func (s *survey) expected(ctx context.Context, groups []string) (from [][]replication.Translated, at []map[replication.Partition]int64, err error) {
	if len(groups) == 0 {
		return nil, nil, nil
	}
	from, at = make([][]replication.Translated, len(groups)), make([]map[replication.Partition]int64, len(groups))
	stand, read := make([]replication.GroupOffsets, len(groups)), reads(s.groups)
	err = each(groups, func(i int, group string) error {
		committed, err := s.r.from.Committed(ctx, group)
		from[i] = replication.Committed(committed, s.ends[s.in.Route.From.Name], read[group]...)
		stand[i] = replication.GroupOffsets{Group: group, Offsets: from[i]}
		return wrap("read offsets of group "+group, err)
	})
	if err != nil {
		return nil, nil, err
	}
	there, err := s.r.link.Translate(ctx, stand)
	if err != nil {
		return nil, nil, wrap("translate the offsets of the groups", err)
	}
	for i, g := range there {
		at[i] = map[replication.Partition]int64{}
		for _, t := range g.Offsets {
			if t.Source != replication.Unknown && t.Target != replication.Unknown && t.Proof == replication.ProofExact {
				at[i][t.Partition] = t.Target
			}
		}
	}
	return from, at, nil
}

// The rate of the mirror is measured over sampleTime: shorter samples of a mirror that fetches in batches jump. One that
// seems to stand still is given sampleMost before that is believed.
const (
	sampleTime = 500 * time.Millisecond
	sampleMost = 3 * time.Second
)

// drainFits measures how far behind the target is and how fast it catches up, against the budget and the objectives:
// too much is a problem before anybody stops, not after.
func drainFits(ctx context.Context, s *survey) error {
	var firstFrom, firstTo, lastFrom, lastTo, lag int64
	look := func() (from, to, lag int64, err error) {
		names := Scope{Topics: s.topics}.TopicNames()
		var fromEnds, toEnds []replication.Ends
		err = sideBySide(
			func() (err error) { fromEnds, err = s.r.from.Ends(ctx, names); return err },
			func() (err error) { toEnds, err = s.r.to.Ends(ctx, names); return ignoreMissing(err) },
		)
		if err == nil {
			lag, err = mirrorLag(ctx, s.r.link, names, fromEnds, toEnds)
		}
		return total(fromEnds), total(toEnds), lag, wrap("measure the lag", err)
	}
	firstFrom, firstTo, _, err := look()
	if err != nil {
		return err
	}
	at := time.Now()
	for {
		select {
		case <-time.After(sampleTime):
		case <-ctx.Done():
			return ctx.Err()
		}
		if lastFrom, lastTo, lag, err = look(); err != nil {
			return err
		}
		if lag == 0 || lastTo > firstTo || time.Since(at) > sampleMost {
			break
		}
	}
	seconds := time.Since(at).Seconds()
	if slices.Contains([]int64{firstFrom, firstTo, lastFrom, lastTo, lag}, replication.Unknown) {
		s.problem("drain", "the lag is unknown: an end offset could not be read, or the link does not say how far it is", "mend that first: unknown is not zero")
		return nil
	}
	rate := float64(lastTo-firstTo) / seconds
	s.result.Lag = lag
	budget := s.in.Runbook.Budgets.Drain.D().Seconds()
	switch {
	case lag == 0:
		s.result.DrainSeconds = 0
	case rate > 0:
		s.result.DrainSeconds = float64(lag) / rate
	default:
		s.problem("drain", fmt.Sprintf("%d records are not mirrored yet and none came in %.1f s: no drain would end", lag, seconds), "mend the mirror first")
		return nil
	}
	text := fmt.Sprintf("%d records behind, mirrored at %.0f records/s (producers write %.0f): about %.1f s to drain", lag, rate, float64(lastFrom-firstFrom)/seconds, s.result.DrainSeconds)
	switch rto := s.in.Runbook.Objectives.RTO.D().Seconds(); {
	case s.result.DrainSeconds > budget:
		s.problem("drain", text+fmt.Sprintf(", the budget is %.0f s", budget), "wait until the mirror has caught up, or raise budgets.drain")
	case rto > 0 && s.result.DrainSeconds > rto/2:
		s.warn("drain", text+fmt.Sprintf(", more than half of the objective of %.0f s", rto), "wait until the mirror has caught up")
	default:
		s.ok("drain", "%s", text)
	}
	return nil
}

// total sums the high watermarks; Unknown if any is.
func total(ends []replication.Ends) int64 {
	var sum int64
	for _, e := range ends {
		if e.HighWatermark == replication.Unknown {
			return replication.Unknown
		}
		sum += e.HighWatermark
	}
	return sum
}

// discoveryIsReady: the keys are there, name the cluster that the run leaves, and the epoch can be read.
func discoveryIsReady(_ context.Context, s *survey) error {
	e := s.entry
	switch {
	case e.Epoch == replication.Unknown:
		s.problem("discovery", "the epoch of the required entry is missing or no number", "write the keys of the runbook's prefix first; docs/operate.md lists them")
	case e.Cluster != s.in.Route.From.Name:
		s.problem("discovery", fmt.Sprintf("discovery says that the workload is on %q, the run would leave from %s", e.Cluster, s.in.Route.From.Name), "start the run in the other direction, or correct discovery")
	default:
		s.ok("discovery", "the workload is on %s at epoch %d", e.Cluster, e.Epoch)
	}
	to := entryFor(SwitchInput{To: s.in.Route.To, Credentials: s.in.Runbook.Credentials})
	if pinned := e.pinned(to); len(pinned) > 0 {
		s.problem("discovery", "these keys have values of their own and would keep their client where it is: "+firstFew(pinned), "remove them, or set them to the shared value, so that the switch can change them")
	}
	return nil
}

// clientsAreAlive: every client can be stopped, and is running as the runbook says.
func clientsAreAlive(_ context.Context, s *survey) error {
	bad := 0
	for _, c := range s.in.Runbook.Clients {
		if c.Supervised == nil {
			bad++
			s.problem("clients", fmt.Sprintf("client %s is not supervised: Kubernetes and paged clients cannot be stopped by this version", c.Name), "run it under supervisor")
			continue
		}
		entry := s.entry.Clients[c.Name]
		running := 0
		var others []string
		for _, i := range entry.Instances {
			if i.State == "running" && i.Epoch == s.entry.Epoch {
				running++
			} else {
				others = append(others, fmt.Sprintf("%s is %s at epoch %d", i.ID, i.State, i.Epoch))
			}
		}
		switch {
		case running == c.Supervised.Instances && len(others) == 0:
			continue
		case running == 0 && entry.Desired != "stop":
			bad++
			s.problem("clients", fmt.Sprintf("client %s has no running instance that discovery knows of, the runbook expects %d", c.Name, c.Supervised.Instances), "an instance that discovery does not know cannot be stopped: start it under supervisor, or correct the runbook")
		default:
			bad++
			s.warn("clients", fmt.Sprintf("client %s: %d of %d instances run at epoch %d; %s", c.Name, running, c.Supervised.Instances, s.entry.Epoch, strings.Join(others, ", ")), "find out where the others are: one that is only cut off from discovery would go on writing")
		}
	}
	if bad == 0 {
		s.ok("clients", "%d clients are alive as the runbook says", len(s.in.Runbook.Clients))
	}
	return nil
}

// transactionsAreAccepted: transactions on Cluster Linking's mirrors are not supported by the vendor (P19).
func transactionsAreAccepted(ctx context.Context, s *survey) error {
	cl := s.in.Route.Link.ClusterLinking
	if cl == nil {
		return nil
	}
	var partitions []replication.Partition
	for _, e := range s.ends[s.in.Route.From.Name] {
		partitions = append(partitions, e.Partition)
	}
	writers, err := s.r.from.Writers(ctx, partitions)
	if err != nil {
		return wrap("look for transactional producers", err)
	}
	var ids []string
	for _, w := range writers {
		if w.TransactionalID != "" && !slices.Contains(ids, w.TransactionalID) {
			ids = append(ids, w.TransactionalID)
		}
	}
	switch {
	case len(ids) > 0 && !cl.AcceptTxns:
		s.problem("transactions", "transactional producers write to the topics, which Cluster Linking does not support on mirrors: "+firstFew(ids), "set acceptTransactions on the link in the runbook if the owners accept what that means")
	case len(ids) > 0:
		s.warn("transactions", "transactional producers write to the topics; the runbook accepts that mirrors do not support them: "+firstFew(ids), "")
	default:
		s.ok("transactions", "no transactional producer writes to the topics")
	}
	return nil
}
