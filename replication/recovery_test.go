package replication

import (
	"testing"

	"github.com/stretchr/testify/require"

	"switchback/internal/fault"
)

func TestP31_ATailGoesOnOnlyInTheWayThatItWasBegun(t *testing.T) {
	orders := Partition{Topic: "orders", Partition: 1}
	tail := Tail{Partition: orders, From: 10, To: 20, Treatment: TreatAppend, Into: orders}
	begun := func(treatment Treatment, next int64) Recovered {
		r := Begin(tail)
		r.Treatment, r.Next, r.Tally = treatment, next, Tally{Recovered: next - 10}
		if !treatment.Copies() {
			r.Into, r.Tally = Partition{}, Tally{Left: next - 10}
		}
		return r
	}
	with := func(change func(*Tail)) Tail {
		t := tail
		change(&t)
		return t
	}
	for name, tc := range map[string]struct {
		before Recovered
		now    Tail
		next   int64
		says   string
	}{
		"as it was":              {begun(TreatAppend, 15), tail, 15, ""},
		"it has grown":           {begun(TreatAppend, 15), with(func(t *Tail) { t.To = 30 }), 15, ""},
		"it has shrunk":          {begun(TreatAppend, 15), with(func(t *Tail) { t.To = 19 }), 0, "now ends at 19"},
		"another boundary":       {begun(TreatAppend, 15), with(func(t *Tail) { t.From = 9 }), 0, "begun at offset 10"},
		"another partition":      {begun(TreatAppend, 15), with(func(t *Tail) { t.Partition.Partition = 2 }), 0, "that of orders"},
		"diverted after append":  {begun(TreatAppend, 15), with(func(t *Tail) { t.Treatment = TreatDivert }), 0, "handled offsets 10 to 15 with append"},
		"nothing was done yet":   {begun(TreatDivert, 10), tail, 10, ""},
		"append after a rewind":  {begun(TreatRewind, 20), tail, 0, "with rewind"},
		"append after a report":  {begun(TreatReport, 20), tail, 10, ""},
		"a report again":         {begun(TreatReport, 20), with(func(t *Tail) { t.Treatment, t.Into = TreatReport, Partition{} }), 20, ""},
		"report after an append": {begun(TreatAppend, 15), with(func(t *Tail) { t.Treatment = TreatReport }), 0, "with append"},
		"to another topic":       {begun(TreatAppend, 15), with(func(t *Tail) { t.Into.Topic = "other" }), 0, "cannot go to other"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := tc.before.GoOn(tc.now)
			if tc.says != "" {
				require.ErrorIs(t, err, fault.ErrConflict)
				require.ErrorContains(t, err, tc.says)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tc.now, got.Tail)
			require.Equal(t, tc.next, got.Next)
			require.Equal(t, tc.next-got.From, got.Tally.Sum())
		})
	}
}

func TestATallyAddsUp(t *testing.T) {
	one := Tally{1, 2, 3, 4, 5, 6, 7}
	require.EqualValues(t, 28, one.Sum())
	require.Equal(t, Tally{2, 4, 6, 8, 10, 12, 14}, one.Plus(one))
	require.False(t, Begin(Tail{From: 1, To: 3}).Done())
	require.True(t, Recovered{Tail: Tail{From: 1, To: 3}, Next: 3, Tally: Tally{Blank: 1, Left: 1}}.Done())
	require.False(t, Recovered{Tail: Tail{From: 1, To: 3}, Next: 3, Tally: Tally{Blank: 1}}.Done(), "an offset that nobody accounted for")
}
