package activities

import (
	"context"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"switchback/replication"
)

// noise is a value that nothing compresses.
func noise(bytes int) string {
	rng, b := rand.New(rand.NewPCG(1, 2)), make([]byte, bytes)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return string(b)
}

// A record that is as large as the topic allows has no room for the headers of its copy: the topic makes room for it while it is
// copied, and is then as it was.
func TestARecordAtTheLimitOfItsTopicIsRecovered(t *testing.T) {
	t.Parallel()
	big := noise(1900)
	w := stranded(t, big)
	ctx := context.Background()
	require.NoError(t, w.as("west", admin).CreateACLs(ctx, allow(me, "TOPIC", "LITERAL", "orders", "ALTER_CONFIGS")))
	limit := "4000" // key and value are the same
	require.NoError(t, w.as("west", admin).AlterTopicConfigs(ctx, map[string]map[string]*string{"orders": {maxMessageBytes: &limit}}))
	plan, account, err := w.recoverAll(w.recovery(), "append")
	require.NoError(t, err)
	require.Positive(t, plan.Total.Recovered)
	require.Zero(t, account.Total.Refused, account.Text)
	require.Contains(t, w.values("west", "orders", 0), big)
	require.Contains(t, account.Text, "max.message.bytes of orders as it was before")
	own, err := w.as("west", admin).TopicOverrides(ctx, []string{"orders"})
	require.NoError(t, err)
	require.Equal(t, limit, own["orders"][maxMessageBytes])
}

// An attempt that is killed anywhere leaves what another one finds, and the topic is in the end as it was.
func TestKilledWhileRoomIsMade(t *testing.T) {
	t.Parallel()
	limit := "4000"
	everywhere(t, func(t *testing.T) *world {
		w := stranded(t, noise(1900))
		ctx := context.Background()
		require.NoError(t, w.as("west", admin).CreateACLs(ctx, allow(me, "TOPIC", "LITERAL", "orders", "ALTER_CONFIGS")))
		require.NoError(t, w.as("west", admin).AlterTopicConfigs(ctx, map[string]map[string]*string{"orders": {maxMessageBytes: &limit}}))
		return w
	}, func(w *world) error {
		in := w.recovery()
		plan, err := w.planRecovery(in, string(replication.TreatAppend))
		if err != nil {
			return err
		}
		in.Tail = plan.Tail
		if _, err := run[TailResult](w, (*Recovery)(nil).PrepareRecovery, in); err != nil {
			return err
		}
		own, err := w.as("west", admin).TopicOverrides(context.Background(), []string{"orders"})
		require.NoError(w.t, err)
		require.Equal(w.t, "6048", own["orders"][maxMessageBytes])
		return nil
	})
}
