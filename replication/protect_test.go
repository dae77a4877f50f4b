package replication

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestDriftOfTopicConfigs(t *testing.T) {
	same := map[string]string{"cleanup.policy": "delete", "max.message.bytes": "1048588", "retention.ms": "604800000", "min.insync.replicas": "2"}
	with := func(changes map[string]string) map[string]string {
		out := map[string]string{}
		for k, v := range same {
			out[k] = v
		}
		for k, v := range changes {
			out[k] = v
		}
		return out
	}
	for name, tc := range map[string]struct {
		there  Topic
		to     map[string]string
		is     string // of the only difference, as a line
		level  string
		mended bool
	}{
		"the same":                   {there: Topic{Partitions: 2, ReplicationFactor: 3}, to: same},
		"retention":                  {there: Topic{Partitions: 2, ReplicationFactor: 3}, to: with(map[string]string{"retention.ms": "1"}), is: "topic config orders retention.ms is 1, should be 604800000", level: LevelWarning, mended: true},
		"compaction":                 {there: Topic{Partitions: 2, ReplicationFactor: 3}, to: with(map[string]string{"cleanup.policy": "compact"}), is: "topic config orders cleanup.policy is compact, should be delete", level: LevelProblem, mended: true},
		"big records":                {there: Topic{Partitions: 2, ReplicationFactor: 3}, to: with(map[string]string{"max.message.bytes": "1"}), is: "topic config orders max.message.bytes is 1, should be 1048588", level: LevelProblem, mended: true},
		"fewer partitions":           {there: Topic{Partitions: 1, ReplicationFactor: 3}, to: same, is: "topic config orders partitions is 1, should be 2", level: LevelProblem},
		"too few replicas to insist": {there: Topic{Partitions: 2, ReplicationFactor: 1}, to: with(map[string]string{"min.insync.replicas": "1"}), is: "topic config orders min.insync.replicas is 1, should be 2", level: LevelWarning},
	} {
		t.Run(name, func(t *testing.T) {
			list := Drift([]Topic{{Name: "orders", Partitions: 2}, {Name: "unmirrored"}}, map[string]Topic{"orders": tc.there}, map[string]map[string]string{"orders": same}, map[string]map[string]string{"orders": tc.to})
			if tc.is == "" {
				require.Empty(t, list)
				return
			}
			require.Len(t, list, 1)
			require.Equal(t, tc.is, list[0].String())
			require.Equal(t, tc.level, list[0].Level)
			require.Equal(t, tc.mended, list[0].Mendable())
			require.NotEqual(t, list[0].Mendable(), list[0].Do != "", "what cannot be mended says who does what")
			require.Equal(t, tc.level != LevelProblem, Stands(list))
		})
	}
}

// Switchback's own topics keep what a run must not forget: one that is missing, or forgets, is a problem (P20).
func TestP20_OwnTopicsAreAsTheyShouldBe(t *testing.T) {
	specs := OwnTopicSpecs()
	var has []Topic
	configs := map[string]map[string]string{}
	for _, s := range specs {
		has = append(has, Topic{Name: s.Name})
		configs[s.Name] = map[string]string{}
		for k, v := range s.Configs {
			configs[s.Name][k] = v
		}
	}
	require.Empty(t, OwnTopicsLack("west", has, configs))

	configs["switchback.marks"]["cleanup.policy"] = "delete"
	list := OwnTopicsLack("west", has[:3], configs)
	require.Len(t, list, 2)
	require.Equal(t, []string{"own topic switchback.canary on west is missing, should be there", "own topic switchback.marks on west is cleanup.policy=delete, should be cleanup.policy=compact"}, []string{list[0].String(), list[1].String()})
	require.Equal(t, map[string]string{"cleanup.policy": "compact"}, list[1].Set)
	for _, d := range list {
		require.True(t, d.Mendable())
	}
}

func TestAnIDTellsWhatWasShownFromWhatCameMeanwhile(t *testing.T) {
	d := Difference{Kind: KindOffsetSync, Name: "filter", Is: "a", Should: "b", Mend: "set", Set: map[string]string{"x": "1", "y": "2"}}
	same := d
	same.Set = map[string]string{"y": "2", "x": "1"}
	require.Equal(t, d.ID(), same.ID())
	other := d
	other.Is = "c"
	require.NotEqual(t, d.ID(), other.ID())
	require.Len(t, d.ID(), 12)
}

func TestP11_AStandbyIsClosedByName(t *testing.T) {
	acls := Closed([]string{"User:checkout"}, []string{"orders", "payments"})
	require.Len(t, acls, 2)
	granted := append(acls, ACL{ResourceTopic, PatternLiteral, "*", Everybody, Anywhere, OpWrite, Allow})
	ask := func(principal string) Request {
		return Request{Principal: principal, Host: Anywhere, ResourceType: ResourceTopic, Name: "orders", Operation: OpWrite}
	}
	require.False(t, Allowed(granted, ask("User:checkout")), "a stray client")
	require.True(t, Allowed(granted, ask("User:mm2")), "the mirror")
}
