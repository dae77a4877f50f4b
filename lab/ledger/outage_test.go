package ledger

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// What a consumer reads again because its broker was killed between processing and commit is no defect. Everything else that
// is read twice still is.
func TestOnlyWhatABrokerTookWithItIsReadAgain(t *testing.T) {
	for _, c := range []struct {
		name  string
		hurt  func(l *Ledger, again *Seen)
		allow bool
	}{
		{"its broker was killed before the commit", func(*Ledger, *Seen) {}, true},
		{"it had been committed", func(l *Ledger, again *Seen) { l.Committed[0].Offset = again.Offset + 1 }, false},
		{"it is what was committed last", func(l *Ledger, again *Seen) { l.Committed[0].Offset = again.Offset }, true},
		{"another group had committed it", func(l *Ledger, again *Seen) {
			l.Committed[0].Group, l.Committed[0].Offset = "audit", again.Offset+1
		}, true},
		{"it was committed after the broker was back", func(l *Ledger, again *Seen) {
			c := l.Committed[0]
			c.At, c.Offset = again.At.Add(-time.Millisecond), again.Offset+1
			l.Committed = append(l.Committed, c)
		}, false},
		{"the other cluster was killed", func(l *Ledger, _ *Seen) { l.Outages[0].Cluster = "west" }, false},
		{"the broker was killed later", func(l *Ledger, again *Seen) { l.Outages[0].Killed = again.At.Add(time.Second) }, false},
		{"it was read first when the broker was back", func(l *Ledger, _ *Seen) { l.Outages[0].Back = l.Outages[0].Killed.Add(-time.Hour) }, false},
		{"nobody killed a broker", func(l *Ledger, _ *Seen) { l.Outages = nil }, false},
		{"the group went on elsewhere", func(_ *Ledger, again *Seen) { again.Cluster, again.Epoch = "west", 8; again.Offset += 7 }, true},
		{"the group went on elsewhere, and had committed it", func(l *Ledger, again *Seen) {
			l.Committed[0].Offset = again.Offset + 1
			again.Cluster, again.Epoch = "west", 8
		}, false},
		{"the group went on elsewhere, where the broker was killed", func(l *Ledger, again *Seen) {
			l.Outages[0].Cluster = "west"
			again.Cluster, again.Epoch = "west", 8
		}, false},
		{"it has another offset", func(_ *Ledger, again *Seen) { again.Offset++ }, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := tell(4, 5, "east")
			var last Seen
			for _, r := range s.ledger.Seen {
				if r.Group == "billing" {
					last = r
				}
			}
			s.ledger.Outages = []Outage{{Cluster: "east", Killed: last.At.Add(time.Millisecond), Back: last.At.Add(3 * time.Second)}}
			s.ledger.Committed = []Committed{{
				At: last.At, Cluster: "east", Epoch: last.Epoch, Instance: last.Instance, Group: last.Group, Topic: last.Topic, Partition: last.Partition, Offset: last.Offset,
			}}
			again := last
			again.At = last.At.Add(4 * time.Second)
			c.hurt(s.ledger, &again)
			s.ledger.Seen = append(s.ledger.Seen, again)
			v := s.judge()
			if c.allow {
				require.Empty(t, numbers(v), "%s", v)
				require.Equal(t, 1, v.Uncommitted)
				return
			}
			require.Equal(t, map[string]int{readTwice: 1}, numbers(v), "%s", v)
			require.Zero(t, v.Uncommitted)
		})
	}
}

// A group whose broker was killed before its last commit is handed over where it had committed, and the report says so.
func TestAGroupIsWhereItCommittedBeforeItsBrokerWasKilled(t *testing.T) {
	for name, killed := range map[string]bool{"the broker was killed": true, "nobody killed a broker": false} {
		t.Run(name, func(t *testing.T) {
			s := tell(4, 5, "east", "west")
			*s.offset("audit", "orders", 0).Source--
			if killed {
				for _, r := range s.ledger.Seen {
					if r.Cluster == "east" && r.Group == "audit" {
						s.ledger.Outages = []Outage{{Cluster: "east", Killed: r.At, Back: r.At.Add(3 * time.Second)}}
					}
				}
			}
			says := s.judge().Against(s.ledger, s.report, "out/report.json").Disagreements
			if killed {
				require.Empty(t, says)
				return
			}
			require.Len(t, says, 1)
			require.Contains(t, says[0], "group audit was at offset 8 of orders-0; it read up to offset 8 on east")
		})
	}
}
