package linkservice

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

// nameFilter is one entry of a group or topic filter.
type nameFilter struct {
	Name        string   `json:"name"`
	PatternType string   `json:"patternType"`
	FilterType  string   `json:"filterType"`
	TopicTypes  []string `json:"topicTypes"`
}

func parseFilters(text, key string) ([]nameFilter, error) {
	if text == "" {
		return nil, nil
	}
	var f map[string][]nameFilter
	if err := json.Unmarshal([]byte(text), &f); err != nil {
		return nil, fmt.Errorf("filter is not of the form {%q: [...]}: %w", key, err)
	}
	return f[key], nil
}

// selected says whether a name is included and not excluded.
func selected(filters []nameFilter, name string) bool {
	in := false
	for _, f := range filters {
		match := f.Name == "*" || f.Name == name || strings.EqualFold(f.PatternType, "PREFIXED") && strings.HasPrefix(name, f.Name)
		if match && strings.EqualFold(f.FilterType, "EXCLUDE") {
			return false
		}
		in = in || match
	}
	return in
}

// syncing says whether a sync is on and the link can do it.
func (r *runner) syncing(enable string) bool {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	return r.s.effective(r.l, enable) == "true" && r.s.effective(r.l, "cluster.link.paused") != "true"
}

// syncOffsets is one cycle: all is read first and written later, so a cycle that had begun when the sync was turned off
// still writes.
func (r *runner) syncOffsets(ctx context.Context) {
	if !r.syncing("consumer.offset.sync.enable") {
		return
	}
	r.s.mu.Lock()
	topics := []string{}
	for t, m := range r.l.Mirrors {
		if m.Status == active || m.Status == paused {
			topics = append(topics, t)
		}
	}
	r.s.mu.Unlock()
	r.offsetCycle(ctx, topics, millis(r.s.cfg.Timings.SyncInFlightMillis))
}

// syncOffsetsNow is the last cycle of mirrors that are about to stop.
func (r *runner) syncOffsetsNow(ctx context.Context, topics []string) { r.offsetCycle(ctx, topics, 0) }

func (r *runner) offsetCycle(ctx context.Context, topics []string, inFlight time.Duration) {
	wanted, err := r.readOffsets(ctx, topics)
	if err == nil {
		select {
		case <-ctx.Done():
			return
		case <-time.After(inFlight):
		}
	}
	var errs []fault
	if err != nil {
		errs = append(errs, taskFault(err))
	}
	for _, group := range sortedKeys(wanted) {
		if err := r.writeOffsets(ctx, group, wanted[group]); err != nil {
			errs = append(errs, taskFault(err))
		}
	}
	if ctx.Err() == nil {
		r.task("ConsumerOffsetSync", errs...)
	}
}

var errInUse = errors.New("the consumer group has members on the destination")

func taskFault(err error) fault {
	code := "INTERNAL_ERROR"
	switch {
	case errors.Is(err, errInUse), errors.Is(err, kerr.UnknownMemberID):
		code = "CONSUMER_GROUP_IN_USE_ERROR"
	case errors.Is(err, kerr.TopicAuthorizationFailed), errors.Is(err, kerr.GroupAuthorizationFailed), errors.Is(err, kerr.ClusterAuthorizationFailed):
		code = "AUTHORIZATION_ERROR"
	case errors.Is(err, kerr.TopicAlreadyExists):
		code = "TOPIC_EXISTS_ERROR"
	case classify(err) == "AUTHENTICATION_ERROR":
		code = "AUTHENTICATION_ERROR"
	}
	return fault{code, err.Error()}
}

// readOffsets reads, per group of the target, what the source has committed for the mirrors.
func (r *runner) readOffsets(ctx context.Context, topics []string) (map[string]kadm.Offsets, error) {
	filters, err := parseFilters(r.config("consumer.offset.group.filters"), "groupFilters")
	if err != nil || len(topics) == 0 {
		return nil, err
	}
	remote, err := r.remote()
	if err != nil {
		return nil, err
	}
	listed, err := remote.ListGroups(ctx)
	if err != nil {
		return nil, fmt.Errorf("list groups of the source: %w", err)
	}
	groups := slices.DeleteFunc(listed.Groups(), func(g string) bool { return !selected(filters, g) })
	if len(groups) == 0 {
		return nil, nil
	}
	mirrors := map[string]string{}
	r.s.mu.Lock()
	for _, t := range topics {
		if m := r.l.Mirrors[t]; m != nil {
			mirrors[m.Source] = t
		}
	}
	r.s.mu.Unlock()
	groupPrefix := ""
	if r.config("consumer.group.prefix.enable") == "true" {
		groupPrefix = r.config("cluster.link.prefix")
	}
	out := map[string]kadm.Offsets{}
	for group, resp := range remote.FetchManyOffsets(ctx, groups...) {
		if resp.Err != nil {
			err = errors.Join(err, fmt.Errorf("read offsets of %s: %w", group, resp.Err))
			continue
		}
		resp.Fetched.Each(func(o kadm.OffsetResponse) {
			if t, ok := mirrors[o.Topic]; ok && o.Err == nil && o.At >= 0 {
				o.Topic, o.LeaderEpoch = t, -1
				offsets := out[groupPrefix+group]
				offsets.Add(o.Offset)
				out[groupPrefix+group] = offsets
			}
		})
	}
	return out, err
}

// writeOffsets overwrites a group's commits on the target, clamped to what the mirrors have. A group with members is not
// touched.
func (r *runner) writeOffsets(ctx context.Context, group string, offsets kadm.Offsets) error {
	adm := kadm.NewClient(r.target().client)
	described, err := adm.DescribeGroups(ctx, group)
	if err != nil {
		return fmt.Errorf("read group %s: %w", group, err)
	}
	if g := described[group]; len(g.Members) > 0 {
		return fmt.Errorf("group %s: %w", group, errInUse)
	}
	var topics []string
	for t := range offsets {
		topics = append(topics, t)
	}
	ends, err := r.targetEnds(ctx, topics)
	if err != nil {
		return err
	}
	now, err := adm.FetchOffsets(ctx, group)
	if err != nil && !errors.Is(err, kerr.GroupIDNotFound) {
		return fmt.Errorf("read offsets of %s: %w", group, err)
	}
	changed := kadm.Offsets{}
	offsets.Each(func(o kadm.Offset) {
		if end, ok := ends.Lookup(o.Topic, o.Partition); ok {
			o.At = min(o.At, end.Offset)
		}
		if have, ok := now.Lookup(o.Topic, o.Partition); !ok || have.At != o.At {
			changed.Add(o)
		}
	})
	if len(changed) == 0 {
		return nil
	}
	if err := adm.CommitAllOffsets(ctx, group, changed); err != nil {
		return fmt.Errorf("write offsets of %s: %w", group, err)
	}
	return nil
}

// clampGroups makes sure that no idle group of the target points past the end of topics that stop being mirrors.
func (r *runner) clampGroups(ctx context.Context, topics []string, ends kadm.ListedOffsets) error {
	adm := kadm.NewClient(r.target().client)
	groups, err := adm.ListGroups(ctx)
	if err != nil {
		return fmt.Errorf("list groups of the target: %w", err)
	}
	if len(groups) == 0 {
		return nil
	}
	for group, resp := range adm.FetchManyOffsets(ctx, groups.Groups()...) {
		beyond := kadm.Offsets{}
		resp.Fetched.Each(func(o kadm.OffsetResponse) {
			if end, ok := ends.Lookup(o.Topic, o.Partition); ok && slices.Contains(topics, o.Topic) && o.At > end.Offset {
				o.At = end.Offset
				beyond.Add(o.Offset)
			}
		})
		if len(beyond) == 0 {
			continue
		}
		if err := adm.CommitAllOffsets(ctx, group, beyond); err != nil && !errors.Is(err, kerr.UnknownMemberID) {
			return fmt.Errorf("clamp offsets of %s: %w", group, err)
		}
	}
	return nil
}

func sortedKeys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	slices.Sort(out)
	return out
}
