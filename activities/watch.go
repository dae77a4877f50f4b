package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"switchback/internal/fault"
	"switchback/replication"
	"switchback/runbooks"
)

// Watch samples positions while nothing is wrong, so that a disaster finds fresh numbers.
type Watch struct {
	Outside
	Gauges Gauges // may be nil
}

// Gauges is told of every look, for metrics. Lag is replication.Unknown while no sample says it; times are zero while
// unknown.
type Gauges interface {
	Watched(runbook, from, to string, lag int64, seen, lastAnswer time.Time, silent bool)
}

// WatchInput is for one execution of Sample, which looks again and again until Until. What the execution before found
// is handed on, so that times do not begin anew.
type WatchInput struct {
	Run         Run                `json:"run"`
	Route       Route              `json:"route"`
	Topics      runbooks.Patterns  `json:"topics"`
	Groups      runbooks.Groups    `json:"groups"`
	Discovery   runbooks.Discovery `json:"discovery"` // the required entry
	Epoch       int64              `json:"epoch"`     // a sample counts only while discovery holds it
	Every       time.Duration      `json:"every"`
	SilentAfter time.Duration      `json:"silentAfter"` // looks without an answer for so long make the source silent
	Until       time.Time          `json:"until"`
	Before      WatchResult        `json:"before"`
}

// WatchResult is what is known of one direction. Times are by the worker's clock, zero while unknown.
type WatchResult struct {
	Samples    int        `json:"samples"`              // whole ones that this execution kept
	Seen       time.Time  `json:"seen,omitzero"`        // of the last whole sample
	LastAnswer time.Time  `json:"lastAnswer,omitzero"`  // of the source; an outage began after it
	QuietSince time.Time  `json:"quietSince,omitzero"`  // first look that the source did not answer; zero while it does
	Silent     bool       `json:"silent"`               // for longer than SilentAfter
	Why        string     `json:"why,omitempty"`        // why the last look brought no whole sample
	TargetDead bool       `json:"targetDead,omitempty"` // the target did not answer either: it may be our own network
	Topics     int        `json:"topics"`
	Partitions int        `json:"partitions"`
	Groups     int        `json:"groups"`
	Lag        int64      `json:"lag"`             // records, over the partitions where it is known
	Unknown    int        `json:"unknown"`         // partitions where it is not
	Worst      []TopicLag `json:"worst,omitempty"` // at most fifty, the furthest behind first
	TookMillis int64      `json:"tookMillis"`      // of the last look
	Next       time.Time  `json:"next,omitzero"`   // when the next look is due
}

// TopicLag is how far one topic's mirror is behind.
type TopicLag struct {
	Topic      string  `json:"topic"`
	Partitions int     `json:"partitions"`
	Lag        int64   `json:"lag"`      // records, over the partitions where it is known
	Unknown    int     `json:"unknown"`  // partitions where it is not
	Worst      int32   `json:"worst"`    // the partition that is furthest behind; -1 when none is known
	WorstLag   int64   `json:"worstLag"` // replication.Unknown when none is known
	Rate       float64 `json:"rate"`     // records per second that reach the source
}

const (
	watchedMost  = 50              // topics in a result
	lookAtLeast  = 5 * time.Second // for one look, however short the interval
	lookAtMost   = 10 * time.Second
	betweenLooks = 100 * time.Millisecond
)

// Sample looks at both clusters every so often, and keeps each whole sample in switchback.positions of the target. It
// returns at Until, and at once when the source falls silent or answers again, or with TypeStale when discovery holds
// another epoch: what was seen then is not kept, because the target may be written to already.
func (a *Watch) Sample(ctx context.Context, in WatchInput) (WatchResult, error) {
	ctx, _ = begin(ctx)
	w := &watching{Outside: a.Outside, in: in, out: in.Before}
	w.out.Samples = 0
	for {
		if err := w.wait(ctx); err != nil {
			return w.out, err
		}
		began := time.Now()
		err := w.look(ctx)
		if ctx.Err() != nil {
			return w.out, ctx.Err()
		}
		w.judge(began, err)
		if a.Gauges != nil {
			a.Gauges.Watched(in.Run.Runbook, in.Route.From.Name, in.Route.To.Name, w.lag(), w.out.Seen, w.out.LastAnswer, w.out.Silent)
		}
		if errors.Is(err, fault.ErrStale) {
			return w.out, err
		}
		say(ctx, "%s", w.out.Sentence())
		w.out.Next = began.Add(max(in.Every, betweenLooks))
		if w.out.Silent != in.Before.Silent || !w.out.Next.Before(in.Until) {
			return w.out, nil
		}
	}
}

// wait ends when the next look is due, which the execution before may have said.
func (w *watching) wait(ctx context.Context) error {
	pause := min(time.Until(w.out.Next), w.in.Every) // clocks of workers differ
	if pause <= 0 {
		return ctx.Err()
	}
	select {
	case <-time.After(pause):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Sentence is the result in a line.
func (r WatchResult) Sentence() string {
	switch {
	case r.Silent:
		return "the source does not answer; its last answer was at " + clockTime(r.LastAnswer)
	case r.Why != "":
		return "no whole sample since " + clockTime(r.Seen) + ": " + r.Why
	}
	return fmt.Sprintf("%d records behind in %d partitions, seen at %s", r.Lag, r.Partitions, clockTime(r.Seen))
}

func clockTime(t time.Time) string {
	if t.IsZero() {
		return "a time that nobody saw"
	}
	return t.UTC().Format(time.RFC3339)
}

// watching is one execution.
type watching struct {
	Outside
	in       WatchInput
	out      WatchResult
	groups   []replication.Group // listed once in an execution
	listed   bool
	asked    bool      // whether the source could be asked at all in this look
	answered time.Time // of the source, in this look
}

func (w *watching) lag() int64 {
	if w.out.Seen.IsZero() || w.out.Unknown > 0 && w.out.Unknown == w.out.Partitions {
		return replication.Unknown
	}
	return w.out.Lag
}

// judge draws the conclusions of a look.
func (w *watching) judge(began time.Time, err error) {
	w.out.TookMillis = time.Since(began).Milliseconds()
	w.out.Why = ""
	if err != nil {
		w.out.Why = err.Error()
	}
	if !w.answered.IsZero() {
		w.out.LastAnswer, w.out.QuietSince, w.out.Silent = w.answered, time.Time{}, false
		return
	}
	if !w.asked {
		return // it was not the source that was silent
	}
	if w.out.QuietSince.IsZero() {
		w.out.QuietSince = began
	}
	w.out.Silent = time.Since(w.out.QuietSince) >= w.in.SilentAfter
}

// look takes one sample, and keeps it when it is whole.
func (w *watching) look(ctx context.Context) error {
	w.asked, w.answered, w.out.TargetDead = false, time.Time{}, false
	bounded, cancel := context.WithTimeout(ctx, min(max(w.in.Every, lookAtLeast), lookAtMost))
	defer cancel()
	r, err := w.open(bounded, w.in.Route)
	if err != nil {
		return err
	}
	defer r.close()
	w.asked = true
	rec := r.to.Records(PositionsTopic)
	s, err := w.sample(bounded, r)
	if err == nil {
		err = w.check(bounded, Guard{Run: w.in.Run, Discovery: w.in.Discovery, Epoch: w.in.Epoch})
	}
	if err == nil {
		err = w.write(ctx, func(ctx context.Context) error { return keepSample(ctx, rec, &s) })
	}
	if err == nil {
		w.out.Samples++
		w.out.take(s)
		return nil
	}
	if w.out.Seen.IsZero() && !w.out.TargetDead {
		w.remember(bounded, rec)
	}
	if !w.answered.IsZero() && s.SourceCluster != "" && !w.out.TargetDead && !errors.Is(err, fault.ErrStale) {
		err = errors.Join(err, w.write(ctx, func(ctx context.Context) error {
			return putAnswered(ctx, rec, w.in.Run.Runbook, s.SourceCluster, w.answered)
		}))
	}
	return err
}

// write bounds the writes of one look like those of an attempt (P35a), because an execution goes on for longer.
func (w *watching) write(ctx context.Context, do func(context.Context) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), WriteDeadline)
	defer cancel()
	return do(ctx)
}

// remember takes over what earlier watches kept, when this one has seen nothing yet.
func (w *watching) remember(ctx context.Context, rec Records) {
	s, err := lastSample(ctx, rec, w.in.Run.Runbook, "")
	if err != nil || s.From != w.in.Route.From.Name {
		return // the next look tries again
	}
	w.out.take(s)
	if s.LastAnswer.After(w.out.LastAnswer) {
		w.out.LastAnswer = s.LastAnswer
	}
}

// sample reads where everything is on both clusters. What it returns with an error is not whole.
func (w *watching) sample(ctx context.Context, r *route) (s Sample, err error) {
	var onTarget []replication.Topic
	s = Sample{Runbook: w.in.Run.Runbook, From: w.in.Route.From.Name, To: w.in.Route.To.Name, Epoch: w.in.Epoch,
		SameOffsets: w.in.Route.Link.MirrorMaker == nil}
	err = sideBySide(
		func() error { return wrap("ask "+s.From, w.source(ctx, r.from, &s)) },
		func() (err error) {
			var id replication.Identity
			if id, err = r.to.Identity(ctx); err == nil {
				s.TargetCluster = id.ClusterID
				onTarget, err = r.to.Topics(ctx, w.in.Topics.Match)
			}
			w.out.TargetDead = err != nil
			return wrap("ask "+s.To, err)
		},
	)
	if err != nil {
		return s, err
	}
	s.Seen = time.Now().UTC()
	names := Scope{Topics: s.Topics}.TopicNames()
	there := Scope{Topics: slices.DeleteFunc(onTarget, func(t replication.Topic) bool { _, ok := slices.BinarySearch(names, t.Name); return !ok })}.TopicNames()
	var from, to []replication.Ends
	var mirrors map[string]replication.Mirror
	err = sideBySide(
		func() (err error) {
			from, err = endsOf(ctx, r.from, names)
			return wrap("read the ends of "+s.From, err)
		},
		func() (err error) { to, err = endsOf(ctx, r.to, there); return wrap("read the ends of "+s.To, err) },
		func() (err error) {
			mirrors, err = mirrorStates(ctx, r.link, names)
			if s.SameOffsets {
				return nil // a hint where the ends of both clusters say it
			}
			return err
		},
	)
	if err != nil {
		return s, err
	}
	w.answered = time.Now().UTC()
	s.LastAnswer = w.answered
	s.place(from, to, mirrors)
	return s, s.whole()
}

// source asks the source who it is and what it has. An answer of any kind is an answer.
func (w *watching) source(ctx context.Context, from Kafka, s *Sample) error {
	id, err := from.Identity(ctx)
	if err != nil {
		return err
	}
	w.answered, s.SourceCluster = time.Now().UTC(), id.ClusterID
	if s.Topics, err = from.Topics(ctx, w.in.Topics.Match); err != nil {
		return err
	}
	slices.SortFunc(s.Topics, func(a, b replication.Topic) int { return compare(a.Name, b.Name) })
	if !w.listed {
		if w.groups, err = from.Groups(ctx, w.in.Groups.Match); err != nil {
			return err
		}
		w.listed = true
	}
	s.Groups, s.Reads = groupNames(w.groups), reads(w.groups)
	return nil
}

// endsOf asks nothing for no topics.
func endsOf(ctx context.Context, on Kafka, topics []string) ([]replication.Ends, error) {
	if len(topics) == 0 {
		return nil, nil
	}
	return on.Ends(ctx, topics)
}

// place makes positions of what both clusters and the link say.
func (s *Sample) place(from, to []replication.Ends, mirrors map[string]replication.Mirror) {
	ends := make(map[replication.Partition]int64, len(to))
	for _, e := range to {
		ends[e.Partition] = e.HighWatermark
	}
	fetched := make(map[string]map[int32]int64, len(mirrors))
	for name, m := range mirrors {
		fetched[or(m.SourceTopic, name)] = m.Fetched
	}
	s.Positions = make([]replication.Position, 0, len(from))
	for _, e := range from {
		p := replication.Position{Partition: e.Partition, SourceEnd: e.HighWatermark, Replicated: replication.Unknown, TargetEnd: replication.Unknown, Seen: s.Seen}
		if end, ok := ends[e.Partition]; ok {
			p.TargetEnd = end
		}
		if at, ok := fetched[e.Topic][e.Partition.Partition]; ok {
			p.Replicated = at
		}
		s.Positions = append(s.Positions, p)
	}
	slices.SortFunc(s.Positions, func(a, b replication.Position) int {
		if c := compare(a.Topic, b.Topic); c != 0 {
			return c
		}
		return int(a.Partition.Partition) - int(b.Partition.Partition)
	})
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// take counts a sample.
func (r *WatchResult) take(s Sample) {
	r.Seen, r.Topics, r.Partitions, r.Groups, r.Lag, r.Unknown = s.Seen, len(s.Topics), len(s.Positions), len(s.Groups), 0, 0
	r.Worst = topicLags(s)
	for _, t := range r.Worst {
		r.Lag, r.Unknown = r.Lag+t.Lag, r.Unknown+t.Unknown
	}
	r.Worst = r.Worst[:min(len(r.Worst), watchedMost)]
}

// topicLags lists the topics of a sample, those with partitions of which nothing is known first, then the furthest behind.
func topicLags(s Sample) []TopicLag {
	lags := make([]TopicLag, len(s.Topics))
	at := 0
	for i, t := range s.Topics {
		l := TopicLag{Topic: t.Name, Partitions: t.Partitions, Worst: -1, WorstLag: replication.Unknown, Rate: s.Rates[t.Name]}
		for range t.Partitions {
			p := s.Positions[at]
			at++
			lag := s.Lag(p)
			if lag == replication.Unknown {
				l.Unknown++
				continue
			}
			l.Lag += lag
			if lag > l.WorstLag {
				l.Worst, l.WorstLag = p.Partition.Partition, lag
			}
		}
		lags[i] = l
	}
	slices.SortStableFunc(lags, func(a, b TopicLag) int {
		switch {
		case (a.Unknown > 0) != (b.Unknown > 0):
			if a.Unknown > 0 {
				return -1
			}
			return 1
		case a.Lag != b.Lag:
			if a.Lag > b.Lag {
				return -1
			}
			return 1
		}
		return compare(a.Topic, b.Topic)
	})
	return lags
}
