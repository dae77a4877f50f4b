package setup_test

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"

	"switchback/lab/ledger"
	"switchback/lab/setup"
	"switchback/runbooks"
)

// onApache are options of a lab on real brokers; the test is skipped where they cannot run.
func onApache(t *testing.T, link string) setup.Options {
	t.Helper()
	if testing.Short() {
		t.Skip("real brokers take their time; make test plays this")
	}
	o := servers(t, func(o *setup.Options) { o.Kafka, o.Link = setup.Apache, link })
	if missing := setup.Missing(o); missing != "" {
		t.Skip(missing)
	}
	return o
}

// patiently waits for what JVMs do beside others on a busy machine.
func patiently(t *testing.T, condition func() bool, what string) {
	t.Helper()
	require.Eventually(t, condition, 2*time.Minute, 100*time.Millisecond, what)
}

func names(lab *setup.Lab) (all []string) {
	for _, p := range lab.Status() {
		all = append(all, p.Name)
	}
	return all
}

// TestMirrorMakerMirrors has topics renamed, because that is more than having them keep their names.
func TestMirrorMakerMirrors(t *testing.T) {
	o := onApache(t, setup.MirrorMaker)
	o.Policy, o.Canary, o.WithoutClients = setup.Default, "canary-in-the-lab-", false
	o.Workloads[0].Rate = 60
	lab := up(t, o)
	require.Subset(t, names(lab), []string{"kafka-east", "kafka-west", "connect-east", "connect-west", "checkout-1"})
	require.NotContains(t, names(lab), "link")

	t.Run("what clients wrote is on the other side", func(t *testing.T) {
		written := func() int {
			l, err := ledger.Read(lab.LedgerDir())
			require.NoError(t, err)
			return len(l.Acked)
		}
		patiently(t, func() bool { return written() > 100 }, "traffic flows")
		patiently(t, func() bool {
			return endOf(t, lab, "west", "east.orders.00")+endOf(t, lab, "west", "east.orders.01") > 100
		}, "it is mirrored")
		patiently(t, func() bool { return committed(t, lab, "billing", "east.orders.00") > 0 }, "groups are synced")
		require.NoError(t, produce(t, lab, "west", "checkout", "east.orders.00"), "producers may write on the standby")
	})

	t.Run("the runbook", func(t *testing.T) {
		loaded, err := runbooks.Load(lab.RunbookFile("orders"))
		require.NoError(t, err)
		require.Len(t, loaded.Runbook.Links, 2, "there and back")
		require.Equal(t, "west", loaded.Runbook.Links[0].To)
		m := loaded.Runbook.Links[0].MirrorMaker
		require.Equal(t, "default", m.Policy)
		require.Equal(t, runbooks.Principals{
			Data: "User:mm2-data", Admin: "User:mm2-admin",
			Credentials: &runbooks.PrincipalCredentials{
				Data: runbooks.SecretRef{Vault: "kafka/west/mm2-data"}, Admin: runbooks.SecretRef{Vault: "kafka/west/mm2-admin"},
			},
		}, m.Principals)
		for _, connector := range []string{m.Source, m.Checkpoint, m.Heartbeat} {
			var config string
			patiently(t, func() bool { // while its group rebalances, Connect answers nothing else
				config = connectGet(t, lab, m.Connect[0]+"/connectors/"+connector+"/config", true)
				return strings.HasPrefix(config, "200")
			}, "the configuration of "+connector)
			require.Contains(t, config, `"source.cluster.alias":"east"`)
			require.NotContains(t, config, o.Canary, "no password")
		}
		require.Contains(t, connectGet(t, lab, m.Connect[0]+"/connectors", false), "401")
	})

	t.Run("no secret where none may be", func(t *testing.T) {
		for _, p := range lab.Status() {
			args, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.PID), "cmdline"))
			require.NoError(t, err)
			require.False(t, holdsAny(args, lab.Secrets()), "arguments of %s", p.Name)
			log, err := os.ReadFile(p.Log)
			require.NoError(t, err)
			require.False(t, holdsAny(log, lab.Secrets()), "log of %s", p.Name)
		}
	})

	t.Run("filled again, as lab provision does it", func(t *testing.T) {
		again, err := setup.Open(t.Context(), o)
		require.NoError(t, err)
		before := endOf(t, lab, "east", "orders.00")
		require.NoError(t, again.Provision(t.Context()))
		require.NoError(t, again.ProvisionConnectors(t.Context()))
		require.NoError(t, again.OpenVault(t.Context()))
		require.GreaterOrEqual(t, endOf(t, lab, "east", "orders.00"), before)
		require.NoError(t, produce(t, lab, "east", "checkout", "orders.00"), "who could log in still can")
	})

	t.Run("kill -9 of everything of Kafka", func(t *testing.T) {
		before := endOf(t, lab, "east", "orders.00")
		for _, name := range []string{"kafka-east", "connect-west", "kafka-west"} {
			require.NoError(t, lab.Kill(name))
		}
		for _, name := range []string{"kafka-east", "kafka-west", "connect-west"} {
			require.NoError(t, lab.StartAgain(t.Context(), name))
		}
		require.GreaterOrEqual(t, endOf(t, lab, "east", "orders.00"), before)
		mirrored := endOf(t, lab, "west", "east.orders.00")
		patiently(t, func() bool { return endOf(t, lab, "west", "east.orders.00") > mirrored+10 }, "mirroring goes on")
	})
}

// TestTheDoubleInFrontOfRealBrokers: offsets are kept, by nothing but the order of copying.
func TestTheDoubleInFrontOfRealBrokers(t *testing.T) {
	o := onApache(t, setup.ClusterLinking)
	lab := up(t, o)
	require.Subset(t, names(lab), []string{"kafka-east", "kafka-west", "link"})
	for range 50 {
		require.NoError(t, produce(t, lab, "east", "checkout", "orders.00"))
	}
	patiently(t, func() bool { return endOf(t, lab, "west", "orders.00") == 50 }, "the records are mirrored")
	require.Equal(t, ends(t, lab, "east"), ends(t, lab, "west"), "every partition ends at the same offset")

	require.NoError(t, lab.Kill("kafka-west"))
	require.NoError(t, lab.Kill("link"))
	for range 50 {
		require.NoError(t, produce(t, lab, "east", "checkout", "orders.00"))
	}
	require.NoError(t, lab.StartAgain(t.Context(), "kafka-west"))
	require.NoError(t, lab.StartAgain(t.Context(), "link"))
	patiently(t, func() bool { return endOf(t, lab, "west", "orders.00") == 100 }, "mirroring goes on")
	require.Equal(t, ends(t, lab, "east"), ends(t, lab, "west"))
}

func ends(t *testing.T, lab *setup.Lab, cluster string) map[string]int64 {
	t.Helper()
	client, err := lab.Kafka(cluster, "switchback")
	require.NoError(t, err)
	defer client.Close()
	listed, err := kadm.NewClient(client).ListEndOffsets(t.Context(), "orders.00", "orders.01")
	require.NoError(t, err)
	require.NoError(t, listed.Error())
	all := map[string]int64{}
	listed.Each(func(o kadm.ListedOffset) { all[fmt.Sprintf("%s-%d", o.Topic, o.Partition)] = o.Offset })
	return all
}

// committed is the sum of a group's offsets in a topic of west.
func committed(t *testing.T, lab *setup.Lab, group, topic string) (total int64) {
	t.Helper()
	client, err := lab.Kafka("west", "lab")
	require.NoError(t, err)
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	offsets, err := kadm.NewClient(client).FetchOffsets(ctx, group)
	if err != nil {
		return -1
	}
	for _, o := range offsets[topic] {
		total += max(0, o.At)
	}
	return total
}

// connectGet is the answer of Kafka Connect, its status first.
func connectGet(t *testing.T, lab *setup.Lab, url string, login bool) string {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	require.NoError(t, err)
	if login {
		request.SetBasicAuth(lab.ConnectLogin().Username, lab.ConnectLogin().Password.Reveal())
	}
	answer, err := http.DefaultClient.Do(request)
	require.NoError(t, err)
	defer answer.Body.Close()
	var body strings.Builder
	_, err = bufio.NewReader(answer.Body).WriteTo(&body)
	require.NoError(t, err)
	return answer.Status + " " + body.String()
}
