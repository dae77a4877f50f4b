package kafka

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"switchback/internal/fault"
	"switchback/replication"
)

func TestP30_ShardsShareTheTopicOfProgress(t *testing.T) {
	p := newPair(t, 4, "orders")
	p.strand(rand.New(rand.NewPCG(8, 8)), 1000, part("orders", 0), part("orders", 1), part("orders", 2), part("orders", 3))
	tails := p.tails(replication.TreatAppend, "orders")
	var shards sync.WaitGroup
	var all [2][]replication.Recovered
	var errs [2]error
	for i := range all {
		job := p.job(tails[2*i : 2*i+2])
		job.ID = fmt.Sprint("orders/east-id/7/", i)
		shards.Go(func() { all[i], errs[i] = p.old.Recover(short(t), p.to, job, nil) })
	}
	shards.Wait()
	require.NoError(t, errors.Join(errs[:]...))
	p.requireRecovered(append(all[0], all[1]...))
	stored, err := p.to.Recoveries(short(t), "east-id/7")
	require.NoError(t, err)
	require.ElementsMatch(t, append(all[0], all[1]...), stored)
	other, err := p.to.Recoveries(short(t), "east-id/77")
	require.NoError(t, err)
	require.Empty(t, other, "another mark's tails")
}

func TestP31_ASlowCopyIsCommittedAgainAndAgain(t *testing.T) {
	p := newPair(t, 1, "orders")
	on := part("orders", 0)
	for i := range 250 {
		require.NoError(t, p.oldRaw.ProduceSync(short(t), keyed(on, "", fmt.Sprint(i))).FirstErr())
	}
	job := p.job(p.tails(replication.TreatAppend, "orders"))
	job.Rate = 100
	var heard []int64
	all, err := p.old.Recover(short(t), p.to, job, func(all []replication.Recovered) { heard = append(heard, all[0].Next) })
	require.NoError(t, err)
	p.requireRecovered(all)
	require.GreaterOrEqual(t, len(heard), 2, "the records took more than two seconds")
	require.IsIncreasing(t, heard)
}

func TestP31_TheSumIsThatOfTheOffsetsAfterEachCommit(t *testing.T) {
	p := newPair(t, 2, "orders")
	p.strand(rand.New(rand.NewPCG(9, 9)), 1500, part("orders", 0), part("orders", 1))
	r := &recovery{old: p.old, to: p.to, job: p.job(p.tails(replication.TreatAppend, "orders")), every: 1, most: 7}
	commits := 0
	r.told = func(all []replication.Recovered) {
		commits++
		for _, one := range all {
			require.Equal(t, one.Next-one.From, one.Tally.Sum())
		}
	}
	all, err := r.run(short(t))
	require.NoError(t, err)
	require.Greater(t, commits, 5)
	p.requireRecovered(all)
}

func TestRecoverRefusesAJobThatCannotWork(t *testing.T) {
	p := newPair(t, 1, "orders")
	tail := replication.Tail{Partition: part("orders", 0), To: 1, Treatment: replication.TreatAppend}
	for name, job := range map[string]replication.CopyJob{"no id": {Tail: "t", Cluster: "c"}, "no tail": {ID: "i", Cluster: "c"},
		"no cluster": {ID: "i", Tail: "t"}, "nowhere to go": p.job([]replication.Tail{tail})} {
		_, err := p.old.Recover(short(t), p.to, job, nil)
		require.ErrorIs(t, err, fault.ErrInvalid, name)
	}
	tail.Into = part("missing", 0)
	_, err := p.old.Recover(short(t), p.to, p.job([]replication.Tail{tail}), nil)
	require.ErrorIs(t, err, fault.ErrNotFound)
	require.ErrorContains(t, err, "missing")
}

func TestTheLookSaysThatATopicStampsItself(t *testing.T) {
	p := newPair(t, 1, "orders")
	stamps := "LogAppendTime"
	require.NoError(t, p.to.AlterTopicConfigs(short(t), map[string]map[string]*string{"orders": {"message.timestamp.type": &stamps}}))
	produce(t, p.oldRaw, part("orders", 0), 1)
	seen, err := p.old.Stranded(short(t), p.to, p.tails(replication.TreatAppend, "orders"))
	require.NoError(t, err)
	require.Contains(t, seen[0].Notes[0], replication.HeaderTimestamp)
	require.False(t, seen[0].First.IsZero())
}
