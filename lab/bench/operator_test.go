//go:build bench

package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/consul/api"
	"github.com/stretchr/testify/require"

	"switchback/clients/supervised"
	"switchback/internal/consul"
	"switchback/lab/apache"
	"switchback/lab/setup"
	"switchback/runbooks"
)

// operator does by hand what the documentation of MirrorMaker 2 describes, with Kafka's own command-line tools, requests to
// Kafka Connect, and the same means to stop and start clients that a run has: what differs is the procedure alone. Nothing
// is waited for longer than the procedure says, and looks follow each other without a person in between.
type operator struct {
	t       *testing.T
	lab     *setup.Lab
	book    runbooks.Runbook
	w       setup.Workload
	java    apache.Runtime
	entry   *consul.Discovery
	clients *supervised.Clients
	kv      *api.KV
	steps   []string // what was done, and its seconds
}

func newOperator(ctx context.Context, t *testing.T, lab *setup.Lab, w setup.Workload) *operator {
	t.Helper()
	o := &operator{t: t, lab: lab, w: w}
	snapshot, err := runbooks.Load(lab.RunbookFile(w.Name))
	require.NoError(t, err)
	o.book = snapshot.Runbook
	o.java, err = apache.Fetch(ctx)
	require.NoError(t, err)
	o.entry, err = lab.Discovery(w.Name)
	require.NoError(t, err)
	t.Cleanup(o.entry.Close)
	o.clients = supervised.New(o.entry)
	client, err := api.NewClient(&api.Config{Address: lab.ConsulURL(), Token: lab.ConsulToken("manager").Reveal()})
	require.NoError(t, err)
	o.kv = client.KV()
	for _, cluster := range setup.Clusters {
		login := lab.KafkaLogin(cluster, "lab")
		require.NoError(t, os.WriteFile(o.properties(cluster), fmt.Appendf(nil, "bootstrap.servers=%s\nsecurity.protocol=SASL_PLAINTEXT\nsasl.mechanism=SCRAM-SHA-512\n"+
			"sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required username=\"%s\" password=\"%s\";\n"+
			"replication.policy.class=org.apache.kafka.connect.mirror.IdentityReplicationPolicy\nsource.cluster.alias=%s\n",
			strings.Join(lab.Bootstrap(cluster), ","), login.Username, login.Password.Reveal(), setup.Clusters[0]), 0o600))
	}
	return o
}

func (o *operator) properties(cluster string) string {
	return filepath.Join(o.lab.Dir(), "operator-"+cluster+".properties")
}

// does notes how long something took.
func (o *operator) does(what string, do func()) {
	begun := time.Now()
	do()
	o.steps = append(o.steps, fmt.Sprintf("by hand, %s: %.2f", what, time.Since(begun).Seconds()))
	o.t.Log(o.steps[len(o.steps)-1])
}

// tool runs one of Kafka's command-line tools as its script in bin/ does, with flags that let a JVM start faster.
func (o *operator) tool(ctx context.Context, class string, args ...string) (string, error) {
	all := append([]string{"-Xmx256M", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-cp", o.java.ClassPath, class}, args...)
	cmd := exec.CommandContext(ctx, o.java.Java, all...) //nolint:gosec // the lab's own java
	var errs bytes.Buffer
	cmd.Stderr = &errs
	said, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s%s", class, err, said, errs.String())
	}
	return string(said), nil
}

// ends are the log end offsets of the workload's topics, as kafka-get-offsets.sh prints them.
func (o *operator) ends(ctx context.Context, cluster string) map[string]string {
	o.t.Helper()
	said, err := o.tool(ctx, "org.apache.kafka.tools.GetOffsetShell", "--bootstrap-server", strings.Join(o.lab.Bootstrap(cluster), ","),
		"--command-config", o.properties(cluster), "--time", "latest", "--topic-partitions", apache.TopicsOf(o.w.Name))
	require.NoError(o.t, err)
	ends := map[string]string{}
	for line := range strings.Lines(said) {
		if at := strings.LastIndexByte(strings.TrimSpace(line), ':'); at > 0 {
			ends[line[:at]] = strings.TrimSpace(line[at+1:])
		}
	}
	require.Len(o.t, ends, o.w.Topics*o.w.Partitions, "%s", said)
	return ends
}

// inStep waits until both clusters end alike: in this lab every record of the source is one of the target.
func (o *operator) inStep(ctx context.Context) {
	for {
		sides := make([]map[string]string, len(setup.Clusters))
		done := make(chan bool)
		for i, cluster := range setup.Clusters {
			go func() { sides[i] = o.ends(ctx, cluster); done <- true }()
		}
		for range sides {
			<-done
		}
		if fmt.Sprint(sides[0]) == fmt.Sprint(sides[1]) { // maps are printed in order
			return
		}
	}
}

// caughtUp waits until kafka-consumer-groups.sh shows lag 0 for every group.
func (o *operator) caughtUp(ctx context.Context) {
	args := []string{"--bootstrap-server", strings.Join(o.lab.Bootstrap("east"), ","), "--command-config", o.properties("east"), "--describe"}
	for _, group := range o.w.Groups() {
		args = append(args, "--group", group)
	}
	for {
		said, err := o.tool(ctx, "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", args...)
		require.NoError(o.t, err)
		rows, behind := 0, false
		for line := range strings.Lines(said) {
			cells := strings.Fields(line)
			if len(cells) < 6 || !strings.HasPrefix(cells[1], o.w.Name+".") {
				continue
			}
			rows++
			behind = behind || cells[3] != cells[4]
		}
		require.NotZero(o.t, rows, "%s", said)
		if !behind {
			return
		}
	}
}

// asks stops or starts clients of a role, and waits until all of their instances say so.
func (o *operator) asks(ctx context.Context, desired string, roles ...string) {
	o.t.Helper()
	state, err := o.entry.Read(ctx)
	require.NoError(o.t, err)
	clients := o.book.ClientsByRole(roles...)
	_, err = o.clients.Ask(ctx, state.Epoch, desired, clients)
	require.NoError(o.t, err)
	o.until(ctx, "the clients to "+desired, func() (bool, error) {
		p, err := o.clients.Look(ctx, state.Epoch, desired, clients)
		return err == nil && len(p.Waiting) == 0, err
	})
}

// until looks every 20 ms.
func (o *operator) until(ctx context.Context, what string, look func() (bool, error)) {
	o.t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		ok, err := look()
		if ok {
			return
		}
		select {
		case <-ctx.Done():
			require.NoError(o.t, ctx.Err(), "%s: %v", what, err)
		case <-tick.C:
		}
	}
}

// stops asks Kafka Connect for a connector to be stopped, and waits until it says that it is and has no tasks.
func (o *operator) stops(ctx context.Context, connector string) {
	o.t.Helper()
	ask := func(method, path string, into any) error {
		request, err := http.NewRequestWithContext(ctx, method, o.lab.ConnectURL("west")+"/connectors/"+connector+path, nil)
		if err != nil {
			return err
		}
		login := o.lab.ConnectLogin()
		request.SetBasicAuth(login.Username, login.Password.Reveal())
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode/100 != 2 {
			return fmt.Errorf("%s %s: %s", method, path, answer.Status)
		}
		if into == nil {
			return nil
		}
		return json.NewDecoder(bufio.NewReader(answer.Body)).Decode(into)
	}
	o.until(ctx, connector+" to take the request", func() (bool, error) { err := ask(http.MethodPut, "/stop", nil); return err == nil, err })
	o.until(ctx, connector+" to stop", func() (bool, error) {
		var status struct {
			Connector struct{ State string }
			Tasks     []any
		}
		err := ask(http.MethodGet, "/status", &status)
		return err == nil && status.Connector.State == "STOPPED" && len(status.Tasks) == 0, err
	})
}

// stay keeps clients where they are, whatever the entry says, until they are let go.
func (o *operator) stay(ctx context.Context, roles ...string) (letGo func()) {
	o.t.Helper()
	write := new(api.WriteOptions).WithContext(ctx)
	state, err := o.entry.Read(ctx)
	require.NoError(o.t, err)
	var own []string
	for _, c := range o.book.ClientsByRole(roles...) {
		for _, key := range []string{"epoch", "cluster", "bootstrap.servers", "security.protocol", "sasl.mechanism", "credentials", "topic.prefix"} {
			at := setup.Prefix(o.w.Name) + "/clients/" + c.Name + "/" + key
			_, err := o.kv.Put(&api.KVPair{Key: at, Value: []byte(state.Keys[key].Value)}, write)
			require.NoError(o.t, err)
			own = append(own, at)
		}
	}
	return func() {
		for _, at := range own {
			_, err := o.kv.Delete(at, write)
			require.NoError(o.t, err)
		}
	}
}

// moves has the entry say west.
func (o *operator) moves(ctx context.Context) (before, after int64) {
	o.t.Helper()
	state, err := o.entry.Read(ctx)
	require.NoError(o.t, err)
	to := state.Values
	to.Cluster, to.Bootstrap = "west", strings.Join(o.lab.Bootstrap("west"), ",")
	to.Credentials = strings.Replace(to.Credentials, "/east/", "/west/", 1)
	_, err = o.entry.Switch(ctx, consul.SwitchInput{Expect: state.Epoch, Epoch: state.Epoch + 1, By: "operator", Values: to})
	require.NoError(o.t, err)
	return state.Epoch, state.Epoch + 1
}

// plannedByHand is the documented planned failover, in its order: producers first, consumers after they have caught up.
func (o *operator) plannedByHand(ctx context.Context, syncs time.Duration) (before, after int64) {
	o.does("stop the producers", func() { o.asks(ctx, consul.Stop, runbooks.RoleProducer) })
	o.does("wait until the mirror has brought everything", func() { o.inStep(ctx) })
	o.does("stop the source connector", func() { o.stops(ctx, "east-west.source") })
	o.does("note the log end offsets", func() { o.ends(ctx, "west") })
	letGo := o.stay(ctx, runbooks.RoleConsumer)
	before, after = o.moves(ctx)
	o.does("start the producers", func() { o.asks(ctx, consul.Run, runbooks.RoleProducer) })
	o.does("wait until the consumers have caught up", func() { o.caughtUp(ctx) })
	o.does("stop the consumers", func() { o.asks(ctx, consul.Stop, runbooks.RoleConsumer) })
	o.does("wait for the groups' offsets to be synced", func() { <-time.After(syncs) })
	o.does("stop the checkpoint connector", func() { o.stops(ctx, "east-west.checkpoint") })
	letGo()
	o.does("start the consumers", func() { o.asks(ctx, consul.Run, runbooks.RoleConsumer) })
	return before, after
}

// unplannedByHand is the documented unplanned failover: stop both connectors, restart the applications.
func (o *operator) unplannedByHand(ctx context.Context) (decided time.Time) {
	decided = time.Now()
	o.does("stop both connectors", func() {
		done := make(chan bool)
		for _, connector := range []string{"east-west.source", "east-west.checkpoint"} {
			go func() { o.stops(ctx, connector); done <- true }()
		}
		<-done
		<-done
	})
	o.moves(ctx)
	o.does("restart the applications", func() { o.asks(ctx, consul.Run, runbooks.RoleProducer, runbooks.RoleConsumer) })
	return decided
}
