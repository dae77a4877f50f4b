package linkservice

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Fault is one misbehaviour, set through POST /lab/faults. It applies to requests that match Method, Path and Topic, for
// Times requests (0: until removed).
//
// Before the action is done: unauthorized (401), tooMany (429, HTML), refuse (Status), resetBefore.
// After it was done: status (answers Status, without a body for 2xx), error (Status 5xx), reset (the connection is cut),
// slow (Delay), malformed (half of the JSON), huge (64 MB of padding), hang (no answer until the client gives up).
// In the answer: topicStatus (Value), topicLag (Value; stale), minusOne, unordered, missingPartition, emptyLink, oldShape.
// In what is done: topicError (Status as error_code for a topic inside a 200), stuck (the topic stays pending),
// mirrorFailed (the topic becomes FAILED with mirror_topic_error Value, at once).
type Fault struct {
	ID     string        `json:"id"` // chosen by the caller; the same one replaces
	Kind   string        `json:"kind"`
	Method string        `json:"method"` // "" is any
	Path   string        `json:"path"`   // part of the URL's path and query, such as mirrors:promote?validate_only=false; "" is any
	Topic  string        `json:"topic"`  // "" is all
	Status int           `json:"status"`
	Value  string        `json:"value"`
	Delay  time.Duration `json:"delay"` // nanoseconds
	Times  int           `json:"times"`
	Hits   int           `json:"hits"` // in answers
}

type faults struct {
	mu  sync.Mutex
	set []*Fault
}

var (
	before  = []string{"unauthorized", "tooMany", "refuse", "resetBefore"}
	after   = []string{"status", "error", "reset", "slow", "malformed", "huge", "hang"}
	inside  = []string{"topicStatus", "topicLag", "minusOne", "unordered", "missingPartition", "emptyLink", "oldShape"}
	actions = []string{"topicError", "stuck", "mirrorFailed"}
)

func (s *Service) faultRoutes(mux *http.ServeMux) {
	mux.HandleFunc("GET /lab/faults", func(w http.ResponseWriter, _ *http.Request) { respond(w, 200, s.faults.list()) })
	mux.HandleFunc("POST /lab/faults", func(w http.ResponseWriter, r *http.Request) {
		var f Fault
		if !read(w, r, &f) {
			return
		}
		if err := s.addFault(f); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		respond(w, 200, f)
	})
	remove := func(w http.ResponseWriter, r *http.Request) {
		s.faults.remove(r.PathValue("id"))
		s.pokeAll()
		w.WriteHeader(http.StatusNoContent)
	}
	mux.HandleFunc("DELETE /lab/faults", remove)
	mux.HandleFunc("DELETE /lab/faults/{id}", remove)
}

func (s *Service) pokeAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range s.runners {
		r.poke()
	}
}

func (s *Service) addFault(f Fault) error {
	if !slices.Contains(slices.Concat(before, after, inside, actions), f.Kind) {
		return fmt.Errorf("no fault kind %q; there are %s", f.Kind, strings.Join(slices.Concat(before, after, inside, actions), ", "))
	}
	if f.ID == "" {
		f.ID = f.Kind + f.Topic
	}
	s.faults.remove(f.ID)
	s.faults.mu.Lock()
	s.faults.set = append(s.faults.set, &f)
	s.faults.mu.Unlock()
	if f.Kind != "mirrorFailed" {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.state.Links {
		if m := l.Mirrors[f.Topic]; m != nil && m.Status != stopped {
			m.fail(f.Value, "failed by a test")
		}
	}
	return s.save()
}

// remove takes one fault away, or all with "".
func (f *faults) remove(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.set = slices.DeleteFunc(f.set, func(x *Fault) bool { return id == "" || x.ID == id })
}

func (f *faults) list() []Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := []Fault{}
	for _, x := range f.set {
		out = append(out, *x)
	}
	return out
}

// take returns the faults of some kinds that a match finds, and counts them.
func (f *faults) take(kinds []string, match func(*Fault) bool) (out []Fault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, x := range f.set {
		if slices.Contains(kinds, x.Kind) && (x.Times == 0 || x.Hits < x.Times) && match(x) {
			x.Hits++
			out = append(out, *x)
		}
	}
	return out
}

func (f *faults) stuck(topic string) bool {
	return len(f.take([]string{"stuck"}, func(x *Fault) bool { return x.Topic == "" || x.Topic == topic })) > 0
}

func (f *faults) topicError(topic, action string) *apiError {
	hit := f.take([]string{"topicError"}, func(x *Fault) bool {
		return (x.Topic == "" || x.Topic == topic) && strings.Contains("mirrors:"+action, x.Path)
	})
	if len(hit) == 0 {
		return nil
	}
	message := hit[0].Value
	if message == "" {
		message = "Not authorized"
	}
	return &apiError{200, hit[0].Status, message}
}

func (f *faults) middleware(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		match := func(x *Fault) bool {
			return (x.Method == "" || x.Method == r.Method) && strings.Contains(r.URL.Path+"?"+r.URL.RawQuery, x.Path)
		}
		if instead := f.take(before, match); len(instead) > 0 {
			switch x := instead[0]; x.Kind {
			case "unauthorized":
				refuse(w, 401, 40101, "Authentication failed")
			case "tooMany":
				tooMany(w)
			case "refuse":
				refuse(w, x.Status, x.Status, "%s", x.Value)
			case "resetBefore":
				panic(http.ErrAbortHandler)
			}
			return
		}
		rec := &recorder{header: http.Header{}, Code: http.StatusOK}
		next.ServeHTTP(rec, r)
		for _, x := range f.take(inside, match) {
			x.edit(rec)
		}
		for _, x := range f.take(after, match) {
			if x.after(w, r, rec) {
				return
			}
		}
		for k, v := range rec.Header() {
			w.Header()[k] = v
		}
		w.Header().Set("Content-Length", strconv.Itoa(rec.Body.Len()))
		w.WriteHeader(rec.Code)
		_, _ = w.Write(rec.Body.Bytes())
	})
}

// recorder keeps an answer back until it is known what becomes of it.
type recorder struct {
	header http.Header
	Code   int
	Body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(code int)        { r.Code = code }
func (r *recorder) Write(b []byte) (int, error) { return r.Body.Write(b) }

func tooMany(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/html;charset=utf-8")
	w.WriteHeader(http.StatusTooManyRequests)
	_, _ = fmt.Fprint(w, "<html><head><title>Error 429 Too Many Requests</title></head><body><h2>HTTP ERROR 429 Too Many Requests</h2></body></html>")
}

// after misbehaves once the action is done; true when it has answered.
func (x Fault) after(w http.ResponseWriter, r *http.Request, rec *recorder) bool {
	switch x.Kind {
	case "status":
		if rec.Code >= 300 {
			return false
		}
		rec.Code = x.Status
		return false
	case "error":
		code := x.Status
		if code == http.StatusServiceUnavailable {
			code = 50003 // how the API marks what may be tried again
		}
		refuse(w, x.Status, code, "Internal Server Error")
	case "reset":
		panic(http.ErrAbortHandler)
	case "hang":
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	case "slow":
		select {
		case <-time.After(x.Delay):
		case <-r.Context().Done():
		}
		return false
	case "malformed":
		rec.Body.Truncate(rec.Body.Len() / 2)
		return false
	case "huge":
		padding := bytes.Repeat([]byte(" "), 1<<20)
		w.Header().Set("Content-Type", "application/json")
		for range 64 {
			if _, err := w.Write(padding); err != nil {
				return true
			}
		}
		_, _ = w.Write(rec.Body.Bytes())
	}
	return true
}

// edit changes what an answer says.
func (x Fault) edit(rec *recorder) {
	var body map[string]any
	d := json.NewDecoder(bytes.NewReader(rec.Body.Bytes()))
	d.UseNumber()
	if d.Decode(&body) != nil {
		return
	}
	items := []map[string]any{body}
	data, listed := body["data"].([]any)
	if listed {
		items = nil
		for _, i := range data {
			if m, ok := i.(map[string]any); ok {
				items = append(items, m)
			}
		}
	}
	for _, m := range items {
		if x.Topic == "" || m["mirror_topic_name"] == x.Topic {
			x.editItem(m)
		}
	}
	if x.Kind == "emptyLink" && body["kind"] == "KafkaLinkDataList" {
		body["data"] = append(data, map[string]any{"kind": "KafkaLinkData", "metadata": body["metadata"], "link_name": "", "cluster_link_id": "", "topic_names": []string{}, "link_state": "UNMANAGED_SOURCE"})
	}
	rec.Body.Reset()
	_ = json.NewEncoder(&rec.Body).Encode(body)
}

func (x Fault) editItem(m map[string]any) {
	lags, _ := m["mirror_lags"].([]any)
	switch x.Kind {
	case "topicStatus":
		if _, ok := m["mirror_status"]; ok {
			m["mirror_status"] = x.Value
		}
	case "unordered":
		slices.Reverse(lags)
	case "missingPartition":
		if len(lags) > 0 {
			m["mirror_lags"] = lags[1:]
		}
	case "oldShape":
		for from, to := range map[string]string{"is_read_only": "read_only", "is_sensitive": "sensitive"} {
			if v, ok := m[from]; ok {
				m[to] = v
				delete(m, from)
			}
		}
		delete(m, "is_default")
	}
	for _, l := range lags {
		switch l := l.(map[string]any); x.Kind {
		case "minusOne":
			l["last_source_fetch_offset"] = -1
		case "topicLag":
			l["lag"] = json.Number(x.Value)
		}
	}
}
