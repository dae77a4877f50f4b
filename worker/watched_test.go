package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

// scraped is what a registry says of Watch, a line for each value.
func scraped(t *testing.T, w *watched) string {
	t.Helper()
	registry := prometheus.NewRegistry()
	require.NoError(t, registry.Register(w))
	families, err := registry.Gather()
	require.NoError(t, err)
	var lines []string
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			lines = append(lines, fmt.Sprintf("%s %s %g", f.GetName(), strings.Join(labels, "/"), m.GetGauge().GetValue()))
		}
	}
	return strings.Join(lines, "\n")
}

func TestMetricsOfWatch(t *testing.T) {
	now := time.Date(2026, 3, 14, 3, 0, 0, 0, time.UTC)
	w := newWatched(func() time.Time { return now })
	require.Empty(t, scraped(t, w))
	w.Watched("orders", "east", "west", 12, now.Add(-40*time.Second), now.Add(-30*time.Second), true)
	w.Watched("payments", "east", "west", -1, time.Time{}, time.Time{}, false)
	require.Equal(t, `switchback_lag_records orders/east/west 12
switchback_sample_age_seconds orders/east/west 40
switchback_source_answer_age_seconds orders/east/west 30
switchback_source_silent orders/east/west 1
switchback_source_silent payments/east/west 0`, scraped(t, w), "what is unknown is absent, never zero")
	now = now.Add(time.Minute)
	require.Contains(t, scraped(t, w), "switchback_sample_age_seconds orders/east/west 100")
	now = now.Add(watchedFor)
	require.Empty(t, scraped(t, w), "another worker looks at it now")
}
