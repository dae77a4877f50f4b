package workflows

import (
	"fmt"
	"strings"
	"time"
)

// watchPage is the status in Markdown: an outage first, then how far every direction is.
func watchPage(s WatchStatus, now time.Time) string {
	b := fmt.Appendf(nil, "## Watch of `%s`\n\n", s.Runbook)
	if s.Trouble != "" {
		b = fmt.Appendf(b, "**Trouble since %s.** %s\n\n", clock(s.TroubleSince), s.Trouble)
	}
	if s.Active != "" {
		b = fmt.Appendf(b, "The workload is on **%s** at epoch **%d**; a sample every %.0f s.\n\n", s.Active, s.Epoch, s.EverySeconds)
	}
	for _, l := range s.Links {
		b = fmt.Appendf(b, "### %s → %s\n\n%s\n\n", l.From, l.To, l.Says(s.Runbook, now))
		if len(l.Worst) == 0 {
			continue
		}
		b = append(b, "| topic | behind | unknown | worst partition | records/s |\n|---|---|---|---|---|\n"...)
		for _, t := range l.Worst[:min(len(l.Worst), 20)] {
			worst := ""
			if t.Worst >= 0 && t.WorstLag > 0 {
				worst = fmt.Sprintf("%d (%d behind)", t.Worst, t.WorstLag)
			}
			b = fmt.Appendf(b, "| %s | %d | %d of %d | %s | %.1f |\n", t.Topic, t.Lag, t.Unknown, t.Partitions, worst, t.Rate)
		}
		if l.Topics > 20 {
			b = fmt.Appendf(b, "\nThe furthest behind of %d topics.\n", l.Topics)
		}
		b = append(b, '\n')
	}
	return string(b)
}

// Says is the state of a direction in sentences, for the page and the command line.
func (l WatchedLink) Says(runbook string, now time.Time) string {
	var lines []string
	switch {
	case l.Silent:
		lines = append(lines, fmt.Sprintf("**%s DOES NOT ANSWER.** Its last answer was at %s; looks have failed since %s.", strings.ToUpper(l.From), clock(l.LastAnswer), clock(l.QuietSince)))
		if l.TargetDead {
			lines = append(lines, fmt.Sprintf("%s does not answer either: look at the worker's own network first.", l.To))
		} else {
			lines = append(lines, fmt.Sprintf("What would be lost: `switchback plan unplanned %s --to %s`.", runbook, l.To))
		}
	case !l.QuietSince.IsZero():
		lines = append(lines, fmt.Sprintf("%s has not answered since %s.", l.From, clock(l.QuietSince)))
	}
	if l.Seen.IsZero() {
		lines = append(lines, "There is no whole sample yet: nothing is known.")
	} else {
		lines = append(lines, fmt.Sprintf("%s lacked **%d records** of %s in %d topics and %d partitions, seen %s ago at %s.",
			l.To, l.Lag, l.From, l.Topics, l.Partitions, max(0, now.Sub(l.Seen)).Round(time.Second), clock(l.Seen)))
		if l.Unknown > 0 {
			lines = append(lines, fmt.Sprintf("Nothing is known of %d of them: as far as anybody can tell %s has none of their records.", l.Unknown, l.To))
		}
	}
	if why := or(l.Trouble, l.Why); why != "" {
		lines = append(lines, "The last look brought no sample: "+why+".")
	}
	return strings.Join(lines, " ")
}

func clock(t time.Time) string {
	if t.IsZero() {
		return "a time that nobody saw"
	}
	return t.UTC().Format(time.RFC3339)
}
