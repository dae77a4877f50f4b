package ledger

import "fmt"

// Roundtrip is what a workload's way out of a disaster and home again has to show. All counts are records.
type Roundtrip struct {
	Stranded  int64 `json:"stranded"`  // beyond the marks, when the lost cluster was fenced
	Recovered int64 `json:"recovered"` // as the report of the recovery says
}

// AgainstRoundtrip compares the whole story with its reports; the last one lies at path. Everything that was acknowledged is
// on the home cluster once, and was read. What groups read again is the disaster's, whose report states it, and late copies
// come behind later records of their keys: neither is a defect here.
func (v Verdict) AgainstRoundtrip(path string, r Roundtrip) Verdict {
	v.Report, v.Roundtrip, v.Disagreements = path, &r, nil
	v.OutOfOrder, v.ReadTwice = 0, 0
	if r.Stranded == 0 {
		v.Disagreements = append(v.Disagreements, "nothing was stranded, so nothing was shown")
	}
	if r.Recovered != r.Stranded {
		v.Disagreements = append(v.Disagreements, fmt.Sprintf("%d records were stranded, the report of the recovery says that %d were recovered", r.Stranded, r.Recovered))
	}
	v.Agrees = len(v.Disagreements) == 0
	return v
}
