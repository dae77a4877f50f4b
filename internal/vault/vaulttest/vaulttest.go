// Package vaulttest is a Vault for tests: AppRole, tokens that end, and KV v2, over HTTP on the loopback.
package vaulttest

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// Role and SecretID are what the AppRole login accepts.
const (
	Role     = "role-1"
	SecretID = "canary-secret-id"
)

type entry struct {
	data    map[string]any
	version int
	deleted bool
}

// Server is one fake Vault. Secrets are named <mount>/<path>.
type Server struct {
	URL string

	web     *httptest.Server
	mu      sync.Mutex
	secrets map[string]entry
	tokens  map[string]bool
	logins  int
	renewed int
	ttl     time.Duration
	down    bool
	lose    bool
	denied  string
}

// New starts a server that ends with the test.
func New(t testing.TB) *Server {
	s := &Server{secrets: map[string]entry{}, tokens: map[string]bool{}, ttl: time.Hour}
	s.web = httptest.NewServer(http.HandlerFunc(s.serve))
	s.URL = s.web.URL
	t.Cleanup(func() { s.web.CloseClientConnections(); s.web.Close() })
	return s
}

// Files writes the role id and the secret id where a client can read them.
func Files(t testing.TB) (roleFile, secretFile string) {
	dir := t.TempDir()
	roleFile, secretFile = filepath.Join(dir, "role-id"), filepath.Join(dir, "secret-id")
	for name, text := range map[string]string{roleFile: Role, secretFile: SecretID} {
		if err := os.WriteFile(name, []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return roleFile, secretFile
}

// Put writes a secret.
func (s *Server) Put(path string, keyValues ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	data := map[string]any{}
	for i := 0; i+1 < len(keyValues); i += 2 {
		data[keyValues[i]] = keyValues[i+1]
	}
	s.secrets[path] = entry{data: data, version: s.secrets[path].version + 1}
}

// Delete deletes the newest version of a secret, as `vault kv delete` does.
func (s *Server) Delete(path string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.secrets[path]
	e.deleted = true
	s.secrets[path] = e
}

// Get returns a secret and its version.
func (s *Server) Get(path string) (map[string]any, int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.secrets[path].data, s.secrets[path].version
}

// SetDown drops every connection until it is set to false.
func (s *Server) SetDown(down bool) { s.mu.Lock(); s.down = down; s.mu.Unlock() }

// SetTTL is the lifetime of tokens from now on.
func (s *Server) SetTTL(ttl time.Duration) { s.mu.Lock(); s.ttl = ttl; s.mu.Unlock() }

// Deny refuses one path with 403.
func (s *Server) Deny(path string) { s.mu.Lock(); s.denied = path; s.mu.Unlock() }

// LoseNextAnswer applies the next write and drops the connection.
func (s *Server) LoseNextAnswer() { s.mu.Lock(); s.lose = true; s.mu.Unlock() }

// RevokeTokens ends every token.
func (s *Server) RevokeTokens() { s.mu.Lock(); clear(s.tokens); s.mu.Unlock() }

// AddToken makes a token that is accepted.
func (s *Server) AddToken(token string) { s.mu.Lock(); s.tokens[token] = true; s.mu.Unlock() }

// Logins counts AppRole logins, Renewals the renewals of tokens.
func (s *Server) Logins() int { s.mu.Lock(); defer s.mu.Unlock(); return s.logins }

// Renewals counts the renewals of tokens.
func (s *Server) Renewals() int { s.mu.Lock(); defer s.mu.Unlock(); return s.renewed }

func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		panic(http.ErrAbortHandler)
	}
	path := strings.TrimPrefix(r.URL.Path, "/v1/")
	if path == "auth/approle/login" {
		s.login(w, r)
		return
	}
	token := r.Header.Get("X-Vault-Token")
	if !s.tokens[token] || path == s.denied {
		refuse(w, http.StatusForbidden, "permission denied")
		return
	}
	switch path {
	case "auth/token/renew-self":
		s.renewed++
		answer(w, map[string]any{"auth": s.auth(token)})
	case "auth/token/lookup-self":
		answer(w, map[string]any{"data": map[string]any{"id": token, "ttl": int(s.ttl / time.Second), "renewable": true}})
	default:
		s.kv(w, r, path)
	}
}

func (s *Server) auth(token string) map[string]any {
	return map[string]any{"client_token": token, "lease_duration": int(s.ttl / time.Second), "renewable": true}
}

func (s *Server) login(w http.ResponseWriter, r *http.Request) {
	var in map[string]string
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in["role_id"] != Role || in["secret_id"] != SecretID {
		refuse(w, http.StatusBadRequest, "invalid role or secret ID")
		return
	}
	s.logins++
	token := fmt.Sprintf("canary-token-%d", s.logins)
	s.tokens[token] = true
	answer(w, map[string]any{"auth": s.auth(token)})
}

func (s *Server) kv(w http.ResponseWriter, r *http.Request, path string) {
	name := strings.Replace(path, "/data/", "/", 1)
	e, exists := s.secrets[name]
	meta := map[string]any{"version": e.version, "created_time": time.Now().Format(time.RFC3339Nano), "deletion_time": "", "destroyed": false}
	switch {
	case r.Method == http.MethodGet && !exists:
		refuse(w, http.StatusNotFound)
	case r.Method == http.MethodGet && e.deleted:
		meta["deletion_time"] = time.Now().Format(time.RFC3339Nano)
		w.WriteHeader(http.StatusNotFound)
		_ = json.NewEncoder(w).Encode(map[string]any{"data": map[string]any{"data": nil, "metadata": meta}})
	case r.Method == http.MethodGet:
		answer(w, map[string]any{"data": map[string]any{"data": e.data, "metadata": meta}})
	default:
		var in struct {
			Data    map[string]any
			Options struct{ CAS *int }
		}
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil || in.Options.CAS == nil || *in.Options.CAS != e.version {
			refuse(w, http.StatusBadRequest, "check-and-set parameter did not match the current version")
			return
		}
		e = entry{data: in.Data, version: e.version + 1}
		s.secrets[name] = e
		if s.lose {
			s.lose = false
			panic(http.ErrAbortHandler)
		}
		meta["version"] = e.version
		answer(w, map[string]any{"data": meta})
	}
}

func answer(w http.ResponseWriter, body any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(body)
}

func refuse(w http.ResponseWriter, status int, texts ...string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"errors": append([]string{}, texts...)})
}
