package linkservice

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
)

type mirrorData struct {
	resource
	Link       string  `json:"link_name"`
	Topic      string  `json:"mirror_topic_name"`
	Source     string  `json:"source_topic_name"`
	Partitions int32   `json:"num_partitions"`
	Lags       []lag   `json:"mirror_lags"`
	Status     string  `json:"mirror_status"`
	Error      string  `json:"mirror_topic_error"`
	Since      int64   `json:"state_time_ms"`
	Errors     []fault `json:"mirror_state_transition_errors,omitempty"`
}

type lag struct {
	Partition int32 `json:"partition"`
	Lag       int64 `json:"lag"`
	Fetched   int64 `json:"last_source_fetch_offset"`
}

// shown is a mirror's status as it is seen: an active mirror also tells how the link is. s.mu is held.
func (s *Service) shown(l *link, m *mirror) string {
	if m.Status != active {
		return m.Status
	}
	switch r := s.runners[l]; {
	case s.effective(l, "cluster.link.paused") == "true":
		return linkPaused
	case r.linkErr == "AUTHENTICATION_ERROR":
		return linkFailed
	case r.linkErr != "":
		return unavailable
	}
	return active
}

func (m *mirror) lags() []lag {
	out := []lag{}
	for p := range m.Partitions {
		out = append(out, lag{p, max(0, m.Lags[p]), m.Fetched[p]})
	}
	return out
}

func (s *Service) mirrorData(l *link, m *mirror, errors bool) mirrorData {
	d := mirrorData{
		resource: s.of("KafkaMirrorData", l.Cluster, "links", l.Name, "mirrors", m.Topic), Link: l.Name, Topic: m.Topic, Source: m.Source,
		Partitions: m.Partitions, Lags: m.lags(), Status: s.shown(l, m), Error: m.Error, Since: m.SinceMs,
	}
	if d.Error == "" {
		d.Error = "NO_ERROR"
	}
	if d.Status != m.Status {
		d.Since = max(d.Since, s.runners[l].sinceMs)
	}
	if errors {
		d.Errors = m.Errors
	}
	return d
}

func (s *Service) listMirrors(w http.ResponseWriter, r *http.Request, cluster string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name, status := r.PathValue("link"), r.URL.Query().Get("mirror_status")
	if name != "" && s.link(cluster, name) == nil {
		noLink(name).write(w)
		return
	}
	data := []mirrorData{}
	for _, l := range s.state.Links {
		if l.Cluster != cluster || name != "" && l.Name != name {
			continue
		}
		for _, m := range l.Mirrors {
			if d := s.mirrorData(l, m, false); status == "" || status == d.Status {
				data = append(data, d)
			}
		}
	}
	slices.SortFunc(data, func(a, b mirrorData) int { return strings.Compare(a.Topic, b.Topic) })
	respond(w, 200, s.listed("KafkaMirrorDataList", r, data))
}

func noMirror(topic, link string) *apiError {
	return &apiError{404, 404, fmt.Sprintf("Topic '%s' is not a mirror topic of cluster link '%s'.", topic, link)}
}

func (s *Service) getMirror(w http.ResponseWriter, r *http.Request, cluster string) {
	s.withLink(w, r, cluster, func(l *link) *apiError {
		m := l.Mirrors[r.PathValue("topic")]
		if m == nil {
			return noMirror(r.PathValue("topic"), l.Name)
		}
		respond(w, 200, s.mirrorData(l, m, flag(r, "include_state_transition_errors", false)))
		return nil
	})
}

func (s *Service) createMirror(w http.ResponseWriter, r *http.Request, cluster string) {
	var body struct {
		Source  string `json:"source_topic_name"`
		Mirror  string `json:"mirror_topic_name"`
		Configs []struct {
			Name  string  `json:"name"`
			Value *string `json:"value"`
		} `json:"configs"`
	}
	if !read(w, r, &body) {
		return
	}
	s.mu.Lock()
	l := s.link(cluster, r.PathValue("link"))
	var run *runner
	if l != nil {
		run = s.runners[l]
	}
	s.mu.Unlock()
	if l == nil {
		noLink(r.PathValue("link")).write(w)
		return
	}
	configs := map[string]*string{}
	for _, c := range body.Configs {
		configs[c.Name] = c.Value
	}
	if err := run.createMirror(r.Context(), body.Source, body.Mirror, configs); err != nil {
		err.write(w)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

// createMirror makes the topic on the target like the source's and starts to mirror. It is read-only before it exists.
func (r *runner) createMirror(ctx context.Context, source, topic string, configs map[string]*string) *apiError {
	want := r.config("cluster.link.prefix") + source
	switch {
	case source == "":
		return bad("source_topic_name is missing.")
	case !r.l.pulls():
		return bad("Cluster link '%s' is a source link: mirrors are made on the destination.", r.l.Name)
	case topic != "" && topic != want:
		return bad("The mirror topic's name '%s' must be '%s'.", topic, want)
	}
	ctx, cancel := context.WithTimeout(ctx, millis(r.s.cfg.Timings.RequestMillis))
	defer cancel()
	remote, err := r.remote()
	if err != nil {
		return bad("%s", err)
	}
	there, err := remote.ListTopics(fresh(ctx), source)
	if err == nil {
		err = there[source].Err
	}
	if errors.Is(err, kerr.UnknownTopicOrPartition) {
		return &apiError{404, 40403, "This server does not host this topic-partition."}
	}
	if err != nil {
		return &apiError{500, 50003, "The source topic cannot be read: " + err.Error()}
	}
	if err := r.sourceConfigs(ctx, remote, source, configs); err != nil {
		return &apiError{500, 50003, "The source topic's configs cannot be read: " + err.Error()}
	}
	m := &mirror{Topic: want, Source: source, SourceID: there[source].ID.String(), Hold: true}
	m.resize(int32(len(there[source].Partitions)))
	m.enter(pendingMirror)
	r.s.mu.Lock()
	for _, l := range r.s.state.Links {
		if l.Cluster == r.l.Cluster && l.Mirrors[want] != nil {
			r.s.mu.Unlock()
			return bad("Topic '%s' already exists.", want)
		}
	}
	r.l.Mirrors[want] = m
	r.s.mu.Unlock()
	if err := r.s.pushReadOnly(ctx, r.l.Cluster); err != nil {
		return r.undoCreate(want, &apiError{500, 50003, err.Error()})
	}
	_, err = kadm.NewClient(r.target().client).CreateTopic(ctx, m.Partitions, -1, configs, want)
	if errors.Is(err, kerr.TopicAlreadyExists) {
		return r.undoCreate(want, bad("Topic '%s' already exists.", want))
	}
	if err != nil {
		return r.undoCreate(want, &apiError{500, 50003, err.Error()})
	}
	r.s.mu.Lock()
	m.Hold = false
	err = r.s.save()
	r.s.mu.Unlock()
	if err != nil {
		return &apiError{500, 500, err.Error()}
	}
	r.poke()
	return nil
}

func (r *runner) undoCreate(topic string, cause *apiError) *apiError {
	r.s.mu.Lock()
	delete(r.l.Mirrors, topic)
	r.s.mu.Unlock()
	if err := r.s.pushReadOnly(r.ctx, r.l.Cluster); err != nil {
		r.s.log.Warn("read-only topics not confirmed", "error", err)
	}
	return cause
}
