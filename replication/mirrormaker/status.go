package mirrormaker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"switchback/internal/fault"
	"switchback/internal/rest"
	"switchback/replication"
)

// look is the link's connectors as Connect shows them in one answer.
type look struct {
	source     Connector
	checkpoint *Connector // nil when the runbook names none, or it is not there
	heartbeat  *Connector
	missing    []string // named in the runbook, and not there
}

func (l *Link) look(ctx context.Context) (look, error) {
	all, err := l.client.Connectors(ctx)
	if err != nil {
		return look{}, l.explain(ctx, err)
	}
	var v look
	find := func(name string) (*Connector, error) {
		if name == "" {
			return nil, nil
		}
		if c, ok := all[name]; ok {
			return &c, nil
		}
		// The list leaves out a connector that has no status yet.
		c, err := l.client.Connector(ctx, name)
		if errors.Is(err, fault.ErrNotFound) {
			v.missing = append(v.missing, name)
		}
		return &c, err
	}
	source, err := find(l.cfg.Source)
	if err != nil {
		return look{}, l.explain(ctx, err)
	}
	v.source = *source
	for name, into := range map[string]**Connector{l.cfg.Checkpoint: &v.checkpoint, l.cfg.Heartbeat: &v.heartbeat} {
		c, err := find(name)
		switch {
		case err == nil:
			*into = c
		case !errors.Is(err, fault.ErrNotFound):
			return look{}, err
		}
	}
	slices.Sort(v.missing)
	return v, nil
}

// explain says of a connector that is not found, or of an endpoint that is no Connect, what an operator would ask first:
// whether this is MirrorMaker 2 in dedicated mode, which leaves topics of its own on the target.
func (l *Link) explain(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, fault.ErrUnauthenticated), errors.Is(err, fault.ErrDenied), ctx.Err() != nil:
		return err
	case !errors.Is(err, fault.ErrUnreachable):
		if _, no := l.client.About(ctx); errors.Is(no, fault.ErrInvalid) || errors.Is(no, fault.ErrUnreachable) {
			err = no
		}
	}
	own := "mm2-configs." + l.cfg.Names.Source + ".internal"
	topics, unread := l.cfg.To.Topics(ctx, func(name string) bool { return name == own })
	if unread != nil || len(topics) == 0 {
		return err
	}
	return fault.Hint(fmt.Errorf("%w; the target holds %s, as MirrorMaker 2 in dedicated mode makes it", err, own),
		"dedicated mode cannot be stopped or repaired from outside: run its connectors on a Connect cluster and name that under connect:")
}

// Status reads the connectors, and what of the target's topics is mirrored.
func (l *Link) Status(ctx context.Context) (replication.LinkStatus, error) {
	v, err := l.look(ctx)
	if err != nil {
		return replication.LinkStatus{}, err
	}
	var about About
	var topics []mirror
	err = each([]func() error{
		func() (err error) { about, err = l.client.About(ctx); return err },
		func() (err error) { topics, err = l.mirrored(ctx, v.source.settings); return err },
	}, func(_ int, do func() error) error { return do() })
	if err != nil {
		return replication.LinkStatus{}, err
	}
	s := replication.LinkStatus{
		Name: l.cfg.Source, ID: about.Cluster + "/" + l.cfg.Source, Direction: replication.OneWay,
		Syncs: syncs(v.source.settings, v.checkpoint.known()), RefreshWait: refreshWait(v.source.settings, v.checkpoint.known()),
	}
	for _, t := range topics {
		s.Topics = append(s.Topics, t.source)
	}
	slices.Sort(s.Topics)
	why := v.source.ails()
	s.Tasks = v.source.outcomes()
	for _, c := range []*Connector{v.checkpoint, v.heartbeat} {
		if c != nil {
			why = append(why, c.ails()...)
			s.Tasks = append(s.Tasks, c.outcomes()...)
		}
	}
	for _, name := range v.missing {
		why = append(why, "connector "+name+" is not there")
	}
	s.Healthy, s.Reason = len(why) == 0, strings.Join(why, "; ")
	return s, nil
}

// known are the settings of a connector that is there.
func (c *Connector) known() settings {
	if c == nil {
		return nil
	}
	return c.settings
}

// ails says in words why the connector does not do its work, one for each part of it; nothing when it does.
func (c Connector) ails() (why []string) {
	switch {
	case c.State == "":
		why = append(why, "connector "+c.Name+" has no status yet")
	case c.State != Running:
		why = append(why, strings.TrimSuffix(fmt.Sprintf("connector %s is %s: %s", c.Name, word(c.State), c.Why), ": "))
	case len(c.Tasks) == 0 && c.settings["connector.class"] != checkpointClass: // which has none until it has found a group
		why = append(why, "connector "+c.Name+" runs no tasks")
	}
	for _, t := range c.Tasks {
		if t.State != Running {
			why = append(why, strings.TrimSuffix(fmt.Sprintf("task %d of connector %s is %s: %s", t.ID, c.Name, word(t.State), t.Why), ": "))
		}
	}
	return why
}

// outcomes are one for the connector and one for each of its tasks.
func (c Connector) outcomes() []replication.Outcome {
	one := func(name string, s State, why string) replication.Outcome {
		o := replication.Outcome{Name: name, Reason: strings.TrimSuffix(word(s)+": "+why, ": ")}
		switch s {
		case Running:
			o.Status, o.Reason = replication.OK, ""
		case Failed:
			o.Status = replication.Failed
		case Paused, Stopped, Unassigned, Restarting:
			o.Status = replication.Pending
		default:
			o.Status = replication.Unclear
		}
		return o
	}
	out := []replication.Outcome{one(c.Name, c.State, c.Why)}
	for _, t := range c.Tasks {
		out = append(out, one(fmt.Sprintf("%s-%d", c.Name, t.ID), t.State, t.Why))
	}
	return out
}

// word makes a state of Connect's fit to be read: unknown ones come from outside.
func word(s State) string {
	text := string(s)
	if text == "" {
		return "without a state"
	}
	return rest.Plain(text, nil)
}

// state is what all this says of the mirrors. What is not known for certain is not ready.
func (v look) state() (state replication.MirrorState, raw, reason string) {
	c := v.source
	raw = c.raw()
	reason = strings.Join(c.ails(), "; ")
	switch c.State {
	case Stopped:
		switch {
		case !c.Idle():
			return replication.MirrorStopping, raw, "its tasks have not ended yet"
		case v.checkpoint != nil && !v.checkpoint.Idle():
			return replication.MirrorStopping, raw + "; checkpoints " + v.checkpoint.raw(), "connector " + v.checkpoint.Name + " has not ended yet"
		}
		return replication.MirrorStopped, raw, ""
	case Paused:
		return replication.MirrorPaused, raw, reason
	case Failed:
		return replication.MirrorFailed, raw, reason
	case Unassigned, Restarting:
		return replication.MirrorStarting, raw, reason
	case Running:
	default:
		return replication.MirrorUnknown, raw, reason
	}
	state = replication.MirrorActive
	if len(c.Tasks) == 0 {
		state = replication.MirrorStarting
	}
	for _, t := range c.Tasks { // which topics a task has is not told here, so the worst counts for all
		switch t.State {
		case Running:
		case Failed:
			return replication.MirrorFailed, raw, reason
		case Unassigned, Restarting, Paused:
			state = replication.MirrorStarting
		default:
			return replication.MirrorUnknown, raw, reason
		}
	}
	return state, raw, reason
}

// raw is Connect's own words: RUNNING, tasks 3 RUNNING 1 FAILED.
func (c Connector) raw() string {
	count := map[string]int{}
	for _, t := range c.Tasks {
		count[word(t.State)]++
	}
	var parts []string
	for state, n := range count {
		parts = append(parts, fmt.Sprintf("%d %s", n, state))
	}
	slices.Sort(parts)
	if len(parts) == 0 {
		parts = []string{"none"}
	}
	return word(c.State) + ", tasks " + strings.Join(parts, " ")
}

func parseCoverage(text string) (coverage, error) {
	var c coverage
	err := json.Unmarshal([]byte(text), &c)
	return c, err
}
