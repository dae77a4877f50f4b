package linkservice

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
)

// transitionLoop moves this half's mirrors through their pending states.
func (r *runner) transitionLoop() {
	for r.ctx.Err() == nil {
		rest := 250 * time.Millisecond
		if r.advance(r.ctx) {
			rest = 20 * time.Millisecond
		}
		select {
		case <-r.ctx.Done():
		case <-r.wake:
		case <-time.After(rest):
		}
	}
}

// due lists the mirrors in a pending state whose time has come; s.mu is held.
func (r *runner) due(status string, action ...string) (topics []string) {
	now := time.Now().UnixMilli()
	for t, m := range r.l.Mirrors {
		if m.Status == status && !m.Hold && m.UntilMs <= now && (len(action) == 0 || slices.Contains(action, m.Action)) && !r.s.faults.stuck(t) {
			topics = append(topics, t)
		}
	}
	slices.Sort(topics)
	return topics
}

// advance does what can be done now, and says whether some mirror is still on its way.
func (r *runner) advance(ctx context.Context) (pending bool) {
	r.s.mu.Lock()
	for _, m := range r.l.Mirrors {
		if m.Status == pendingMirror && !m.Hold && !slices.Contains(m.Fetched, -1) {
			m.enter(active)
			r.s.dirty = true
		}
		pending = pending || m.Action != "" || m.Status == pendingMirror
	}
	promote, failover := r.due(pendingStop, "promote"), r.due(pendingStop, "failover")
	reverse, setup, restore := r.due(pendingSync), r.due(pendingSetup), r.due(pendingFill)
	r.s.mu.Unlock()
	if len(promote) > 0 {
		if ready := r.drained(ctx, promote); len(ready) > 0 {
			if r.config("consumer.offset.sync.enable") == "true" {
				r.syncOffsetsNow(ctx, ready)
			}
			r.report(r.stopMirrors(ctx, ready))
		}
	}
	if len(failover) > 0 {
		r.report(r.stopMirrors(ctx, failover))
	}
	if len(reverse) > 0 {
		if ready := r.drained(ctx, reverse); len(ready) > 0 {
			r.report(r.swap(ctx, ready))
		}
	}
	r.report(r.completeReversals(ctx))
	for _, t := range setup {
		r.report(r.setupRestore(ctx, t))
	}
	if len(restore) > 0 {
		if ready := r.drained(ctx, restore); len(ready) > 0 {
			r.report(r.finishRestore(ctx, ready))
		}
	}
	return pending
}

func (r *runner) report(err error) {
	if err != nil && r.ctx.Err() == nil {
		r.s.log.Warn("transition waits", "link", r.l.Name, "error", err)
	}
}

// drained returns those topics of which the target has everything, by the end offsets of both sides.
func (r *runner) drained(ctx context.Context, topics []string) (ready []string) {
	ctx, cancel := context.WithTimeout(ctx, millis(r.s.cfg.Timings.RequestMillis))
	defer cancel()
	r.s.mu.Lock()
	sources := map[string]string{}
	for _, t := range topics {
		if m := r.l.Mirrors[t]; m != nil {
			sources[t] = m.Source
		}
	}
	r.s.mu.Unlock()
	remote, err := r.remote()
	if err != nil {
		return nil
	}
	var names []string
	for _, s := range sources {
		names = append(names, s)
	}
	there, err := remote.ListEndOffsets(ctx, names...)
	if err != nil {
		return nil
	}
	here, err := kadm.NewClient(r.target().client).ListEndOffsets(ctx, topics...)
	if err != nil {
		return nil
	}
	for t, source := range sources {
		done := len(there[source]) > 0
		for p, end := range there[source] {
			mine, ok := here.Lookup(t, p)
			done = done && ok && end.Err == nil && mine.Err == nil && mine.Offset >= end.Offset
		}
		if done {
			ready = append(ready, t)
		}
	}
	slices.Sort(ready)
	return ready
}

// stopMirrors makes mirrors normal writable topics. No write of the engine is under way meanwhile, and none comes later:
// the cluster refuses it. Topics are writable before they are said to be STOPPED.
func (r *runner) stopMirrors(ctx context.Context, topics []string) error {
	r.producing.Lock()
	defer r.producing.Unlock()
	ends, err := r.targetEnds(ctx, topics)
	if err != nil {
		return err
	}
	if err := r.clampGroups(ctx, topics, ends); err != nil {
		return err
	}
	r.s.mu.Lock()
	for _, t := range topics {
		if m := r.l.Mirrors[t]; m != nil {
			m.released = true
		}
	}
	r.s.mu.Unlock()
	if err := r.s.pushReadOnly(ctx, r.l.Cluster); err != nil {
		return err
	}
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	for _, t := range topics {
		m := r.l.Mirrors[t]
		if m == nil {
			continue
		}
		for p := range m.Partitions {
			end, _ := ends.Lookup(t, p)
			m.Fetched[p] = end.Offset
			if m.Action == "promote" {
				m.Lags[p] = 0
			}
		}
		m.enter(stopped)
		m.Action, m.released, m.Errors = "", false, nil
	}
	return r.s.save()
}

func (r *runner) targetEnds(ctx context.Context, topics []string) (kadm.ListedOffsets, error) {
	ctx, cancel := context.WithTimeout(ctx, millis(r.s.cfg.Timings.RequestMillis))
	defer cancel()
	ends, err := kadm.NewClient(r.target().client).ListEndOffsets(ctx, topics...)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		return nil, fmt.Errorf("read end offsets of the target: %w", err)
	}
	return ends, nil
}
