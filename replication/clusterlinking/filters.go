package clusterlinking

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode/utf8"
)

// Filters are JSON texts that other workloads own too, so they are edited as texts: entries of ours are spliced in and
// out, and every other byte stays as it was. Adding and removing is exact in both directions.

const (
	groupFilters = "groupFilters"
	topicFilters = "topicFilters"
)

type filterEntry struct {
	Name        string `json:"name"`
	PatternType string `json:"patternType"`
	FilterType  string `json:"filterType"`
}

func (e filterEntry) excludes(name string) bool {
	return e.Name == name && strings.EqualFold(e.PatternType, "LITERAL") && strings.EqualFold(e.FilterType, "EXCLUDE")
}

func (e filterEntry) matches(name string) bool {
	if strings.EqualFold(e.PatternType, "PREFIXED") {
		return strings.HasPrefix(name, e.Name)
	}
	return e.Name == "*" || e.Name == name
}

// span is an entry and where it stands in the text.
type span struct {
	filterEntry
	from, to int
}

// parseFilter finds the entries of {"<key>":[…]} and the offset just after the list's opening bracket.
func parseFilter(filter, key string) (entries []span, open int, err error) {
	wrong := func(why string) ([]span, int, error) {
		return nil, 0, invalid(fmt.Sprintf("the filter of the link is not understood: %s", why), `it should read {"`+key+`":[…]}; correct it on the link`)
	}
	if !json.Valid([]byte(filter)) {
		return wrong("it is no JSON")
	}
	d := json.NewDecoder(strings.NewReader(filter))
	if t, _ := d.Token(); t != json.Delim('{') {
		return wrong("it is no object")
	}
	open = -1
	for d.More() {
		name, _ := d.Token()
		if name != key {
			var skip json.RawMessage
			if d.Decode(&skip) != nil {
				return wrong("a value is broken")
			}
			continue
		}
		if open >= 0 {
			return wrong(key + " stands in it twice")
		}
		if t, _ := d.Token(); t != json.Delim('[') {
			return wrong(key + " is no list")
		}
		open = int(d.InputOffset())
		for d.More() {
			var raw json.RawMessage
			if d.Decode(&raw) != nil {
				return wrong("an entry is broken")
			}
			to := int(d.InputOffset())
			s := span{from: to - len(raw), to: to}
			if json.Unmarshal(raw, &s.filterEntry) != nil || raw[0] != '{' {
				return wrong("an entry is no filter")
			}
			entries = append(entries, s)
		}
		_, _ = d.Token()
	}
	if open < 0 {
		return wrong(key + " is missing")
	}
	return entries, open, nil
}

// addExcludes adds a literal EXCLUDE for each name that has none. An absent filter includes nothing, so it gets the
// excludes alone: including everything would touch other workloads' groups.
func addExcludes(filter, key string, names []string) (string, error) {
	if strings.TrimSpace(filter) == "" {
		if len(names) == 0 {
			return filter, nil
		}
		filter = `{"` + key + `":[]}`
	}
	entries, at, err := parseFilter(filter, key)
	if err != nil {
		return "", err
	}
	var add []string
	for _, n := range uniq(names) {
		if !utf8.ValidString(n) { // JSON cannot carry it, so that another name would be excluded
			return "", invalid(fmt.Sprintf("the name %q is no UTF-8", n), "take it out of the runbook")
		}
		if !slices.ContainsFunc(entries, func(s span) bool { return s.excludes(n) }) {
			add = append(add, excludeText(n))
		}
	}
	if len(add) == 0 {
		return filter, nil
	}
	insert := strings.Join(add, ",")
	if len(entries) > 0 {
		at, insert = entries[len(entries)-1].to, ","+insert
	}
	return filter[:at] + insert + filter[at:], nil
}

// removeExcludes takes out the excludes that addExcludes added to before, and nothing else. When what remains says the
// same as before, it is before, to the byte; an empty list over an absent filter is an absent filter again.
func removeExcludes(now, before, key string, names []string) (string, error) {
	if now == before || strings.TrimSpace(now) == "" {
		return now, nil
	}
	var had []span
	if strings.TrimSpace(before) != "" {
		var err error
		if had, _, err = parseFilter(before, key); err != nil {
			return "", err
		}
	}
	entries, _, err := parseFilter(now, key)
	if err != nil {
		return "", err
	}
	ours := func(s span) bool {
		return slices.ContainsFunc(names, func(n string) bool {
			return s.excludes(n) && !slices.ContainsFunc(had, func(h span) bool { return h.excludes(n) })
		})
	}
	for i := len(entries) - 1; i >= 0; i-- {
		if !ours(entries[i]) {
			continue
		}
		from, to := entries[i].from, entries[i].to
		if i > 0 {
			from = entries[i-1].to // with the comma before it
		} else if len(entries) > 1 {
			to = entries[1].from // with the comma after it
		}
		now = now[:from] + now[to:]
		gap := to - from
		entries = slices.Delete(entries, i, i+1)
		for j := i; j < len(entries); j++ {
			entries[j].from, entries[j].to = entries[j].from-gap, entries[j].to-gap
		}
	}
	if sameFilter(now, before) || len(entries) == 0 && strings.TrimSpace(before) == "" && sameFilter(now, `{"`+key+`":[]}`) {
		return before, nil
	}
	return now, nil
}

func excludeText(name string) string { return entryText(filterEntry{name, "LITERAL", "EXCLUDE"}) }

func entryText(entry filterEntry) string {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	_ = e.Encode(entry)
	return strings.TrimSpace(b.String())
}

// sameFilter compares what two filters say: services may write JSON in their own way.
func sameFilter(a, b string) bool {
	if a == b {
		return true
	}
	var x, y any
	return json.Unmarshal([]byte(a), &x) == nil && json.Unmarshal([]byte(b), &y) == nil && reflect.DeepEqual(x, y)
}

// GroupSynced says whether a filter lets the offsets of a group be synced: some INCLUDE matches and no EXCLUDE does. An
// absent filter, or one that is not understood, syncs nothing that could be relied on.
func GroupSynced(filter, group string) bool {
	synced, err := passes(filter, groupFilters, group)
	return synced && err == nil
}

// passes is GroupSynced for either kind of filter; err says that the filter is not understood.
func passes(filter, key, name string) (bool, error) {
	if strings.TrimSpace(filter) == "" {
		return false, nil
	}
	entries, _, err := parseFilter(filter, key)
	if err != nil {
		return false, err
	}
	included := false
	for _, e := range entries {
		pattern, kind := strings.ToUpper(e.PatternType), strings.ToUpper(e.FilterType)
		if pattern != "LITERAL" && pattern != "PREFIXED" || kind != "INCLUDE" && kind != "EXCLUDE" {
			return false, invalid(fmt.Sprintf("the filter has an entry of a kind that is not known: %q, %q", e.PatternType, e.FilterType), "correct it on the link")
		}
		if e.matches(name) {
			if kind == "EXCLUDE" {
				return false, nil
			}
			included = true
		}
	}
	return included, nil
}

func uniq(names []string) []string {
	var out []string
	for _, n := range names {
		if n != "" && !slices.Contains(out, n) {
			out = append(out, n)
		}
	}
	return out
}
