package activities

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.temporal.io/sdk/activity"

	"switchback/internal/fault"
	"switchback/replication"
	"switchback/runbooks"
)

type activityInfo = activity.Info

// fakeLink is a link as hard to live with as a real one: it accepts and does later, loses answers, hangs and refuses.
type fakeLink struct {
	busy    atomic.Bool // answers no question about mirrors
	silent  bool        // does not say how it is: its worker stands still
	w       *world
	prefix  string
	seals   bool // an ACL is its seal, and a stop can be taken back
	patched map[replication.Partition]int64
	passes  atomic.Int32 // of translations
	unknown string       // why no offset can be translated; empty where all can
	failing int32        // the pass that fails; 0 is none
	mu      sync.Mutex

	now      replication.Syncs
	healthy  bool
	groups   map[string]bool // held back from offset sync
	topics   map[string]bool // held back from auto-create
	mirrors  map[string]*fakeMirror
	takes    time.Duration   // from accepted to stopped
	hang     map[string]bool // promote never ends
	deaf     map[string]int  // so many requests are accepted without a sign
	refuse   map[string]string
	statusNo int          // so many Status requests find no link: it was just made
	looks    atomic.Int32 // Status requests
}

type fakeMirror struct {
	replication.Mirror
	done time.Time // when a stop will have happened; zero: never
}

func newLink(w *world) *fakeLink {
	l := &fakeLink{w: w, healthy: true, groups: map[string]bool{}, topics: map[string]bool{}, hang: map[string]bool{}, deaf: map[string]int{},
		refuse: map[string]string{}, mirrors: map[string]*fakeMirror{}, takes: 50 * time.Millisecond,
		now: replication.Syncs{Offsets: replication.Sync{Enabled: true, Interval: time.Second, Filter: "billing"}, ACLs: replication.Sync{Enabled: true, Interval: time.Second, Filter: "all"}, Topics: replication.Sync{Enabled: true}}}
	for name, n := range map[string]int{"orders": 2, "payments": 1, "others": 1} {
		l.mirrors[name] = &fakeMirror{Mirror: replication.Mirror{Topic: name, SourceTopic: name, Partitions: n, State: replication.MirrorActive, Raw: "ACTIVE"}}
	}
	return l
}

func (l *fakeLink) set(topic string, state replication.MirrorState, raw string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mirrors[topic].State, l.mirrors[topic].Raw = state, raw
}

func (l *fakeLink) describe() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var states []string
	for _, name := range slices.Sorted(maps.Keys(l.mirrors)) {
		states = append(states, name+"="+string(l.mirrors[name].State))
	}
	return fmt.Sprintf("acls %v, groups held %v, topics held %v, %v", l.now.ACLs, slices.Sorted(maps.Keys(l.groups)), slices.Sorted(maps.Keys(l.topics)), states)
}

func (l *fakeLink) Status(ctx context.Context) (replication.LinkStatus, error) {
	defer l.looks.Add(1)
	if l.silent {
		<-ctx.Done()
		return replication.LinkStatus{}, ctx.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.statusNo > 0 {
		l.statusNo--
		return replication.LinkStatus{}, fmt.Errorf("link east-west: %w", fault.ErrNotFound)
	}
	return replication.LinkStatus{Name: "east-west", Direction: replication.Bidirectional, Healthy: l.healthy, Reason: "LINK_FAILED", SourceCluster: "east-id",
		Topics: slices.Sorted(maps.Keys(l.mirrors)), Syncs: l.now}, nil
}

func (l *fakeLink) Mirrors(ctx context.Context) ([]replication.Mirror, error) {
	if l.busy.Load() { // as Kafka Connect is while its tasks stop
		<-ctx.Done()
		return nil, ctx.Err()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	var list []replication.Mirror
	for _, m := range l.mirrors {
		if m.State == replication.MirrorStopping && !m.done.IsZero() && time.Now().After(m.done) {
			m.State, m.Raw = replication.MirrorStopped, "STOPPED"
		}
		list = append(list, m.Mirror)
	}
	return list, nil
}

func (l *fakeLink) SuspendSyncs(ctx context.Context, _ replication.Syncs, s replication.Suspension) error {
	return l.w.do(ctx, "link.SuspendSyncs", func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.now.ACLs.Enabled, l.now.ACLs.Filter = false, "" // turning it off clears the filter
		for _, g := range s.Groups {
			l.groups[g] = true
		}
		for _, t := range s.Topics {
			l.topics[t] = true
		}
		return nil
	})
}

func (l *fakeLink) RestoreSyncs(ctx context.Context, before replication.Syncs, held replication.Suspension, keepACLsOff bool) error {
	return l.w.do(ctx, "link.RestoreSyncs", func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if !keepACLsOff {
			l.now.ACLs = before.ACLs
		}
		for _, g := range held.Groups {
			delete(l.groups, g)
		}
		for _, t := range held.Topics {
			delete(l.topics, t)
		}
		return nil
	})
}

func (l *fakeLink) HoldsBack(_ context.Context, groups []string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, g := range groups {
		if !l.groups[g] && l.now.Offsets.Enabled && strings.HasPrefix(g, "billing") {
			return fmt.Errorf("offsets of %s are still synced: %w", g, fault.ErrNotReady)
		}
	}
	return nil
}

func (l *fakeLink) StopIsFinal() bool { return !l.seals }

func (l *fakeLink) Advice(context.Context) ([]replication.Advice, error) { return nil, nil }
func (l *fakeLink) Prefix() string                                       { return l.prefix }

// Denials are those of a link that is held by ACLs.
func (l *fakeLink) Denials(what replication.Denial, names []string) (list []replication.ACL) {
	if !l.seals {
		return nil
	}
	one := func(resource, name, principal, op string) {
		list = append(list, replication.ACL{ResourceType: resource, Pattern: replication.PatternLiteral, Name: name, Principal: principal, Host: "*", Operation: op, Permission: replication.Deny})
	}
	switch what {
	case replication.DenySyncs:
		one(replication.ResourceCluster, replication.ClusterName, "User:mm2-admin", "ALTER")
	case replication.DenyGroups:
		for _, n := range names {
			one(replication.ResourceGroup, n, "User:mm2-admin", replication.OpRead)
		}
	case replication.DenyTopics:
		for _, n := range names {
			one(replication.ResourceTopic, n, "User:mm2", replication.OpWrite)
		}
	}
	return list
}

func (l *fakeLink) Translate(_ context.Context, groups []replication.GroupOffsets) ([]replication.GroupOffsets, error) {
	if l.passes.Add(1) == l.failing {
		return nil, fmt.Errorf("translate: %w", fault.ErrNotReady)
	}
	for _, g := range groups {
		for i := range g.Offsets {
			g.Offsets[i].Target, g.Offsets[i].Proof = g.Offsets[i].Source, replication.ProofExact
			if l.unknown != "" {
				g.Offsets[i].Target, g.Offsets[i].Proof = replication.Unknown, l.unknown
			}
		}
	}
	return groups, nil
}

func (l *fakeLink) PatchOffsets(ctx context.Context, next map[replication.Partition]int64) error {
	return l.w.do(ctx, "link.PatchOffsets", func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.mirrors["orders"].State != replication.MirrorStopped {
			return fmt.Errorf("offsets of a running connector cannot be changed: %w", fault.ErrInvalid)
		}
		for at, offset := range next {
			if offset < 0 {
				return fmt.Errorf("where %s is to go on is unknown: %w", at.Name(), fault.ErrInvalid)
			}
		}
		l.patched = next
		return nil
	})
}

func (l *fakeLink) Resume(ctx context.Context) error {
	return l.w.do(ctx, "link.Resume", func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, m := range l.mirrors {
			m.State, m.Raw = replication.MirrorActive, "RUNNING"
		}
		return nil
	})
}

func (l *fakeLink) LastKnown(_ context.Context, onTarget []replication.GroupOffsets) ([]replication.GroupOffsets, error) {
	return onTarget, nil
}

func (l *fakeLink) Synced(_ replication.Syncs, groups []string) (list []replication.Outcome) {
	for _, g := range groups {
		list = append(list, replication.Outcome{Name: g, Status: replication.OK})
	}
	return list
}

func (l *fakeLink) Drained(ctx context.Context, source []replication.Ends) ([]replication.Outcome, error) {
	topics := map[string]bool{}
	for _, e := range source {
		topics[e.Topic] = true
	}
	target, err := l.w.as("west", me).Ends(ctx, slices.Sorted(maps.Keys(topics)))
	if err != nil {
		return nil, err
	}
	at := map[replication.Partition]int64{}
	for _, e := range target {
		at[e.Partition] = e.HighWatermark
	}
	var list []replication.Outcome
	for _, e := range source {
		o := replication.Outcome{Name: e.Name(), Status: replication.OK}
		switch n := e.HighWatermark - at[e.Partition]; {
		case n > 0:
			o.Status, o.Reason = replication.Pending, fmt.Sprintf("%d records to go", n)
		case n < 0:
			o.Status, o.Reason = replication.Failed, "the target is ahead"
		}
		list = append(list, o)
	}
	return list, nil
}

func (l *fakeLink) ValidateStop(_ context.Context, _ replication.StopKind, topics []string) (list []replication.Outcome, _ error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, t := range topics {
		o := replication.Outcome{Name: t, Status: replication.OK}
		if why := l.refuse[t]; why != "" {
			o.Status, o.Reason = replication.Failed, why
		}
		list = append(list, o)
	}
	return list, nil
}

func (l *fakeLink) Stop(ctx context.Context, kind replication.StopKind, topics []string) (list []replication.Outcome, err error) {
	err = l.w.do(ctx, "link.Stop "+string(kind)+" "+strings.Join(topics, ","), func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		for _, t := range topics {
			list = append(list, replication.Outcome{Name: t, Status: replication.Pending})
			m := l.mirrors[t]
			if l.deaf[t] > 0 {
				l.deaf[t]--
				continue
			}
			if m.State == replication.MirrorStopped || m.State == replication.MirrorUnknown {
				continue
			}
			m.State, m.Raw = replication.MirrorStopping, "PENDING_STOPPED"
			if kind == replication.Failover || !l.hang[t] {
				m.done = time.Now().Add(l.takes)
			}
		}
		return nil
	})
	if hook := l.w.after["link.Stop"]; err == nil && hook != nil {
		err = hook(ctx)
	}
	return list, err
}

// fakeEntry is a discovery entry with compare-and-set.
type fakeEntry struct {
	w       *world
	address string
	mu      sync.Mutex
	state   EntryState
	down    error
	between func(*EntryState) // somebody writes between our read and our write
}

func newEntry(w *world, address string) *fakeEntry {
	e := &fakeEntry{w: w, address: address, state: EntryState{Cluster: "east", BootstrapServers: "east:9092", Epoch: w.epoch, SwitchedBy: "somebody", Clients: map[string]ClientEntry{}}}
	for _, c := range []string{checkout, billing} {
		e.state.Clients[c] = ClientEntry{Desired: DesiredRun, Instances: []Instance{{ID: c + "-1", State: "running", Epoch: w.epoch, Since: time.Unix(1700000000, 0)}}}
	}
	return e
}

func (e *fakeEntry) Read(ctx context.Context) (EntryState, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.down != nil {
		return EntryState{}, e.down
	}
	s := e.state
	s.Clients = maps.Clone(e.state.Clients)
	return s, ctx.Err()
}

func (e *fakeEntry) Switch(ctx context.Context, expect int64, to EntryState) (changed bool, err error) {
	err = e.w.do(ctx, e.address+".Switch", func() error {
		e.mu.Lock()
		defer e.mu.Unlock()
		read := e.state
		if e.between != nil {
			e.between(&e.state)
		}
		switch {
		case e.down != nil:
			return e.down
		case read.Epoch == to.Epoch && read.SwitchedBy == to.SwitchedBy:
			return nil
		case read.Epoch >= to.Epoch || read.Epoch != expect:
			return fmt.Errorf("the entry holds epoch %d by %s: %w", read.Epoch, read.SwitchedBy, fault.ErrStale)
		case read.Cluster != e.state.Cluster || read.Epoch != e.state.Epoch:
			return fmt.Errorf("cluster was changed meanwhile: %w", fault.ErrConflict)
		}
		clients := e.state.Clients
		e.state, changed = to, true
		e.state.Clients = clients
		return nil
	})
	return changed, err
}

func (e *fakeEntry) SetDesired(ctx context.Context, epoch int64, desired map[string]string) (changed bool, err error) {
	err = e.w.do(ctx, e.address+".SetDesired", func() error {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.state.Epoch != epoch {
			return fmt.Errorf("the entry holds epoch %d: %w", e.state.Epoch, fault.ErrStale)
		}
		for name, want := range desired {
			c := e.state.Clients[name]
			changed = changed || c.Desired != want
			c.Desired = want
			e.state.Clients[name] = c
		}
		return nil
	})
	return changed, err
}

func (e *fakeEntry) Withdraw(ctx context.Context, epoch int64) (changed bool, err error) {
	err = e.w.do(ctx, e.address+".Withdraw", func() error {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.state.Epoch != epoch {
			return fmt.Errorf("the entry holds epoch %d: %w", e.state.Epoch, fault.ErrStale)
		}
		changed = e.state.Cluster != ""
		e.state = EntryState{Epoch: epoch, SwitchedBy: e.state.SwitchedBy, Clients: e.state.Clients}
		return nil
	})
	return changed, err
}

// fakeApps are supervised clients that obey when they are looked at next; those named in stubborn do not.
type fakeApps struct{ w *world }

var stubborn = "stubborn"

func (a *fakeApps) Ask(ctx context.Context, g Guard, desired string, clients []runbooks.Client) (bool, error) {
	want := map[string]string{}
	for _, c := range clients {
		want[c.Name] = desired
	}
	return a.w.entries[g.Discovery.Consul.Address].SetDesired(ctx, g.Epoch, want)
}

func (a *fakeApps) Look(ctx context.Context, g Guard, desired string, clients []runbooks.Client) (out Applied, err error) {
	s, err := a.w.entries[g.Discovery.Consul.Address].Read(ctx)
	if err != nil {
		return out, err
	}
	if s.Epoch != g.Epoch {
		return out, fmt.Errorf("discovery is at epoch %d: %w", s.Epoch, fault.ErrStale)
	}
	for _, c := range clients {
		if c.Name == stubborn {
			out.Waiting = append(out.Waiting, replication.Outcome{Name: c.Name + "/1", Status: replication.Unclear, Reason: "vanished without saying stopped"})
			continue
		}
		out.Clients = append(out.Clients, ClientState{Client: c.Name, Role: c.Role, Instances: 1})
	}
	return out, nil
}

var errDown = errors.Join(errors.New("connection refused"), fault.ErrUnreachable)
