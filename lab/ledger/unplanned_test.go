package ledger

import (
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/report"
)

// disaster tells a story whose first cluster is lost with the last record of each partition of orders not mirrored, and
// whose group billing is handed an offset two behind in stock-0. Its report states all of that. Offsets are those of a
// byte-for-byte mirror.
func disaster(t *testing.T) (*story, *Disaster) {
	t.Helper()
	s := tell(4, 5, "east", "west")
	s.report.Kind = report.KindUnplanned
	d := &Disaster{Logs: s.logs, Closed: &report.Loss{AtLeast: 2, AtMost: number(2)}}
	var stranded []Acked
	for p := range int32(2) {
		last := s.position("orders", p).SourceEnd
		i := slices.IndexFunc(s.ledger.Acked, func(a Acked) bool {
			return a.Cluster == "east" && a.Topic == "orders" && a.Partition == p && a.Offset == *last-1
		})
		stranded = append(stranded, s.ledger.Acked[i])
	}
	isLost := func(topic, key string, seq int64) bool {
		return slices.ContainsFunc(stranded, func(a Acked) bool { return a.Topic == topic && a.Key == key && a.Seq == seq })
	}
	onEast := map[id]bool{}
	for _, a := range s.ledger.Acked {
		if a.Cluster == "east" {
			onEast[id{a.Topic, a.Key, a.Seq}] = true
		}
	}
	// East keeps what it had; west has neither the lost records nor their offsets.
	east, west := ClusterLog{Name: "east"}, ClusterLog{Name: "west"}
	for _, r := range s.logs["west"].Records {
		if onEast[id{r.Topic, r.Key, r.Seq}] {
			east.Records = append(east.Records, r)
		}
		if !isLost(r.Topic, r.Key, r.Seq) {
			r.Offset -= shiftOf(r.Topic, onEast[id{r.Topic, r.Key, r.Seq}])
			west.Records = append(west.Records, r)
		}
	}
	s.logs["east"], s.logs["west"] = east, west
	for i := range s.ledger.Acked {
		if a := &s.ledger.Acked[i]; a.Cluster == "west" {
			a.Offset -= shiftOf(a.Topic, false)
		}
	}
	// Billing has read everything on east; audit never reads what is lost.
	s.ledger.Seen = slices.DeleteFunc(s.ledger.Seen, func(r Seen) bool {
		return r.Group == "audit" && isLost(r.Topic, r.Key, r.Seq)
	})
	for i := range s.ledger.Seen {
		if r := &s.ledger.Seen[i]; r.Cluster == "west" {
			r.Offset -= shiftOf(r.Topic, false)
		}
	}
	for i := range s.report.Positions {
		p := &s.report.Positions[i]
		*p.TargetEnd -= shiftOf(p.Topic, false)
		p.Mark, p.SourceEnd = number(*p.TargetEnd), nil
	}
	for i := range s.report.Offsets {
		o := &s.report.Offsets[i]
		end := *s.position(o.Topic, o.Partition).TargetEnd
		o.Target = number(min(*o.Target, end))
		o.Source, o.Proof = o.Target, "as synced by the link before the source was lost"
	}
	s.again(2)
	s.report = s.report.Close(report.Loss{AtLeast: 2, AtMost: number(2), Topics: []report.TopicLoss{
		{Topic: "orders", AtLeast: 2, AtMost: number(2)}, {Topic: "stock", AtMost: number(0)},
	}}, storyStart.Add(time.Hour), "fence/orders/east")
	s.report.RTO = report.Measured{Seconds: report.Seconds(gap)}
	s.report.Decisions = []report.Decision{
		{Kind: "approve", By: "one", At: storyStart}, {Kind: "approve", By: "two", At: s.report.Started.Add(gap / 2)},
	}
	return s, d
}

// shiftOf is by how much offsets of a topic are lower on west than a planned switch would have left them.
func shiftOf(topic string, mirrored bool) int64 {
	if topic == "orders" && !mirrored {
		return 1
	}
	return 0
}

// again lets billing read the last n records of stock-0 of the old days once more on west, as its handed offset has it.
func (s *story) again(n int64) {
	o := s.offset("billing", "stock", 0)
	*o.Target -= n
	o.Source = o.Target
	first := slices.IndexFunc(s.ledger.Seen, func(r Seen) bool { return r.Cluster == "west" && r.Group == "billing" })
	at := s.ledger.Seen[first]
	for _, r := range slices.Clone(s.ledger.Seen) {
		if r.Cluster == "east" && r.Group == "billing" && r.Topic == "stock" && r.Partition == 0 && r.Offset >= *o.Target {
			r.Cluster, r.Epoch, r.At = "west", at.Epoch, at.At
			s.ledger.Seen = slices.Insert(s.ledger.Seen, first, r)
			first++
		}
	}
}

// reopen is the report as the run wrote it.
func (s *story) reopen() {
	s.report.RPO = report.RPO{Text: "at least 0 records, and open"}
	s.report.Loss = &report.Loss{Open: true, Topics: []report.TopicLoss{{Topic: "orders"}, {Topic: "stock"}}}
}

func (s *story) judgeUnplanned(d *Disaster) Verdict {
	return s.judge().AgainstUnplanned(s.ledger, s.report, "out/report.json", *d)
}

func TestAnUnplannedRunThatStatesItsLossIsWell(t *testing.T) {
	s, d := disaster(t)
	v := s.judgeUnplanned(d)
	require.Empty(t, v.Disagreements, "%s", v)
	require.True(t, v.Well(), "%s", v)
	require.Equal(t, map[string]int{lost: 2, readTwice: 2, neverRead: 2}, numbers(v))
	require.Equal(t, 2, v.Aftermath.Stranded)
	require.Equal(t, 2, v.Aftermath.ReadAgain)
	require.Equal(t, 2, v.Aftermath.Unread)
	require.NotNil(t, v.Aftermath.DecisionToFirstAckSeconds)
	require.Contains(t, v.String(), "all is well")
	require.Contains(t, v.String(), "closed at 2")
}

// A report that was closed says it all, also when Temporal has forgotten the fence; it is checked all the same.
func TestP38_AClosedReportStandsForItself(t *testing.T) {
	s, d := disaster(t)
	d.Closed = nil
	v := s.judgeUnplanned(d)
	require.Empty(t, v.Disagreements, "%s", v)
	require.True(t, v.Well(), "%s", v)
	require.Contains(t, v.String(), "closed at 2")
}

// Every defect that the ledger of an unplanned run can hold makes its verdict fail: what is stated covers nothing else.
func TestAnUnplannedRunIsNotForgivenAnythingElse(t *testing.T) {
	strand := func(s *story, d *Disaster) { // one more is on east alone
		a := s.ledger.Acked[0]
		a.Seq, a.Offset = 1000, 1000
		s.ledger.Acked = slices.Insert(s.ledger.Acked, 1, a)
		log := d.Logs["east"]
		log.Records = append(log.Records, LogRecord{a.Topic, a.Partition, a.Offset, a.Key, a.Seq, ""})
		d.Logs["east"] = log
	}
	for _, c := range []struct {
		name  string
		hurt  func(*story, *Disaster)
		agree bool // the report is right, and the number alone is the defect
		says  string
	}{
		{"I3: one more is stranded than was closed", strand, false, "closed the loss at 2 to 2 records; 3 are stranded"},
		{"I3: the report gives too low a bound", func(s *story, _ *Disaster) { s.report.Loss.AtMost = number(1) }, false, "at most 1 records were lost; 2 are stranded"},
		{"I3: the report calls too low a number known", func(s *story, _ *Disaster) {
			s.report.RPO.Known, s.report.RPO.Records = true, number(1)
		}, false, "1 records were lost; 2 are stranded"},
		{"the report claims too much", func(s *story, _ *Disaster) { s.report.Loss.AtLeast = 3 }, false, "at least 3 records were lost; 2 are stranded"},
		{"a topic's bound is too low", func(s *story, _ *Disaster) { s.report.Loss.Topics[0].AtMost = number(1) }, false, "of topic orders, says that at most 1"},
		{"the fence closed too high a number", func(_ *story, d *Disaster) { d.Closed.AtLeast, d.Closed.AtMost = 5, number(5) }, false, "closed the loss at 5 to 5"},
		{"P38: nobody has closed the number", func(s *story, d *Disaster) { s.reopen(); d.Closed = nil }, false, "the loss is still open"},
		{"P38: the fence has closed the number, and the report does not know", func(s *story, _ *Disaster) { s.reopen() }, false, "the report still says what the run knew"},
		{"P38: a closed report is still open", func(s *story, _ *Disaster) { s.report.Loss.Open = true }, false, "does not say that 2 records were lost"},
		{"P38: a closed report has no upper bound", func(s *story, _ *Disaster) { s.report.Loss.AtMost = nil }, false, "does not say that 2 records were lost"},
		{"P38: a closed report's RPO is open", func(s *story, _ *Disaster) { s.report.RPO = report.RPO{} }, false, "its RPO says something else"},
		{"P38: a closed report's topic is open", func(s *story, _ *Disaster) { s.report.Loss.Topics[0].AtMost = nil }, false, "does not say that 2 records of topic orders were lost"},
		{"P38: a closed report that nobody else confirms is too high", func(s *story, d *Disaster) {
			d.Closed, s.report.Loss.AtMost = nil, number(4)
		}, false, "does not say that 2 records were lost"},
		{"the report states nothing", func(s *story, _ *Disaster) { s.report.Loss = nil }, false, "states no loss"},
		{"a mirrored record is lost", func(s *story, d *Disaster) {
			log := d.Logs["west"]
			i := slices.IndexFunc(log.Records, func(r LogRecord) bool { return r.Topic == "stock" && r.Offset == 3 })
			log.Records = slices.Delete(slices.Clone(log.Records), i, i+1)
			d.Logs["west"], s.logs["west"] = log, log
		}, false, "a mirrored record is lost"},
		{"a record was acknowledged and is nowhere", func(_ *story, d *Disaster) {
			log := d.Logs["east"]
			i := slices.IndexFunc(log.Records, func(r LogRecord) bool { return r.Topic == "orders" && r.Partition == 0 && r.Offset == 9 })
			log.Records = slices.Delete(slices.Clone(log.Records), i, i+1)
			d.Logs["east"] = log
			d.Closed.AtLeast, d.Closed.AtMost = 1, number(1)
		}, false, "1 lost records are not stranded on east"},
		{"the mark is too high", func(s *story, _ *Disaster) { *s.position("orders", 0).Mark++ }, false, "west has orders-0 up to offset 10; it lacks offset 9"},
		{"the target's end was taken too late", func(s *story, _ *Disaster) { *s.position("stock", 0).TargetEnd++ }, false, "stopped at the target's end 11; west acknowledged offset 10"},
		{"a partition has no mark", func(s *story, _ *Disaster) { s.report.Positions = s.report.Positions[1:] }, false, "no position of orders-0"},
		{"a group was moved over a record", func(s *story, _ *Disaster) {
			s.ledger.Seen = slices.DeleteFunc(s.ledger.Seen, func(r Seen) bool {
				return r.Cluster == "east" && r.Group == "billing" && r.Topic == "stock" && r.Partition == 1 && r.Offset == 9
			})
		}, false, "moves group billing to offset 10 of stock-1; west holds 1 records before it that the group had not read"},
		{"a group began before its offset", func(s *story, _ *Disaster) { *s.offset("billing", "stock", 0).Target++ }, false, "which is before it"},
		{"a group was said to be farther than it was", func(s *story, _ *Disaster) { *s.offset("billing", "stock", 1).Source += 3 }, false, "it read only up to offset 9"},
		{"more was read again than the proof says", func(s *story, _ *Disaster) {
			s.offset("billing", "stock", 0).Proof = "checkpoint, up to 1 record behind"
		}, false, "it read 2 again"},
		{"something was read again behind what is called exact", func(s *story, _ *Disaster) { s.offset("billing", "stock", 0).Proof = exact }, false, "it read 2 again"},
		{"a group has no offset", func(s *story, _ *Disaster) {
			s.report.Offsets = slices.DeleteFunc(s.report.Offsets, func(o report.GroupOffset) bool { return o.Group == "audit" && o.Partition == 1 })
		}, false, "hands over no offset of group audit in orders-1"},
		{"a record was read twice on west alone", func(s *story, _ *Disaster) {
			s.ledger.Seen = append(s.ledger.Seen, s.ledger.Seen[len(s.ledger.Seen)-1])
		}, true, ""},
		{"a record of the new days was never read", func(s *story, _ *Disaster) {
			i := slices.IndexFunc(s.ledger.Seen, func(r Seen) bool { return r.Cluster == "west" && r.Group == "audit" && r.Offset == 12 })
			s.ledger.Seen = slices.Delete(s.ledger.Seen, i, i+1)
		}, true, ""},
		{"the mirror wrote a record twice", func(s *story, d *Disaster) {
			log := d.Logs["west"]
			log.Records = append(slices.Clone(log.Records), log.Records[0])
			d.Logs["west"], s.logs["west"] = log, log
		}, true, ""},
		{"two clusters acknowledged at one epoch", func(s *story, _ *Disaster) { s.ledger.Acked[0].Epoch = firstEpoch + 1 }, true, ""},
		{"a producer stayed behind", func(s *story, d *Disaster) {
			strand(s, d)
			a := s.ledger.Acked[1]
			a.At = s.ledger.Acked[len(s.ledger.Acked)-1].At.Add(time.Second)
			s.ledger.Acked = append(slices.Delete(s.ledger.Acked, 1, 2), a)
			d.Closed.AtLeast, d.Closed.AtMost = 3, number(3)
		}, false, "producer w0 wrote last on east"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, d := disaster(t)
			c.hurt(s, d)
			v := s.judgeUnplanned(d)
			require.False(t, v.Well(), "%s", v)
			require.Equal(t, c.agree, v.Agrees, "%q", v.Disagreements)
			if c.says != "" {
				require.Contains(t, v.String(), c.says)
			}
		})
	}
}

// A record that was mirrored but never acknowledged is sent again by its producer, which promises nothing else.
func TestWhatWasNeverAcknowledgedMayBeThereTwice(t *testing.T) {
	s, d := disaster(t)
	i := slices.IndexFunc(s.ledger.Acked, func(a Acked) bool { return a.Cluster == "east" && a.Topic == "stock" })
	a := s.ledger.Acked[i]
	last := s.ledger.Acked[len(s.ledger.Acked)-1]
	a.Cluster, a.Epoch, a.At, a.Offset = "west", last.Epoch, last.At, 100
	s.ledger.Acked = append(slices.Delete(s.ledger.Acked, i, i+1), a)
	log := d.Logs["west"]
	log.Records = append(slices.Clone(log.Records), LogRecord{a.Topic, a.Partition, a.Offset, a.Key, a.Seq, ""})
	d.Logs["west"], s.logs["west"] = log, log
	v := s.judgeUnplanned(d)
	require.True(t, v.Well(), "%s", v)
	require.Equal(t, 1, v.Duplicated)
	require.Equal(t, 1, v.Aftermath.Repeated)
}

// A record that is stranded without an acknowledgement was read there all the same, and its producer sends it anew: its group reads
// it twice, whatever offset it was handed. A mirrored record is another matter.
func TestWhatItsProducerSendsAnewIsNotReadAgainForAnOffset(t *testing.T) {
	for name, mirrored := range map[string]bool{"sent anew": false, "mirrored": true} {
		t.Run(name, func(t *testing.T) {
			s, d := disaster(t)
			end := *s.position("orders", 0).TargetEnd
			i := slices.IndexFunc(s.ledger.Acked, func(a Acked) bool {
				return a.Cluster == "east" && a.Topic == "orders" && a.Partition == 0 && a.Offset == end
			})
			a := s.ledger.Acked[i]
			last := s.ledger.Acked[len(s.ledger.Acked)-1]
			a.Cluster, a.Epoch, a.At, a.Offset = "west", last.Epoch, last.At, 100
			s.ledger.Acked = append(slices.Delete(s.ledger.Acked, i, i+1), a)
			if mirrored {
				s.position("orders", 0).TargetEnd = number(101)
			}
			log := d.Logs["west"]
			log.Records = append(slices.Clone(log.Records), LogRecord{a.Topic, a.Partition, a.Offset, a.Key, a.Seq, ""})
			d.Logs["west"], s.logs["west"] = log, log
			for _, group := range []string{"billing", "audit"} {
				seen := s.ledger.Seen[slices.IndexFunc(s.ledger.Seen, func(r Seen) bool { return r.Cluster == "west" && r.Group == group })]
				seen.At, seen.Topic, seen.Partition, seen.Offset, seen.Key, seen.Seq = last.At, a.Topic, a.Partition, a.Offset, a.Key, a.Seq
				s.ledger.Seen = append(s.ledger.Seen, seen)
				s.offset(group, "orders", 0).Proof = "checkpoint, up to 0 records behind"
			}
			v := s.judgeUnplanned(d)
			says := "it read 1 again"
			if mirrored {
				require.Contains(t, v.String(), says)
				return
			}
			require.NotContains(t, v.String(), says)
			require.Equal(t, 3, v.Aftermath.ReadAgain)
			require.Empty(t, v.Disagreements)
		})
	}
}
