package kafka

import (
	"encoding/binary"
	"hash/crc32"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"pgregory.net/rapid"

	"switchback/replication"
)

func TestABatchHoldsWhatWasPacked(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var records []record
		bytes := rapid.OneOf(rapid.Just([]byte(nil)), rapid.SliceOfN(rapid.Byte(), 0, 300))
		for i := range rapid.IntRange(1, 40).Draw(t, "records") {
			r := plainRecord(bytes.Draw(t, "key"), bytes.Draw(t, "value"), rapid.Int64Range(-1, 1<<45).Draw(t, "time"))
			r.offset = int64(i)
			for range rapid.IntRange(0, 3).Draw(t, "headers") {
				r.headers, r.count = appendBytes(appendBytes(r.headers, []byte("h")), bytes.Draw(t, "header")), r.count+1
			}
			records = append(records, r)
		}
		p := packer{}
		if rapid.Bool().Draw(t, "stamped") {
			p.stamp = newStamper(replication.CopyJob{Cluster: "east-id", Run: "run-1"}, part("orders", 3))
		}
		limit := rapid.IntRange(1, 4000).Draw(t, "limit")
		codec := kgo.CompressionCodecType(rapid.IntRange(0, 4).Draw(t, "codec")) //nolint:gosec // five of them
		b := p.pack(records, limit, codec)
		b.sign(7, 1, 42)
		if len(b.bytes) > limit {
			require.EqualValues(t, 1, b.records, "what does not fit goes alone")
		}
		n, next := spanOf(b.bytes)
		require.Equal(t, len(b.bytes), n)
		require.EqualValues(t, b.records, next)
		read, err := readBatch(b.bytes)
		require.NoError(t, err)
		require.EqualValues(t, 42, read.FirstSequence)
		i := 0
		require.NoError(t, eachRecord(&read, kgo.DefaultDecompressor(), func(r record) {
			want := records[i]
			require.Equal(t, want.at, r.at)
			require.EqualValues(t, i, r.offset)
			require.Equal(t, want.pair, r.pair)
			require.Equal(t, want.key == nil, r.key == nil)
			require.Equal(t, want.count+p.stamp.count(), r.count)
			require.Equal(t, string(want.headers), string(r.headers[:len(want.headers)]))
			require.Equal(t, p.stamp != nil, r.hasHeader(replication.HeaderFrom("east-id")))
			i++
		}))
		require.EqualValues(t, b.records, i)
		b.bytes[len(b.bytes)-1] ^= 1
		_, err = readBatch(b.bytes)
		require.ErrorContains(t, err, "checksum")
	})
}

func TestVarintSizeIsWhatIsWritten(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for range 10_000 {
		v := int64(rnd.Uint64()) >> rnd.IntN(64) //nolint:gosec // any number will do
		require.Len(t, binary.AppendVarint(nil, v), varintSize(v), "%d", v)
	}
	require.Equal(t, 1, varintSize(0))
}

func FuzzBatchesOfStrangers(f *testing.F) {
	p := packer{}
	b := p.pack([]record{plainRecord([]byte("k"), []byte("v"), 1)}, batchLimit, kgo.CodecZstd)
	b.sign(1, 1, 1)
	f.Add(b.bytes)
	f.Fuzz(func(t *testing.T, in []byte) {
		behind(in, 0)
		n, _ := spanOf(in)
		if n < batchOverhead {
			return
		}
		if read, err := readBatch(in[:n]); err == nil {
			_ = eachRecord(&read, kgo.DefaultDecompressor(), func(record) {})
		}
		parse(in)
	})
}

// oldMessage is a message of format 1, as Kafka wrote them from 0.10 to 0.11.
func oldMessage(offset int64, key, value []byte, at int64) []byte {
	m := kmsg.MessageV1{Offset: offset, Magic: 1, Timestamp: at, Key: key, Value: value}
	size := len(m.AppendTo(nil))
	m.MessageSize = int32(size - sizeAt) //nolint:gosec // small
	raw := m.AppendTo(nil)
	m.CRC = int32(crc32.ChecksumIEEE(raw[16:])) //nolint:gosec // bits of a checksum
	return m.AppendTo(nil)
}

func TestMessagesOfBeforeBatchesAreTakenToo(t *testing.T) {
	got := kmsg.NewFetchResponseTopicPartition()
	got.RecordBatches = append(oldMessage(3, nil, []byte("no key"), 1000), oldMessage(5, []byte("gone"), nil, 2000)...)
	next, old := behind(got.RecordBatches, 3)
	require.True(t, old)
	require.EqualValues(t, 6, next)
	tail := (&Cluster{}).tail(part("orders", 0), 3, 8)
	require.NoError(t, tail.takeApart(answer{got: &got, old: old}, nil))
	require.Len(t, tail.held.records, 2)
	require.EqualValues(t, 6, tail.held.next)
	require.Equal(t, replication.Tally{Blank: 1}, tail.held.tally, "offset 4 was compacted away")
	first, second := tail.held.records[0], tail.held.records[1]
	require.Nil(t, first.key)
	require.EqualValues(t, 1000, first.at)
	require.Equal(t, plainRecord(nil, []byte("no key"), 0).pair, first.pair)
	require.Equal(t, plainRecord([]byte("gone"), nil, 0).pair, second.pair)
}
