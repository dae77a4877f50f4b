package activities

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"switchback/internal/fault"
	"switchback/replication"
)

// A source that may be gone is opened with a deadline of its own (Route.SourceLost). One that does not answer becomes a
// Kafka that refuses everything at once, one that does is asked with a short patience: of a cluster that is half dead
// some brokers answer and others are silent.

const (
	// knocks is how long a source may take to say who it is: a login over a long way, and no more.
	knocks = 1500 * time.Millisecond
	// glance is that for steps whose business is the target: the time for writes of an attempt runs meanwhile (P35a).
	glance = 700 * time.Millisecond
	// patience is how long it may take for one answer.
	patience = 2 * time.Second
	// silentFor is how long a source that did not answer is not asked again, so that each step of a run does not wait
	// for it anew.
	silentFor = 20 * time.Second
)

// Silence remembers which clusters did not answer a moment ago. A nil one forgets everything. Safe for concurrent use.
type Silence struct {
	mu   sync.Mutex
	told map[string]silent
}

type silent struct {
	at     time.Time
	why    error
	closed bool // it could not even be opened: its credentials cannot be had
}

// NewSilence makes an empty one; a worker has one for all of its activities.
func NewSilence() *Silence { return &Silence{told: map[string]silent{}} }

func (s *Silence) of(site Site) (silent, bool) {
	if s == nil {
		return silent{}, false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	was, ok := s.told[name(site)]
	return was, ok && time.Since(was.at) < silentFor
}

func (s *Silence) note(site Site, why error, closed bool) {
	if s == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if why == nil {
		delete(s.told, name(site))
		return
	}
	s.told[name(site)] = silent{time.Now(), why, closed}
}

func name(site Site) string { return fmt.Sprintf("%s %v", site.Name, site.Cluster.Bootstrap) }

// openLost opens a source that may be gone, and never fails. asked says that it is worth asking again although it was
// silent a moment ago.
func (o Outside) openLost(ctx context.Context, site Site, asked bool) Kafka {
	within := glance
	if was, is := o.Silence.of(site); is && !asked {
		if was.closed {
			return lost{site.Name, was.why, nil}
		}
		ctx, cancel := context.WithTimeout(ctx, within)
		defer cancel()
		conn, _ := o.Clusters.Open(ctx, site) // for the link alone; opening asks nothing of the cluster
		return lost{site.Name, was.why, conn}
	}
	if asked {
		within = knocks
	}
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	on, err := o.Clusters.Open(ctx, site)
	if err == nil {
		if _, err = on.Identity(ctx); err == nil {
			o.Silence.note(site, nil, false)
			return faint{on}
		}
	}
	o.Silence.note(site, err, on == nil)
	return lost{site.Name, err, on}
}

// forLink is what a link gets for a source that may be lost: the connection itself, so that a backend that compares
// records has it for when it is asked to.
func forLink(on Kafka) Kafka {
	switch k := on.(type) {
	case faint:
		return k.Kafka
	case lost:
		if k.conn != nil {
			return k.conn
		}
	}
	return on
}

// gone says whether a Kafka is one that did not answer, and why.
func gone(on Kafka) (why error, yes bool) {
	l, yes := on.(lost)
	return l.why, yes
}

// lost is a cluster that does not answer.
type lost struct {
	site string
	why  error
	conn Kafka // never asked by activities; nil where not even its credentials could be had
}

func (l lost) err() error {
	return ofSource{fmt.Errorf("%s does not answer, and the run goes on without it (%s): %w", l.site, l.why.Error(), fault.ErrUnreachable)}
}

// ofSource marks an error of a source that may be lost: never a reason for a run to stop.
type ofSource struct{ error }

func (e ofSource) Unwrap() error { return e.error }

// sourceFailed says whether it was the source that failed. The target's errors are the run's.
func sourceFailed(err error) bool {
	_, yes := errors.AsType[ofSource](err)
	return yes
}

func (l lost) Principal() string { return "" }
func (l lost) Close() {
	if l.conn != nil {
		l.conn.Close()
	}
}
func (l lost) Identity(context.Context) (replication.Identity, error) {
	return replication.Identity{}, l.err()
}
func (l lost) Topics(context.Context, func(string) bool) ([]replication.Topic, error) {
	return nil, l.err()
}
func (l lost) TopicConfigs(context.Context, []string) (map[string]map[string]string, error) {
	return nil, l.err()
}
func (l lost) TopicOverrides(context.Context, []string) (map[string]map[string]string, error) {
	return nil, l.err()
}
func (l lost) CreateTopic(context.Context, replication.NewTopic) error                { return l.err() }
func (l lost) AlterTopicConfigs(context.Context, map[string]map[string]*string) error { return l.err() }
func (l lost) Ends(context.Context, []string) ([]replication.Ends, error)             { return nil, l.err() }
func (l lost) Newest(context.Context, []string) (map[replication.Partition]time.Time, error) {
	return nil, l.err()
}
func (l lost) OffsetsAt(context.Context, []string, time.Time) (map[replication.Partition]int64, error) {
	return nil, l.err()
}
func (l lost) RecordSize(context.Context, []replication.Ends) (map[string]int64, error) {
	return nil, l.err()
}
func (l lost) Writers(context.Context, []replication.Partition) ([]replication.Writer, error) {
	return nil, l.err()
}
func (l lost) EndTransactions(context.Context, []string) error               { return l.err() }
func (l lost) AbortTransactions(context.Context, []replication.Writer) error { return l.err() }
func (l lost) ACLs(context.Context) ([]replication.ACL, error)               { return nil, l.err() }
func (l lost) CreateACLs(context.Context, []replication.ACL) error           { return l.err() }
func (l lost) DeleteACLs(context.Context, []replication.ACL) error           { return l.err() }
func (l lost) ACLsOnEveryBroker(context.Context, []replication.ACL, bool) ([]replication.Outcome, error) {
	return nil, l.err()
}
func (l lost) Groups(context.Context, func(string) bool) ([]replication.Group, error) {
	return nil, l.err()
}
func (l lost) Committed(context.Context, string) (map[replication.Partition]int64, error) {
	return nil, l.err()
}
func (l lost) Commit(context.Context, string, map[replication.Partition]int64) error { return l.err() }
func (l lost) RemoveMembers(context.Context, string, []replication.Member) error     { return l.err() }
func (l lost) Canary(context.Context, string) (replication.Canary, error) {
	return replication.Canary{}, l.err()
}
func (l lost) Grants(context.Context, []string, []string) (replication.Grants, error) {
	return replication.Grants{}, l.err()
}
func (l lost) Records(string) Records                                  { return l }
func (l lost) Put(context.Context, map[string][]byte) error            { return l.err() }
func (l lost) Load(context.Context, string) (map[string][]byte, error) { return nil, l.err() }

// faint is a cluster that answered, and may cease to: every question to it has a short deadline.
type faint struct{ Kafka }

// briefly asks with patience.
func briefly[R any](ctx context.Context, ask func(context.Context) (R, error)) (R, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answer, err := ask(ctx)
	if err != nil {
		err = ofSource{err}
	}
	return answer, err
}

// brief is briefly for what has no answer but an error.
func brief(ctx context.Context, do func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := do(ctx); err != nil {
		return ofSource{err}
	}
	return nil
}

func (f faint) Identity(ctx context.Context) (replication.Identity, error) {
	return briefly(ctx, f.Kafka.Identity)
}
func (f faint) Topics(ctx context.Context, match func(string) bool) ([]replication.Topic, error) {
	return briefly(ctx, func(ctx context.Context) ([]replication.Topic, error) { return f.Kafka.Topics(ctx, match) })
}
func (f faint) Ends(ctx context.Context, topics []string) ([]replication.Ends, error) {
	return briefly(ctx, func(ctx context.Context) ([]replication.Ends, error) { return f.Kafka.Ends(ctx, topics) })
}
func (f faint) Writers(ctx context.Context, at []replication.Partition) ([]replication.Writer, error) {
	return briefly(ctx, func(ctx context.Context) ([]replication.Writer, error) { return f.Kafka.Writers(ctx, at) })
}
func (f faint) ACLs(ctx context.Context) ([]replication.ACL, error) {
	return briefly(ctx, f.Kafka.ACLs)
}
func (f faint) ACLsOnEveryBroker(ctx context.Context, acls []replication.ACL, present bool) ([]replication.Outcome, error) {
	return briefly(ctx, func(ctx context.Context) ([]replication.Outcome, error) {
		return f.Kafka.ACLsOnEveryBroker(ctx, acls, present)
	})
}
func (f faint) CreateACLs(ctx context.Context, acls []replication.ACL) error {
	return brief(ctx, func(ctx context.Context) error { return f.Kafka.CreateACLs(ctx, acls) })
}
func (f faint) DeleteACLs(ctx context.Context, acls []replication.ACL) error {
	return brief(ctx, func(ctx context.Context) error { return f.Kafka.DeleteACLs(ctx, acls) })
}
func (f faint) Groups(ctx context.Context, match func(string) bool) ([]replication.Group, error) {
	return briefly(ctx, func(ctx context.Context) ([]replication.Group, error) { return f.Kafka.Groups(ctx, match) })
}
func (f faint) Committed(ctx context.Context, group string) (map[replication.Partition]int64, error) {
	return briefly(ctx, func(ctx context.Context) (map[replication.Partition]int64, error) {
		return f.Kafka.Committed(ctx, group)
	})
}
func (f faint) Records(topic string) Records { return faintRecords{f.Kafka.Records(topic)} }

type faintRecords struct{ Records }

func (r faintRecords) Put(ctx context.Context, entries map[string][]byte) error {
	return brief(ctx, func(ctx context.Context) error { return r.Records.Put(ctx, entries) })
}
func (r faintRecords) Load(ctx context.Context, prefix string) (map[string][]byte, error) {
	return briefly(ctx, func(ctx context.Context) (map[string][]byte, error) { return r.Records.Load(ctx, prefix) })
}
