package activities

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"math"
	"slices"
	"strings"
	"time"

	"switchback/internal/fault"
	"switchback/internal/killpoint"
	"switchback/replication"
)

// Sample is where every partition of a runbook was at one moment, as Watch saw it on both clusters. It is whole: each
// partition of Topics has one position, in order, whose SourceEnd is known. TargetEnd is replication.Unknown only where
// the target has no such topic yet; Replicated is what the link said, or replication.Unknown.
type Sample struct {
	Runbook       string
	From, To      string // names in the runbook
	SourceCluster string // cluster ids
	TargetCluster string
	Epoch         int64     // that discovery held when both ends had been read
	Seen          time.Time // when reading the ends of both clusters began, by the worker's clock
	// LastAnswer is when the source answered last, if only in part: never before Seen. An outage begins after it.
	LastAnswer time.Time
	// SameOffsets says that offsets are the same on both clusters. Where they are not (MirrorMaker 2), TargetEnd cannot
	// be compared with SourceEnd, and Replicated is all that says how far the target is.
	SameOffsets bool
	Topics      []replication.Topic // of the source, by name
	Groups      []string
	// Reads are the topics that the members of a group subscribe to, for groups that have members.
	Reads     map[string][]string
	Positions []replication.Position // by topic and partition
	// Rates are the records per second that reached the source, by topic, over about the last minute. What is calculated
	// with them is an estimate, never a bound (P21). A topic without a rate is absent.
	Rates map[string]float64
}

// Lag is how many records of the partition the target lacks, or replication.Unknown.
func (s Sample) Lag(p replication.Position) int64 {
	have := p.TargetEnd
	if !s.SameOffsets {
		have = p.Replicated
	}
	if have == replication.Unknown || p.SourceEnd == replication.Unknown {
		return replication.Unknown
	}
	return max(0, p.SourceEnd-have)
}

// How a sample is stored, in switchback.positions of the target: its topics and groups are spread over a fixed number of
// parts by a hash of their names, so that what stands still is not written again. Each part has two slots. A sample is
// written into the slots that the sample before it does not use; then its header, which names for each part the slot and
// the sum of what is in it, takes the place of the header before. So a crash between any two writes leaves the sample
// before whole, one partition of the topic means one order of writes, and a reader that finds other sums than the
// header's has found two writers, and says so instead of mixing their samples (P20).
const (
	sampleParts    = 256
	sampleHeader   = "whole"
	sampleAnswered = "answered"
)

func samplePrefix(runbook, source string) string { return "sample/" + runbook + "/" + source + "/" }

// sampleHead is the header of a whole sample, written last.
type sampleHead struct {
	From          string                `json:"from"`
	To            string                `json:"to"`
	SourceCluster string                `json:"sourceCluster"`
	TargetCluster string                `json:"targetCluster"`
	Epoch         int64                 `json:"epoch"`
	Seen          time.Time             `json:"seen"`
	LastAnswer    time.Time             `json:"lastAnswer"`
	SameOffsets   bool                  `json:"sameOffsets"`
	Parts         map[string]samplePart `json:"parts"`
}

// samplePart says which slot of a part belongs to the sample, and the sum of what is in it.
type samplePart struct {
	Slot string `json:"slot"`
	Sum  string `json:"sum"`
}

func (p samplePart) other() samplePart {
	if p.Slot == "a" {
		p.Slot = "b"
	} else {
		p.Slot = "a"
	}
	return p
}

func (p samplePart) key(prefix, part string) string { return prefix + "part/" + part + "/" + p.Slot }

// samplePiece is what is stored in a slot.
type samplePiece struct {
	Topics []sampleTopic `json:"topics,omitempty"`
	Groups []sampleGroup `json:"groups,omitempty"`
}

// sampleGroup is a group with what its members read.
type sampleGroup struct {
	Name  string   `json:"name"`
	Reads []string `json:"reads,omitempty"`
}

// sampleTopic is a topic with its positions: for each partition source end, replicated, target end.
type sampleTopic struct {
	replication.Topic
	Rate float64    `json:"rate,omitempty"`
	At   [][3]int64 `json:"at"`
}

// answered is when a source answered in part, without a whole sample.
type answered struct {
	At time.Time `json:"at"`
}

// putSample stores a whole sample in switchback.positions of its target. A part is refused with fault.ErrNotReady, a
// sample of an older epoch than what is stored with fault.ErrStale.
func putSample(ctx context.Context, rec Records, s Sample) error {
	return keepSample(ctx, rec, &s)
}

// keepSample is putSample that fills in the rates, from the sample before.
func keepSample(ctx context.Context, rec Records, s *Sample) error {
	if err := s.whole(); err != nil {
		return err
	}
	prefix := samplePrefix(s.Runbook, s.SourceCluster)
	all, err := rec.Load(ctx, prefix)
	if err != nil {
		return wrap("read the sample before", err)
	}
	var was sampleHead
	if raw, ok := all[prefix+sampleHeader]; ok {
		if err := json.Unmarshal(raw, &was); err != nil {
			return fmt.Errorf("decode record %s%s: %w", prefix, sampleHeader, err)
		}
	}
	if was.Epoch > s.Epoch {
		return fmt.Errorf("the stored sample is of epoch %d, this one of epoch %d: %w", was.Epoch, s.Epoch, fault.ErrStale)
	}
	if before, err := assemble(all, s.Runbook, s.SourceCluster); err == nil {
		s.Rates = rates(before, *s)
	}
	head := sampleHead{From: s.From, To: s.To, SourceCluster: s.SourceCluster, TargetCluster: s.TargetCluster,
		Epoch: s.Epoch, Seen: s.Seen, LastAnswer: s.LastAnswer, SameOffsets: s.SameOffsets}
	parts, err := s.pieces()
	if err != nil {
		return err
	}
	changed := map[string][]byte{}
	head.Parts = fill(was.Parts, parts, all, prefix, changed)
	raw, err := json.Marshal(head)
	if err != nil {
		return fmt.Errorf("encode the header of a sample: %w", err)
	}
	if len(changed) > 0 {
		if err := rec.Put(ctx, changed); err != nil {
			return wrap("write a sample", err)
		}
	}
	killpoint.Reach("Sample/middle")
	return wrap("write the header of a sample", rec.Put(ctx, map[string][]byte{prefix + sampleHeader: raw}))
}

// fill chooses a slot for each part and adds what must be written to changed. What stands already in the slot that the
// sample before uses stays there; nothing else that it uses is touched.
func fill(was map[string]samplePart, parts, stored map[string][]byte, prefix string, changed map[string][]byte) map[string]samplePart {
	now := make(map[string]samplePart, len(parts))
	for part, raw := range parts {
		at, used := was[part]
		sum := sumOf(raw)
		switch {
		case used && sumOf(stored[at.key(prefix, part)]) == sum:
		case used:
			at = at.other()
			changed[at.key(prefix, part)] = raw
		default:
			at.Slot = "a"
			changed[at.key(prefix, part)] = raw
		}
		at.Sum = sum
		now[part] = at
	}
	return now
}

// putAnswered remembers that the source answered, though not enough for a whole sample.
func putAnswered(ctx context.Context, rec Records, runbook, source string, at time.Time) error {
	raw, err := json.Marshal(answered{at})
	if err != nil {
		return fmt.Errorf("encode the last answer: %w", err)
	}
	return wrap("write the last answer of the source", rec.Put(ctx, map[string][]byte{samplePrefix(runbook, source) + sampleAnswered: raw}))
}

// lastSample reads the last whole sample of a source; of any source, the newest, when sourceCluster is empty.
// fault.ErrNotFound when there is none, fault.ErrConflict when two writers mixed theirs.
func lastSample(ctx context.Context, rec Records, runbook, sourceCluster string) (Sample, error) {
	prefix := "sample/" + runbook + "/"
	if sourceCluster != "" {
		prefix = samplePrefix(runbook, sourceCluster)
	}
	all, err := rec.Load(ctx, prefix)
	if err != nil {
		return Sample{}, fmt.Errorf("read the last sample of runbook %s: %w", runbook, err)
	}
	var newest Sample
	found := fault.Hint(fmt.Errorf("a sample of runbook %s: %w", runbook, fault.ErrNotFound), "nobody watches it: switchback watch %s", runbook)
	for _, key := range sorted(all) {
		source, ok := strings.CutSuffix(strings.TrimPrefix(key, "sample/"+runbook+"/"), "/"+sampleHeader)
		if !ok {
			continue
		}
		s, err := assemble(all, runbook, source)
		switch {
		case err != nil && newest.Seen.IsZero():
			found = err
		case err == nil && (newest.Seen.IsZero() || s.Seen.After(newest.Seen)):
			newest, found = s, nil
		}
	}
	return newest, found
}

// assemble puts the sample of a source together from what was loaded.
func assemble(all map[string][]byte, runbook, source string) (Sample, error) {
	prefix := samplePrefix(runbook, source)
	raw, ok := all[prefix+sampleHeader]
	if !ok {
		return Sample{}, fmt.Errorf("record %s%s: %w", prefix, sampleHeader, fault.ErrNotFound)
	}
	var head sampleHead
	if err := json.Unmarshal(raw, &head); err != nil {
		return Sample{}, fmt.Errorf("decode record %s%s: %w", prefix, sampleHeader, err)
	}
	s := Sample{Runbook: runbook, From: head.From, To: head.To, SourceCluster: head.SourceCluster, TargetCluster: head.TargetCluster,
		Epoch: head.Epoch, Seen: head.Seen, LastAnswer: head.LastAnswer, SameOffsets: head.SameOffsets, Reads: map[string][]string{}, Rates: map[string]float64{}}
	var last answered
	if raw, ok := all[prefix+sampleAnswered]; ok && json.Unmarshal(raw, &last) == nil && last.At.After(s.LastAnswer) {
		s.LastAnswer = last.At
	}
	var topics []sampleTopic
	for part, at := range head.Parts {
		raw := all[at.key(prefix, part)]
		if sumOf(raw) != at.Sum {
			raw = all[at.other().key(prefix, part)]
		}
		var piece samplePiece
		if sumOf(raw) != at.Sum || json.Unmarshal(raw, &piece) != nil {
			return Sample{}, fault.Hint(fmt.Errorf("the sample of %s in %s is mixed with another: %w", head.Seen.Format(time.RFC3339), PositionsTopic, fault.ErrConflict),
				"two workers wrote at the same time; the next sample mends it")
		}
		topics = append(topics, piece.Topics...)
		for _, g := range piece.Groups {
			s.Groups = append(s.Groups, g.Name)
			if len(g.Reads) > 0 {
				s.Reads[g.Name] = g.Reads
			}
		}
	}
	slices.Sort(s.Groups)
	s.add(topics)
	return s, nil
}

// add fills in topics, positions and rates, by name and partition.
func (s *Sample) add(topics []sampleTopic) {
	slices.SortFunc(topics, func(a, b sampleTopic) int { return compare(a.Name, b.Name) })
	for _, t := range topics {
		s.Topics = append(s.Topics, t.Topic)
		if t.Rate > 0 {
			s.Rates[t.Name] = t.Rate
		}
		for i, at := range t.At {
			s.Positions = append(s.Positions, replication.Position{Partition: replication.Partition{Topic: t.Name, Partition: int32(i)},
				SourceEnd: at[0], Replicated: at[1], TargetEnd: at[2], Seen: s.Seen})
		}
	}
}

// whole refuses what is no sample of every partition.
func (s Sample) whole() error {
	if s.Runbook == "" || s.SourceCluster == "" || s.TargetCluster == "" || s.Seen.IsZero() {
		return fmt.Errorf("a sample needs its runbook, both cluster ids and when it was seen: %w", fault.ErrInvalid)
	}
	i := 0
	for _, t := range s.Topics {
		for p := range int32(t.Partitions) { //nolint:gosec // Kafka's own numbers are 32 bits
			want := replication.Partition{Topic: t.Name, Partition: p}
			if i >= len(s.Positions) || s.Positions[i].Partition != want || s.Positions[i].SourceEnd == replication.Unknown {
				return fmt.Errorf("the position of %s is not known, and a part never replaces a whole sample: %w", want.Name(), fault.ErrNotReady)
			}
			i++
		}
	}
	if i != len(s.Positions) {
		return fmt.Errorf("%d positions for %d partitions: %w", len(s.Positions), i, fault.ErrNotReady)
	}
	return nil
}

// pieces spreads a whole sample over its parts.
func (s Sample) pieces() (map[string][]byte, error) {
	pieces := map[string]*samplePiece{}
	of := func(name string) *samplePiece {
		h := fnv.New32a()
		_, _ = h.Write([]byte(name)) // never fails
		part := fmt.Sprintf("%02x", h.Sum32()%sampleParts)
		if pieces[part] == nil {
			pieces[part] = &samplePiece{}
		}
		return pieces[part]
	}
	at := 0
	for _, t := range s.Topics {
		stored := sampleTopic{Topic: t, Rate: s.Rates[t.Name], At: make([][3]int64, t.Partitions)}
		for i := range stored.At {
			p := s.Positions[at]
			stored.At[i] = [3]int64{p.SourceEnd, p.Replicated, p.TargetEnd}
			at++
		}
		piece := of(t.Name)
		piece.Topics = append(piece.Topics, stored)
	}
	for _, g := range s.Groups {
		piece := of(g)
		piece.Groups = append(piece.Groups, sampleGroup{g, s.Reads[g]})
	}
	raw := make(map[string][]byte, len(pieces))
	var failed error
	for part, piece := range pieces {
		b, err := json.Marshal(piece)
		failed = errors.Join(failed, err)
		raw[part] = b
	}
	return raw, wrap("encode a sample", failed)
}

// sumOf tells one content of a slot from another.
func sumOf(raw []byte) string {
	sum := sha256.Sum256(raw)
	return hex.EncodeToString(sum[:8])
}

// ratesOver is the time over which rates are smoothed, in seconds.
const ratesOver = 60

// rates are the records per second of each topic: what came since the sample before, smoothed over about a minute.
// Topics of which that is not known have none.
func rates(before, now Sample) map[string]float64 {
	seconds := now.Seen.Sub(before.Seen).Seconds()
	if seconds <= 0 {
		return before.Rates
	}
	was, is := sourceEnds(before), sourceEnds(now)
	weight := 1 - math.Exp(-seconds/ratesOver)
	out := map[string]float64{}
	for _, t := range now.Topics {
		end, known := was[t.Name]
		if !known || is[t.Name] < end { // new, or made anew
			continue
		}
		rate := float64(is[t.Name]-end) / seconds
		if old, ok := before.Rates[t.Name]; ok {
			rate = old + weight*(rate-old)
		}
		if rate = math.Round(rate*100) / 100; rate > 0 {
			out[t.Name] = rate
		}
	}
	return out
}

// sourceEnds are the sums of the ends of each topic's partitions.
func sourceEnds(s Sample) map[string]int64 {
	ends := map[string]int64{}
	for _, p := range s.Positions {
		ends[p.Topic] += p.SourceEnd
	}
	return ends
}
