package replication

import (
	"fmt"

	"switchback/internal/fault"
)

// ProofExact says that the record after the last one read on the source is the next one read on the target.
const ProofExact = "exact"

// What to do for a partition that a group never committed (P24).
const (
	WithoutCommitEarliest = "earliest"
	WithoutCommitLatest   = "latest"
)

// Committed lays a group's commits over every partition of the topics that the group reads: a topic of which it committed
// any partition, or to which it is known to be subscribed. Partitions without a commit have Source Unknown, and get an explicit offset all the same, or
// auto.offset.reset decides and may lose records (P24). Other topics stay out.
func Committed(committed map[Partition]int64, partitions []Ends, subscribed ...string) []Translated {
	reads := map[string]bool{}
	for p := range committed {
		reads[p.Topic] = true
	}
	for _, topic := range subscribed {
		reads[topic] = true
	}
	var list []Translated
	for _, e := range partitions {
		if !reads[e.Topic] {
			continue
		}
		source, ok := committed[e.Partition]
		if !ok {
			source = Unknown
		}
		list = append(list, Translated{Partition: e.Partition, Source: source, Target: Unknown})
	}
	return list
}

// without is why nothing is known of where the group goes on.
func (t Translated) without() string {
	if t.Proof == "" || t.Proof == ProofExact {
		return "no commit"
	}
	return t.Proof
}

// Place puts translated offsets into the range of the target's logs: never beyond the high watermark, never below the
// log start. What was moved, and what had no commit or has no translation, says so in its Proof; of the latter two the
// runbook decides. An unknown range, and a translation that is missing without a word, are errors of kind
// fault.ErrNotReady, because unknown is not zero.
func Place(translated []Translated, target []Ends, withoutCommit string) ([]Translated, error) {
	ends := make(map[Partition]Ends, len(target))
	for _, e := range target {
		ends[e.Partition] = e
	}
	list := make([]Translated, 0, len(translated))
	for _, t := range translated {
		e, ok := ends[t.Partition]
		if !ok || e.Start == Unknown || e.HighWatermark == Unknown {
			return nil, fmt.Errorf("the range of %s on the target is unknown: %w", t.Name(), fault.ErrNotReady)
		}
		switch {
		case t.Target == Unknown && t.Source != Unknown && t.Proof == "":
			return nil, fmt.Errorf("no translation for %s at source offset %d: %w", t.Name(), t.Source, fault.ErrNotReady)
		case t.Target != Unknown && t.Source != Unknown: // known
		case e.Start == e.HighWatermark:
			t.Target, t.Proof = e.HighWatermark, ProofExact // an empty partition: its start is its end
		case withoutCommit == WithoutCommitLatest:
			t.Target, t.Proof = e.HighWatermark, t.without()+": set to the end, as the runbook says"
		default:
			t.Target, t.Proof = e.Start, t.without()+": set to the start, as the runbook says"
		}
		switch {
		case t.Target > e.HighWatermark:
			t.Proof = fmt.Sprintf("clamped from %d down to the end %d", t.Target, e.HighWatermark)
			t.Target = e.HighWatermark
		case t.Target < e.Start:
			t.Proof = fmt.Sprintf("moved from %d up to the log start %d: what lay between has expired", t.Target, e.Start)
			t.Target = e.Start
		}
		list = append(list, t)
	}
	return list, nil
}
