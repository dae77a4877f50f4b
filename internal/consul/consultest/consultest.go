// Package consultest is a Consul for tests: keys, transactions, blocking queries and sessions over HTTP on the loopback,
// with the answers of the real one (compared with Consul 1.21), and with ways to be as awkward as the real one can be.
package consultest

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// Pair is a key as Consul's HTTP API shows it.
type Pair struct {
	Key         string
	Value       []byte
	Session     string `json:",omitempty"`
	LockIndex   uint64
	CreateIndex uint64
	ModifyIndex uint64
	Flags       uint64
}

// Server is one fake Consul.
type Server struct {
	URL string

	web      *httptest.Server
	mu       sync.Mutex
	index    uint64
	pairs    map[string]Pair
	sessions map[string]bool
	delayed  map[string]time.Time // keys whose session ended just now: no lock before then
	changed  chan struct{}        // closed at each change
	down     bool
	txns     [][]string // verbs and keys of each transaction, for assertions
	lists    int
	hook     func()
	lose     bool
	deny     bool
}

// New starts a server that ends with the test.
func New(t testing.TB) *Server {
	s := &Server{index: 10, pairs: map[string]Pair{}, sessions: map[string]bool{}, delayed: map[string]time.Time{}, changed: make(chan struct{})}
	s.web = httptest.NewServer(http.HandlerFunc(s.serve))
	s.URL = s.web.URL
	t.Cleanup(func() {
		s.SetDown(true) // lets blocking queries go
		s.web.CloseClientConnections()
		s.web.Close()
	})
	return s
}

// Put writes keys, as somebody else would, each with an index of its own.
func (s *Server) Put(keyValues ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := 0; i+1 < len(keyValues); i += 2 {
		s.set(keyValues[i], []byte(keyValues[i+1]), s.pairs[keyValues[i]].Session)
	}
}

// Delete removes a key.
func (s *Server) Delete(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pairs, key)
	s.bump()
}

// Get returns a key's value, "" when absent.
func (s *Server) Get(key string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return string(s.pairs[key].Value)
}

// SetDown drops every connection, and every new one, until it is set to false.
func (s *Server) SetDown(down bool) {
	s.mu.Lock()
	s.down = down
	s.bump()
	s.mu.Unlock()
	if down {
		s.web.CloseClientConnections()
	}
}

// ExpireSessions ends every session, as after their TTL: the keys under them vanish.
func (s *Server) ExpireSessions() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.sessions {
		s.destroy(id)
	}
}

// BeforeTxn runs f once, just before the next transaction is looked at.
func (s *Server) BeforeTxn(f func()) { s.mu.Lock(); s.hook = f; s.mu.Unlock() }

// LoseNextAnswer applies the next transaction and drops the connection instead of answering.
func (s *Server) LoseNextAnswer() { s.mu.Lock(); s.lose = true; s.mu.Unlock() }

// SetDeny refuses every request with 403.
func (s *Server) SetDeny(deny bool) { s.mu.Lock(); s.deny = deny; s.mu.Unlock() }

// Txns lists the operations of each transaction so far, as "verb key".
func (s *Server) Txns() [][]string { s.mu.Lock(); defer s.mu.Unlock(); return slices.Clone(s.txns) }

// Lists counts recursive reads that were answered.
func (s *Server) Lists() int { s.mu.Lock(); defer s.mu.Unlock(); return s.lists }

func (s *Server) bump() {
	s.index++
	close(s.changed)
	s.changed = make(chan struct{})
}

// set leaves the index alone when nothing changes, as the real one does.
func (s *Server) set(key string, value []byte, session string) {
	p, ok := s.pairs[key]
	if ok && string(p.Value) == string(value) && p.Session == session {
		return
	}
	s.bump()
	if !ok {
		p.CreateIndex = s.index
	}
	p.Key, p.Value, p.Session, p.ModifyIndex = key, value, session, s.index
	s.pairs[key] = p
}

func (s *Server) destroy(id string) {
	delete(s.sessions, id)
	for key, p := range s.pairs {
		if p.Session == id {
			delete(s.pairs, key)
			s.delayed[key] = time.Now().Add(time.Millisecond)
		}
	}
	s.bump()
}

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := strings.TrimPrefix(r.URL.Path, "/v1")
	switch {
	case s.down:
		panic(http.ErrAbortHandler)
	case s.deny:
		http.Error(w, "Permission denied: token lacks permission", http.StatusForbidden)
	case path == "/txn":
		s.txn(w, r)
	case strings.HasPrefix(path, "/kv/"):
		s.kv(w, r, strings.TrimPrefix(path, "/kv/"))
	case path == "/session/create":
		s.bump()
		id := fmt.Sprintf("00000000-0000-0000-0000-%012d", s.index)
		s.sessions[id] = true
		answer(w, http.StatusOK, map[string]string{"ID": id})
	case strings.HasPrefix(path, "/session/renew/"):
		id := strings.TrimPrefix(path, "/session/renew/")
		if !s.sessions[id] {
			http.Error(w, "Session id not found", http.StatusNotFound)
			return
		}
		answer(w, http.StatusOK, []map[string]string{{"ID": id, "TTL": "10s"}})
	case strings.HasPrefix(path, "/session/destroy/"):
		s.destroy(strings.TrimPrefix(path, "/session/destroy/"))
		answer(w, http.StatusOK, true)
	default:
		http.Error(w, "no such path "+path, http.StatusBadRequest)
	}
}

// kv answers reads, blocking ones too. Called, and returns, with mu held.
func (s *Server) kv(w http.ResponseWriter, r *http.Request, prefix string) {
	q := r.URL.Query()
	_, recurse := q["recurse"]
	index, _ := strconv.ParseUint(q.Get("index"), 10, 64)
	limit, err := time.ParseDuration(q.Get("wait"))
	if err != nil {
		limit = time.Minute
	}
	timeout := time.NewTimer(limit)
	defer timeout.Stop()
	for index > 0 && s.index <= index && !s.down {
		changed := s.changed
		s.mu.Unlock()
		select {
		case <-changed:
		case <-timeout.C:
			index = 0
		case <-r.Context().Done():
			index = 0
		}
		s.mu.Lock()
	}
	if s.down {
		panic(http.ErrAbortHandler)
	}
	found := []Pair{}
	for _, key := range slices.Sorted(maps.Keys(s.pairs)) {
		if key == prefix || recurse && strings.HasPrefix(key, prefix) {
			found = append(found, s.pairs[key])
		}
	}
	if recurse {
		s.lists++
	}
	w.Header().Set("X-Consul-Index", strconv.FormatUint(s.index, 10))
	w.Header().Set("X-Consul-Lastcontact", "0")
	w.Header().Set("X-Consul-Knownleader", "true")
	if len(found) == 0 {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	answer(w, http.StatusOK, found)
}

type txnOp struct {
	KV struct {
		Verb, Key, Session string
		Value              []byte
		Index              uint64
	}
}

func (s *Server) txn(w http.ResponseWriter, r *http.Request) {
	var ops []txnOp
	body, err := io.ReadAll(r.Body)
	if err == nil {
		err = json.Unmarshal(body, &ops)
	}
	if err != nil || len(ops) > 128 {
		http.Error(w, "Transaction refused", http.StatusRequestEntityTooLarge)
		return
	}
	if hook := s.hook; hook != nil {
		s.hook = nil
		s.mu.Unlock()
		hook()
		s.mu.Lock()
	}
	var log []string
	type txnError struct {
		OpIndex int
		What    string
	}
	var errs []txnError
	for i, op := range ops {
		log = append(log, op.KV.Verb+" "+op.KV.Key)
		if what := s.judge(op); what != "" {
			errs = append(errs, txnError{i, what})
		}
	}
	s.txns = append(s.txns, log)
	if len(errs) > 0 {
		answer(w, http.StatusConflict, map[string]any{"Errors": errs})
		return
	}
	for _, op := range ops {
		switch op.KV.Verb {
		case "cas":
			s.set(op.KV.Key, op.KV.Value, s.pairs[op.KV.Key].Session)
		case "delete-cas":
			s.index++
			delete(s.pairs, op.KV.Key)
		case "lock":
			s.set(op.KV.Key, op.KV.Value, op.KV.Session)
		}
	}
	if s.lose {
		s.lose = false
		panic(http.ErrAbortHandler)
	}
	answer(w, http.StatusOK, map[string]any{"Results": []any{}})
}

func (s *Server) judge(op txnOp) string {
	p, exists := s.pairs[op.KV.Key]
	switch op.KV.Verb {
	case "cas", "delete-cas":
		if exists != (op.KV.Index != 0) || p.ModifyIndex != op.KV.Index {
			return fmt.Sprintf("failed to set key %q, index is stale", op.KV.Key)
		}
	case "check-index":
		if !exists {
			return fmt.Sprintf("failed to check index, key %q doesn't exist", op.KV.Key)
		}
		if p.ModifyIndex != op.KV.Index {
			return fmt.Sprintf("failed index check for key %q, current modify index %d != %d", op.KV.Key, p.ModifyIndex, op.KV.Index)
		}
	case "check-not-exists":
		if exists {
			return fmt.Sprintf("key %q exists", op.KV.Key)
		}
	case "lock":
		if !s.sessions[op.KV.Session] {
			return fmt.Sprintf("invalid session %q", op.KV.Session)
		}
		if time.Now().Before(s.delayed[op.KV.Key]) {
			return fmt.Sprintf("failed to lock key %q due to lock delay", op.KV.Key)
		}
		if p.Session != "" && p.Session != op.KV.Session {
			return fmt.Sprintf("failed to lock key %q, lock is already held", op.KV.Key)
		}
	default:
		return "unknown operation " + op.KV.Verb
	}
	return ""
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(body)
}
