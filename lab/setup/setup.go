// Package setup puts the lab together: it starts every server in one process tree, makes what has to be in them (users,
// ACLs, topics, the link, secrets, tokens, keys, runbooks), and then starts the worker and the sample clients.
//
// Start reading at Up; Options say what is wanted and Lab is what one gets. Making is idempotent: a lab that is started
// again in the same folder finds everything as it was left, fences and promoted topics included. kafka.go, link.go,
// vault.go, consul.go and runbook.go each make what belongs into one server; apache.go is Apache Kafka and MirrorMaker 2; programs.go starts the worker and clients;
// tls.go makes the certificates of a lab with TLS.
package setup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"switchback/internal/secret"
	"switchback/lab/apache"
	"switchback/lab/servers"
	"switchback/lab/tree"
)

// Lab is a running lab. Every method may be called from several goroutines.
type Lab struct {
	options  Options
	dir      string
	state    State
	secrets  *secrets
	tree     tree.Tree
	programs Programs
	runtime  apache.Runtime // of a lab on Apache Kafka
	certs    certificates
	http     *http.Client
}

// Part is where one part (the worker, or a client by its name) finds what it needs to log in. Each file is mode 0600.
type Part struct {
	RoleIDFile      string // Vault AppRole
	SecretIDFile    string
	ConsulTokenFile string
}

// Programs are the paths of what is started; empty where it is left out.
type Programs struct{ Lab, Temporal, Consul, Worker, Supervisor string }

// Up builds what is not built, starts the lab and returns when all of it is ready. When that fails, or ctx ends on the
// way, nothing is left running. After that the lab runs until Down or the end of this process, whatever ctx does.
func Up(ctx context.Context, o Options) (*Lab, error) {
	l, err := open(ctx, o)
	if err != nil {
		return nil, fmt.Errorf("set up the lab: %w", err)
	}
	if err := l.build(ctx); err != nil {
		return nil, fmt.Errorf("set up the lab: %w", err)
	}
	if err := l.start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("set up the lab in %s: %w", l.dir, err), l.Down())
	}
	return l, nil
}

// Build builds what Up would build, so that a wait of minutes happens where somebody sees why.
func Build(ctx context.Context, o Options) error {
	l := &Lab{options: o.withDefaults()}
	if err := l.options.check(); err != nil {
		return err
	}
	return l.build(ctx)
}

// Open reads where the lab in a folder is, and starts nothing: for looking at one that somebody else keeps running.
func Open(ctx context.Context, o Options) (*Lab, error) { return open(ctx, o) }

func open(ctx context.Context, o Options) (*Lab, error) {
	l := &Lab{}
	var err error
	if l.dir, err = filepath.Abs(cmp.Or(o.Dir, defaultDir)); err != nil {
		return nil, err
	}
	if l.options, err = settled(o, l.dir); err != nil {
		return nil, err
	}
	if err = os.MkdirAll(l.dir, 0o700); err != nil {
		return nil, err
	}
	if l.state, err = openState(ctx, l.dir, l.options); err != nil {
		return nil, err
	}
	if l.state.TLS {
		if l.certs, err = openCertificates(l.dir, slices.Sorted(maps.Values(l.state.Hosts))...); err != nil {
			return nil, err
		}
		l.certs.brokers = l.options.Kafka != Apache || len(l.state.Hosts) == 0
	}
	l.http = l.certs.http()
	if l.secrets, err = openSecrets(l.dir, l.options.Canary); err != nil {
		return nil, err
	}
	return l, nil
}

// settled are the options of a lab in a folder, defaults filled in, and checked.
func settled(o Options, dir string) (Options, error) {
	var s State
	err := servers.ReadJSON(filepath.Join(dir, "lab.json"), &s)
	switch {
	case err == nil:
		if o, err = s.keeps(o); err != nil {
			return o, err
		}
	case !errors.Is(err, fs.ErrNotExist):
		return o, err
	}
	o = o.withDefaults()
	return o, o.check()
}

func (l *Lab) build(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	into := func(path *string, build func() (string, error)) {
		g.Go(func() (err error) { *path, err = build(); return err })
	}
	p := &l.programs
	into(&p.Temporal, func() (string, error) { return servers.Build(ctx, "temporal") })
	into(&p.Consul, func() (string, error) { return servers.Build(ctx, "consul") })
	if p.Lab = l.options.Program; p.Lab == "" {
		into(&p.Lab, func() (string, error) { return servers.Product(ctx, "lab") })
	}
	if l.options.Kafka == Apache {
		g.Go(func() (err error) { l.runtime, err = apache.Fetch(ctx); return err })
	}
	if !l.options.WithoutWorker {
		into(&p.Worker, func() (string, error) { return servers.Product(ctx, "worker", l.options.WorkerTags...) })
	}
	if !l.options.WithoutClients {
		into(&p.Supervisor, func() (string, error) { return servers.Product(ctx, "supervisor") })
	}
	return g.Wait()
}

// start brings the servers up side by side, each followed by what belongs into it, and then those that use them.
func (l *Lab) start(ctx context.Context) error {
	kafkas := make([]tree.Spec, len(Clusters))
	var errs [4]error
	for i, cluster := range Clusters {
		kafkas[i], errs[i] = l.serve("kafka", cluster, l.kafkaConfig(cluster), servers.Answers(l.ControlURL(cluster)+"/health"))
	}
	var link tree.Spec
	link, errs[2] = l.serve("link", "link", l.linkConfig(), l.linkAnswers)
	errs[3] = l.writeSecrets() // on disk before the first server learns one
	if err := errors.Join(errs[:]...); err != nil {
		return err
	}
	if err := l.makeDirs(); err != nil {
		return err
	}
	g, started := errgroup.WithContext(ctx)
	g.Go(func() error { return l.tree.Start(started, servers.Temporal(l.temporalConfig())) })
	for _, name := range l.everyConsul() {
		g.Go(func() error { return l.startConsul(started, name) })
	}
	for _, name := range l.everyVault() {
		g.Go(func() error { return l.startVault(started, name) })
	}
	startKafkas, startLink := l.starts(kafkas...), []func(context.Context) error{l.starts(link), l.provisionLink}
	if l.options.Kafka == Apache {
		startKafkas = l.startApache
	}
	if l.options.Link == MirrorMaker {
		startLink = []func(context.Context) error{l.startMirrorMaker}
	}
	g.Go(func() error {
		return inOrder(started, append([]func(context.Context) error{startKafkas, l.provisionKafkas}, startLink...)...)
	})
	if err := g.Wait(); err != nil {
		return err
	}
	if err := l.writeRunbooks(); err != nil {
		return err
	}
	return l.startPrograms(ctx)
}

func (l *Lab) startConsul(ctx context.Context, name string) error {
	spec, err := servers.Consul(l.consulConfig(name))
	if err != nil {
		return err
	}
	if err := l.tree.Start(ctx, spec); err != nil {
		return err
	}
	return l.fillConsul(ctx, name)
}

func (l *Lab) startVault(ctx context.Context, name string) error {
	spec, err := l.serve("vault", name, servers.VaultConfig{
		Address: l.state.address(name), Dir: l.path(name), CertFile: l.certs.cert, KeyFile: l.certs.key,
	}, servers.AnswersOver(l.http, l.url(name)+"/v1/sys/health"))
	if err != nil {
		return err
	}
	if err := l.tree.Start(ctx, spec); err != nil {
		return err
	}
	return l.fillVault(ctx, name)
}

// writeSecrets makes up what is not there yet, keeps it, and then writes the files that people and parts log in with.
func (l *Lab) writeSecrets() error {
	for _, cluster := range Clusters {
		l.apacheUsers(cluster)
	}
	l.vaultSecrets()
	for _, part := range l.parts() {
		l.secretID(part)
	}
	manager := l.consulToken("manager")
	if err := l.secrets.save(); err != nil {
		return err
	}
	if err := l.writeParts(); err != nil {
		return err
	}
	return servers.WriteFile(l.ManagerTokenFile(), []byte(manager.Reveal()))
}

// makeDirs makes the folders that programs write to.
func (l *Lab) makeDirs() error {
	dirs := []string{l.path("temporal"), l.LedgerDir(), l.ReportsDir()}
	for _, c := range l.options.clients() {
		for i := range c.Instances {
			dirs = append(dirs, l.path("clients", c.instance(i)))
		}
	}
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) provisionKafkas(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, cluster := range Clusters {
		g.Go(func() error { return l.provisionKafka(ctx, cluster) })
	}
	return g.Wait()
}

func (l *Lab) starts(specs ...tree.Spec) func(context.Context) error {
	return func(ctx context.Context) error { return l.tree.Start(ctx, specs...) }
}

func inOrder(ctx context.Context, steps ...func(context.Context) error) error {
	for _, step := range steps {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// serve is one of the servers that are part of the lab's own program. Its settings hold passwords and go by a file.
func (l *Lab) serve(kind, name string, config any, ready func(context.Context) error) (tree.Spec, error) {
	file := l.path(kind, name+".json")
	return tree.Spec{
		Name: name, Path: l.programs.Lab, Args: []string{"serve", kind, file}, Dir: l.dir, Log: l.log(name), Ready: ready,
	}, servers.WriteJSON(file, config)
}

func (l *Lab) temporalConfig() servers.TemporalConfig {
	port := func(name string) int { return l.state.Ports[name][0] }
	return servers.TemporalConfig{
		Program: l.programs.Temporal, Dir: l.path("temporal"), Log: l.log("temporal"),
		Port: port("temporal"), UIPort: port("temporal-ui"), HTTPPort: port("temporal-http"), Defaults: l.options.TemporalDefaults,
	}
}

// Down stops everything, what was started last first, and leaves no process behind.
func (l *Lab) Down() error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	return l.tree.Down(ctx)
}

// Kill ends a process with SIGKILL: temporal, consul, vault, east, west, link, worker, or a client's instance such as
// checkout-1 (its supervisor and its child). For Apache Kafka see BrokerProcesses and ConnectProcess.
func (l *Lab) Kill(name string) error { return l.tree.Kill(name) }

// Stop ends a process gracefully.
func (l *Lab) Stop(ctx context.Context, name string) error { return l.tree.Stop(ctx, name) }

// StartAgain starts a process that has ended, with the same ports and state, and waits until it is ready.
func (l *Lab) StartAgain(ctx context.Context, name string) error { return l.tree.StartAgain(ctx, name) }

// Change edits how a process is started next time, its environment for one.
func (l *Lab) Change(name string, edit func(*tree.Spec)) error { return l.tree.Change(name, edit) }

// Wait returns when a process has ended.
func (l *Lab) Wait(ctx context.Context, name string) (tree.Status, error) {
	return l.tree.Wait(ctx, name)
}

// Status of every process.
func (l *Lab) Status() []tree.Status { return l.tree.Status() }

// Start adds a process of the caller's to the tree, a second worker for one.
func (l *Lab) Start(ctx context.Context, specs ...tree.Spec) error {
	return l.tree.Start(ctx, specs...)
}

// Programs that were built.
func (l *Lab) Programs() Programs { return l.programs }

// ProgramDirs are the folders of what was built, for a PATH.
func (l *Lab) ProgramDirs() []string {
	var dirs []string
	for _, program := range []string{l.programs.Lab, l.programs.Worker, l.programs.Temporal, l.programs.Consul} {
		if dir := filepath.Dir(program); program != "" && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// Dir is the lab's folder, an absolute path.
func (l *Lab) Dir() string { return l.dir }

// LedgerDir is where the sample clients write down what they did.
func (l *Lab) LedgerDir() string { return l.path("ledger") }

// ReportsDir is where the worker writes reports.
func (l *Lab) ReportsDir() string { return l.path("reports") }

// RunbookFile of a workload.
func (l *Lab) RunbookFile(workload string) string { return l.path("runbooks", workload+".yaml") }

// Options as they are in force, defaults filled in.
func (l *Lab) Options() Options { return l.options }

// ClusterID of east or west.
func (l *Lab) ClusterID(cluster string) string { return l.state.ClusterIDs[cluster] }

// Bootstrap of east or west: host:port of each broker.
func (l *Lab) Bootstrap(cluster string) []string { return l.state.bootstrap(cluster) }

// ControlURL of east or west: where its faults are set. Apache Kafka has none, and it is empty.
func (l *Lab) ControlURL(cluster string) string {
	if l.options.Kafka == Apache {
		return ""
	}
	return "http://" + l.state.address(cluster+"-control")
}

// LinkURL is the link service, its API and its faults.
func (l *Lab) LinkURL() string { return l.url("link") }

// LinkLogin is the login of the link's API.
func (l *Lab) LinkLogin() secret.Login { return l.linkLogin() }

// TemporalAddress is host:port of Temporal's gRPC endpoint.
func (l *Lab) TemporalAddress() string { return l.state.address("temporal") }

// TemporalUI is the Web UI.
func (l *Lab) TemporalUI() string { return "http://" + l.state.address("temporal-ui") }

// ConsulURL is Consul's API and UI.
func (l *Lab) ConsulURL() string { return l.url("consul") }

// ManagerTokenFile holds Consul's token that may do everything, mode 0600.
func (l *Lab) ManagerTokenFile() string { return l.path("consul", "manager-token") }

// ConsulToken of a part.
func (l *Lab) ConsulToken(part string) secret.Value { return l.consulToken(part) }

// VaultURL is Vault's API.
func (l *Lab) VaultURL() string { return l.url("vault") }

// Part says where a part finds its logins: "worker", or a client's name.
func (l *Lab) Part(name string) Part {
	return Part{
		RoleIDFile: l.path("parts", name, "role-id"), SecretIDFile: l.path("parts", name, "secret-id"),
		ConsulTokenFile: l.path("parts", name, "consul-token"),
	}
}

// Secrets are all passwords and tokens that the lab made up, for tests that look for them where they must not be.
func (l *Lab) Secrets() []secret.Value { return l.secrets.all() }

func (l *Lab) path(parts ...string) string {
	return filepath.Join(append([]string{l.dir}, parts...)...)
}

func (l *Lab) log(name string) string { return l.path("logs", name+".log") }
