package consul

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"switchback/internal/consul/consultest"
	"switchback/internal/fault"
	"switchback/internal/secret"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var west = Values{Cluster: "west", Bootstrap: "kafka-west:9092", SecurityProtocol: "SASL_SSL", SASLMechanism: "SCRAM-SHA-512", Credentials: "kafka/west/{client}"}

func open(t *testing.T) (*consultest.Server, *Discovery) {
	t.Helper()
	s := consultest.New(t)
	d, err := Open(Config{Address: s.URL, Token: secret.New("canary-token"), Prefix: "/kafka/orders/"})
	require.NoError(t, err)
	t.Cleanup(d.Close)
	return s, d
}

// entry fills an entry: on east at epoch 7, two clients.
func entry(s *consultest.Server) {
	s.Put("kafka/orders/cluster", "east", "kafka/orders/bootstrap.servers", "kafka-east:9092",
		"kafka/orders/security.protocol", "SASL_SSL", "kafka/orders/sasl.mechanism", "SCRAM-SHA-512",
		"kafka/orders/credentials", "kafka/east/{client}", "kafka/orders/topic.prefix", "",
		"kafka/orders/epoch", "7", "kafka/orders/switchedBy", "run-1",
		"kafka/orders/clients/checkout/desired", "run", "kafka/orders/clients/billing/desired", "run")
}

func TestP39_AnEntryIsReadWholeInOneRequest(t *testing.T) {
	s, d := open(t)
	entry(s)
	s.Put("kafka/orders/clients/billing/bootstrap.servers", "10.0.0.1:9092", "kafka/ordersX/cluster", "other",
		"kafka/orders/clients/checkout/instances/a", `{"state":"running","epoch":7,"cluster":"east","since":"2026-01-02T03:04:05Z","host":"h1"}`,
		"kafka/orders/clients/checkout/instances/b", `stopped`)
	before := s.Lists()
	got, err := d.Read(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, s.Lists()-before)
	require.EqualValues(t, 7, got.Epoch)
	require.Equal(t, "east", got.Cluster)
	require.Equal(t, "running", got.Clients["checkout"].Instances["a"].State)
	require.Equal(t, "unknown", got.Clients["checkout"].Instances["b"].State, "what cannot be read is not stopped")
	require.Equal(t, View{Values: Values{Cluster: "east", Bootstrap: "10.0.0.1:9092", SecurityProtocol: "SASL_SSL",
		SASLMechanism: "SCRAM-SHA-512", Credentials: "kafka/east/billing"}, Epoch: 7, Desired: "run"}, got.For("billing"))
}

func TestEpochIsNeverZeroByMistake(t *testing.T) {
	for value, want := range map[string]int64{"": Unknown, "x": Unknown, "-4": Unknown, "7": 7, "7.0": Unknown, "0": 0} {
		require.Equal(t, want, parse(map[string]Key{"epoch": {Value: value}}).Epoch, "%q", value)
	}
	_, d := open(t)
	got, err := d.Read(t.Context())
	require.NoError(t, err)
	require.Equal(t, Unknown, got.Epoch)
	require.Equal(t, []string{"cluster", "bootstrap.servers", "epoch"}, got.Missing())
}

func TestWatchReturnsWithTheChange(t *testing.T) {
	s, d := open(t)
	entry(s)
	first, err := d.Watch(t.Context(), 0)
	require.NoError(t, err)
	go s.Put("kafka/orders/epoch", "8")
	next, err := d.Watch(t.Context(), first.Index)
	require.NoError(t, err)
	require.EqualValues(t, 8, next.Epoch)
}

func TestP02_TheSwitchIsOneCheckedTransaction(t *testing.T) {
	s, d := open(t)
	entry(s)
	s.Put("kafka/orders/clients/billing/cluster", "east")
	in := SwitchInput{Expect: 7, Epoch: 8, By: "run-2", Values: west}
	got, err := d.Switch(t.Context(), in)
	require.NoError(t, err)
	require.True(t, got.Changed)
	require.Equal(t, "east", got.Before.Cluster)
	require.Equal(t, west, got.After.Values)
	require.Equal(t, "west", got.After.For("billing").Cluster, "an override that repeats the shared value follows")
	require.Len(t, s.Txns(), 1)
	for _, op := range s.Txns()[0] {
		require.True(t, strings.HasPrefix(op, "cas "), op)
	}

	again, err := d.Switch(t.Context(), in)
	require.NoError(t, err)
	require.False(t, again.Changed, "a retry sees its own switch")
	require.Len(t, s.Txns(), 1)

	s.Put("kafka/orders/bootstrap.servers", "elsewhere:9092")
	_, err = d.Switch(t.Context(), in)
	require.ErrorIs(t, err, fault.ErrConflict)
	require.ErrorContains(t, err, "bootstrap.servers")
}

func TestP02_TheSwitchRefuses(t *testing.T) {
	for name, c := range map[string]struct {
		in     SwitchInput
		put    []string
		during []string // written between read and transaction
		want   error
		says   string
	}{
		"another epoch than expected":     {in: SwitchInput{Expect: 6, Epoch: 9, By: "r", Values: west}, want: fault.ErrStale, says: "not 6"},
		"an epoch that is not above":      {in: SwitchInput{Expect: AnyLower, Epoch: 7, By: "r", Values: west}, want: fault.ErrStale, says: "not above"},
		"a garbled epoch":                 {in: SwitchInput{Expect: AnyLower, Epoch: 9, By: "r", Values: west}, put: []string{"epoch", "seven"}, want: fault.ErrInvalid, says: "seven"},
		"no run":                          {in: SwitchInput{Expect: 7, Epoch: 9, Values: west}, want: fault.ErrInvalid, says: "needed"},
		"keys changed meanwhile":          {in: SwitchInput{Expect: 7, Epoch: 8, By: "r", Values: west}, during: []string{"credentials", "x"}, want: fault.ErrConflict, says: "credentials"},
		"switched by another meanwhile":   {in: SwitchInput{Expect: 7, Epoch: 8, By: "r", Values: west}, during: []string{"epoch", "8", "switchedBy", "other"}, want: fault.ErrStale, says: `by "other"`},
		"an override that stays behind":   {in: SwitchInput{Expect: 7, Epoch: 8, By: "r", Values: west}, put: []string{"clients/billing/bootstrap.servers", "10.0.0.1:9092"}, want: fault.ErrConflict, says: "clients/billing/bootstrap.servers"},
		"an override with a higher epoch": {in: SwitchInput{Expect: 7, Epoch: 8, By: "r", Values: west}, put: []string{"clients/billing/epoch", "9"}, want: fault.ErrStale, says: "clients/billing/epoch"},
	} {
		t.Run(name, func(t *testing.T) {
			s, d := open(t)
			entry(s)
			for i := 0; i+1 < len(c.put); i += 2 {
				s.Put("kafka/orders/"+c.put[i], c.put[i+1])
			}
			s.BeforeTxn(func() {
				for i := 0; i+1 < len(c.during); i += 2 {
					s.Put("kafka/orders/"+c.during[i], c.during[i+1])
				}
			})
			got, err := d.Switch(t.Context(), c.in)
			require.ErrorIs(t, err, c.want)
			require.ErrorContains(t, err, c.says)
			require.False(t, got.Changed)
			require.Equal(t, "east", s.Get("kafka/orders/cluster"))
		})
	}
}

func TestP02_AnOverrideTakesTheValueThatTheRunTells(t *testing.T) {
	s, d := open(t)
	entry(s)
	s.Put("kafka/orders/clients/billing/bootstrap.servers", "10.0.0.1:9092", "kafka/orders/clients/billing/epoch", "7")
	_, err := d.Switch(t.Context(), SwitchInput{Expect: 7, Epoch: 8, By: "r", Values: west,
		Overrides: map[string]map[string]string{"billing": {"bootstrap.servers": "10.9.9.9:9092"}}})
	require.NoError(t, err)
	require.Equal(t, "10.9.9.9:9092", s.Get("kafka/orders/clients/billing/bootstrap.servers"))
	require.Equal(t, "8", s.Get("kafka/orders/clients/billing/epoch"))
}

func TestP02_ALostAnswerIsReadAgain(t *testing.T) {
	s, d := open(t)
	entry(s)
	s.LoseNextAnswer()
	got, err := d.Switch(t.Context(), SwitchInput{Expect: 7, Epoch: 8, By: "run-2", Values: west})
	require.NoError(t, err)
	require.True(t, got.Changed)
	require.Equal(t, "west", s.Get("kafka/orders/cluster"))

	s.LoseNextAnswer()
	changed, err := d.SetDesired(t.Context(), 8, map[string]string{"checkout": Stop})
	require.NoError(t, err)
	require.True(t, changed)
}

func TestP02_OperationsAreCountedBeforehand(t *testing.T) {
	s, d := open(t)
	entry(s)
	for i := range 30 {
		s.Put(fmt.Sprintf("kafka/orders/clients/c%d/cluster", i), "east", fmt.Sprintf("kafka/orders/clients/c%d/epoch", i), "7")
	}
	_, err := d.Switch(t.Context(), SwitchInput{Expect: 7, Epoch: 8, By: "run-2", Values: west})
	require.ErrorIs(t, err, fault.ErrInvalid)
	require.ErrorContains(t, err, "needs 68 operations")
	require.Empty(t, s.Txns())
}

func TestP40_OtherEntriesAreSetUpwardsOnly(t *testing.T) {
	s, d := open(t)
	in := SwitchInput{Expect: AnyLower, Epoch: 8, By: "run-2", Values: west}
	_, err := d.Switch(t.Context(), in) // a new, empty entry
	require.NoError(t, err)
	s.Put("kafka/orders/epoch", "5", "kafka/orders/switchedBy", "old")
	_, err = d.Switch(t.Context(), in)
	require.NoError(t, err)
	require.Equal(t, "8", s.Get("kafka/orders/epoch"))
	s.Put("kafka/orders/epoch", "9", "kafka/orders/switchedBy", "newer")
	_, err = d.Switch(t.Context(), in)
	require.ErrorIs(t, err, fault.ErrStale)
}

func TestP35_DesiredIsRefusedToAnOldRun(t *testing.T) {
	s, d := open(t)
	entry(s)
	ask := map[string]string{"checkout": Stop, "billing": Stop}
	_, err := d.SetDesired(t.Context(), 6, ask)
	require.ErrorIs(t, err, fault.ErrStale)
	require.ErrorIs(t, d.CheckEpoch(t.Context(), 6), fault.ErrStale)
	require.NoError(t, d.CheckEpoch(t.Context(), 7))
	require.ErrorIs(t, d.CheckEpoch(t.Context(), Unknown), fault.ErrStale)

	s.BeforeTxn(func() { s.Put("kafka/orders/epoch", "8") }) // a roll-back raises it meanwhile
	_, err = d.SetDesired(t.Context(), 7, ask)
	require.ErrorIs(t, err, fault.ErrStale)
	require.Equal(t, "run", s.Get("kafka/orders/clients/checkout/desired"))

	s.BeforeTxn(func() {
		s.Put("kafka/orders/clients/billing/desired", "stop", "kafka/orders/clients/billing/desired", "run")
	})
	_, err = d.SetDesired(t.Context(), 8, ask) // a late stop after somebody's run
	require.ErrorIs(t, err, fault.ErrConflict)
	require.ErrorContains(t, err, "clients/billing/desired")

	changed, err := d.SetDesired(t.Context(), 8, ask)
	require.NoError(t, err)
	require.True(t, changed)
	changed, err = d.SetDesired(t.Context(), 8, ask)
	require.NoError(t, err)
	require.False(t, changed)
	_, err = d.SetDesired(t.Context(), 8, map[string]string{"checkout": "pause"})
	require.ErrorIs(t, err, fault.ErrInvalid)
}

func TestP02_ManyClientsAreAskedInSeveralTransactions(t *testing.T) {
	s, d := open(t)
	entry(s)
	ask := map[string]string{}
	for i := range 100 {
		ask[fmt.Sprintf("c%d", i)] = Stop
	}
	_, err := d.SetDesired(t.Context(), 7, ask)
	require.NoError(t, err)
	require.Len(t, s.Txns(), 4)
	for _, txn := range s.Txns() {
		require.LessOrEqual(t, len(txn), 60)
		require.Equal(t, "check-index kafka/orders/epoch", txn[0])
	}
}

func register(t *testing.T, d *Discovery, o RegisterOptions) *Registration {
	t.Helper()
	r, err := d.Register("checkout", "a", o)
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		r.Close(ctx)
	})
	return r
}

const instanceKey = "kafka/orders/clients/checkout/instances/a"

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	require.Eventually(t, f, 10*time.Second, 5*time.Millisecond, what)
}

func TestAnInstanceSurvivesConsulsAbsence(t *testing.T) {
	s, d := open(t)
	r := register(t, d, RegisterOptions{})
	r.Set(Instance{State: Running, Epoch: 7})
	eventually(t, "written", func() bool { return strings.Contains(s.Get(instanceKey), Running) })

	s.SetDown(true)
	r.Set(Instance{State: Stopped, Epoch: 7})
	s.ExpireSessions()
	require.Empty(t, s.Get(instanceKey))
	s.SetDown(false)
	eventually(t, "written anew", func() bool { return strings.Contains(s.Get(instanceKey), Stopped) })

	s.ExpireSessions()
	now, err := d.Read(t.Context())
	require.NoError(t, err)
	r.Check(now)
	eventually(t, "written anew after a look", func() bool { return strings.Contains(s.Get(instanceKey), Stopped) })

	r.Close(t.Context())
	require.Empty(t, s.Get(instanceKey))
}

func TestP22_AClaimLosesAgainstAStop(t *testing.T) {
	s, d := open(t)
	entry(s)
	r := register(t, d, RegisterOptions{})
	read, err := d.Read(t.Context())
	require.NoError(t, err)
	s.Put("kafka/orders/clients/checkout/desired", "stop")
	require.ErrorIs(t, r.Claim(t.Context(), Instance{State: Starting}, read), fault.ErrConflict)
	require.Empty(t, s.Get(instanceKey))
	s.Put("kafka/orders/clients/checkout/desired", "run")
	read, err = d.Read(t.Context())
	require.NoError(t, err)
	require.NoError(t, r.Claim(t.Context(), Instance{State: Starting}, read))
	s.Put("kafka/orders/epoch", "8")
	require.ErrorIs(t, r.Claim(t.Context(), Instance{State: Starting}, read), fault.ErrConflict)
}

func TestP22_TwoInstancesNeverShareAKey(t *testing.T) {
	s, d := open(t)
	entry(s)
	first := register(t, d, RegisterOptions{})
	read, err := d.Read(t.Context())
	require.NoError(t, err)
	require.NoError(t, first.Claim(t.Context(), Instance{State: Running, Host: "h1", PID: 42}, read))
	second := register(t, d, RegisterOptions{})
	err = second.Claim(t.Context(), Instance{State: Stopped}, read)
	require.ErrorIs(t, err, fault.ErrConflict)
	require.ErrorContains(t, err, "process 42")
	third := register(t, d, RegisterOptions{Replaces: func(i Instance) bool { return i.PID == 42 }})
	require.NoError(t, third.Claim(t.Context(), Instance{State: Starting, PID: 43}, read))
	require.Contains(t, s.Get(instanceKey), Starting)
}

func TestFaults(t *testing.T) {
	overHTTP := func(err error) error { return &url.Error{Op: "Get", URL: "http://c/v1/kv", Err: err} }
	for name, c := range map[string]struct {
		err         error
		read, write error
	}{
		"dial":          {overHTTP(&net.OpError{Op: "dial", Err: errors.New("refused")}), fault.ErrUnreachable, fault.ErrUnreachable},
		"reset":         {overHTTP(&net.OpError{Op: "read", Err: errors.New("reset")}), fault.ErrUnreachable, fault.ErrUnclear},
		"time-out":      {overHTTP(context.DeadlineExceeded), fault.ErrUnreachable, fault.ErrUnclear},
		"500":           {overHTTP(api.StatusError{Code: 500, Body: "No cluster leader"}), fault.ErrUnreachable, fault.ErrUnclear},
		"429":           {overHTTP(api.StatusError{Code: 429}), fault.ErrUnreachable, fault.ErrUnreachable},
		"403":           {overHTTP(api.StatusError{Code: 403, Body: "Permission denied"}), fault.ErrDenied, fault.ErrDenied},
		"unknown token": {overHTTP(api.StatusError{Code: 403, Body: "ACL not found"}), fault.ErrUnauthenticated, fault.ErrUnauthenticated},
		"400":           {overHTTP(api.StatusError{Code: 400}), fault.ErrInvalid, fault.ErrInvalid},
		"cancelled":     {overHTTP(context.Canceled), context.Canceled, context.Canceled},
		"authority":     {overHTTP(x509.UnknownAuthorityError{}), fault.ErrUnreachable, fault.ErrUnreachable},
	} {
		require.ErrorIs(t, translate("read", reads, c.err), c.read, name)
		if name != "authority" {
			require.ErrorIs(t, translate("write", writes, c.err), c.write, name)
		}
	}
	require.NoError(t, translate("read", reads, nil))

	s, d := open(t)
	s.SetDeny(true)
	_, err := d.Switch(t.Context(), SwitchInput{})
	require.ErrorIs(t, err, fault.ErrDenied)
	require.NotContains(t, err.Error(), "canary-token")
	_, err = Open(Config{Address: s.URL})
	require.ErrorIs(t, err, fault.ErrInvalid)
}

// What says where a cluster is goes away; the epoch and what clients were asked for stay, so that the next switch counts on.
func TestWithdrawnEntriesCountOn(t *testing.T) {
	s, d := open(t)
	entry(s)
	_, err := d.Withdraw(t.Context(), 6)
	require.ErrorIs(t, err, fault.ErrStale)
	changed, err := d.Withdraw(t.Context(), 7)
	require.NoError(t, err)
	require.True(t, changed)
	got, err := d.Read(t.Context())
	require.NoError(t, err)
	require.Equal(t, Values{}, got.Values)
	require.EqualValues(t, 7, got.Epoch)
	require.Equal(t, "run", got.Clients["billing"].Desired)
	require.Equal(t, []string{keyCluster, keyBootstrap}, got.Missing(), "nobody starts with what is left")
	changed, err = d.Withdraw(t.Context(), 7)
	require.NoError(t, err)
	require.False(t, changed)
	result, err := d.Switch(t.Context(), SwitchInput{Expect: 7, Values: west, Epoch: 8, By: "run-2"})
	require.NoError(t, err)
	require.True(t, result.Changed)
}
