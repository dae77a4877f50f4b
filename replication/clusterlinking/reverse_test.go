package clusterlinking

import (
	"encoding/json"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"switchback/internal/fault"
	"switchback/replication"
)

// cutting answers truncate-and-restore as a service with these losses by partition and topic.
func (s *service) cutting(lost map[string][]object, total map[string]any) {
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "mirrors:truncate-and-restore") {
			return false
		}
		var in struct {
			Names []string `json:"mirror_topic_names"`
		}
		b, _ := io.ReadAll(r.Body)
		_ = json.Unmarshal(b, &in)
		var data []object
		for _, n := range in.Names {
			item := object{"kind": "AlterMirrorsData", "metadata": object{"self": "x"}, "mirror_topic_name": n, "error_code": nil, "error_message": nil,
				"mirror_lags": []object{}, "messages_truncated": total[n], "partition_level_truncation_data": append([]object{}, lost[n]...)}
			if total[n] == nil {
				item["error_code"], item["error_message"] = 400, "Cluster link is not bidirectional"
			} else if r.URL.Query().Get("validate_only") != "true" {
				s.mirrors[n] = "PENDING_SETUP_FOR_RESTORE"
			}
			data = append(data, item)
		}
		reply(w, 200, listed(data))
		return true
	}
}

func gone(partition, from, records int) object {
	return object{"partition_id": partition, "offset_truncated_to": from, "messages_truncated": records}
}

// Unknown is not zero: a loss that the link does not tell in full is never one that anybody could approve.
func TestPreviewRestore(t *testing.T) {
	s, l := newService(t)
	s.cutting(map[string][]object{"orders": {gone(2, 15, 25), gone(0, 10, 25), gone(1, 3, 0)}, "vague": {gone(0, 10, 25)}, "silent": {}},
		map[string]any{"orders": 50, "payments": 0, "vague": 50, "silent": -1})
	cuts, err := l.PreviewRestore(t.Context(), []string{"orders", "payments", "vague", "silent", "one-way"})
	require.NoError(t, err)
	require.Equal(t, []replication.Cut{
		{Topic: "orders", Status: replication.OK, Records: 50, Partitions: []replication.Truncation{{Partition: 0, From: 10, Records: 25}, {Partition: 2, From: 15, Records: 25}}},
		{Topic: "payments", Status: replication.OK},
		{Topic: "vague", Status: replication.Unclear, Records: 50, Reason: "the link says that 50 records go, and its partitions add up to 25", Partitions: []replication.Truncation{{Partition: 0, From: 10, Records: 25}}},
		{Topic: "silent", Status: replication.Unclear, Records: replication.Unknown, Reason: "the link says that an unknown number of records go, and its partitions add up to 0"},
		{Topic: "one-way", Status: replication.Failed, Records: replication.Unknown, Reason: "Cluster link is not bidirectional (code 400)"},
	}, cuts)
	require.Equal(t, "orders: 50 records go: 25 from offset 10 of partition 0, 25 from offset 15 of partition 2", cuts[0].String())
	require.Equal(t, 1, s.writes(), "one request for all")
}

// What was approved is previewed once more before anything is truncated, and nothing is when it differs (P28).
func TestP28_OnlyWhatWasApprovedIsTruncated(t *testing.T) {
	s, l := newService(t)
	s.mirrors = map[string]string{}
	s.cutting(map[string][]object{"orders": {gone(0, 10, 2)}}, map[string]any{"orders": 2, "payments": 0})
	approved, err := l.PreviewRestore(t.Context(), []string{"orders", "payments"})
	require.NoError(t, err)

	s.cutting(map[string][]object{"orders": {gone(0, 10, 3)}}, map[string]any{"orders": 3, "payments": 0})
	_, err = l.Restore(t.Context(), approved)
	require.ErrorIs(t, err, fault.ErrConflict)
	require.ErrorContains(t, err, "approved was orders: 2 records go: 2 from offset 10 of partition 0; now orders: 3 records go")
	require.Empty(t, s.mirrors, "nothing was truncated")

	s.cutting(map[string][]object{"orders": {gone(0, 10, 2)}}, map[string]any{"orders": 2, "payments": 0})
	out, err := l.Restore(t.Context(), approved)
	require.NoError(t, err)
	require.Equal(t, []replication.Outcome{{Name: "orders", Status: replication.Pending, Reason: "accepted"}, {Name: "payments", Status: replication.Pending, Reason: "accepted"}}, out)

	s.mirrors["payments"] = "ACTIVE"
	writes := s.writes()
	out, err = l.Restore(t.Context(), approved) // an activity may run twice
	require.NoError(t, err)
	require.Equal(t, writes, s.writes(), "what was asked for is not asked for again")
	require.ElementsMatch(t, []replication.Outcome{{Name: "orders", Status: replication.Pending, Reason: "PENDING_SETUP_FOR_RESTORE"}, {Name: "payments", Status: replication.OK, Reason: "it is a mirror already"}}, out)

	_, err = l.Restore(t.Context(), []replication.Cut{{Topic: "vague", Status: replication.Unclear}})
	require.ErrorIs(t, err, fault.ErrInvalid)
}

func TestReverseIsJudgedByTheMirrorsState(t *testing.T) {
	s, l := newService(t)
	s.mirrors = map[string]string{"active": "ACTIVE", "done": "STOPPED", "failed": "FAILED"}
	out, err := l.Reverse(t.Context(), []string{"active", "done", "failed"})
	require.NoError(t, err)
	require.Equal(t, []replication.Status{replication.Pending, replication.Unclear, replication.Failed}, []replication.Status{out[0].Status, out[1].Status, out[2].Status})
	require.Contains(t, out[1].Reason, "the mirrors of the other direction say")
	require.True(t, slices.ContainsFunc(s.calls, func(c string) bool {
		return strings.Contains(c, "mirrors:reverse-and-start-mirror?validate_only=false")
	}))
	out, err = l.ValidateReverse(t.Context(), []string{"failed"})
	require.NoError(t, err)
	require.Equal(t, replication.Failed, out[0].Status)
}

func TestPauseOfWhatIsPaused(t *testing.T) {
	s, l := newService(t)
	s.mirrors["orders"] = "PAUSED"
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.Contains(r.URL.Path, "mirrors:") {
			reply(w, 200, listed([]object{{"kind": "AlterMirrorsData", "metadata": object{"self": "x"}, "mirror_topic_name": "orders", "error_code": 400, "error_message": "no such transition",
				"mirror_lags": []object{}, "messages_truncated": -1, "partition_level_truncation_data": []object{}}}))
			return true
		}
		return false
	}
	out, err := l.Pause(t.Context(), []string{"orders"}, true)
	require.NoError(t, err)
	require.Equal(t, []replication.Outcome{{Name: "orders", Status: replication.OK, Reason: "it is so already"}}, out)
}

// Mirrors are made one by one: what is there is fine, what is stopped is no mirror any more, and one refusal leaves the others
// alone.
func TestCreateMirrors(t *testing.T) {
	s, l := newService(t)
	s.mirrors = map[string]string{"there": "ACTIVE", "starting": "PENDING_MIRROR", "promoted": "STOPPED"}
	s.deviates = true
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		topic := r.URL.Path[strings.LastIndex(r.URL.Path, "/")+1:]
		switch {
		case r.Method == http.MethodPost:
			var in struct {
				Topic string `json:"source_topic_name"`
			}
			b, _ := io.ReadAll(r.Body)
			_ = json.Unmarshal(b, &in)
			if _, ok := s.mirrors[in.Topic]; ok || in.Topic == "taken" {
				reply(w, 400, object{"error_code": 40002, "message": "Topic '" + in.Topic + "' already exists."})
				return true
			}
			w.WriteHeader(201)
		case strings.Contains(r.URL.Path, "/mirrors/") && s.mirrors[topic] == "":
			reply(w, 404, object{"error_code": 404, "message": "no mirror"})
		case strings.Contains(r.URL.Path, "/mirrors/"):
			reply(w, 200, object{"link_name": "east/west", "mirror_topic_name": topic, "source_topic_name": topic, "num_partitions": 2, "mirror_status": s.mirrors[topic], "mirror_lags": []object{}})
		default:
			return false
		}
		return true
	}
	out, err := l.CreateMirrors(t.Context(), []string{"new", "there", "starting", "promoted", "taken"})
	require.NoError(t, err)
	var got []replication.Status
	for _, o := range out {
		got = append(got, o.Status)
	}
	require.Equal(t, []replication.Status{replication.Pending, replication.OK, replication.Pending, replication.Failed, replication.Failed}, got)
	require.Contains(t, out[3].Reason, "it has to be restored, or deleted")
}

func TestDeleteTopics(t *testing.T) {
	s, l := newService(t)
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/topics/gone") {
			reply(w, 404, object{"error_code": 40403, "message": "This server does not host this topic-partition."})
			return true
		}
		if strings.HasSuffix(r.URL.Path, "/topics/nowhere") {
			reply(w, 404, object{"error_code": 404, "message": "HTTP 404 Not Found"})
			return true
		}
		return false
	}
	out, err := l.DeleteTopics(t.Context(), []string{"orders", "gone", "nowhere"})
	require.NoError(t, err)
	require.Equal(t, []replication.Status{replication.Pending, replication.OK, replication.Failed}, []replication.Status{out[0].Status, out[1].Status, out[2].Status}, "a path that is not there says nothing about a topic")
}

// A topic that feeds a third cluster, or whose stop is still under way, is named before anything is deleted (P28).
func TestP28_DependentsAreNamed(t *testing.T) {
	s, l := newService(t)
	s.deviates = true
	s.mirrors = map[string]string{"stopping": "PENDING_STOPPED", "done": "STOPPED"}
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		switch path := r.URL.EscapedPath(); {
		case strings.HasSuffix(path, "/links"):
			reply(w, 200, listed([]object{{"link_name": "east/west", "topic_names": []string{"stopping", "done"}}, {"link_name": "", "topic_names": []string{"x"}},
				{"link_name": "to-north", "topic_names": []string{"fed"}}}))
		case strings.HasSuffix(path, "/links/to-north/mirrors"):
			reply(w, 200, listed([]object{}))
		default:
			return false
		}
		return true
	}
	out, err := l.Dependents(t.Context(), []string{"stopping", "done", "fed", "free"})
	require.NoError(t, err)
	require.Equal(t, []replication.Outcome{
		{Name: "stopping", Status: replication.Failed, Reason: "its mirror of link east/west is PENDING_STOPPED"},
		{Name: "fed", Status: replication.Failed, Reason: "it is mirrored elsewhere by link to-north"},
	}, out)
}
