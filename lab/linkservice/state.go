package linkservice

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"slices"
	"time"

	"switchback/lab/kafka"
)

// state is all that survives a kill -9. It is written with mode 0600: configs hold credentials.
type state struct {
	Links []*link `json:"links"`
}

// link is the half of a link that one cluster hosts.
type link struct {
	Cluster string             `json:"cluster"` // id of the host
	Remote  string             `json:"remote"`  // id of the other side
	Name    string             `json:"name"`
	ID      [16]byte           `json:"id"` // same on both halves
	Configs map[string]string  `json:"configs"`
	Mirrors map[string]*mirror `json:"mirrors"` // by mirror topic
}

// mirror is one mirrored topic, on the link half that pulls it.
type mirror struct {
	Topic      string  `json:"topic"`
	Source     string  `json:"source"`
	Partitions int32   `json:"partitions"`
	Status     string  `json:"status"` // as stored; what is shown also depends on the link, see shown
	Error      string  `json:"error,omitempty"`
	SinceMs    int64   `json:"sinceMs"`
	Action     string  `json:"action,omitempty"`   // what a pending mirror is about: promote, failover, ...
	UntilMs    int64   `json:"untilMs,omitempty"`  // not before this
	Hold       bool    `json:"hold,omitempty"`     // read-only, but nothing is copied yet: the other half is still in charge
	Fetched    []int64 `json:"fetched"`            // per partition: all before it has been replicated; -1: never fetched
	Lags       []int64 `json:"lags"`               // as last known
	Start      []int64 `json:"start,omitempty"`    // first offset that is mirrored, per partition
	SourceID   string  `json:"sourceId,omitempty"` // topic id on the source
	Errors     []fault `json:"errors,omitempty"`   // state transition errors
	// Kept are committed offsets that a truncation would have cost: group -> partition -> offset.
	Kept map[string]map[int32]int64 `json:"kept,omitempty"`

	released bool // writable already, STOPPED in a moment
}

// fault is how the API names what went wrong with a task or a transition.
type fault struct {
	Code    string `json:"error_code"`
	Message string `json:"error_message"`
}

const (
	active        = "ACTIVE"
	failed        = "FAILED"
	paused        = "PAUSED"
	stopped       = "STOPPED"
	pendingMirror = "PENDING_MIRROR"
	pendingStop   = "PENDING_STOPPED"
	pendingSync   = "PENDING_SYNCHRONIZE"
	pendingSetup  = "PENDING_SETUP_FOR_RESTORE"
	pendingFill   = "PENDING_RESTORE"
	unavailable   = "SOURCE_UNAVAILABLE"
	linkFailed    = "LINK_FAILED"
	linkPaused    = "LINK_PAUSED"
)

func (m *mirror) enter(status string) {
	m.Status, m.SinceMs = status, time.Now().UnixMilli()
}

func (m *mirror) fail(why, message string) {
	m.enter(failed)
	m.Error, m.Action = why, ""
	m.Errors = []fault{{"INTERNAL_ERROR", message}}
}

// resize makes room for n partitions.
func (m *mirror) resize(n int32) {
	for int32(len(m.Fetched)) < n {
		m.Fetched = append(m.Fetched, -1)
		m.Lags = append(m.Lags, -1)
		m.Start = append(m.Start, 0)
	}
	m.Partitions = n
}

func newID() (id [16]byte) {
	_, _ = rand.Read(id[:]) // never fails
	id[6], id[8] = id[6]&0x0f|0x40, id[8]&0x3f|0x80
	return id
}

func shortID(id [16]byte) string { return base64.RawURLEncoding.EncodeToString(id[:]) }
func longID(id [16]byte) string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[0:4], id[4:6], id[6:8], id[8:10], id[10:16])
}

func (s *Service) load() error {
	b, err := os.ReadFile(s.statePath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = json.Unmarshal(b, &s.state)
	}
	if err != nil {
		return fmt.Errorf("read the links of the link service: %w", err)
	}
	for _, l := range s.state.Links { // whoever asked for these got no answer, and asks again
		maps.DeleteFunc(l.Mirrors, func(_ string, m *mirror) bool { return m.Hold && m.Action == "" })
	}
	return nil
}

// save stores the state; s.mu is held.
func (s *Service) save() error {
	if err := kafka.WriteJSON(s.statePath(), s.state); err != nil {
		return err
	}
	s.dirty = false
	return nil
}

// link finds a half, nil if there is none; s.mu is held.
func (s *Service) link(cluster, name string) *link {
	for _, l := range s.state.Links {
		if l.Cluster == cluster && l.Name == name {
			return l
		}
	}
	return nil
}

// other is the half on the remote cluster, nil if there is none; s.mu is held.
func (s *Service) other(l *link) *link { return s.link(l.Remote, l.Name) }

// pushReadOnly makes a cluster refuse clients' writes to its mirrors, and to no other topic.
func (s *Service) pushReadOnly(ctx context.Context, id string) error {
	c := s.clusters[id]
	if c.ControlURL == "" { // real brokers cannot be told
		return nil
	}
	c.pushMu.Lock()
	defer c.pushMu.Unlock()
	s.mu.Lock()
	topics := []string{}
	for _, l := range s.state.Links {
		for _, m := range l.Mirrors {
			if l.Cluster == id && m.Status != stopped && !m.released {
				topics = append(topics, m.Topic)
			}
		}
	}
	s.mu.Unlock()
	slices.Sort(topics)
	body, err := json.Marshal(kafka.Topics{Topics: slices.Compact(topics)})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, millis(s.cfg.Timings.RequestMillis))
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, c.ControlURL+"/readonly", bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("set the read-only topics of %s: %w", c.Name, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("set the read-only topics of %s: %s", c.Name, resp.Status)
	}
	return nil
}
