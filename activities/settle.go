package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"switchback/internal/fault"
	"switchback/internal/killpoint"
	"switchback/replication"
)

// Settle waits, after the mirrors have stopped, until nothing that they brought holds the last stable offset of the target
// back: a transaction that was open on the source stays open here for ever, and every read_committed consumer stands still
// before it (P19). It is named and ended: by its transactional id where this cluster's coordinator knows it, as it does a
// MirrorMaker 2 task's own, and else by writing the marker. Transactions of clients that work here already are left alone.
// Copies that ACL sync had made of the runbook's fence would stand in the clients' way as well, and are removed (P34).
func (a *Logs) Settle(ctx context.Context, in WaitInput) (out QuiesceResult, err error) {
	ctx, out.Acted = begin(ctx)
	in.Route.SourceLost = true
	r, scope, err := a.scoped(ctx, in.Guard, in.Route)
	if err != nil {
		return out, err
	}
	defer r.close()
	limit, err := stopEnds(ctx, r, in.Guard.Run.ID(), scope.TopicNames())
	if err != nil {
		return out, err
	}
	copied, err := a.dropCopies(ctx, r, in.Guard)
	if err != nil {
		return out, err
	}
	ended := map[string]bool{}
	err = until(ctx, in.Deadline, lookEvery, func(ctx context.Context) (bool, string, error) {
		now, err := r.to.Ends(ctx, scope.TopicNames())
		if err != nil {
			return false, "", wrap("read the ends of "+in.Route.To.Name, err)
		}
		out.Looks++
		out.Partitions = len(now)
		held := replication.Held(limit, now)
		if len(held) == 0 {
			return true, "", nil
		}
		killpoint.Reach("Settle/middle")
		var names []string
		wctx, err := a.again(ctx, in.Guard)
		if err == nil {
			names, err = endBrought(wctx, r, held, limit)
		}
		for _, n := range names {
			ended[n] = true
		}
		return false, fmt.Sprintf("%d partitions of %s to be readable with read_committed, such as %s from offset %d (%s)",
			len(held), in.Route.To.Name, held[0].Name(), held[0].LastStable, orNobody(names)), err
	})
	for name := range ended {
		out.EndedTransactions = append(out.EndedTransactions, name)
	}
	slices.Sort(out.EndedTransactions)
	if err != nil {
		return out, err
	}
	out.Changed = len(ended) > 0 || copied > 0
	out.Text = fmt.Sprintf("%d partitions of %s: the last stable offset has passed all that was mirrored", out.Partitions, in.Route.To.Name)
	if len(ended) > 0 {
		out.Text += "; ended open transactions: " + firstFew(out.EndedTransactions)
	}
	if copied > 0 {
		out.Text += fmt.Sprintf("; removed %d copies of the fence that ACL sync had made", copied)
	}
	return out, nil
}

func orNobody(names []string) string {
	if len(names) == 0 {
		return "Kafka names no open transaction"
	}
	return strings.Join(names[:min(len(names), 5)], ", ")
}

// stopEnds are the target's ends at the stop, from the marks; as they are now while there are none, because then nobody
// has been sent there yet.
func stopEnds(ctx context.Context, r *route, run string, topics []string) ([]replication.Ends, error) {
	marks, err := marksOf(ctx, r.records.to, run)
	if err != nil {
		return nil, err
	}
	if len(marks) == 0 {
		now, err := r.to.Ends(ctx, topics)
		return now, wrap("read the ends of "+r.names.To.Name, err)
	}
	ends := make([]replication.Ends, len(marks))
	for i, m := range marks {
		ends[i] = replication.Ends{Partition: m.Partition, HighWatermark: m.TargetEnd}
	}
	return ends, nil
}

// endBrought ends the open transactions that began before the stop, and names them. What is not its business is anybody's
// who began after it.
func endBrought(ctx context.Context, r *route, held, limit []replication.Ends) (names []string, err error) {
	stop := make(map[replication.Partition]int64, len(limit))
	for _, e := range limit {
		stop[e.Partition] = e.HighWatermark
	}
	at := make([]replication.Partition, len(held))
	for i, e := range held {
		at[i] = e.Partition
	}
	writers, err := r.to.Writers(ctx, at)
	if _, some := errors.AsType[*replication.Partial](err); err != nil && (!some || len(writers) == 0) {
		return nil, wrap("find open transactions on "+r.names.To.Name, err)
	}
	var ids []string
	var foreign []replication.Writer
	for _, w := range writers {
		if w.TxnStartOffset == replication.Unknown || w.TxnStartOffset >= stop[w.Partition] {
			continue
		}
		// Mirrors that copy bytes bring the source's producer ids: the same number here is somebody else's.
		if w.TransactionalID != "" && !r.link.StopIsFinal() {
			names = append(names, fmt.Sprintf("transactional id %s on %s, open since offset %d", w.TransactionalID, w.Name(), w.TxnStartOffset))
			if !slices.Contains(ids, w.TransactionalID) {
				ids = append(ids, w.TransactionalID)
			}
			continue
		}
		foreign = append(foreign, w)
		names = append(names, fmt.Sprintf("producer id %d on %s, open since offset %d", w.ProducerID, w.Name(), w.TxnStartOffset))
	}
	wctx, cancel, err := writing(ctx)
	if err != nil {
		return names, err
	}
	defer cancel()
	if len(ids) > 0 {
		err = r.to.EndTransactions(wctx, ids)
	}
	if len(foreign) > 0 {
		err = errors.Join(err, r.to.AbortTransactions(wctx, foreign))
	}
	if errors.Is(err, fault.ErrDenied) {
		err = fault.Hint(err, "grant Switchback ALTER on the cluster %s: it ends a transaction that a mirror brought along", r.names.To.Name)
	}
	return names, wrap("end open transactions on "+r.names.To.Name, err)
}
