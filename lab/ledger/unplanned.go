package ledger

import (
	"maps"
	"regexp"
	"slices"
	"strconv"
	"time"

	"switchback/report"
)

// Disaster is what stands after an unplanned run, once the old cluster is back.
type Disaster struct {
	Logs   map[string]ClusterLog // of both clusters
	Closed *report.Loss          // by the fence that the run left behind; nil where it left none, none has closed it yet, or nobody remembers it
}

// Aftermath is how much of a verdict an unplanned run has stated, and so is allowed. All counts are records.
type Aftermath struct {
	Stranded   int    `json:"stranded"`   // in the old cluster's log, and not mirrored before the mirror stopped
	Lost       int    `json:"lost"`       // of them acknowledged and nowhere on the new cluster: these alone may be lost
	ReadAgain  int    `json:"readAgain"`  // of those read twice: from the offset on that the report says its group was handed
	Unread     int    `json:"unread"`     // of those never read: lost ones
	Repeated   int    `json:"repeated"`   // of those duplicated: mirrored without an acknowledgement, so that their producer sent them again
	AtLeast    int64  `json:"atLeast"`    // lost, by the report
	AtMost     *int64 `json:"atMost"`     // null: the report leaves it open
	ClosedAt   *int64 `json:"closedAt"`   // lost, by the fence, or by the report that it closed; null: the run itself had closed the number
	Unexplored string `json:"unexplored"` // why nothing of this could be counted; empty where it was

	DecisionToFirstAckSeconds *float64 `json:"decisionToFirstAckSeconds"` // last approval to the first acknowledgement on the new cluster
}

// AgainstUnplanned compares the verdict's ledger with the report of an unplanned run, which lies at path, and with what
// stood after it. What the report states is set apart in Aftermath: everything else is a defect, as it always is.
func (v Verdict) AgainstUnplanned(l *Ledger, r report.Report, path string, d Disaster) Verdict {
	a := aftermath{comparison: comparison{of: l, r: r, renumbered: renumbered(l, r), unplanned: true}, d: d}
	v.Report, v.Aftermath = path, &a.out
	a.outcome()
	used := a.epochs()
	switch {
	case r.Outcome != report.Completed || r.Epoch.Before == nil || r.Epoch.After == nil:
		a.out.Unexplored = "the run was " + r.Outcome
	case !used:
		a.out.Unexplored = "no client worked at the epochs that the report gives"
	default:
		a.explore()
		a.states(v)
		a.marks()
		a.handed()
		a.windows()
		a.out.DecisionToFirstAckSeconds = a.decided()
	}
	v.Disagreements = a.says
	v.Agrees = len(v.Disagreements) == 0
	return v
}

// aftermath is one comparison with an unplanned run.
type aftermath struct {
	comparison
	d   Disaster
	out Aftermath

	mirrored map[id]bool // in the new cluster's log below the ends at which the mirrors stopped
	later    map[id]bool // acknowledged by the new cluster
	lost     map[id]bool // of them: acknowledged, and nowhere on the new cluster
	byTopic  map[string]int64
}

// explore finds what is stranded. A record that is not mirrored although a later one of its partition is was not lost with
// its cluster, and no loss covers it.
func (a *aftermath) explore() {
	a.mirrored, a.later, a.lost, a.byTopic = map[id]bool{}, map[id]bool{}, map[id]bool{}, map[string]int64{}
	ends := map[topicPartition]int64{}
	for _, p := range a.r.Positions {
		if p.TargetEnd != nil {
			ends[topicPartition{p.Topic, p.Partition}] = *p.TargetEnd
		}
	}
	if len(ends) == 0 {
		a.disagree("the report gives no position, so nothing says what was mirrored")
	}
	for i := range a.of.Acked {
		if c := &a.of.Acked[i]; a.new(c.Cluster, c.Epoch) {
			a.later[id{c.Topic, c.Key, c.Seq}] = true
		}
	}
	copies := map[id]int{}
	for _, r := range a.d.Logs[a.r.To].Records {
		it := id{r.Topic, r.Key, r.Seq}
		copies[it]++
		if r.Offset < ends[topicPartition{r.Topic, r.Partition}] {
			a.mirrored[it] = true
		}
	}
	acked := map[id]bool{}
	for i := range a.of.Acked {
		if c := &a.of.Acked[i]; c.Cluster == a.r.From {
			acked[id{c.Topic, c.Key, c.Seq}] = true
		}
	}
	behind := map[topicPartition]LogRecord{} // the first stranded record of each partition
	for _, r := range a.d.Logs[a.r.From].Records {
		it, p := id{r.Topic, r.Key, r.Seq}, topicPartition{r.Topic, r.Partition}
		first, some := behind[p]
		switch {
		case a.mirrored[it] && some:
			a.disagree("%s lacks offset %d of %s, which %s has, although it has what came after that, offset %d: a mirrored record is lost", a.r.To, first.Offset, p, a.r.From, r.Offset)
			delete(behind, p) // said once for each gap
		case a.mirrored[it]:
		default:
			if !some {
				behind[p] = r
			}
			a.out.Stranded++
			a.byTopic[r.Topic]++
			if acked[it] && copies[it] == 0 {
				a.lost[it] = true
			}
		}
	}
	a.out.Lost = len(a.lost)
	for it, n := range copies {
		if n == 2 && a.mirrored[it] && a.later[it] && !acked[it] {
			a.out.Repeated++
		}
	}
	a.marksOf(behind)
}

// marksOf: where the report says up to which offset of the source the target has everything, that is so.
func (a *aftermath) marksOf(behind map[topicPartition]LogRecord) {
	for _, p := range a.r.Positions {
		first, some := behind[topicPartition{p.Topic, p.Partition}]
		if p.Mark != nil && some && first.Offset < *p.Mark {
			a.disagree("the report says that %s has %s-%d up to offset %d; it lacks offset %d", a.r.To, p.Topic, p.Partition, *p.Mark, first.Offset)
		}
	}
}

// states: the number of lost records is the ledger's, in the report as far as it goes, and in what closed it. Nothing that
// is stated is ever less than what is lost (I3).
func (a *aftermath) states(v Verdict) {
	n := int64(a.out.Stranded)
	said := a.r.Loss
	if said == nil {
		a.disagree("the report of an unplanned run states no loss; %d records are stranded on %s", n, a.r.From)
		return
	}
	a.out.AtLeast, a.out.AtMost = said.AtLeast, said.AtMost
	a.within("the report", said.AtLeast, said.AtMost, n)
	if a.r.RPO.Known && a.r.RPO.Records != nil && *a.r.RPO.Records < n {
		a.disagree("the report says that %d records were lost; %d are stranded on %s", *a.r.RPO.Records, n, a.r.From)
	}
	for _, t := range said.Topics {
		a.within("the report, of topic "+t.Topic+",", t.AtLeast, t.AtMost, a.byTopic[t.Topic])
	}
	a.closed(n)
	switch closed := a.d.Closed; {
	case closed != nil && closed.AtMost != nil:
		a.out.ClosedAt = closed.AtMost
		if closed.AtLeast != n || *closed.AtMost != n {
			a.disagree("the fence of %s closed the loss at %d to %d records; %d are stranded there", a.r.From, closed.AtLeast, *closed.AtMost, n)
		}
		if said.ClosedAt == nil {
			a.disagree("the fence of %s closed the loss, and the report still says what the run knew", a.r.From)
		}
	case said.ClosedAt != nil:
		a.out.ClosedAt = said.AtMost
	case said.AtMost == nil || *said.AtMost != said.AtLeast:
		a.disagree("the loss is still open: nobody has closed it, and %d records are stranded on %s", n, a.r.From)
	}
	if lost := v.Lost - a.out.Lost; lost > 0 {
		a.disagree("%d lost records are not stranded on %s: no report of a loss covers them", lost, a.r.From)
	}
}

// closed: a report that was closed says the number, as a whole and of each topic that it names, and nothing less exact.
func (a *aftermath) closed(n int64) {
	l := a.r.Loss
	if l.ClosedAt == nil {
		return
	}
	if l.Open || l.AtMost == nil || l.AtLeast != n || *l.AtMost != n {
		a.disagree("the report was closed at %s and does not say that %d records were lost; so many are stranded on %s", l.ClosedAt.Format(time.RFC3339), n, a.r.From)
	}
	if !a.r.RPO.Known || a.r.RPO.Records == nil || *a.r.RPO.Records != n {
		a.disagree("the report was closed at %d records, and its RPO says something else", l.AtLeast)
	}
	for _, t := range l.Topics {
		if most := t.AtMost; most == nil || t.AtLeast != a.byTopic[t.Topic] || *most != a.byTopic[t.Topic] {
			a.disagree("the report was closed and does not say that %d records of topic %s were lost", a.byTopic[t.Topic], t.Topic)
		}
	}
}

func (a *aftermath) within(who string, least int64, most *int64, n int64) {
	switch {
	case least > n:
		a.disagree("%s says that at least %d records were lost; %d are stranded on %s", who, least, n, a.r.From)
	case most != nil && *most < n:
		a.disagree("%s says that at most %d records were lost; %d are stranded on %s", who, *most, n, a.r.From)
	}
}

// marks: every partition has one, and nothing was written on the target below the end at which its mirror stopped.
func (a *aftermath) marks() {
	first := map[topicPartition]int64{}
	for i := range a.of.Acked {
		c := &a.of.Acked[i]
		p := topicPartition{c.Topic, c.Partition}
		if at, some := first[p]; a.new(c.Cluster, c.Epoch) && (!some || c.Offset < at) {
			first[p] = c.Offset
		}
	}
	known := map[topicPartition]bool{}
	for _, pos := range a.r.Positions {
		p := topicPartition{pos.Topic, pos.Partition}
		known[p] = true
		if at, some := first[p]; some && pos.TargetEnd != nil && at < *pos.TargetEnd {
			a.disagree("the report says that the mirror of %s stopped at the target's end %d; %s acknowledged offset %d, which is below it", p, *pos.TargetEnd, a.r.To, at)
		}
	}
	for _, p := range slices.SortedFunc(maps.Keys(first), topicPartition.compare) {
		if !known[p] {
			a.disagree("the report has no position of %s, to which producers wrote", p)
		}
	}
}

// handed: no group was moved over a record that it had not read, and what it read again lies behind the offset that the
// report gives, at most as many as the report says.
func (a *aftermath) handed() {
	readings := a.readings()
	before, after := a.reads()
	there := map[topicPartition][]LogRecord{}
	for _, r := range a.d.Logs[a.r.To].Records {
		p := topicPartition{r.Topic, r.Partition}
		there[p] = append(there[p], r)
	}
	known := map[reader]report.GroupOffset{}
	for _, o := range a.r.Offsets {
		known[reader{o.Group, topicPartition{o.Topic, o.Partition}}] = o
	}
	for _, r := range slices.SortedFunc(maps.Keys(known), reader.compare) {
		if o := known[r]; o.Target != nil {
			a.went(r, o, readings[r], before[r.group], after[r.group], there[r.topicPartition])
		}
	}
	for _, r := range slices.SortedFunc(maps.Keys(readings), reader.compare) {
		if _, ok := known[r]; !ok && readings[r].onSource {
			a.disagree("the report hands over no offset of group %s in %s, where it read up to offset %d on %s", r.group, r.topicPartition, readings[r].last, a.r.From)
		}
	}
	for group, topics := range a.topicsOf() {
		for it := range a.lost {
			if topics[it.topic] && before[group][it] == 0 && after[group][it] == 0 {
				a.out.Unread++
			}
		}
	}
}

// went is one group in one partition.
func (a *aftermath) went(r reader, o report.GroupOffset, did *reading, before, after map[id]int, there []LogRecord) {
	if did == nil {
		did = &reading{last: -1, first: -1}
	}
	if o.Source != nil && did.onSource && *o.Source > did.last+1 {
		a.disagree("the report says that group %s was at offset %d of %s; it read only up to offset %d on %s", r.group, *o.Source, r.topicPartition, did.last, a.r.From)
	}
	if did.first >= 0 && did.first < *o.Target {
		a.disagree("the report says that group %s was handed offset %d of %s; on %s it began at offset %d, which is before it", r.group, *o.Target, r.topicPartition, a.r.To, did.first)
	}
	skipped, again, anew := 0, 0, 0
	for _, record := range there {
		it := id{record.Topic, record.Key, record.Seq}
		switch {
		case record.Offset < *o.Target && a.mirrored[it] && before[it] == 0:
			skipped++
		case record.Offset >= *o.Target && before[it] == 1 && after[it] == 1:
			again++
			if !a.mirrored[it] && a.later[it] { // stranded, read there, and sent anew by its producer: no offset could have helped
				anew++
			}
		}
	}
	if skipped > 0 {
		a.disagree("the report moves group %s to offset %d of %s; %s holds %d records before it that the group had not read", r.group, *o.Target, r.topicPartition, a.r.To, skipped)
	}
	most, bounded := behindAtMost(o.Proof)
	if bounded && int64(again-anew) > most {
		a.disagree("the report says of group %s in %s %q, which is at most %d records to read again; it read %d again", r.group, r.topicPartition, o.Proof, most, again-anew)
	}
	a.out.ReadAgain += again
}

var behindWords = regexp.MustCompile(`up to (\d+) records? behind`)

// behindAtMost is how many records a proof lets a group read again, where it says a number.
func behindAtMost(proof string) (records int64, bounded bool) {
	if proof == exact {
		return 0, true
	}
	if m := behindWords.FindStringSubmatch(proof); m != nil {
		if n, err := strconv.ParseInt(m[1], 10, 64); err == nil {
			return n, true
		}
	}
	return 0, false
}

// reads counts how often each group has read each record, before the switch and after it.
func (a *aftermath) reads() (before, after map[string]map[id]int) {
	before, after = map[string]map[id]int{}, map[string]map[id]int{}
	for i := range a.of.Seen {
		s := &a.of.Seen[i]
		counts := before
		if s.Epoch > *a.r.Epoch.Before {
			counts = after
		}
		if counts[s.Group] == nil {
			counts[s.Group] = map[id]int{}
		}
		counts[s.Group][id{s.Topic, s.Key, s.Seq}]++
	}
	return before, after
}

// topicsOf are the topics that each group was handed offsets of.
func (a *aftermath) topicsOf() map[string]map[string]bool {
	out := map[string]map[string]bool{}
	for _, o := range a.r.Offsets {
		if out[o.Group] == nil {
			out[o.Group] = map[string]bool{}
		}
		out[o.Group][o.Topic] = true
	}
	return out
}

// decided is the time from the last approval to the first acknowledgement on the new cluster.
func (a *aftermath) decided() *float64 {
	var approved, first time.Time
	for _, d := range a.r.Decisions {
		if d.Kind == "approve" && d.At.After(approved) {
			approved = d.At
		}
	}
	for i := range a.of.Acked {
		if c := &a.of.Acked[i]; a.new(c.Cluster, c.Epoch) && (first.IsZero() || c.At.Before(first)) {
			first = c.At
		}
	}
	if approved.IsZero() || first.IsZero() {
		return nil
	}
	return report.Seconds(first.Sub(approved))
}
