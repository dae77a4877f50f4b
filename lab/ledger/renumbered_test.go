package ledger

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"switchback/report"
)

// shift is what the target's offsets are ahead of the source's in the stories below: something was there before.
const shift = 3

// renumber tells a story over a mirror that gives records offsets of its own: west is ahead of east in every partition.
func renumber(s *story) {
	for i := range s.ledger.Acked {
		if a := &s.ledger.Acked[i]; a.Cluster == "west" {
			a.Offset += shift
		}
	}
	for i := range s.ledger.Seen {
		if r := &s.ledger.Seen[i]; r.Cluster == "west" {
			r.Offset += shift
		}
	}
	west := s.logs["west"]
	for i := range west.Records {
		west.Records[i].Offset += shift
	}
	for i := range s.report.Positions {
		*s.report.Positions[i].TargetEnd += shift
	}
	for i := range s.report.Offsets {
		*s.report.Offsets[i].Target += shift
	}
	s.ledger.Renumbered = s.logs
}

func TestOffsetsOfItsOwn(t *testing.T) {
	for _, c := range []struct {
		name string
		hurt func(*story)
		want []string
	}{
		{"all is well", func(*story) {}, nil},
		{"an offset is behind, and said to be", func(s *story) {
			o := s.offset("audit", "orders", 0)
			*o.Target -= 2
			o.Proof = "up to 2 behind"
			// The group reads the two again.
			for i := range s.ledger.Seen {
				if r := &s.ledger.Seen[i]; r.Group == "audit" && r.Cluster == "west" && r.Partition == 0 {
					r.Offset = *o.Target
					break
				}
			}
		}, nil},
		{"an offset is behind, and said to be exact", func(s *story) {
			o := s.offset("billing", "stock", 0)
			*o.Target -= 2
		}, []string{"billing was handed offset 11 of stock-0; on west it began at offset 13 and passed over 2", "from offset 10 of stock-0 to offset 11 and calls it exact; west holds 2 records from there on that the group had read"}},
		{"an offset skips", func(s *story) { *s.offset("audit", "orders", 0).Target++ },
			[]string{"audit was handed offset 13 of orders-0; on west it began at offset 12", "moves group audit from offset 9 of orders-0 to offset 13; west holds 1 records before it that the group had not read"}},
		{"the source's offset was taken for the target's", func(s *story) { *s.offset("billing", "stock", 0).Target -= shift },
			[]string{"passed over 3", "and calls it exact; west holds 3 records"}},
		{"the target's end is too low", func(s *story) { *s.position("stock", 0).TargetEnd -= 2 },
			[]string{"the target's end of stock-0 was 11; east acknowledged offset 9, which is offset 12 of west, at epoch 7"}},
		{"the target's end is too high", func(s *story) { *s.position("stock", 0).TargetEnd += 2 },
			[]string{"the target's end of stock-0 was 15; west acknowledged offset 13, which is below it, at epoch 8"}},
		{"the source's end is too low", func(s *story) { *s.position("stock", 0).SourceEnd -= 2 },
			[]string{"the source's end of stock-0 was 8; east acknowledged offset 9 at epoch 7"}},
		{"a record of the source is not there", func(s *story) {
			gone := slices.IndexFunc(s.records(), func(r LogRecord) bool { return r.Topic == "stock" && r.Partition == 0 })
			s.keep(slices.Delete(slices.Clone(s.records()), gone, gone+1))
		}, []string{"0 records were lost, the ledger says 1", "the target lacks 0 records, the ledger says that 1"}},
		{"an offset of a group that never read", func(s *story) {
			s.report.Offsets = append(s.report.Offsets, report.GroupOffset{Group: "archive", Topic: "orders", Source: number(4), Target: number(4 + shift)})
		}, []string{"group archive was at offset 4 of orders-0; it never read there, and offset 0 was acknowledged"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := tell(4, 5, "east", "west")
			renumber(s)
			c.hurt(s)
			v := s.judge().Against(s.ledger, s.report, "out/report.json")
			require.Len(t, v.Disagreements, len(c.want), strings.Join(v.Disagreements, "\n"))
			for i, part := range c.want {
				require.Contains(t, v.Disagreements[i], part)
			}
		})
	}
}

// What is judged without a report goes by key and number alone.
func TestOffsetsDoNotMatterToTheVerdict(t *testing.T) {
	s := tell(4, 5, "east", "west")
	renumber(s)
	require.Empty(t, numbers(s.judge()))

	// A mirror that repeated itself doubled records; whoever reads them once more reads them twice.
	again := s.records()[0]
	again.Offset = 0
	s.keep(append([]LogRecord{again}, s.records()...))
	v := s.judge()
	require.Equal(t, 1, v.Duplicated)
	require.Zero(t, v.Lost+v.OutOfOrder)
}

func TestWithoutPrefix(t *testing.T) {
	log := ClusterLog{Name: "west", Records: []LogRecord{{Topic: "east.orders.00", Key: "k", Seq: 1}}}
	require.Equal(t, "orders.00", log.WithoutPrefix("east.").Records[0].Topic)
}
