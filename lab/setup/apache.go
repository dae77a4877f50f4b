package setup

import (
	"context"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"switchback/internal/secret"
	"switchback/lab/apache"
	"switchback/lab/tree"
	"switchback/runbooks"
)

// apacheCluster is east or west on Apache Kafka.
func (l *Lab) apacheCluster(cluster string) apache.Cluster {
	c := apache.Cluster{
		Name: "kafka-" + cluster, ID: l.state.ClusterIDs[cluster], Dir: l.path("kafka", cluster), Logs: l.path("logs"),
		TLS: l.certs.files(),
	}
	for i, port := range l.state.Ports[cluster] {
		c.Nodes = append(c.Nodes, apache.Node{
			Client: port, Internal: l.state.Ports[cluster+"-internal"][i], Controller: l.state.Ports[cluster+"-controller"][i],
			Host: l.state.Hosts[cluster], InternalHost: l.state.Hosts[cluster+"-internal"],
		})
	}
	return c
}

// apacheUsers of a cluster: the same as everywhere, and those of Kafka Connect.
func (l *Lab) apacheUsers(cluster string) []secret.Login {
	names := append([]string{superuser, switchback, linkUser}, apache.Users...)
	for _, c := range l.options.clients() {
		names = append(names, c.Name)
	}
	users := make([]secret.Login, len(names))
	for i, name := range names {
		users[i] = l.login(cluster, name)
	}
	return users
}

// startApache starts both clusters, and makes their users.
func (l *Lab) startApache(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, cluster := range Clusters {
		c := l.apacheCluster(cluster)
		g.Go(func() error {
			specs, err := c.Brokers(ctx, l.runtime)
			if err != nil {
				return err
			}
			for i := range specs {
				if edit := l.options.EditBroker; edit != nil {
					if err := edit(&specs[i]); err != nil {
						return err
					}
				}
			}
			if err := l.tree.Start(ctx, specs...); err != nil {
				return err
			}
			return l.setUsers(ctx, cluster)
		})
	}
	return g.Wait()
}

// setUsers makes the users of a cluster on Apache Kafka, and returns when they can log in.
func (l *Lab) setUsers(ctx context.Context, cluster string) error {
	return l.apacheCluster(cluster).SetUsers(ctx, l.apacheUsers(cluster), func(ctx context.Context, broker string, user secret.Login) error {
		client, err := l.Kafka(cluster, user.Username, kgo.SeedBrokers(broker))
		if err != nil {
			return err
		}
		defer client.Close()
		return client.Ping(ctx)
	})
}

// connectWorker writes to a cluster.
func (l *Lab) connectWorker(cluster string) apache.Worker {
	name := ConnectProcess(cluster)
	w := apache.Worker{
		Name: name, Dir: l.path("connect", cluster), Log: l.log(name), Host: l.state.Hosts[name], Port: l.state.Ports[name][0], Bootstrap: l.Bootstrap(cluster),
		TLS: l.certs.files(), Replicas: l.replicas(), ExactlyOnce: l.options.ExactlyOnce, Login: l.ConnectLogin(),
		Passwords: map[string]secret.Value{},
	}
	for _, user := range []string{apache.ConnectUser, apache.DataUser} {
		w.Passwords[user] = l.login(cluster, user).Password
	}
	for _, side := range Clusters {
		w.Passwords[apache.AdminUser+"."+side] = l.login(side, apache.AdminUser).Password
	}
	return w
}

func (l *Lab) replicas() int { return min(len(l.state.Ports[Clusters[0]]), 3) }

// startMirrorMaker starts a worker of Kafka Connect on each side, and on the western one the connectors that mirror east.
// The eastern one waits for the day on which somebody wants to go home.
func (l *Lab) startMirrorMaker(ctx context.Context) error {
	var specs []tree.Spec
	for _, cluster := range Clusters {
		spec, err := l.connectWorker(cluster).Spec(l.runtime)
		if err != nil {
			return err
		}
		specs = append(specs, spec)
	}
	if err := l.tree.Start(ctx, specs...); err != nil {
		return err
	}
	return l.createConnectors(ctx)
}

// createConnectors makes the connectors that mirror east, where there are none yet.
func (l *Lab) createConnectors(ctx context.Context) error {
	connectors, err := l.mirrorFlow(Clusters[0], Clusters[1]).Connectors()
	if err != nil {
		return err
	}
	if edit := l.options.EditConnector; edit != nil {
		for _, c := range connectors {
			edit(c.Name, c.Config)
		}
	}
	return l.connectWorker(Clusters[1]).Create(ctx, connectors...)
}

// Impatient connectors give up a dead cluster within seconds. With MirrorMaker's own settings that takes them a minute.
func Impatient(o *Options) {
	before := o.EditConnector
	o.EditConnector = func(name string, config map[string]string) {
		if before != nil {
			before(name, config)
		}
		config["admin.timeout.ms"] = "5000"
		for _, client := range []string{"admin", "consumer"} {
			config["source."+client+".default.api.timeout.ms"] = "5000"
			config["source."+client+".request.timeout.ms"] = "4000"
		}
	}
}

func (l *Lab) mirrorFlow(from, to string) apache.Flow {
	f := apache.Flow{
		From: from, To: to, FromBootstrap: l.Bootstrap(from), ToBootstrap: l.Bootstrap(to), TLS: l.certs.files(),
		Policy: l.options.Policy, Replicas: l.replicas(),
	}
	for _, w := range l.options.Workloads {
		f.Topics, f.Groups = append(f.Topics, apache.TopicsOf(w.Name)), append(f.Groups, w.Groups()...)
	}
	return f
}

// mirrorMakerLink is one direction in a runbook.
func (l *Lab) mirrorMakerLink(from, to string) runbooks.Link {
	m := runbooks.MirrorMaker{
		Connect: []string{l.ConnectURL(to)}, Alias: map[string]string{"source": from, "target": to}, Policy: l.options.Policy,
		Principals: runbooks.Principals{
			Data: "User:" + apache.DataUser, Admin: "User:" + apache.AdminUser,
			Credentials: &runbooks.PrincipalCredentials{
				Data:  runbooks.SecretRef{Vault: strings.Join([]string{mount, to, apache.DataUser}, "/")},
				Admin: runbooks.SecretRef{Vault: strings.Join([]string{mount, to, apache.AdminUser}, "/")},
			},
		},
		Credentials: runbooks.SecretRef{Vault: strings.Join([]string{mount, to, connectSecret}, "/")}, CA: l.kafkaCA(),
	}
	m.Source, m.Checkpoint, m.Heartbeat = l.mirrorFlow(from, to).Names()
	return runbooks.Link{From: from, To: to, MirrorMaker: &m}
}

// mirrorUsers are the principals of MirrorMaker 2 whose logins stand in Vault.
func (l *Lab) mirrorUsers() []string {
	if l.options.Link != MirrorMaker {
		return nil
	}
	return []string{apache.DataUser, apache.AdminUser}
}

// connectSecret is where the login of Kafka Connect's REST API is, below the cluster's name in Vault.
const connectSecret = "connect-rest"

// ConnectProcess is the name of the Kafka Connect worker that writes to a cluster.
func ConnectProcess(cluster string) string { return "connect-" + cluster }

// ConnectURL is the REST API of the Kafka Connect worker that writes to a cluster.
func (l *Lab) ConnectURL(cluster string) string {
	if l.certs.files() != (apache.TLS{}) {
		return "https://" + l.state.address(ConnectProcess(cluster))
	}
	return "http://" + l.state.address(ConnectProcess(cluster))
}

// ConnectLogin is the login of Kafka Connect's REST API, the same on both sides.
func (l *Lab) ConnectLogin() secret.Login {
	return secret.Login{Username: "switchback", Password: l.secrets.password("connect-rest")}
}

// BrokerProcesses are the names of a cluster's processes: its own name on kfake, kafka-east or kafka-east-1 to
// kafka-east-3 on Apache Kafka.
func (l *Lab) BrokerProcesses(cluster string) []string {
	if l.options.Kafka == Apache {
		return l.apacheCluster(cluster).Processes()
	}
	return []string{cluster}
}

// TopicPrefix is what stands before the names of mirrored topics on a cluster: nothing, but with MirrorMaker's default
// policy the other cluster's alias and a dot.
func (l *Lab) TopicPrefix(cluster string) string {
	if l.options.Policy == Default && cluster != Clusters[0] {
		return Clusters[0] + "."
	}
	return ""
}

// TopicNames are a workload's topics as a cluster calls them.
func (l *Lab) TopicNames(cluster string, w Workload) []string {
	names := slices.Clone(w.TopicNames())
	for i := range names {
		names[i] = l.TopicPrefix(cluster) + names[i]
	}
	return names
}

// Missing says in one sentence what a lab with these options needs and this machine does not have; it is empty when
// nothing is missing.
func Missing(o Options) string {
	if o.Kafka == Apache {
		return apache.Missing()
	}
	return ""
}
