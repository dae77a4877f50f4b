package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"switchback/internal/consul"
	"switchback/internal/consul/consultest"
	"switchback/internal/vault/vaulttest"
)

// TestMain is the supervisor itself where a test needs one to kill.
func TestMain(m *testing.M) {
	if os.Getenv("BE_THE_SUPERVISOR") != "" {
		main()
	}
	goleak.VerifyTestMain(m)
}

const canary = `canary "pass\word`

// rig is a supervisor under test, with a Consul, a Vault and a log that its child writes.
type rig struct {
	t      *testing.T
	consul *consultest.Server
	vault  *vaulttest.Server
	dir    string
	args   []string
	cancel context.CancelFunc
	code   chan int
	out    *buffer
}

type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) { b.mu.Lock(); defer b.mu.Unlock(); return b.b.Write(p) }
func (b *buffer) String() string              { b.mu.Lock(); defer b.mu.Unlock(); return b.b.String() }

func newRig(t *testing.T) *rig {
	r := &rig{t: t, consul: consultest.New(t), vault: vaulttest.New(t), dir: t.TempDir(), out: &buffer{}}
	r.at("east", "7")
	for _, cluster := range []string{"east", "west"} {
		r.vault.Put("kafka/"+cluster+"/checkout", "username", "checkout-"+cluster, "password", canary)
	}
	role, id := vaulttest.Files(t)
	r.args = []string{"--client", "checkout", "--instance", "a", "--consul-address", r.consul.URL, "--consul-prefix", "kafka/orders",
		"--vault-address", r.vault.URL, "--vault-role-id-file", role, "--vault-secret-id-file", id,
		"--stop-timeout", "5s", "--restart-backoff", "20ms", "--restart-backoff-max", "100ms",
		"--properties-file", filepath.Join(r.dir, "client.properties")}
	return r
}

// at writes the values of a cluster and an epoch, the epoch last.
func (r *rig) at(cluster, epoch string) {
	r.consul.Put("kafka/orders/cluster", cluster, "kafka/orders/bootstrap.servers", "kafka-"+cluster+":9092",
		"kafka/orders/security.protocol", "SASL_SSL", "kafka/orders/sasl.mechanism", "SCRAM-SHA-512",
		"kafka/orders/credentials", "kafka/"+cluster+"/{client}", "kafka/orders/topic.prefix", "", "kafka/orders/epoch", epoch)
}

func (r *rig) desire(word string) { r.consul.Put("kafka/orders/clients/checkout/desired", word) }

// start runs the supervisor with a shell script as its command; $LOG is where the script writes.
func (r *rig) start(script string, flags ...string) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	r.cancel, r.code = cancel, make(chan int, 1)
	args := append(append(append([]string{}, r.args...), flags...), "--", "/bin/sh", "-c", script)
	env := append(os.Environ(), "LOG="+r.log(), "SUPERVISOR_LOG_FORMAT=json", "VAULT_TOKEN=canary-of-ours")
	go func() { r.code <- run(ctx, args, env, stdio{nil, r.out, r.out}) }()
	r.t.Cleanup(func() {
		cancel()
		if r.code != nil {
			<-r.code
		}
		require.NotContains(r.t, r.out.String(), "canary", "secrets are in no log")
	})
}

func (r *rig) log() string { return filepath.Join(r.dir, "log") }

func (r *rig) leave() int {
	r.cancel()
	code := <-r.code
	r.code = nil
	return code
}

func (r *rig) logged() string {
	b, _ := os.ReadFile(r.log())
	return string(b)
}

func (r *rig) instance() consul.Instance {
	var i consul.Instance
	_ = json.Unmarshal([]byte(r.consul.Get("kafka/orders/clients/checkout/instances/a")), &i)
	return i
}

func (r *rig) eventually(what string, f func() bool) {
	r.t.Helper()
	require.Eventually(r.t, f, 10*time.Second, 2*time.Millisecond, what)
}

func (r *rig) says(state string, epoch int64) {
	r.t.Helper()
	r.eventually("says "+state, func() bool { i := r.instance(); return i.State == state && i.Epoch == epoch })
}

func (r *rig) has(text string) {
	r.t.Helper()
	r.eventually("logs "+text, func() bool { return strings.Contains(r.logged(), text) })
}

// steady runs until it is asked to end, and says both.
const steady = `trap 'echo "end $SWITCHBACK_EPOCH" >>$LOG; exit 0' TERM; echo "begin $SWITCHBACK_EPOCH $KAFKA_BOOTSTRAP_SERVERS $KAFKA_SASL_USERNAME" >>$LOG; while :; do sleep 0.01; done`

func TestANewEpochRestartsTheCommand(t *testing.T) {
	r := newRig(t)
	r.start(steady)
	r.says(consul.Running, 7)
	r.has("begin 7 kafka-east:9092 checkout-east")
	require.Equal(t, "east", r.instance().Cluster)
	began := time.Now()
	r.at("west", "8")
	r.says(consul.Running, 8)
	t.Logf("moved in %s", time.Since(began))
	r.has("end 7\nbegin 8 kafka-west:9092 checkout-west")
	b, err := os.ReadFile(filepath.Join(r.dir, "client.properties"))
	require.NoError(t, err)
	require.Contains(t, string(b), "bootstrap.servers=kafka-west:9092\n")
	require.Equal(t, 0, r.leave())
	require.Empty(t, r.consul.Get("kafka/orders/clients/checkout/instances/a"))
}

func TestP22_StopAndRunAgain(t *testing.T) {
	r := newRig(t)
	r.start(steady)
	r.says(consul.Running, 7)
	r.has("begin 7")
	r.desire(consul.Stop)
	r.says(consul.Stopped, 7)
	require.Contains(t, r.logged(), "end 7", "stopped is said after the end")
	require.False(t, r.instance().Killed)
	r.at("west", "8") // a new epoch starts nobody who is to stop
	r.desire(consul.Run)
	r.says(consul.Running, 8)
	r.has("begin 8")
	require.Equal(t, 2, strings.Count(r.logged(), "begin"))
}

func TestP22_AStartNeedsTheRequiredEntry(t *testing.T) {
	r := newRig(t)
	other := consultest.New(t)
	other.Put("kafka/orders/cluster", "west", "kafka/orders/bootstrap.servers", "kafka-west:9092", "kafka/orders/epoch", "9",
		"kafka/orders/security.protocol", "SASL_SSL", "kafka/orders/sasl.mechanism", "PLAIN", "kafka/orders/credentials", "kafka/west/{client}")
	r.consul.SetDown(true)
	r.start(steady, "--discovery", "address="+other.URL+",prefix=kafka/orders")
	r.eventually("the other entry is read", func() bool { return other.Lists() > 0 && strings.Contains(r.out.String(), "not started yet") })
	require.Empty(t, r.logged(), "the other entry alone starts nothing")
	r.consul.SetDown(false)
	r.says(consul.Running, 9) // the highest epoch counts
	r.has("begin 9 kafka-west:9092")
}

func TestAHealthyCommandIsKept(t *testing.T) {
	r := newRig(t)
	r.start(steady)
	r.says(consul.Running, 7)
	r.has("begin 7")
	r.consul.SetDown(true)
	r.vault.SetDown(true)
	r.eventually("the outage is noticed", func() bool { return strings.Contains(r.out.String(), "goes on with what it has") })
	r.consul.ExpireSessions()
	require.NotContains(t, r.logged(), "end")
	r.consul.SetDown(false)
	r.says(consul.Running, 7) // registered anew
	require.Equal(t, 1, strings.Count(r.logged(), "begin"))

	r.desire(consul.Stop) // and the same epoch starts again with the credentials of before
	r.says(consul.Stopped, 7)
	r.desire(consul.Run)
	r.says(consul.Running, 7)
	r.eventually("begins again", func() bool { return strings.Count(r.logged(), "begin") == 2 })
	r.at("east", "garbled")
	r.at("west", "6")
	r.at("east", "7")
	r.desire(consul.Stop) // read after all of that
	r.says(consul.Stopped, 7)
	require.Equal(t, 2, strings.Count(r.logged(), "begin"), "neither a garbled nor a lower epoch stops it")
}

func TestP35_AChildThatDiesDuringAStopStaysDown(t *testing.T) {
	r := newRig(t)
	r.start(`echo begin >>$LOG; while [ ! -e $LOG.die ]; do sleep 0.01; done; rm $LOG.die; exit 3`, "--restart-backoff", "1s", "--restart-backoff-max", "1s")
	r.says(consul.Running, 7)
	r.has("begin")
	require.NoError(t, os.WriteFile(r.log()+".die", nil, 0o600))
	r.says(consul.Starting, 7) // it waits for its restart
	require.Contains(t, r.instance().Reason, "code 3")
	r.desire(consul.Stop)
	r.says(consul.Stopped, 7)
	require.Equal(t, 1, strings.Count(r.logged(), "begin"))
	r.desire(consul.Run) // and at once again: no pause is left
	r.says(consul.Running, 7)
}

func TestP35_AStopBetweenTheReadAndTheStartWins(t *testing.T) {
	r := newRig(t)
	r.consul.BeforeTxn(func() { r.desire(consul.Stop) })
	r.start(steady)
	r.says(consul.Stopped, 7)
	require.Empty(t, r.logged())
}

func TestP36_AKillIsSaid(t *testing.T) {
	r := newRig(t)
	r.start(`trap '' TERM; echo begin >>$LOG; while :; do sleep 0.01; done`, "--stop-timeout", "50ms")
	r.has("begin")
	r.desire(consul.Stop)
	r.says(consul.Stopped, 7)
	require.True(t, r.instance().Killed)
	require.Contains(t, r.instance().KilledReason, "was killed")
	r.desire(consul.Run)
	r.says(consul.Running, 7)
	require.False(t, r.instance().Killed)
}

func TestAKilledSupervisorLeavesNoChildBehind(t *testing.T) {
	r := newRig(t)
	cmd := exec.Command(os.Args[0], append(r.args, "--", "/bin/sh", "-c", `echo pid $$ >>$LOG; while :; do sleep 0.01; done`)...)
	cmd.Env = append(os.Environ(), "BE_THE_SUPERVISOR=1", "LOG="+r.log())
	require.NoError(t, cmd.Start())
	r.says(consul.Running, 7)
	r.has("\n")
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	pid := strings.TrimSpace(strings.TrimPrefix(r.logged(), "pid "))
	r.eventually("gone, or a zombie that nobody collects", func() bool {
		stat, err := os.ReadFile("/proc/" + pid + "/stat")
		return err != nil || strings.Contains(string(stat), ") Z ")
	})
	// the next one of the same id need not outlive the session of the dead one
	r.start(steady)
	r.has("begin 7")
}

func TestP22_StoppedWaitsForWhatTheCommandLeftBehind(t *testing.T) {
	r := newRig(t)
	r.start(`(trap 'sleep 0.1; echo left >>$LOG; exit 0' TERM; echo ready >>$LOG; while :; do sleep 0.01; done) >/dev/null 2>&1 & trap 'exit 0' TERM; wait`)
	r.has("ready")
	r.desire(consul.Stop)
	r.says(consul.Stopped, 7)
	require.Contains(t, r.logged(), "left")
	require.False(t, r.instance().Killed)
}

func TestSignalsAndExitCodes(t *testing.T) {
	r := newRig(t)
	r.start(`trap 'echo hup >>$LOG' HUP; trap 'exit 9' TERM; echo begin >>$LOG; while :; do sleep 0.01; done`)
	r.has("begin")
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGHUP))
	r.has("hup")
	require.Equal(t, 9, r.leave())

	once := newRig(t)
	once.start(`exit 5`, "--once")
	require.Equal(t, 5, <-once.code)
	once.code = nil
}

func TestACommandThatDiesIsRestarted(t *testing.T) {
	r := newRig(t)
	r.start(`echo begin >>$LOG; exit 1`)
	r.eventually("restarts", func() bool { return strings.Count(r.logged(), "begin") >= 3 })
}

func TestTheCommandFindsWhatItNeedsAndNoMore(t *testing.T) {
	r := newRig(t)
	r.start(`env >>$LOG; echo done >>$LOG; while :; do sleep 0.01; done`)
	r.has("done")
	for _, line := range []string{"KAFKA_SASL_MECHANISM=SCRAM-SHA-512", "SWITCHBACK_CLUSTER=east", "SWITCHBACK_CLIENT=checkout", "SWITCHBACK_INSTANCE=a", "KAFKA_PROPERTIES_FILE=" + r.dir} {
		require.Contains(t, r.logged(), line)
	}
	require.NotContains(t, r.logged(), "canary")
	require.NotContains(t, r.logged(), "SUPERVISOR_")
	info, err := os.Stat(filepath.Join(r.dir, "client.properties"))
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

func TestDryRunMasksSecretsAndStartsNothing(t *testing.T) {
	r := newRig(t)
	r.start(`echo begin >>$LOG`, "--dry-run", "--password-in-env")
	require.Equal(t, 0, <-r.code)
	r.code = nil
	require.Contains(t, r.out.String(), "KAFKA_SASL_PASSWORD=***")
	require.Contains(t, r.out.String(), "sasl.jaas.config=***")
	require.Empty(t, r.logged())
	require.Empty(t, r.consul.Txns())
}

func TestUsage(t *testing.T) {
	for name, c := range map[string]struct {
		args []string
		code int
		says string
	}{
		"help":             {[]string{"--help"}, 0, "KAFKA_PROPERTIES_FILE"},
		"no client":        {[]string{"--", "true"}, 2, "--client is needed"},
		"no command":       {[]string{"--client", "a", "--consul-address", "x", "--consul-prefix", "p"}, 2, "after --"},
		"no such command":  {[]string{"--client", "a", "--consul-address", "x", "--consul-prefix", "p", "--", "/none"}, 2, "cannot be run"},
		"no such flag":     {[]string{"--klient", "a"}, 2, "unknown flag"},
		"garbled entry":    {[]string{"--client", "a", "--consul-address", "x", "--consul-prefix", "p", "--discovery", "adress=x", "--", "true"}, 2, "adress"},
		"Vault without id": {[]string{"--client", "a", "--consul-address", "x", "--consul-prefix", "p", "--vault-address", "x", "--", "true"}, 2, "secret id"},
	} {
		out := &buffer{}
		require.Equal(t, c.code, run(t.Context(), c.args, nil, stdio{nil, out, out}), name)
		require.Contains(t, out.String(), c.says, name)
	}
	out := &buffer{}
	require.Equal(t, 2, run(t.Context(), nil, []string{"SUPERVISOR_KLIENT=a"}, stdio{nil, out, out}))
	require.Contains(t, out.String(), "SUPERVISOR_KLIENT")
}
