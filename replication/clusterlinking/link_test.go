package clusterlinking

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/internal/fault"
	"switchback/internal/secret"
	"switchback/replication"
)

var held = replication.Suspension{Topics: []string{"orders"}, Groups: []string{"billing"}}

func set(s *service) {
	s.configs = map[string]string{
		offsetKeys.enable: "true", offsetKeys.filter: all, offsetKeys.interval: "1000",
		aclKeys.enable: "true", aclKeys.filter: `{"aclFilters":[]}`,
		topicKeys.enable: "true", topicKeys.filter: strings.Replace(all, groupFilters, topicFilters, 1),
	}
}

func copied(m map[string]string) map[string]string {
	c := map[string]string{}
	for k, v := range m {
		c[k] = v
	}
	return c
}

func TestStatus(t *testing.T) {
	s, l := newService(t)
	set(s)
	st, err := l.Status(t.Context())
	require.NoError(t, err)
	require.Equal(t, replication.LinkStatus{
		Name: "east/west", ID: "id", Direction: replication.OneWay, Healthy: true, SourceCluster: "lkc-e", Topics: []string{"orders", "payments"},
		Syncs: replication.Syncs{
			Offsets: replication.Sync{Enabled: true, Interval: time.Second, Filter: all},
			ACLs:    replication.Sync{Enabled: true, Interval: 5 * time.Second, Filter: `{"aclFilters":[]}`},
			Topics:  replication.Sync{Enabled: true, Filter: s.configs[topicKeys.filter]},
		},
		Tasks:       []replication.Outcome{{Name: "AclSync", Status: replication.OK, Reason: "not configured"}},
		RefreshWait: 5 * time.Minute,
	}, st)
	require.NotContains(t, fmt.Sprintf("%+v", st), canary)

	configs, err := l.client.configs(t.Context(), "east/west")
	require.NoError(t, err)
	require.Empty(t, configs["sasl.jaas.config"].Value)
}

func TestStatusSaysWhyALinkIsNotHealthy(t *testing.T) {
	for body, want := range map[string]string{
		`{"link_name":"east/west","link_state":"UNAVAILABLE","link_error":"AUTHENTICATION_ERROR","link_error_message":"check"}`:                                   "the link is UNAVAILABLE; AUTHENTICATION_ERROR: check",
		`{"link_name":"east/west","link_state":"NEW_WORD"}`:                                                                                                       "the link is NEW_WORD",
		`{"link_name":"east/west","link_state":"ACTIVE","tasks":[{"task_name":"AclSync","state":"IN_ERROR","errors":[{"error_code":"X","error_message":null}]}]}`: "AclSync is in_error: X",
		`{"link_name":"east/west","topic_names":[null]}`:                                                                                                          "", // older service: the mirrors are healthy
	} {
		s, l := newService(t)
		s.deviates = true
		s.hook = func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.EscapedPath(), "/links/east%2Fwest") {
				rec := w
				s.answer(rec, r, "", nil)
				return true
			}
			_, _ = w.Write([]byte(body))
			return true
		}
		st, err := l.Status(t.Context())
		require.NoError(t, err)
		require.Equal(t, want, st.Reason)
		require.Equal(t, want == "", st.Healthy)
	}
}

func TestP03_SuspendAndRestore(t *testing.T) {
	for name, prepare := range map[string]func(*service){
		"everything on":    set,
		"everything off":   func(*service) {},
		"no filters":       func(s *service) { s.configs = map[string]string{offsetKeys.enable: "true", topicKeys.enable: "true"} },
		"explicitly off":   func(s *service) { s.configs = map[string]string{aclKeys.enable: "false", offsetKeys.enable: "false"} },
		"key by key (405)": func(s *service) { set(s); s.noAlter, s.deviates = true, true },
	} {
		t.Run(name, func(t *testing.T) {
			s, l := newService(t)
			prepare(s)
			want := copied(s.configs)
			st, err := l.Status(t.Context())
			require.NoError(t, err)
			for range 2 { // an activity may run twice
				require.NoError(t, l.SuspendSyncs(t.Context(), st.Syncs, held))
				require.NotEqual(t, "true", s.configs[aclKeys.enable])
				require.False(t, s.configs[offsetKeys.enable] == "true" && GroupSynced(s.configs[offsetKeys.filter], "billing"))
				require.NoError(t, l.HoldsBack(t.Context(), held.Groups))
			}
			require.NoError(t, l.RestoreSyncs(t.Context(), st.Syncs, held, true))
			require.NotEqual(t, "true", s.configs[aclKeys.enable])
			for range 2 {
				require.NoError(t, l.RestoreSyncs(t.Context(), st.Syncs, held, false))
				require.Equal(t, want, s.configs)
			}
		})
	}
}

func TestP03_AnotherRunbookOnTheLinkKeepsItsOwn(t *testing.T) {
	s, l := newService(t)
	s.configs = map[string]string{offsetKeys.enable: "true", offsetKeys.filter: all}
	first, err := l.Status(t.Context())
	require.NoError(t, err)
	require.NoError(t, l.SuspendSyncs(t.Context(), first.Syncs, held))
	second, err := l.Status(t.Context())
	require.NoError(t, err)
	other := replication.Suspension{Groups: []string{"shipping"}}
	require.NoError(t, l.SuspendSyncs(t.Context(), second.Syncs, other))

	require.NoError(t, l.RestoreSyncs(t.Context(), first.Syncs, held, false))
	require.True(t, GroupSynced(s.configs[offsetKeys.filter], "billing"))
	require.NoError(t, l.HoldsBack(t.Context(), other.Groups))
	require.NoError(t, l.RestoreSyncs(t.Context(), second.Syncs, other, false))
	require.Equal(t, all, s.configs[offsetKeys.filter])
}

func TestSuspendIsNotDoneUntilItIsRead(t *testing.T) {
	s, l := newService(t)
	set(s)
	s.hook = func(w http.ResponseWriter, r *http.Request) bool { // accepted, and not done
		if r.Method == http.MethodPut {
			w.WriteHeader(204)
			return true
		}
		return false
	}
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err := l.SuspendSyncs(ctx, replication.Syncs{}, held)
	require.Error(t, err)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestHoldsBackNamesWhatIsStillSynced(t *testing.T) {
	s, l := newService(t)
	set(s)
	err := l.HoldsBack(t.Context(), []string{"billing"})
	require.ErrorIs(t, err, fault.ErrNotReady)
	require.ErrorContains(t, err, "billing")
	s.configs[offsetKeys.filter] = "nonsense"
	require.ErrorIs(t, l.HoldsBack(t.Context(), []string{"billing"}), fault.ErrInvalid)
}

func TestMirrors(t *testing.T) {
	s, l := newService(t)
	for raw, want := range mirrorStates {
		s.mirrors = map[string]string{"orders": string(raw)}
		ms, err := l.Mirrors(t.Context())
		require.NoError(t, err)
		require.Equal(t, []replication.Mirror{{Topic: "orders", SourceTopic: "orders", Partitions: 2, State: want, Raw: string(raw),
			Lag: map[int32]int64{0: 0, 1: 7}, Fetched: map[int32]int64{0: 12}, Since: time.UnixMilli(1700000000000).UTC()}}, ms)
	}
	s.mirrors, s.deviates = map[string]string{"orders": "SHINY"}, true
	ms, err := l.Mirrors(t.Context())
	require.NoError(t, err)
	require.Equal(t, replication.MirrorUnknown, ms[0].State)
	require.Equal(t, "SHINY", ms[0].Raw)
}

func TestP15_AnAcceptedStopIsPendingNeverOK(t *testing.T) {
	for _, kind := range []replication.StopKind{replication.Promote, replication.Failover} {
		s, l := newService(t)
		s.mirrors = map[string]string{"a": "ACTIVE", "b": "STOPPED", "c": "PENDING_STOPPED", "d": "FAILED"}
		topics := []string{"a", "b", "c", "d", "a"}
		out, err := l.ValidateStop(t.Context(), kind, topics)
		require.NoError(t, err)
		require.Equal(t, []replication.Status{replication.OK, replication.OK, replication.Pending, replication.Failed}, statuses(out))
		require.Equal(t, "ACTIVE", s.mirrors["a"])
		out, err = l.Stop(t.Context(), kind, topics)
		require.NoError(t, err)
		require.Equal(t, []replication.Status{replication.Pending, replication.OK, replication.Pending, replication.Failed}, statuses(out))
		require.Contains(t, s.calls[len(s.calls)-2], "/mirrors:"+string(kind)+"?validate_only=false")
	}
	_, l := newService(t)
	require.True(t, l.StopIsFinal())
	out, err := l.Stop(t.Context(), replication.Promote, nil)
	require.NoError(t, err)
	require.Empty(t, out)
	_, err = l.Stop(t.Context(), "halt", []string{"a"})
	require.ErrorIs(t, err, fault.ErrInvalid)
}

func statuses(out []replication.Outcome) (s []replication.Status) {
	for _, o := range out {
		s = append(s, o.Status)
	}
	return s
}

func TestStopInSeveralRequestsSaysHowFarItCame(t *testing.T) {
	s, l := newService(t)
	l.batch = 1
	posts := 0
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if posts++; posts == 2 {
			reply(w, 500, object{"error_code": 500, "message": "Internal Server Error"})
			return true
		}
		return false
	}
	out, err := l.Stop(t.Context(), replication.Promote, []string{"orders", "payments", "third"})
	require.ErrorIs(t, err, fault.ErrUnclear)
	require.Equal(t, []replication.Status{replication.Pending, replication.Unclear, replication.Failed}, statuses(out))
	require.Equal(t, 2, posts) // never repeated, and nothing asked after it
}

func TestStopWithAnAnswerThatLacksTopics(t *testing.T) {
	s, l := newService(t)
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		reply(w, 200, listed([]object{}))
		return true
	}
	out, err := l.Stop(t.Context(), replication.Promote, []string{"orders"})
	require.NoError(t, err)
	require.Equal(t, []replication.Status{replication.Unclear}, statuses(out))
}

func TestDrained(t *testing.T) {
	_, l := newService(t)
	l.target = offsets{end(0, 10), end(1, 9), end(2, 11), end(3, replication.Unknown)}
	source := []replication.Ends{end(0, 10), end(1, 10), end(2, 10), end(3, 10), end(4, 10), end(0, replication.Unknown)}
	out, err := l.Drained(t.Context(), source)
	require.NoError(t, err)
	require.Equal(t, []replication.Status{replication.OK, replication.Pending, replication.Failed, replication.Unclear, replication.Unclear, replication.Unclear}, statuses(out))
	require.Equal(t, "orders-1", out[1].Name)
	require.Equal(t, "1 records to go", out[1].Reason)

	l.source = offsets{end(0, 10)}
	out, err = l.Equal(t.Context(), []string{"orders", "unseen"})
	require.NoError(t, err)
	require.Equal(t, []replication.Status{replication.OK, replication.Unclear}, statuses(out))
}

func TestTranslate(t *testing.T) {
	_, l := newService(t)
	out, err := l.Translate(t.Context(), []replication.GroupOffsets{
		{Group: "billing", Offsets: []replication.Translated{{Source: 42}, {Source: replication.Unknown, Target: 9}}},
	})
	require.NoError(t, err)
	require.Equal(t, []replication.GroupOffsets{{Group: "billing", Offsets: []replication.Translated{
		{Source: 42, Target: 42, Proof: "exact"}, {Source: -1, Target: -1, Proof: "no commit on the source"},
	}}}, out)
}

func TestLastKnownIsWhatTheSyncWrote(t *testing.T) {
	_, l := newService(t)
	out, err := l.LastKnown(t.Context(), []replication.GroupOffsets{
		{Group: "billing", Offsets: []replication.Translated{{Target: 42, Source: replication.Unknown}, {Target: replication.Unknown}}},
	})
	require.NoError(t, err)
	require.Equal(t, int64(42), out[0].Offsets[0].Source)
	require.Equal(t, ProofSynced, out[0].Offsets[0].Proof)
	require.Equal(t, replication.Unknown, out[0].Offsets[1].Target) // nothing came: the runbook decides, not zero
}

func TestSynced(t *testing.T) {
	_, l := newService(t)
	s := replication.Syncs{Offsets: replication.Sync{Enabled: true, Filter: `{"groupFilters":[{"name":"b","patternType":"PREFIXED","filterType":"INCLUDE"}]}`}}
	require.Equal(t, []replication.Status{replication.OK, replication.Failed}, statuses(l.Synced(s, []string{"billing", "shipping"})))
	s.Offsets.Enabled = false
	require.Equal(t, []replication.Status{replication.Failed}, statuses(l.Synced(s, []string{"billing"})))
}

func TestLaterRequestsFollowTheSpecification(t *testing.T) {
	s, l := newService(t)
	ctx, c := t.Context(), l.Client()
	require.NoError(t, c.CreateMirror(ctx, "east/west", NewMirror{SourceTopic: "orders", Topic: "orders", Configs: []ConfigEntry{{Name: "a", Value: "b"}}}))
	require.NotContains(t, s.bodies[0], "mirror_topic_name")
	require.NoError(t, c.CreateLink(ctx, NewLink{Name: "new", SourceCluster: "lkc-e", Configs: []ConfigEntry{{Name: "sasl.jaas.config", Secret: secret.New("s3cret")}}}))
	require.Contains(t, s.bodies[1], "s3cret")
	for _, a := range []Action{ActionPause, ActionResume, ActionReverseAndStart, ActionReverseAndPause} {
		out, err := c.Alter(ctx, "east/west", a, []string{"orders"}, true)
		require.NoError(t, err)
		require.True(t, out[0].Accepted)
	}
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		if !strings.Contains(r.URL.Path, "truncate") {
			return false
		}
		reply(w, 200, listed([]object{{"kind": "x", "metadata": object{"self": "x"}, "mirror_topic_name": "orders", "error_code": nil, "error_message": nil, "mirror_lags": []object{},
			"messages_truncated": 50, "partition_level_truncation_data": []object{{"partition_id": 2, "offset_truncated_to": 15, "messages_truncated": 25}}}}))
		return true
	}
	out, err := c.Alter(ctx, "east/west", ActionTruncate, []string{"orders"}, true)
	require.NoError(t, err)
	require.Equal(t, []Altered{{Topic: "orders", Accepted: true, Truncated: 50, ByPart: []Truncation{{2, 15, 25}}}}, out)
	_, err = c.Alter(ctx, "east/west", ActionPause, nil, false)
	require.ErrorIs(t, err, fault.ErrInvalid)

	s.deviates = true // 204 for 200, and paths outside the subset
	require.NoError(t, c.DeleteLink(ctx, "east/west", false, true))
	require.NoError(t, c.DeleteTopic(ctx, "or ders/x"))
	require.Equal(t, "DELETE /kafka/v3/clusters/lkc-w/topics/or%20ders%2Fx", s.calls[len(s.calls)-1])
	require.ErrorIs(t, c.DeleteTopic(ctx, ".."), fault.ErrInvalid)
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		_, _ = w.Write([]byte(`{"data":[{"link_name":""},{"link_name":"a"},null]}`))
		return true
	}
	names, err := c.Links(ctx)
	require.NoError(t, err)
	require.Equal(t, []string{"a"}, names)
	s.hook = func(w http.ResponseWriter, r *http.Request) bool {
		_, _ = w.Write([]byte(`{"mirror_topic_name":"orders","mirror_status":"FAILED","mirror_topic_error":"Error1","mirror_state_transition_errors":[{"error_code":"X","error_message":"why"}]}`))
		return true
	}
	m, err := l.Mirror(ctx, "orders")
	require.NoError(t, err)
	require.Equal(t, "Error1; X: why", m.Reason)
}
