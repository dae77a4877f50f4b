package replication

import (
	"errors"
	"strings"
	"testing"

	"switchback/internal/fault"
)

func on(topic string, p int32) Partition { return Partition{Topic: topic, Partition: p} }

func TestP24_CommittedCoversEveryPartitionOfWhatAGroupReads(t *testing.T) {
	ends := []Ends{{Partition: on("a", 0)}, {Partition: on("a", 1)}, {Partition: on("b", 0)}, {Partition: on("c", 0)}}
	for name, tc := range map[string]struct {
		committed  map[Partition]int64
		subscribed []string
		want       map[Partition]int64
	}{
		"a commit of one partition":  {map[Partition]int64{on("a", 0): 4}, nil, map[Partition]int64{on("a", 0): 4, on("a", 1): Unknown}},
		"a subscription alone":       {nil, []string{"b"}, map[Partition]int64{on("b", 0): Unknown}},
		"both":                       {map[Partition]int64{on("a", 1): 0}, []string{"a", "b"}, map[Partition]int64{on("a", 0): Unknown, on("a", 1): 0, on("b", 0): Unknown}},
		"neither":                    {nil, nil, map[Partition]int64{}},
		"a topic that is not ours":   {map[Partition]int64{on("x", 0): 9}, []string{"y"}, map[Partition]int64{}},
		"a commit of zero is one":    {map[Partition]int64{on("c", 0): 0}, nil, map[Partition]int64{on("c", 0): 0}},
		"a subscription and commits": {map[Partition]int64{on("c", 0): 2}, []string{"c"}, map[Partition]int64{on("c", 0): 2}},
	} {
		t.Run(name, func(t *testing.T) {
			got := Committed(tc.committed, ends, tc.subscribed...)
			if len(got) != len(tc.want) {
				t.Fatalf("got %+v, want %v", got, tc.want)
			}
			for _, g := range got {
				if want, ok := tc.want[g.Partition]; !ok || g.Source != want || g.Target != Unknown {
					t.Errorf("got %+v, want source %d", g, want)
				}
			}
		})
	}
}

func TestPlace(t *testing.T) {
	p := on("a", 0)
	for name, tc := range map[string]struct {
		source, target, start, end int64
		policy                     string
		want                       int64
		proof                      string
	}{
		"inside":                       {5, 5, 2, 9, WithoutCommitEarliest, 5, ProofExact},
		"at the end":                   {9, 9, 2, 9, WithoutCommitEarliest, 9, ProofExact},
		"beyond the end":               {12, 12, 2, 9, WithoutCommitEarliest, 9, "clamped from 12 down to the end 9"},
		"below the start":              {1, 1, 2, 9, WithoutCommitEarliest, 2, "moved from 1 up to the log start 2: what lay between has expired"},
		"no commit, earliest":          {Unknown, Unknown, 2, 9, WithoutCommitEarliest, 2, "no commit: set to the start, as the runbook says"},
		"no commit, latest":            {Unknown, Unknown, 2, 9, WithoutCommitLatest, 9, "no commit: set to the end, as the runbook says"},
		"no commit, no policy":         {Unknown, Unknown, 2, 9, "", 2, "no commit: set to the start, as the runbook says"},
		"no translation":               {3, Unknown, 2, 9, WithoutCommitEarliest, 2, "no checkpoint: set to the start, as the runbook says"},
		"no translation, latest":       {3, Unknown, 2, 9, WithoutCommitLatest, 9, "no checkpoint: set to the end, as the runbook says"},
		"no checkpoint, source dead":   {Unknown, Unknown, 2, 9, WithoutCommitEarliest, 2, "no checkpoint: set to the start, as the runbook says"},
		"no commit, nothing to read":   {Unknown, Unknown, 4, 4, WithoutCommitEarliest, 4, ProofExact},
		"a commit on an emptied topic": {3, 3, 7, 7, WithoutCommitEarliest, 7, "moved from 3 up to the log start 7: what lay between has expired"},
	} {
		t.Run(name, func(t *testing.T) {
			proof := ProofExact
			if strings.HasPrefix(tc.proof, "no checkpoint") {
				proof = "no checkpoint"
			}
			got, err := Place([]Translated{{Partition: p, Source: tc.source, Target: tc.target, Proof: proof}},
				[]Ends{{Partition: p, Start: tc.start, HighWatermark: tc.end}}, tc.policy)
			if err != nil || len(got) != 1 || got[0].Target != tc.want || got[0].Proof != tc.proof {
				t.Fatalf("got %+v, %v; want %d, %q", got, err, tc.want, tc.proof)
			}
		})
	}
}

func TestPlaceRefusesWhatIsUnknown(t *testing.T) {
	p := on("a", 0)
	known := Ends{Partition: p, Start: 0, HighWatermark: 5}
	for name, tc := range map[string]struct {
		of     Translated
		target []Ends
	}{
		"no range":       {Translated{Partition: p, Source: 1, Target: 1}, nil},
		"no start":       {Translated{Partition: p, Source: 1, Target: 1}, []Ends{{Partition: p, Start: Unknown, HighWatermark: 5}}},
		"no end":         {Translated{Partition: p, Source: 1, Target: 1}, []Ends{{Partition: p, HighWatermark: Unknown}}},
		"no translation": {Translated{Partition: p, Source: 1, Target: Unknown}, []Ends{known}},
	} {
		if got, err := Place([]Translated{tc.of}, tc.target, WithoutCommitEarliest); !errors.Is(err, fault.ErrNotReady) || got != nil {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

// Whatever comes in, what comes out lies inside of the target's log, is known, and is the same every time.
func FuzzPlace(f *testing.F) {
	f.Add(int64(5), int64(5), int64(2), int64(9), false, true)
	f.Add(int64(-1), int64(-1), int64(0), int64(0), true, false)
	f.Add(int64(-7), int64(1<<62), int64(-1), int64(3), true, true)
	f.Fuzz(func(t *testing.T, source, target, start, end int64, latest, read bool) {
		start, end = max(start, Unknown), max(end, Unknown)
		if start != Unknown && end != Unknown && start > end {
			start, end = end, start
		}
		p, policy := on("a", 0), WithoutCommitEarliest
		if latest {
			policy = WithoutCommitLatest
		}
		ends := []Ends{{Partition: p, Start: start, HighWatermark: end}}
		committed := map[Partition]int64{}
		if read {
			committed[p] = max(source, 0)
		}
		list := Committed(committed, ends, "a")
		if len(list) != 1 {
			t.Fatalf("a partition is missing: %+v", list)
		}
		if list[0].Source != Unknown {
			list[0].Target = max(target, Unknown)
		}
		got, err := Place(list, ends, policy)
		again, err2 := Place(list, ends, policy)
		if (err == nil) != (err2 == nil) || err == nil && got[0] != again[0] {
			t.Fatalf("once %+v, %v; then %+v, %v", got, err, again, err2)
		}
		if err != nil {
			if start != Unknown && end != Unknown && (list[0].Source == Unknown || list[0].Target != Unknown) {
				t.Fatalf("refused without a reason: %v", err)
			}
			return
		}
		if o := got[0].Target; o == Unknown || o < start || o > end {
			t.Fatalf("offset %d is outside of %d..%d", o, start, end)
		}
	})
}

func TestGroupLag(t *testing.T) {
	ends := []Ends{{Partition: on("a", 0), HighWatermark: 10}, {Partition: on("a", 1), HighWatermark: Unknown}, {Partition: on("a", 2), HighWatermark: 3}}
	for name, tc := range map[string]struct {
		committed map[Partition]int64
		want      int64
	}{
		"behind":             {map[Partition]int64{on("a", 0): 4}, 6},
		"at the end":         {map[Partition]int64{on("a", 0): 10}, 0},
		"beyond the end":     {map[Partition]int64{on("a", 0): 12}, 0},
		"unknown is not nil": {map[Partition]int64{on("a", 1): 4}, 1},
		"never committed":    {nil, 0},
		"an unknown commit":  {map[Partition]int64{on("a", 2): Unknown}, 0},
		"over all":           {map[Partition]int64{on("a", 0): 9, on("a", 1): 0, on("a", 2): 1}, 4},
	} {
		if got := GroupLag(tc.committed, ends); got != tc.want {
			t.Errorf("%s: got %d, want %d", name, got, tc.want)
		}
	}
}

// Why the runbook's word counts is said: a group without a checkpoint may have committed all the same.
func TestP24_WhyNothingIsKnownOfAGroupIsSaid(t *testing.T) {
	on := Partition{Topic: "a"}
	ends := []Ends{{Partition: on, Start: 2, HighWatermark: 9, LogEnd: 9, LastStable: 9}}
	for proof, want := range map[string]string{
		"":              "no commit: set to the start, as the runbook says",
		"no checkpoint": "no checkpoint: set to the start, as the runbook says",
	} {
		got, err := Place([]Translated{{Partition: on, Source: Unknown, Target: Unknown, Proof: proof}}, ends, WithoutCommitEarliest)
		if err != nil || len(got) != 1 || got[0].Proof != want || got[0].Target != 2 {
			t.Errorf("%q: got %+v, %v; want %q at 2", proof, got, err, want)
		}
	}
}
