package report

import (
	"encoding/json"
	"fmt"
	"slices"
)

// TopicSummary counts positions by topic, in their order; a compact report's own counts are returned as they are.
func (r Report) TopicSummary() []TopicPositions {
	if len(r.Positions) == 0 {
		return r.Topics
	}
	var out []TopicPositions
	at := map[string]int{}
	for _, p := range r.Positions {
		i, ok := at[p.Topic]
		if !ok {
			i = len(out)
			at[p.Topic], out = i, append(out, TopicPositions{Topic: p.Topic, Missing: new(int64)})
		}
		t := &out[i]
		t.Partitions++
		has := p.Mark
		if has == nil {
			has = p.TargetEnd
		}
		switch {
		case p.SourceEnd == nil || has == nil:
			t.Unknown++
			t.Missing = nil
		case *has == *p.SourceEnd:
			t.InStep++
		case *has > *p.SourceEnd:
			t.Ahead++
		default:
			t.Behind++
			if t.Missing != nil {
				*t.Missing += *p.SourceEnd - *has
			}
		}
	}
	return out
}

// GroupSummary counts offsets by group, in their order; a compact report's own counts are returned as they are.
func (r Report) GroupSummary() []GroupOffsets {
	if len(r.Offsets) == 0 {
		return r.Groups
	}
	var out []GroupOffsets
	at := map[string]int{}
	for _, o := range r.Offsets {
		i, ok := at[o.Group]
		if !ok {
			i = len(out)
			at[o.Group], out = i, append(out, GroupOffsets{Group: o.Group})
		}
		g := &out[i]
		g.Partitions++
		if o.Proof == "exact" {
			g.Exact++
		}
		if o.ReadBack {
			g.ReadBack++
		}
		if o.Target == nil {
			g.Unknown++
		}
	}
	return out
}

// Compact cuts the report until its JSON without indentation is at most maxBytes long: first what went well, then
// positions and offsets are replaced by counts, last long lists and texts are cut. Each cut is named in Deviations.
// A limit below about 4 KB may not be reached: outcome, steps and loss are never dropped.
func (r Report) Compact(maxBytes int) Report {
	r.Deviations = slices.Clone(r.Deviations)
	for _, cut := range []func(*Report) string{
		dropOKFindings, dropPartitions, countPositions, countOffsets, dropLosses, totalTopics, totalGroups, dropClientWindows, shortenTexts, shortenLists,
	} {
		if r.fits(maxBytes) {
			break
		}
		if what := cut(&r); what != "" {
			r.Deviations = append(r.Deviations, r.leftOut(what))
		}
	}
	return r
}

func (r Report) fits(maxBytes int) bool {
	r.Schema = SchemaName
	data, err := json.Marshal(r)
	return err != nil || len(data) <= maxBytes
}

func (r Report) leftOut(what string) string {
	if r.Details == "" {
		return "this copy of the report leaves out " + what
	}
	return fmt.Sprintf("this copy of the report leaves out %s; all of it is in %s", what, r.Details)
}

func dropOKFindings(r *Report) string {
	n := len(r.Findings)
	r.Findings = slices.DeleteFunc(slices.Clone(r.Findings), func(f Finding) bool { return f.Level == OK })
	if n == len(r.Findings) {
		return ""
	}
	return fmt.Sprintf("%d findings that were ok", n-len(r.Findings))
}

// Partitions is how many accounts of stranded partitions the report has.
func (r Report) Partitions() int {
	if r.LaggedData == nil {
		return 0
	}
	return len(r.LaggedData.Partitions)
}

func dropPartitions(r *Report) string {
	n := r.Partitions()
	if n == 0 {
		return ""
	}
	d := *r.LaggedData
	d.Partitions = nil
	r.LaggedData = &d
	return fmt.Sprintf("the accounts of %d partitions", n)
}

func countPositions(r *Report) string {
	n := len(r.Positions)
	if n == 0 {
		return ""
	}
	r.Topics, r.Positions = r.TopicSummary(), nil
	return fmt.Sprintf("the positions of %d partitions", n)
}

func countOffsets(r *Report) string {
	n := len(r.Offsets)
	if n == 0 {
		return ""
	}
	r.Groups, r.Offsets = r.GroupSummary(), nil
	return fmt.Sprintf("the offsets of %d groups' partitions", n)
}

func dropLosses(r *Report) string {
	if r.Loss == nil || len(r.Loss.Topics) <= longList {
		return ""
	}
	loss, n := *r.Loss, len(r.Loss.Topics)
	loss.Topics = slices.Clone(loss.Topics[:longList])
	r.Loss = &loss
	return fmt.Sprintf("the losses of %d topics that lost least", n-longList)
}

func totalTopics(r *Report) string {
	n := len(r.Topics)
	if n < 2 {
		return ""
	}
	all := TopicPositions{Topic: "all", Missing: new(int64)}
	for _, t := range r.Topics {
		all.Partitions, all.InStep, all.Behind = all.Partitions+t.Partitions, all.InStep+t.InStep, all.Behind+t.Behind
		all.Ahead, all.Unknown = all.Ahead+t.Ahead, all.Unknown+t.Unknown
		if t.Missing == nil {
			all.Missing = nil
		} else if all.Missing != nil {
			*all.Missing += *t.Missing
		}
	}
	r.Topics = []TopicPositions{all}
	return fmt.Sprintf("the counts of %d topics", n)
}

func totalGroups(r *Report) string {
	n := len(r.Groups)
	if n < 2 {
		return ""
	}
	all := GroupOffsets{Group: "all"}
	for _, g := range r.Groups {
		all.Partitions, all.Exact, all.ReadBack, all.Unknown = all.Partitions+g.Partitions, all.Exact+g.Exact, all.ReadBack+g.ReadBack, all.Unknown+g.Unknown
	}
	r.Groups = []GroupOffsets{all}
	return fmt.Sprintf("the counts of %d groups", n)
}

func dropClientWindows(r *Report) string {
	n := len(r.SwitchWindow.Clients)
	r.SwitchWindow.Clients = nil
	if n == 0 {
		return ""
	}
	return fmt.Sprintf("the windows of %d clients", n)
}

const longText, longList = 200, 10

func shortenTexts(r *Report) string {
	cut := 0
	short := func(s *string) {
		if runes := []rune(*s); len(runes) > longText {
			*s, cut = string(runes[:longText])+"…", cut+1
		}
	}
	r.Earlier = slices.Clone(r.Earlier)
	for i := range r.Earlier {
		short(&r.Earlier[i].Result)
	}
	r.Steps, r.Decisions, r.Findings, r.Standing = slices.Clone(r.Steps), slices.Clone(r.Decisions), slices.Clone(r.Findings), slices.Clone(r.Standing)
	for i := range r.Steps {
		short(&r.Steps[i].Result)
	}
	for i := range r.Decisions {
		short(&r.Decisions[i].Reason)
	}
	for i := range r.Findings {
		short(&r.Findings[i].Means)
		short(&r.Findings[i].Do)
	}
	for i := range r.Standing {
		short(&r.Standing[i])
	}
	for i := range r.Deviations {
		short(&r.Deviations[i])
	}
	for _, s := range []*string{&r.Reason, &r.OutcomeReason, &r.RPO.Text, &r.Protection.Text} {
		short(s)
	}
	if cut == 0 {
		return ""
	}
	return fmt.Sprintf("the ends of %d long texts", cut)
}

func shortenLists(r *Report) string {
	cut := 0
	r.Findings, cut = first(r.Findings, cut)
	r.Decisions, cut = first(r.Decisions, cut)
	r.Standing, cut = first(r.Standing, cut)
	r.Deviations, cut = first(r.Deviations, cut)
	if cut == 0 {
		return ""
	}
	return fmt.Sprintf("%d lines of long lists (findings, decisions, what stands, deviations)", cut)
}

// first keeps the head of a list, and adds to cut how many lines it lost.
func first[T any](list []T, cut int) ([]T, int) {
	if len(list) <= longList {
		return list, cut
	}
	return slices.Clone(list[:longList]), cut + len(list) - longList
}
