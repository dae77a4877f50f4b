package clusterlinking

import (
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"

	"switchback/internal/rest"
	"switchback/replication"
)

// The service adds fields and words over time, and its fixtures contradict its specification. So scalars of the wrong
// type are read as unknown, while an answer of the wrong shape is an error: a missing list is never an empty one.

// number is an int64 that may be null, absent or nonsense.
type number struct {
	v       int64
	known   bool
	garbage bool // present, neither a number nor null
}

func (n *number) UnmarshalJSON(b []byte) error {
	*n = number{}
	if string(b) == "null" {
		return nil
	}
	n.known = json.Unmarshal(b, &n.v) == nil
	n.garbage = !n.known
	return nil
}

func (n number) or(d int64) int64 {
	if n.known {
		return n.v
	}
	return d
}

// text is a string that may be null; anything else is kept as written, so that it is shown and never matches.
type text string

func (t *text) UnmarshalJSON(b []byte) error {
	var s *string
	if json.Unmarshal(b, &s) != nil {
		*t = text(b)
	} else if s != nil {
		*t = text(*s)
	} else {
		*t = ""
	}
	return nil
}

// flag is a boolean that may come as a string.
type flag bool

func (f *flag) UnmarshalJSON(b []byte) error {
	*f = flag(strings.EqualFold(strings.Trim(string(b), `"`), "true"))
	return nil
}

// list is {"data":[…]}; each element is decoded on its own. A null element is left out.
type list[T any] struct {
	items []T
}

func (l *list[T]) UnmarshalJSON(b []byte) error {
	var raw struct {
		Data *[]*T `json:"data"`
	}
	if err := json.Unmarshal(b, &raw); err != nil {
		return err
	}
	if raw.Data == nil {
		return fmt.Errorf("the list has no data")
	}
	l.items = make([]T, 0, len(*raw.Data))
	for _, d := range *raw.Data {
		if d != nil {
			l.items = append(l.items, *d)
		}
	}
	return nil
}

type wireError struct {
	Code    text `json:"error_code"`
	Message text `json:"error_message"`
}

type wireLink struct {
	Name         text       `json:"link_name"`
	ID           text       `json:"cluster_link_id"`
	OldID        text       `json:"link_id"`
	Source       text       `json:"source_cluster_id"`
	Destination  text       `json:"destination_cluster_id"`
	Remote       text       `json:"remote_cluster_id"`
	Topics       []text     `json:"topic_names"`
	State        text       `json:"link_state"`
	Error        text       `json:"link_error"`
	ErrorMessage text       `json:"link_error_message"`
	Tasks        []wireTask `json:"tasks"`
}

type wireTask struct {
	Name   text        `json:"task_name"`
	State  text        `json:"state"`
	Errors []wireError `json:"errors"`
}

type wireConfig struct {
	Name         text  `json:"name"`
	Value        text  `json:"value"`
	Default      *flag `json:"is_default"`
	Source       text  `json:"source"`
	IsSensitive  flag  `json:"is_sensitive"`
	OldSensitive flag  `json:"sensitive"`
}

type wireLag struct {
	Partition number `json:"partition"`
	Lag       number `json:"lag"`
	Fetched   number `json:"last_source_fetch_offset"`
}

type wireMirror struct {
	Link       text        `json:"link_name"`
	Topic      text        `json:"mirror_topic_name"`
	Source     text        `json:"source_topic_name"`
	Partitions number      `json:"num_partitions"`
	Lags       []wireLag   `json:"mirror_lags"`
	Status     text        `json:"mirror_status"`
	Error      text        `json:"mirror_topic_error"`
	Since      number      `json:"state_time_ms"`
	Transition []wireError `json:"mirror_state_transition_errors"`
}

type wireAltered struct {
	Topic      text      `json:"mirror_topic_name"`
	Code       number    `json:"error_code"`
	Message    text      `json:"error_message"`
	Lags       []wireLag `json:"mirror_lags"`
	Truncated  number    `json:"messages_truncated"`
	Partitions []struct {
		Partition number `json:"partition_id"`
		Offset    number `json:"offset_truncated_to"`
		Truncated number `json:"messages_truncated"`
	} `json:"partition_level_truncation_data"`
}

var mirrorStates = map[text]replication.MirrorState{
	"ACTIVE":                    replication.MirrorActive,
	"PAUSED":                    replication.MirrorPaused,
	"LINK_PAUSED":               replication.MirrorPaused,
	"PENDING_MIRROR":            replication.MirrorStarting,
	"PENDING_SYNCHRONIZE":       replication.MirrorStarting,
	"PENDING_SETUP_FOR_RESTORE": replication.MirrorStarting,
	"PENDING_RESTORE":           replication.MirrorStarting,
	"PENDING_STOPPED":           replication.MirrorStopping,
	"STOPPED":                   replication.MirrorStopped,
	"SOURCE_UNAVAILABLE":        replication.MirrorSourceLost,
	"FAILED":                    replication.MirrorFailed,
	"LINK_FAILED":               replication.MirrorFailed,
}

func (w wireMirror) mirror() replication.Mirror {
	m := replication.Mirror{
		Topic: string(w.Topic), SourceTopic: string(w.Source), Raw: string(w.Status), State: replication.MirrorUnknown,
		Lag: map[int32]int64{}, Fetched: map[int32]int64{},
	}
	if s, ok := mirrorStates[w.Status]; ok {
		m.State = s
	}
	if p := w.Partitions.or(0); p > 0 && p <= math.MaxInt32 {
		m.Partitions = int(p)
	}
	if ms := w.Since.or(0); ms > 0 {
		m.Since = time.UnixMilli(ms).UTC()
	}
	for _, l := range w.Lags {
		p := l.Partition.or(-1)
		if p < 0 || p > math.MaxInt32 {
			continue
		}
		if l.Lag.known && l.Lag.v >= 0 {
			m.Lag[int32(p)] = l.Lag.v
		}
		if l.Fetched.known && l.Fetched.v >= 0 { // -1: nothing was ever fetched, which is unknown
			m.Fetched[int32(p)] = l.Fetched.v
		}
	}
	var why []string
	switch w.Error {
	case "", "NO_ERROR", "NOT_SET":
	default:
		why = append(why, rest.Plain(string(w.Error), nil))
	}
	m.Reason = strings.Join(append(why, reasons(w.Transition)...), "; ")
	return m
}

func reasons(errs []wireError) (out []string) {
	for _, e := range errs {
		if e.Code != "" && e.Code != "NO_ERROR" || e.Message != "" {
			out = append(out, strings.Trim(rest.Plain(string(e.Code), nil)+": "+rest.Plain(string(e.Message), nil), ": "))
		}
	}
	return out
}
