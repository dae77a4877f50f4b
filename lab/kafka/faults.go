package kafka

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Fault is one misbehaviour of the cluster, set through the control endpoint.
//
// Kinds:
//   - error: answers with Error (Kafka's name of it) per entity of the request. REQUEST_TIMED_OUT is answered after the
//     work was done: the outcome that a caller cannot know.
//   - drop: never answers, and does nothing.
//   - close: cuts the connection, and does nothing.
//   - delay: does the work after Delay.
//   - stall: a follower of Topic has stopped: appends are done but not seen (the high watermark of ListOffsets stands
//     still, the log end of OffsetForLeaderEpoch goes on) and answered with REQUEST_TIMED_OUT. Consumers that read the
//     partition through a fetch session see such records too early; the mirror engine does not.
type Fault struct {
	ID    string        `json:"id"`    // chosen by the caller; the same one replaces
	Kind  string        `json:"kind"`  // error, drop, close, delay, stall
	Key   string        `json:"key"`   // API, such as Produce or Fetch; not for stall
	Topic string        `json:"topic"` // for error and stall; "" is all
	Group string        `json:"group"` // for error; "" is all
	Error string        `json:"error"` // for error, such as NOT_LEADER_FOR_PARTITION
	Delay time.Duration `json:"delay"` // for delay, nanoseconds
	Node  *int32        `json:"node"`  // for drop, close and delay: the one broker that misbehaves; null is all
	Times int           `json:"times"` // requests; 0 is until removed
	Hits  int           `json:"hits"`  // requests hit so far, in answers
}

type activeFault struct {
	Fault
	key     int16
	handle  *kfake.FaultHandle // error, stall
	removed chan struct{}
	frozen  map[int32]int64 // stall: the high watermarks that are shown
}

type faults struct {
	mu  sync.Mutex
	set []*activeFault
}

// AddFault makes the cluster misbehave until the fault is removed or spent.
func (s *Server) AddFault(f Fault) error {
	a := &activeFault{Fault: f, key: -1, removed: make(chan struct{})}
	if f.Kind != "stall" {
		for k := int16(0); k <= kmsg.MaxKey; k++ {
			if kmsg.NameForKey(k) == f.Key {
				a.key = k
			}
		}
		if a.key < 0 {
			return fmt.Errorf("fault %s: no Kafka API is called %q; such as Produce, ListOffsets, OffsetCommit", f.ID, f.Key)
		}
	}
	s.RemoveFault(f.ID)
	switch f.Kind {
	case "error":
		e := errorNamed(f.Error)
		if e == nil {
			return fmt.Errorf("fault %s: no Kafka error is called %q", f.ID, f.Error)
		}
		count := f.Times
		if count == 0 {
			count = -1
		}
		a.handle = s.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Key(a.key)}, Topic: f.Topic, Group: f.Group, Err: e, Count: count})
	case "stall":
		if f.Topic == "" {
			return fmt.Errorf("fault %s: stall needs a topic", f.ID)
		}
		a.frozen = map[int32]int64{}
		for _, p := range s.cluster.PartitionInfos(f.Topic) {
			a.frozen[p.Partition] = p.HighWatermark
		}
		a.handle = s.cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Topic: f.Topic, Err: kerr.RequestTimedOut, Count: -1})
	case "drop", "close", "delay":
	default:
		return fmt.Errorf("fault %s: no kind %q; there are error, drop, close, delay, stall", f.ID, f.Kind)
	}
	s.faults.mu.Lock()
	defer s.faults.mu.Unlock()
	s.faults.set = append(s.faults.set, a)
	return nil
}

func errorNamed(name string) *kerr.Error {
	for code := int16(-1); code < 200; code++ {
		if e := kerr.TypedErrorForCode(code); e != nil && e.Message == name {
			return e
		}
	}
	return nil
}

// RemoveFault takes one away, or all with "".
func (s *Server) RemoveFault(id string) { s.faults.remove(id) }

// Faults lists those that are set, with their hits.
func (s *Server) Faults() []Fault { return s.faults.list() }

func (f *faults) clear() { f.remove("") }

func (f *faults) remove(id string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.set = slices.DeleteFunc(f.set, func(a *activeFault) bool {
		if id != "" && a.ID != id {
			return false
		}
		if a.handle != nil {
			a.handle.Remove()
		}
		close(a.removed)
		return true
	})
}

func (f *faults) list() []Fault {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := []Fault{}
	for _, a := range f.set {
		x := a.Fault
		if a.handle != nil {
			x.Hits = a.handle.Hits()
		}
		out = append(out, x)
	}
	return out
}

// take returns the fault that a request runs into and counts it.
func (f *faults) take(req kmsg.Request, node int32) (hit *activeFault, stalls []*activeFault) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, a := range f.set {
		switch {
		case a.Kind == "stall":
			stalls = append(stalls, a)
		case hit == nil && a.handle == nil && a.key == req.Key() && (a.Node == nil || *a.Node == node) && (a.Times == 0 || a.Hits < a.Times):
			a.Hits++
			hit = a
		}
	}
	return hit, stalls
}

// control sees every request before the cluster does. It runs on the cluster's goroutine: it may not block, and asks
// the cluster only from inside SleepControl.
func (s *Server) control(req kmsg.Request) (kmsg.Response, error, bool) {
	s.cluster.KeepControl()
	if resp := s.readOnly.refuseStray(req); resp != nil {
		return resp, nil, true
	}
	hit, stalls := s.faults.take(req, s.cluster.CurrentNode())
	if hit != nil {
		switch hit.Kind {
		case "drop":
			return nil, nil, true
		case "close":
			return nil, fmt.Errorf("connection cut by fault %s", hit.ID), true
		case "delay":
			s.cluster.SleepControl(func() {
				select {
				case <-time.After(hit.Delay):
				case <-hit.removed:
				}
			})
		}
	}
	for _, a := range stalls {
		if resp := s.stalled(a, req); resp != nil {
			return resp, nil, true
		}
	}
	return nil, nil, false
}

// stalled hides from ListOffsets and from the mirror engine what a stalled follower has not got.
func (s *Server) stalled(a *activeFault, req kmsg.Request) kmsg.Response {
	switch r := req.(type) {
	case *kmsg.FetchRequest:
		if r.SessionEpoch == -1 {
			r.Topics = slices.DeleteFunc(r.Topics, func(t kmsg.FetchRequestTopic) bool { return t.Topic == a.Topic })
		}
	case *kmsg.ListOffsetsRequest:
		if !slices.ContainsFunc(r.Topics, func(t kmsg.ListOffsetsRequestTopic) bool { return t.Topic == a.Topic }) {
			return nil
		}
		resp := r.ResponseKind().(*kmsg.ListOffsetsResponse)
		s.cluster.SleepControl(func() {
			for _, t := range r.Topics {
				rt := kmsg.NewListOffsetsResponseTopic()
				rt.Topic = t.Topic
				for _, p := range t.Partitions {
					rt.Partitions = append(rt.Partitions, s.listOffset(a, r, t.Topic, p))
				}
				resp.Topics = append(resp.Topics, rt)
			}
		})
		return resp
	}
	return nil
}

func (s *Server) listOffset(a *activeFault, r *kmsg.ListOffsetsRequest, topic string, p kmsg.ListOffsetsRequestTopicPartition) kmsg.ListOffsetsResponseTopicPartition {
	out := kmsg.NewListOffsetsResponseTopicPartition()
	out.Partition = p.Partition
	info := s.cluster.PartitionInfo(topic, p.Partition)
	switch {
	case info == nil:
		out.ErrorCode = kerr.UnknownTopicOrPartition.Code
	case p.Timestamp == -2:
		out.Offset, out.LeaderEpoch = info.LogStartOffset, info.Epoch
	case p.Timestamp == -1:
		out.Offset, out.LeaderEpoch = info.HighWatermark, info.Epoch
		if r.IsolationLevel == 1 {
			out.Offset = info.LastStableOffset
		}
		if topic == a.Topic {
			out.Offset = min(out.Offset, a.frozen[p.Partition])
		}
	default:
		out.ErrorCode = kerr.OffsetNotAvailable.Code
	}
	return out
}
