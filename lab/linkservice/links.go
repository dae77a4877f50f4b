package linkservice

import (
	"context"
	"errors"
	"net/http"
	"slices"
)

type linkData struct {
	resource
	Source      *string    `json:"source_cluster_id"`
	Destination *string    `json:"destination_cluster_id"`
	Remote      *string    `json:"remote_cluster_id"`
	Name        string     `json:"link_name"`
	LongID      string     `json:"link_id"`
	ID          string     `json:"cluster_link_id"`
	Topics      []string   `json:"topic_names"`
	State       string     `json:"link_state"`
	Error       string     `json:"link_error"`
	Message     *string    `json:"link_error_message"`
	Tasks       []task     `json:"tasks"`
	Categories  []category `json:"category_counts"`
}

type task struct {
	Name   string  `json:"task_name"`
	State  string  `json:"state"`
	Errors []fault `json:"errors"`
}

type category struct {
	State string `json:"state_category"`
	Count int    `json:"count"`
}

// data shows a link; s.mu is held.
func (s *Service) linkData(l *link, tasks bool) linkData {
	r := s.runners[l]
	d := linkData{
		resource: s.of("KafkaLinkData", l.Cluster, "links", l.Name), Name: l.Name, LongID: longID(l.ID), ID: shortID(l.ID),
		Topics: []string{}, State: "ACTIVE", Error: "NO_ERROR",
	}
	switch l.Configs["link.mode"] {
	case "SOURCE":
		d.Destination = &l.Remote
	case "BIDIRECTIONAL":
		d.Remote = &l.Remote
	default:
		d.Source = &l.Remote
	}
	counts := map[string]int{}
	for t, m := range l.Mirrors {
		d.Topics = append(d.Topics, t)
		counts[categoryOf(s.shown(l, m))]++
	}
	slices.Sort(d.Topics)
	if r.linkErr != "" {
		d.State, d.Error, d.Message = "UNAVAILABLE", r.linkErr, &r.linkMsg
	}
	if s.effective(l, "cluster.link.paused") == "true" {
		d.State = "PAUSED"
	}
	if tasks {
		d.Tasks = s.tasks(l, r, d.State)
		for _, c := range []string{"ACTIVE", "PENDING", "PAUSED", "IN_ERROR", "NOT_APPLICABLE"} {
			if counts[c] > 0 {
				d.Categories = append(d.Categories, category{c, counts[c]})
			}
		}
	}
	return d
}

func categoryOf(status string) string {
	switch status {
	case active:
		return "ACTIVE"
	case paused, linkPaused:
		return "PAUSED"
	case failed, linkFailed, unavailable:
		return "IN_ERROR"
	case stopped:
		return "NOT_APPLICABLE"
	}
	return "PENDING"
}

func (s *Service) tasks(l *link, r *runner, state string) []task {
	out := []task{}
	for _, t := range []struct{ name, enable string }{
		{"ConsumerOffsetSync", "consumer.offset.sync.enable"}, {"AutoCreateMirror", "auto.create.mirror.topics.enable"},
		{"AclSync", "acl.sync.enable"}, {"TopicConfigsSync", ""},
	} {
		x := task{t.name, "ACTIVE", []fault{}}
		switch {
		case t.enable != "" && s.effective(l, t.enable) != "true", !l.pulls():
			x.State = "NOT_CONFIGURED"
		case state == "PAUSED":
			x.State = "LINK_PAUSED"
		case state == "UNAVAILABLE":
			x.State = "LINK_UNAVAILABLE"
		case len(r.tasks[t.name]) > 0:
			x.State, x.Errors = "IN_ERROR", r.tasks[t.name]
		}
		out = append(out, x)
	}
	return out
}

func (s *Service) listLinks(w http.ResponseWriter, r *http.Request, cluster string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	data := []linkData{}
	for _, l := range s.state.Links {
		if l.Cluster == cluster {
			data = append(data, s.linkData(l, false))
		}
	}
	respond(w, 200, s.listed("KafkaLinkDataList", r, data))
}

func (s *Service) getLink(w http.ResponseWriter, r *http.Request, cluster string) {
	s.withLink(w, r, cluster, func(l *link) *apiError {
		respond(w, 200, s.linkData(l, flag(r, "include_tasks", false)))
		return nil
	})
}

func (s *Service) createLink(w http.ResponseWriter, r *http.Request, cluster string) {
	var body struct {
		Source      string `json:"source_cluster_id"`
		Destination string `json:"destination_cluster_id"`
		Remote      string `json:"remote_cluster_id"`
		ID          string `json:"cluster_link_id"`
		Configs     []struct {
			Name  string  `json:"name"`
			Value *string `json:"value"`
		} `json:"configs"`
	}
	if !read(w, r, &body) {
		return
	}
	var changes []change
	for _, c := range body.Configs {
		if c.Value != nil {
			changes = append(changes, change{c.Name, c.Value})
		}
	}
	l := &link{Cluster: cluster, Name: r.URL.Query().Get("link_name"), ID: newID(), Configs: map[string]string{}, Mirrors: map[string]*mirror{}}
	l.apply(changes)
	mode := s.effective(l, "link.mode")
	l.Remote = body.Remote
	if mode == "DESTINATION" && body.Source != "" {
		l.Remote = body.Source
	}
	if mode == "SOURCE" {
		l.Remote = body.Destination
	}
	if err := s.admit(r.Context(), l, changes, body.ID, flag(r, "validate_link", true)); err != nil {
		err.write(w)
		return
	}
	if !flag(r, "validate_only", false) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.link(cluster, l.Name) != nil {
			(&apiError{409, 40902, "Cluster link '" + l.Name + "' already exists."}).write(w)
			return
		}
		if other := s.other(l); other != nil && other.Remote == l.Cluster {
			l.ID = other.ID // two halves of one link
		}
		s.state.Links = append(s.state.Links, l)
		if err := s.save(); err != nil {
			(&apiError{500, 500, err.Error()}).write(w)
			return
		}
		s.startRunner(l)
	}
	w.WriteHeader(http.StatusNoContent)
}

// admit says what is wrong with a link that is to be made.
func (s *Service) admit(ctx context.Context, l *link, changes []change, id string, validate bool) *apiError {
	mode := s.effective(l, "link.mode")
	s.mu.Lock()
	err := s.checkConfigs(changes, true)
	exists, other := s.link(l.Cluster, l.Name) != nil, s.other(l)
	taken := ""
	for _, x := range s.state.Links {
		if p := l.Configs["cluster.link.prefix"]; p != "" && x.Cluster == l.Cluster && x.Configs["cluster.link.prefix"] == p {
			taken = x.Name
		}
	}
	s.mu.Unlock()
	switch {
	case err != nil:
		return err
	case l.Name == "" || len(l.Name) > 249:
		return bad("The cluster link name '%s' is empty or longer than 249 characters.", l.Name)
	case exists:
		return &apiError{409, 40902, "Cluster link '" + l.Name + "' already exists."}
	case s.clusters[l.Remote] == nil || l.Remote == l.Cluster:
		return bad("The remote cluster '%s' of the link cannot be found; link.mode %s needs its id.", l.Remote, mode)
	case taken != "":
		return bad("The cluster link prefix already exists on link '%s'.", taken)
	case l.Configs["cluster.link.prefix"] != "" && l.Configs["acl.sync.enable"] == "true":
		return bad("ACL sync cannot be enabled on a link with a prefix.")
	case mode == "SOURCE" && (other == nil || s.effective(other, "link.mode") != "DESTINATION"):
		return bad("A source link needs its destination half first: cluster link '%s' was not found on %s.", l.Name, l.Remote)
	case other != nil && id != "" && id != shortID(other.ID):
		return bad("The cluster link id '%s' is not the one of the other side.", id)
	}
	if !validate || l.Configs["connection.mode"] == "INBOUND" {
		return nil
	}
	r := &runner{s: s, l: l}
	defer r.disconnect()
	if err := r.reach(ctx); err != nil {
		return bad("Unable to validate cluster link '%s': %s", l.Name, err)
	}
	if mode == "SOURCE" {
		return nil
	}
	adm, errRemote := r.remote()
	if errRemote != nil {
		return bad("Unable to validate cluster link '%s': %s", l.Name, errRemote)
	}
	ctx, cancel := context.WithTimeout(ctx, millis(s.cfg.Timings.RequestMillis))
	defer cancel()
	if _, err := adm.ListTopics(fresh(ctx)); err != nil && !errors.Is(err, context.Canceled) {
		return bad("Unable to validate cluster link '%s': topics of the source cannot be read: %s", l.Name, err)
	}
	return nil
}

func (s *Service) deleteLink(w http.ResponseWriter, r *http.Request, cluster string) {
	s.mu.Lock()
	l := s.link(cluster, r.PathValue("link"))
	if l == nil {
		s.mu.Unlock()
		noLink(r.PathValue("link")).write(w)
		return
	}
	for _, m := range l.Mirrors {
		if m.Status != stopped && !flag(r, "force", false) {
			s.mu.Unlock()
			refuse(w, 403, 40301, "Cluster link '%s' cannot be deleted: topic '%s' is still a mirror.", l.Name, m.Topic)
			return
		}
	}
	if flag(r, "validate_only", false) {
		s.mu.Unlock()
		w.WriteHeader(http.StatusOK)
		return
	}
	run := s.runners[l]
	s.state.Links = slices.DeleteFunc(s.state.Links, func(x *link) bool { return x == l })
	delete(s.runners, l)
	err := s.save()
	s.mu.Unlock()
	run.cancel()
	run.disconnect()
	if err != nil {
		refuse(w, 500, 500, "%s", err)
		return
	}
	if err := s.pushReadOnly(r.Context(), cluster); err != nil {
		s.log.Warn("read-only topics not confirmed", "error", err)
	}
	w.WriteHeader(http.StatusOK)
}
