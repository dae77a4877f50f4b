package ledger

import "fmt"

// Roundtrip is what a workload's way out of a disaster and home again has to show. All counts are records.
type Roundtrip struct {
	Stranded  int64 `json:"stranded"`  // beyond the marks, when the lost cluster was fenced
	Recovered int64 `json:"recovered"` // as the report of the recovery says
	// SentAgain lie twice on the last cluster of the story, and were acknowledged by another one than that which had them first:
	// it had taken them, its answer was lost when it died, and the producer sent them again elsewhere (P32).
	SentAgain int `json:"sentAgain"`
}

// sentAgain counts the records that are in the log of home once more because their producer sent them again elsewhere: home
// itself has had them first, or a recovery has copied them from a cluster that did not acknowledge them.
func sentAgain(l *Ledger, home string, log ClusterLog) (n int) {
	copies, from := map[id]int{}, map[id]map[string]int{}
	for _, r := range log.Records {
		it := id{r.Topic, r.Key, r.Seq}
		copies[it]++
		if r.Origin != "" {
			if from[it] == nil {
				from[it] = map[string]int{}
			}
			from[it][r.Origin]++
		}
	}
	for _, a := range l.Acked {
		it := id{a.Topic, a.Key, a.Seq}
		more := copies[it] - 1
		if more <= 0 {
			continue
		}
		if a.Cluster != home && len(from[it]) == 0 {
			n += more
			continue
		}
		for origin, times := range from[it] {
			if origin != a.Cluster && times == 1 {
				n += min(more, times)
				more--
			}
		}
	}
	return n
}

// AgainstRoundtrip compares the whole story with its reports; the last one lies at path. Everything that was acknowledged is
// on the home cluster once, and was read. What groups read again is the disaster's, whose report states it, and late copies
// come behind later records of their keys: neither is a defect here.
func (v Verdict) AgainstRoundtrip(l *Ledger, home string, log ClusterLog, path string, r Roundtrip) Verdict {
	r.SentAgain = sentAgain(l, home, log)
	v.Report, v.Roundtrip, v.Disagreements = path, &r, nil
	v.OutOfOrder, v.ReadTwice, v.Duplicated = 0, 0, max(0, v.Duplicated-r.SentAgain)
	if r.Stranded == 0 {
		v.Disagreements = append(v.Disagreements, "nothing was stranded, so nothing was shown")
	}
	if r.Recovered != r.Stranded {
		v.Disagreements = append(v.Disagreements, fmt.Sprintf("%d records were stranded, the report of the recovery says that %d were recovered", r.Stranded, r.Recovered))
	}
	v.Agrees = len(v.Disagreements) == 0
	return v
}
