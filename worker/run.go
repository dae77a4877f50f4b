package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/pflag"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/interceptor"
	"go.temporal.io/sdk/worker"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"switchback/activities"
	"switchback/internal/vault"
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
	v, err := vault.Open(vault.Config{
		Address: s.Vault.Address, RoleIDFile: s.Vault.RoleIDFile, SecretIDFile: s.Vault.SecretIDFile, TokenFile: s.Vault.TokenFile,
		TLS: vault.TLS{CAFile: s.Vault.TLS.CA, CertFile: s.Vault.TLS.Cert, KeyFile: s.Vault.TLS.Key}, Log: log,
	})
	if err != nil {
		return err
	}
	defer v.Close()
	temporal, err := dial(ctx, s, log)
	if err != nil {
		return fmt.Errorf("connect to Temporal at %s: %w", s.Temporal.Address, err)
	}
	defer temporal.Close()
	sys := newSystems(v, log)
	defer sys.close()

	// See docs/decisions/temporal-settings.md for the figures behind these.
	worker.SetStickyWorkflowCacheSize(2000)
	w := worker.New(temporal, s.Temporal.TaskQueue, worker.Options{
		StickyScheduleToStartTimeout:     500 * time.Millisecond,
		MaxConcurrentActivityTaskPollers: 10, MaxConcurrentWorkflowTaskPollers: 10,
		WorkerStopTimeout: s.StopTimeout,
		Interceptors:      []interceptor.WorkerInterceptor{&activities.Interceptor{}},
	})
	workflows.Register(w)
	register(w, s, temporal, sys)
	stopMetrics := serveMetrics(s.Metrics.Address, log)
	defer stopMetrics()
	if err := w.Start(); err != nil {
		return fmt.Errorf("start the worker: %w", err)
	}
	log.Info("worker is ready", "temporal", s.Temporal.Address, "taskQueue", s.Temporal.TaskQueue, "runbooks", s.Runbooks)
	<-ctx.Done()
	log.Info("worker is stopping: what it was doing goes on in another worker")
	w.Stop()
	return nil
}

// register hands the adapters to the activities.
func register(w worker.Registry, s Settings, temporal client.Client, sys *systems) {
	out := activities.Outside{Clusters: clusters{sys}, Links: links{sys}, Consuls: consuls{sys}}
	for _, a := range []any{
		&activities.Runbooks{Dir: s.Runbooks},
		&activities.Locks{Temporal: temporal},
		&activities.Preflight{Outside: out},
		&activities.Syncs{Outside: out},
		&activities.Fences{Outside: out},
		&activities.Logs{Outside: out},
		&activities.Groups{Outside: out},
		&activities.Mirrors{Outside: out},
		&activities.Verify{Outside: out},
		&activities.Discovery{Consuls: consuls{sys}, Secrets: sys.vault},
		&activities.Clients{Applications: applications{sys}},
		&activities.Reports{Dir: s.Reports, Outside: out},
	} {
		w.RegisterActivity(a)
	}
}

// dial waits for a Temporal that is not there yet, and makes requests wait for one that is away for a moment.
func dial(ctx context.Context, s Settings, log *slog.Logger) (client.Client, error) {
	options := client.Options{
		HostPort: s.Temporal.Address, Namespace: s.Temporal.Namespace, Logger: log,
		ConnectionOptions: client.ConnectionOptions{DialOptions: []grpc.DialOption{
			grpc.WithDefaultCallOptions(grpc.WaitForReady(true)),
			grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: 500 * time.Millisecond}, MinConnectTimeout: time.Second}),
		}},
	}
	if s.Temporal.TLS.Enabled || s.Temporal.TLS.CA != "" || s.Temporal.TLS.Cert != "" {
		config, err := temporalTLS(s.Temporal.TLS)
		if err != nil {
			return nil, err
		}
		options.ConnectionOptions.TLS = config
	}
	return client.DialContext(ctx, options)
}

func temporalTLS(t TLS) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if t.CA != "" {
		withCA, err := tlsWith(t.CA)
		if err != nil {
			return nil, err
		}
		config = withCA
	}
	if t.Cert != "" {
		pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
		if err != nil {
			return nil, fmt.Errorf("read the client certificate: %w", err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

// serveMetrics serves /metrics until the returned function is called.
func serveMetrics(address string, log *slog.Logger) (stop func()) {
	if address == "" {
		return func() {}
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.Handler())
	server := &http.Server{Addr: address, Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
			log.Error("metrics are not served", "address", address, "error", err)
		}
	}()
	return func() { _ = server.Close() }
}
