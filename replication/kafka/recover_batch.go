package kafka

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"

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

// firstBatch reads the batch that in begins with; n is its length, 0 when in holds no whole one.
func firstBatch(in []byte) (b kmsg.RecordBatch, n int, err error) {
	if len(in) < shortestBatchHead {
		return b, 0, nil
	}
	n = int(int32(binary.BigEndian.Uint32(in[8:]))) + sizeAt //nolint:gosec // a length of the format, checked below
	if n < shortestBatchHead || n > len(in) {
		return b, 0, nil
	}
	if in[16] != magicOfBatches {
		return b, n, nil
	}
	if err := b.ReadFrom(in[:n]); err != nil {
		return b, 0, fmt.Errorf("%w: a batch of records that cannot be read: %w", fault.ErrInvalid, err)
	}
	if sum := crc32.Checksum(in[checkedFrom:n], castagnoli); sum != uint32(b.CRC) { //nolint:gosec // bits of a checksum
		return b, 0, fmt.Errorf("%w: the batch at offset %d does not match its checksum", fault.ErrInvalid, b.FirstOffset)
	}
	if b.NumRecords < 0 || b.LastOffsetDelta < 0 {
		return b, 0, fmt.Errorf("%w: the batch at offset %d says that it holds %d records", fault.ErrInvalid, b.FirstOffset, b.NumRecords)
	}
	return b, n, nil
}

// behind is the offset after the last whole batch of an answer, or from when there is none.
func behind(in []byte, from int64) (int64, error) {
	for next := from; ; {
		b, n, err := firstBatch(in)
		if err != nil || n == 0 {
			return next, err
		}
		last := b.FirstOffset + int64(b.LastOffsetDelta)
		if in[16] != magicOfBatches {
			last = int64(binary.BigEndian.Uint64(in)) //nolint:gosec // an offset of the format
		}
		next, in = max(next, last+1), in[n:]
	}
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

// appendBytes writes bytes with their length before them.
func appendBytes(to, b []byte) []byte { return append(binary.AppendVarint(to, int64(len(b))), b...) }

func appendHeader(to []byte, key, value string) []byte {
	to = append(binary.AppendVarint(to, int64(len(key))), key...)
	return append(binary.AppendVarint(to, int64(len(value))), value...)
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

// packer writes batches; it is used by one goroutine.
type packer struct {
	stamp   func(to []byte, r *record) []byte // appends the headers that a copy gets; nil for none
	stamps  int64                             // how many
	one     []byte
	plain   []byte
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

// pack writes as many of the records into a batch as fit into limit bytes before they are compressed, at least one.
func (p *packer) pack(records []record, limit int, codec kgo.CompressionCodecType) packed {
	p.plain = p.plain[:0]
	base, newest, n := records[0].at, int64(math.MinInt64), 0
	for i := range records {
		r := &records[i]
		p.one = append(p.one[:0], 0)
		p.one = binary.AppendVarint(p.one, r.at-base)
		p.one = binary.AppendVarint(p.one, int64(i))
		p.one = append(p.one, r.pair...)
		p.one = binary.AppendVarint(p.one, r.count+p.stamps)
		p.one = append(p.one, r.headers...)
		if p.stamp != nil {
			p.one = p.stamp(p.one, r)
		}
		if i > 0 && batchOverhead+len(p.plain)+len(p.one)+binary.MaxVarintLen32 > limit {
			break
		}
		p.plain = append(binary.AppendVarint(p.plain, int64(len(p.one))), p.one...)
		newest, n = max(newest, r.at), n+1
	}
	body, used := p.plain, kgo.CodecNone
	if c := compressors[codec]; c != nil {
		p.squeeze.Reset()
		if small, did := c.Compress(&p.squeeze, p.plain); did == codec && len(small) < len(body) {
			body, used = small, codec
		}
	}
	out := make([]byte, batchOverhead, batchOverhead+len(body))
	out = append(out, body...)
	be := binary.BigEndian
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

// sign fills in who sends the batch, with which sequence number, and the checksum over it all.
func (b packed) sign(producer int64, epoch int16, sequence int32) {
	be := binary.BigEndian
	be.PutUint64(b.bytes[43:], uint64(producer)) //nolint:gosec // bits
	be.PutUint16(b.bytes[51:], uint16(epoch))    //nolint:gosec // bits
	be.PutUint32(b.bytes[53:], uint32(sequence)) //nolint:gosec // bits
	be.PutUint32(b.bytes[17:], crc32.Checksum(b.bytes[checkedFrom:], castagnoli))
}
