package linkservice

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// acceptReverse starts the planned swap of a mirror's direction: the source becomes read-only now, the rest is done when
// the mirror has everything.
func (r *runner) acceptReverse(ctx context.Context, action string, a *altered, validateOnly bool) *apiError {
	if err := r.reach(ctx); err != nil {
		return &apiError{400, 40002, "Both clusters must be healthy to reverse a mirror: " + err.Error()}
	}
	r.s.mu.Lock()
	m, other := r.l.Mirrors[a.Topic], r.s.other(r.l)
	switch {
	case m == nil:
		r.s.mu.Unlock()
		return noMirror(a.Topic, r.l.Name)
	case r.l.Configs["link.mode"] != "BIDIRECTIONAL" || other == nil:
		r.s.mu.Unlock()
		return bad("Cluster link '%s' is not bidirectional with both halves in place.", r.l.Name)
	case m.Status != active:
		status := r.s.shown(r.l, m)
		r.s.mu.Unlock()
		return bad("Topic '%s' is in state %s, which does not allow %s.", a.Topic, status, action)
	}
	a.Lags = m.lags()
	if validateOnly {
		r.s.mu.Unlock()
		return nil
	}
	back := &mirror{Topic: m.Source, Source: m.Topic, Hold: true, Action: action}
	back.resize(m.Partitions)
	back.enter(pendingMirror)
	other.Mirrors[back.Topic] = back
	m.enter(pendingSync)
	m.Action, m.UntilMs = action, time.Now().Add(millis(r.s.cfg.Timings.PendingMillis)).UnixMilli()
	r.s.mu.Unlock()
	if err := r.s.pushReadOnly(ctx, r.l.Remote); err != nil { // keepUp repeats it
		r.s.log.Warn("source not read-only yet", "error", err)
	}
	return nil
}

// swap ends a reversal: this half's topics become writable, the other half mirrors them.
func (r *runner) swap(ctx context.Context, topics []string) error {
	if err := r.s.pushReadOnly(ctx, r.l.Remote); err != nil {
		return err // the old source may still be written to
	}
	if topics = r.drained(ctx, topics); len(topics) == 0 {
		return nil
	}
	if r.config("consumer.offset.sync.enable") == "true" {
		r.syncOffsetsNow(ctx, topics)
	}
	if err := r.stopMirrors(ctx, topics); err != nil {
		return err
	}
	return r.completeReversals(ctx)
}

// completeReversals lets the other half mirror what has been stopped here for it; also what a crash left at that point.
func (r *runner) completeReversals(ctx context.Context) error {
	r.s.mu.Lock()
	other := r.s.other(r.l)
	backs := map[string]*mirror{} // by topic of this half
	for t, m := range r.l.Mirrors {
		if other != nil && m.Status == stopped {
			if back := other.Mirrors[m.Source]; back != nil && back.Hold && back.Action != "" {
				backs[t] = back
			}
		}
	}
	r.s.mu.Unlock()
	if len(backs) == 0 {
		return nil
	}
	here, err := kadm.NewClient(r.target().client).ListTopics(fresh(ctx), sortedKeys(backs)...)
	if err != nil {
		return err
	}
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	for t, back := range backs {
		back.Hold, back.SourceID = false, here[t].ID.String()
		back.Fetched = slices.Clone(r.l.Mirrors[t].Fetched)
		clear(back.Lags)
		if back.Action == "reverse-and-pause-mirror" {
			back.enter(paused)
		} else {
			back.enter(active)
		}
		back.Action = ""
	}
	r.s.runners[other].poke()
	return r.s.save()
}

// acceptRestore is truncate-and-restore, called on the side that was the source: its topic is cut back to where the
// mirror on the other side stopped, and becomes a mirror of it.
func (r *runner) acceptRestore(ctx context.Context, a *altered, validateOnly bool) *apiError {
	r.s.mu.Lock()
	other := r.s.other(r.l)
	var theirs *mirror
	if other != nil {
		for _, m := range other.Mirrors {
			if m.Source == a.Topic {
				theirs = m
			}
		}
	}
	mine := r.l.Mirrors[a.Topic]
	bidirectional := r.l.Configs["link.mode"] == "BIDIRECTIONAL"
	var common []int64
	if theirs != nil {
		common = slices.Clone(theirs.Fetched)
	}
	r.s.mu.Unlock()
	switch {
	case !bidirectional || other == nil:
		return bad("Cluster link '%s' is not bidirectional with both halves in place.", r.l.Name)
	case theirs == nil:
		return noMirror(a.Topic, r.l.Name)
	case theirs.Status != stopped:
		return bad("The mirror of topic '%s' on the other side is not STOPPED.", a.Topic)
	case mine != nil && mine.Status != stopped:
		return bad("Topic '%s' is a mirror already.", a.Topic)
	}
	if err := r.reach(ctx); err != nil {
		return bad("Both clusters must be healthy to restore a mirror: %s", err)
	}
	ends, err := r.targetEnds(ctx, []string{a.Topic})
	if err != nil {
		return &apiError{500, 50003, err.Error()}
	}
	total := int64(0)
	for p, to := range common {
		end, ok := ends.Lookup(a.Topic, int32(p))
		if lost := end.Offset - to; ok && lost > 0 {
			total += lost
			a.Partition = append(a.Partition, truncated{int32(p), to, lost})
		}
		a.Lags = append(a.Lags, lag{int32(p), 0, to})
	}
	a.Truncated = &total
	if group, err := r.activeGroup(ctx, a.Topic); err != nil {
		return &apiError{500, 50003, err.Error()}
	} else if group != "" {
		return bad("Topic '%s' cannot be restored: consumer group '%s' is active on it.", a.Topic, group)
	}
	if validateOnly {
		return nil
	}
	r.s.mu.Lock()
	m := &mirror{Topic: a.Topic, Source: theirs.Topic, Action: "restore", UntilMs: time.Now().Add(millis(r.s.cfg.Timings.PendingMillis)).UnixMilli()}
	m.resize(theirs.Partitions)
	m.enter(pendingSetup)
	r.l.Mirrors[a.Topic] = m
	r.s.mu.Unlock()
	if err := r.s.pushReadOnly(ctx, r.l.Cluster); err != nil {
		r.s.log.Warn("topic not read-only yet", "error", err)
	}
	return nil
}

// activeGroup names a group with members and commits on the topic, "" if there is none.
func (r *runner) activeGroup(ctx context.Context, topic string) (string, error) {
	adm := kadm.NewClient(r.target().client)
	groups, err := adm.DescribeGroups(ctx)
	if err != nil {
		return "", fmt.Errorf("read the groups of the target: %w", err)
	}
	for _, g := range groups.Sorted() {
		if len(g.Members) == 0 {
			continue
		}
		commits, err := adm.FetchOffsets(ctx, g.Group)
		if err != nil {
			return "", fmt.Errorf("read the offsets of %s: %w", g.Group, err)
		}
		assigned := g.AssignedPartitions()
		if len(commits[topic]) > 0 || assigned.Lookup(topic, 0) {
			return g.Group, nil
		}
	}
	return "", nil
}

// setupRestore cuts the topic back. A fake broker cannot cut a tail off, so the topic is made anew and filled from the
// other side, which has the same records below the common point. Each step may have happened before a crash.
func (r *runner) setupRestore(ctx context.Context, topic string) error {
	if err := r.s.pushReadOnly(ctx, r.l.Cluster); err != nil {
		return err
	}
	adm := kadm.NewClient(r.target().client)
	kept, err := r.commits(ctx, adm, topic)
	if err != nil {
		return err
	}
	configs, err := r.dynamicConfigs(ctx, adm, topic)
	if err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition) {
		return err
	}
	remote, err := r.remote()
	if err != nil {
		return err
	}
	r.s.mu.Lock()
	m := r.l.Mirrors[topic]
	if len(kept) > 0 && m.Kept == nil {
		m.Kept = kept // stored before the topic and its commits go
	}
	err = r.s.save()
	r.s.mu.Unlock()
	if err != nil {
		return err
	}
	there, err := remote.ListTopics(fresh(ctx), m.Source)
	if err != nil || there[m.Source].Err != nil {
		return errors.Join(err, there[m.Source].Err)
	}
	if len(configs) == 0 { // a crash came between delete and create
		configs = map[string]*string{}
		if err := r.sourceConfigs(ctx, remote, m.Source, configs); err != nil {
			return err
		}
	}
	if _, err := adm.DeleteTopic(ctx, topic); err != nil && !errors.Is(err, kerr.UnknownTopicOrPartition) {
		return fmt.Errorf("truncate %s: %w", topic, err)
	}
	if _, err := adm.CreateTopic(ctx, int32(len(there[m.Source].Partitions)), -1, configs, topic); err != nil {
		return fmt.Errorf("restore %s: %w", topic, err)
	}
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	m.resize(int32(len(there[m.Source].Partitions)))
	m.SourceID = there[m.Source].ID.String()
	m.enter(pendingFill)
	r.poke()
	return r.s.save()
}

// finishRestore puts back the groups' offsets, as far as the topic goes now.
func (r *runner) finishRestore(ctx context.Context, topics []string) error {
	ends, err := r.targetEnds(ctx, topics)
	if err != nil {
		return err
	}
	for _, t := range topics {
		r.s.mu.Lock()
		m := r.l.Mirrors[t]
		kept := m.Kept
		r.s.mu.Unlock()
		for group, offsets := range kept {
			back := kadm.Offsets{}
			for p, at := range offsets {
				end, _ := ends.Lookup(t, p)
				back.Add(kadm.Offset{Topic: t, Partition: p, At: min(at, end.Offset), LeaderEpoch: -1})
			}
			if err := kadm.NewClient(r.target().client).CommitAllOffsets(ctx, group, back); err != nil {
				return fmt.Errorf("restore the offsets of %s: %w", group, err)
			}
		}
		r.s.mu.Lock()
		m.Action, m.Kept = "", nil
		m.enter(active)
		err := r.s.save()
		r.s.mu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// commits are the offsets of all groups on a topic.
func (r *runner) commits(ctx context.Context, adm *kadm.Client, topic string) (map[string]map[int32]int64, error) {
	groups, err := adm.ListGroups(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the groups of the target: %w", err)
	}
	out := map[string]map[int32]int64{}
	for _, g := range groups.Groups() {
		offsets, err := adm.FetchOffsets(ctx, g)
		if err != nil {
			return nil, fmt.Errorf("read the offsets of %s: %w", g, err)
		}
		for p, o := range offsets[topic] {
			if o.Err == nil && o.At >= 0 {
				if out[g] == nil {
					out[g] = map[int32]int64{}
				}
				out[g][p] = o.At
			}
		}
	}
	return out, nil
}
