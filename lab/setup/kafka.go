package setup

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"switchback/internal/secret"
	"switchback/lab/apache"
	"switchback/lab/kafka"
	"switchback/replication"
	"switchback/runbooks"
)

// Clusters of every lab: workloads live in the first, and their mirrors in the second.
var Clusters = []string{"east", "west"}

// Principals of the lab besides the clients.
const (
	superuser  = "lab"        // the lab's own hands: makes topics and ACLs, and writes for the link
	switchback = "switchback" // the worker's; no super user
	linkUser   = "link"       // reads for the link
)

// ownTopics are Switchback's, on both clusters; marks and positions are compacted (P20).
var ownTopics = []string{"switchback.marks", "switchback.positions", "switchback.canary"}

func (l *Lab) kafkaConfig(cluster string) kafka.Config {
	user := func(name string) kafka.User {
		return kafka.User{Name: name, Password: kafka.Password(l.login(cluster, name).Password.Reveal())}
	}
	cfg := kafka.Config{
		Name: cluster, Dir: l.path("kafka", cluster), ClusterID: l.state.ClusterIDs[cluster],
		Ports: l.state.Ports[cluster], Control: l.state.address(cluster + "-control"), Superuser: user(superuser),
		Users: []kafka.User{user(switchback), user(linkUser)}, CertFile: l.certs.cert, KeyFile: l.certs.key,
	}
	for _, c := range l.options.clients() {
		cfg.Users = append(cfg.Users, user(c.Name))
	}
	return cfg
}

// login of a user of a cluster; each has a password of its own on each.
func (l *Lab) login(cluster, user string) secret.Login {
	return secret.Login{Username: user, Password: l.secrets.password("kafka/" + cluster + "/" + user)}
}

// KafkaLogin is the login of a user of a cluster, for who connects by other means than Kafka.
func (l *Lab) KafkaLogin(cluster, user string) secret.Login { return l.login(cluster, user) }

// Kafka connects to a cluster as a user: "lab" is the super user, "switchback", "link", or a client's name. The caller
// closes it.
func (l *Lab) Kafka(cluster, user string, opts ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append(l.KafkaOptions(cluster, user), opts...)...)
}

// KafkaOptions connect to a cluster as a user.
func (l *Lab) KafkaOptions(cluster, user string) []kgo.Opt {
	login := l.login(cluster, user)
	auth := scram.Auth{User: login.Username, Pass: login.Password.Reveal()}
	options := []kgo.Opt{
		kgo.SeedBrokers(l.state.bootstrap(cluster)...), kgo.SASL(auth.AsSha512Mechanism()),
		kgo.RetryTimeout(10 * time.Second), kgo.DialTimeout(2 * time.Second),
	}
	if l.kafkaCA() != "" {
		options = append(options, kgo.DialTLSConfig(l.certs.trust))
	}
	return options
}

// provisionKafka makes topics and grants, and leaves alone what is there already.
func (l *Lab) provisionKafka(ctx context.Context, cluster string) error {
	client, err := l.Kafka(cluster, superuser)
	if err != nil {
		return fmt.Errorf("provision %s: %w", cluster, err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	if err := l.grant(ctx, cluster); err != nil {
		return fmt.Errorf("provision %s: %w", cluster, err)
	}
	for _, name := range ownTopics[:2] {
		configs := map[string]*string{}
		for key, value := range replication.OwnTopicSpec(name).Configs {
			configs[key] = &value
		}
		if err := createTopics(ctx, admin, 1, configs, name); err != nil {
			return fmt.Errorf("provision %s: %w", cluster, err)
		}
	}
	if err := createTopics(ctx, admin, 1, nil, ownTopics[2]); err != nil {
		return fmt.Errorf("provision %s: %w", cluster, err)
	}
	if cluster != Clusters[0] {
		return nil // the link makes the workloads' topics here
	}
	for _, w := range l.options.Workloads {
		if err := createTopics(ctx, admin, w.Partitions, nil, w.TopicNames()...); err != nil {
			return fmt.Errorf("provision %s: %w", cluster, err)
		}
	}
	return nil
}

func createTopics(ctx context.Context, admin *kadm.Client, partitions int, configs map[string]*string, topics ...string) error {
	// As many replicas as the brokers make by default.
	made, err := admin.CreateTopics(ctx, int32(partitions), -1, configs, topics...) //nolint:gosec // a handful
	if err != nil {
		return fmt.Errorf("create topics: %w", err)
	}
	for _, t := range made {
		if t.Err != nil && !errors.Is(t.Err, kerr.TopicAlreadyExists) {
			return fmt.Errorf("create topic %s: %w", t.Topic, t.Err)
		}
	}
	return nil
}

// grants are the same on both clusters, but for the names that topics have: ahead of time, as they should be.
func (l *Lab) grants(cluster string) []*kadm.ACLBuilder {
	allow := func(user string, operations ...kadm.ACLOperation) *kadm.ACLBuilder {
		return kadm.NewACLs().Allow("User:" + user).AllowHosts("*").Operations(operations...)
	}
	literal, prefixed := kmsg.ACLResourcePatternTypeLiteral, kmsg.ACLResourcePatternTypePrefixed
	all := []*kadm.ACLBuilder{
		// Switchback reads everything of the workloads and changes ACLs, groups' offsets and its own topics; after a disaster
		// it keeps what was stranded from expiring.
		allow(switchback, kadm.OpRead, kadm.OpDescribe, kadm.OpDescribeConfigs, kadm.OpAlterConfigs).Topics("*").ResourcePatternType(literal),
		allow(switchback, kadm.OpAll).Topics("switchback.").ResourcePatternType(prefixed),
		allow(switchback, kadm.OpRead, kadm.OpDescribe).Groups("*").ResourcePatternType(literal),
		// To end the open transactions of clients that were stopped (P9).
		allow(switchback, kadm.OpWrite, kadm.OpDescribe).TransactionalIDs("*").ResourcePatternType(literal),
		allow(switchback, kadm.OpAlter, kadm.OpDescribe, kadm.OpDescribeConfigs).Clusters().ResourcePatternType(literal),
		// The link reads topics, groups and ACLs; on the side it writes to, the cluster itself writes.
		allow(linkUser, kadm.OpRead, kadm.OpDescribe, kadm.OpDescribeConfigs).Topics("*").ResourcePatternType(literal),
		allow(linkUser, kadm.OpRead, kadm.OpDescribe).Groups("*").ResourcePatternType(literal),
		allow(linkUser, kadm.OpDescribe).Clusters().ResourcePatternType(literal),
	}
	for _, w := range l.options.Workloads {
		// A recovery brings back what was stranded: to the topics, and to <topic>.recovered, which it makes.
		all = append(all, allow(switchback, kadm.OpWrite, kadm.OpCreate).Topics(l.TopicPrefix(cluster)+w.Name+".").ResourcePatternType(prefixed))
		for _, c := range w.Clients {
			operations := []kadm.ACLOperation{kadm.OpWrite, kadm.OpDescribe}
			if c.Role == runbooks.RoleConsumer {
				operations[0] = kadm.OpRead
				all = append(all, allow(c.Name, kadm.OpRead, kadm.OpDescribe).Groups(c.Group).ResourcePatternType(literal))
			}
			all = append(all, allow(c.Name, operations...).Topics(l.TopicPrefix(cluster)+w.Name+".").ResourcePatternType(prefixed))
		}
	}
	if l.options.Link == MirrorMaker {
		all = append(all, apache.Grants()...)
	}
	return all
}
