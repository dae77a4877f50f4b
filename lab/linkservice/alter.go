package linkservice

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"time"
)

// altered is the answer for one topic of an action.
type altered struct {
	resource
	Topic     string      `json:"mirror_topic_name"`
	Message   *string     `json:"error_message"`
	Code      *int        `json:"error_code"`
	Lags      []lag       `json:"mirror_lags"`
	Truncated *int64      `json:"messages_truncated"`
	Partition []truncated `json:"partition_level_truncation_data"`
}

type truncated struct {
	Partition int32 `json:"partition_id"`
	To        int64 `json:"offset_truncated_to"`
	Messages  int64 `json:"messages_truncated"`
}

func (s *Service) alterMirrors(action string) func(http.ResponseWriter, *http.Request, string) {
	return func(w http.ResponseWriter, r *http.Request, cluster string) {
		var body struct {
			Names   []string `json:"mirror_topic_names"`
			Pattern string   `json:"mirror_topic_name_pattern"`
		}
		if !read(w, r, &body) {
			return
		}
		pattern, err := regexp.Compile("^(?:" + body.Pattern + ")$")
		if err != nil || (body.Pattern == "") == (len(body.Names) == 0) {
			bad("Exactly one of mirror_topic_names and mirror_topic_name_pattern must be given.").write(w)
			return
		}
		s.mu.Lock()
		l := s.link(cluster, r.PathValue("link"))
		if l == nil {
			s.mu.Unlock()
			noLink(r.PathValue("link")).write(w)
			return
		}
		if body.Pattern != "" {
			for t := range l.Mirrors {
				if pattern.MatchString(t) {
					body.Names = append(body.Names, t)
				}
			}
			slices.Sort(body.Names)
		}
		run := s.runners[l]
		s.mu.Unlock()
		data := []altered{}
		for _, t := range body.Names {
			a := altered{resource: s.of("AlterMirrorsData", cluster, "links", l.Name, "mirrors", t), Topic: t, Lags: []lag{}, Partition: []truncated{}}
			if err := run.alter(r.Context(), action, &a, flag(r, "validate_only", false)); err != nil {
				a.Code, a.Message = &err.code, &err.message
			}
			if !flag(r, "include_partition_level_truncation_data", false) {
				a.Partition = []truncated{}
			}
			data = append(data, a)
		}
		s.mu.Lock()
		err = s.save()
		s.mu.Unlock()
		if err != nil {
			refuse(w, 500, 500, "%s", err)
			return
		}
		respond(w, 200, s.listed("KafkaAlterMirrorsDataList", r, data))
		run.poke() // after the answer: what was accepted is not done yet
	}
}

// alter accepts or refuses one action for one mirror. Accepted is not done: transitions.go does it.
func (r *runner) alter(ctx context.Context, action string, a *altered, validateOnly bool) *apiError {
	none := int64(-1)
	a.Truncated = &none
	if f := r.s.faults.topicError(a.Topic, action); f != nil {
		return f
	}
	switch action {
	case "truncate-and-restore":
		return r.acceptRestore(ctx, a, validateOnly)
	case "reverse-and-start-mirror", "reverse-and-pause-mirror":
		return r.acceptReverse(ctx, action, a, validateOnly)
	}
	r.s.mu.Lock()
	defer r.s.mu.Unlock()
	m := r.l.Mirrors[a.Topic]
	if m == nil {
		return noMirror(a.Topic, r.l.Name)
	}
	a.Lags = m.lags()
	if err := r.refused(m, action); err != nil || validateOnly {
		return err
	}
	switch action {
	case "pause":
		m.enter(paused)
	case "resume":
		m.enter(active)
	default:
		if other := r.s.other(r.l); m.Status == pendingSync && other != nil {
			delete(other.Mirrors, m.Source) // the reversal is given up
		}
		if m.Status != pendingStop {
			m.enter(pendingStop)
			m.UntilMs = time.Now().Add(millis(r.s.cfg.Timings.PendingMillis)).UnixMilli()
		}
		m.Action = action
	}
	return nil
}

// refused says why a mirror's state does not allow an action; s.mu is held.
func (r *runner) refused(m *mirror, action string) *apiError {
	stops := action == "promote" || action == "failover"
	switch status := m.Status; {
	case status == stopped:
		return &apiError{400, 400, fmt.Sprintf("Topic '%s' has already stopped its mirror from '%s'", m.Topic, r.l.Name)}
	case action == "pause" && status != active, action == "resume" && status != paused,
		action == "promote" && (status == failed || status == pendingSync || status == pendingSetup || status == pendingFill),
		action == "promote" && status == pendingStop && m.Action == "failover",
		stops && m.Hold:
		return &apiError{400, 40002, fmt.Sprintf("Topic '%s' is in state %s, which does not allow %s.", m.Topic, r.s.shown(r.l, m), action)}
	}
	return nil
}
