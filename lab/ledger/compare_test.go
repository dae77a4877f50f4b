package ledger

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/report"
)

func TestEachDisagreementIsASentence(t *testing.T) {
	for _, c := range []struct {
		name string
		hurt func(*story)
		want []string // one part of each sentence, in their order
	}{
		{"completed, but a producer never came to the target", func(s *story) {
			s.ledger.Acked = slices.DeleteFunc(s.ledger.Acked, func(a Acked) bool { return a.Instance == "w1" && a.Cluster == "west" })
		}, []string{"run was completed, which leaves clients on west; producer w1 wrote last on east"}},
		{"completed, but producers went back at the same epoch", func(s *story) {
			a := s.ledger.Acked[len(s.ledger.Acked)-1]
			a.Cluster = "east"
			s.ledger.Acked = append(s.ledger.Acked, a)
		}, []string{"wrote last on east, at epoch 8", "clients worked on east at epoch 8 during the run"}},
		{"rolled back, but producers are on the target", func(s *story) {
			s.report.Outcome = report.RolledBack
		}, []string{"rolled back, which leaves clients on east; producer w0 wrote last on west", "producer w1",
			"clients worked on west at epoch 8 during the run", "no client worked on east at epoch 8"}},
		{"aborted without a switch, but producers switched", func(s *story) {
			s.report.Outcome, s.report.Epoch.After = report.Aborted, nil
		}, []string{"clients worked on west at epoch 8 during the run"}},
		{"another epoch before", func(s *story) { s.report.Epoch.Before = number(6) },
			[]string{"clients worked on east at epoch 7 during", "no client worked on east at epoch 6"}},
		{"another epoch after", func(s *story) { s.report.Epoch.After = number(9) },
			[]string{"clients worked on west at epoch 8 during", "no client worked on west at epoch 9"}},
		{"a consumer alone had another epoch", func(s *story) {
			s.ledger.Seen[len(s.ledger.Seen)-1].Epoch = 9
		}, []string{"clients worked on west at epoch 9 during the run"}},
		{"a loss that the report does not know", func(s *story) { s.keep(s.records()[1:]) },
			[]string{"0 records were lost, the ledger says 1", "the target lacks 0 records, the ledger says that 1"}},
		{"a loss that did not happen", func(s *story) { s.report.RPO.Records = number(2) },
			[]string{"2 records were lost, the ledger says 0"}},
		{"a loss where the report gives no number", func(s *story) {
			s.report.RPO = report.RPO{Records: nil}
			s.keep(s.records()[1:])
		}, []string{"the target lacks 0 records, the ledger says that 1"}},
		{"the source's end is too low", func(s *story) { *s.position("orders", 1).SourceEnd -= 2 },
			[]string{"the source's end of orders-1 was 8; east acknowledged offset 9 at epoch 7"}},
		{"the source's end is too high", func(s *story) { *s.position("orders", 1).SourceEnd += 2 },
			[]string{"the source's end of orders-1 was 12; west acknowledged offset 10, which is below it, at epoch 8"}},
		{"the target's end is too low", func(s *story) { *s.position("stock", 0).TargetEnd = 3 },
			[]string{"the target's end of stock-0 was 3; east acknowledged offset 9"}},
		{"the mark is too low", func(s *story) { *s.position("stock", 0).Mark-- },
			[]string{"the mark of stock-0 was 9; east acknowledged offset 9"}},
		{"a partition has no position", func(s *story) {
			s.report.Positions = slices.DeleteFunc(s.report.Positions, func(p report.PartitionPosition) bool { return p.Topic == "stock" && p.Partition == 1 })
		}, []string{"no position of stock-1"}},
		{"an offset is too low", func(s *story) { o := s.offset("audit", "orders", 0); *o.Source--; *o.Target-- },
			[]string{"group audit was at offset 8 of orders-0; it read up to offset 8 on east", "was handed offset 8 of orders-0; on west it began at offset 9 and passed over 1"}},
		{"an offset is too high", func(s *story) { *s.offset("billing", "stock", 0).Source += 5 },
			[]string{"group billing was at offset 15 of stock-0; it read up to offset 9 on east"}},
		{"an offset is none", func(s *story) { s.offset("billing", "stock", 0).Source = nil },
			[]string{"group billing had no offset in stock-0; it read up to offset 9"}},
		{"an offset of a group that never read", func(s *story) {
			s.report.Offsets = append(s.report.Offsets, report.GroupOffset{Group: "archive", Topic: "orders", Source: number(4), Target: number(4)})
		}, []string{"group archive was at offset 4 of orders-0; it never read there, and offset 0 was acknowledged"}},
		{"no offset of a group that read", func(s *story) {
			s.report.Offsets = slices.DeleteFunc(s.report.Offsets, func(o report.GroupOffset) bool { return o.Group == "audit" && o.Partition == 1 })
		}, []string{"hands over no offset of group audit in orders-1, where it read up to offset 8"}},
		{"the group began before what it was handed", func(s *story) { *s.offset("audit", "orders", 0).Target++ },
			[]string{"group audit was handed offset 10 of orders-0; on west it began at offset 9, which is before it"}},
		{"the group passed records over", func(s *story) {
			s.ledger.Seen = slices.DeleteFunc(s.ledger.Seen, func(r Seen) bool {
				return r.Cluster == "west" && r.Group == "audit" && r.Partition == 0 && r.Offset < 12
			})
		}, []string{"group audit was handed offset 9 of orders-0; on west it began at offset 12 and passed over 3"}},
		{"the producers' window is too short", func(s *story) {
			s.later(5*time.Second, "west")
		}, []string{"producers stood still for 1.50 s; one of their instances did for 6.5", "consumers stood still for 1.50 s; one of their instances did for 6.5"}},
		{"a client worked on after it had stopped", func(s *story) {
			for i := range s.report.SwitchWindow.Clients {
				early := s.report.SwitchWindow.Clients[i].StoppedAt.Add(-3 * time.Second)
				s.report.SwitchWindow.Clients[i].StoppedAt = &early
			}
		}, []string{"client", "client", "client"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := tell(4, 5, "east", "west")
			c.hurt(s)
			v := s.judge().Against(s.ledger, s.report, "out/report.json")
			require.False(t, v.Agrees)
			require.False(t, v.Well())
			require.Len(t, v.Disagreements, len(c.want), strings.Join(v.Disagreements, "\n"))
			for i, part := range c.want {
				require.Contains(t, v.Disagreements[i], part)
				require.Contains(t, v.String(), v.Disagreements[i])
			}
		})
	}
}

// later moves everything that happened on a cluster.
func (s *story) later(by time.Duration, cluster string) {
	for i := range s.ledger.Acked {
		if a := &s.ledger.Acked[i]; a.Cluster == cluster {
			a.At = a.At.Add(by)
		}
	}
	for i := range s.ledger.Seen {
		if r := &s.ledger.Seen[i]; r.Cluster == cluster {
			r.At = r.At.Add(by)
		}
	}
}

func TestWhatIsNoDisagreement(t *testing.T) {
	for _, c := range []struct {
		name string
		tell func() *story
	}{
		{"a report that says nothing of windows, positions' ends or targets", func() *story {
			s := tell(4, 5, "east", "west")
			s.report.SwitchWindow = report.SwitchWindow{}
			for i := range s.report.Positions {
				s.report.Positions[i].SourceEnd, s.report.Positions[i].TargetEnd, s.report.Positions[i].Mark = nil, nil, nil
			}
			for i := range s.report.Offsets {
				s.report.Offsets[i].Target = nil
			}
			return s
		}},
		{"a window that is a little too short, or far too long", func() *story {
			s := tell(4, 5, "east", "west")
			*s.report.SwitchWindow.ProducersSeconds, *s.report.SwitchWindow.ConsumersSeconds = 0.6, 60
			return s
		}},
		{"a run that was rolled back", func() *story {
			s := tell(4, 5, "east")
			s.report = report.Report{Outcome: report.RolledBack, From: "east", To: "west", Epoch: report.Epoch{Before: number(7)}, Started: storyStart, Ended: storyStart.Add(time.Hour)}
			return s
		}},
		{"a run that was rolled back, and raised the epoch on its way", func() *story {
			s := tell(4, 5, "east", "east")
			s.report = report.Report{Outcome: report.RolledBack, From: "east", To: "west", Epoch: report.Epoch{Before: number(7), After: number(8)}, Started: storyStart, Ended: storyStart.Add(time.Hour)}
			return s
		}},
		{"a run that was rolled back, and a later one that was not", func() *story {
			s := tell(4, 5, "east", "west")
			s.report = report.Report{Outcome: report.RolledBack, From: "east", To: "west", Epoch: report.Epoch{Before: number(7)}, Started: storyStart, Ended: storyStart.Add(100 * time.Millisecond)}
			return s
		}},
		{"a run that found the workload on the target", func() *story {
			s := tell(4, 5, "west")
			s.report = report.Report{Outcome: report.Completed, From: "east", To: "west", Epoch: report.Epoch{Before: number(7)}, Started: storyStart, Ended: storyStart.Add(time.Hour)}
			return s
		}},
		{"a run that was parked and failed after the switch", func() *story {
			s := tell(4, 5, "east", "west")
			s.report.Outcome, s.report.RPO = report.Failed, report.RPO{}
			return s
		}},
		{"a run that was followed by another", func() *story {
			s := tell(4, 5, "east", "west")
			first := s.report
			ended := s.report.Ended
			s = tell(4, 5, "east", "west", "east")
			s.report = first
			s.report.Ended = ended.Add(-time.Second)
			return s
		}},
		{"a group that had read nothing yet", func() *story {
			s := tell(4, 1, "east", "west")
			s.offset("billing", "orders", 0).Source = number(2)
			return s
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := c.tell()
			v := s.judge()
			require.Empty(t, numbers(v))
			require.Empty(t, Compare(s.ledger, v, s.report))
		})
	}
}

func TestCompactReports(t *testing.T) {
	s := tell(4, 5, "east", "west")
	compact := func() report.Report {
		r := s.report
		r.Topics, r.Groups, r.Positions, r.Offsets = r.TopicSummary(), r.GroupSummary(), nil, nil
		return r
	}
	v := s.judge()
	require.Empty(t, Compare(s.ledger, v, compact()))
	for _, c := range []struct {
		name string
		hurt func(*report.Report)
		want []string
	}{
		{"a topic has too few partitions", func(r *report.Report) { r.Topics[0].Partitions-- }, []string{"counts 1 partitions of topic orders, and clients used 2"}},
		{"a topic is missing", func(r *report.Report) { r.Topics = r.Topics[:1] }, []string{"counts 0 partitions of topic stock"}},
		{"a group has too few partitions", func(r *report.Report) { r.Groups[1].Partitions = 3 }, []string{"counts 3 partitions of group billing, and clients used 4"}},
		{"all topics, in one line", func(r *report.Report) {
			r.Topics = []report.TopicPositions{{Topic: "all", Partitions: 4, Missing: number(0)}}
		}, nil},
		{"all topics have too few partitions", func(r *report.Report) { r.Topics = []report.TopicPositions{{Topic: "all", Partitions: 3}} },
			[]string{"counts 3 partitions of topic all, and clients used 4"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := compact()
			c.hurt(&r)
			says := Compare(s.ledger, v, r)
			require.Len(t, says, len(c.want), strings.Join(says, "\n"))
			for i, part := range c.want {
				require.Contains(t, says[i], part)
			}
		})
	}
	s.keep(s.records()[1:])
	r := compact()
	r.RPO = report.RPO{}
	require.Equal(t, []string{"by the report's positions the target lacks 0 records, the ledger says that 1 are lost"}, Compare(s.ledger, s.judge(), r))
}
