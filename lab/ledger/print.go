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
