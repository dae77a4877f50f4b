package kafka

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"time"
)

// Health is the answer of GET /health.
type Health struct {
	Cluster   string   `json:"cluster"`
	ClusterID string   `json:"clusterId"`
	Bootstrap []string `json:"bootstrap"`
}

// Topics is the body of GET and PUT /readonly.
type Topics struct {
	Topics []string `json:"topics"`
}

// serveControl serves
//
//	GET    /health
//	GET    /readonly      Topics
//	PUT    /readonly      Topics: exactly these are mirrors from now on
//	GET    /faults        []Fault
//	POST   /faults        Fault
//	DELETE /faults[/{id}]
func (s *Server) serveControl(ctx context.Context) error {
	ln, err := listen(ctx, "tcp", s.cfg.Control)
	if err != nil {
		return fmt.Errorf("start the control endpoint of cluster %s: %w", s.cfg.Name, err)
	}
	if !ln.Addr().(*net.TCPAddr).IP.IsLoopback() {
		_ = ln.Close()
		return fmt.Errorf("control endpoint %s of cluster %s: it has no login, so it must be on a loopback address such as 127.0.0.1", s.cfg.Control, s.cfg.Name)
	}
	s.ControlURL = "http://" + ln.Addr().String()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, Health{s.cfg.Name, s.cfg.ClusterID, s.Bootstrap})
	})
	mux.HandleFunc("GET /readonly", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, Topics{s.readOnly.list()})
	})
	mux.HandleFunc("PUT /readonly", func(w http.ResponseWriter, r *http.Request) {
		var t Topics
		if !decode(w, r, &t) {
			return
		}
		if err := s.readOnly.set(t.Topics); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		answer(w, t)
	})
	mux.HandleFunc("GET /faults", func(w http.ResponseWriter, _ *http.Request) { answer(w, s.Faults()) })
	mux.HandleFunc("POST /faults", func(w http.ResponseWriter, r *http.Request) {
		var f Fault
		if !decode(w, r, &f) {
			return
		}
		if f.ID == "" {
			f.ID = f.Kind + " " + f.Key + f.Topic
		}
		if err := s.AddFault(f); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		answer(w, f)
	})
	remove := func(w http.ResponseWriter, r *http.Request) {
		s.RemoveFault(r.PathValue("id"))
		w.WriteHeader(http.StatusNoContent)
	}
	mux.HandleFunc("DELETE /faults", remove)
	mux.HandleFunc("DELETE /faults/{id}", remove)
	s.http = &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	go func() { s.served <- s.http.Serve(ln) }()
	return nil
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v) // the caller went away: nothing to do
}

func decode(w http.ResponseWriter, r *http.Request, v any) bool {
	d := json.NewDecoder(r.Body)
	d.DisallowUnknownFields()
	if err := d.Decode(v); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return false
	}
	return true
}
