package linkservice

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

func errorOf(code int16) error { return kerr.ErrorForCode(code) }

func (r *runner) rest(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// included are the topic configs that a link keeps equal.
func (r *runner) included(name string) bool {
	return slices.Contains(strings.Split(r.config("topic.config.sync.include"), ","), name)
}

// dynamicConfigs are the configs that were set on a topic.
func (r *runner) dynamicConfigs(ctx context.Context, adm *kadm.Client, topic string) (map[string]*string, error) {
	resources, err := adm.DescribeTopicConfigs(ctx, topic)
	if err != nil {
		return nil, err
	}
	out := map[string]*string{}
	for _, res := range resources {
		if res.Err != nil {
			return nil, res.Err
		}
		for _, c := range res.Configs {
			if c.Source.String() == "DYNAMIC_TOPIC_CONFIG" && r.included(c.Key) {
				out[c.Key] = c.Value
			}
		}
	}
	return out, nil
}

// sourceConfigs adds the source topic's configs to those that the caller gave.
func (r *runner) sourceConfigs(ctx context.Context, remote *kadm.Client, topic string, configs map[string]*string) error {
	theirs, err := r.dynamicConfigs(ctx, remote, topic)
	for k, v := range theirs {
		if _, given := configs[k]; !given {
			configs[k] = v
		}
	}
	return err
}

// mirrored lists the mirrors that follow their source.
func (r *runner) mirrored() map[string]string {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	out := map[string]string{}
	for t, m := range r.l.Mirrors {
		if m.Status == active || m.Status == pendingMirror && !m.Hold {
			out[t] = m.Source
		}
	}
	return out
}

// syncTopicConfigs copies the included configs of each source topic to its mirror.
func (r *runner) syncTopicConfigs(ctx context.Context) {
	mirrors := r.mirrored()
	if r.config("cluster.link.paused") == "true" {
		return
	}
	var errs []fault
	if err := r.topicConfigCycle(ctx, mirrors); err != nil {
		errs = append(errs, taskFault(err))
	}
	if ctx.Err() == nil {
		r.task("TopicConfigsSync", errs...)
	}
}

func (r *runner) topicConfigCycle(ctx context.Context, mirrors map[string]string) error {
	remote, err := r.remote()
	if err != nil {
		return err
	}
	local := kadm.NewClient(r.target().client)
	var failed error
	for _, t := range sortedKeys(mirrors) {
		theirs, err := r.dynamicConfigs(ctx, remote, mirrors[t])
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("read configs of %s: %w", mirrors[t], err))
			continue
		}
		ours, err := r.dynamicConfigs(ctx, local, t)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("read configs of mirror %s: %w", t, err))
			continue
		}
		var changes []kadm.AlterConfig
		for k, v := range theirs {
			if have := ours[k]; v != nil && (have == nil || *have != *v) {
				changes = append(changes, kadm.AlterConfig{Op: kadm.SetConfig, Name: k, Value: v})
			}
		}
		for k := range ours {
			if _, there := theirs[k]; !there {
				changes = append(changes, kadm.AlterConfig{Op: kadm.DeleteConfig, Name: k})
			}
		}
		if len(changes) > 0 {
			if _, err := local.AlterTopicConfigs(ctx, changes, t); err != nil {
				failed = errors.Join(failed, err)
			}
		}
	}
	return failed
}

// watchTopics follows topics that are made, grown, deleted or made anew on either side.
func (r *runner) watchTopics(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, millis(r.s.cfg.Timings.RequestMillis))
	defer cancel()
	here, err := kadm.NewClient(r.target().client).ListTopics(fresh(ctx))
	if err != nil {
		return
	}
	r.forget(here)
	if r.config("cluster.link.paused") == "true" {
		return
	}
	remote, err := r.remote()
	if err != nil {
		return
	}
	there, err := remote.ListTopics(fresh(ctx))
	if err != nil {
		return
	}
	r.follow(ctx, there)
	if r.config("auto.create.mirror.topics.enable") == "true" {
		r.task("AutoCreateMirror", r.autoCreate(ctx, there, here)...)
	}
}

// forget drops mirrors whose topic was deleted on the target: that is how a mirror is deleted.
func (r *runner) forget(here kadm.TopicDetails) {
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	for t, m := range r.l.Mirrors {
		if !here.Has(t) && !m.Hold && m.Action == "" && m.Status != pendingMirror {
			delete(r.l.Mirrors, t)
			r.s.dirty = true
		}
	}
}

// follow notices what became of the source topics.
func (r *runner) follow(ctx context.Context, there kadm.TopicDetails) {
	grown := map[string]int32{}
	r.s.mu.Lock()
	for t, m := range r.l.Mirrors {
		if m.Status != active && m.Status != pendingMirror || m.Hold {
			continue
		}
		d := there[m.Source]
		n := int32(len(d.Partitions))
		switch {
		case !there.Has(m.Source):
			// An unauthorized principal does not see topics: that is no proof that one is gone.
			if !errors.Is(d.Err, kerr.TopicAuthorizationFailed) {
				m.fail("SOURCE_TOPIC_MAY_BE_DELETED", "the source topic was not found")
			}
		case m.SourceID != "" && d.ID.String() != m.SourceID:
			m.fail("SOURCE_TOPIC_ID_CHANGED", "the source topic was deleted and created again")
		case n < m.Partitions:
			m.fail("SOURCE_PARTITIONS_DECREASED", "the source topic has fewer partitions than the mirror")
		case n > m.Partitions:
			grown[t] = n
			continue
		default:
			continue
		}
		r.s.dirty = true
	}
	r.s.mu.Unlock()
	for t, n := range grown {
		if _, err := kadm.NewClient(r.target().client).UpdatePartitions(ctx, int(n), t); err != nil {
			continue // looked at again in the next round
		}
		r.s.mu.Lock()
		if m := r.l.Mirrors[t]; m != nil {
			m.resize(n)
		}
		r.s.mu.Unlock()
	}
}

// autoCreate makes mirrors for source topics inside the filters.
func (r *runner) autoCreate(ctx context.Context, there, here kadm.TopicDetails) (errs []fault) {
	filters, err := parseFilters(r.config("auto.create.mirror.topics.filters"), "topicFilters")
	if err != nil {
		return []fault{taskFault(err)}
	}
	prefix := r.config("cluster.link.prefix")
	r.s.mu.Lock()
	known, theirMirrors := map[string]bool{}, map[string]bool{}
	for _, m := range r.l.Mirrors {
		known[m.Source] = true
	}
	for _, l := range r.s.state.Links {
		for t := range l.Mirrors {
			if l.Cluster == r.l.Remote {
				theirMirrors[t] = true // a mirror over there is not mirrored back
			}
			if l.Cluster == r.l.Cluster && l != r.l {
				known[strings.TrimPrefix(t, prefix)] = true
			}
		}
	}
	r.s.mu.Unlock()
	for _, t := range there.Names() {
		if known[t] || theirMirrors[t] || strings.HasPrefix(t, "__") || !selected(filters, t) {
			continue
		}
		if here.Has(prefix + t) {
			errs = append(errs, fault{"TOPIC_EXISTS_ERROR", fmt.Sprintf("Topic '%s' already exists.", prefix+t)})
			continue
		}
		if err := r.createMirror(ctx, t, "", map[string]*string{}); err != nil {
			errs = append(errs, fault{"INTERNAL_ERROR", err.message})
		}
	}
	return errs
}

// deleteTopic is how a mirror is deleted: there is no other way, and any topic of the cluster goes by it.
func (s *Service) deleteTopic(w http.ResponseWriter, r *http.Request, cluster string) {
	ctx, cancel := context.WithTimeout(r.Context(), millis(s.cfg.Timings.RequestMillis))
	defer cancel()
	_, err := kadm.NewClient(s.clusters[cluster].client).DeleteTopic(ctx, r.PathValue("topic"))
	switch {
	case errors.Is(err, kerr.UnknownTopicOrPartition):
		refuse(w, 404, 40403, "This server does not host this topic-partition.")
	case err != nil:
		refuse(w, 500, 50003, "%s", err)
	default:
		w.WriteHeader(http.StatusNoContent)
	}
}
