package linkservice

import (
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"
)

// defaults are the configs of a link and what they are when nobody set them.
var defaults = map[string]string{
	"consumer.offset.sync.enable": "false", "consumer.offset.sync.ms": "30000", "consumer.offset.group.filters": "",
	"consumer.group.prefix.enable": "false", "acl.sync.enable": "false", "acl.sync.ms": "5000", "acl.filters": "",
	"auto.create.mirror.topics.enable": "false", "auto.create.mirror.topics.filters": "",
	"topic.config.sync.ms": "5000", "topic.config.sync.include": "cleanup.policy,compression.type,delete.retention.ms,max.message.bytes,message.timestamp.type,min.insync.replicas,retention.bytes,retention.ms",
	"mirror.start.offset.spec": "earliest", "cluster.link.paused": "false", "cluster.link.prefix": "",
	"link.mode": "DESTINATION", "connection.mode": "OUTBOUND",
	"bootstrap.servers": "", "security.protocol": "PLAINTEXT", "sasl.mechanism": "GSSAPI", "sasl.jaas.config": "",
	"client.dns.lookup": "use_all_dns_ips", "ssl.endpoint.identification.algorithm": "https", "ssl.truststore.certificates": "",
	"local.security.protocol": "PLAINTEXT", "local.sasl.mechanism": "GSSAPI", "local.sasl.jaas.config": "", "local.listener.name": "",
	"cluster.link.retry.timeout.ms": "300000", "connections.max.idle.ms": "600000", "metadata.max.age.ms": "300000", "num.cluster.link.fetchers": "1",
	"replica.fetch.backoff.ms": "1000", "replica.fetch.max.bytes": "5242880", "replica.fetch.min.bytes": "1",
	"replica.fetch.response.max.bytes": "10485760", "replica.fetch.wait.max.ms": "500", "replica.socket.timeout.ms": "30000",
	"request.timeout.ms": "30000", "retry.backoff.ms": "100",
	"availability.check.ms": "", "availability.check.consecutive.failure.threshold": "", // Timings say
}

var (
	immutable = []string{"link.mode", "connection.mode", "cluster.link.prefix"}
	fixed     = []string{"cluster.link.retry.timeout.ms", "connections.max.idle.ms", "metadata.max.age.ms", "num.cluster.link.fetchers"}
	// cleared says which filters go with a sync that is turned off.
	cleared = map[string]string{
		"consumer.offset.sync.enable":      "consumer.offset.group.filters",
		"acl.sync.enable":                  "acl.filters",
		"auto.create.mirror.topics.enable": "auto.create.mirror.topics.filters",
	}
)

func sensitive(name string) bool {
	return strings.HasSuffix(name, "sasl.jaas.config") || strings.HasSuffix(name, ".password")
}

// effective is a config's value, set or default.
func (s *Service) effective(l *link, name string) string {
	if v, ok := l.Configs[name]; ok {
		return v
	}
	return s.fallback(name)
}

func (s *Service) fallback(name string) string {
	switch name {
	case "availability.check.ms":
		return strconv.Itoa(s.cfg.Timings.AvailabilityMillis)
	case "availability.check.consecutive.failure.threshold":
		return strconv.Itoa(s.cfg.Timings.AvailabilityChecks)
	}
	return defaults[name]
}

// change is one config that is set, or with a nil value reset to its default.
type change struct {
	name  string
	value *string
}

// checkConfigs says what is wrong with configs for a link; created is false for one that exists already.
func (s *Service) checkConfigs(changes []change, created bool) *apiError {
	for _, c := range changes {
		_, known := defaults[c.name]
		switch {
		case !known && !strings.HasPrefix(c.name, "ssl.") && !strings.HasPrefix(c.name, "local.ssl."):
			return bad("Unknown cluster link config '%s'.", c.name)
		case !created && slices.Contains(immutable, c.name):
			return bad("Cluster link config '%s' cannot be changed.", c.name)
		case slices.Contains(fixed, c.name):
			return bad("Cluster link config '%s' is read-only.", c.name)
		case c.value == nil:
			continue
		}
		if err := s.checkValue(c.name, *c.value); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) checkValue(name, v string) *apiError {
	allowed := func(values ...string) *apiError {
		if !slices.Contains(values, v) {
			return bad("Invalid value %s for configuration %s: it must be one of %s.", v, name, strings.Join(values, ", "))
		}
		return nil
	}
	switch {
	case strings.HasSuffix(name, ".enable"), name == "cluster.link.paused":
		return allowed("true", "false")
	case name == "link.mode":
		return allowed("DESTINATION", "SOURCE", "BIDIRECTIONAL")
	case name == "connection.mode":
		return allowed("OUTBOUND", "INBOUND")
	case name == "cluster.link.prefix":
		if len(v) > 12 {
			return bad("The cluster link prefix '%s' is longer than 12 characters.", v)
		}
	case strings.HasSuffix(name, ".filters") && v != "":
		if err := json.Unmarshal([]byte(v), &map[string]any{}); err != nil {
			return bad("Invalid value for configuration %s: it is not JSON: %s", name, err)
		}
	case strings.HasSuffix(name, ".ms"), strings.HasSuffix(name, ".threshold"):
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || name == "consumer.offset.sync.ms" && n < s.cfg.Timings.MinSyncMillis {
			return bad("Invalid value %s for configuration %s.", v, name)
		}
	}
	return nil
}

// apply changes the configs; a sync that is turned off loses its filters. s.mu is held.
func (l *link) apply(changes []change) {
	for _, c := range changes {
		if c.value == nil {
			delete(l.Configs, c.name)
		} else {
			l.Configs[c.name] = *c.value
		}
	}
	for enable, filters := range cleared {
		touched := slices.ContainsFunc(changes, func(c change) bool { return c.name == enable })
		if touched && l.Configs[enable] != "true" {
			delete(l.Configs, filters)
		}
	}
}

type configData struct {
	resource
	Cluster   string   `json:"cluster_id"`
	Link      string   `json:"link_name"`
	Name      string   `json:"name"`
	Value     *string  `json:"value"` // null when sensitive or unset
	Default   bool     `json:"is_default"`
	ReadOnly  bool     `json:"is_read_only"`
	Sensitive bool     `json:"is_sensitive"`
	Source    string   `json:"source"`
	Synonyms  []string `json:"synonyms"`
}

func (s *Service) configData(l *link, name string) configData {
	v, set := l.Configs[name]
	d := configData{
		resource: s.of("KafkaLinkConfigData", l.Cluster, "links", l.Name, "configs", name), Cluster: l.Cluster, Link: l.Name, Name: name,
		Default: !set, Sensitive: sensitive(name), Source: "DEFAULT_CONFIG", Synonyms: []string{},
		ReadOnly: slices.Contains(immutable, name) || slices.Contains(fixed, name),
	}
	if set {
		d.Source, d.Synonyms = "DYNAMIC_CLUSTER_LINK_CONFIG", []string{name}
	} else {
		v = s.fallback(name)
	}
	if !d.Sensitive && (set || v != "" || strings.HasSuffix(name, ".filters")) {
		d.Value = &v
	}
	return d
}

// withLink runs do on a link that exists, with s.mu held.
func (s *Service) withLink(w http.ResponseWriter, r *http.Request, cluster string, do func(*link) *apiError) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.link(cluster, r.PathValue("link"))
	if l == nil {
		noLink(r.PathValue("link")).write(w)
		return
	}
	if err := do(l); err != nil {
		err.write(w)
	}
}

func (s *Service) listConfigs(w http.ResponseWriter, r *http.Request, cluster string) {
	s.withLink(w, r, cluster, func(l *link) *apiError {
		names := make([]string, 0, len(defaults))
		for n := range defaults {
			names = append(names, n)
		}
		for n := range l.Configs {
			names = append(names, n)
		}
		slices.Sort(names)
		data := []configData{}
		for _, n := range slices.Compact(names) {
			data = append(data, s.configData(l, n))
		}
		respond(w, 200, s.listed("KafkaLinkConfigDataList", r, data))
		return nil
	})
}

func (s *Service) getConfig(w http.ResponseWriter, r *http.Request, cluster string) {
	s.withLink(w, r, cluster, func(l *link) *apiError {
		name := r.PathValue("config")
		_, set := l.Configs[name]
		if _, known := defaults[name]; !known && !set {
			return &apiError{404, 404, "Config " + name + " cannot be found."}
		}
		respond(w, 200, s.configData(l, name))
		return nil
	})
}

func (s *Service) putConfig(w http.ResponseWriter, r *http.Request, cluster string) {
	var body struct{ Value *string }
	if !read(w, r, &body) {
		return
	}
	if body.Value == nil {
		refuse(w, 400, 400, "The value of config %s is missing.", r.PathValue("config"))
		return
	}
	s.change(w, r, cluster, []change{{r.PathValue("config"), body.Value}}, false)
}

func (s *Service) deleteConfig(w http.ResponseWriter, r *http.Request, cluster string) {
	s.change(w, r, cluster, []change{{r.PathValue("config"), nil}}, false)
}

func (s *Service) alterConfigs(w http.ResponseWriter, r *http.Request, cluster string) {
	var body struct {
		Data []struct {
			Name      string  `json:"name"`
			Value     *string `json:"value"`
			Operation *string `json:"operation"`
		} `json:"data"`
		ValidateOnly bool `json:"validate_only"`
	}
	if !read(w, r, &body) {
		return
	}
	var changes []change
	for _, d := range body.Data {
		switch {
		case d.Operation != nil && *d.Operation == "DELETE":
			changes = append(changes, change{d.Name, nil})
		case d.Operation != nil && *d.Operation != "SET":
			bad("Unknown operation '%s' for config '%s'.", *d.Operation, d.Name).write(w)
			return
		case d.Value == nil:
			bad("The value of config '%s' is missing.", d.Name).write(w)
			return
		default:
			changes = append(changes, change{d.Name, d.Value})
		}
	}
	s.change(w, r, cluster, changes, body.ValidateOnly || flag(r, "validate_only", false))
}

func (s *Service) change(w http.ResponseWriter, r *http.Request, cluster string, changes []change, validateOnly bool) {
	s.withLink(w, r, cluster, func(l *link) *apiError {
		if err := s.checkConfigs(changes, false); err != nil || validateOnly {
			if err == nil {
				w.WriteHeader(http.StatusNoContent)
			}
			return err
		}
		l.apply(changes)
		if err := s.save(); err != nil {
			return &apiError{500, 500, err.Error()}
		}
		s.runners[l].poke()
		w.WriteHeader(http.StatusNoContent)
		return nil
	})
}
