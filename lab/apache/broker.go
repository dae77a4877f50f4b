package apache

import (
	"cmp"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/internal/secret"
	"switchback/lab/servers"
	"switchback/lab/tree"
)

//go:embed broker.properties
var brokerProperties []byte

// Node is one broker, by the ports that it listens on.
type Node struct {
	Client, Internal, Controller int
	// Host and InternalHost are where others reach the listeners for clients and for brokers; 127.0.0.1 when empty.
	Host, InternalHost string
}

func (n Node) client() string {
	return net.JoinHostPort(cmp.Or(n.Host, loopback), strconv.Itoa(n.Client))
}
func (n Node) internal() string {
	return net.JoinHostPort(cmp.Or(n.InternalHost, loopback), strconv.Itoa(n.Internal))
}

const loopback = "127.0.0.1"

// Cluster is one KRaft cluster; each broker is a controller as well.
type Cluster struct {
	Name  string // kafka-east, as its processes are called: kafka-east, or kafka-east-1 to kafka-east-3
	ID    string
	Dir   string // state
	Logs  string
	Nodes []Node
	TLS   TLS // of the clients' listener
	// Overrides are settings besides broker.properties, as name=value.
	Overrides []string
}

// Processes are the names of the brokers' processes, in the order of their node ids, which begin with 1.
func (c Cluster) Processes() []string {
	if len(c.Nodes) == 1 {
		return []string{c.Name}
	}
	names := make([]string, len(c.Nodes))
	for i := range names {
		names[i] = c.Name + "-" + strconv.Itoa(i+1)
	}
	return names
}

// Brokers are ready to start; what is not formatted yet is formatted.
func (c Cluster) Brokers(ctx context.Context, r Runtime) ([]tree.Spec, error) {
	specs := make([]tree.Spec, len(c.Nodes))
	for i, name := range c.Processes() {
		dir := filepath.Join(c.Dir, strconv.Itoa(i+1))
		file := filepath.Join(dir, "broker.properties")
		if err := servers.WriteFile(file, brokerProperties); err != nil {
			return nil, fmt.Errorf("start %s: %w", name, err)
		}
		specs[i] = tree.Spec{
			Name: name, Path: r.Java, Args: append(r.args(c.heap()), "kafka.Kafka", file), Env: c.environment(i), Dir: dir,
			Log: filepath.Join(c.Logs, name+".log"), ReadyWithin: 3 * time.Minute, Grace: 5 * time.Second,
			Ready: func(ctx context.Context) error { return c.ready(ctx, i) },
		}
		shown, err := c.TLS.keystore(dir, "listener.name.client.")
		if err != nil {
			return nil, fmt.Errorf("start %s: %w", name, err)
		}
		for _, o := range append(shown, c.Overrides...) {
			specs[i].Args = append(specs[i].Args, "--override", o)
		}
		if err := c.format(ctx, r, file, specs[i]); err != nil {
			return nil, fmt.Errorf("format the folder of %s: %w", name, err)
		}
	}
	return specs, nil
}

// environment is what broker.properties asks for.
func (c Cluster) environment(i int) []string {
	n, replicas := c.Nodes[i], min(len(c.Nodes), 3)
	at := func(listener string, port int) string { return fmt.Sprintf("%s://127.0.0.1:%d", listener, port) }
	advertised := at("CLIENT", n.Client) + "," + at("INTERNAL", n.Internal)
	voters := make([]string, len(c.Nodes))
	for i, n := range c.Nodes {
		voters[i] = fmt.Sprintf("%d@127.0.0.1:%d", i+1, n.Controller)
	}
	return []string{
		"KAFKA_NODE_ID=" + strconv.Itoa(i+1), "KAFKA_VOTERS=" + strings.Join(voters, ","),
		"KAFKA_LISTENERS=" + advertised + "," + at("CONTROLLER", n.Controller), "KAFKA_ADVERTISED_LISTENERS=" + advertised,
		"KAFKA_CLIENT_PROTOCOL=" + c.TLS.protocol(), "KAFKA_DATA=" + filepath.Join(c.Dir, strconv.Itoa(i+1), "data"),
		"KAFKA_REPLICATION=" + strconv.Itoa(replicas), "KAFKA_MIN_ISR=" + strconv.Itoa(c.MinISR()),
	}
}

// MinISR is how many replicas a write waits for.
func (c Cluster) MinISR() int { return min(len(c.Nodes), 2) }

// heap of one broker: where there are three they share the work.
func (c Cluster) heap() string {
	if len(c.Nodes) > 1 {
		return "256m"
	}
	return "384m"
}

// format makes a broker's folder with the cluster's id, once. No user is made here: their passwords would be arguments.
func (c Cluster) format(ctx context.Context, r Runtime, file string, spec tree.Spec) error {
	if _, err := os.Stat(filepath.Join(spec.Dir, "data", "meta.properties")); err == nil {
		return nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	cmd := exec.CommandContext(ctx, r.Java, append(r.args("64m"), "kafka.tools.StorageTool", "format", "--cluster-id", c.ID, "--config", file, "--ignore-formatted")...) //nolint:gosec // paths of our own
	cmd.Dir, cmd.Env = spec.Dir, append(os.Environ(), spec.Env...)
	if said, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, said)
	}
	return nil
}

// internal connects to the listener on which nobody is asked who they are.
func (c Cluster) internal(nodes ...Node) (*kgo.Client, error) {
	var seeds []string
	for _, n := range nodes {
		seeds = append(seeds, n.internal())
	}
	return kgo.NewClient(kgo.SeedBrokers(seeds...), kgo.DialTimeout(time.Second), kgo.RetryTimeout(2*time.Second), kgo.MetadataMinAge(10*time.Millisecond))
}

// ready is nil once a broker is a member of its cluster, which it becomes when it has caught up with the controllers, and
// the partitions that it can lead have a leader.
func (c Cluster) ready(ctx context.Context, i int) error {
	client, err := c.internal(c.Nodes[i])
	if err != nil {
		return err
	}
	defer client.Close()
	m, err := kadm.NewClient(client).Metadata(ctx)
	if err != nil {
		return err
	}
	if m.Cluster != c.ID {
		return fmt.Errorf("the broker at port %d belongs to cluster %s, not %s", c.Nodes[i].Internal, m.Cluster, c.ID)
	}
	id := int32(i) + 1 //nolint:gosec // 1 to 3
	if !slices.Contains(m.Brokers.NodeIDs(), id) {
		return fmt.Errorf("broker %d is not a member of its cluster yet", id)
	}
	for _, t := range m.Topics {
		for _, p := range t.Partitions {
			if p.Leader < 0 && slices.Contains(p.ISR, id) {
				return fmt.Errorf("%s-%d has no leader yet", t.Topic, p.Partition)
			}
		}
	}
	return nil
}

// SetUsers gives users their passwords (SCRAM-SHA-512), and returns when every broker lets them in: check tries a login at
// one of them.
func (c Cluster) SetUsers(ctx context.Context, users []secret.Login, check func(ctx context.Context, broker string, user secret.Login) error) error {
	client, err := c.internal(c.Nodes...)
	if err != nil {
		return err
	}
	defer client.Close()
	var upserts []kadm.UpsertSCRAM
	for _, u := range users {
		upserts = append(upserts, kadm.UpsertSCRAM{User: u.Username, Mechanism: kadm.ScramSha512, Iterations: 4096, Password: u.Password.Reveal()})
	}
	altered, err := kadm.NewClient(client).AlterUserSCRAMs(ctx, nil, upserts)
	if err == nil {
		for _, a := range altered {
			if a.Err != nil {
				err = errors.Join(err, fmt.Errorf("%s: %w", a.User, a.Err))
			}
		}
	}
	if err != nil {
		return fmt.Errorf("set the users of %s: %w", c.Name, err)
	}
	if len(users) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	last := users[len(users)-1] // they become known together
	for _, n := range c.Nodes {
		if err := servers.Until(ctx, func() error { return check(ctx, n.client(), last) }); err != nil {
			return fmt.Errorf("log in to %s as %s: %w", c.Name, last.Username, err)
		}
	}
	return nil
}
