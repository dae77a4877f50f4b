package ledger

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// numbers are a verdict's defects.
func numbers(v Verdict) map[string]int {
	all := map[string]int{lost: v.Lost, duplicated: v.Duplicated, readTwice: v.ReadTwice, neverRead: v.NeverRead, outOfOrder: v.OutOfOrder, twoClusters: v.TwoClusters}
	for name, n := range all {
		if n == 0 {
			delete(all, name)
		}
	}
	return all
}

func TestCleanStories(t *testing.T) {
	for _, clusters := range [][]string{{"east"}, {"east", "west"}, {"east", "west", "east"}, {"east", "west", "east", "west", "east"}} {
		s := tell(4, 5, clusters...)
		v := s.judge()
		require.Empty(t, numbers(v), "%v: %s", clusters, v)
		require.Empty(t, v.Examples)
		require.True(t, v.Well())
		require.Equal(t, 40*len(clusters), v.Acknowledged)
		require.Equal(t, 60*len(clusters), v.Read)
		if len(clusters) > 1 {
			v = v.Against(s.ledger, s.report, "out/report.json")
			require.Empty(t, v.Disagreements)
			require.True(t, v.Agrees)
			require.True(t, v.Well())
		}
	}
}

func TestEachDefectHasItsNumber(t *testing.T) {
	for _, c := range []struct {
		name string
		hurt func(*story)
		want map[string]int
	}{
		{"a record is missing on the active cluster", func(s *story) {
			s.keep(slices.Delete(s.records(), 7, 8))
		}, map[string]int{lost: 1}},
		{"a record that was read is missing on the active cluster, and was acknowledged twice", func(s *story) {
			s.ledger.Acked = append(s.ledger.Acked, s.ledger.Acked[0])
			s.keep(slices.DeleteFunc(s.records(), func(r LogRecord) bool { return r.Key == s.ledger.Acked[0].Key && r.Seq == 1 }))
		}, map[string]int{lost: 1}},
		{"a record came behind the end that was drained", func(s *story) {
			a := s.ledger.Acked[0]
			a.Seq, a.Offset = 1000, 1000
			s.ledger.Acked = slices.Insert(s.ledger.Acked, 40, a)
		}, map[string]int{lost: 1, neverRead: 2}},
		{"a record is in the log of another topic", func(s *story) {
			i := slices.IndexFunc(s.records(), func(r LogRecord) bool { return r.Topic == "stock" })
			s.records()[i].Topic = "orders"
		}, map[string]int{lost: 1}},
		{"the active cluster has no log", func(s *story) { delete(s.logs, s.active) }, map[string]int{lost: 80}},
		{"the active cluster is another one", func(s *story) { s.active = "north" }, map[string]int{lost: 80}},
		{"a record is there twice", func(s *story) {
			s.keep(append(s.records(), s.records()[len(s.records())-1]))
		}, map[string]int{duplicated: 1}},
		{"a record is there four times, once in another partition", func(s *story) {
			r := s.records()[3]
			elsewhere := r
			elsewhere.Partition++
			s.keep(append(slices.Insert(s.records(), 4, r, r), elsewhere))
		}, map[string]int{duplicated: 3}},
		{"a group read a record on both clusters", func(s *story) {
			again := s.ledger.Seen[0]
			again.Cluster, again.Epoch, again.At = "west", 8, s.ledger.Seen[len(s.ledger.Seen)-1].At
			s.ledger.Seen = append(s.ledger.Seen, again)
		}, map[string]int{readTwice: 1}},
		{"two members read the same record", func(s *story) {
			again := s.ledger.Seen[10]
			again.Instance += "-other"
			s.ledger.Seen = slices.Insert(s.ledger.Seen, 11, again)
		}, map[string]int{readTwice: 1}},
		{"a group that subscribes to nothing known read twice", func(s *story) {
			again := s.ledger.Seen[0]
			again.Group = "stranger"
			s.ledger.Seen = append(s.ledger.Seen, again, again)
		}, map[string]int{readTwice: 1}},
		{"a group passed a record over", func(s *story) {
			s.ledger.Seen = slices.Delete(s.ledger.Seen, 9, 10)
		}, map[string]int{neverRead: 1}},
		{"a group read nothing", func(s *story) { s.groups["archive"] = []string{"stock"} }, map[string]int{neverRead: 40}},
		{"the log has a key's records the wrong way round", func(s *story) {
			i, j := neighbours(s.records(), func(r LogRecord) string { return r.Key })
			s.records()[i].Seq, s.records()[j].Seq = s.records()[j].Seq, s.records()[i].Seq
		}, map[string]int{outOfOrder: 1}},
		{"a group read a key's records the wrong way round", func(s *story) {
			i, j := neighbours(s.ledger.Seen, func(r Seen) string { return r.Group + r.Key })
			s.ledger.Seen[i].Seq, s.ledger.Seen[j].Seq = s.ledger.Seen[j].Seq, s.ledger.Seen[i].Seq
		}, map[string]int{outOfOrder: 1}},
		{"another member of the group read a key's later record before", func(s *story) {
			i, j := neighbours(s.ledger.Seen, func(r Seen) string { return r.Group + r.Key })
			s.ledger.Seen[j].Instance, s.ledger.Seen[j].At = "late", s.ledger.Seen[i].At.Add(-time.Millisecond)
		}, map[string]int{outOfOrder: 1}},
		{"two clusters acknowledged at one epoch", func(s *story) {
			for _, i := range []int{45, 50} {
				s.ledger.Acked[i].Cluster = "east"
			}
		}, map[string]int{twoClusters: 2}},
		{"two epochs with two clusters", func(s *story) {
			s.ledger.Acked[3].Cluster, s.ledger.Acked[50].Cluster = "west", "east"
		}, map[string]int{twoClusters: 2}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := tell(4, 5, "east", "west")
			c.hurt(s)
			v := s.judge()
			require.Equal(t, c.want, numbers(v))
			require.False(t, v.Well())
			require.Contains(t, v.String(), "NOT WELL")
			require.Len(t, v.Examples, len(c.want))
			for defect, n := range c.want {
				require.Len(t, v.Examples[defect], min(n, examplesOfEach), defect)
			}
		})
	}
}

// neighbours are the first two entries with the same key.
func neighbours[T any](list []T, key func(T) string) (int, int) {
	seen := map[string]int{}
	for j, e := range list {
		if i, ok := seen[key(e)]; ok {
			return i, j
		}
		seen[key(e)] = j
	}
	panic("no key has two records")
}

func TestNothingIsNotWell(t *testing.T) {
	require.False(t, Judge(&Ledger{}, "west", nil, nil).Well())
}

func TestAClockThatWasSetBackIsNotDisorder(t *testing.T) {
	s := tell(4, 5, "east", "west")
	for i := range s.ledger.Seen {
		if i > 30 {
			s.ledger.Seen[i].At = s.ledger.Seen[i].At.Add(-time.Minute)
		}
	}
	require.Empty(t, numbers(s.judge()))
}

func TestWindows(t *testing.T) {
	at := func(second float64) time.Time { return storyStart.Add(time.Duration(second * float64(time.Second))) }
	ack := func(second float64, instance, cluster string) Acked {
		return Acked{At: at(second), Instance: instance, Cluster: cluster}
	}
	for _, c := range []struct {
		name string
		acks []Acked
		want *float64
	}{
		{"nobody wrote", nil, nil},
		{"nobody switched", []Acked{ack(0, "w0", "east"), ack(30, "w0", "east")}, nil},
		{"each on its own cluster", []Acked{ack(0, "w0", "east"), ack(5, "w1", "west")}, nil},
		{"one switch", []Acked{ack(0, "w0", "east"), ack(1, "w0", "east"), ack(2.5, "w0", "west"), ack(9, "w0", "west")}, seconds64(1.5)},
		{"the worst instance", []Acked{ack(0, "w0", "east"), ack(0, "w1", "east"), ack(1, "w0", "west"), ack(4, "w1", "west")}, seconds64(4)},
		{"the worst switch", []Acked{ack(0, "w0", "east"), ack(1, "w0", "west"), ack(5, "w0", "west"), ack(8, "w0", "east"), ack(9, "w0", "west")}, seconds64(3)},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := &Ledger{Acked: c.acks}
			require.Equal(t, c.want, Judge(l, "west", nil, nil).SwitchWindowSeconds)
			for _, a := range c.acks {
				l.Seen = append(l.Seen, Seen{At: a.At, Instance: a.Instance, Cluster: a.Cluster})
			}
			l.Acked = nil
			v := Judge(l, "west", nil, nil)
			require.Equal(t, c.want, v.ConsumerWindowSeconds)
			require.Nil(t, v.SwitchWindowSeconds)
		})
	}
}

func seconds64(s float64) *float64 { return &s }

func TestVerdictInJSON(t *testing.T) {
	s := tell(1, 1, "east")
	s.keep(s.records()[1:])
	data, err := json.Marshal(s.judge())
	require.NoError(t, err)
	require.JSONEq(t, `{
		"active": "east", "lost": 1, "duplicated": 0, "readTwice": 0, "neverRead": 0, "outOfOrder": 0, "twoClusters": 0,
		"switchWindowSeconds": null, "consumerWindowSeconds": null, "acknowledged": 2, "read": 3,
		"clusters": {"east": {"acknowledged": 2, "read": 3, "records": 1}},
		"examples": {"lost": [{"cluster": "east", "topic": "orders", "partition": 0, "offset": 0, "key": "w0/0", "seq": 1}]},
		"report": "", "agrees": false
	}`, string(data))
}

// TestOneDefectIsNamed puts one defect at a random place of a random story.
func TestOneDefectIsNamed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		clusters := []string{"east", "west", "east", "west"}[:rapid.IntRange(2, 4).Draw(t, "clusters")]
		s := tell(rapid.IntRange(1, 5).Draw(t, "keys"), rapid.IntRange(2, 5).Draw(t, "records"), clusters...)
		if v := s.judge(); !v.Well() || len(Compare(s.ledger, v, s.report)) > 0 {
			t.Fatalf("a clean story: %s%q", v, Compare(s.ledger, v, s.report))
		}
		acks, seen := s.ledger.Acked, s.ledger.Seen
		a, r := rapid.IntRange(0, len(acks)-1).Draw(t, "acknowledgement"), rapid.IntRange(0, len(seen)-1).Draw(t, "read")
		n := rapid.IntRange(0, len(s.records())-1).Draw(t, "record")
		var key string
		var seq int64
		defect := rapid.SampledFrom([]string{lost, duplicated, readTwice, neverRead, outOfOrder, twoClusters}).Draw(t, "defect")
		switch defect {
		case lost:
			key, seq = s.records()[n].Key, s.records()[n].Seq
			s.keep(slices.Delete(s.records(), n, n+1))
		case duplicated:
			key, seq = s.records()[n].Key, s.records()[n].Seq
			s.keep(append(s.records(), s.records()[n]))
		case readTwice:
			key, seq = seen[r].Key, seen[r].Seq
			s.ledger.Seen = append(seen, seen[r])
		case neverRead:
			key, seq = seen[r].Key, seen[r].Seq
			s.ledger.Seen = slices.Delete(seen, r, r+1)
		case outOfOrder: // moved behind all others of its partition; the first so that others of its key follow
			first := slices.IndexFunc(s.records(), func(o LogRecord) bool { return o.Key == s.records()[n].Key })
			moved := s.records()[first]
			key, seq = moved.Key, moved.Seq
			s.keep(append(slices.Delete(s.records(), first, first+1), moved))
		case twoClusters:
			key, seq = acks[a].Key, acks[a].Seq
			acks[a].Cluster = "elsewhere"
		}
		v := s.judge()
		if found := numbers(v); v.Well() || len(found) != 1 || found[defect] != 1 {
			t.Fatalf("%s: %v", defect, found)
		}
		if e := v.Examples[defect][0]; e.Key != key || e.Seq != seq {
			t.Fatalf("%s of %s %d: named is %+v", defect, key, seq, e)
		}
	})
}

// A client that is cut off goes on at its old epoch while others work at the new one: no epoch has two clusters, so the
// letter of I1 holds, and yet its records are not on the active cluster. They are lost with a name, never in silence.
func TestP23_AStaleClientIsStrandedWithAName(t *testing.T) {
	s := tell(4, 5, "east", "west")
	stale := s.ledger.Acked[0]
	stale.Seq, stale.Offset, stale.At = 1000, 1000, s.ledger.Acked[len(s.ledger.Acked)-1].At.Add(time.Second)
	s.ledger.Acked = append(s.ledger.Acked, stale)
	v := s.judge()
	require.Zero(t, v.TwoClusters, "one epoch, one cluster")
	require.Equal(t, 1, v.Lost)
	require.Equal(t, "east", v.Examples[lost][0].Cluster)
	require.EqualValues(t, 1000, v.Examples[lost][0].Seq)
	require.False(t, v.Well())

	stale.Epoch = s.ledger.Acked[len(s.ledger.Acked)-2].Epoch // the same at the new epoch is what I1 forbids
	s.ledger.Acked[len(s.ledger.Acked)-1] = stale
	require.Equal(t, 1, s.judge().TwoClusters)
}
