package linkservice

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
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

// Why a batch cannot be mirrored: a fake broker can be given neither markers nor gaps.
var (
	errFormat      = errors.New("message format before v2")
	errTransaction = errors.New("transactional records and markers cannot be mirrored")
	errGap         = errors.New("offsets are missing in the source, such as after compaction")
)

// batch is one record batch as the source's log holds it.
type batch struct {
	base, next int64 // offsets: of its first record, and after its last
	raw        []byte
}

// split cuts what a fetch returned into batches; a last one that is cut off is left for the next fetch.
func split(raw []byte) ([]batch, error) {
	var out []batch
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
		if binary.BigEndian.Uint16(b[atAttribute:])&0x30 != 0 {
			return out, errTransaction
		}
		delta := int32(binary.BigEndian.Uint32(b[atLastDelta:]))
		if int32(binary.BigEndian.Uint32(b[atCount:])) != delta+1 {
			return out, errGap
		}
		base := int64(binary.BigEndian.Uint64(b))
		out = append(out, batch{base, base + int64(delta) + 1, b})
	}
	return out, nil
}

// mirrored is the batch as it is produced to the target: records, timestamps and compression as they are, without a
// producer id, which belongs to the source cluster and could be another producer's on the target.
func (b batch) mirrored() []byte {
	out := append([]byte(nil), b.raw...)
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
