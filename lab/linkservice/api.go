package linkservice

import (
	"crypto/subtle"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
)

const prefix = "/kafka/v3/clusters/{cluster}"

func (s *Service) routes() http.Handler {
	api := http.NewServeMux()
	on := func(pattern string, h func(http.ResponseWriter, *http.Request, string)) {
		api.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			id := r.PathValue("cluster")
			if s.clusters[id] == nil {
				refuse(w, 404, 404, "Cluster %s cannot be found.", id)
				return
			}
			h(w, r, id)
		})
	}
	on("GET "+prefix+"/links", s.listLinks)
	on("POST "+prefix+"/links", s.createLink)
	on("GET "+prefix+"/links/{link}", s.getLink)
	on("DELETE "+prefix+"/links/{link}", s.deleteLink)
	on("GET "+prefix+"/links/{link}/configs", s.listConfigs)
	on("GET "+prefix+"/links/{link}/configs/{config}", s.getConfig)
	on("PUT "+prefix+"/links/{link}/configs/{config}", s.putConfig)
	on("DELETE "+prefix+"/links/{link}/configs/{config}", s.deleteConfig)
	on("PUT "+prefix+"/links/{link}/configs:alter", s.alterConfigs)
	on("GET "+prefix+"/links/-/mirrors", s.listMirrors)
	on("GET "+prefix+"/links/{link}/mirrors", s.listMirrors)
	on("POST "+prefix+"/links/{link}/mirrors", s.createMirror)
	on("GET "+prefix+"/links/{link}/mirrors/{topic}", s.getMirror)
	on("DELETE "+prefix+"/topics/{topic}", s.deleteTopic)
	for _, action := range []string{"promote", "failover", "pause", "resume", "reverse-and-start-mirror", "reverse-and-pause-mirror", "truncate-and-restore"} {
		on("POST "+prefix+"/links/{link}/mirrors:"+action, s.alterMirrors(action))
	}
	root := http.NewServeMux()
	root.Handle("/kafka/v3/", s.faults.middleware(s.authenticated(api)))
	s.faultRoutes(root)
	return root
}

func (s *Service) authenticated(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, password, _ := r.BasicAuth()
		if !slices.ContainsFunc(s.cfg.Users, func(u User) bool {
			return subtle.ConstantTimeCompare([]byte(name), []byte(u.Name))&subtle.ConstantTimeCompare([]byte(password), []byte(u.Password)) == 1
		}) {
			w.Header().Set("WWW-Authenticate", `Basic realm="kafka"`)
			refuse(w, 401, 40101, "Authentication failed")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// apiError is an error as the API words it: HTTP status, error_code, message.
type apiError struct {
	status, code int
	message      string
}

func (e *apiError) Error() string { return e.message }

func bad(format string, args ...any) *apiError {
	return &apiError{400, 40002, fmt.Sprintf(format, args...)}
}

func noLink(name string) *apiError {
	return &apiError{404, 404, fmt.Sprintf("The cluster link doesn't exist: Cluster link '%s' does not exist.", name)}
}

func refuse(w http.ResponseWriter, status, code int, format string, args ...any) {
	respond(w, status, map[string]any{"error_code": code, "message": fmt.Sprintf(format, args...)})
}

func (e *apiError) write(w http.ResponseWriter) { refuse(w, e.status, e.code, "%s", e.message) }

func respond(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body) // the caller went away: nothing to do
}

// read decodes a request; unknown fields are ignored, as newer clients may send them.
func read(w http.ResponseWriter, r *http.Request, v any) bool {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 8<<20))
	if err == nil && len(b) > 0 {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		refuse(w, 400, 400, "Cannot deserialize the request: %s", err)
		return false
	}
	return true
}

func flag(r *http.Request, name string, def bool) bool {
	if v := r.URL.Query().Get(name); v != "" {
		return v == "true"
	}
	return def
}

// resource is what every answer begins with.
type resource struct {
	Kind     string   `json:"kind"`
	Metadata metadata `json:"metadata"`
}

type metadata struct {
	Self         string  `json:"self"`
	ResourceName *string `json:"resource_name"`
}

type list struct {
	Kind     string `json:"kind"`
	Metadata struct {
		Self string  `json:"self"`
		Next *string `json:"next"`
	} `json:"metadata"`
	Data any `json:"data"`
}

func (s *Service) self(cluster string, parts ...string) string {
	u := s.URL + "/kafka/v3/clusters/" + url.PathEscape(cluster)
	for _, p := range parts {
		u += "/" + url.PathEscape(p)
	}
	return u
}

func (s *Service) of(kind, cluster string, parts ...string) resource {
	return resource{kind, metadata{Self: s.self(cluster, parts...)}}
}

func (s *Service) listed(kind string, r *http.Request, data any) list {
	l := list{Kind: kind, Data: data}
	l.Metadata.Self = s.URL + r.URL.EscapedPath()
	return l
}
