package mirrormaker

import (
	"encoding/binary"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"switchback/internal/fault"
	"switchback/replication"
)

// Where MirrorMaker 2 keeps its offset syncs: offset-syncs.topic.location.
const (
	SyncsOnSource = "source" // its default; they are lost with the source
	SyncsOnTarget = "target"
)

// heartbeatsTopic is where heartbeats are, on the cluster where they are made.
const heartbeatsTopic = "heartbeats"

// Names says what MirrorMaker 2 calls topics in one direction. The aliases are those of the connectors' configuration.
type Names struct {
	Source, Target string // aliases
	Policy         string // PolicyIdentity or PolicyDefault
	Separator      string // replication.policy.separator; "" is "."
	// PlainInternal is replication.policy.internal.topic.separator.enabled=false: internal topics keep the dot whatever
	// the separator is.
	PlainInternal bool
	Syncs         string // where offset syncs are: source or target; "" is source
}

func (n Names) separator() string {
	if n.Separator == "" {
		return "."
	}
	return n.Separator
}

func (n Names) internal(parts ...string) string {
	sep := n.separator()
	if n.PlainInternal {
		sep = "."
	}
	return strings.Join(append(parts, "internal"), sep)
}

// Checkpoints is the topic of checkpoints, on the target.
func (n Names) Checkpoints() string { return n.internal(n.Source, "checkpoints") }

// OffsetSyncs is the topic of offset syncs, named after the cluster at the other end of where it is.
func (n Names) OffsetSyncs() string {
	if n.Syncs == SyncsOnTarget {
		return n.internal("mm2-offset-syncs", n.Source)
	}
	return n.internal("mm2-offset-syncs", n.Target)
}

// Heartbeats is what the target calls the heartbeats that the source makes, whatever the policy.
func (n Names) Heartbeats() string { return n.Source + n.separator() + heartbeatsTopic }

// Remote is what the target calls a topic of the source. The identity policy renames every topic whose name ends with
// "heartbeats", an application's too.
func (n Names) Remote(topic string) string {
	if n.Policy == PolicyIdentity && !strings.HasSuffix(topic, heartbeatsTopic) {
		return topic
	}
	return n.Source + n.separator() + topic
}

// Upstream is what the source calls a topic of the target; false for one that this direction does not make.
func (n Names) Upstream(topic string) (string, bool) {
	if n.Policy == PolicyIdentity && !strings.HasSuffix(topic, heartbeatsTopic) {
		return topic, true
	}
	name, ok := strings.CutPrefix(topic, n.Source+n.separator())
	return name, ok && name != ""
}

// Oddity is what MirrorMaker 2 does to a topic of the source because of its name alone, in a sentence; "" for most.
func (n Names) Oddity(topic string) string {
	switch from, _, dotted := strings.Cut(topic, n.separator()); {
	case n.Policy == PolicyIdentity && strings.HasSuffix(topic, heartbeatsTopic):
		return fmt.Sprintf("%s is taken for a topic of heartbeats, because its name ends with %q: its mirror is called %s", topic, heartbeatsTopic, n.Remote(topic))
	case n.Policy == PolicyDefault && dotted && from == n.Target:
		return fmt.Sprintf("%s is taken for a mirror of %s, because its name begins with that alias: it is not replicated", topic, n.Target)
	}
	return ""
}

// Checkpoint says that a group which had committed Upstream on the source may go on at Downstream on the target.
type Checkpoint struct {
	Group      string
	On         replication.Partition // as the target calls it
	Upstream   int64
	Downstream int64
	Metadata   string
	At         time.Time // of the record
}

// Sync says that the record at offset Upstream of the source was written at Downstream on the target.
type Sync struct {
	On         replication.Partition // as the source calls it
	Upstream   int64
	Downstream int64
}

// Heartbeat says that the connector between two clusters was alive.
type Heartbeat struct {
	Source, Target string // aliases
	At             time.Time
}

// EncodeCheckpoint is the record's key and value, as MirrorMaker 2 writes it.
func EncodeCheckpoint(c Checkpoint) (key, value []byte) {
	key = whole(text(text(nil, c.Group), c.On.Topic), c.On.Partition)
	value = number(number(make([]byte, 2), c.Upstream), c.Downstream)
	return key, text(value, c.Metadata)
}

// EncodeSync is the record's key and value.
func EncodeSync(s Sync) (key, value []byte) {
	key = whole(text(nil, s.On.Topic), s.On.Partition)
	return key, number(number(nil, s.Upstream), s.Downstream)
}

// EncodeHeartbeat is the record's key and value.
func EncodeHeartbeat(h Heartbeat) (key, value []byte) {
	return text(text(nil, h.Source), h.Target), number(make([]byte, 2), h.At.UnixMilli())
}

func text(b []byte, s string) []byte {
	return append(binary.BigEndian.AppendUint16(b, uint16(len(s))), s...) //nolint:gosec // names are far shorter
}

func whole(b []byte, n int32) []byte {
	return binary.BigEndian.AppendUint32(b, uint32(n)) //nolint:gosec // two's complement, as the format has it
}

func number(b []byte, n int64) []byte {
	return binary.BigEndian.AppendUint64(b, uint64(n)) //nolint:gosec // two's complement, as the format has it
}

// checkpointKey decodes whom and what a checkpoint is about. fault.ErrInvalid for anything but exactly that.
func checkpointKey(key []byte) (Checkpoint, error) {
	f := fields{rest: key}
	c := Checkpoint{Group: f.text("group"), On: replication.Partition{Topic: f.text("topic"), Partition: f.partition()}}
	return c, f.end("key of a checkpoint")
}

// DecodeCheckpoint decodes a whole record, which has a value. fault.ErrInvalid for anything but exactly that.
func DecodeCheckpoint(key, value []byte) (Checkpoint, error) {
	c, err := checkpointKey(key)
	if err != nil {
		return Checkpoint{}, err
	}
	return c.at(value)
}

// at decodes what a checkpoint says of whom and what its key is about.
func (c Checkpoint) at(value []byte) (Checkpoint, error) {
	f := fields{rest: value}
	f.version()
	c.Upstream, c.Downstream, c.Metadata = f.offset("upstream offset"), f.offset("offset"), f.text("metadata")
	return c, f.end("checkpoint")
}

// DecodeSync decodes a whole record of the offset syncs. fault.ErrInvalid for anything but exactly that.
func DecodeSync(key, value []byte) (Sync, error) {
	f := fields{rest: key}
	s := Sync{On: replication.Partition{Topic: f.text("topic"), Partition: f.partition()}}
	if err := f.end("key of an offset sync"); err != nil {
		return Sync{}, err
	}
	f = fields{rest: value}
	s.Upstream, s.Downstream = f.offset("upstream offset"), f.offset("offset")
	return s, f.end("offset sync")
}

// DecodeHeartbeat decodes a whole heartbeat. fault.ErrInvalid for anything but exactly that.
func DecodeHeartbeat(key, value []byte) (Heartbeat, error) {
	f := fields{rest: key}
	h := Heartbeat{Source: f.text("source alias"), Target: f.text("target alias")}
	if err := f.end("key of a heartbeat"); err != nil {
		return Heartbeat{}, err
	}
	f = fields{rest: value}
	f.version()
	h.At = time.UnixMilli(f.offset("timestamp")).UTC()
	return h, f.end("heartbeat")
}

// fields takes a record apart and keeps the first thing that is wrong with it.
type fields struct {
	rest []byte
	err  error
}

func (f *fields) take(n int, what string) []byte {
	if f.err == nil && len(f.rest) < n {
		f.err = fmt.Errorf("%d bytes are left of the %d of its %s", len(f.rest), n, what)
	}
	if f.err != nil {
		return make([]byte, n)
	}
	b := f.rest[:n]
	f.rest = f.rest[n:]
	return b
}

func (f *fields) version() {
	if v := binary.BigEndian.Uint16(f.take(2, "version")); v != 0 && f.err == nil {
		f.err = fmt.Errorf("version %d is not known", v)
	}
}

func (f *fields) offset(what string) int64 {
	n := int64(binary.BigEndian.Uint64(f.take(8, what))) //nolint:gosec // two's complement, as the format has it
	if n < 0 && f.err == nil {
		f.err = fmt.Errorf("its %s is %d", what, n)
	}
	return n
}

func (f *fields) partition() int32 {
	n := int32(binary.BigEndian.Uint32(f.take(4, "partition"))) //nolint:gosec // two's complement, as the format has it
	if n < 0 && f.err == nil {
		f.err = fmt.Errorf("its partition is %d", n)
	}
	return n
}

func (f *fields) text(what string) string {
	n := binary.BigEndian.Uint16(f.take(2, what))
	if n > 1<<15-1 {
		if f.err == nil {
			f.err = fmt.Errorf("the length of its %s is negative", what)
		}
		return ""
	}
	s := string(f.take(int(n), what))
	if f.err == nil && !utf8.ValidString(s) {
		f.err = fmt.Errorf("its %s is not UTF-8", what)
	}
	return s
}

// end is the verdict on a record of which nothing may be left.
func (f *fields) end(what string) error {
	if f.err == nil && len(f.rest) > 0 {
		f.err = fmt.Errorf("%d bytes follow it", len(f.rest))
	}
	if f.err != nil {
		return fmt.Errorf("%w: no %s: %w", fault.ErrInvalid, what, f.err)
	}
	return nil
}
