package replication

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func ends(leo, hw, lso int64) Ends {
	return Ends{Partition: Partition{"orders", 3}, LogEnd: leo, HighWatermark: hw, LastStable: lso}
}

func TestP07_Quiescent(t *testing.T) {
	for name, tc := range map[string]struct {
		looks  [][]Ends
		status Status
		reason string
	}{
		"quiet":                    {[][]Ends{{ends(9, 9, 9)}, {ends(9, 9, 9)}}, OK, ""},
		"quiet three times":        {[][]Ends{{ends(9, 9, 9)}, {ends(9, 9, 9)}, {ends(9, 9, 9)}}, OK, ""},
		"empty":                    {[][]Ends{{ends(0, 0, 0)}, {ends(0, 0, 0)}}, OK, ""},
		"one look proves nothing":  {[][]Ends{{ends(9, 9, 9)}}, Unclear, "once"},
		"stalled follower":         {[][]Ends{{ends(12, 9, 9)}, {ends(12, 9, 9)}}, Pending, "3 records wait for a follower"},
		"open transaction":         {[][]Ends{{ends(9, 9, 5)}, {ends(9, 9, 5)}}, Pending, "open since offset 5"},
		"still written to":         {[][]Ends{{ends(9, 9, 9)}, {ends(10, 10, 10)}}, Pending, "log end 9, then 10"},
		"written to in the end":    {[][]Ends{{ends(9, 9, 9)}, {ends(9, 9, 9)}, {ends(11, 11, 11)}}, Pending, "log end 9, then 11"},
		"stalled in the first":     {[][]Ends{{ends(10, 9, 9)}, {ends(10, 10, 10)}}, Pending, "wait for a follower"},
		"log end unknown":          {[][]Ends{{ends(9, 9, 9)}, {ends(Unknown, 9, 9)}}, Unclear, "log end unknown"},
		"high watermark unknown":   {[][]Ends{{ends(9, Unknown, 9)}, {ends(9, 9, 9)}}, Unclear, "high watermark unknown"},
		"last stable unknown":      {[][]Ends{{ends(9, 9, Unknown)}, {ends(9, 9, Unknown)}}, Unclear, "last stable unknown"},
		"all unknown are not same": {[][]Ends{{ends(Unknown, Unknown, Unknown)}, {ends(Unknown, Unknown, Unknown)}}, Unclear, "unknown"},
		"missing from a look":      {[][]Ends{{ends(9, 9, 9)}, {}}, Unclear, "seen in 1 of 2"},
		"appeared in the second":   {[][]Ends{{}, {ends(9, 9, 9)}}, Unclear, "seen in 1 of 2"},
		"contradiction":            {[][]Ends{{ends(8, 9, 9)}, {ends(8, 9, 9)}}, Unclear, "contradicts itself"},
		"truncated":                {[][]Ends{{ends(9, 9, 9)}, {ends(7, 7, 7)}}, Pending, "log end 9, then 7"},
	} {
		t.Run(name, func(t *testing.T) {
			q := Quiescent(tc.looks...)
			require.Equal(t, 1, q.Partitions)
			require.Equal(t, tc.status == OK, q.Quiet())
			if tc.status == OK {
				require.Empty(t, q.Not)
				return
			}
			require.Len(t, q.Not, 1)
			require.Equal(t, "orders-3", q.Not[0].Name)
			require.Equal(t, tc.status, q.Not[0].Status)
			require.Contains(t, q.Not[0].Reason, tc.reason)
		})
	}
}

func TestP07_NothingIsNotQuiet(t *testing.T) {
	require.False(t, Quiescent().Quiet())
	require.False(t, Quiescent(nil, nil).Quiet())
}

func TestHeldIsMeasuredAgainstAnEarlierLook(t *testing.T) {
	at := func(hw, lso int64) []Ends {
		return []Ends{{Partition: Partition{"orders", 0}, HighWatermark: hw, LastStable: lso}}
	}
	for name, tc := range map[string]struct {
		earlier, now []Ends
		held         bool
	}{
		"nothing is open":                            {at(5, 5), at(5, 5), false},
		"written to between two ends of a look":      {at(5, 5), at(9, 8), false},
		"a transaction of before is open":            {at(5, 3), at(9, 3), true},
		"it ended, another one began":                {at(5, 3), at(9, 7), false},
		"a first look cannot tell, and must not say": {nil, at(5, 4), true},
		"a first look that agrees":                   {nil, at(5, 5), false},
		"truncated meanwhile":                        {at(9, 9), at(5, 5), false},
		"unknown is not well":                        {at(5, 5), at(5, Unknown), true},
	} {
		t.Run(name, func(t *testing.T) { require.Equal(t, tc.held, len(Held(tc.earlier, tc.now)) > 0) })
	}
}

func TestAssess(t *testing.T) {
	now := time.Unix(1000, 0)
	at := func(source, target int64) Position {
		return Position{Partition: Partition{"orders", 0}, SourceEnd: source, TargetEnd: target, Seen: now.Add(-10 * time.Second)}
	}
	for name, tc := range map[string]struct {
		positions []Position
		limits    Limits
		within    bool
		behind    int64
		unknown   int
	}{
		"in step":                {[]Position{at(5, 5), at(0, 0)}, Limits{}, true, 0, 0},
		"behind":                 {[]Position{at(5, 3), at(9, 8)}, Limits{}, false, 3, 0},
		"behind within":          {[]Position{at(5, 3), at(9, 8)}, Limits{Records: 3}, true, 3, 0},
		"source unknown":         {[]Position{at(Unknown, 3), at(9, 8)}, Limits{Records: 100}, false, 1, 1},
		"target unknown":         {[]Position{at(5, Unknown)}, Limits{Records: 100}, false, 0, 1},
		"target ahead":           {[]Position{at(5, 6)}, Limits{Records: 100}, false, 0, 1},
		"old sample":             {[]Position{at(5, 5)}, Limits{Age: 9 * time.Second}, false, 0, 0},
		"fresh sample":           {[]Position{at(5, 5)}, Limits{Age: 10 * time.Second}, true, 0, 0},
		"nothing proves nothing": {nil, Limits{Records: 100}, false, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			v := Assess(tc.positions, tc.limits, now)
			require.Equal(t, tc.within, v.Within)
			require.Equal(t, tc.behind, v.Behind)
			require.Equal(t, tc.unknown, v.Unknown)
		})
	}
}

func TestPartialNamesAFew(t *testing.T) {
	p := &Partial{Op: "east: read ends"}
	for range 8 {
		p.Failed = append(p.Failed, Outcome{Name: "a-0", Reason: "why"})
	}
	require.Equal(t, "east: read ends: 8 failed: a-0: why; a-0: why; a-0: why; a-0: why; a-0: why; and 3 more", p.Error())
}
