package kafka

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"switchback/internal/fault"
	"switchback/replication"
)

const (
	// pieceBytes is how much of a tail is handled as one, roughly: a batch or two of the new cluster's.
	pieceBytes   = 1 << 20
	pieceRecords = 1 << 14
	// heldBack is how many empty answers, of fetchWait each, are borne while a transaction holds the tail's end back.
	heldBack = 40
)

// piece is a stretch of a tail: what lies between the end of the one before and next.
type piece struct {
	records []record
	next    int64
	tally   replication.Tally // of the offsets that are none of records
	codec   kgo.CompressionCodecType
	size    int64 // of the records, roughly, as they are written
}

func (p *piece) reset() *piece {
	clear(p.records)
	*p = piece{records: p.records[:0]}
	return p
}

// tailReader reads one tail with read_committed, and accounts for each of its offsets.
type tailReader struct {
	c        *Cluster
	of       replication.Partition
	next, to int64
	most     int    // records in a piece
	each     int64  // bytes that a record counts for besides its own
	held     *piece // that is being filled
	unpack   kgo.Decompressor
	spare    chan *piece // pieces that were handled, to be filled again
}

func (c *Cluster) tail(of replication.Partition, from, to int64) *tailReader {
	return &tailReader{c: c, of: of, next: from, to: to, held: &piece{}, most: pieceRecords, unpack: kgo.DefaultDecompressor(), spare: make(chan *piece, 4)}
}

// answer of the old cluster, or the news that everything before expired is gone.
type answer struct {
	got     *kmsg.FetchResponseTopicPartition
	old     bool // in a format of before batches, at least in part
	expired int64
}

// pieces fetches, takes apart and hands on, each at the same time as the next; do runs in the caller's goroutine and owns
// its piece until it returns. It ends with the tail, or with the first error.
func (t *tailReader) pieces(ctx context.Context, do func(*piece) error) error {
	if t.next >= t.to {
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	answers, pieces, ended := make(chan answer), make(chan *piece, 1), make(chan struct{}, 2)
	go func() {
		defer func() { ended <- struct{}{} }()
		defer close(answers)
		if err := t.fetchAll(ctx, t.next, func(a answer) error { return send(ctx, answers, a) }); err != nil {
			cancel(err)
		}
	}()
	go func() {
		defer func() { ended <- struct{}{} }()
		defer close(pieces)
		for a := range answers {
			if ctx.Err() != nil {
				continue // a piece behind one that failed would leave a gap
			}
			if err := t.takeApart(a, func(p *piece) error { return send(ctx, pieces, p) }); err != nil {
				cancel(err)
			}
		}
		if ctx.Err() != nil {
			return
		}
		t.held.tally.Blank += t.to - t.next // nothing is there any more: compaction took it
		t.next, t.held.next = t.to, t.to
		_ = send(ctx, pieces, t.held)
	}()
	var err error
	for p := range pieces {
		if err == nil && ctx.Err() == nil {
			if err = do(p); err != nil {
				cancel(err)
			}
		}
		select {
		case t.spare <- p.reset():
		default:
		}
	}
	<-ended
	<-ended
	if err == nil {
		err = context.Cause(ctx)
	}
	return err
}

func send[T any](ctx context.Context, to chan<- T, v T) error {
	select {
	case to <- v:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

func (t *tailReader) blank() *piece {
	select {
	case p := <-t.spare:
		return p
	default:
		return &piece{}
	}
}

// fetchAll asks for the tail, answer by answer.
func (t *tailReader) fetchAll(ctx context.Context, from int64, each func(answer) error) error {
	doing := "read " + t.of.Name()
	var at leader
	for try, known, empty := 0, false, 0; from < t.to; {
		if ctx.Err() != nil {
			return t.c.fail(doing, context.Cause(ctx), reading)
		}
		if !known {
			led, err := t.c.leaderOf(ctx, t.of)
			if err != nil {
				return err
			}
			at, known = led, true
		}
		got, wait, err := t.c.fetchRaw(ctx, at, from, true, pieceBytes)
		if err == nil {
			err = kerr.ErrorForCode(got.ErrorCode)
		}
		if errors.Is(err, kerr.OffsetOutOfRange) {
			if from, err = t.expired(ctx, from, each); err != nil {
				return err
			}
			continue
		}
		if errors.Is(translate(err, reading), fault.ErrNotReady) && try < lookAttempts && pause(ctx, try) {
			try, known = try+1, false // the leader moved
			continue
		}
		if err != nil {
			return t.c.fail(doing, err, reading)
		}
		try = 0
		next, old := behind(got.RecordBatches, from)
		switch {
		case next > from:
			if err := each(answer{got: got, old: old}); err != nil {
				return err
			}
			from, empty = next, 0
		case len(got.RecordBatches) > 0:
			return t.c.fail(doing, fmt.Errorf("%w: the broker sent %d bytes that hold no whole batch at offset %d", fault.ErrInvalid, len(got.RecordBatches), from), reading)
		case wait: // held back by a quota
		case got.HighWatermark < t.to:
			return t.c.fail(doing, fmt.Errorf("%w: the log ends at %d, before %d where the tail was seen to end", fault.ErrConflict, got.HighWatermark, t.to), reading)
		case got.LastStableOffset >= t.to:
			return nil
		default:
			if empty++; empty > heldBack {
				return t.c.fail(doing, fault.Hint(fmt.Errorf("%w: a transaction is open at offset %d, before the tail's end %d", fault.ErrNotReady, got.LastStableOffset, t.to),
					"end or abort it first"), reading)
			}
		}
	}
	return nil
}

// expired finds out how much is gone from the beginning of the log, and where to go on.
func (t *tailReader) expired(ctx context.Context, from int64, each func(answer) error) (int64, error) {
	ends, err := t.c.Ends(ctx, []string{t.of.Topic})
	i := slices.IndexFunc(ends, func(e replication.Ends) bool { return e.Partition == t.of })
	if i < 0 || ends[i].Start == replication.Unknown {
		if err == nil {
			err = t.c.fail("read the ends of "+t.of.Name(), fmt.Errorf("%w: there is no such partition", fault.ErrNotFound), reading)
		}
		return from, err
	}
	start := ends[i].Start
	if start <= from {
		return from, t.c.fail("read "+t.of.Name(), fmt.Errorf("%w: offset %d lies beyond the end of the log, which ends at %d", fault.ErrConflict, from, ends[i].LogEnd), reading)
	}
	start = min(start, t.to)
	return start, each(answer{expired: start})
}
