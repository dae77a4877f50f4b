package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/pflag"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/worker"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"switchback/activities"
	"switchback/internal/dial"
	"switchback/workflows"
)

const usage = `worker runs Switchback's workflows and activities.

  worker --config /etc/switchback/worker.yaml

Settings are taken from the defaults, the file, the environment (SWITCHBACK_TEMPORAL_ADDRESS for temporal.address) and
flags, in this order. It logs to standard error and ends gracefully on SIGTERM: what it was doing goes on in another
worker. Exit codes: 0 ended when asked, 1 failed, 2 wrong settings.

Flags:
`

// run is the whole program: 0 when it ended because it was asked to, 1 when it failed, 2 for wrong settings.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	f := flags()
	f.SetOutput(stderr)
	f.Usage = func() { fmt.Fprint(stdout, usage+f.FlagUsages()) }
	switch err := f.Parse(args); {
	case errors.Is(err, pflag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(stderr, "worker:", err)
		return 2
	}
	if f.NArg() > 0 {
		fmt.Fprintf(stderr, "worker: it takes no arguments, only flags: what is %q?\n", f.Arg(0))
		return 2
	}
	s, err := load(f, func() []string { return environ })
	if err != nil {
		fmt.Fprintln(stderr, "worker:", err)
		return 2
	}
	log := logger(s, stderr)
	if err := serve(ctx, s, log); err != nil {
		log.Error("worker failed", "error", err)
		return 1
	}
	return 0
}

func logger(s Settings, w io.Writer) *slog.Logger {
	level, _ := s.level() // validated
	options := &slog.HandlerOptions{Level: level}
	if s.Log.Format == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

// serve connects, registers and works until the context ends.
func serve(ctx context.Context, s Settings, log *slog.Logger) error {
	measured := newMetrics()
	where, stopMetrics, err := measured.serve(s.Metrics.Address, log)
	if err != nil {
		return err
	}
	defer stopMetrics()
	v, err := openVaults(s, log)
	if err != nil {
		return err
	}
	defer v.close()
	if err := v.mayLogIn(ctx, log); err != nil {
		return err
	}
	temporal, err := dialPatiently(ctx, s, log, measured)
	if err != nil || temporal == nil {
		return err
	}
	defer temporal.Close()
	sys := newSystems(v, log)
	defer sys.close()

	// See docs/decisions/0012-temporal-settings.md for the figures behind these.
	worker.SetStickyWorkflowCacheSize(2000)
	fatal := make(chan error, 1)
	w := worker.New(temporal, s.Temporal.TaskQueue, worker.Options{
		StickyScheduleToStartTimeout:     500 * time.Millisecond,
		MaxConcurrentActivityTaskPollers: 10, MaxConcurrentWorkflowTaskPollers: 10,
		WorkerStopTimeout:            s.StopTimeout,
		MaxHeartbeatThrottleInterval: activities.BeatLeast / 2, // each beat is sent
		Interceptors:                 []interceptor.WorkerInterceptor{&activities.Interceptor{}},
		OnFatalError:                 func(err error) { fatal <- err },
	})
	workflows.Register(w)
	register(w, s, temporal, sys, measured.watch)
	if err := w.Start(); err != nil {
		return fmt.Errorf("start the worker in namespace %s of Temporal at %s: %w", s.Temporal.Namespace, s.Temporal.Address, err)
	}
	version, revision, _ := built()
	log.Info("worker is ready", "temporal", s.Temporal.Address, "namespace", s.Temporal.Namespace, "taskQueue", s.Temporal.TaskQueue,
		"runbooks", s.Runbooks, "metrics", where, "version", version, "revision", revision)
	go newProtection(measured.all.registry).keep(ctx, temporal, log)
	select {
	case err := <-fatal: // the SDK has stopped the worker already
		return fmt.Errorf("the worker in namespace %s of Temporal at %s cannot go on: %w", s.Temporal.Namespace, s.Temporal.Address, err)
	case <-ctx.Done():
	}
	log.Info("worker is stopping: what it was doing goes on in another worker")
	w.Stop()
	return nil
}

// loginTime is how long the start waits for a Vault to answer.
const loginTime = 5 * time.Second

// register hands the adapters to the activities.
func register(w worker.Registry, s Settings, temporal client.Client, sys *systems, gauges activities.Gauges) {
	out := activities.Outside{Clusters: clusters{sys}, Links: links{sys}, Consuls: consuls{sys}, Silence: activities.NewSilence()}
	for _, a := range []any{
		&activities.Runbooks{Dir: s.Runbooks},
		&activities.Locks{Temporal: temporal},
		&activities.Preflight{Outside: out},
		&activities.Assess{Outside: out},
		&activities.Syncs{Outside: out},
		&activities.Fences{Outside: out},
		&activities.Logs{Outside: out},
		&activities.Groups{Outside: out},
		&activities.Mirrors{Outside: out},
		&activities.Verify{Outside: out},
		&activities.Watch{Outside: out, Gauges: gauges},
		&activities.Grants{Outside: out},
		&activities.Protection{Outside: out},
		&activities.Recovery{Outside: out, Recoverers: recoverers{sys}},
		&activities.Turns{Outside: out, Recoverers: recoverers{sys}},
		&activities.Discovery{Consuls: consuls{sys}, Secrets: sys.vault},
		&activities.Clients{Applications: applications{sys}},
		&activities.Reports{Dir: s.Reports, Outside: out},
	} {
		w.RegisterActivity(a)
	}
}

// dialPatiently waits for a Temporal that does not answer yet, and says so. It is nil when the context ends first.
func dialPatiently(ctx context.Context, s Settings, log *slog.Logger, measured client.MetricsHandler) (client.Client, error) {
	options := client.Options{
		HostPort: s.Temporal.Address, Namespace: s.Temporal.Namespace, Logger: log, MetricsHandler: measured,
		ConnectionOptions: client.ConnectionOptions{GetSystemInfoTimeout: 2 * time.Second, DialOptions: []grpc.DialOption{
			grpc.WithDefaultCallOptions(grpc.WaitForReady(true)), // requests wait for a Temporal that is away for a moment
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 500 * time.Millisecond}, MinConnectTimeout: time.Second}),
		}},
	}
	if t := s.Temporal.TLS; t.on() {
		config, err := dial.TLS(dial.Files{CA: t.CA, Cert: t.Cert, Key: t.Key, ServerName: t.ServerName})
		if err != nil {
			return nil, fmt.Errorf("connect to Temporal at %s: %w", s.Temporal.Address, err)
		}
		options.ConnectionOptions.TLS = config
	}
	for {
		temporal, err := client.DialContext(ctx, options)
		switch {
		case err == nil:
			return temporal, nil
		case ctx.Err() != nil:
			return nil, nil
		case !away(err):
			return nil, fmt.Errorf("connect to Temporal at %s: %w", s.Temporal.Address, err)
		}
		log.Warn("Temporal does not answer yet; still trying", "address", s.Temporal.Address, "error", err)
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return nil, nil
		}
	}
}

// away is true for errors that another try may not meet.
func away(err error) bool {
	var unavailable *serviceerror.Unavailable
	var late *serviceerror.DeadlineExceeded
	return errors.As(err, &unavailable) || errors.As(err, &late) || errors.Is(err, context.DeadlineExceeded)
}
