package activities

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"switchback/internal/fault"
	"switchback/internal/killpoint"
	"switchback/replication"
)

// WhenReachable is one attempt at the cluster that a workload left without being able to fence it. It changes nothing
// while that cluster is away, and listens for it as long as it was told. When it answers it is fenced before anything else, on every broker, its groups are closed,
// its stranded tail is kept from expiring, the run's records are copied to it, and only then is the loss counted, and who
// wrote there after the switch (P13, P20, P23, P38). What is not done yet is in Waiting; the next attempt goes on. TypeStale
// when the workload is on that cluster again: then nothing of it is wanted any more.
func (a *Fences) WhenReachable(ctx context.Context, in FenceWhenInput) (out FenceWhenResult, err error) {
	ctx, out.Acted = begin(ctx)
	out.Since, out.At = replication.Unknown, time.Now().UTC()
	out.Loss = replication.Loss{AtMost: replication.Unknown, Estimate: replication.Unknown, Bytes: replication.Unknown, Seconds: -1, Why: "not counted yet"}
	if err := a.listen(ctx, in.Route.From, in.Listen); err != nil {
		return out, err
	}
	since := time.Now()
	if err := a.givenUp(ctx, in); err != nil {
		return out, err
	}
	ctx = writesFrom(ctx, since)
	in.Route.SourceLost = true
	r, err := a.openAgain(ctx, in.Route, true)
	if err != nil {
		return out, err
	}
	defer r.close()
	if why, yes := gone(r.from); yes {
		out.Waiting = fmt.Sprintf("%s to answer: %v", in.Route.From.Name, why)
		out.Text = "not fenced yet: waiting for " + out.Waiting
		return out, nil
	}
	killpoint.Reach("WhenReachable/answered")
	if f, yes := r.from.(faint); yes {
		r.from = f.Kafka // it is what this is about: it gets the time that it takes
	}
	o := &old{Outside: a.Outside, in: in, r: r, out: &out}
	err = o.all(ctx)
	if errors.Is(err, fault.ErrStale) {
		return out, errors.Join(err, o.undo(ctx))
	}
	if err != nil {
		return out, err
	}
	if out.Waiting = strings.Join(o.waiting, "; "); out.Waiting != "" {
		out.Text = "not done yet: waiting for " + out.Waiting
		return out, nil
	}
	out.Done = true
	out.Text = fmt.Sprintf("%s is fenced on every broker; lost: %s (%s)", in.Route.From.Name, out.Loss, out.Loss.Why)
	o.tellGone()
	if len(out.Wrote) > 0 || out.Since > 0 {
		out.Text += fmt.Sprintf("; after the switch %s wrote there", firstFew(out.Wrote))
	}
	return out, nil
}

// listenEvery is how often a cluster that is away is asked whether it is back.
const listenEvery = 2 * time.Second

// listen waits until a cluster that is away answers, and no longer than this: the sooner a cluster that returns is fenced, the
// less is written there.
func (o Outside) listen(ctx context.Context, site Site, within time.Duration) error {
	err := until(ctx, time.Now().Add(within), listenEvery, func(ctx context.Context) (bool, string, error) {
		on := o.openLost(ctx, site, true)
		defer on.Close()
		why, away := gone(on)
		return !away, fmt.Sprintf("%s to answer: %v", site.Name, why), nil
	})
	if errors.Is(err, errTimeUp) {
		return nil
	}
	return err
}

// givenUp fails with fault.ErrStale once a later switch has made the cluster the workload's again (P13).
func (o Outside) givenUp(ctx context.Context, in FenceWhenInput) error {
	state, err := readEntry(ctx, o.Consuls, in.Guard.Discovery)
	switch {
	case err != nil:
		return err
	case state.Epoch == replication.Unknown:
		return fmt.Errorf("the required discovery entry has no readable epoch: %w", fault.ErrConflict)
	case state.Epoch > in.Guard.Epoch && state.Cluster == in.Route.From.Name:
		return fmt.Errorf("the workload is on %s again, at epoch %d (switched by %s): it is not to be fenced any more: %w",
			state.Cluster, state.Epoch, state.SwitchedBy, fault.ErrStale)
	}
	return nil
}

// old is the cluster that was left, and one attempt at it.
type old struct {
	Outside
	in      FenceWhenInput
	r       *route
	out     *FenceWhenResult
	topics  []string
	gone    map[string]string // marked topics that are not there any more, and why
	made    []replication.ACL // by this attempt
	waiting []string
}

func (o *old) wait(format string, args ...any) {
	o.waiting = append(o.waiting, fmt.Sprintf(format, args...))
}

// all is the page. Nothing is counted before the fence is whole.
func (o *old) all(ctx context.Context) error {
	if err := o.fence(ctx); err != nil || len(o.waiting) > 0 {
		return err
	}
	if err := o.missed(ctx); err != nil || len(o.waiting) > 0 {
		return err
	}
	ctx, err := o.wanted(ctx)
	if err != nil {
		return err
	}
	killpoint.Reach("WhenReachable/fenced")
	if err := o.closeGroups(ctx); err != nil {
		return err
	}
	if err := o.keepTail(ctx); err != nil {
		return err
	}
	killpoint.Reach("WhenReachable/kept")
	if err := o.copyRecords(ctx); err != nil {
		return err
	}
	if !o.quiet(ctx) {
		return nil
	}
	if err := o.count(ctx); err != nil {
		return err
	}
	o.who(ctx)
	return o.givenUp(ctx, o.in)
}

// fence denies WRITE on all topics of the runbook that are there, also those that appeared, and asks every broker. One
// that is down knows of no fence yet, and is waited for.
func (o *old) fence(ctx context.Context) error {
	from := o.in.Route.From.Name
	if err := aclSyncIsOff(ctx, o.r); errors.Is(err, fault.ErrConflict) {
		o.wait("ACL sync to be turned off, because it would copy the fence to %s: %v", o.in.Route.To.Name, err)
		return nil
	}
	there, err := o.r.from.Topics(ctx, o.in.Topics.Match)
	if err != nil {
		o.wait("the topics of %s: %v", from, err)
		return nil
	}
	o.topics = Scope{Topics: there}.TopicNames()
	if scope, err := o.r.records.scope(ctx, o.in.Guard.Run.ID()); err == nil {
		o.topics = append(o.topics, scope.TopicNames()...)
		slices.Sort(o.topics)
		o.topics = slices.Compact(o.topics)
	}
	if err := o.deny(ctx, replication.TopicFence(o.topics)); err != nil {
		return err
	}
	if away := down(there); len(away) > 0 {
		o.wait("brokers %v of %s, which hold replicas of the topics and are down", away, from)
	}
	return nil
}

// deny makes ACLs and asks every broker. What cannot be made or read back now is waited for.
func (o *old) deny(ctx context.Context, acls []replication.ACL) error {
	from := o.in.Route.From.Name
	if len(acls) == 0 {
		return nil
	}
	stand, err := o.r.from.ACLs(ctx)
	if err != nil {
		o.wait("the ACLs of %s: %v", from, err)
		return nil
	}
	wctx, cancel, err := writing(ctx)
	if err != nil {
		return err
	}
	defer cancel()
	if missing := replication.Missing(acls, stand); len(missing) > 0 {
		if err := own(wctx, o.r.records, o.r.from, o.in.Guard.Run, from, acls); err != nil {
			return err
		}
		o.made, o.out.Changed = append(o.made, missing...), true
	}
	var text string
	err = until(ctx, time.Now().Add(reachTime), readBackEvery, func(ctx context.Context) (bool, string, error) {
		outcomes, err := o.r.from.ACLsOnEveryBroker(ctx, acls, true)
		_, text = notOK(outcomes)
		return err == nil && text == "" && len(outcomes) > 0, text, err
	})
	if err != nil {
		o.wait("every broker of %s to say that it is fenced: %s", from, orErr(text, err))
	}
	return nil
}

func orErr(text string, err error) string {
	if text == "" {
		return err.Error()
	}
	return text
}

// undo takes back what this attempt made: the cluster became the workload's own while it was fenced.
func (o *old) undo(ctx context.Context) error {
	if len(o.made) == 0 {
		return nil
	}
	in := FenceInput{Guard: o.in.Guard, Route: o.in.Route}
	return wrap("lift the fence that came too late", lift(afresh(ctx), o.r.records, o.r.from, in, o.in.Route.From.Name, &FenceResult{}))
}

// closeGroups denies READ on the groups (P8): whoever reads on there would read again what the new cluster gives them.
func (o *old) closeGroups(ctx context.Context) error {
	groups, err := o.r.from.Groups(ctx, o.in.Groups.Match)
	if err != nil {
		o.wait("the groups of %s: %v", o.in.Route.From.Name, err)
		return nil
	}
	return o.deny(ctx, replication.GroupFence(groupNames(groups)))
}

// copyRecords copies what the run and the runbook keep on the new cluster, so that the way back finds it here (P20).
func (o *old) copyRecords(ctx context.Context) error {
	all, err := o.r.to.Records(MarksTopic).Load(ctx, "")
	if err != nil {
		return wrap("read the records of "+o.in.Route.To.Name, err)
	}
	run, book := "/"+o.in.Guard.Run.ID(), o.in.Guard.Run.Runbook+"/"
	maps.DeleteFunc(all, func(key string, _ []byte) bool {
		kept := strings.HasPrefix(key, "acls/"+book) || strings.HasPrefix(key, "retention/"+book) ||
			strings.Contains(key+"/", run+"/")
		return !kept
	})
	here, err := o.r.from.Records(MarksTopic).Load(ctx, "")
	if errors.Is(err, fault.ErrNotFound) { // it came back without it
		err = furnished(ctx, o.r.from, o.in.Route.From.Name, MarksTopic)
	}
	if err != nil {
		o.wait("%s on %s: %v", MarksTopic, o.in.Route.From.Name, err)
		return nil
	}
	maps.DeleteFunc(all, func(key string, value []byte) bool { return string(here[key]) == string(value) })
	if len(all) == 0 {
		return nil
	}
	if err := o.r.from.Records(MarksTopic).Put(ctx, all); err != nil {
		o.wait("%s on %s to take the run's records: %v", MarksTopic, o.in.Route.From.Name, err)
		return nil
	}
	o.out.Changed = true
	return nil
}

// quietTime is how long one attempt looks for a quiet moment behind the fence.
const quietTime = 5 * time.Second

// quiet proves that nothing is written any more (P7), and ends transactions that fenced clients left open (P9).
func (o *old) quiet(ctx context.Context) bool {
	if len(o.present()) == 0 {
		return true
	}
	logs := &Logs{o.Outside}
	var last []replication.Ends
	err := until(ctx, time.Now().Add(quietTime), lookEvery, func(ctx context.Context) (bool, string, error) {
		now, err := o.r.from.Ends(ctx, o.present())
		if err != nil {
			return false, "", err
		}
		before := last
		if last = now; before == nil {
			return false, "a second look", nil
		}
		verdict := replication.Quiescent(before, now)
		if verdict.Quiet() {
			return true, "", nil
		}
		_, text := notOK(verdict.Not)
		wctx, err := o.wanted(ctx)
		if err == nil {
			_, err = logs.endTransactions(wctx, o.r.from, open(now))
		}
		return false, text, err
	})
	if err != nil {
		o.wait("%s to be quiet behind its fence: %v", o.in.Route.From.Name, err)
	}
	return err == nil
}

// wanted looks again whether the workload is still elsewhere, and gives what is written for that answer a time of its own. It
// counts from before the look: a worker that stands still between the two has no time left when it goes on, so that whoever ends
// this waiting outlives each of its writes by waiting WriteDeadline, however long the attempt took (P35).
func (o *old) wanted(ctx context.Context) (context.Context, error) {
	since := time.Now()
	if err := o.givenUp(ctx, o.in); err != nil {
		return nil, err
	}
	return writesFrom(ctx, since), nil
}

// count closes the number: the source's ends are final now, and the marks say what the target had.
func (o *old) count(ctx context.Context) error {
	marks, err := marksOf(ctx, o.r.records.to, o.in.Guard.Run.ID())
	if err != nil {
		return err
	}
	if marks, err = o.bounds(ctx, marks); err != nil {
		return err
	}
	e, err := gather(ctx, o.r, o.in.Guard.Run.Runbook, o.topics, unhurried)
	if err != nil {
		return err
	}
	if !e.fenced {
		o.wait("every broker of %s to say again that it is fenced", o.in.Route.From.Name)
		return nil
	}
	e.marked(marks)
	o.giveUp(e.known)
	if err := o.keepEnds(ctx, marks, e.known); err != nil {
		return err
	}
	o.out.Loss, o.out.Losses = e.loss(o.in.Switched)
	o.since(ctx, e)
	return nil
}

// since counts what came after the switch, by the records' own times.
func (o *old) since(ctx context.Context, e evidence) {
	if o.in.Switched.IsZero() {
		return
	}
	first, err := o.r.from.OffsetsAt(ctx, o.present(), o.in.Switched)
	if err != nil {
		return // unknown
	}
	var n int64
	for _, k := range e.known {
		if at, ok := first[k.Partition]; ok && k.End > at {
			n += k.End - max(at, min(k.Held, k.End))
		}
	}
	o.out.Since = n
}

// who names who wrote after the switch, as well as Kafka can: leaders remember producers for a day (P23).
func (o *old) who(ctx context.Context) {
	if o.in.Switched.IsZero() {
		return
	}
	ends, _ := o.r.from.Ends(ctx, o.topics)
	var at []replication.Partition
	for _, e := range ends {
		at = append(at, e.Partition)
	}
	writers, _ := o.r.from.Writers(ctx, at) // whom it names it names
	slices.SortFunc(writers, func(a, b replication.Writer) int { return b.LastTimestamp.Compare(a.LastTimestamp) })
	for _, w := range writers {
		if !w.LastTimestamp.After(o.in.Switched) {
			continue
		}
		o.out.Wrote = append(o.out.Wrote, w.Last())
	}
	if len(o.out.Wrote) == 0 && o.out.Since > 0 {
		o.out.Wrote = []string{"a producer that Kafka cannot name"}
	}
	o.out.Wrote = o.out.Wrote[:min(len(o.out.Wrote), lossesShown)]
}
