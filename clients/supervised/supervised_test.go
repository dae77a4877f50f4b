package supervised

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"switchback/internal/consul"
	"switchback/internal/consul/consultest"
	"switchback/internal/fault"
	"switchback/replication"
	"switchback/runbooks"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var checkout = []runbooks.Client{{Name: "checkout", Role: runbooks.RoleProducer, Supervised: &runbooks.Supervised{Instances: 2}}}

const (
	prefix  = "kafka/orders/"
	desired = prefix + "clients/checkout/desired"
	keyA    = prefix + "clients/checkout/instances/a"
	keyB    = prefix + "clients/checkout/instances/b"
	early   = `"since":"2026-01-02T03:04:05Z"`
	late    = `"since":"2026-01-02T03:04:07Z"`
	runA    = `{"state":"running","epoch":7,"cluster":"east","host":"h1",` + early + `}`
	runB    = `{"state":"running","epoch":7,"cluster":"east","host":"h2",` + late + `}`
	stopA   = `{"state":"stopped","epoch":7,"cluster":"east","host":"h1",` + early + `}`
	stopB   = `{"state":"stopped","epoch":7,"cluster":"east","host":"h2",` + late + `}`
	killedB = `{"state":"stopped","epoch":7,"cluster":"east","host":"h2","killed":true,"killedReason":"took too long",` + late + `}`
)

func set(t *testing.T) (*consultest.Server, *Clients) {
	s := consultest.New(t)
	d, err := consul.Open(consul.Config{Address: s.URL, Prefix: prefix})
	require.NoError(t, err)
	t.Cleanup(d.Close)
	s.Put(prefix+"epoch", "7", prefix+"cluster", "east", desired, "run", keyA, runA, keyB, runB)
	return s, New(d)
}

func names(list []replication.Outcome) (out []string) {
	for _, o := range list {
		out = append(out, o.Name)
	}
	return out
}

func TestP22_OnlyStoppedCounts(t *testing.T) {
	s, c := set(t)
	changed, err := c.Stop(t.Context(), 7, checkout)
	require.NoError(t, err)
	require.True(t, changed)
	p, err := c.Stopped(t.Context(), 7, checkout)
	require.NoError(t, err)
	require.Equal(t, []string{"checkout/a", "checkout/b"}, names(p.Waiting))

	s.Put(keyA, stopA)
	s.Delete(keyB)
	p, err = c.Stopped(t.Context(), 7, checkout)
	require.NoError(t, err)
	require.Equal(t, []string{"checkout/b"}, names(p.Waiting), "vanished is not stopped")
	require.Equal(t, replication.Unclear, p.Waiting[0].Status)
	require.Contains(t, p.Waiting[0].Reason, "h2")

	running, err := c.Running(t.Context(), 7, checkout)
	require.NoError(t, err)
	require.Equal(t, []string{"checkout/a", "checkout/b", "checkout"}, names(running.Waiting), "by the same name when it is to start; desired is stop")
	require.Equal(t, replication.Unclear, running.Waiting[1].Status)

	changed, err = c.Stop(t.Context(), 7, checkout) // a retry after a crash still knows who was there
	require.NoError(t, err)
	require.False(t, changed)
	p, err = c.Stopped(t.Context(), 7, checkout)
	require.NoError(t, err)
	require.Equal(t, []string{"checkout/b"}, names(p.Waiting))

	s.Put(keyB, `garbled`)
	p, err = c.Stopped(t.Context(), 7, checkout)
	require.NoError(t, err)
	require.Equal(t, []string{"checkout/b"}, names(p.Waiting))

	s.Put(keyB, stopB)
	p, err = c.Stopped(t.Context(), 7, checkout)
	require.NoError(t, err)
	require.Empty(t, p.Waiting)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	require.Equal(t, []State{{Client: "checkout", Role: "producer", Instances: 2, First: at, Last: at.Add(2 * time.Second)}}, p.Clients)

	s.Put(desired, "run")
	p, err = c.Stopped(t.Context(), 7, checkout)
	require.NoError(t, err)
	require.Equal(t, []string{"checkout"}, names(p.Waiting), "a stop that somebody took back does not hold")
}

func TestP22_FewerThanExpectedIsNotStopped(t *testing.T) {
	s, c := set(t)
	s.Delete(keyB) // cut off before anybody looked
	_, err := c.Stop(t.Context(), 7, checkout)
	require.NoError(t, err)
	s.Put(keyA, stopA)
	p, err := c.Stopped(t.Context(), 7, checkout)
	require.NoError(t, err)
	require.Equal(t, []string{"checkout"}, names(p.Waiting))
	require.Equal(t, replication.Unclear, p.Waiting[0].Status, "it may never say anything")
	require.Contains(t, p.Waiting[0].Reason, "expects 2 instances, discovery knows 1 (a)")
	_, err = c.Start(t.Context(), 7, checkout)
	require.NoError(t, err)
	s.Put(keyA, runA)
	p, err = c.Running(t.Context(), 7, checkout)
	require.NoError(t, err)
	require.Equal(t, []string{"checkout"}, names(p.Waiting), "by the same name when it is to start")
	require.Equal(t, replication.Unclear, p.Waiting[0].Status)
}

func TestP36_AKilledInstanceIsNamed(t *testing.T) {
	s, c := set(t)
	_, err := c.Stop(t.Context(), 7, checkout)
	require.NoError(t, err)
	s.Put(keyA, stopA, keyB, killedB)
	p, err := c.Stopped(t.Context(), 7, checkout)
	require.NoError(t, err)
	require.Empty(t, p.Waiting)
	require.Equal(t, []Killed{{"checkout", "b", "took too long"}}, p.Killed)
}

func TestRunningIsAtTheEpoch(t *testing.T) {
	s, c := set(t)
	p, err := c.Running(t.Context(), 7, checkout)
	require.NoError(t, err)
	require.Empty(t, p.Waiting)
	s.Put(prefix+"epoch", "8", keyA, `{"state":"starting","epoch":8,"reason":"waits for Vault"}`)
	p, err = c.Look(t.Context(), 8, consul.Run, checkout)
	require.NoError(t, err)
	require.Equal(t, []string{"checkout/a", "checkout/b"}, names(p.Waiting))
	require.Contains(t, p.Waiting[0].Reason, "waits for Vault")
	require.Contains(t, p.Waiting[1].Reason, "epoch 7")
	s.Delete(keyA)
	p, err = c.Running(t.Context(), 8, checkout)
	require.NoError(t, err)
	require.Equal(t, []string{"checkout/b", "checkout"}, names(p.Waiting))
}

func TestP35_AnOldRunIsRefused(t *testing.T) {
	s, c := set(t)
	s.Put(prefix+"epoch", "8")
	_, err := c.Stop(t.Context(), 7, checkout)
	require.ErrorIs(t, err, fault.ErrStale)
	_, err = c.Start(t.Context(), 7, checkout)
	require.ErrorIs(t, err, fault.ErrStale)
	_, err = c.Stopped(t.Context(), 7, checkout)
	require.ErrorIs(t, err, fault.ErrStale)
	_, err = c.Stop(t.Context(), 8, []runbooks.Client{{Name: "batch"}})
	require.ErrorIs(t, err, fault.ErrInvalid)
	_, err = c.Running(t.Context(), 8, []runbooks.Client{{Name: "batch"}})
	require.ErrorIs(t, err, fault.ErrInvalid)
}
