package setup

import (
	"cmp"
	"fmt"
	"slices"

	"switchback/lab/apache"
	"switchback/lab/linkservice"
	"switchback/lab/tree"
	"switchback/runbooks"
)

// Options say what the lab is to be. The zero value is the lab of `lab up`, in the folder out/lab.
type Options struct {
	// Dir holds everything: state, secrets, logs, ledgers, runbooks. A folder that was used before goes on from there.
	Dir string
	// Workloads each get topics, clients and a runbook, all on one link. DefaultWorkload alone when empty.
	Workloads []Workload
	// Kafka is Kfake (when empty) or Apache; Link is ClusterLinking (when empty) or, with Apache alone, MirrorMaker; Policy is
	// how MirrorMaker calls topics on the target, Identity (when empty) or Default. A folder keeps what it was made with.
	Kafka, Link, Policy string
	// Brokers of each cluster. When zero 3 with Kfake, where they share a process, and 1 with Apache.
	Brokers int
	// ExactlyOnce turns on exactly-once source support of the Kafka Connect workers.
	ExactlyOnce bool
	// EditBroker changes how each broker of Apache Kafka is first started, by the name of its process.
	EditBroker func(broker *tree.Spec) error
	// EditConnector changes the settings of each connector of MirrorMaker before it is first made.
	EditConnector func(name string, config map[string]string)
	// OneWayLink makes a link for each direction, none of which can be reversed.
	OneWayLink bool
	// TLS has the clusters, Consul, Vault and the link serve it alone, under an authority of the lab's own. Temporal cannot.
	// A folder keeps what it was made with.
	TLS bool
	// LinkTimings are the double's own; how long a mirror stays in PENDING_STOPPED, for one.
	LinkTimings linkservice.Timings
	// TemporalDefaults leaves Temporal's server settings as they come.
	TemporalDefaults bool
	// WorkerTags are build tags of the worker, such as killpoints; WorkerEnv is added to its environment.
	WorkerTags []string
	WorkerEnv  []string
	// WithoutWorker and WithoutClients leave them out.
	WithoutWorker, WithoutClients bool
	// Regional gives the region of east a Consul and a Vault of its own, consul-east and vault-east. That Consul is an entry of
	// each runbook that is not required, and that Vault alone has Switchback's own login to east, and its token there.
	Regional bool
	// Canary is put into every password that the lab makes up, so that a test can look for it where no secret may be.
	Canary string
	// EditRunbook changes each runbook before its file is first written.
	EditRunbook func(*runbooks.Runbook)
	// ClientCommand is what supervisors run for an instance of a client; `lab client` when nil. rate is 0 for consumers.
	ClientCommand func(w Workload, c Client, instance string, rate int) []string
	// Program is the lab's own program, which serves Kafka, Vault and the link; it is built when empty.
	Program string
}

// Values of Options.Kafka, Options.Link and Options.Policy.
const (
	Kfake          = "kfake"
	Apache         = "apache"
	ClusterLinking = "cluster-linking"
	MirrorMaker    = "mirrormaker"
	Identity       = apache.Identity
	Default        = apache.Default
)

// check says what is wrong with options that have their defaults.
func (o Options) check() error {
	for _, c := range []struct{ what, value, one, other string }{
		{"kind of Kafka", o.Kafka, Kfake, Apache}, {"link", o.Link, ClusterLinking, MirrorMaker}, {"policy", o.Policy, Identity, Default},
	} {
		if c.value != c.one && c.value != c.other {
			return fmt.Errorf("there is no %s %q: choose %s or %s", c.what, c.value, c.one, c.other)
		}
	}
	switch {
	case o.Link == MirrorMaker && o.Kafka == Kfake:
		return fmt.Errorf("MirrorMaker 2 runs on Kafka Connect, which needs real brokers: choose Kafka %s with it", Apache)
	case o.Policy == Default && o.Link != MirrorMaker:
		return fmt.Errorf("policy %s is MirrorMaker's: Cluster Linking keeps the names of topics", Default)
	case o.Kafka == Apache && o.Brokers != 1 && o.Brokers != 3:
		return fmt.Errorf("%d brokers are no cluster of Apache Kafka here: choose 1 or 3", o.Brokers)
	}
	return nil
}

const defaultDir = "out/lab"

// Workload is what one runbook is about.
type Workload struct {
	Name string
	// Topics are called <name>.00, <name>.01, …, each with so many partitions.
	Topics, Partitions int
	// Rate is what all producers together write, in records per second.
	Rate    int
	Clients []Client
	// Idle leaves its clients to StartClients.
	Idle bool
}

// Client is one sample client, with so many instances under a supervisor each.
type Client struct {
	Name      string
	Role      string // runbooks.RoleProducer or runbooks.RoleConsumer
	Group     string // of a consumer
	Instances int
}

// instance is the name of one: checkout-1 is the first.
func (c Client) instance(i int) string { return fmt.Sprintf("%s-%d", c.Name, i+1) }

// DefaultWorkload has 20 topics of 6 partitions, 3 producers, and 3 consumers in 2 groups. Names of clients begin with
// the workload's, but for "orders".
func DefaultWorkload(name string) Workload {
	prefix := name + "-"
	if name == "orders" {
		prefix = ""
	}
	return Workload{
		Name: name, Topics: 20, Partitions: 6, Rate: 600,
		Clients: []Client{
			{Name: prefix + "checkout", Role: runbooks.RoleProducer, Instances: 3},
			{Name: prefix + "billing", Role: runbooks.RoleConsumer, Group: prefix + "billing", Instances: 2},
			{Name: prefix + "shipping", Role: runbooks.RoleConsumer, Group: prefix + "shipping", Instances: 1},
		},
	}
}

// TopicNames are the topics of the workload.
func (w Workload) TopicNames() []string {
	names := make([]string, w.Topics)
	for i := range names {
		names[i] = fmt.Sprintf("%s.%02d", w.Name, i)
	}
	return names
}

// Groups are the consumer groups of the workload.
func (w Workload) Groups() []string {
	var groups []string
	for _, c := range w.Clients {
		if c.Group != "" {
			groups = append(groups, c.Group)
		}
	}
	slices.Sort(groups)
	return slices.Compact(groups)
}

func (o Options) withDefaults() Options {
	o.Dir = cmp.Or(o.Dir, defaultDir)
	o.Kafka, o.Link, o.Policy = cmp.Or(o.Kafka, Kfake), cmp.Or(o.Link, ClusterLinking), cmp.Or(o.Policy, Identity)
	if o.Brokers == 0 && o.Kafka == Apache {
		o.Brokers = 1
	}
	o.Brokers = cmp.Or(o.Brokers, 3)
	if len(o.Workloads) == 0 {
		o.Workloads = []Workload{DefaultWorkload("orders")}
	}
	return o
}

// clients lists every client of every workload.
func (o Options) clients() []Client {
	var all []Client
	for _, w := range o.Workloads {
		all = append(all, w.Clients...)
	}
	return all
}
