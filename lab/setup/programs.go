package setup

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml"
	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"

	"switchback/activities"
	"switchback/internal/consul"
	"switchback/lab/servers"
	"switchback/lab/tree"
	"switchback/runbooks"
)

// TaskQueue of the lab's worker.
const TaskQueue = "switchback"

// startPrograms starts the worker and every instance of the sample clients.
func (l *Lab) startPrograms(ctx context.Context) error {
	var specs []tree.Spec
	if !l.options.WithoutWorker {
		spec, err := l.WorkerSpec(workerPart)
		if err != nil {
			return err
		}
		specs = append(specs, spec)
	}
	if !l.options.WithoutClients {
		for _, w := range l.options.Workloads {
			if !w.Idle {
				specs = append(specs, l.clientSpecs(w)...)
			}
		}
	}
	return l.tree.Start(ctx, specs...)
}

// StartClients starts the clients of an idle workload and waits until they are registered.
func (l *Lab) StartClients(ctx context.Context, w Workload) error {
	return l.tree.Start(ctx, l.clientSpecs(w)...)
}

// StopClients ends the clients of a workload.
func (l *Lab) StopClients(ctx context.Context, w Workload) error {
	var errs []error
	for _, spec := range l.clientSpecs(w) {
		errs = append(errs, l.tree.Stop(ctx, spec.Name))
	}
	return errors.Join(errs...)
}

// writeWorkerSettings writes what the worker is started with.
func (l *Lab) writeWorkerSettings() (file string, err error) {
	part := l.Part(workerPart)
	settings := map[string]any{
		"temporal": map[string]any{"address": l.TemporalAddress(), "namespace": client.DefaultNamespace, "taskQueue": TaskQueue},
		"runbooks": l.path("runbooks"),
		"reports":  l.path("reports"),
		"vault": map[string]any{
			"address": l.VaultURL(), "roleIdFile": part.RoleIDFile, "secretIdFile": part.SecretIDFile,
			"tls": map[string]any{"ca": l.CA()},
		},
		"log": map[string]any{"level": "info"},
	}
	if l.regional() {
		settings["vaults"] = []map[string]any{{
			"prefix": mount + "/" + Clusters[0], "address": l.url(regionalVault), "roleIdFile": part.RoleIDFile, "secretIdFile": part.SecretIDFile,
			"tls": map[string]any{"ca": l.CA()},
		}}
	}
	data, err := yaml.Marshal(settings)
	if err != nil {
		return "", fmt.Errorf("write the worker's settings: %w", err)
	}
	file = l.path("worker", "settings.yaml")
	return file, servers.WriteFile(file, data)
}

// WorkerSpec is a worker of that name; tests may start a second one.
func (l *Lab) WorkerSpec(name string) (tree.Spec, error) {
	file, err := l.writeWorkerSettings()
	if err != nil {
		return tree.Spec{}, err
	}
	return tree.Spec{
		Name: name, Path: l.programs.Worker, Args: []string{"--config", file}, Env: l.options.WorkerEnv, Dir: l.dir, Log: l.log(name),
		Grace: 20 * time.Second,
		Ready: func(ctx context.Context) error { return l.polls(ctx, name) },
	}, nil
}

// polls is nil once the worker asks Temporal for workflows and for activities, later than it was started: Temporal
// remembers one that was killed for some minutes.
func (l *Lab) polls(ctx context.Context, name string) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	temporal, err := l.Temporal()
	if err != nil {
		return err
	}
	defer temporal.Close()
	process := l.process(name)
	for _, kind := range []enums.TaskQueueType{enums.TASK_QUEUE_TYPE_WORKFLOW, enums.TASK_QUEUE_TYPE_ACTIVITY} {
		answer, err := temporal.DescribeTaskQueue(ctx, TaskQueue, kind)
		if err != nil {
			return err
		}
		polled := false
		for _, p := range answer.GetPollers() {
			polled = polled || p.GetLastAccessTime().AsTime().After(process.Since)
		}
		if !polled {
			return fmt.Errorf("nobody polls task queue %s for %s tasks", TaskQueue, strings.ToLower(kind.String()))
		}
	}
	return nil
}

// Temporal connects to Temporal. The caller closes it.
func (l *Lab) Temporal() (client.Client, error) {
	return client.Dial(client.Options{HostPort: l.TemporalAddress(), Logger: servers.Silent{}})
}

func (l *Lab) clientSpecs(w Workload) []tree.Spec {
	producers := 0
	for _, c := range w.Clients {
		if c.Role == runbooks.RoleProducer {
			producers += c.Instances
		}
	}
	var specs []tree.Spec
	for _, c := range w.Clients {
		for i := range c.Instances {
			instance := c.instance(i)
			rate := 0
			if c.Role == runbooks.RoleProducer {
				rate = max(1, w.Rate/producers)
			}
			specs = append(specs, l.clientSpec(w, c, instance, rate))
		}
	}
	return specs
}

// clientSpec is one instance: the supervisor, and after -- a program that knows nothing of Switchback.
func (l *Lab) clientSpec(w Workload, c Client, instance string, rate int) tree.Spec {
	part := l.Part(c.Name)
	args := []string{
		"--client", c.Name, "--instance", instance,
		"--consul-address", l.ConsulURL(), "--consul-prefix", Prefix(w.Name), "--consul-token-file", part.ConsulTokenFile,
		"--vault-address", l.VaultURL(), "--vault-role-id-file", part.RoleIDFile, "--vault-secret-id-file", part.SecretIDFile,
		"--properties-file", l.path("clients", instance, "client.properties"),
	}
	if ca := l.CA(); ca != "" {
		args = append(args, "--consul-ca", ca, "--vault-ca", ca, "--kafka-ca", ca)
	}
	args = append(args, "--")
	command := l.sampleClient
	if l.options.ClientCommand != nil {
		command = l.options.ClientCommand
	}
	args = append(args, command(w, c, instance, rate)...)
	return tree.Spec{
		Name: instance, Path: l.programs.Supervisor, Args: args, Dir: l.dir, Log: l.log(instance), Grace: 20 * time.Second,
		Ready: func(ctx context.Context) error { return l.registered(ctx, w.Name, c.Name, instance) },
	}
}

// ReaderSpec is an instance of a consumer that reads these topics on a cluster that the workload has left, while a recovery
// lets its group in there.
func (l *Lab) ReaderSpec(w Workload, c Client, cluster, instance string, topics ...string) (tree.Spec, error) {
	if err := os.MkdirAll(l.path("clients", instance), 0o700); err != nil {
		return tree.Spec{}, fmt.Errorf("make a folder for %s: %w", instance, err)
	}
	entry := Prefix(w.Name) + "/" + activities.ReadingPrefix + "/" + cluster
	spec := l.clientSpec(w, c, instance, 0)
	for i, arg := range spec.Args {
		switch {
		case arg == Prefix(w.Name):
			spec.Args[i] = entry
		case arg == strings.Join(w.TopicNames(), ","):
			spec.Args[i] = strings.Join(topics, ",")
		}
	}
	spec.Ready = func(ctx context.Context) error { // it waits there until somebody lets it in
		d, err := l.discoveryAt(entry)
		if err != nil {
			return err
		}
		defer d.Close()
		state, err := d.Read(ctx)
		if _, ok := state.Clients[c.Name].Instances[instance]; err == nil && !ok {
			err = fmt.Errorf("%s is not in Consul yet", instance)
		}
		return err
	}
	return spec, nil
}

// sampleClient is the lab's own client program.
func (l *Lab) sampleClient(w Workload, c Client, instance string, rate int) []string {
	return SampleClient(l.programs.Lab, l.LedgerDir(), w, c, instance, rate)
}

// SampleClient is the command line of an instance of a sample client, played by a program, that writes its ledger into a folder.
func SampleClient(program, ledger string, w Workload, c Client, instance string, rate int) []string {
	command := []string{program, "client", c.Role, "--instance", instance, "--ledger", ledger, "--topics", strings.Join(w.TopicNames(), ",")}
	if c.Role == runbooks.RoleProducer {
		return append(command, "--rate", strconv.Itoa(rate))
	}
	return append(command, "--group", c.Group)
}

// InBatches has one send and poll every 50 ms: where many labs share a machine, requests of one record each are most of its work.
func InBatches(c Client, command []string) []string {
	if c.Role == runbooks.RoleProducer {
		return append(command, "--every", "50ms")
	}
	return append(command, "--rest", "50ms")
}

// registered is nil once an instance says in Consul that it runs, or that it is stopped where that is what is wanted.
func (l *Lab) registered(ctx context.Context, workload, client, instance string) error {
	entry, err := l.Discovery(workload)
	if err != nil {
		return err
	}
	defer entry.Close()
	state, err := entry.Read(ctx)
	if err != nil {
		return err
	}
	wanted := consul.Running
	if state.For(client).Desired == consul.Stop {
		wanted = consul.Stopped
	}
	found, ok := state.Clients[client].Instances[instance]
	switch {
	case !ok:
		return fmt.Errorf("%s is not in Consul yet", instance)
	case found.PID != l.process(instance).PID:
		return fmt.Errorf("%s in Consul is another process, %d", instance, found.PID)
	case found.State != wanted:
		return fmt.Errorf("%s is %s, not %s: %s", instance, found.State, wanted, found.Reason)
	}
	return nil
}

// Discovery is the entry of a workload in Consul, with the token that may do everything. The caller closes it.
func (l *Lab) Discovery(workload string) (*consul.Discovery, error) {
	return l.discoveryAt(Prefix(workload))
}

func (l *Lab) discoveryAt(prefix string) (*consul.Discovery, error) {
	return consul.Open(consul.Config{Address: l.ConsulURL(), Token: l.consulToken("manager"), Prefix: prefix, TLS: consul.TLS{CAFile: l.CA()}})
}

func (l *Lab) process(name string) tree.Status {
	for _, s := range l.tree.Status() {
		if s.Name == name {
			return s
		}
	}
	return tree.Status{}
}
