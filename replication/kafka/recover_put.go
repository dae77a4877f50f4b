package kafka

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/internal/fault"
	"switchback/replication"
)

// span is where copies lie in the log of the other cluster.
type span struct{ first, last int64 }

// handle writes a piece's records, and accounts for all of its offsets.
func (r *recovery) handle(ctx context.Context, t *copying, p *piece) (span, error) {
	wrote := span{replication.Unknown, replication.Unknown}
	now := t.now
	now.Tally = now.Tally.Plus(p.tally)
	now.Next, now.Run = p.next, r.job.Run
	if !now.Treatment.Copies() {
		now.Tally.Left += int64(len(p.records))
		t.now = now
		return wrote, nil
	}
	codec := t.codec
	if codec == asIs {
		codec = p.codec
	}
	still, cancel := grace(ctx)
	defer cancel()
	put := putting{r: r, t: t, now: &now, wrote: &wrote, codec: codec}
	if err := put.all(still, p.records); err != nil {
		return wrote, err
	}
	t.now = now
	return wrote, nil
}

// putting is the writing of one piece.
type putting struct {
	r     *recovery
	t     *copying
	now   *replication.Recovered
	wrote *span
	codec kgo.CompressionCodecType
}

// all writes records in their order. A batch that is refused is halved, until the one that is to blame stands alone.
func (p *putting) all(ctx context.Context, records []record) error {
	for len(records) > 0 {
		b := p.t.packer.pack(records, p.t.limit, p.codec)
		n := int(b.records)
		base, err := p.r.tx.write(ctx, p.now.Into, b)
		refused, ok := errors.AsType[refusal](err)
		switch {
		case err == nil:
			p.count(records[:n], base)
		case !ok:
			return err
		case n > 1:
			if err := p.all(ctx, records[:n/2]); err != nil {
				return err
			}
			n /= 2
		default:
			if err := p.alone(ctx, records[:1], refused); err != nil {
				return err
			}
		}
		records = records[n:]
	}
	return nil
}

// alone tries a record once more that was refused by itself: the headers of a copy make it larger than it was, and
// compressed it may fit.
func (p *putting) alone(ctx context.Context, one []record, refused refusal) error {
	if p.codec == kgo.CodecNone && tooLarge(refused) {
		base, err := p.r.tx.write(ctx, p.now.Into, p.t.packer.pack(one, p.t.limit, kgo.CodecLz4))
		if err == nil {
			p.count(one, base)
			return nil
		}
		if again, ok := errors.AsType[refusal](err); ok {
			refused = again
		} else {
			return err
		}
	}
	p.now.Tally.Refused++
	if len(p.now.Refusals) < namedRefusals {
		why := refused.Error()
		if tooLarge(refused) {
			why += fmt.Sprintf("; with the headers of a copy the record has more bytes than max.message.bytes of %s allows", p.now.Into.Topic)
		}
		p.now.Refusals = append(p.now.Refusals[:len(p.now.Refusals):len(p.now.Refusals)],
			replication.Outcome{Name: "offset " + strconv.FormatInt(one[0].offset, 10), Status: replication.Failed, Reason: why})
	}
	return nil
}

func (p *putting) count(records []record, base int64) {
	n := int64(len(records))
	p.now.Tally.Recovered += n
	for i := range records {
		p.now.Bytes += records[i].size
	}
	if base == replication.Unknown {
		return
	}
	if p.now.FirstCopy == replication.Unknown {
		p.now.FirstCopy = base
	}
	if p.wrote.first == replication.Unknown {
		p.wrote.first = base
	}
	p.now.LastCopy, p.wrote.last = base+n-1, base+n-1
}

// commit writes the progress of what was handled into the transaction and commits it. Nobody else writes meanwhile.
func (r *recovery) commit(ctx context.Context) error {
	var progress []record
	var moved []*copying
	for _, t := range r.tails {
		if t.now.Next == t.committed.Next && t.now.Run == t.committed.Run {
			continue
		}
		if sum := t.now.Tally.Sum(); sum != t.now.Next-t.now.From {
			return r.to.fail("recover "+t.now.Name(), fmt.Errorf("%w: %d offsets are accounted for between %d and %d", fault.ErrInvalid, sum, t.now.From, t.now.Next), reading)
		}
		value, err := json.Marshal(t.now)
		if err != nil {
			return r.to.fail("recover "+t.now.Name(), fmt.Errorf("%w: %w", fault.ErrInvalid, err), reading)
		}
		progress = append(progress, plainRecord([]byte(progressKey(r.job.Tail, t.now.Partition)), value, time.Now().UnixMilli()))
		moved = append(moved, t)
	}
	if len(moved) == 0 {
		return r.tx.end(ctx, false) // what was begun for a piece whose records were all refused
	}
	for own := (packer{}); len(progress) > 0; {
		b := own.pack(progress, MaxValue, kgo.CodecNone)
		if _, err := r.tx.write(ctx, progressPartition, b); err != nil {
			return err
		}
		progress = progress[b.records:]
	}
	if err := r.tx.end(ctx, true); err != nil {
		return err
	}
	for _, t := range moved {
		t.committed = t.now
	}
	if r.told != nil {
		r.told(r.committed())
	}
	return nil
}
