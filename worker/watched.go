package main

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// watched is what Watch saw on this worker, for Prometheus. What this worker has not looked at for a while is left out:
// another worker looks at it now, and one old number beside a new one misleads.
type watched struct {
	now  func() time.Time
	mu   sync.Mutex
	seen map[direction]look
}

type direction struct{ runbook, from, to string }

type look struct {
	lag              int64
	seen, lastAnswer time.Time
	silent           bool
	at               time.Time
}

// watchedFor is several of the longest intervals between two looks.
const watchedFor = 5 * time.Minute

var (
	ofDirection  = []string{"runbook", "source", "target"}
	lagRecords   = prometheus.NewDesc("switchback_lag_records", "Records of the source that the target lacked when both were last seen; absent while unknown.", ofDirection, nil)
	sampleAge    = prometheus.NewDesc("switchback_sample_age_seconds", "Age of the last whole sample of positions; absent while there is none.", ofDirection, nil)
	answerAge    = prometheus.NewDesc("switchback_source_answer_age_seconds", "Time since the source answered last; absent while it never did.", ofDirection, nil)
	sourceSilent = prometheus.NewDesc("switchback_source_silent", "1 while the source has not answered for as long as Watch waits.", ofDirection, nil)
)

func newWatched(now func() time.Time) *watched {
	return &watched{now: now, seen: map[direction]look{}}
}

// Watched is told of each look.
func (w *watched) Watched(runbook, from, to string, lag int64, seen, lastAnswer time.Time, silent bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen[direction{runbook, from, to}] = look{lag: lag, seen: seen, lastAnswer: lastAnswer, silent: silent, at: w.now()}
}

// Describe names the metrics.
func (w *watched) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{lagRecords, sampleAge, answerAge, sourceSilent} {
		ch <- d
	}
}

// Collect answers a scrape.
func (w *watched) Collect(ch chan<- prometheus.Metric) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now := w.now()
	for d, l := range w.seen {
		if now.Sub(l.at) > watchedFor {
			delete(w.seen, d)
			continue
		}
		gauge := func(desc *prometheus.Desc, v float64) {
			ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, v, d.runbook, d.from, d.to)
		}
		if l.lag >= 0 {
			gauge(lagRecords, float64(l.lag))
		}
		if !l.seen.IsZero() {
			gauge(sampleAge, now.Sub(l.seen).Seconds())
		}
		if !l.lastAnswer.IsZero() {
			gauge(answerAge, now.Sub(l.lastAnswer).Seconds())
		}
		silent := 0.0
		if l.silent {
			silent = 1
		}
		gauge(sourceSilent, silent)
	}
}
