package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"switchback/lab/setup"
	"switchback/lab/tree"
)

// upFlags are the options that `lab up` hands to the keeper.
type upFlags struct {
	topics, partitions, rate         int
	defaults, oneWay, tls            bool
	withoutWorker, withoutClients    bool
	pendingMillis                    int
	workerTags, workloads, workerEnv []string
	kafka, link, policy              string
	brokers                          int
	exactlyOnce                      bool
}

func (f *upFlags) register(cmd *cobra.Command) {
	d := setup.DefaultWorkload("orders")
	flags := cmd.Flags()
	flags.IntVar(&f.topics, "topics", d.Topics, "topics of each workload")
	flags.IntVar(&f.partitions, "partitions", d.Partitions, "partitions of each topic")
	flags.IntVar(&f.rate, "rate", d.Rate, "records per second of each workload, over all producers")
	flags.StringSliceVar(&f.workloads, "workloads", []string{"orders"}, "workloads, each with its runbook, on one link")
	flags.StringVar(&f.kafka, "kafka", "", "kfake (the default) or apache: Apache Kafka, which needs Java and Maven")
	flags.StringVar(&f.link, "link", "", "cluster-linking (the default) or, on Apache Kafka, mirrormaker")
	flags.StringVar(&f.policy, "policy", "", "what mirrormaker calls topics on the target: identity (the default) or default, with the source's alias before it")
	flags.IntVar(&f.brokers, "brokers", 0, "brokers of each cluster; 3 by default, 1 on Apache Kafka")
	flags.BoolVar(&f.exactlyOnce, "exactly-once", false, "exactly-once source support of Kafka Connect")
	flags.BoolVar(&f.oneWay, "one-way-link", false, "a link for each direction, none of which can be reversed")
	flags.BoolVar(&f.tls, "tls", false, "TLS for Kafka, Consul, Vault and the link, under an authority of the lab's own")
	flags.BoolVar(&f.defaults, "temporal-defaults", false, "leave Temporal's server settings as they come")
	flags.IntVar(&f.pendingMillis, "mirror-stop-millis", 0, "how long a mirror takes to stop")
	flags.StringSliceVar(&f.workerTags, "worker-tags", nil, "build tags of the worker")
	flags.StringSliceVar(&f.workerEnv, "worker-env", nil, "NAME=VALUE for the worker's environment")
	flags.BoolVar(&f.withoutWorker, "without-worker", false, "start no worker")
	flags.BoolVar(&f.withoutClients, "without-clients", false, "start no sample clients")
}

// options of the lab that the flags describe; this very program serves its servers.
func (f *upFlags) options(dir string) (setup.Options, error) {
	program, err := os.Executable()
	if err != nil {
		return setup.Options{}, err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return setup.Options{}, err
	}
	o := setup.Options{
		Dir: dir, Program: program, Kafka: f.kafka, Link: f.link, Policy: f.policy, Brokers: f.brokers, ExactlyOnce: f.exactlyOnce,
		OneWayLink: f.oneWay, TLS: f.tls, TemporalDefaults: f.defaults,
		WorkerTags: f.workerTags, WorkerEnv: f.workerEnv, WithoutWorker: f.withoutWorker, WithoutClients: f.withoutClients,
	}
	o.LinkTimings.PendingMillis = f.pendingMillis
	for _, name := range f.workloads {
		w := setup.DefaultWorkload(name)
		w.Topics, w.Partitions, w.Rate = f.topics, f.partitions, f.rate
		o.Workloads = append(o.Workloads, w)
	}
	return o, nil
}

// arguments that give another process the same flags.
func (f *upFlags) arguments(cmd *cobra.Command) []string {
	var args []string
	cmd.Flags().VisitAll(func(flag *pflag.Flag) {
		if flag.Changed && flag.Name != "dir" && flag.Name != "foreground" {
			args = append(args, "--"+flag.Name+"="+valueOf(flag))
		}
	})
	return args
}

func upCommand() *cobra.Command {
	var f upFlags
	var foreground bool
	cmd := &cobra.Command{
		Use: "up", Short: "Start the lab and say where to find everything", Args: names(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := f.options(dirOf(cmd))
			if err != nil {
				return err
			}
			ctx, out := cmd.Context(), cmd.OutOrStdout()
			if r, err := ask(ctx, o.Dir, "GET", "/"); err == nil && r.Phase == "ready" {
				fmt.Fprintf(out, "The lab is up already.\n")
				show(out, r)
				return nil
			}
			begun := time.Now()
			if err := setup.Build(ctx, o); err != nil { // here, where its progress is seen
				return err
			}
			if built := time.Since(begun); built > 2*time.Second {
				fmt.Fprintf(cmd.ErrOrStderr(), "Everything is built, after %v.\n", built.Round(time.Second))
			}
			if foreground {
				return foregroundLab(ctx, out, o)
			}
			return backgroundLab(ctx, out, o, f.arguments(cmd))
		},
	}
	f.register(cmd)
	cmd.Flags().BoolVar(&foreground, "foreground", false, "stay, and end the lab with this command")
	return cmd
}

// keepCommand is the keeper's process.
func keepCommand() *cobra.Command {
	var f upFlags
	cmd := &cobra.Command{
		Use: "keep", Hidden: true, Short: "Hold a lab; what `lab up` starts in the background", Args: names(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := f.options(dirOf(cmd))
			if err != nil {
				return err
			}
			return keep(cmd.Context(), o)
		},
	}
	f.register(cmd)
	return cmd
}

func foregroundLab(ctx context.Context, out io.Writer, o setup.Options) error {
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() { ended <- keep(ctx, o) }()
	r, err := awaitReady(ctx, o.Dir, ended)
	if err != nil {
		return err
	}
	show(out, r)
	fmt.Fprintln(out, "\nCtrl-C ends the lab.")
	return <-ended
}

// backgroundLab starts the keeper as a session of its own, so that neither the end of this command nor that of the
// terminal ends the lab.
func backgroundLab(ctx context.Context, out io.Writer, o setup.Options, args []string) error {
	if err := os.MkdirAll(o.Dir, 0o700); err != nil {
		return err
	}
	log, err := os.OpenFile(filepath.Join(o.Dir, "keeper.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(o.Program, append([]string{"keep", "--dir", o.Dir}, args...)...) //nolint:gosec // this program
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	begun := time.Now()
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start the keeper: %w", err)
	}
	ended := make(chan error, 1)
	go func() {
		err := cmd.Wait()
		ended <- fmt.Errorf("the keeper ended (%w):\n%s", errors.Join(err, errors.New("see keeper.log")), tree.Tail(log.Name(), 20))
	}()
	r, err := awaitReady(ctx, o.Dir, ended)
	if err != nil {
		if ctx.Err() != nil {
			_ = cmd.Process.Signal(syscall.SIGTERM) // interrupted: half a lab is of no use
		}
		return err
	}
	fmt.Fprintf(out, "The lab is ready, after %.1f s.\n", time.Since(begun).Seconds())
	show(out, r)
	return nil
}

func awaitReady(ctx context.Context, dir string, ended <-chan error) (report, error) {
	for {
		r, err := ask(ctx, dir, "GET", "/")
		switch {
		case err == nil && r.Phase == "ready":
			return r, nil
		case err == nil && r.Phase == "failed":
			return r, errors.New(r.Error)
		}
		select {
		case err := <-ended:
			return r, err
		case <-ctx.Done():
			return r, ctx.Err()
		case <-time.After(30 * time.Millisecond):
		}
	}
}

func downCommand() *cobra.Command {
	return &cobra.Command{
		Use: "down", Short: "End the lab and every process of it; its state stays in its folder", Args: names(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, dir := cmd.Context(), dirOf(cmd)
			r, err := ask(ctx, dir, "GET", "/")
			if errors.Is(err, errNoKeeper) {
				fmt.Fprintf(cmd.OutOrStdout(), "No lab runs in %s.\n", dir)
				return nil
			}
			if err == nil {
				_, err = ask(ctx, dir, "POST", "/down")
			}
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(ctx, time.Minute)
			defer cancel()
			for syscall.Kill(r.PID, 0) == nil {
				select {
				case <-ctx.Done():
					return fmt.Errorf("the keeper, process %d, has not ended within a minute; its log is %s", r.PID, filepath.Join(dir, "keeper.log"))
				case <-time.After(20 * time.Millisecond):
				}
			}
			fmt.Fprintf(cmd.OutOrStdout(), "The lab has ended. Its state is in %s (%s processes).\n", dir, strconv.Itoa(len(r.Processes)))
			return nil
		},
	}
}
