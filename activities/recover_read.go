package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"switchback/internal/killpoint"
	"switchback/replication"
	"switchback/runbooks"
)

// ReadingPrefix is where, under a runbook's prefix in discovery, clients find the old cluster while they may read there what
// was rewound: <prefix>/recovery/<cluster>. The keys are those of the runbook itself; those that move the workload are not
// touched.
const ReadingPrefix = "recovery"

// ReadingInput lets groups read on the old cluster what was rewound there.
type ReadingInput struct {
	RecoveryInput
	Groups      runbooks.Groups      `json:"groups"`
	Clients     []string             `json:"clients"` // consumers: asked to run when it begins, to stop when it ends
	Credentials runbooks.Credentials `json:"credentials"`
	// Until is when AwaitReading gives up waiting for the groups, and when CloseReading gives up waiting for instances.
	Until time.Time `json:"until"`
}

// ReadingResult says how far the groups are.
type ReadingResult struct {
	Acted
	Prefix string                `json:"prefix,omitempty"` // where clients find the old cluster; empty where nothing is rewound
	Groups []GroupRead           `json:"groups,omitempty"`
	Left   []replication.Outcome `json:"left,omitempty"` // instances that did not say that they had stopped
	Text   string                `json:"text"`
}

// GroupRead is how much of what was rewound a group has committed on the old cluster, in offsets.
type GroupRead struct {
	Group string `json:"group"`
	Read  int64  `json:"read"`
	Of    int64  `json:"of"`
}

// All says whether nothing is left to read.
func (g GroupRead) All() bool { return g.Read == g.Of }

func (g GroupRead) String() string {
	return fmt.Sprintf("%s has read %d of %d offsets", g.Group, g.Read, g.Of)
}

// reading is the place in discovery where the groups find the old cluster.
func (in ReadingInput) reading() runbooks.Discovery {
	d := in.Guard.Discovery
	d.Consul.Prefix = strings.Trim(d.Consul.Prefix, "/") + "/" + ReadingPrefix + "/" + in.Route.From.Name
	return d
}

// OpenReading lifts the fence of the groups on the old cluster, and then tells their clients where it is, outside of the keys
// that move the workload. Producers find the topics fenced as before. Where nothing was rewound it does nothing.
func (a *Recovery) OpenReading(ctx context.Context, in ReadingInput) (out ReadingResult, err error) {
	ctx, out.Acted = begin(ctx)
	r, err := a.begun(ctx, in.RecoveryInput)
	if err != nil {
		return out, err
	}
	defer r.close()
	if out.Groups, err = r.groupsRead(ctx, in); err != nil {
		return out, err
	}
	if len(out.Groups) == 0 {
		out.Text = "nothing was rewound for a group"
		return out, nil
	}
	if _, err := r.unfence(ctx, named(out.Groups)); err != nil {
		return out, err
	}
	killpoint.Reach("OpenReading/lifted")
	if err := a.publish(ctx, in); err != nil {
		return out, err
	}
	out.Changed, out.Prefix = true, in.reading().Consul.Prefix
	out.Text = fmt.Sprintf("%d groups may read on %s, which their clients find at %s", len(out.Groups), in.Route.From.Name, out.Prefix)
	return out, nil
}

// publish writes where the old cluster is. Its epoch is a number of its own, which only grows, so that clients which read there
// before start anew.
func (a *Recovery) publish(ctx context.Context, in ReadingInput) error {
	place := in.reading()
	entry, err := a.Consuls.Open(ctx, place)
	if err != nil {
		return wrap("open "+place.Consul.Prefix, err)
	}
	state, err := entry.Read(ctx)
	if err != nil {
		return wrap("read "+place.Consul.Prefix, err)
	}
	epoch := max(state.Epoch+1, in.Guard.Epoch)
	if state.SwitchedBy == in.Guard.Run.ID() {
		epoch = state.Epoch
	}
	wctx, cancel, err := a.writing(ctx, in.Guard)
	if err != nil {
		return err
	}
	defer cancel()
	to := entryFor(SwitchInput{Guard: in.Guard, To: in.Route.From, Epoch: epoch, Credentials: in.Credentials})
	if _, err := entry.Switch(wctx, state.Epoch, to); err != nil {
		return wrap("write "+place.Consul.Prefix, err)
	}
	killpoint.Reach("OpenReading/published")
	_, err = entry.SetDesired(wctx, epoch, asked(in.Clients, DesiredRun))
	return wrap("ask clients to run", err)
}

// AwaitReading waits until every group has committed all that was rewound, or until it is time to close. It changes nothing.
func (a *Recovery) AwaitReading(ctx context.Context, in ReadingInput) (out ReadingResult, err error) {
	ctx, out.Acted = begin(ctx)
	r, err := a.begun(ctx, in.RecoveryInput)
	if err != nil {
		return out, err
	}
	defer r.close()
	err = until(ctx, in.Until, readingEvery, func(ctx context.Context) (bool, string, error) {
		if err := a.check(ctx, in.Guard); err != nil {
			return false, "", err
		}
		groups, err := r.groupsRead(ctx, in)
		if err != nil {
			return false, "", err
		}
		out.Groups = groups
		done := !slices.ContainsFunc(groups, func(g GroupRead) bool { return !g.All() })
		return done, readText(groups), nil
	})
	out.Text = readText(out.Groups)
	if errors.Is(err, errTimeUp) && len(out.Groups) > 0 {
		return out, nil // it is time, and what is not read stays
	}
	return out, err
}

const readingEvery = time.Second

// CloseReading stops the clients that read on the old cluster, closes its groups again whether they have stopped or not, and
// takes away where it was found. To do it twice changes nothing, nor does it where nobody was let in.
func (a *Recovery) CloseReading(ctx context.Context, in ReadingInput) (out ReadingResult, err error) {
	ctx, out.Acted = begin(ctx)
	r, err := a.begun(ctx, in.RecoveryInput)
	if err != nil {
		return out, err
	}
	defer r.close()
	place := in.reading()
	entry, err := a.Consuls.Open(ctx, place)
	if err != nil {
		return out, wrap("open "+place.Consul.Prefix, err)
	}
	if out.Left, err = a.stopReading(ctx, in, entry); err != nil {
		return out, err
	}
	killpoint.Reach("CloseReading/stopped")
	groups, err := r.fenceable(ctx, in.Groups) // all of them, whoever let them in
	if err != nil {
		return out, err
	}
	fence, err := r.mine(ctx, replication.GroupFence(groups))
	if err == nil {
		err = r.refence(ctx, fence)
	}
	if err != nil {
		return out, err
	}
	if out.Groups, err = r.groupsRead(ctx, in); err != nil {
		return out, err
	}
	killpoint.Reach("CloseReading/fenced")
	state, err := entry.Read(ctx)
	if err != nil {
		return out, wrap("read "+place.Consul.Prefix, err)
	}
	wctx, cancel, err := r.writing(ctx)
	if err != nil {
		return out, err
	}
	defer cancel()
	if state.Epoch != replication.Unknown {
		if out.Changed, err = entry.Withdraw(wctx, state.Epoch); err != nil {
			return out, wrap("take away "+place.Consul.Prefix, err)
		}
	}
	out.Text = strings.TrimPrefix(readText(out.Groups)+"; closed again", "; ")
	return out, nil
}

// stopReading asks the clients that read there to stop, and names those that do not say that they have.
func (a *Recovery) stopReading(ctx context.Context, in ReadingInput, entry Entry) (left []replication.Outcome, err error) {
	place := in.reading().Consul.Prefix
	state, err := entry.Read(ctx)
	if err != nil {
		return nil, wrap("read "+place, err)
	}
	if state.Epoch == replication.Unknown {
		return nil, nil // nothing was ever written there
	}
	wctx, cancel, err := a.writing(ctx, in.Guard)
	if err != nil {
		return nil, err
	}
	defer cancel()
	if _, err := entry.SetDesired(wctx, state.Epoch, asked(in.Clients, DesiredStop)); err != nil {
		return nil, wrap("ask clients to stop", err)
	}
	err = until(ctx, in.Until, clientsEvery, func(ctx context.Context) (bool, string, error) {
		state, err := entry.Read(ctx)
		if err != nil {
			return false, "", wrap("read "+place, err)
		}
		left = nil
		for name, c := range state.Clients {
			for _, i := range c.Instances {
				if i.State != instanceStopped {
					left = append(left, replication.Outcome{Name: name + "/" + i.ID, Status: replication.Pending, Reason: i.State + " on " + i.Host})
				}
			}
		}
		_, text := notOK(left)
		return text == "", text, nil
	})
	if errors.Is(err, errTimeUp) && len(left) > 0 {
		return left, nil // the fence of their groups holds them off
	}
	return left, err
}

// instanceStopped is what an instance says of itself when nothing of it runs, and nothing will start.
const instanceStopped = "stopped"

func asked(clients []string, desired string) map[string]string {
	ask := make(map[string]string, len(clients))
	for _, c := range clients {
		ask[c] = desired
	}
	return ask
}

// groupsRead is how far each group of the runbook is in what was rewound; none where nothing was.
func (r *recovering) groupsRead(ctx context.Context, in ReadingInput) ([]GroupRead, error) {
	set, err := getList[replication.Partition](ctx, r.records.to, rewoundKey(in.Tail))
	if ignoreMissing(err) != nil || len(set) == 0 {
		return nil, ignoreMissing(err)
	}
	_, tails, err := r.kept(ctx, in.Tail)
	if err != nil {
		return nil, err
	}
	names, err := r.fenceable(ctx, in.Groups)
	if err != nil {
		return nil, err
	}
	out := make([]GroupRead, len(names))
	return out, each(names, func(i int, group string) error {
		now, err := r.from.Committed(ctx, group)
		if err != nil {
			return wrap("read the offsets of group "+group, err)
		}
		out[i].Group = group
		for _, t := range tails {
			if first := max(t.From, t.Start); slices.Contains(set, t.Partition) && first < t.To {
				out[i].Of += t.To - first
				out[i].Read += min(max(now[t.Partition]-first, 0), t.To-first)
			}
		}
		return nil
	})
}

// fenceable are the groups of the runbook on the old cluster whose offsets can be read.
func (r *recovering) fenceable(ctx context.Context, match runbooks.Groups) (names []string, err error) {
	groups, err := r.from.Groups(ctx, match.Match)
	if err != nil {
		return nil, wrap("list groups of "+r.names.From.Name, err)
	}
	for _, g := range groups {
		if !g.Opaque {
			names = append(names, g.Name)
		}
	}
	return names, nil
}

func named(groups []GroupRead) (names []string) {
	for _, g := range groups {
		names = append(names, g.Group)
	}
	return names
}

func readText(groups []GroupRead) string {
	var parts []string
	for _, g := range groups {
		parts = append(parts, g.String())
	}
	if len(parts) > shownGroups {
		parts = append(parts[:shownGroups], fmt.Sprintf("and %d more groups", len(groups)-shownGroups))
	}
	return strings.Join(parts, ", ")
}

const shownGroups = 10

// unfence lifts the fence of groups on the old cluster, where it is the runbook's own, and reads that back. What it may have
// lifted is returned with every error.
func (r *recovering) unfence(ctx context.Context, groups []string) ([]replication.ACL, error) {
	site, fence := r.names.From.Name, replication.GroupFence(groups)
	stand, err := r.from.ACLs(ctx)
	if err != nil {
		return nil, wrap("read the ACLs of "+site, err)
	}
	if len(replication.Missing(fence, stand)) > 0 {
		if err := aclSyncIsOff(ctx, r.route); err != nil { // what is put up again would be copied (P5)
			return nil, err
		}
	}
	wctx, cancel, err := r.writing(ctx)
	if err != nil {
		return nil, err
	}
	defer cancel()
	if err := own(wctx, r.records, r.from, r.guard.Run, site, fence); err != nil { // a crash from here on leaves what is known (P4)
		return nil, err
	}
	if fence, err = r.mine(ctx, fence); err != nil {
		return nil, err
	}
	if err := r.from.DeleteACLs(wctx, fence); err != nil {
		return fence, wrap("lift the fence of the groups on "+site, err)
	}
	_, err = everyBroker(ctx, r.from, fence, false)
	return fence, wrap("read back that the fence of the groups is gone from "+site, err)
}

// mine are those of the ACLs that the runbook owns on the old cluster; others' stay as they are.
func (r *recovering) mine(ctx context.Context, acls []replication.ACL) ([]replication.ACL, error) {
	owned, err := r.records.owned(ctx, r.guard.Run.Runbook, r.names.From.Name)
	return slices.DeleteFunc(acls, func(a replication.ACL) bool { return !slices.Contains(owned.ACLs, a) }), err
}
