package kafka

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"switchback/internal/fault"
	"switchback/replication"
)

// Stranded looks at tails of this cluster, which was left, and says what would become of their records: how many there
// are, their bytes, times and offsets, and on compacted topics that are appended how many keys have a newer value on the
// other cluster by now. Keys are kept as hashes while a tail is read, values never. A tail that cannot be read because
// its topic is gone says so in Gone; what an earlier recovery has done is for the caller to add (Recoveries). It reads
// every record: fault.ErrNotReady while a transaction is open before the end of a tail.
func (c *Cluster) Stranded(ctx context.Context, to *Cluster, tails []replication.Tail) ([]replication.Stranded, error) {
	configs, err := c.targets(ctx, to, tails)
	if err != nil {
		return nil, err
	}
	id, err := c.Identity(ctx)
	if err != nil {
		return nil, err
	}
	from := replication.HeaderFrom(id.ClusterID)
	all := make([]replication.Stranded, len(tails))
	var oneAtATime sync.Mutex // tails whose keys are kept
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(sideBySide)
	for i, t := range tails {
		g.Go(func() error {
			s := &scan{c: c, to: to, config: configs[t.Into.Topic], from: from, Stranded: replication.Stranded{Tail: t,
				FirstOffset: replication.Unknown, LastOffset: replication.Unknown}}
			if s.guarded() {
				oneAtATime.Lock()
				defer oneAtATime.Unlock()
			}
			err := s.look(ctx)
			if errors.Is(err, fault.ErrNotFound) {
				s.Gone, s.Tally = err.Error(), replication.Tally{}
				err = nil
			}
			s.note()
			all[i] = s.Stranded
			return err
		})
	}
	return all, g.Wait()
}

// targets are the configs of the topics that records would be appended to, as far as they may be read and are there.
func (c *Cluster) targets(ctx context.Context, to *Cluster, tails []replication.Tail) (map[string]map[string]string, error) {
	var topics []string
	seen := map[string]bool{}
	for _, t := range tails {
		if t.Treatment == replication.TreatAppend && !seen[t.Into.Topic] {
			seen[t.Into.Topic], topics = true, append(topics, t.Into.Topic)
		}
	}
	configs, err := to.TopicConfigs(ctx, topics)
	if errors.Is(err, fault.ErrDenied) || errors.Is(err, fault.ErrNotFound) {
		err = nil
	}
	return configs, err
}

// scan is the look at one tail.
type scan struct {
	replication.Stranded
	c, to  *Cluster
	config map[string]string
	from   string // the header that tells copies of this cluster's records
}

func (s *scan) guarded() bool { return s.Treatment == replication.TreatAppend && s.Compacted }

func (s *scan) look(ctx context.Context) error {
	if s.Treatment == replication.TreatAppend {
		if _, err := s.to.endOf(ctx, s.Into); err != nil {
			return err
		}
	}
	for from := s.From; from < s.To; {
		end, known := s.To, newKeys()
		if s.guarded() {
			var err error
			if known, end, err = s.c.learn(ctx, s.Partition, from, s.To, keysAtOnce); err != nil {
				return err
			}
			ends, err := s.to.endOf(ctx, s.Into)
			if err != nil {
				return err
			}
			if err := known.look(ctx, s.to, s.Into, max(s.Since, ends.Start), ends.HighWatermark, func(r *record) bool {
				return r.hasHeader(s.from)
			}); err != nil {
				return err
			}
		}
		if err := s.c.tail(s.Partition, from, end).pieces(ctx, func(p *piece) error { s.add(p, known); return nil }); err != nil {
			return err
		}
		from = end
	}
	return nil
}

func (s *scan) add(p *piece, known *keys) {
	s.Tally = s.Plus(p.tally)
	limit, err := strconv.ParseInt(s.config["max.message.bytes"], 10, 64)
	for i := range p.records {
		r := &p.records[i]
		s.Bytes += r.size
		if s.FirstOffset == replication.Unknown {
			s.FirstOffset = r.offset
		}
		s.LastOffset = r.offset
		if at := time.UnixMilli(r.at).UTC(); s.First.IsZero() || at.Before(s.First) {
			s.First = at
		}
		if at := time.UnixMilli(r.at).UTC(); at.After(s.Last) {
			s.Last = at
		}
		switch {
		case !s.Treatment.Copies():
			s.Left++
			continue
		case known.outdated(r):
			s.Superseded++
			continue
		}
		s.Recovered++
		if err == nil && r.size+batchOverhead+replication.HeaderRoom/2 > limit {
			s.Large++
		}
	}
}

// note says what the topic on the other cluster will do to copies.
func (s *scan) note() {
	if s.Treatment != replication.TreatAppend || s.Recovered == 0 {
		return
	}
	if s.config["message.timestamp.type"] == "LogAppendTime" {
		s.Notes = append(s.Notes, fmt.Sprintf("%s stamps records itself (message.timestamp.type=LogAppendTime): copies keep their time in the header %s only", s.Into.Topic, replication.HeaderTimestamp))
	}
	if s.Large > 0 {
		s.Notes = append(s.Notes, fmt.Sprintf("%d records are nearly as large as %s allows (max.message.bytes=%s): for the headers of their copies it is raised by %d bytes until they are copied",
			s.Large, s.Into.Topic, s.config["max.message.bytes"], replication.HeaderRoom))
	}
}
