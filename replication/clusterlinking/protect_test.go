package clusterlinking

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"switchback/replication"
)

const allGroups = `{"groupFilters":[{"name":"billing","patternType":"LITERAL","filterType":"INCLUDE"},{"name":"others","patternType":"LITERAL","filterType":"INCLUDE"}]}`

func wanted() replication.Protection {
	return replication.Protection{Topics: []replication.Topic{{Name: "orders", Partitions: 2}, {Name: "payments", Partitions: 2}}, Groups: []string{"billing"},
		There: map[string]replication.Topic{"orders": {Name: "orders"}, "payments": {Name: "payments"}}}
}

func protected(s *service) {
	s.configs = map[string]string{offsetKeys.enable: "true", offsetKeys.filter: allGroups}
}

// Each line of the table breaks one thing: what is shown, what mending it writes, and that nothing is left then.
func TestDifferences(t *testing.T) {
	acls := &replication.Sync{Enabled: true, Filter: `{"aclFilters":[]}`}
	for name, tc := range map[string]struct {
		breaks func(*service, *replication.Protection)
		shown  string // the only difference; empty for none
		mends  map[string]string
		do     string // where it cannot be mended
	}{
		"nothing": {breaks: func(*service, *replication.Protection) {}},
		"not mirrored": {breaks: func(s *service, w *replication.Protection) { delete(s.mirrors, "orders"); delete(w.There, "orders") },
			shown: "mirror orders is not mirrored, should be active", mends: map[string]string{}},
		"a topic that is no mirror": {breaks: func(s *service, _ *replication.Protection) { delete(s.mirrors, "orders") },
			shown: "mirror orders is no mirror of link east/west, and a topic of its name is on the target, should be active", do: "run failback"},
		"paused":             {breaks: func(s *service, _ *replication.Protection) { s.mirrors["orders"] = "PAUSED" }, shown: "mirror orders is paused, should be active", mends: map[string]string{}},
		"the link is paused": {breaks: func(s *service, _ *replication.Protection) { s.mirrors["orders"] = "LINK_PAUSED" }, shown: "mirror orders is paused, should be active", do: "the link says LINK_PAUSED"},
		"stopped":            {breaks: func(s *service, _ *replication.Protection) { s.mirrors["orders"] = "STOPPED" }, shown: "mirror orders is stopped, should be active", do: "run failback"},
		"failed":             {breaks: func(s *service, _ *replication.Protection) { s.mirrors["orders"] = "FAILED" }, shown: "mirror orders is failed, should be active", do: "mirrored anew"},
		"on its way":         {breaks: func(s *service, _ *replication.Protection) { s.mirrors["orders"] = "PENDING_MIRROR" }, shown: "mirror orders is starting, should be active", do: "look again"},
		"offset sync off": {breaks: func(s *service, _ *replication.Protection) { s.configs = map[string]string{} },
			shown: "offset sync consumer.offset.sync.enable is false, should be true, for billing",
			mends: map[string]string{offsetKeys.enable: "true", offsetKeys.filter: `{"groupFilters":[{"name":"billing","patternType":"LITERAL","filterType":"INCLUDE"}]}`}},
		"the filter lacks the group": {breaks: func(s *service, _ *replication.Protection) {
			s.configs[offsetKeys.filter] = `{"groupFilters":[{"name":"others","patternType":"LITERAL","filterType":"INCLUDE"}]}`
		}, shown: "offset sync consumer.offset.group.filters is " + `{"groupFilters":[{"name":"others","patternType":"LITERAL","filterType":"INCLUDE"}]}` + ", should be " + `{"groupFilters":[{"name":"others","patternType":"LITERAL","filterType":"INCLUDE"},{"name":"billing","patternType":"LITERAL","filterType":"INCLUDE"}]}`,
			mends: map[string]string{offsetKeys.filter: `{"groupFilters":[{"name":"others","patternType":"LITERAL","filterType":"INCLUDE"},{"name":"billing","patternType":"LITERAL","filterType":"INCLUDE"}]}`}},
		"held back by a run": {breaks: func(s *service, _ *replication.Protection) {
			s.configs[offsetKeys.filter] = strings.Replace(allGroups, "]", `,{"name":"billing","patternType":"LITERAL","filterType":"EXCLUDE"}]`, 1)
		}, shown: "offset sync", mends: map[string]string{offsetKeys.filter: allGroups}},
		"excluded with others": {breaks: func(s *service, _ *replication.Protection) {
			s.configs[offsetKeys.filter] = strings.Replace(allGroups, "]", `,{"name":"bill","patternType":"PREFIXED","filterType":"EXCLUDE"}]`, 1)
		}, shown: "offset sync", do: "not for it alone"},
		"a filter that is none": {breaks: func(s *service, _ *replication.Protection) { s.configs[offsetKeys.filter] = `{"groupFilters":` }, shown: "offset sync", do: "is not understood"},
		"offset sync behind a fence": {breaks: func(s *service, w *replication.Protection) { s.configs, w.Held = map[string]string{}, "a fence stands" },
			shown: "offset sync", do: "a fence stands"},
		"topics held back by a run": {breaks: func(s *service, _ *replication.Protection) {
			s.configs[topicKeys.enable], s.configs[topicKeys.filter] = "true", `{"topicFilters":[{"name":"*","patternType":"LITERAL","filterType":"INCLUDE"},{"name":"orders","patternType":"LITERAL","filterType":"EXCLUDE"}]}`
		}, shown: "auto-create", mends: map[string]string{topicKeys.filter: `{"topicFilters":[{"name":"*","patternType":"LITERAL","filterType":"INCLUDE"}]}`}},
		"ACL sync under a fence (P5)": {breaks: func(s *service, w *replication.Protection) {
			s.configs[aclKeys.enable], s.configs[aclKeys.filter], w.Denied = "true", acls.Filter, true
		}, shown: "ACL sync acl.sync.enable is true, should be false, while a fence stands: it would be copied", mends: map[string]string{aclKeys.enable: "false"}},
		"ACL sync left off by a run": {breaks: func(_ *service, w *replication.Protection) { w.ACLsBefore = acls },
			shown: "ACL sync acl.sync.enable is false, should be true, as it was before a run had suspended it", mends: map[string]string{aclKeys.enable: "true", aclKeys.filter: acls.Filter}},
		"ACL sync stays off while a fence stands (P5)": {breaks: func(_ *service, w *replication.Protection) { w.ACLsBefore, w.Denied = acls, true }},
		"ACL sync that was never on":                   {breaks: func(_ *service, w *replication.Protection) { w.ACLsBefore = &replication.Sync{} }},
		"ACL sync without a filter": {breaks: func(s *service, _ *replication.Protection) { s.configs[aclKeys.enable] = "true" },
			shown: "ACL sync acl.filters is none", do: "copies nothing"},
	} {
		t.Run(name, func(t *testing.T) {
			s, l := newService(t)
			protected(s)
			want := wanted()
			tc.breaks(s, &want)
			list, err := l.Differences(t.Context(), want)
			require.NoError(t, err)
			require.Zero(t, s.writes(), "a look changes nothing")
			if tc.shown == "" {
				require.Empty(t, list)
				return
			}
			require.Len(t, list, 1, "%v", list)
			require.Contains(t, list[0].String(), tc.shown)
			if tc.do != "" {
				require.False(t, list[0].Mendable())
				require.Contains(t, list[0].Do, tc.do)
				return
			}
			require.True(t, list[0].Mendable(), list[0].Do)
			out, err := l.Mend(t.Context(), want, list)
			require.NoError(t, err)
			require.Equal(t, []replication.Outcome{{Name: list[0].ID(), Status: replication.OK}}, out)
			for key, value := range tc.mends {
				require.Equal(t, value, s.configs[key])
			}
			if list[0].Action != mendSet { // the double does not make or resume mirrors
				return
			}
			left, err := l.Differences(t.Context(), want)
			require.NoError(t, err)
			require.Empty(t, left)
		})
	}
}

func TestALinkThatIsNotThere(t *testing.T) {
	s, l := newService(t)
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		reply(w, 404, object{"error_code": 404, "message": "Cluster link 'east/west' does not exist."})
		return true
	}
	s.deviates = true
	list, err := l.Differences(t.Context(), wanted())
	require.NoError(t, err)
	require.Equal(t, "link east/west is not there, should be there", list[0].String())
	require.Contains(t, list[0].Do, "--cluster lkc-w")
	require.False(t, list[0].Mendable())
}

// Switchback's own topics are never mirrored (P20).
func TestP20_AMirrorOfOwnTopicsIsAProblem(t *testing.T) {
	list := linkDifferences(replication.LinkStatus{Name: "l", Healthy: true, Topics: []string{"orders", "switchback.marks"}})
	require.Len(t, list, 1)
	require.Equal(t, replication.LevelProblem, list[0].Level)
}
