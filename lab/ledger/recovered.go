package ledger

import (
	"fmt"
	"slices"
	"strings"

	"switchback/replication"
	"switchback/report"
)

// Recovered is what a recovery has brought back, counted in the logs of both clusters. All counts are records.
type Recovered struct {
	Stranded int `json:"stranded"` // in the old cluster's log at the offsets that the report gives
	Back     int `json:"back"`     // of them in the new cluster's log, in their topic or in <topic>.recovered
	Twice    int `json:"twice"`    // of those more than once, although no client sent them there
}

// AgainstRecovery compares the report of a recovery, which lies at path, with the logs of both clusters: the sum of each
// partition is what is stranded there, and so many of its records are on the new cluster, each once. What comes late comes
// behind later records of its key, and groups that had read it read it again: neither is a defect here.
func (v Verdict) AgainstRecovery(r report.Report, path string, logs map[string]ClusterLog) Verdict {
	v.Report, v.Recovered, v.Disagreements = path, &Recovered{}, nil
	v.OutOfOrder, v.ReadTwice = 0, 0
	say := func(format string, args ...any) {
		v.Disagreements = append(v.Disagreements, fmt.Sprintf(format, args...))
	}
	if r.LaggedData == nil || !r.LaggedData.Settled {
		say("the report has no account of what was stranded")
		return v
	}
	copies := map[id]int{}
	for _, rec := range logs[r.To].Records {
		copies[id{strings.TrimSuffix(rec.Topic, replication.DivertSuffix), rec.Key, rec.Seq}]++
	}
	for _, p := range r.LaggedData.Partitions {
		if p.Sum() != p.To-p.From {
			say("the report accounts for %d of %d stranded offsets of %s-%d", p.Sum(), p.To-p.From, p.Topic, p.Partition)
		}
		there, back := 0, 0
		for _, rec := range logs[r.From].Records {
			if rec.Topic != p.Topic || rec.Partition != p.Partition || rec.Offset < p.From || rec.Offset >= p.To {
				continue
			}
			there++
			switch copies[id{rec.Topic, rec.Key, rec.Seq}] {
			case 0:
			case 1:
				back++
			default:
				back++
				v.Recovered.Twice++
			}
		}
		v.Recovered.Stranded += there
		v.Recovered.Back += back
		if int64(back) < p.Recovered {
			say("the report says that %d records of %s-%d were recovered; %d of its stranded records are on %s", p.Recovered, p.Topic, p.Partition, back, r.To)
		}
		if int64(there) != p.Recovered+p.Superseded+p.Aborted+p.Refused+p.Left {
			say("the report accounts for %d records of %s-%d; %d are in the log of %s at offsets %d to %d", p.Recovered+p.Superseded+p.Aborted+p.Refused+p.Left, p.Topic, p.Partition, there, r.From, p.From, p.To)
		}
	}
	total := report.Became{}
	for _, t := range r.LaggedData.Topics {
		total = report.Became{Recovered: total.Recovered + t.Recovered, Superseded: total.Superseded + t.Superseded, Expired: total.Expired + t.Expired,
			Aborted: total.Aborted + t.Aborted, Blank: total.Blank + t.Blank, Refused: total.Refused + t.Refused, Left: total.Left + t.Left}
	}
	if total != r.LaggedData.Total.Became {
		say("the topics of the report do not add up to its total: %+v and %+v", total, r.LaggedData.Total.Became)
	}
	slices.Sort(v.Disagreements)
	v.Agrees = len(v.Disagreements) == 0
	return v
}
