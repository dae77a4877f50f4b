package kafka

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// MirrorTimeout is the time-out that the mirror engine puts into its produce requests, and nobody else does. It is how
// the cluster tells the engine's writes from clients': those go to read-only topics alone, clients' everywhere else. So
// a late write of the engine cannot reach a topic whose mirror has been stopped.
const MirrorTimeout = 31_337 * time.Millisecond

// errMirror is what a client gets that writes to a mirror. The code of the real product is not known for certain.
var errMirror = &kerr.Error{Message: "INVALID_REQUEST", Code: kerr.InvalidRequest.Code, Description: "Cannot append records to a read-only mirror topic."}

// readOnly is the persistent set of mirror topics.
type readOnly struct {
	mu      sync.Mutex
	path    string
	cluster *kfake.Cluster
	topics  map[string]*kfake.FaultHandle
}

func (r *readOnly) load(c *kfake.Cluster, path string) error {
	r.cluster, r.path, r.topics = c, path, map[string]*kfake.FaultHandle{}
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var topics []string
	if err == nil {
		err = json.Unmarshal(b, &topics)
	}
	if err != nil {
		return fmt.Errorf("read the list of read-only topics: %w", err)
	}
	r.apply(topics)
	return nil
}

// set makes exactly these topics read-only. A restriction is in force and stored before this returns.
func (r *readOnly) set(topics []string) error {
	slices.Sort(topics)
	topics = slices.Compact(topics)
	r.mu.Lock()
	defer r.mu.Unlock()
	if slices.Equal(topics, r.sorted()) {
		return nil
	}
	// Stored first: a crash in between comes up with the new list, and whoever asked repeats it until it is confirmed.
	if err := WriteJSON(r.path, topics); err != nil {
		return fmt.Errorf("store the list of read-only topics: %w", err)
	}
	r.apply(topics)
	return nil
}

func (r *readOnly) apply(topics []string) {
	for _, t := range topics {
		if r.topics[t] == nil {
			r.topics[t] = r.cluster.Fault(kfake.Fault{
				Keys: []kmsg.Key{kmsg.Produce}, Topic: t, Count: -1, Err: errMirror,
				When: func(req kmsg.Request) bool { return !fromMirror(req) },
			})
		}
	}
	for t, h := range r.topics {
		if !slices.Contains(topics, t) {
			h.Remove()
			delete(r.topics, t)
		}
	}
}

func (r *readOnly) list() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.sorted()
}

func (r *readOnly) sorted() []string {
	out := make([]string, 0, len(r.topics))
	for t := range r.topics {
		out = append(out, t)
	}
	slices.Sort(out)
	return out
}

func fromMirror(req kmsg.Request) bool {
	p, ok := req.(*kmsg.ProduceRequest)
	return ok && p.TimeoutMillis == int32(MirrorTimeout.Milliseconds())
}

// refuseStray answers a write of the mirror engine to a topic that is no mirror (any more); nil if there is none.
func (r *readOnly) refuseStray(req kmsg.Request) kmsg.Response {
	if !fromMirror(req) {
		return nil
	}
	p := req.(*kmsg.ProduceRequest)
	r.mu.Lock()
	stray := slices.ContainsFunc(p.Topics, func(t kmsg.ProduceRequestTopic) bool { return r.topics[t.Topic] == nil })
	r.mu.Unlock()
	if !stray {
		return nil
	}
	resp := p.ResponseKind().(*kmsg.ProduceResponse)
	for _, t := range p.Topics {
		rt := kmsg.NewProduceResponseTopic()
		rt.Topic, rt.TopicID = t.Topic, t.TopicID
		for _, part := range t.Partitions {
			rp := kmsg.NewProduceResponseTopicPartition()
			rp.Partition, rp.ErrorCode = part.Partition, kerr.InvalidRequest.Code
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp
}
