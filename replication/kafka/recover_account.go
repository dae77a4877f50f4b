package kafka

import (
	"errors"
	"slices"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// takeApart accounts for the offsets of an answer. A piece goes from one answer into the next until it is full.
func (t *tailReader) takeApart(a answer, emit func(*piece) error) error {
	if a.expired > 0 {
		t.held.tally.Expired += a.expired - t.next
		t.next, t.held.next = a.expired, a.expired
		return nil
	}
	if a.old {
		return t.takeOld(a.got, emit)
	}
	in := a.got.RecordBatches
	aborted := undone(a.got.AbortedTransactions)
	for t.next < t.to {
		n, _ := spanOf(in)
		if n == 0 {
			break
		}
		b, err := readBatch(in[:n])
		if err != nil {
			return t.c.fail("read "+t.of.Name(), err, reading)
		}
		if err := t.takeBatch(&b, aborted, emit); err != nil {
			return err
		}
		in = in[n:]
	}
	return nil
}

// takeBatch accounts for a batch.
func (t *tailReader) takeBatch(b *kmsg.RecordBatch, aborted undoneBy, emit func(*piece) error) error {
	control, undone := b.Attributes&controlBit != 0, aborted.has(b)
	if !control && !undone {
		t.held.codec = kgo.CompressionCodecType(b.Attributes & codecBits)
	}
	var failed error
	err := eachRecord(b, t.unpack, func(r record) {
		if control {
			aborted.end(b, &r)
		}
		if r.offset < t.next || r.offset >= t.to || failed != nil {
			return
		}
		t.blankUpTo(r.offset)
		switch {
		case control:
			t.blankUpTo(r.offset + 1)
		case undone:
			t.next++
			t.held.next, t.held.tally.Aborted = t.next, t.held.tally.Aborted+1
		default:
			failed = t.take(r, emit)
		}
	})
	if err = errors.Join(err, failed); err == nil {
		t.blankUpTo(min(b.FirstOffset+int64(b.LastOffsetDelta)+1, t.to)) // compacted away behind the last record
	}
	return err
}

// blankUpTo accounts for offsets without a record.
func (t *tailReader) blankUpTo(offset int64) {
	if offset > t.next {
		t.held.tally.Blank += offset - t.next
		t.next, t.held.next = offset, offset
	}
}

// take accounts for a record, and hands the piece on when it is full.
func (t *tailReader) take(r record, emit func(*piece) error) error {
	t.next = r.offset + 1
	p := t.held
	p.next, p.records, p.size = t.next, append(p.records, r), p.size+r.size+t.each
	if p.size < pieceBytes-pieceBytes/8 && len(p.records) < t.most {
		return nil
	}
	t.held = t.blank()
	t.held.next, t.held.codec = t.next, p.codec
	return emit(p)
}

// takeOld accounts for an answer in the formats of before Kafka 0.11, which know neither headers nor transactions.
func (t *tailReader) takeOld(got *kmsg.FetchResponseTopicPartition, emit func(*piece) error) error {
	fp, next := kgo.ProcessFetchPartition(kgo.ProcessFetchPartitionOpts{Offset: t.next, IsolationLevel: kgo.ReadCommitted(),
		Topic: t.of.Topic, Partition: t.of.Partition}, got, t.unpack, nil)
	if fp.Err != nil {
		return t.c.fail("read "+t.of.Name(), fp.Err, reading)
	}
	for _, r := range fp.Records {
		if r.Offset >= t.to {
			break
		}
		t.blankUpTo(r.Offset)
		old := plainRecord(r.Key, r.Value, r.Timestamp.UnixMilli())
		old.offset, old.size = r.Offset, int64(len(r.Key)+len(r.Value))
		for _, h := range r.Headers {
			old.headers, old.count = appendBytes(appendBytes(old.headers, []byte(h.Key)), h.Value), old.count+1
			old.size += int64(len(h.Key) + len(h.Value))
		}
		if err := t.take(old, emit); err != nil {
			return err
		}
	}
	t.blankUpTo(min(next, t.to))
	return nil
}

// undoneBy are the transactions of an answer that were aborted: by producer, the offsets where they begin.
type undoneBy map[int64][]int64

func undone(list []kmsg.FetchResponseTopicPartitionAbortedTransaction) undoneBy {
	by := undoneBy{}
	for _, a := range list {
		by[a.ProducerID] = append(by[a.ProducerID], a.FirstOffset)
	}
	for _, begins := range by {
		slices.Sort(begins)
	}
	return by
}

// has says that a batch belongs to a transaction that was aborted.
func (u undoneBy) has(b *kmsg.RecordBatch) bool {
	begins := u[b.ProducerID]
	return b.Attributes&transactionalBit != 0 && len(begins) > 0 && begins[0] <= b.FirstOffset
}

// end of a transaction: the marker's key is a version and a type of two bytes each, and type 0 is an abort.
func (u undoneBy) end(b *kmsg.RecordBatch, r *record) {
	if u.has(b) && len(r.key) >= 4 && r.key[2] == 0 && r.key[3] == 0 {
		u[b.ProducerID] = u[b.ProducerID][1:]
	}
}
