package linkservice

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// Places in a record batch of format 2, the only one there is today.
const (
	atLength    = 8
	atEpoch     = 12
	atMagic     = 16
	atCRC       = 17
	atAttribute = 21
	atLastDelta = 23
	atFirstTime = 27
	atMaxTime   = 35
	atProducer  = 43
	atPEpoch    = 51
	atSequence  = 53
	atCount     = 57
	headerSize  = 61
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Attributes of a batch.
const (
	transactional = 0x10
	control       = 0x20
)

// Why a batch cannot be mirrored: a broker takes no gaps.
var (
	errFormat = errors.New("message format before v2")
	errGap    = errors.New("offsets are missing in the source, such as after compaction")
)

// batch is one record batch as the source's log holds it.
type batch struct {
	base, next int64 // offsets: of its first record, and after its last
	raw        []byte
	// blank says that nobody may read it: a transaction's marker, or records of one that was aborted. Its offsets are taken.
	blank bool
}

// split cuts what a fetch returned into batches; a last one that is cut off is left for the next fetch. aborted are the
// transactions that the answer names as aborted.
func split(raw []byte, aborted []kmsg.FetchResponseTopicPartitionAbortedTransaction) ([]batch, error) {
	var out []batch
	open := map[int64]bool{} // aborted transactions that have begun, by producer
	slices.SortFunc(aborted, func(a, b kmsg.FetchResponseTopicPartitionAbortedTransaction) int {
		return cmp.Compare(a.FirstOffset, b.FirstOffset)
	})
	for len(raw) >= headerSize {
		size := int(int32(binary.BigEndian.Uint32(raw[atLength:]))) + atEpoch
		if size < headerSize {
			return out, fmt.Errorf("record batch of %d bytes", size)
		}
		if size > len(raw) {
			break
		}
		b := raw[:size]
		raw = raw[size:]
		if b[atMagic] != 2 {
			return out, errFormat
		}
		delta := int32(binary.BigEndian.Uint32(b[atLastDelta:]))
		if int32(binary.BigEndian.Uint32(b[atCount:])) != delta+1 {
			return out, errGap
		}
		base, producer := int64(binary.BigEndian.Uint64(b)), int64(binary.BigEndian.Uint64(b[atProducer:]))
		for len(aborted) > 0 && aborted[0].FirstOffset <= base {
			open[aborted[0].ProducerID], aborted = true, aborted[1:]
		}
		attributes := binary.BigEndian.Uint16(b[atAttribute:])
		blank := attributes&control != 0 || attributes&transactional != 0 && open[producer]
		if attributes&control != 0 {
			delete(open, producer)
		}
		out = append(out, batch{base, base + int64(delta) + 1, b, blank})
	}
	return out, nil
}

// mirrored is the batch as it is produced to the target: records, timestamps and compression as they are, without a
// producer id, which belongs to the source cluster and could be another producer's on the target, and so without its transaction,
// which was committed.
func (b batch) mirrored() []byte {
	out := append([]byte(nil), b.raw...)
	binary.BigEndian.PutUint16(out[atAttribute:], binary.BigEndian.Uint16(out[atAttribute:])&^transactional)
	binary.BigEndian.PutUint64(out, 0)
	binary.BigEndian.PutUint32(out[atEpoch:], ^uint32(0))
	return withoutProducer(out)
}

func withoutProducer(out []byte) []byte {
	binary.BigEndian.PutUint64(out[atProducer:], ^uint64(0))
	binary.BigEndian.PutUint16(out[atPEpoch:], ^uint16(0))
	binary.BigEndian.PutUint32(out[atSequence:], ^uint32(0))
	binary.BigEndian.PutUint32(out[atCRC:], crc32.Checksum(out[atAttribute:], castagnoli))
	return out
}

// filler is a batch of n empty records that takes the place of what the source has trimmed; it is deleted at once.
func filler(n int32, now int64) []byte {
	out := make([]byte, headerSize, headerSize+int(n)*9)
	for i := range n {
		body := []byte{0, 0}
		body = binary.AppendVarint(body, int64(i))
		body = binary.AppendVarint(body, -1)
		body = binary.AppendVarint(body, -1)
		body = binary.AppendVarint(body, 0)
		out = binary.AppendVarint(out, int64(len(body)))
		out = append(out, body...)
	}
	binary.BigEndian.PutUint32(out[atLength:], uint32(len(out)-atEpoch))
	binary.BigEndian.PutUint32(out[atEpoch:], ^uint32(0))
	out[atMagic] = 2
	binary.BigEndian.PutUint32(out[atLastDelta:], uint32(n-1))
	binary.BigEndian.PutUint64(out[atFirstTime:], uint64(now))
	binary.BigEndian.PutUint64(out[atMaxTime:], uint64(now))
	binary.BigEndian.PutUint32(out[atCount:], uint32(n))
	return withoutProducer(out)
}
