package mirrormaker

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/internal/fault"
	"switchback/replication"
)

func TestNames(t *testing.T) {
	identity := Names{Source: "east", Target: "west", Policy: PolicyIdentity, Syncs: SyncsOnTarget}
	renamed := Names{Source: "east", Target: "west", Policy: PolicyDefault}
	dashed := Names{Source: "east", Target: "west", Policy: PolicyDefault, Separator: "-"}
	dotted := dashed
	dotted.PlainInternal = true
	for _, tc := range []struct{ got, want string }{
		{identity.Checkpoints(), "east.checkpoints.internal"},
		{identity.OffsetSyncs(), "mm2-offset-syncs.east.internal"},
		{renamed.OffsetSyncs(), "mm2-offset-syncs.west.internal"},
		{dashed.Checkpoints(), "east-checkpoints-internal"},
		{dashed.OffsetSyncs(), "mm2-offset-syncs-west-internal"},
		{dotted.Checkpoints(), "east.checkpoints.internal"},
		{identity.Heartbeats(), "east.heartbeats"},
		{dashed.Heartbeats(), "east-heartbeats"},
		{identity.Remote("orders"), "orders"},
		{identity.Remote("device-heartbeats"), "east.device-heartbeats"},
		{renamed.Remote("orders"), "east.orders"},
		{dashed.Remote("or.ders"), "east-or.ders"},
	} {
		require.Equal(t, tc.want, tc.got)
	}
	for _, n := range []Names{identity, renamed, dashed} {
		for _, topic := range []string{"orders", "a.b", "device-heartbeats", "heartbeats"} {
			back, ok := n.Upstream(n.Remote(topic))
			require.True(t, ok)
			require.Equal(t, topic, back)
		}
	}
	for _, foreign := range []string{"orders", "west.orders", "east.", "east"} {
		_, ok := renamed.Upstream(foreign)
		require.False(t, ok, foreign)
	}
	_, ok := identity.Upstream("heartbeats")
	require.False(t, ok, "the target's own heartbeats")
	require.Contains(t, identity.Oddity("device-heartbeats"), "its mirror is called east.device-heartbeats")
	require.Contains(t, renamed.Oddity("west.metrics"), "is not replicated")
	require.Empty(t, renamed.Oddity("dr.metrics"))
	require.Empty(t, identity.Oddity("west.metrics"))
}

func TestCodecRoundTrip(t *testing.T) {
	on := replication.Partition{Topic: "zahlungen-ö", Partition: 7}
	c := Checkpoint{Group: "billing", On: on, Upstream: 1 << 40, Downstream: 3, Metadata: "m"}
	got, err := DecodeCheckpoint(EncodeCheckpoint(c))
	require.NoError(t, err)
	require.Equal(t, c, got)
	s := Sync{On: on, Upstream: 5, Downstream: 1 << 50}
	sync, err := DecodeSync(EncodeSync(s))
	require.NoError(t, err)
	require.Equal(t, s, sync)
	h := Heartbeat{Source: "east", Target: "west", At: time.UnixMilli(1_700_000_000_123).UTC()}
	beat, err := DecodeHeartbeat(EncodeHeartbeat(h))
	require.NoError(t, err)
	require.Equal(t, h, beat)
}

// The bytes are Kafka's protocol types, as its own classes write them.
func TestCodecBytes(t *testing.T) {
	key, value := EncodeCheckpoint(Checkpoint{Group: "g", On: replication.Partition{Topic: "t", Partition: 2}, Upstream: 3, Downstream: 4})
	require.Equal(t, []byte{0, 1, 'g', 0, 1, 't', 0, 0, 0, 2}, key)
	require.Equal(t, []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0}, value)
	key, value = EncodeSync(Sync{On: replication.Partition{Topic: "t", Partition: 1}, Upstream: 3, Downstream: 4})
	require.Equal(t, []byte{0, 1, 't', 0, 0, 0, 1}, key)
	require.Equal(t, []byte{0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0, 4}, value)
}

func TestCodecRefuses(t *testing.T) {
	key, value := EncodeCheckpoint(Checkpoint{Group: "g", On: part0, Upstream: 3, Downstream: 4})
	change := func(b []byte, at int, to byte) []byte {
		b = append([]byte(nil), b...)
		b[at] = to
		return b
	}
	for name, tc := range map[string]struct {
		key, value []byte
		says       string
	}{
		"nothing":          {nil, nil, "0 bytes are left of the 2 of its group"},
		"short key":        {key[:len(key)-1], value, "3 bytes are left of the 4 of its partition"},
		"long key":         {append(key, 1), value, "1 bytes follow it"},
		"negative length":  {change(key, 0, 0x80), value, "the length of its group is negative"},
		"no UTF-8":         {change(key, 2, 0xff), value, "its group is not UTF-8"},
		"partition":        {change(key, len(key)-4, 0xff), value, "its partition is -"},
		"version":          {key, change(value, 1, 1), "version 1 is not known"},
		"negative offset":  {key, change(value, 2, 0xff), "its upstream offset is -"},
		"negative offset2": {key, change(value, 10, 0xff), "its offset is -"},
		"short value":      {key, value[:5], "3 bytes are left of the 8 of its upstream offset"},
		"tombstone":        {key, nil, "0 bytes are left of the 2 of its version"},
		"no metadata":      {key, value[:len(value)-2], "0 bytes are left of the 2 of its metadata"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := DecodeCheckpoint(tc.key, tc.value)
			require.ErrorIs(t, err, fault.ErrInvalid)
			require.ErrorContains(t, err, tc.says)
		})
	}
	_, err := DecodeSync([]byte{0, 1}, nil)
	require.ErrorIs(t, err, fault.ErrInvalid)
	_, err = DecodeHeartbeat(nil, nil)
	require.ErrorIs(t, err, fault.ErrInvalid)
}

// What decodes encodes to the same bytes: nothing is overlooked, and nothing panics.
func FuzzCheckpoint(f *testing.F) {
	key, value := EncodeCheckpoint(Checkpoint{Group: "g", On: part0, Upstream: 3, Downstream: 4, Metadata: "m"})
	f.Add(key, value)
	f.Fuzz(func(t *testing.T, key, value []byte) {
		if c, err := DecodeCheckpoint(key, value); err == nil {
			k, v := EncodeCheckpoint(c)
			require.Equal(t, key, k)
			require.Equal(t, value, v)
		}
	})
}

func FuzzSync(f *testing.F) {
	key, value := EncodeSync(Sync{On: part0, Upstream: 3, Downstream: 4})
	f.Add(key, value)
	f.Fuzz(func(t *testing.T, key, value []byte) {
		if s, err := DecodeSync(key, value); err == nil {
			k, v := EncodeSync(s)
			require.Equal(t, key, k)
			require.Equal(t, value, v)
		}
	})
}

func FuzzHeartbeat(f *testing.F) {
	key, value := EncodeHeartbeat(Heartbeat{Source: "a", Target: "b", At: time.UnixMilli(5)})
	f.Add(key, value)
	f.Fuzz(func(t *testing.T, key, value []byte) {
		if h, err := DecodeHeartbeat(key, value); err == nil {
			k, v := EncodeHeartbeat(h)
			require.Equal(t, key, k)
			require.Equal(t, value, v)
		}
	})
}
