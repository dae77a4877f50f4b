package clusterlinking

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

const all = `{"groupFilters":[{"name":"*","patternType":"LITERAL","filterType":"INCLUDE"}]}`

func exclude(names ...string) string {
	var out []string
	for _, n := range names {
		out = append(out, `{"name":"`+n+`","patternType":"LITERAL","filterType":"EXCLUDE"}`)
	}
	return strings.Join(out, ",")
}

func TestP03_ExcludesAreAdded(t *testing.T) {
	spaced := "{ \"x\": {\"groupFilters\": []},\n \"groupFilters\" : [ {\"filterType\":\"INCLUDE\",\"name\":\"a\",\"patternType\":\"PREFIXED\",\"topicTypes\":[\"LOCAL_MIRROR\"]} ] }"
	for name, tc := range map[string]struct {
		filter string
		names  []string
		want   string
	}{
		"after the others":    {all, []string{"billing"}, strings.Replace(all, "]", ","+exclude("billing")+"]", 1)},
		"two, one twice":      {all, []string{"a", "b", "a"}, strings.Replace(all, "]", ","+exclude("a", "b")+"]", 1)},
		"there already":       {`{"groupFilters":[` + exclude("a") + `]}`, []string{"a"}, `{"groupFilters":[` + exclude("a") + `]}`},
		"no filter":           {"", []string{"a"}, `{"groupFilters":[` + exclude("a") + `]}`},
		"empty list":          {`{"groupFilters":[ ]}`, []string{"a"}, `{"groupFilters":[` + exclude("a") + ` ]}`},
		"nothing to exclude":  {"", nil, ""},
		"other text stays":    {spaced, []string{"b"}, strings.Replace(spaced, "]} ] }", "]},"+exclude("b")+" ] }", 1)},
		"a name with a quote": {all, []string{`a"b<`}, strings.Replace(all, "]", `,{"name":"a\"b<","patternType":"LITERAL","filterType":"EXCLUDE"}]`, 1)},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := addExcludes(tc.filter, groupFilters, tc.names)
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
		})
	}
}

func TestP03_OnlyOurExcludesAreRemoved(t *testing.T) {
	with := func(base string, names ...string) string {
		s, err := addExcludes(base, groupFilters, names)
		require.NoError(t, err)
		return s
	}
	other := `{"groupFilters":[{"name":"shop","patternType":"PREFIXED","filterType":"INCLUDE"}]}`
	for name, tc := range map[string]struct{ now, before, want string }{
		"nothing else changed":                    {with(all, "a", "b"), all, all},
		"the service wrote JSON its own way":      {strings.ReplaceAll(with(all, "a", "b"), ",", " , "), all, all},
		"no filter before":                        {with("", "a", "b"), "", ""},
		"another runbook's stay":                  {with(all, "a", "theirs", "b"), all, with(all, "theirs")},
		"another runbook's, ours last":            {with(all, "theirs", "b"), all, with(all, "theirs")},
		"theirs went, ours stay in before":        {with(all, "a"), with(all, "theirs"), all},
		"an exclude of before stays":              {with(all, "a", "b"), with(all, "a"), with(all, "a")},
		"somebody replaced the filter":            {with(other, "a"), all, other},
		"somebody else began where none was":      {with("", "a", "theirs"), "", with("", "theirs")},
		"done already":                            {all, all, all},
		"sync was turned off: the filter is gone": {"", all, ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := removeExcludes(tc.now, tc.before, groupFilters, []string{"a", "b"})
			require.NoError(t, err)
			require.Equal(t, tc.want, got)
		})
	}
}

func TestP03_TwoRunbooksLeaveTheFilterAsItWas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		name := rapid.StringMatching(`[a-z"*.-]{1,4}`)
		before, err := addExcludes(rapid.SampledFrom([]string{"", all, `{"v":1,"groupFilters" : [ ] }`}).Draw(t, "filter"), groupFilters, rapid.SliceOfN(name, 0, 3).Draw(t, "had"))
		require.NoError(t, err)
		first, second := rapid.SliceOfN(name, 0, 3).Draw(t, "first"), rapid.SliceOfN(rapid.Map(name, func(s string) string { return "x" + s }), 0, 3).Draw(t, "second")
		a, err := addExcludes(before, groupFilters, first)
		require.NoError(t, err)
		ab, err := addExcludes(a, groupFilters, second)
		require.NoError(t, err)
		b, err := removeExcludes(ab, before, groupFilters, first)
		require.NoError(t, err)
		end, err := removeExcludes(b, before, groupFilters, second)
		require.NoError(t, err)
		require.Equal(t, before, end)
	})
}

func TestGroupSynced(t *testing.T) {
	pre := `{"groupFilters":[{"name":"shop-","patternType":"PREFIXED","filterType":"include"},` + exclude("shop-x") + `]}`
	for _, tc := range []struct {
		filter, group string
		want          bool
	}{
		{all, "any", true}, {pre, "shop-1", true}, {pre, "shop-x", false}, {pre, "billing", false}, {"", "a", false},
		{"nonsense", "a", false}, {`{"groupFilters":[{"name":"a","patternType":"REGEX","filterType":"INCLUDE"}]}`, "a", false},
		{`{"groupFilters":{}}`, "a", false}, {`{"topicFilters":[]}`, "a", false}, {`{"groupFilters":[null]}`, "a", false},
		{`{"groupFilters":[],"groupFilters":[]}`, "a", false},
	} {
		require.Equal(t, tc.want, GroupSynced(tc.filter, tc.group), "%s %s", tc.filter, tc.group)
	}
}

func FuzzFilters(f *testing.F) {
	for _, s := range []string{"", all, `{"groupFilters":[]}`, `[1]`, `{"groupFilters":[{}, {"name":1}]}`, `{"a":[{"b":{}}],"groupFilters":[ {"name":"a"} ]} `} {
		f.Add(s, "group")
	}
	f.Fuzz(func(t *testing.T, filter, group string) {
		GroupSynced(filter, group)
		with, err := addExcludes(filter, groupFilters, []string{group})
		if err != nil || group == "" {
			return
		}
		require.True(t, json.Valid([]byte(with)))
		back, err := removeExcludes(with, filter, groupFilters, []string{group})
		require.NoError(t, err)
		require.Equal(t, filter, back)
	})
}
