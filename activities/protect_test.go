package activities

import (
	"context"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"switchback/replication"
	"switchback/runbooks"
)

// Differences of the double: offset sync that is off, and mirrors that do not run.
func (l *fakeLink) Differences(_ context.Context, want replication.Protection) (list []replication.Difference, _ error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.now.Offsets.Enabled {
		list = append(list, replication.Difference{Kind: replication.KindOffsetSync, Name: "consumer.offset.sync.enable", Level: replication.LevelProblem, Is: "false", Should: "true", Mend: "turn it on", Action: "set"})
	}
	for _, t := range want.Topics {
		m := l.mirrors[t.Name]
		d := replication.Difference{Kind: replication.KindMirror, Name: t.Name, Level: replication.LevelProblem, Should: "active"}
		switch {
		case m == nil:
			d.Is, d.Mend, d.Action = "not mirrored", "make a mirror", "create"
		case m.State == replication.MirrorActive:
			continue
		case m.State == replication.MirrorPaused && want.Held == "":
			d.Is, d.Mend, d.Action = "paused", "resume it", "resume"
		default:
			d.Is, d.Do = string(m.State), "run failback"
		}
		list = append(list, d)
	}
	return list, nil
}

func (l *fakeLink) Mend(ctx context.Context, _ replication.Protection, list []replication.Difference) (out []replication.Outcome, err error) {
	for _, d := range list {
		o := replication.Outcome{Name: d.ID(), Status: replication.OK}
		if why := l.refuse[d.Name]; why != "" {
			o.Status, o.Reason = replication.Failed, why
		} else if err := l.w.do(ctx, "link.Mend "+d.Name, func() error {
			l.mu.Lock()
			defer l.mu.Unlock()
			if d.Kind == replication.KindOffsetSync {
				l.now.Offsets.Enabled = true
				return nil
			}
			l.mirrors[d.Name] = &fakeMirror{Mirror: replication.Mirror{Topic: d.Name, SourceTopic: d.Name, State: replication.MirrorActive, Raw: "ACTIVE"}}
			return nil
		}); err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	return out, nil
}

var protector *Protection

func (w *world) protectInput(ids ...string) ProtectInput {
	return ProtectInput{Guard: w.guard(), Runbook: w.runbook(), Route: w.route(), IDs: ids}
}

func (w *world) look(in ProtectInput) LookResult {
	w.t.Helper()
	out, err := runOne[LookResult](w, &Protection{w.outside()}, protector.Differences, in)
	require.NoError(w.t, err)
	return out
}

// mend tries again where the time for writes was over, as Temporal does.
func (w *world) mend(in ProtectInput) (out MendResult, err error) {
	for range 5 {
		out, err = runOne[MendResult](w, &Protection{w.outside()}, protector.Mend, in)
		if again := typeOf(err); again != TypeUnclear && again != TypeUnreachable || w.kill != nil {
			break
		}
	}
	return out, err
}

func ids(list []replication.Difference) (all []string) {
	for _, d := range list {
		all = append(all, d.ID())
	}
	return all
}

func lines(list []replication.Difference) (all []string) {
	for _, d := range list {
		all = append(all, d.String())
	}
	return all
}

// protecting is a world with nothing amiss: its own topics stand, and nobody else writes them.
func protecting(t *testing.T) *world {
	w := newWorld(t)
	for _, site := range []string{"east", "west"} {
		require.NoError(t, w.as(site, admin).Records(replication.RecoveryTopic).Ensure(context.Background()))
		for _, spec := range replication.OwnTopicSpecs() {
			require.NoError(t, w.as(site, admin).AlterTopicConfigs(context.Background(), map[string]map[string]*string{spec.Name: pointers(spec.Configs)}))
		}
		w.with(site, allow(me, "TOPIC", "PREFIXED", "switchback.", "CREATE", "ALTER_CONFIGS")...)
		w.with(site, allow(me, "TOPIC", "LITERAL", "orders", "ALTER_CONFIGS")...)
	}
	w.trace = nil
	return w
}

func TestNothingIsAmiss(t *testing.T) {
	t.Parallel()
	w := protecting(t)
	out := w.look(w.protectInput())
	require.Empty(t, out.Differences, "%v", lines(out.Differences))
	require.True(t, out.Stands)
	require.Equal(t, "east-west", out.LinkName)
	require.Empty(t, w.trace, "a look writes nothing")
	mended, err := w.mend(w.protectInput("0123456789ab"))
	require.NoError(t, err)
	require.False(t, mended.Changed)
	require.Empty(t, w.trace)
}

// broken is a world in which everything that can be mended is broken.
func broken(t *testing.T) *world {
	w := protecting(t)
	ctx := context.Background()
	cl := w.raw("west", admin)
	require.NoError(t, deleteTopic(ctx, cl, MarksTopic))
	require.NoError(t, deleteTopic(ctx, cl, replication.RecoveryTopic))
	delete(w.link.mirrors, "payments")
	w.link.set("orders", replication.MirrorPaused, "PAUSED")
	w.link.now.Offsets.Enabled = false
	day := "86400000"
	require.NoError(t, w.as("west", admin).AlterTopicConfigs(ctx, map[string]map[string]*string{"orders": {"retention.ms": &day}}))
	w.trace = nil
	return w
}

func TestWhatIsShownIsMendedAndNothingElse(t *testing.T) {
	t.Parallel()
	w := broken(t)
	shown := w.look(w.protectInput())
	require.False(t, shown.Stands)
	require.Empty(t, w.trace)
	require.ElementsMatch(t, []string{
		"own topic switchback.marks on west is missing, should be there", "own topic switchback.recovery on west is missing, should be there",
		"offset sync consumer.offset.sync.enable is false, should be true", "mirror orders is paused, should be active", "mirror payments is not mirrored, should be active",
		"topic config orders retention.ms is 86400000, should be 604800000",
	}, lines(shown.Differences))

	// Meanwhile something else comes up, and one of the shown reads differently.
	ctx := context.Background()
	other := "43200000"
	require.NoError(t, w.as("west", admin).AlterTopicConfigs(ctx, map[string]map[string]*string{"orders": {"retention.ms": &other, "retention.bytes": &other}}))
	out, err := w.mend(w.protectInput(ids(shown.Differences)...))
	require.NoError(t, err)
	require.True(t, out.Changed)
	for _, o := range out.Outcomes {
		require.Equal(t, replication.OK, o.Status, o.Reason)
	}
	left := w.look(w.protectInput())
	require.ElementsMatch(t, []string{"topic config orders retention.ms is 43200000, should be 604800000", "topic config orders retention.bytes is 43200000, should be -1"}, lines(left.Differences),
		"what was not shown is left alone")
	_, err = w.mend(w.protectInput(ids(left.Differences)...))
	require.NoError(t, err)
	require.Empty(t, w.look(w.protectInput()).Differences)
	w.trace = nil
	_, err = w.mend(w.protectInput(ids(shown.Differences)...))
	require.NoError(t, err)
	require.Empty(t, w.trace, "a second one changes nothing")
}

func TestKilledWhileMending(t *testing.T) {
	t.Parallel()
	whole := broken(t)
	shown := ids(whole.look(whole.protectInput()).Differences)
	_, err := whole.mend(whole.protectInput(shown...))
	require.NoError(t, err)
	for n := range len(whole.trace) {
		for _, after := range []bool{false, true} {
			w := broken(t)
			shown := ids(w.look(w.protectInput()).Differences)
			w.trace = nil
			w.kill = &kill{at: n, after: after}
			_, _ = w.mend(w.protectInput(shown...)) // nobody hears what a dead process says
			w.kill = nil
			_, err := w.mend(w.protectInput(shown...))
			require.NoError(t, err)
			require.Empty(t, w.look(w.protectInput()).Differences, "killed at write %d, after it: %t", n, after)
		}
	}
}

// What cannot be mended is named, with who has to do what, and does not keep the rest from being mended.
func TestWhatCannotBeMendedIsNamed(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		breaks func(*world)
		shown  string
		stands bool
	}{
		"a stopped mirror":         {func(w *world) { w.link.set("orders", replication.MirrorStopped, "STOPPED") }, "mirror orders is stopped", false},
		"a login that fails there": {func(w *world) { w.passwords["kafka/west/"+billing] = "wrong" }, "credentials billing on west", false},
		"a login that fails here":  {func(w *world) { w.passwords["kafka/east/"+billing] = "wrong" }, "credentials billing on east", true},
		"a stranger's grant on own topics": {func(w *world) { w.with("west", allow("intruder", "TOPIC", "LITERAL", "*", "WRITE")...) },
			"own topic writers on west is User:intruder", true},
		"a fence": {func(w *world) {
			require.NoError(w.t, w.recordsNow().put(context.Background(), map[string]any{aclsKey("orders", "east"): OwnedACLs{Run: "r/1", ACLs: replication.TopicFence([]string{"orders"})}}))
		}, "fence orders is run r/1 has left 1 DENY ACLs on east", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := protecting(t)
			tc.breaks(w)
			w.trace = nil
			out := w.look(w.protectInput())
			require.Len(t, out.Differences, 1, "%v", lines(out.Differences))
			require.Contains(t, out.Differences[0].String(), tc.shown)
			require.False(t, out.Differences[0].Mendable())
			require.NotEmpty(t, out.Differences[0].Do)
			require.Equal(t, tc.stands, out.Stands)
			_, err := w.mend(w.protectInput(ids(out.Differences)...))
			require.NoError(t, err)
			require.Empty(t, w.trace)
		})
	}
}

// What the link refuses fails alone, and its reason is told.
func TestARefusalLeavesTheOthersAlone(t *testing.T) {
	t.Parallel()
	w := broken(t)
	w.link.refuse["payments"] = "policy violation"
	shown := w.look(w.protectInput())
	out, err := w.mend(w.protectInput(ids(shown.Differences)...))
	require.NoError(t, err)
	failed := only(out.Outcomes, replication.Failed)
	require.Len(t, failed, 1)
	require.Equal(t, "policy violation", failed[0].Reason)
	require.Equal(t, []string{"mirror payments is not mirrored, should be active"}, lines(w.look(w.protectInput()).Differences))
}

// ACL sync is never turned on while any runbook's ACL stands, on either cluster (P5), and is known as it was before a run had
// suspended it.
func TestP05_WhatStandsOfRunsIsKnown(t *testing.T) {
	t.Parallel()
	w := protecting(t)
	ctx := context.Background()
	rec := w.recordsNow()
	before := SuspendedSyncs{Before: replication.Syncs{ACLs: replication.Sync{Enabled: true, Filter: "f"}}, Held: replication.Suspension{Topics: []string{"orders"}}}
	others := SuspendedSyncs{Before: replication.Syncs{}, Held: replication.Suspension{Topics: []string{"returns"}}}
	require.NoError(t, rec.put(ctx, map[string]any{syncsKey("east-west", "a/1"): before, syncsKey("east-west", "b/1"): others,
		aclsKey("returns", "east"): OwnedACLs{Run: "b/1", ACLs: replication.TopicFence([]string{"returns"})}}))
	r, err := w.outside().open(ctx, w.route())
	require.NoError(t, err)
	defer r.close()
	s, err := (&Protection{w.outside()}).survey(ctx, r, w.protectInput())
	require.NoError(t, err)
	require.True(t, s.want.Denied, "another runbook's fence stands")
	require.Empty(t, s.want.Held, "it is not ours")
	require.Equal(t, &replication.Sync{Enabled: true, Filter: "f"}, s.want.ACLsBefore)
	require.False(t, s.want.Moved)

	mark := replication.Mark{Position: replication.Position{Partition: replication.Partition{Topic: "orders"}}, Epoch: replication.Unknown}
	require.NoError(t, putList(ctx, rec, marksKey("east-id", "a/1"), []replication.Mark{mark}))
	require.NoError(t, s.remembered(ctx))
	require.False(t, s.want.Moved, "a seal that was taken back moved nothing")
	mark.Epoch = 8
	require.NoError(t, putList(ctx, rec, marksKey("east-id", "a/1"), []replication.Mark{mark}))
	require.NoError(t, s.remembered(ctx))
	require.True(t, s.want.Moved)
}

// standingBy is a protecting world whose mirrors are topics like any other.
func standingBy(t *testing.T) *world {
	w := protecting(t)
	w.link.seals = true
	return w
}

func (w *world) strays(user string) error {
	return w.raw("west", user, kgo.RecordRetries(0)).ProduceSync(context.Background(), &kgo.Record{Topic: "orders", Value: []byte("stray")}).FirstErr()
}

// A stray client that writes to the standby before the mark would count as mirrored. Protect closes the standby for the runbook's
// clients, by name; the planned run opens it when its marks are kept, just before it switches.
func TestP11_AStrayClientIsRefusedUntilTheRunOpensTheStandby(t *testing.T) {
	t.Parallel()
	w := standingBy(t)
	shown := w.look(w.protectInput())
	require.Len(t, shown.Differences, 1, "%v", lines(shown.Differences))
	require.Equal(t, "closed standby west is open for User:checkout on orders, payments, should be closed for the runbook's clients, until a run takes them there", shown.Differences[0].String())
	require.True(t, shown.Stands, "it stands, and is weaker")
	require.NoError(t, w.strays(checkout), "open: it would count as mirrored")
	_, err := w.mend(w.protectInput(ids(shown.Differences)...))
	require.NoError(t, err)
	require.Empty(t, w.look(w.protectInput()).Differences)
	require.Error(t, w.strays(checkout))
	require.NoError(t, w.strays(admin), "the mirror writes on")

	// The run finds it in order, and opens it.
	before, err := run[PreflightResult](w, (*Preflight)(nil).Check, PreflightInput{Run: w.guard().Run, Runbook: w.runbook(), Route: w.route(), Epoch: w.epoch, DryRun: true})
	require.NoError(t, err)
	for _, f := range before.Findings {
		require.NotContains(t, []string{"DENY on the target", "client grants"}, map[bool]string{true: f.Check}[f.Level == LevelProblem], f.Means)
	}
	require.True(t, slices.ContainsFunc(before.Findings, func(f Finding) bool { return f.Check == "closed standby" && f.Level == LevelOK }))
	w.write("east", "orders", 0, 2) // as many as were written there past the mirror
	_, err = attempts[SyncsResult](w, (*Syncs)(nil).Suspend, SyncsInput{Guard: w.guard(), Route: w.route()})
	require.NoError(t, err)
	_, err = attempts[FenceResult](w, (*Fences)(nil).Raise, w.fenceInput())
	require.NoError(t, err)
	require.Error(t, w.strays(checkout))
	for range 3 {
		if _, err = w.sealed(soon()); err == nil {
			break
		}
	}
	require.NoError(t, err)
	require.NoError(t, w.strays(checkout), "open for the switch")
	require.Equal(t, []string{"DENY ALTER on CLUSTER LITERAL kafka-cluster for User:mm2-admin from *", "DENY WRITE on TOPIC LITERAL orders for User:mm2 from *", "DENY WRITE on TOPIC LITERAL payments for User:mm2 from *"}, w.denies("west"))
	marks, err := getList[replication.Mark](context.Background(), w.recordsNow().to, marksKey("east-id", w.guard().Run.ID()))
	require.NoError(t, err)
	require.Equal(t, int64(2), marks[0].TargetEnd, "the mark was kept before")
}

// An unplanned run opens the standby as well, once its marks are kept.
func TestP11_AnUnplannedRunOpensTheStandby(t *testing.T) {
	t.Parallel()
	w := standingBy(t)
	_, err := w.mend(w.protectInput(ids(w.look(w.protectInput()).Differences)...))
	require.NoError(t, err)
	for range 3 {
		if _, err = w.failOver(soon(), true); err == nil {
			break
		}
	}
	require.NoError(t, err)
	require.Error(t, w.strays(checkout), "not before the marks")
	_, err = attempts[LastMarksResult](w, (*Mirrors)(nil).KeepLastMarks, LastMarksInput{MarksInput: MarksInput{Guard: w.guard(), Route: w.route(), Epoch: 8}})
	require.NoError(t, err)
	require.NoError(t, w.strays(checkout))
}

// What stood before is nobody's to lift, and what the runbook made is lifted whole, also when the process dies in between.
func TestP04_ClosingTheStandbyOwnsOnlyWhatItMakes(t *testing.T) {
	t.Parallel()
	w := standingBy(t)
	stood := replication.Closed([]string{"User:" + checkout}, []string{"payments"})
	w.with("west", stood...)
	w.trace = nil
	shown := w.look(w.protectInput())
	w.kill = &kill{at: 2, after: true} // recorded on both clusters and made; then the process dies
	_, _ = w.mend(w.protectInput(ids(shown.Differences)...))
	w.kill = nil
	_, err := w.mend(w.protectInput(ids(w.look(w.protectInput()).Differences)...))
	require.NoError(t, err)
	r, err := w.outside().open(context.Background(), w.route())
	require.NoError(t, err)
	defer r.close()
	require.NoError(t, openStandby(context.Background(), r, w.guard()))
	require.Equal(t, []string{stood[0].String()}, w.denies("west"))
	require.NoError(t, openStandby(context.Background(), r, w.guard()), "twice")
}

// A link of the other direction that syncs ACLs would carry the DENY to where the clients are: then the standby stays open, and why is
// said (P5).
func TestP05_TheStandbyStaysOpenWhereTheDENYWouldBeCopied(t *testing.T) {
	t.Parallel()
	w := standingBy(t)
	in := w.protectInput()
	in.Runbook.Links = append(in.Runbook.Links, runbooks.Link{From: "west", To: "east", MirrorMaker: &runbooks.MirrorMaker{}})
	out := w.look(in) // the double is both directions' link, active and syncing ACLs
	require.Len(t, out.Differences, 1)
	require.False(t, out.Differences[0].Mendable())
	require.Contains(t, out.Differences[0].Do, "would copy the DENY to east")
}

func deleteTopic(ctx context.Context, cl *kgo.Client, topic string) error {
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.TopicNames, req.Topics = []string{topic}, []kmsg.DeleteTopicsRequestTopic{{Topic: &topic}}
	resp, err := req.RequestWith(ctx, cl)
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].ErrorCode)
	}
	return err
}

func (k *tapped) CreateTopic(ctx context.Context, t replication.NewTopic) error {
	return k.w.do(ctx, k.site+".CreateTopic "+t.Name, func() error { return k.Cluster.CreateTopic(ctx, t) })
}
