package ledger

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"switchback/report"
)

// story is a run of the sample clients, in which nothing has gone wrong, and the report of its last switch.
type story struct {
	ledger *Ledger
	active string
	logs   map[string]ClusterLog
	groups map[string][]string
	report report.Report
}

const (
	firstEpoch = 7
	gap        = 1500 * time.Millisecond // between the last record before a switch and the first after it
)

var storyStart = time.Date(2026, 3, 3, 2, 59, 0, 0, time.UTC)

// tell lets two producers with some keys each write so many records per key on each cluster in turn. Group billing reads
// all at once; group audit has one record of each partition left when a switch comes.
func tell(keys, records int, clusters ...string) *story {
	s := &story{
		ledger: &Ledger{}, active: clusters[len(clusters)-1], logs: map[string]ClusterLog{},
		groups: map[string][]string{"billing": {"orders", "stock"}, "audit": {"orders"}},
	}
	now, seq, ends := storyStart, map[string]int64{}, map[topicPartition]int64{}
	var log []LogRecord
	var owed map[topicPartition]Acked
	for stage, cluster := range clusters {
		epoch := int64(firstEpoch + stage)
		if stage > 0 {
			s.report = s.reported(now, clusters[stage-1], cluster, epoch, ends, owed)
			now = now.Add(gap)
		}
		read := func(group string, a Acked) {
			s.ledger.Seen = append(s.ledger.Seen, Seen{
				At: now, Cluster: cluster, Epoch: epoch, Client: group, Instance: fmt.Sprintf("%s-%d", group, a.Partition), Group: group,
				Topic: a.Topic, Partition: a.Partition, Offset: a.Offset, Key: a.Key, Seq: a.Seq,
			})
		}
		for _, p := range slices.SortedFunc(maps.Keys(owed), topicPartition.compare) {
			read("audit", owed[p])
		}
		owed = map[topicPartition]Acked{}
		for range records {
			for k := range 2 * keys {
				now = now.Add(10 * time.Millisecond)
				p := topicPartition{[]string{"orders", "stock"}[k%2], int32(k / 2 % 2)}
				instance := fmt.Sprintf("w%d", k/keys)
				key := fmt.Sprintf("%s/%d", instance, k)
				seq[key]++
				a := Acked{
					At: now, Cluster: cluster, Epoch: epoch, Client: "writer", Instance: instance,
					Topic: p.topic, Partition: p.partition, Offset: ends[p], Key: key, Seq: seq[key],
				}
				ends[p]++
				s.ledger.Acked = append(s.ledger.Acked, a)
				log = append(log, LogRecord{p.topic, p.partition, a.Offset, key, a.Seq, ""})
				read("billing", a)
				if p.topic == "orders" {
					if before, ok := owed[p]; ok {
						read("audit", before)
					}
					owed[p] = a
				}
			}
		}
	}
	now = now.Add(10 * time.Millisecond)
	for _, p := range slices.SortedFunc(maps.Keys(owed), topicPartition.compare) {
		a := owed[p]
		s.ledger.Seen = append(s.ledger.Seen, Seen{
			At: now, Cluster: s.active, Epoch: a.Epoch, Client: "audit", Instance: fmt.Sprintf("audit-%d", p.partition), Group: "audit",
			Topic: a.Topic, Partition: a.Partition, Offset: a.Offset, Key: a.Key, Seq: a.Seq,
		})
	}
	s.report.Ended = now
	slices.SortStableFunc(log, func(a, b LogRecord) int {
		return topicPartition{a.Topic, a.Partition}.compare(topicPartition{b.Topic, b.Partition})
	})
	for _, cluster := range clusters {
		s.logs[cluster] = ClusterLog{cluster, slices.Clone(log)}
	}
	return s
}

func number(n int64) *int64 { return &n }

// reported is the report of a switch at this moment.
func (s *story) reported(stopped time.Time, from, to string, epoch int64, ends map[topicPartition]int64, owed map[topicPartition]Acked) report.Report {
	started := stopped.Add(gap)
	r := report.Report{
		Schema: report.SchemaName, Outcome: report.Completed, From: from, To: to, Started: stopped.Add(-5 * time.Millisecond),
		Epoch: report.Epoch{Before: number(epoch - 1), After: number(epoch)}, RPO: report.RPO{Records: number(0), Known: true},
		SwitchWindow: report.SwitchWindow{ProducersSeconds: report.Seconds(gap), ConsumersSeconds: report.Seconds(gap / 2)},
	}
	for client, role := range map[string]string{"writer": "producer", "billing": "consumer", "audit": "consumer"} {
		r.SwitchWindow.Clients = append(r.SwitchWindow.Clients, report.ClientWindow{Client: client, Role: role, StoppedAt: &stopped, StartedAt: &started})
	}
	for _, p := range slices.SortedFunc(maps.Keys(ends), topicPartition.compare) {
		end := ends[p]
		r.Positions = append(r.Positions, report.PartitionPosition{Topic: p.topic, Partition: p.partition, SourceEnd: number(end), TargetEnd: number(end), Mark: number(end)})
		for _, group := range []string{"audit", "billing"} {
			next := end
			if group == "audit" {
				if p.topic != "orders" {
					continue
				}
				next = owed[p].Offset
			}
			o := report.GroupOffset{Group: group, Topic: p.topic, Partition: p.partition, Source: number(next), Target: number(next), Proof: "exact", ReadBack: true}
			if next == 0 {
				o.Source = nil
			}
			r.Offsets = append(r.Offsets, o)
		}
	}
	return r
}

func (s *story) judge() Verdict { return Judge(s.ledger, s.active, s.logs, s.groups) }

// records is the active cluster's log.
func (s *story) records() []LogRecord { return s.logs[s.active].Records }

// keep puts a changed log back.
func (s *story) keep(records []LogRecord) { s.logs[s.active] = ClusterLog{s.active, records} }

// position and offset are the report's entries of one partition.
func (s *story) position(topic string, partition int32) *report.PartitionPosition {
	i := slices.IndexFunc(s.report.Positions, func(p report.PartitionPosition) bool { return p.Topic == topic && p.Partition == partition })
	return &s.report.Positions[i]
}

func (s *story) offset(group, topic string, partition int32) *report.GroupOffset {
	i := slices.IndexFunc(s.report.Offsets, func(o report.GroupOffset) bool {
		return o.Group == group && o.Topic == topic && o.Partition == partition
	})
	return &s.report.Offsets[i]
}
