package activities

import (
	"context"
	"errors"
	"fmt"
	"time"

	"switchback/internal/fault"
	"switchback/replication"
)

// A recovery goes by the newest marks of the cluster that was left. What an older switch stranded, from whatever cluster, and nobody
// has brought back or given up exists nowhere else all the same: it is named, so that it is not forgotten in silence (I4).

// OlderTail is what an earlier switch stranded and nobody has accounted for.
type OlderTail struct {
	Tail  string    `json:"tail"` // <id of its cluster>/<run that kept its marks>
	From  string    `json:"from"` // its cluster's name, or its id where the name is not known
	Run   string    `json:"run"`
	Epoch int64     `json:"epoch"` // of that switch
	Seen  time.Time `json:"seen"`
	Left  int64     `json:"left"` // offsets that are known to be left
	Open  bool      `json:"open"` // there may be more: nobody has read the end behind a fence
	// Where are partitions and the offsets that are left of them, at most a few.
	Where []string `json:"where,omitempty"`
}

func (o OlderTail) String() string {
	s := fmt.Sprintf("an older tail, of run %s, which left %s at epoch %d, still has %s left", o.Run, o.From, o.Epoch, manyOffsets(o.Left, o.Open))
	if len(o.Where) > 0 {
		s += ": " + firstFew(o.Where)
	}
	return s
}

// older names them. newest are the sets of this way: the first of them is what is recovered now.
func (p *recoveryPlan) older(ctx context.Context, newest []markSet) error {
	sets, err := markSetsWhere(ctx, p.records.to, func(m replication.Mark) bool { return p.in.Topics.Match(m.Topic) })
	if err != nil {
		return err
	}
	for _, set := range sets {
		if len(newest) > 0 && set.Run == newest[0].Run {
			continue
		}
		one, err := p.leftOver(ctx, set)
		if err != nil {
			return err
		}
		if one.Left == 0 && !one.Open {
			continue
		}
		p.out.Older = append(p.out.Older, one)
		p.add("older tail", LevelWarning, one.String(),
			"it exists nowhere else, unless its topics were cut or deleted since, and no recovery handles it: read it there with a consumer of your own, or let its owners know that it is lost")
	}
	p.out.Older = p.out.Older[:min(len(p.out.Older), strandedShown)]
	return nil
}

// leftOver is what a mark set still has that nobody has accounted for: by its last account, or else by its marks.
func (p *recoveryPlan) leftOver(ctx context.Context, set markSet) (OlderTail, error) {
	first := set.Marks[0]
	o := OlderTail{Tail: set.tail(), From: first.From, Run: set.Run, Epoch: set.Epoch, Seen: set.Seen}
	if o.From == "" {
		o.From = first.SourceCluster
	}
	var done keptDone
	switch err := p.records.get(ctx, recoveredKey(o.Tail), &done); {
	case err == nil:
		return o, nil
	case !errors.Is(err, fault.ErrNotFound):
		return o, err
	}
	accounts, err := p.accountedFor(ctx, o.Tail)
	if err != nil {
		return o, err
	}
	if accounts == nil {
		for _, m := range set.Marks {
			o.byMark(m)
		}
		return o, nil
	}
	for _, a := range accounts {
		if n := a.Tally.Left + a.Tally.Refused; n > 0 {
			o.add(a.Partition, a.From, a.To, n)
		}
	}
	return o, nil
}

// accountedFor is how far the last recovery of a mark set came; nil where there was none.
func (p *recoveryPlan) accountedFor(ctx context.Context, tail string) ([]Accounted, error) {
	_, list, err := p.kept(ctx, tail)
	if errors.Is(err, fault.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	done, err := p.progress(ctx, tail)
	if err != nil {
		return nil, err
	}
	return accountsOf(list, done)
}

// byMark counts one partition that nobody has looked at since.
func (o *OlderTail) byMark(m replication.Mark) {
	end := max(m.SourceEnd, m.SourceSeen)
	if m.SourceEnd == replication.Unknown || m.Boundary == replication.Unknown {
		o.Open = true
	}
	if m.Boundary != replication.Unknown && end > m.Boundary {
		o.add(m.Partition, m.Boundary, end, end-m.Boundary)
	}
}

func (o *OlderTail) add(at replication.Partition, from, to, n int64) {
	o.Left += n
	if len(o.Where) < 20 {
		o.Where = append(o.Where, fmt.Sprintf("%s, offsets %d to %d", at.Name(), from, to))
	}
}
