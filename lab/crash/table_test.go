//go:build crash

package crash

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"switchback/lab/ledger"
)

// table is what was played, for whoever wants to see what was covered.
type table struct {
	mu    sync.Mutex
	lines []*line
}

type line struct {
	page                       page
	test, point, step, outcome string
	kind                       kind
	window                     *float64 // seconds; nil when nobody switched
}

// kind is what a line is compared by: how long a switch is undisturbed, or with the worker's death.
type kind int

const (
	other kind = iota
	plain
	killed
)

func (s scenario) kind() kind {
	switch {
	case s.point == "":
		return plain
	case s.crash == nil:
		return killed
	}
	return other
}

// took notes how long the producers stood still. Where their cluster was lost that is counted from the last approval: before
// it nobody could do anything for them.
func (l *line) took(v ledger.Verdict) {
	l.window = v.SwitchWindowSeconds
	if l.page != planned && v.Aftermath != nil {
		l.window = v.Aftermath.DecisionToFirstAckSeconds
	}
}

// cost is how many seconds longer that was than in an undisturbed run of the same page and with the same outcome.
func (r *table) cost(l *line) (float64, bool) {
	if l.kind != killed || l.window == nil {
		return 0, false
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.lines {
		if p.kind == plain && p.page == l.page && p.outcome == l.outcome && p.window != nil {
			return *l.window - *p.window, true
		}
	}
	return 0, false
}

var results table

func (r *table) line(t *testing.T, sc scenario) *line {
	r.mu.Lock()
	defer r.mu.Unlock()
	l := &line{page: sc.page, kind: sc.kind(), test: t.Name(), point: sc.point, outcome: "FAILED"}
	r.lines = append(r.lines, l)
	return l
}

// keep appends it to out/crash.txt, because whoever runs many packages sees nothing of one that passes.
func (r *table) keep() error {
	if err := os.MkdirAll("../../out", 0o750); err != nil {
		return err
	}
	f, err := os.OpenFile("../../out/crash.txt", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	r.print(f)
	return f.Close()
}

// print writes a table for each page.
func (r *table) print(w io.Writer) {
	slices.SortStableFunc(r.lines, func(a, b *line) int { return cmp.Or(cmp.Compare(a.page, b.page), cmp.Compare(a.test, b.test)) })
	for _, p := range pages {
		r.printPage(w, p)
	}
}

func (r *table) printPage(w io.Writer, p page) {
	lines := slices.DeleteFunc(slices.Clone(r.lines), func(l *line) bool { return l.page != p })
	if len(lines) == 0 {
		return
	}
	head, measured := "planned", "switch window"
	switch {
	case p.journey():
		head, measured = string(p), "the whole run"
	case p != planned:
		head, measured = string(p), "decision to ack"
	}
	fmt.Fprintf(w, "\n%-72s %-26s %-32s %-12s %-16s %s\n", head, "crash at", "the run was at", "outcome", measured, "cost")
	for _, l := range lines {
		window := "nobody switched"
		if l.window != nil {
			window = fmt.Sprintf("%.2f s", *l.window)
		}
		text := fmt.Sprintf("%-72s %-26s %-32s %-12s %-16s", l.test, l.point, l.step, l.outcome, window)
		if cost, ok := r.cost(l); ok {
			text += fmt.Sprintf(" %.2f s", max(cost, 0))
		}
		fmt.Fprintln(w, strings.TrimRight(text, " "))
	}
	if !p.journey() { // each of those was killed many times
		fmt.Fprint(w, r.worst(lines, measured))
	}
}

// worst says what a worker's death cost at most, from the clients' own ledgers.
func (r *table) worst(lines []*line, measured string) string {
	var at *line
	most, deaths := 0.0, 0
	for _, l := range lines {
		cost, ok := r.cost(l)
		if !ok {
			continue
		}
		if deaths++; at == nil || cost > most {
			at, most = l, cost
		}
	}
	if at == nil {
		return ""
	}
	return fmt.Sprintf("\nThe worker was killed at %d points. It cost the producers at most %.2f s: a %s of %.2f s (killed at %s) instead of %.2f s.\n",
		deaths, most, measured, *at.window, at.point, *at.window-most)
}
