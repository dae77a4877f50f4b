//go:build bench

package bench

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"switchback/runbooks"
)

// table is what was measured, in Markdown.
func (a all) table() string {
	var b strings.Builder
	row := func(cells ...string) { fmt.Fprintf(&b, "| %s |\n", strings.Join(cells, " | ")) }
	fmt.Fprintf(&b, "%d cores, %s/%s, %s, load %s before and %s after\n", a.Machine.Cores, a.Machine.OS, a.Machine.Arch, a.Machine.Go, a.Machine.LoadBefore, a.Machine.LoadAfter)
	if d, t := a.Windows[defaults], a.Windows[tuned]; d != nil && t != nil && len(t.Producers.Each) > 0 {
		fmt.Fprintf(&b, "\nSwitch window, seconds, median and worst of %d runs\n\n", len(t.Producers.Each))
		row("", "Temporal's defaults", "tuned", "defaults / tuned")
		row("---", "---", "---", "---")
		for _, line := range []struct {
			name string
			of   func(*windows) spread
		}{
			{"producers, by their ledgers", func(w *windows) spread { return w.Producers }},
			{"consumers, by their ledgers", func(w *windows) spread { return w.Consumers }},
			{"producers, by the run's report", func(w *windows) spread { return w.Report }},
			{"baseline, producers: stop and start, no run", func(w *windows) spread { return w.RestartProducers }},
			{"baseline, consumers: stop and start, no run", func(w *windows) spread { return w.RestartConsumers }},
			{"the whole run", func(w *windows) spread { return w.Run }},
		} {
			x, y := line.of(d), line.of(t)
			row(line.name, x.seconds(), y.seconds(), fmt.Sprintf("%.2f", x.Median/y.Median))
		}
		row("producers / their baseline", fmt.Sprintf("%.2f", d.Producers.Median/d.RestartProducers.Median),
			fmt.Sprintf("%.2f", t.Producers.Median/t.RestartProducers.Median), "")
		a.phaseTable(&b, row)
	}
	if p := a.Positions; p != nil {
		fmt.Fprintf(&b, "\nPositions of %d topics, %d partitions, on both clusters, seconds, median and worst of %d\n\n", p.Topics, p.Partitions, len(p.Ends.Each))
		row("read", "seconds", "/ baseline")
		row("---", "---", "---")
		row("start, high watermark, last stable and log end offset", p.Ends.seconds(), fmt.Sprintf("%.2f", p.Ends.Median/p.Raw.Median))
		row("the link's list of mirrors", p.Mirrors.seconds(), fmt.Sprintf("%.2f", p.Mirrors.Median/p.Raw.Median))
		row("baseline: latest offset alone", p.Raw.seconds(), "")
	}
	if len(a.Sizes) > 0 {
		a.sizeTable(&b, row)
	}
	if a.Apache != nil {
		a.Apache.table(&b, row)
	}
	return b.String()
}

// table prints what was measured on Apache Kafka.
func (a *apacheRows) table(b *strings.Builder, row func(...string)) {
	fmt.Fprint(b, "\nApache Kafka and MirrorMaker 2, seconds, median and worst\n\n")
	row("", "Switchback", "by hand", "by hand / Switchback")
	row("---", "---", "---", "---")
	for _, line := range []struct {
		name string
		of   beside
	}{
		{fmt.Sprintf("planned, producers: %d topics of %d partitions, %d records/s", apacheTopics, apachePartitions, apacheRate), a.Planned},
		{"planned, consumers: the same runs", a.Consumers},
		{"unplanned, source killed: decision to first acknowledgement", a.Unplanned},
		{fmt.Sprintf("offsets of %d groups in %d partitions, by checkpoints", manyGroups, manyPartitions), a.Groups},
	} {
		figure := func(s spread) string {
			if len(s.Each) == 0 {
				return "not measured"
			}
			return s.seconds()
		}
		ratio := ""
		if len(line.of.Switchback.Each) > 0 && len(line.of.ByHand.Each) > 0 {
			ratio = fmt.Sprintf("%.1f", line.of.ByHand.Median/line.of.Switchback.Median)
		}
		row(line.name, figure(line.of.Switchback), figure(line.of.ByHand), ratio)
	}
	if a.Exact != nil {
		row("the same groups with the source there: exact, by records", a.Exact.seconds(), "there is nothing", "")
	}
	for _, step := range a.Steps {
		fmt.Fprintf(b, "\n    %s", step)
	}
	fmt.Fprintln(b)
}

func (s spread) seconds() string { return fmt.Sprintf("%.3f, %.3f", s.Median, s.Worst) }

func (a all) phaseTable(b *strings.Builder, row func(...string)) {
	fmt.Fprint(b, "\nWhere the producers' window goes, milliseconds, median and worst\n\n")
	row("phase", "Temporal's defaults", "tuned")
	row("---", "---", "---")
	names := []string{phaseEnd}
	for _, s := range inWindow {
		names = append(names, string(s))
	}
	for _, name := range append(names, phaseStart) {
		cells := []string{name}
		for _, kind := range []string{defaults, tuned} {
			var s spread
			for _, p := range a.Phases[kind] {
				s.add(p[name] * 1000)
			}
			cells = append(cells, fmt.Sprintf("%.0f, %.0f", s.Median, s.Worst))
		}
		row(cells...)
	}
}

func (a all) sizeTable(b *strings.Builder, row func(...string)) {
	fmt.Fprint(b, "\nWhat a run leaves and takes\n\n")
	cells := func(name string, of func(size) string, budget string) {
		line := []string{name}
		for _, s := range a.Sizes {
			line = append(line, of(s))
		}
		row(append(line, budget)...)
	}
	cells("", func(s size) string { return fmt.Sprintf("%d topics, %d partitions", s.Topics, s.Partitions) }, "budget")
	row(slices.Repeat([]string{"---"}, len(a.Sizes)+2)...)
	cells("events of the history", func(s size) string { return fmt.Sprint(s.Events) }, fmt.Sprintf("< %d", mostEvents))
	cells("KB of the history", func(s size) string { return kB(s.Bytes) }, "< "+kB(mostBytes))
	cells("KB of the largest result", func(s size) string { return kB(s.LargestResult) + " (" + s.LargestOf + ")" }, "<= "+kB(mostResult))
	cells("attempts of activities that were repeated", func(s size) string { return fmt.Sprint(len(s.Retried)) }, "")
	cells("MB of the worker at its peak", func(s size) string { return fmt.Sprint(s.WorkerPeakBytes >> 20) }, fmt.Sprintf("< %d", mostMemory>>20))
	cells("producers' window, seconds", func(s size) string { return fmt.Sprintf("%.2f", s.ProducersWindow) }, "")
	cells("the whole run, seconds", func(s size) string { return fmt.Sprintf("%.1f", s.Seconds) }, "")
	for _, name := range runbooks.PlannedFailoverSteps {
		if slices.ContainsFunc(a.Sizes, func(s size) bool { return slices.Contains(slices.Collect(maps.Keys(s.Steps)), name) }) {
			cells("step "+name+", seconds", func(s size) string { return fmt.Sprintf("%.2f", s.Steps[name]) }, "")
		}
	}
}

func kB(bytes int) string { return fmt.Sprintf("%.1f", float64(bytes)/1024) }
