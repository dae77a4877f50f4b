package activities

import (
	"context"
	"fmt"
	"time"

	"switchback/internal/fault"
	"switchback/replication"
)

// Outside is what the activities on a route need: both clusters, the link between them, and discovery for the guard.
type Outside struct {
	Clusters Clusters
	Links    Links
	Consuls  Consuls
	// Silence remembers sources that did not answer a moment ago; nil asks each time.
	Silence *Silence
}

// check fails with fault.ErrStale unless the required discovery entry still holds the run's epoch (P35b).
func (o Outside) check(ctx context.Context, g Guard) error {
	entry, err := o.Consuls.Open(ctx, g.Discovery)
	if err != nil {
		return wrap("open the required discovery entry", err)
	}
	state, err := entry.Read(ctx)
	if err != nil {
		return wrap("read the required discovery entry", err)
	}
	if state.Epoch == replication.Unknown {
		return fault.Hint(fmt.Errorf("the required discovery entry has no readable epoch, the run acts for epoch %d: %w", g.Epoch, fault.ErrConflict),
			"somebody deleted or changed its keys; put them back")
	}
	if state.Epoch != g.Epoch {
		return fmt.Errorf("discovery is at epoch %d (switched by %s), the run acts for epoch %d: %w",
			state.Epoch, state.SwitchedBy, g.Epoch, fault.ErrStale)
	}
	return nil
}

// again looks once more whether the run holds its epoch, and gives what is written for that answer a time of its own, for an
// attempt that takes longer than one may write. It counts from before the look: a worker that stands still between the two has
// no time left when it goes on (P35).
func (o Outside) again(ctx context.Context, g Guard) (context.Context, error) {
	since := time.Now()
	if err := o.check(ctx, g); err != nil {
		return nil, err
	}
	return writesFrom(ctx, since), nil
}

// writing is again, and the context for what is written then.
func (o Outside) writing(ctx context.Context, g Guard) (context.Context, context.CancelFunc, error) {
	ctx, err := o.again(ctx, g)
	if err != nil {
		return nil, nil, err
	}
	return writing(ctx)
}

// route is a run's way, opened.
type route struct {
	from, to Kafka
	link     replication.Link
	records  records
	names    Route
}

// open logs in to both clusters side by side and opens the link. Of a source that may be lost nothing is demanded.
func (o Outside) open(ctx context.Context, r Route) (*route, error) {
	return o.openAgain(ctx, r, false)
}

// openAgain is open; asked says that a lost source is knocked at although it was silent a moment ago.
func (o Outside) openAgain(ctx context.Context, r Route, asked bool) (*route, error) {
	out := &route{names: r}
	err := sideBySide(
		func() (err error) {
			if r.SourceLost {
				out.from = o.openLost(ctx, r.From, asked)
				return nil
			}
			out.from, err = o.Clusters.Open(ctx, r.From)
			return wrap("open "+r.From.Name, err)
		},
		func() (err error) { out.to, err = o.Clusters.Open(ctx, r.To); return wrap("open "+r.To.Name, err) },
	)
	if err == nil {
		out.link, err = o.Links.Open(ctx, r, forLink(out.from), out.to)
		err = wrap("open the link", err)
	}
	if err != nil {
		out.close()
		return nil, err
	}
	out.records = recordsOf(out.from, out.to)
	out.records.alone = r.SourceLost
	out.to = renamed(out.to, out.link.Prefix())
	return out, nil
}

// opened is what most activities begin with: the guard checked and the route opened, side by side.
func (o Outside) opened(ctx context.Context, g Guard, r Route) (*route, error) {
	var out *route
	err := sideBySide(
		func() error { return o.check(ctx, g) },
		func() (err error) { out, err = o.open(ctx, r); return err },
	)
	if err != nil && out != nil {
		out.close()
	}
	return out, err
}

// scoped is opened, with what the run's topics and groups are.
func (o Outside) scoped(ctx context.Context, g Guard, r Route) (*route, Scope, error) {
	out, err := o.opened(ctx, g, r)
	if err != nil {
		return nil, Scope{}, err
	}
	scope, err := out.records.scope(ctx, g.Run.ID())
	if err != nil {
		out.close()
		return nil, Scope{}, err
	}
	return out, scope, nil
}

func (r *route) close() {
	if r.from != nil {
		r.from.Close()
	}
	if r.to != nil {
		r.to.Close()
	}
}

// only those outcomes of one status.
func only(outcomes []replication.Outcome, status replication.Status) (list []replication.Outcome) {
	for _, o := range outcomes {
		if o.Status == status {
			list = append(list, o)
		}
	}
	return list
}

// notOK lists what is not OK, for errors that name the laggards; at most ten, and how many more.
func notOK(outcomes []replication.Outcome) (list []replication.Outcome, text string) {
	for _, o := range outcomes {
		if o.Status == replication.OK {
			continue
		}
		list = append(list, o)
		if len(list) <= 10 {
			if text != "" {
				text += "; "
			}
			text += o.Name + ": " + string(o.Status)
			if o.Reason != "" {
				text += " (" + o.Reason + ")"
			}
		}
	}
	if len(list) > 10 {
		text += fmt.Sprintf("; and %d more", len(list)-10)
	}
	return list, text
}
