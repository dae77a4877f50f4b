package replication

import (
	"fmt"
	"time"
)

// Limits are what an assessment is held against; zero means nothing at all may be behind.
type Limits struct {
	Records int64         // over all partitions
	Age     time.Duration // of the oldest sample that the verdict rests on; 0 does not look at it
}

// Verdict is what would be lost if a mirror were stopped at its last known positions.
type Verdict struct {
	Partitions int       `json:"partitions"`
	Behind     int64     `json:"behind"`  // records, over the partitions of which both ends are known
	Unknown    int       `json:"unknown"` // partitions of which an end is not known: no number covers them (P21)
	Oldest     time.Time `json:"oldest,omitzero"`
	Within     bool      `json:"within"` // everything is known and inside the limits
	Laggards   []Outcome `json:"laggards,omitempty"`
}

// Assess judges positions at a moment. Unknown is not zero: one partition without data and the verdict is not within.
func Assess(positions []Position, limits Limits, now time.Time) Verdict {
	v := Verdict{Partitions: len(positions)}
	for _, p := range positions {
		if v.Oldest.IsZero() || p.Seen.Before(v.Oldest) {
			v.Oldest = p.Seen
		}
		switch {
		case p.SourceEnd == Unknown || p.TargetEnd == Unknown:
			v.Unknown++
			v.Laggards = append(v.Laggards, Outcome{p.Name(), Unclear,
				fmt.Sprintf("source end %s, target end %s", offset(p.SourceEnd), offset(p.TargetEnd))})
		case p.TargetEnd < p.SourceEnd:
			v.Behind += p.SourceEnd - p.TargetEnd
			v.Laggards = append(v.Laggards, Outcome{p.Name(), Pending, fmt.Sprintf("%d records behind", p.SourceEnd-p.TargetEnd)})
		case p.TargetEnd > p.SourceEnd:
			// A mirror that keeps offsets is never ahead of its source: one of the two was recreated or truncated.
			v.Unknown++
			v.Laggards = append(v.Laggards, Outcome{p.Name(), Unclear,
				fmt.Sprintf("the target's end %d lies beyond the source's %d", p.TargetEnd, p.SourceEnd)})
		}
	}
	fresh := limits.Age == 0 || now.Sub(v.Oldest) <= limits.Age
	v.Within = v.Partitions > 0 && v.Unknown == 0 && v.Behind <= limits.Records && fresh
	return v
}
