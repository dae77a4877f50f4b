package ledger

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"switchback/report"
)

// Verdict is what the clients' ledgers and a cluster's log say when they are put side by side. All counts are records.
type Verdict struct {
	Active string `json:"active"` // the cluster whose log counts

	Lost        int `json:"lost"`        // acknowledged, but not in the active cluster's log
	Duplicated  int `json:"duplicated"`  // in the active cluster's log once more
	ReadTwice   int `json:"readTwice"`   // read by a group once more
	NeverRead   int `json:"neverRead"`   // acknowledged, but not read by a group that subscribes to the topic; once per group
	OutOfOrder  int `json:"outOfOrder"`  // behind a later record of the same key, in the active cluster's log or as a group read them; repeats do not count
	TwoClusters int `json:"twoClusters"` // acknowledged by another cluster than most of their epoch

	SwitchWindowSeconds   *float64 `json:"switchWindowSeconds"`   // last acknowledgement on one cluster to the first on the next, worst of all producers' instances; null: nobody switched
	ConsumerWindowSeconds *float64 `json:"consumerWindowSeconds"` // the same between records that an instance read

	Acknowledged int                     `json:"acknowledged"`
	Read         int                     `json:"read"`
	Clusters     map[string]ClusterCount `json:"clusters"`
	Examples     map[string][]Example    `json:"examples,omitempty"` // the first few of each defect, by the name of its number

	Uncommitted int `json:"uncommitted,omitempty"` // read again, because a broker was killed before its consumer could commit them; not among ReadTwice

	Report        string   `json:"report"` // path of the report that the ledger was compared with
	Agrees        bool     `json:"agrees"` // false also when there was no report
	Disagreements []string `json:"disagreements,omitempty"`

	Aftermath *Aftermath `json:"aftermath,omitempty"` // of an unplanned run: what of the above its report allows
	Recovered *Recovered `json:"recovered,omitempty"` // of a recovery: what it has brought back
	Roundtrip *Roundtrip `json:"roundtrip,omitempty"` // of a way out of a disaster and home again
}

// ClusterCount is what happened on one cluster.
type ClusterCount struct {
	Acknowledged int `json:"acknowledged"`
	Read         int `json:"read"`
	Records      int `json:"records"` // in its log
}

// Example is where to look. It never holds a value.
type Example struct {
	Cluster   string `json:"cluster"`
	Group     string `json:"group,omitempty"` // whose reading it is, if any
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Offset    int64  `json:"offset"`
	Key       string `json:"key"`
	Seq       int64  `json:"seq"`
}

// The defects, as their numbers are called.
const (
	lost        = "lost"
	duplicated  = "duplicated"
	readTwice   = "readTwice"
	neverRead   = "neverRead"
	outOfOrder  = "outOfOrder"
	twoClusters = "twoClusters"
)

const examplesOfEach = 5

// id is a record, wherever it is stored. The topic belongs to it: a copy that was put aside elsewhere is another record.
type id struct {
	topic, key string
	seq        int64
}

// series is what an order is kept in: a key of a partition in a log, and a key of a topic for a reader.
type series struct {
	topic, key string
	partition  int32
}

// Judge counts what went wrong. Active is the cluster that clients work on now; groupsOf has the topics that each group
// subscribes to. An active cluster without a log has lost everything.
func Judge(l *Ledger, active string, logs map[string]ClusterLog, groupsOf map[string][]string) Verdict {
	v := Verdict{
		Active: active, Acknowledged: len(l.Acked), Read: len(l.Seen),
		Clusters: map[string]ClusterCount{}, Examples: map[string][]Example{},
	}
	v.count(l, logs)
	v.judgeLog(l, logs[active])
	v.judgeGroups(l, groupsOf)
	v.judgeEpochs(l)
	var producers, consumers windows
	for i := range l.Acked {
		producers.add(l.Acked[i].Instance, l.Acked[i].Cluster, l.Acked[i].At)
	}
	for i := range l.Seen {
		consumers.add(l.Seen[i].Instance, l.Seen[i].Cluster, l.Seen[i].At)
	}
	v.SwitchWindowSeconds, v.ConsumerWindowSeconds = producers.worst, consumers.worst
	return v
}

func (v *Verdict) count(l *Ledger, logs map[string]ClusterLog) {
	for i := range l.Acked {
		c := v.Clusters[l.Acked[i].Cluster]
		c.Acknowledged++
		v.Clusters[l.Acked[i].Cluster] = c
	}
	for i := range l.Seen {
		c := v.Clusters[l.Seen[i].Cluster]
		c.Read++
		v.Clusters[l.Seen[i].Cluster] = c
	}
	for name, log := range logs {
		c := v.Clusters[name]
		c.Records = len(log.Records)
		v.Clusters[name] = c
	}
}

func (v *Verdict) example(defect string, e Example) {
	if len(v.Examples[defect]) < examplesOfEach {
		v.Examples[defect] = append(v.Examples[defect], e)
	}
}

func (v *Verdict) judgeLog(l *Ledger, log ClusterLog) {
	stored, order := make(map[id]bool, len(log.Records)), map[series]int64{}
	for _, r := range log.Records {
		it, at := id{r.Topic, r.Key, r.Seq}, series{r.Topic, r.Key, r.Partition}
		e := Example{Cluster: log.Name, Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Key: r.Key, Seq: r.Seq}
		highest, known := order[at]
		switch {
		case stored[it]:
			v.Duplicated++
			v.example(duplicated, e)
			continue
		case known && r.Seq < highest:
			v.OutOfOrder++
			v.example(outOfOrder, e)
		default:
			order[at] = r.Seq
		}
		stored[it] = true
	}
	missing := map[id]bool{}
	for i := range l.Acked {
		a := &l.Acked[i]
		if it := (id{a.Topic, a.Key, a.Seq}); !stored[it] && !missing[it] {
			missing[it] = true
			v.Lost++
			v.example(lost, acked(a, ""))
		}
	}
}

func acked(a *Acked, group string) Example {
	return Example{a.Cluster, group, a.Topic, a.Partition, a.Offset, a.Key, a.Seq}
}

func (v *Verdict) judgeGroups(l *Ledger, groupsOf map[string][]string) {
	reads := map[string][]*Seen{}
	for group := range groupsOf {
		reads[group] = nil
	}
	for i := range l.Seen {
		reads[l.Seen[i].Group] = append(reads[l.Seen[i].Group], &l.Seen[i])
	}
	for _, group := range slices.Sorted(maps.Keys(reads)) {
		v.judgeGroup(l, group, groupsOf[group], readingOrder(reads[group]))
	}
}

func (v *Verdict) judgeGroup(l *Ledger, group string, topics []string, reads []*Seen) {
	read, order := make(map[id]bool, len(reads)), map[series]int64{}
	last, repeats := make(map[id]*Seen, len(reads)), uncommittedOf(l, group)
	for _, s := range reads {
		it, at := id{s.Topic, s.Key, s.Seq}, series{topic: s.Topic, key: s.Key}
		e := Example{s.Cluster, group, s.Topic, s.Partition, s.Offset, s.Key, s.Seq}
		highest, known := order[at]
		first := last[it]
		last[it] = s
		switch {
		case read[it] && repeats.mayRepeat(first, s):
			v.Uncommitted++
			continue
		case read[it]:
			v.ReadTwice++
			v.example(readTwice, e)
			continue
		case known && s.Seq < highest:
			v.OutOfOrder++
			v.example(outOfOrder, e)
		default:
			order[at] = s.Seq
		}
		read[it] = true
	}
	for i := range l.Acked {
		a := &l.Acked[i]
		if it := (id{a.Topic, a.Key, a.Seq}); slices.Contains(topics, a.Topic) && !read[it] {
			read[it] = true // counted once, even if it was acknowledged twice
			v.NeverRead++
			v.example(neverRead, acked(a, group))
		}
	}
}

// readingOrder sorts what all members of a group have read by time. Within an instance the order of its file holds,
// also when the clock was set back.
func readingOrder(reads []*Seen) []*Seen {
	type read struct {
		at   time.Time
		seen *Seen
	}
	list, clock := make([]read, len(reads)), map[string]time.Time{}
	for i, s := range reads {
		if s.At.After(clock[s.Instance]) {
			clock[s.Instance] = s.At
		}
		list[i] = read{clock[s.Instance], s}
	}
	slices.SortStableFunc(list, func(a, b read) int { return a.at.Compare(b.at) })
	out := make([]*Seen, len(list))
	for i, r := range list {
		out[i] = r.seen
	}
	return out
}

// judgeEpochs looks for epochs at which two clusters acknowledged. The records of an epoch belong on the cluster that
// acknowledged most of them.
func (v *Verdict) judgeEpochs(l *Ledger) {
	epochs := map[int64]map[string]int{}
	for i := range l.Acked {
		a := &l.Acked[i]
		if epochs[a.Epoch] == nil {
			epochs[a.Epoch] = map[string]int{}
		}
		epochs[a.Epoch][a.Cluster]++
	}
	home := map[int64]string{}
	for epoch, clusters := range epochs {
		home[epoch] = slices.MaxFunc(slices.Sorted(maps.Keys(clusters)), func(a, b string) int { return cmp.Compare(clusters[a], clusters[b]) })
	}
	for i := range l.Acked {
		if a := &l.Acked[i]; a.Cluster != home[a.Epoch] {
			v.TwoClusters++
			v.example(twoClusters, acked(a, ""))
		}
	}
}

// windows finds the longest pause of any instance while it changed clusters.
type windows struct {
	last  map[string]stay
	worst *float64 // seconds
}

type stay struct {
	cluster string
	at      time.Time
}

func (w *windows) add(instance, cluster string, at time.Time) {
	if w.last == nil {
		w.last = map[string]stay{}
	}
	if last, ok := w.last[instance]; ok && last.cluster != cluster {
		if pause := at.Sub(last.at).Seconds(); w.worst == nil || pause > *w.worst {
			w.worst = &pause
		}
	}
	w.last[instance] = stay{cluster, at}
}

// Against compares the verdict's ledger with a run's report, which lies at path, and notes what disagrees.
func (v Verdict) Against(l *Ledger, r report.Report, path string) Verdict {
	v.Report, v.Disagreements = path, Compare(l, v, r)
	v.Agrees = len(v.Disagreements) == 0
	return v
}

// Well is true when something was acknowledged, no defect was found but what the report of an unplanned run states, and
// the report agrees if there is one.
func (v Verdict) Well() bool {
	a := v.Aftermath
	if a == nil {
		a = &Aftermath{}
	}
	defects := v.OutOfOrder+v.TwoClusters > 0 || v.Lost > a.Lost || v.Duplicated > a.Repeated || v.ReadTwice > a.ReadAgain || v.NeverRead > a.Unread
	return v.Acknowledged > 0 && !defects && (v.Report == "" || v.Agrees)
}
