package activities

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/internal/fault"
	"switchback/replication"
	"switchback/runbooks"
)

// backLink is the way home over one-way links: topics of east are deleted and mirrored anew.
type backLink struct {
	*fakeLink

	hangs   []string // what hangs on the topics
	deleted []string
}

func newBack(w *world) *backLink {
	b := &backLink{fakeLink: newLink(w)}
	b.mirrors = map[string]*fakeMirror{}
	return b
}

func (b *backLink) Dependents(context.Context, []string) (list []replication.Outcome, _ error) {
	for _, h := range b.hangs {
		list = append(list, replication.Outcome{Name: h, Status: replication.Failed, Reason: "a third cluster mirrors it"})
	}
	return list, nil
}

func (b *backLink) Pause(context.Context, []string, bool) ([]replication.Outcome, error) {
	return nil, nil
}

func (b *backLink) DeleteTopics(ctx context.Context, topics []string) (list []replication.Outcome, err error) {
	err = b.w.do(ctx, "back.DeleteTopics", func() error {
		cl := b.w.raw("east", admin)
		_, err := kadm.NewClient(cl).DeleteTopics(ctx, topics...)
		b.deleted = append(b.deleted, topics...)
		return err
	})
	return list, err
}

func (b *backLink) CreateMirrors(ctx context.Context, topics []string) (list []replication.Outcome, err error) {
	err = b.w.do(ctx, "back.CreateMirrors", func() error {
		admin := kadm.NewClient(b.w.raw("east", admin))
		there, err := b.w.as("west", "admin").Topics(ctx, func(name string) bool { return slices.Contains(topics, name) })
		if err != nil {
			return err
		}
		for _, t := range there {
			if _, err := admin.CreateTopic(ctx, int32(t.Partitions), 1, nil, t.Name); err != nil { //nolint:gosec // a handful
				return err
			}
			b.mu.Lock()
			b.mirrors[t.Name] = &fakeMirror{Mirror: replication.Mirror{Topic: t.Name, SourceTopic: t.Name, Partitions: t.Partitions, State: replication.MirrorActive, Raw: "ACTIVE"}}
			b.mu.Unlock()
		}
		return nil
	})
	return list, err
}

// cutLink is the way home over a bidirectional link: topics of east are cut back.
type cutLink struct {
	*backLink

	cuts    func() []replication.Cut
	restore int
}

func (c *cutLink) PreviewRestore(context.Context, []string) ([]replication.Cut, error) {
	return c.cuts(), nil
}

func (c *cutLink) Restore(ctx context.Context, approved []replication.Cut) (list []replication.Outcome, err error) {
	now := c.cuts()
	for _, a := range approved {
		if !slices.ContainsFunc(now, a.Equal) {
			return nil, fmt.Errorf("it is not what was approved: %w", fault.ErrConflict)
		}
	}
	err = c.w.do(ctx, "back.Restore", func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.restore++
		for _, a := range approved {
			c.mirrors[a.Topic] = &fakeMirror{Mirror: replication.Mirror{Topic: a.Topic, SourceTopic: a.Topic, State: replication.MirrorActive, Raw: "ACTIVE"}}
		}
		return nil
	})
	return list, err
}

func (c *cutLink) ValidateReverse(context.Context, []string) ([]replication.Outcome, error) {
	return nil, nil
}
func (c *cutLink) Reverse(context.Context, []string) ([]replication.Outcome, error) { return nil, nil }

// homeward is a world whose workload is on west, with a record on east that only east has.
func homeward(t *testing.T) (*world, *backLink) {
	w := stranded(t)
	back := newBack(w)
	w.back = back
	return w, back
}

func (w *world) turn() TurnInput {
	r := w.route()
	return TurnInput{Guard: w.guard(), Route: Route{From: r.To, To: r.From, Link: runbooks.Link{From: "west", To: "east", ClusterLinking: &runbooks.ClusterLinking{Link: "west-east"}}},
		Opposite: r.Link, Topics: w.runbook().Topics, Deadline: soon()}
}

func (w *world) examine(in TurnInput) (TurnPlan, error) {
	return run[TurnPlan](w, (*Turns)(nil).Examine, in)
}

func (w *world) position(in TurnInput) (TurnedResult, error) {
	return run[TurnedResult](w, (*Turns)(nil).Position, in)
}

func problemsIn(list []Finding) (checks []string) {
	for _, f := range list {
		if f.Level == LevelProblem {
			checks = append(checks, f.Check)
		}
	}
	return checks
}

// What only the old cluster has is no plan's to take: not before it was recovered, or its loss was accepted by the topic's name.
func TestI9_WhatExistsNowhereElseDoesNotGo(t *testing.T) {
	t.Parallel()
	w, back := homeward(t)
	in := w.turn()
	plan, err := w.examine(in)
	require.NoError(t, err)
	require.Equal(t, WayRebuild, plan.Way)
	require.EqualValues(t, 1, plan.Unsaved)
	require.Equal(t, []string{"unsaved"}, problemsIn(plan.Findings))
	_, err = w.position(in)
	require.Error(t, err, "nothing was approved")
	require.Empty(t, back.deleted)

	in.Accept = []string{"payments"}
	plan, err = w.examine(in)
	require.NoError(t, err)
	require.Equal(t, []string{"unsaved"}, problemsIn(plan.Findings), "another topic's name is no consent")
	in.Accept = []string{"orders"}
	plan, err = w.examine(in)
	require.NoError(t, err)
	require.Empty(t, problemsIn(plan.Findings))

	_, account, err := w.recoverAll(w.recovery(), "append")
	require.NoError(t, err)
	require.EqualValues(t, 1, account.Total.Recovered)
	in.Accept = nil
	plan, err = w.examine(in)
	require.NoError(t, err)
	require.Zero(t, plan.Unsaved, plan.Text)
	require.Empty(t, problemsIn(plan.Findings))
	require.EqualValues(t, 1, plan.Goes, "its copy is on west")
}

// Between approval and deed somebody writes to what would go, or something begins to hang on it: nothing is deleted.
func TestP28_WhatIsNotAsItWasApprovedIsNotDeleted(t *testing.T) {
	t.Parallel()
	for name, meanwhile := range map[string]func(w *world, back *backLink){
		"a record was written":       func(w *world, _ *backLink) { w.write("east", "orders", 1, 1) },
		"a third cluster mirrors it": func(_ *world, back *backLink) { back.hangs = []string{"orders"} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, back := homeward(t)
			in := w.turn()
			in.Accept = []string{"orders"}
			_, err := w.examine(in)
			require.NoError(t, err)
			meanwhile(w, back)
			_, err = w.position(in)
			require.Equal(t, TypeInvalid, typeOf(err), "%v", err)
			require.Empty(t, back.deleted)
		})
	}
}

// slowBack shows topics that it makes as such for a while, before they are mirrors.
type slowBack struct {
	*backLink

	asked int // to make mirrors
}

func (s *slowBack) CreateMirrors(ctx context.Context, topics []string) ([]replication.Outcome, error) {
	list, err := s.backLink.CreateMirrors(ctx, topics)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.asked++; s.asked == 1 {
		clear(s.mirrors)
		return list, err
	}
	for _, topic := range topics { // they were there
		s.mirrors[topic] = &fakeMirror{Mirror: replication.Mirror{Topic: topic, SourceTopic: topic, State: replication.MirrorActive, Raw: "ACTIVE"}}
	}
	return list, nil
}

// P28: a topic that was deleted and is there again, empty, is a mirror in the making: nobody wrote there, and it is not deleted again.
func TestP28_AMirrorInTheMakingIsWaitedFor(t *testing.T) {
	t.Parallel()
	w, back := homeward(t)
	slow := &slowBack{backLink: back}
	w.back = slow
	in := w.turn()
	in.Accept = []string{"orders"}
	_, err := w.examine(in)
	require.NoError(t, err)
	_, err = w.position(in)
	require.NoError(t, err)
	require.Equal(t, 2, slow.asked)
	require.ElementsMatch(t, []string{"orders", "payments"}, back.deleted, "once")
}

// A bidirectional link cuts topics back by exactly what was approved; another preview parks.
func TestP28_ARestoreIsTheOneThatWasApproved(t *testing.T) {
	t.Parallel()
	w, back := homeward(t)
	records := int64(1)
	link := &cutLink{backLink: back}
	link.cuts = func() []replication.Cut {
		return []replication.Cut{{Topic: "orders", Status: replication.OK, Records: records}, {Topic: "payments", Status: replication.OK}}
	}
	w.back = link
	in := w.turn()
	in.Accept = []string{"orders"}
	plan, err := w.examine(in)
	require.NoError(t, err)
	require.Equal(t, WayRestore, plan.Way)
	records = 2
	_, err = w.position(in)
	require.Equal(t, TypeInvalid, typeOf(err), "%v", err)
	require.Zero(t, link.restore)
	records = 1
	out, err := w.position(in)
	require.NoError(t, err)
	require.Equal(t, WayRestore, out.Way)
	require.Empty(t, back.deleted)
}

// Killed at any write, another attempt leaves the same.
func TestKilledWhileTheFlowIsTurnedRound(t *testing.T) {
	t.Parallel()
	everywhere(t, func(t *testing.T) *world {
		w, _ := homeward(t)
		return w
	}, func(w *world) error {
		in := w.turn()
		in.Accept = []string{"orders"}
		if _, err := w.examine(in); err != nil {
			return err
		}
		if _, err := w.position(in); err != nil {
			return err
		}
		if _, err := run[GivenWay](w, (*Turns)(nil).GiveWay, in); err != nil {
			return err
		}
		_, err := run[TurnedResult](w, (*Turns)(nil).Flow, in)
		return err
	})
}

// P14: where a mirror is a topic like any other, everybody with a grant is denied by name before the fence gives way; a grant for
// everybody has no name.
func TestP14_EverybodyIsNamedBeforeTheFenceGivesWay(t *testing.T) {
	t.Parallel()
	w, back := homeward(t)
	back.seals = true
	out, err := run[GivenWay](w, (*Turns)(nil).GiveWay, w.turn())
	require.NoError(t, err)
	require.Equal(t, []string{"User:" + checkout}, out.Closed)
	require.Less(t, slices.Index(w.trace, "east.CreateACLs"), slices.Index(w.trace, "east.DeleteACLs"), "%v", w.trace)
	var left []string
	for _, d := range w.denies("east") {
		require.NotContains(t, d, "User:*")
		left = append(left, d)
	}
	require.NotEmpty(t, left)

	w, back = homeward(t)
	back.seals = true
	require.NoError(t, w.as("east", admin).CreateACLs(context.Background(), []replication.ACL{{ResourceType: "TOPIC", Pattern: "LITERAL", Name: "orders", Principal: "User:*", Host: "*", Operation: "WRITE", Permission: replication.Allow}}))
	before := w.denies("east")
	_, err = run[GivenWay](w, (*Turns)(nil).GiveWay, w.turn())
	require.Equal(t, TypeInvalid, typeOf(err), "%v", err)
	require.Equal(t, before, w.denies("east"), "the fence stands")
}

func (w *world) inStep(until time.Time) (InStepResult, error) {
	in := InStepInput{TurnInput: w.turn(), Runbook: w.runbook(), Within: time.Hour}
	in.Deadline = until
	return run[InStepResult](w, (*Turns)(nil).InStep, in)
}

// P25: a cluster that returns expects the members of its groups back for a session timeout; nothing goes there before.
func TestP25_MembersOfDaysBeforeAreWaitedFor(t *testing.T) {
	t.Parallel()
	w, back := homeward(t)
	back.mirrors = maps.Clone(w.link.mirrors)
	member := w.raw("east", admin, kgo.ConsumerGroup("billing"), kgo.ConsumeTopics("orders"))
	w.stable("east", "billing")
	_, err := w.inStep(late())
	require.ErrorContains(t, err, "group billing has members on east")
	member.LeaveGroup()
	_, err = w.inStep(soon())
	require.NoError(t, err)
}

// P26: at home the recovered records lie before the point at which groups go on, so every group reads past their copies first.
func TestP26_GroupsReadPastTheCopiesFirst(t *testing.T) {
	t.Parallel()
	w, back := homeward(t)
	back.seals = true
	_, account, err := w.recoverAll(w.recovery(), "append")
	require.NoError(t, err)
	require.EqualValues(t, 1, account.Total.Recovered)
	ctx := context.Background()
	r, err := w.outside().open(ctx, w.turn().Route)
	require.NoError(t, err)
	defer r.close()
	behind, err := behindCopies(ctx, r, []string{"billing"})
	require.NoError(t, err)
	require.Len(t, behind, 1)
	require.Contains(t, behind[0], "group billing is at offset")
	require.ErrorContains(t, pastCopies(ctx, r, []string{"billing"}), "recovered records are not read yet, and would be skipped at east")

	ends, err := w.as("west", admin).Ends(ctx, []string{"orders"})
	require.NoError(t, err)
	read := map[replication.Partition]int64{}
	for _, e := range ends {
		read[e.Partition] = e.LogEnd
	}
	w.commit("west", "billing", read)
	require.NoError(t, pastCopies(ctx, r, []string{"billing"}))
	back.seals = false
	w.commit("west", "billing", map[replication.Partition]int64{at("orders", 0): 1})
	require.NoError(t, pastCopies(ctx, r, []string{"billing"}), "byte for byte, the copies go home as they are")
}
