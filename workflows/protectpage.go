package workflows

import (
	"fmt"
	"slices"
	"strings"

	"switchback/replication"
)

// sentence says how it ended.
func (p *protecting) sentence() string {
	where := fmt.Sprintf("%s on %s, protected by %s", p.in.Runbook, p.out.From, p.out.To)
	stands := "; protection stands"
	if !p.out.Stands {
		stands = "; protection does not stand"
	}
	switch {
	case p.out.Yielded:
		by := "another run"
		if h := p.entity.Holder; h != nil {
			by = "run " + h.Run.ID() + " (" + h.Kind + ")"
		}
		return by + " holds the runbook or its link: nothing was changed"
	case len(p.out.Found) == 0:
		return where + ": nothing to mend" + stands
	case p.in.DryRun:
		return fmt.Sprintf("%s: %d differences, %d of them can be mended; nothing was changed%s", where, len(p.out.Found), len(p.chosen()), stands)
	}
	mended := 0
	for _, o := range p.out.Mended {
		if o.Status == replication.OK {
			mended++
		}
	}
	return fmt.Sprintf("%s: %d differences, %d mended, %d left%s", where, len(p.out.Found), mended, len(p.out.Left), stands)
}

// wrongWith names the problems among differences, and what a person does about them.
func wrongWith(left []replication.Difference) string {
	var list []string
	for _, d := range left {
		if d.Level == replication.LevelProblem {
			list = append(list, strings.TrimSpace(d.String()+" "+d.Do))
		}
	}
	return strings.Join(list, "; ")
}

// protectPage is the result in Markdown.
func protectPage(s Status, out Protected) string {
	b := fmt.Appendf(nil, "## Protection of `%s`\n\n", s.Runbook)
	if s.Outcome != "" {
		b = fmt.Appendf(b, "**%s.** %s\n\n", s.Outcome, out.Text)
	}
	section := func(title string, list []replication.Difference) {
		if len(list) == 0 {
			return
		}
		b = fmt.Appendf(b, "### %s\n\n| | what | is | should be | |\n|---|---|---|---|---|\n", title)
		for _, d := range list[:min(len(list), pageLines)] {
			next := "will be mended: " + d.Mend
			if !d.Mendable() {
				next = "for you: " + d.Do
			}
			b = fmt.Appendf(b, "| %s | %s %s | %s | %s | %s |\n", d.Level, d.Kind, cell(d.Name), cell(d.Is), cell(d.Should), cell(next))
		}
		if more := len(list) - pageLines; more > 0 {
			b = fmt.Appendf(b, "\nand %d more\n", more)
		}
		b = append(b, '\n')
	}
	if s.Outcome == "" || len(out.Mended) == 0 {
		section("Differences", out.Found)
		return string(b)
	}
	b = fmt.Appendf(b, "### Mended\n\n")
	for _, o := range out.Mended {
		i := slices.Index(out.IDs, o.Name)
		if i < 0 {
			continue
		}
		b = fmt.Appendf(b, "- %s: %s %s\n", cell(out.Found[i].String()), o.Status, cell(o.Reason))
	}
	b = append(b, '\n')
	section("Left", out.Left)
	return string(b)
}

// pageLines keeps a page readable.
const pageLines = 50

// cell is a text inside of a table.
func cell(s string) string {
	return strings.NewReplacer("|", "\\|", "\n", " ").Replace(s)
}
