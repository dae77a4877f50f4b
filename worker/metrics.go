package main

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"go.temporal.io/sdk/client"
)

// metrics hands the SDK's own metrics (temporal_...) to Prometheus, beside those of the Go runtime and the process,
// switchback_build_info and what Watch sees. It is a client.MetricsHandler.
type metrics struct {
	all   *known
	tags  map[string]string
	watch *watched
}

// known is every metric that the SDK has asked for by now.
type known struct {
	registry *prometheus.Registry
	mu       sync.Mutex
	counters map[string]*prometheus.CounterVec
	gauges   map[string]*prometheus.GaugeVec
	timers   map[string]*prometheus.HistogramVec
}

// labels are those of every metric. Prometheus wants the same ones each time a metric is used, and the SDK gives a
// metric now these tags, now those: what is missing is empty, what is not here is left out.
var labels = []string{"namespace", "task_queue", "worker_type", "workflow_type", "activity_type", "operation", "status_code", "poller_type", "failure_reason"}

// From a poll that is answered at once to a long poll that is not: 1 ms to 65 s.
var buckets = prometheus.ExponentialBuckets(0.001, 4, 9)

func newMetrics() metrics {
	m := metrics{all: &known{registry: prometheus.NewRegistry(), counters: map[string]*prometheus.CounterVec{}, gauges: map[string]*prometheus.GaugeVec{}, timers: map[string]*prometheus.HistogramVec{}}}
	build := prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "switchback_build_info", Help: "Always 1; the labels say what runs here."}, []string{"version", "revision", "go"})
	build.WithLabelValues(built()).Set(1)
	m.watch = newWatched(time.Now)
	m.all.registry.MustRegister(build, m.watch, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// built is the version of the module, the revision it was built from, and the version of Go.
func built() (version, revision, goVersion string) {
	version, revision = "unknown", "unknown"
	if info, ok := debug.ReadBuildInfo(); ok {
		version = info.Main.Version
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				revision = s.Value
			}
		}
	}
	return version, revision, runtime.Version()
}

func (m metrics) WithTags(tags map[string]string) client.MetricsHandler {
	both := maps.Clone(m.tags)
	if both == nil {
		both = map[string]string{}
	}
	maps.Copy(both, tags)
	return metrics{all: m.all, tags: both, watch: m.watch}
}

func (m metrics) values() []string {
	values := make([]string, len(labels))
	for i, l := range labels {
		if v := m.tags[l]; v != "none" { // the SDK's word for a tag that says nothing
			values[i] = v
		}
	}
	return values
}

func (m metrics) Counter(name string) client.MetricsCounter {
	return counter{once(m.all, m.all.counters, name, func() *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: name + "_total", Help: "Counter of Temporal's SDK."}, labels)
	}).WithLabelValues(m.values()...)}
}

func (m metrics) Gauge(name string) client.MetricsGauge {
	return gauge{once(m.all, m.all.gauges, name, func() *prometheus.GaugeVec {
		return prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: name, Help: "Gauge of Temporal's SDK."}, labels)
	}).WithLabelValues(m.values()...)}
}

func (m metrics) Timer(name string) client.MetricsTimer {
	return timer{once(m.all, m.all.timers, name, func() *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name + "_seconds", Help: "Timer of Temporal's SDK.", Buckets: buckets}, labels)
	}).WithLabelValues(m.values()...)}
}

// once makes and registers a metric when it is first asked for.
func once[T prometheus.Collector](k *known, in map[string]T, name string, makeOne func() T) T {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := in[name]; !ok {
		in[name] = makeOne()
		k.registry.MustRegister(in[name])
	}
	return in[name]
}

type (
	counter struct{ prometheus.Counter }
	gauge   struct{ prometheus.Gauge }
	timer   struct{ prometheus.Observer }
)

func (c counter) Inc(n int64)          { c.Add(float64(n)) }
func (g gauge) Update(v float64)       { g.Set(v) }
func (t timer) Record(d time.Duration) { t.Observe(d.Seconds()) }

// serve answers /metrics until stop is called; where is the address it listens at. An empty address serves nothing.
func (m metrics) serve(address string, log *slog.Logger) (where string, stop func(), err error) {
	if address == "" {
		return "", func() {}, nil
	}
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return "", nil, fmt.Errorf("serve metrics: %w (set metrics.address to a host:port that is free, or to nothing)", err)
	}
	mux := http.NewServeMux()
	mux.Handle("/metrics", promhttp.HandlerFor(m.all.registry, promhttp.HandlerOpts{}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
	go func() {
		if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			log.Error("metrics are no longer served", "address", address, "error", err)
		}
	}()
	return listener.Addr().String(), func() { _ = server.Close() }, nil
}
