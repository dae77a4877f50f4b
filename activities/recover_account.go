package activities

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"switchback/internal/fault"
	"switchback/internal/killpoint"
	"switchback/replication"
	"switchback/report"
)

// AccountInput asks for the account of a recovery. Final says that nothing more is copied: where everything is accounted
// for, and nothing was left, the stranded tail need not be kept any more.
type AccountInput struct {
	RecoveryInput
	Final bool `json:"final,omitempty"`
}

// Accounted is one partition's account. Its Tally adds up to its offsets.
type Accounted struct {
	replication.Recovered
	Gone string `json:"gone,omitempty"`
}

// AccountResult is the account: per topic, and whether it adds up.
type AccountResult struct {
	Acted
	Total    StrandedTopic   `json:"total"`
	Topics   []StrandedTopic `json:"topics,omitempty"`
	Open     int             `json:"open"`     // partitions whose copy did not come to its end
	Finished bool            `json:"finished"` // nothing is left, and nothing will be recovered of these marks again
	Standing []string        `json:"standing,omitempty"`
	Text     string          `json:"text"`
}

// Account says what became of each stranded offset: recovered, superseded, expired, of an aborted transaction, no record,
// refused, or left. The sum must be what was stranded, partition by partition; anything else is an error, and never silence
// (I4). What is left or refused exists nowhere else, so the old cluster goes on keeping it (I9).
func (a *Recovery) Account(ctx context.Context, in AccountInput) (out AccountResult, err error) {
	ctx, out.Acted = begin(ctx)
	r, err := a.begun(ctx, in.RecoveryInput)
	if err != nil {
		return out, err
	}
	defer r.close()
	_, list, err := r.kept(ctx, in.Tail)
	if err != nil {
		return out, err
	}
	done, err := r.progress(ctx, in.Tail)
	if err != nil {
		return out, err
	}
	accounts, err := accountsOf(list, done)
	if err != nil {
		return out, err
	}
	out.tell(accounts)
	if err := putList(ctx, r.records, accountKey(in.Tail, in.Guard.Run.ID()), accounts); err != nil {
		return out, err
	}
	killpoint.Reach("Account/middle")
	if !in.Final {
		return out, nil
	}
	room, err := r.giveRoomBack(ctx, in.Tail)
	if err != nil {
		return out, err
	}
	out.Text += room
	return out, a.closeTail(ctx, r, in, &out)
}

// accountsOf settles each partition, or says which does not add up.
func accountsOf(list []replication.Stranded, done map[replication.Partition]replication.Recovered) ([]Accounted, error) {
	accounts := make([]Accounted, 0, len(list))
	for _, s := range list {
		one := accountOf(s, done)
		if sum := one.Tally.Sum(); sum != one.Offsets() {
			return nil, fmt.Errorf("the account of %s does not add up: %d offsets are stranded, %d are accounted for (%+v): %w", s.Name(), one.Offsets(), sum, one.Tally, fault.ErrInvalid)
		}
		accounts = append(accounts, one)
	}
	return accounts, nil
}

func accountOf(s replication.Stranded, done map[replication.Partition]replication.Recovered) Accounted {
	was, begun := done[s.Partition]
	one := Accounted{Recovered: was, Gone: s.Gone}
	begun = begun && was.From == s.From && replication.SameTopic(was.ID, s.ID)
	if !begun {
		one.Recovered = replication.Begin(s.Tail)
	}
	one.Tail = s.Tail
	if begun && was.Next > was.From { // what was done with it counts, whatever this run would do with the rest
		one.Treatment, one.Into = was.Treatment, was.Into
	}
	if rest := s.Tail; one.Next < s.To {
		rest.From = one.Next
		one.Tally = one.Tally.Plus(leftOf(rest))
	}
	return one
}

// closeTail ends the keeping of a tail of which nothing is left.
func (a *Recovery) closeTail(ctx context.Context, r *recovering, in AccountInput, out *AccountResult) error {
	from := in.Route.From.Name
	if kept := out.Total.Left + out.Total.Refused; kept > 0 || out.Open > 0 || out.Total.Gone != nil {
		out.Standing = append(out.Standing, fmt.Sprintf("the topics of %s keep everything, as they have since it was fenced: %d stranded offsets are left there or were refused, and exist nowhere else", from, kept))
		return nil
	}
	released, err := (&Fences{a.Outside}).ReleaseTail(ctx, FenceInput{Guard: in.Guard, Route: in.Route})
	if err != nil {
		return wrap("put the retention of "+from+" back", err)
	}
	out.Finished = true
	out.Text += "; " + released.Text
	return r.records.put(ctx, map[string]any{recoveredKey(in.Tail): keptDone{Run: in.Guard.Run.ID(), At: time.Now().UTC()}})
}

// tell sums the accounts.
func (out *AccountResult) tell(accounts []Accounted) {
	by := map[string]*StrandedTopic{}
	var names []string
	out.Total = StrandedTopic{Topic: "all"}
	for _, one := range accounts {
		t := by[one.Topic]
		if t == nil {
			t = &StrandedTopic{Topic: one.Topic, Treatment: one.Treatment, Into: one.Into.Topic}
			by[one.Topic], names = t, append(names, one.Topic)
		}
		for _, sum := range []*StrandedTopic{t, &out.Total} {
			sum.Partitions++
			sum.Offsets += one.Offsets()
			sum.Tally = sum.Plus(one.Tally)
			sum.Bytes += one.Bytes
			if one.Gone != "" && len(sum.Gone) < 5 {
				sum.Gone = append(sum.Gone, one.Name()+": "+one.Gone)
			}
		}
		if one.Gone == "" && one.Treatment.Copies() && one.Next < one.To {
			out.Open++
		}
	}
	for _, n := range names {
		out.Topics = append(out.Topics, *by[n])
	}
	slices.SortStableFunc(out.Topics, func(a, b StrandedTopic) int { return cmp.Compare(b.Offsets, a.Offsets) })
	out.Topics = out.Topics[:min(len(out.Topics), topicsShown)]
	t := out.Total
	out.Text = fmt.Sprintf("%d offsets were stranded: %d recovered, %d superseded, %d expired, %d aborted, %d without a record, %d refused, %d left",
		t.Offsets, t.Recovered, t.Superseded, t.Expired, t.Aborted, t.Blank, t.Refused, t.Left)
}

// accounts reads what Account stored, for the report; none where the run did not come that far.
func (r records) accounts(ctx context.Context, tail, run string) ([]Accounted, error) {
	list, err := getList[Accounted](ctx, r.to, accountKey(tail, run))
	if errors.Is(err, fault.ErrNotFound) {
		return nil, nil
	}
	return list, err
}

// row is the account as the report tells it.
func (one Accounted) row() report.LaggedPartition {
	p := report.LaggedPartition{
		Topic: one.Topic, Partition: one.Partition.Partition, Treatment: string(one.Treatment), From: one.From, To: one.To, Next: one.Next,
		Became: report.Became(one.Tally), Bytes: one.Bytes, FirstCopy: report.Offset(one.FirstCopy), LastCopy: report.Offset(one.LastCopy), Run: one.Run,
	}
	if one.Into.Topic != "" {
		p.Into = one.Into.Name()
	}
	if one.Gone != "" {
		p.Why = append(p.Why, one.Gone)
	}
	for _, o := range one.Refusals {
		p.Why = append(p.Why, "offset "+o.Name+": "+o.Reason)
	}
	return p
}
