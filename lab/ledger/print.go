package ledger

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// String is the verdict for people: a block of lines.
func (v Verdict) String() string {
	var b strings.Builder
	word := "NOT WELL"
	if v.Well() {
		word = "all is well"
	}
	fmt.Fprintf(&b, "verdict on %s: %s\n", v.Active, word)
	for _, name := range slices.Sorted(maps.Keys(v.Clusters)) {
		c := v.Clusters[name]
		fmt.Fprintf(&b, "  %-16s acknowledged %d, read %d, in its log %d\n", name, c.Acknowledged, c.Read, c.Records)
	}
	for _, d := range []struct {
		words, defect string
		records       int
	}{
		{"lost", lost, v.Lost},
		{"duplicated", duplicated, v.Duplicated},
		{"read twice", readTwice, v.ReadTwice},
		{"never read", neverRead, v.NeverRead},
		{"out of order", outOfOrder, v.OutOfOrder},
		{"two clusters", twoClusters, v.TwoClusters},
	} {
		fmt.Fprintf(&b, "  %-16s %d\n", d.words, d.records)
		for _, e := range v.Examples[d.defect] {
			fmt.Fprintf(&b, "    %s %s-%d offset %d, key %s sequence %d", e.Cluster, e.Topic, e.Partition, e.Offset, e.Key, e.Seq)
			if e.Group != "" {
				fmt.Fprintf(&b, ", group %s", e.Group)
			}
			b.WriteByte('\n')
		}
	}
	fmt.Fprintf(&b, "  %-16s producers %s, consumers %s\n", "switch window", seconds(v.SwitchWindowSeconds), seconds(v.ConsumerWindowSeconds))
	if v.Uncommitted > 0 {
		fmt.Fprintf(&b, "  %-16s %d read again, because their broker was killed before they were committed\n", "uncommitted", v.Uncommitted)
	}
	b.WriteString(v.Aftermath.lines())
	if r := v.Recovered; r != nil {
		fmt.Fprintf(&b, "  %-16s %d stranded, %d of them are back, %d more than once\n", "recovered", r.Stranded, r.Back, r.Twice)
	}
	if r := v.Roundtrip; r != nil {
		fmt.Fprintf(&b, "  %-16s %d stranded, %d of them recovered, and home again; %d sent again by their producers, whose answer was lost\n", "roundtrip", r.Stranded, r.Recovered, r.SentAgain)
	}
	switch {
	case v.Report == "":
		fmt.Fprintf(&b, "  %-16s not compared\n", "report")
	case v.Agrees:
		fmt.Fprintf(&b, "  %-16s agrees (%s)\n", "report", v.Report)
	default:
		fmt.Fprintf(&b, "  %-16s DISAGREES (%s)\n", "report", v.Report)
		for _, s := range v.Disagreements {
			fmt.Fprintf(&b, "    %s\n", s)
		}
	}
	return b.String()
}

func seconds(s *float64) string {
	if s == nil {
		return "nobody switched"
	}
	return fmt.Sprintf("%.2f s", *s)
}

// lines are what an unplanned run's report allows.
func (a *Aftermath) lines() string {
	if a == nil {
		return ""
	}
	said := fmt.Sprintf("at least %d, open", a.AtLeast)
	if a.AtMost != nil {
		said = fmt.Sprintf("%d to %d", a.AtLeast, *a.AtMost)
	}
	if a.ClosedAt != nil {
		said += fmt.Sprintf(", closed at %d when the old cluster was fenced", *a.ClosedAt)
	}
	text := fmt.Sprintf("  %-16s %d, of them %d acknowledged; stated: %s\n", "stranded", a.Stranded, a.Lost, said)
	text += fmt.Sprintf("  %-16s %d read again behind the offsets that the report gives, %d of the lost never read, %d sent again without an acknowledgement\n",
		"as stated", a.ReadAgain, a.Unread, a.Repeated)
	if a.Unexplored != "" {
		text += fmt.Sprintf("  %-16s %s\n", "not counted", a.Unexplored)
	}
	return text + fmt.Sprintf("  %-16s %s from the last approval to the first acknowledgement on the new cluster\n", "decision", seconds(a.DecisionToFirstAckSeconds))
}
