package replication

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Loss is what a source has, or may have, that its target has not. AtLeast counts records that were seen to exist; AtMost
// is Unknown while the number is open (P38); Estimate is extrapolated, and never a bound (P21). Records are counted as
// offsets: markers of transactions are among them.
type Loss struct {
	AtLeast  int64   `json:"atLeast"`
	AtMost   int64   `json:"atMost"`
	Estimate int64   `json:"estimate"` // Unknown without a rate
	Bytes    int64   `json:"bytes"`    // of AtLeast, by the size of an average record; Unknown
	Seconds  float64 `json:"seconds"`  // from the newest record that the target has to the outage; negative is unknown
	Why      string  `json:"why"`      // how it is known, or why it is not
}

// TopicLoss is the loss of one topic.
type TopicLoss struct {
	Topic string `json:"topic"`
	Loss
}

// Closed says whether the number is final: the source was read behind its fence.
func (l Loss) Closed() bool { return l.AtMost != Unknown && l.AtLeast == l.AtMost }

// String is the number as an operator reads it: never less than it may be.
func (l Loss) String() string {
	switch {
	case l.Closed() && l.AtLeast == 0:
		return "nothing is lost"
	case l.Closed():
		return fmt.Sprintf("%d records", l.AtLeast)
	case l.AtMost != Unknown:
		return fmt.Sprintf("%d to %d records", l.AtLeast, l.AtMost)
	case l.Estimate != Unknown && l.Estimate > l.AtLeast:
		return fmt.Sprintf("at least %d records, open; about %d by estimate", l.AtLeast, l.Estimate)
	}
	return fmt.Sprintf("at least %d records, open", l.AtLeast)
}

// Bounded is a Link whose target has offsets of its own, and that finds out by comparing records how far it got (P18).
type Bounded interface {
	// Boundaries fills in the Boundary of marks whose mirrors have stopped or are sealed; the target counts up to the mark's
	// TargetEnd. Both clusters must answer. A *Partial names marks that were left open; they keep theirs.
	Boundaries(ctx context.Context, marks []Mark) ([]Mark, error)
}

// Known is all that is known of one partition whose mirror stops, or would stop now. Offsets are the source's own, or
// Unknown.
type Known struct {
	Partition
	Held    int64     // of the first record that the target has not
	Hint    bool      // Held is the link's claim, and the target may have more, or less (P17)
	Seen    int64     // the source's end in the last sample in which both ends were seen
	Sampled time.Time // of that sample; zero: there is none
	Rate    float64   // records a second that the source took before; negative is unknown
	End     int64     // the source's end, if it answers now
	Fenced  bool      // End was read behind the fence
	Gone    bool      // the source came back without the topic, or with another under its name: nobody can read its end any more
	Newest  time.Time // of the newest record that the target has; zero: not known
	Size    int64     // bytes of an average record; Unknown
}

// kind is how a loss is known.
type kind int

const (
	compared   kind = iota // the source was read behind its fence
	notFenced              // the source was read, but takes records
	sampled                // the source is gone; it was seen before
	neverSeen              // nobody ever saw both ends
	vanished               // the source came back without it
	hinted                 // what the target has is the link's own claim
	heldByNone             // not even that is known
)

// Losses judges partitions, over all of them and by topic, the worst first. Lost in time counts up to the outage.
func Losses(known []Known, outage time.Time) (total Loss, topics []TopicLoss) {
	sums := map[string]*sum{}
	all := newSum()
	for _, k := range known {
		l, how := k.loss(outage)
		if sums[k.Topic] == nil {
			sums[k.Topic] = newSum()
		}
		sums[k.Topic].add(l, how, k.Sampled)
		all.add(l, how, k.Sampled)
	}
	for name, s := range sums {
		topics = append(topics, TopicLoss{name, s.loss()})
	}
	slices.SortFunc(topics, func(a, b TopicLoss) int {
		worst := func(l Loss) int64 { return max(l.AtLeast, l.Estimate) }
		if worst(a.Loss) != worst(b.Loss) {
			return int(min(1, max(-1, worst(b.Loss)-worst(a.Loss))))
		}
		return strings.Compare(a.Topic, b.Topic)
	})
	return all.loss(), topics
}

// loss is that of one partition. Its Why is left to the sum.
func (k Known) loss(outage time.Time) (l Loss, how kind) {
	l = Loss{AtMost: Unknown, Estimate: Unknown, Bytes: Unknown, Seconds: k.seconds(outage)}
	end := k.Seen
	switch {
	case k.Held == Unknown:
		how = heldByNone
	case k.Gone:
		how = vanished
	case k.Hint:
		how = hinted
	case k.End != Unknown && k.Fenced:
		how = compared
	case k.End != Unknown:
		how = notFenced
	case !k.Sampled.IsZero() && k.Seen != Unknown:
		how = sampled
	default:
		how = neverSeen
	}
	if k.End != Unknown {
		end = k.End
	}
	behind := Unknown
	if k.Held != Unknown && end != Unknown {
		behind = max(0, end-k.Held)
	}
	switch how {
	case compared:
		l.AtLeast, l.AtMost, l.Estimate = behind, behind, behind
		if behind == 0 {
			l.Seconds = 0
		}
	case notFenced:
		l.AtLeast, l.Estimate = behind, behind
	case sampled, vanished:
		if behind != Unknown {
			l.AtLeast = behind
		}
		if k.Hint { // less may be missing than the link's claim says
			l.AtLeast = 0
		}
		if k.Seen != Unknown && k.Rate >= 0 && outage.After(k.Sampled) {
			l.Estimate = max(0, k.Seen+int64(k.Rate*outage.Sub(k.Sampled).Seconds())-k.Held)
		}
	case hinted:
		l.Estimate = behind
	}
	if k.Size != Unknown || l.AtLeast == 0 {
		l.Bytes = l.AtLeast * max(k.Size, 0)
	}
	return l, how
}

// seconds is how old the newest record is that the target has, seen from the outage. A sample at which the target had
// all bounds it as well: a topic on which nobody writes has lost no time.
func (k Known) seconds(outage time.Time) float64 {
	s := -1.0
	if !k.Newest.IsZero() {
		s = max(0, outage.Sub(k.Newest).Seconds())
	}
	if !k.Hint && !k.Sampled.IsZero() && k.Held != Unknown && k.Seen != Unknown && k.Held >= k.Seen {
		if since := max(0, outage.Sub(k.Sampled).Seconds()); s < 0 || since < s {
			s = since
		}
	}
	return s
}

// sum adds up losses. One that is unknown makes the sum unknown.
type sum struct {
	of     Loss
	kinds  map[kind]int
	oldest time.Time
}

func newSum() *sum { return &sum{kinds: map[kind]int{}} }

func (s *sum) add(l Loss, how kind, at time.Time) {
	s.kinds[how]++
	if how == sampled && (s.oldest.IsZero() || at.Before(s.oldest)) {
		s.oldest = at
	}
	plus := func(a, b int64) int64 {
		if a == Unknown || b == Unknown {
			return Unknown
		}
		return a + b
	}
	s.of.AtLeast += l.AtLeast
	s.of.AtMost, s.of.Estimate, s.of.Bytes = plus(s.of.AtMost, l.AtMost), plus(s.of.Estimate, l.Estimate), plus(s.of.Bytes, l.Bytes)
	switch {
	case s.of.Seconds < 0 || l.Seconds < 0:
		s.of.Seconds = -1
	case l.Seconds > s.of.Seconds:
		s.of.Seconds = l.Seconds
	}
}

func (s *sum) loss() Loss {
	l := s.of
	if len(s.kinds) == 0 {
		return Loss{AtMost: Unknown, Estimate: Unknown, Bytes: Unknown, Seconds: -1, Why: "no partition is known"}
	}
	var why []string
	for _, w := range []struct {
		kind
		text string
	}{
		{compared, "compared with the source behind its fence"},
		{notFenced, "the source was read but is not fenced: whoever is cut off may write there until it is"},
		{sampled, "the source is out of reach, both ends were last seen at " + s.oldest.UTC().Format(time.RFC3339) + ": what came after that is not known"},
		{neverSeen, "the source is out of reach and no sample shows both ends: what it had is not known"},
		{vanished, "the source came back without the topic: what was stranded in it is lost for ever, and how much that was is known only as far as it was seen before"},
		{hinted, "what the target has is only the link's own claim, until both sides are compared"},
		{heldByNone, "what the target has of the source is not known"},
	} {
		if n := s.kinds[w.kind]; n > 0 {
			why = append(why, fmt.Sprintf("%d partitions: %s", n, w.text))
		}
	}
	l.Why = strings.Join(why, "; ")
	return l
}
