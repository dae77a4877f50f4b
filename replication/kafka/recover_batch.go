package kafka

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"math/bits"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"switchback/internal/fault"
)

// Record batches (Kafka's message format 2) are read and written here byte by byte: keys, values and headers pass from
// one log to the other without being taken apart, which is both what "byte for byte" means and what makes it fast.

const (
	batchOverhead = 61 // bytes of a batch before its records
	sizeAt        = 12 // where what the batch's length counts begins
	checkedFrom   = 21 // where what the checksum covers begins

	codecBits         = 0x07
	appendTimeBit     = 0x08
	transactionalBit  = 0x10
	controlBit        = 0x20
	magicOfBatches    = 2
	shortestBatchHead = 17 // up to and with the magic byte, the same in all formats
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// record of a log. Its slices lie in what was fetched.
type record struct {
	offset  int64
	at      int64  // milliseconds
	key     []byte // nil is null
	pair    []byte // key and value as they lie in the log, with their lengths
	headers []byte // as they lie in the log, without their number
	count   int64  // of headers
	size    int64  // bytes of key, value and headers
}

// spanOf the batch that in begins with: its length, 0 when in holds no whole one, and the offset after its last record.
// Formats older than batches say the last offset where batches say the first.
func spanOf(in []byte) (length int, next int64) {
	if len(in) < shortestBatchHead {
		return 0, 0
	}
	be := binary.BigEndian
	length = int(int32(be.Uint32(in[8:]))) + sizeAt //nolint:gosec // a length of the format, checked here
	if length < shortestBatchHead || length > len(in) {
		return 0, 0
	}
	next = int64(be.Uint64(in)) + 1 //nolint:gosec // an offset of the format
	if in[16] == magicOfBatches {
		if length < batchOverhead {
			return 0, 0
		}
		next += int64(be.Uint32(in[23:]))
	}
	return length, next
}

// behind is the offset after the last whole batch of an answer, or from when there is none; old says that some of it is
// in a format of before batches.
func behind(in []byte, from int64) (next int64, old bool) {
	for next = from; ; {
		n, after := spanOf(in)
		if n == 0 {
			return next, old
		}
		old = old || in[16] != magicOfBatches
		next, in = max(next, after), in[n:]
	}
}

// readBatch reads and checks a batch that spanOf has found.
func readBatch(in []byte) (b kmsg.RecordBatch, err error) {
	if err := b.ReadFrom(in); err != nil {
		return b, fmt.Errorf("%w: a batch of records that cannot be read: %w", fault.ErrInvalid, err)
	}
	if sum := crc32.Checksum(in[checkedFrom:], castagnoli); sum != uint32(b.CRC) { //nolint:gosec // bits of a checksum
		return b, fmt.Errorf("%w: the batch at offset %d does not match its checksum", fault.ErrInvalid, b.FirstOffset)
	}
	if b.NumRecords < 0 || b.LastOffsetDelta < 0 {
		return b, fmt.Errorf("%w: the batch at offset %d says that it holds %d records", fault.ErrInvalid, b.FirstOffset, b.NumRecords)
	}
	return b, nil
}

// eachRecord hands the records of a batch to each, in order.
func eachRecord(b *kmsg.RecordBatch, unpack kgo.Decompressor, each func(record)) error {
	in := b.Records
	if codec := kgo.CompressionCodecType(b.Attributes & codecBits); codec != kgo.CodecNone {
		var err error
		if in, err = unpack.Decompress(in, codec); err != nil {
			return fmt.Errorf("%w: the batch at offset %d cannot be decompressed: %w", fault.ErrInvalid, b.FirstOffset, err)
		}
	}
	for range b.NumRecords {
		r, rest, ok := parse(in)
		if !ok {
			return fmt.Errorf("%w: the batch at offset %d holds a record that cannot be read", fault.ErrInvalid, b.FirstOffset)
		}
		r.offset += b.FirstOffset
		r.at += b.FirstTimestamp
		if b.Attributes&appendTimeBit != 0 {
			r.at = b.MaxTimestamp
		}
		each(r)
		in = rest
	}
	return nil
}

// parse reads the record that in begins with; its offset and time are still relative to the batch.
func parse(in []byte) (r record, rest []byte, ok bool) {
	length, n := binary.Varint(in)
	if n <= 0 || length < 1 || length > int64(len(in)-n) {
		return r, nil, false
	}
	in, rest = in[n:n+int(length)], in[n+int(length):]
	c := cursor{in: in[1:], ok: true} // one byte of attributes that nothing uses
	r.at, r.offset = c.varint(), c.varint()
	pair := c.in
	r.key = c.bytes()
	value := c.bytes()
	if !c.ok {
		return r, nil, false
	}
	r.pair = pair[:len(pair)-len(c.in)]
	r.size = int64(len(r.key) + len(value))
	r.count = c.varint()
	r.headers = c.in
	for range r.count {
		r.size += int64(len(c.bytes()))
		r.size += int64(len(c.bytes()))
		if !c.ok {
			return r, nil, false
		}
	}
	r.headers = r.headers[:len(r.headers)-len(c.in)]
	return r, rest, c.ok && r.count >= 0
}

// cursor reads what Kafka writes with variable lengths. After a failure ok is false, and it reads nothing.
type cursor struct {
	in []byte
	ok bool
}

func (c *cursor) varint() int64 {
	v, n := binary.Varint(c.in)
	if n <= 0 {
		c.ok, c.in = false, nil
		return 0
	}
	c.in = c.in[n:]
	return v
}

// bytes with their length before them; nil is null.
func (c *cursor) bytes() []byte {
	n := c.varint()
	switch {
	case !c.ok || n > int64(len(c.in)):
		c.ok, c.in = false, nil
		return nil
	case n < 0:
		return nil
	}
	out := c.in[:n:n]
	c.in = c.in[n:]
	return out
}

// hasHeader says whether a record carries a header of that key.
func (r *record) hasHeader(key string) bool {
	c := cursor{in: r.headers, ok: true}
	for range r.count {
		if k := c.bytes(); c.ok && string(k) == key {
			return true
		}
		c.bytes()
	}
	return false
}

// appendBytes writes bytes with their length before them, which is -1 for null.
func appendBytes(to, b []byte) []byte {
	if b == nil {
		return binary.AppendVarint(to, -1)
	}
	return append(binary.AppendVarint(to, int64(len(b))), b...)
}

// plainRecord is a record of our own.
func plainRecord(key, value []byte, at int64) record {
	return record{key: key, pair: appendBytes(appendBytes(nil, key), value), at: at}
}

// packed is a batch as it is sent: complete but for who sends it.
type packed struct {
	bytes   []byte
	records int32
}

// packer writes batches; it is used by one goroutine, and by one batch at a time.
type packer struct {
	stamp   *stamper // nil for records that get no headers
	out     []byte   // the batch
	squeeze bytes.Buffer
}

// compressors by their codec; gzip, snappy, lz4, zstd.
var compressors = func() map[kgo.CompressionCodecType]kgo.Compressor {
	all := map[kgo.CompressionCodecType]kgo.Compressor{}
	for codec, c := range map[kgo.CompressionCodecType]kgo.CompressionCodec{kgo.CodecGzip: kgo.GzipCompression(),
		kgo.CodecSnappy: kgo.SnappyCompression(), kgo.CodecLz4: kgo.Lz4Compression(), kgo.CodecZstd: kgo.ZstdCompression()} {
		if made, err := kgo.DefaultCompressor(c); err == nil {
			all[codec] = made
		}
	}
	return all
}()

// pack writes as many of the records into a batch as fit into limit bytes before they are compressed, at least one. The
// batch is good until the next.
func (p *packer) pack(records []record, limit int, codec kgo.CompressionCodecType) packed {
	p.out = append(p.out[:0], make([]byte, batchOverhead)...)
	base, newest, n := records[0].at, int64(math.MinInt64), 0
	for i := range records {
		r := &records[i]
		size := p.sizeOf(r, r.at-base, int64(i))
		if i > 0 && len(p.out)+size+binary.MaxVarintLen32 > limit {
			break
		}
		p.out = binary.AppendVarint(p.out, int64(size))
		p.out = append(p.out, 0)
		p.out = binary.AppendVarint(p.out, r.at-base)
		p.out = binary.AppendVarint(p.out, int64(i))
		p.out = append(p.out, r.pair...)
		p.out = binary.AppendVarint(p.out, r.count+p.stamp.count())
		p.out = append(p.out, r.headers...)
		p.out = p.stamp.append(p.out, r)
		newest, n = max(newest, r.at), n+1
	}
	used := kgo.CodecNone
	if c := compressors[codec]; c != nil {
		p.squeeze.Reset()
		if small, did := c.Compress(&p.squeeze, p.out[batchOverhead:]); did == codec && len(small) < len(p.out)-batchOverhead {
			p.out, used = append(p.out[:batchOverhead], small...), codec
		}
	}
	out, be := p.out, binary.BigEndian
	be.PutUint32(out[8:], uint32(len(out)-sizeAt)) //nolint:gosec // limit bounds it
	be.PutUint32(out[12:], math.MaxUint32)         // the leader's epoch, which the broker fills in
	out[16] = magicOfBatches
	be.PutUint16(out[21:], uint16(used)|transactionalBit) //nolint:gosec // three bits
	be.PutUint32(out[23:], uint32(n-1))                   //nolint:gosec // limit bounds it
	be.PutUint64(out[27:], uint64(base))                  //nolint:gosec // bits
	be.PutUint64(out[35:], uint64(newest))                //nolint:gosec // bits
	be.PutUint32(out[57:], uint32(n))                     //nolint:gosec // limit bounds it
	return packed{out, int32(n)}                          //nolint:gosec // limit bounds it
}

// sizeOf a record in a batch, without the length before it.
func (p *packer) sizeOf(r *record, time, offset int64) int {
	return 1 + varintSize(time) + varintSize(offset) + len(r.pair) + varintSize(r.count+p.stamp.count()) + len(r.headers) + p.stamp.size(r)
}

// varintSize is how many bytes a number takes: seven bits in each.
func varintSize(v int64) int {
	return (bits.Len64(uint64(v<<1^v>>63)|1) + 6) / 7 //nolint:gosec // bits
}

// sign fills in who sends the batch, with which sequence number, and the checksum over it all.
func (b packed) sign(producer int64, epoch int16, sequence int32) {
	be := binary.BigEndian
	be.PutUint64(b.bytes[43:], uint64(producer)) //nolint:gosec // bits
	be.PutUint16(b.bytes[51:], uint16(epoch))    //nolint:gosec // bits
	be.PutUint32(b.bytes[53:], uint32(sequence)) //nolint:gosec // bits
	be.PutUint32(b.bytes[17:], crc32.Checksum(b.bytes[checkedFrom:], castagnoli))
}
