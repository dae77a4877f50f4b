package kafka

import (
	"encoding/binary"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/replication"
)

// stamper writes the headers that a tail's copies get. A nil one writes none.
type stamper struct{ front, back []byte }

const stamped = 7 // headers of a copy

func newStamper(job replication.CopyJob, from replication.Partition) *stamper {
	s := &stamper{}
	s.front = appendHeader(nil, replication.HeaderOrigin, job.Cluster)
	s.front = appendHeader(s.front, replication.HeaderTopic, from.Topic)
	s.front = appendHeader(s.front, replication.HeaderPartition, strconv.Itoa(int(from.Partition)))
	s.back = appendHeader(nil, replication.HeaderRun, job.Run)
	s.back = appendHeader(s.back, replication.HeaderFrom(job.Cluster), "") // its key says it all
	return s
}

func (s *stamper) count() int64 {
	if s == nil {
		return 0
	}
	return stamped
}

func (s *stamper) append(to []byte, r *record) []byte {
	if s == nil {
		return to
	}
	var digits [20]byte
	to = append(to, s.front...)
	to = appendBytes(append(binary.AppendVarint(to, int64(len(replication.HeaderOffset))), replication.HeaderOffset...), strconv.AppendInt(digits[:0], r.offset, 10))
	to = appendBytes(append(binary.AppendVarint(to, int64(len(replication.HeaderTimestamp))), replication.HeaderTimestamp...), strconv.AppendInt(digits[:0], r.at, 10))
	return append(to, s.back...)
}

// size of what append writes.
func (s *stamper) size(r *record) int {
	if s == nil {
		return 0
	}
	var digits [20]byte
	n := len(s.front) + len(s.back)
	for _, h := range [...]struct {
		key   string
		value int64
	}{{replication.HeaderOffset, r.offset}, {replication.HeaderTimestamp, r.at}} {
		value := len(strconv.AppendInt(digits[:0], h.value, 10))
		n += varintSize(int64(len(h.key))) + len(h.key) + varintSize(int64(value)) + value
	}
	return n
}

func appendHeader(to []byte, key, value string) []byte {
	to = append(binary.AppendVarint(to, int64(len(key))), key...)
	return append(binary.AppendVarint(to, int64(len(value))), value...)
}

// CopiedFrom says of a record whether it is a copy of one that was stranded on the cluster of that id (P26).
func CopiedFrom(clusterID string) func(*kgo.Record) bool {
	key := replication.HeaderFrom(clusterID)
	return func(r *kgo.Record) bool {
		return slices.ContainsFunc(r.Headers, func(h kgo.RecordHeader) bool { return h.Key == key })
	}
}
