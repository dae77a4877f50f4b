package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"switchback/internal/killpoint"
	"switchback/replication"
)

// Logs reads the ends of logs on both clusters.
type Logs struct{ Outside }

// WaitInput is for waits on a route.
type WaitInput struct {
	Guard    Guard     `json:"guard"`
	Route    Route     `json:"route"`
	Deadline time.Time `json:"deadline"`
	// SealProven says that the mirror's principals were seen to obey ACLs, so that a seal needs no stop to be trusted (P10).
	SealProven bool `json:"sealProven,omitempty"`
}

// QuiesceResult is the proof, in counts.
type QuiesceResult struct {
	Acted
	Partitions        int      `json:"partitions"`
	Looks             int      `json:"looks"`
	EndedTransactions []string `json:"endedTransactions,omitempty"`
	Text              string   `json:"text"`
}

// lookEvery is the pause between two looks at the ends of a fenced cluster. A batch that waits for a slow follower
// shows in LEO at once, so the pause only has to outlast one request that was in flight.
const lookEvery = 50 * time.Millisecond

// Quiesce waits until LEO = HW = LSO for every partition of the source, twice, with no transaction open (P7, P9). At
// the deadline TypeStillWriting names who writes as well as Kafka allows.
func (a *Logs) Quiesce(ctx context.Context, in WaitInput) (out QuiesceResult, err error) {
	ctx, out.Acted = begin(ctx)
	r, scope, err := a.scoped(ctx, in.Guard, in.Route)
	if err != nil {
		return out, err
	}
	defer r.close()
	var unsettled []replication.Outcome
	var last []replication.Ends
	err = until(ctx, in.Deadline, lookEvery, func(ctx context.Context) (bool, string, error) {
		now, err := r.from.Ends(ctx, scope.TopicNames())
		if err != nil {
			return false, "", wrap("read the ends of "+in.Route.From.Name, err)
		}
		out.Looks++
		before := last
		last = now
		if before == nil {
			return false, "a second look", nil
		}
		var text string
		verdict := replication.Quiescent(before, now)
		out.Partitions = verdict.Partitions
		if verdict.Quiet() {
			unsettled = nil
			return true, "", nil
		}
		unsettled, text = notOK(verdict.Not)
		killpoint.Reach("Quiesce/middle")
		var ended []string
		if held := open(now); len(held) > 0 { // whoever may not end it says so for as long as there is time, and not for as long as an attempt may write
			var wctx context.Context
			if wctx, err = a.again(ctx, in.Guard); err == nil {
				ended, err = a.endTransactions(wctx, r.from, held)
			}
		}
		for _, id := range ended {
			if !slices.Contains(out.EndedTransactions, id) {
				out.EndedTransactions = append(out.EndedTransactions, id)
			}
		}
		return false, text, err
	})
	// Only what moves is a writer: an offset that could not be read is a broker's trouble.
	if unsettled = only(unsettled, replication.Pending); errors.Is(err, errTimeUp) && len(unsettled) > 0 {
		return out, fmt.Errorf("%w; %s goes on behind the fence: %w", err, namesOf(ctx, r.from, unsettled, last), errStillWriting)
	}
	if err != nil {
		return out, err
	}
	killpoint.Reach("Quiesce/middle")
	out.Text = fmt.Sprintf("%d partitions of %s: log end = high watermark = last stable offset, in %d looks", out.Partitions, in.Route.From.Name, out.Looks)
	if len(out.EndedTransactions) > 0 {
		out.Text += "; ended open transactions of " + strings.Join(out.EndedTransactions, ", ")
	}
	return out, nil
}

// open are the partitions in which a transaction is.
func open(ends []replication.Ends) (held []replication.Partition) {
	for _, e := range ends {
		if e.LastStable != replication.Unknown && e.LastStable < e.HighWatermark {
			held = append(held, e.Partition)
		}
	}
	return held
}

// endTransactions ends the open transactions of clients that are stopped: their last stable offset lies below the high
// watermark and would never move again (P9).
func (a *Logs) endTransactions(ctx context.Context, from Kafka, held []replication.Partition) ([]string, error) {
	if len(held) == 0 {
		return nil, nil
	}
	writers, err := from.Writers(ctx, held)
	if err != nil {
		return nil, wrap("find open transactions", err)
	}
	var ids []string
	for _, w := range writers {
		if w.TxnStartOffset != replication.Unknown && w.TransactionalID != "" && !slices.Contains(ids, w.TransactionalID) {
			ids = append(ids, w.TransactionalID)
		}
	}
	if len(ids) == 0 {
		return nil, nil
	}
	wctx, cancel, err := writing(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	if err := from.EndTransactions(wctx, ids); err != nil {
		return nil, wrap("end open transactions of "+strings.Join(ids, ", "), err)
	}
	return ids, nil
}

// namesAfter is the pause between two looks at the producers that leaders remember.
const namesAfter = 200 * time.Millisecond

// namesOf names the writers on partitions that do not settle, as well as Kafka allows: transactional ids and producer
// ids. A non-idempotent producer leaves no trace but its records.
func namesOf(ctx context.Context, from Kafka, unsettled []replication.Outcome, ends []replication.Ends) string {
	var partitions []replication.Partition
	for _, e := range ends {
		if slices.ContainsFunc(unsettled, func(o replication.Outcome) bool { return o.Name == e.Name() }) {
			partitions = append(partitions, e.Partition)
		}
	}
	partitions = partitions[:min(len(partitions), 20)]
	before, err := from.Writers(ctx, partitions)
	if err != nil || len(before) == 0 {
		return "a writer that Kafka cannot name"
	}
	select { // leaders remember producers for a day: those at work are the ones that move between two looks
	case <-time.After(namesAfter):
	case <-ctx.Done():
	}
	writers, err := from.Writers(ctx, partitions)
	if at := replication.Writing(before, writers); err == nil && len(at) > 0 {
		writers = at
	} else {
		writers = before
	}
	slices.SortFunc(writers, func(a, b replication.Writer) int { return b.LastTimestamp.Compare(a.LastTimestamp) })
	var names []string
	for _, w := range writers[:min(len(writers), 5)] {
		names = append(names, w.Last())
	}
	return strings.Join(names, ", ")
}
