package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"switchback/internal/consul"
	"switchback/internal/vault"
)

const long = `supervisor runs a Kafka client program and keeps it on the right cluster.

It reads where the cluster is from Consul and the credentials from Vault, renders environment variables and a client
properties file (mode 0600), starts the program, restarts it on a new epoch, stops it when a run asks for it, and writes
what it does to clients/<client>/instances/<instance> in Consul. A healthy program is kept while Consul or Vault are away;
starting one needs the discovery entry of --consul-address.

The program finds
  KAFKA_PROPERTIES_FILE                          a Java properties file with everything, the password too
  KAFKA_BOOTSTRAP_SERVERS, KAFKA_SECURITY_PROTOCOL, KAFKA_SASL_MECHANISM, KAFKA_SASL_USERNAME, KAFKA_TOPIC_PREFIX
  KAFKA_SASL_PASSWORD                            only with --password-in-env
  KAFKA_SSL_CA_FILE                              only with --kafka-ca
  SWITCHBACK_CLUSTER, SWITCHBACK_EPOCH, SWITCHBACK_CLIENT, SWITCHBACK_INSTANCE

On stop it gets SIGTERM, and SIGKILL after --stop-timeout. A shell in between should exec the program, so that signals and
the end of the supervisor reach it. TERM and INT end the supervisor after its program, with the program's exit code; other
signals are passed on.

Each flag may be given as a variable instead: SUPERVISOR_CONSUL_ADDRESS for --consul-address.
Exit codes: 0 done, 1 failed, 2 usage; the program's own where it has run.`

const examples = `  # a Java producer of the workload orders
  supervisor --client checkout --consul-address https://consul:8501 --consul-prefix kafka/orders \
    --consul-token-file /run/consul-token --vault-address https://vault:8200 \
    --vault-role-id-file /run/role-id --vault-secret-id-file /run/secret-id -- java -jar checkout.jar

  # show what the program would be given, and start nothing
  supervisor --dry-run --client checkout ... -- java -jar checkout.jar

  # a batch job: its end is the supervisor's end
  supervisor --once --client nightly ... -- ./nightly.sh`

// run is the program with everything from outside given. It returns the exit code.
func run(ctx context.Context, args, env []string, std stdio) int {
	var s settings
	code := 0
	cmd := &cobra.Command{
		Use: "supervisor [flags] -- command [arguments]", Short: "Keep a Kafka client program on the right cluster",
		Long: long, Example: examples, SilenceUsage: true, SilenceErrors: true, DisableFlagsInUseLine: true,
		RunE: func(cmd *cobra.Command, command []string) error {
			s.command = command
			if err := s.check(); err != nil {
				return usage{err}
			}
			var err error
			code, err = supervise(cmd.Context(), s, env, std)
			return err
		},
	}
	cmd.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usage{err} })
	cmd.SetArgs(args)
	cmd.SetOut(std.out)
	cmd.SetErr(std.err)
	s.flags(cmd.Flags())
	err := fromEnv(cmd.Flags(), env)
	if err == nil {
		err = cmd.ExecuteContext(ctx)
	}
	var wrong usage
	switch {
	case errors.As(err, &wrong):
		_, _ = fmt.Fprintf(std.err, "supervisor: %v\nSee supervisor --help.\n", err)
		return 2
	case err != nil:
		_, _ = fmt.Fprintf(std.err, "supervisor: %v\n", err)
		return 1
	}
	return code
}

// usage is an error of the command line.
type usage struct{ error }

func (s *settings) flags(f *pflag.FlagSet) {
	f.StringVar(&s.client, "client", "", "the client's `name` in the runbook")
	f.StringVar(&s.instance, "instance", "", "this instance's `id`, unique for the client (default <host>-<process>)")
	f.StringVar(&s.consul.address, "consul-address", "", "`URL` of the Consul of the required discovery entry")
	f.StringVar(&s.consul.prefix, "consul-prefix", "", "`prefix` of the runbook's keys there, such as kafka/orders")
	f.StringVar(&s.consul.tokenFile, "consul-token-file", "", "`file` with the Consul token")
	f.StringVar(&s.consul.datacenter, "consul-datacenter", "", "Consul datacenter `name`")
	f.StringVar(&s.consul.ca, "consul-ca", "", "PEM `file` of the authority of Consul's certificate")
	f.StringArrayVar(&s.discovery, "discovery", nil, "another `entry`: address=...,prefix=...,token-file=...,datacenter=...,ca=...; the highest epoch of all counts (repeatable)")
	f.StringVar(&s.vault.Address, "vault-address", "", "`URL` of Vault")
	f.StringVar(&s.vault.Namespace, "vault-namespace", "", "Vault `namespace`")
	f.StringVar(&s.vault.RoleIDFile, "vault-role-id-file", "", "`file` with the AppRole role id")
	f.StringVar(&s.vault.SecretIDFile, "vault-secret-id-file", "", "`file` with the AppRole secret id")
	f.StringVar(&s.vault.TokenFile, "vault-token-file", "", "`file` with a Vault token, instead of an AppRole")
	f.StringVar(&s.vault.TLS.CAFile, "vault-ca", "", "PEM `file` of the authority of Vault's certificate")
	f.StringVar(&s.propertiesFile, "properties-file", "", "where to write the client properties `file` (default in a private temporary folder)")
	f.StringVar(&s.kafkaCA, "kafka-ca", "", "PEM `file` of the authority of the brokers' certificates")
	f.BoolVar(&s.passwordInEnv, "password-in-env", false, "also give the password as KAFKA_SASL_PASSWORD")
	f.DurationVar(&s.stopTimeout, "stop-timeout", 30*time.Second, "how long the command may take to end before it is killed")
	f.DurationVar(&s.backoff, "restart-backoff", time.Second, "first pause after the command ended by itself; it doubles")
	f.DurationVar(&s.backoffMax, "restart-backoff-max", 30*time.Second, "longest pause; a command that ran longer begins anew")
	f.BoolVar(&s.once, "once", false, "do not restart the command when it ends by itself; exit with its code")
	f.BoolVar(&s.dryRun, "dry-run", false, "show what the command would be given, secrets masked, and start nothing")
	f.StringVar(&s.logFormat, "log-format", "text", "text or json")
}

// fromEnv sets the flags that have a variable; the command line wins, because it is read after it.
func fromEnv(f *pflag.FlagSet, env []string) (err error) {
	for _, pair := range env {
		name, value, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, envPrefix) {
			continue
		}
		flag := f.Lookup(strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(name, envPrefix), "_", "-")))
		if flag == nil {
			return usage{fmt.Errorf("%s: there is no such setting", name)}
		}
		if setErr := flag.Value.Set(value); setErr != nil {
			return usage{fmt.Errorf("%s: %w", name, setErr)}
		}
	}
	return nil
}

// supervise opens what is needed and runs the loop.
func supervise(ctx context.Context, s settings, env []string, std stdio) (int, error) {
	log := slog.New(slog.NewTextHandler(std.err, nil))
	if s.logFormat == "json" {
		log = slog.New(slog.NewJSONHandler(std.err, nil))
	}
	log = log.With("client", s.client, "instance", s.instance)
	l := &loop{s: s, log: log, io: std, inherited: env, vault: noVault{}}
	for _, e := range append([]entrySettings{s.consul}, s.others...) {
		d, err := e.open()
		if err != nil {
			return 1, err
		}
		defer d.Close()
		l.entries = append(l.entries, d)
	}
	if s.vault.Address != "" {
		s.vault.Log = log
		v, err := vault.Open(s.vault)
		if err != nil {
			return 2, usage{err}
		}
		defer v.Close()
		l.vault = v
	}
	if err := l.s.place(); err != nil {
		return 1, err
	}
	if l.s.temporaryDirectory != "" {
		defer func() { _ = os.RemoveAll(l.s.temporaryDirectory) }() // holds a secret: gone with us
	}
	if s.dryRun {
		return 0, l.dryRun(ctx, std.out)
	}
	if err := adopt(); err != nil {
		log.Warn("processes that the command leaves behind cannot be adopted", "error", err)
	}
	l.host, l.boot = whereami()
	var err error
	l.registration, err = l.entries[0].Register(s.client, s.instance, consul.RegisterOptions{Log: log, Replaces: l.replaces})
	if err != nil {
		return 2, usage{err}
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH)
	defer signal.Stop(signals)
	code := l.run(ctx, signals)
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second)
	defer cancel()
	l.registration.Close(closing)
	return code, nil
}

// dryRun shows what a start would give to the command.
func (l *loop) dryRun(ctx context.Context, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, prepareTime)
	defer cancel()
	known := knowledge{states: make([]*consul.State, len(l.entries))}
	for i, d := range l.entries {
		state, err := d.Read(ctx)
		if err != nil && i == 0 {
			return err
		}
		known.learn(news{i, state, err})
	}
	view, _ := known.view(l.s.client)
	if err := startable(view, consul.View{Epoch: consul.Unknown}); err != nil && !errors.Is(err, errNotDesired) {
		return err
	}
	env, props, err := l.render(ctx, view)
	if err != nil {
		return err
	}
	_, _ = fmt.Fprintf(out, "# desired: %s\n# command: %s\n", view.Desired, strings.Join(l.s.command, " "))
	for _, s := range env {
		_, _ = fmt.Fprintf(out, "%s=%s\n", s.name, s.masked())
	}
	_, _ = fmt.Fprintf(out, "\n# %s (mode 0600)\n", l.s.propertiesFile)
	for _, s := range props {
		_, _ = fmt.Fprintf(out, "%s=%s\n", s.name, s.masked())
	}
	return nil
}
