package activities

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"switchback/internal/fault"
	"switchback/internal/killpoint"
	"switchback/replication"
)

// DrainResult counts what the target has.
type DrainResult struct {
	Partitions int    `json:"partitions"`
	Text       string `json:"text"`
}

// drainEvery is the pause between two comparisons of both clusters' ends.
const drainEvery = 50 * time.Millisecond

// Drain waits until the target has everything that the source has, by comparison on both clusters. The source is fenced
// and proven quiescent: its ends are final.
func (a *Logs) Drain(ctx context.Context, in WaitInput) (out DrainResult, err error) {
	ctx, _ = begin(ctx)
	r, scope, err := a.scoped(ctx, in.Guard, in.Route)
	if err != nil {
		return out, err
	}
	defer r.close()
	began, why := time.Now(), ""
	err = until(ctx, in.Deadline, drainEvery, func(ctx context.Context) (bool, string, error) {
		killpoint.Reach("Drain/middle")
		ends, err := r.from.Ends(ctx, scope.TopicNames())
		if err != nil {
			return false, "", wrap("read the ends of "+in.Route.From.Name, err)
		}
		outcomes, err := r.link.Drained(ctx, ends)
		if err != nil {
			return false, "", wrap("compare "+in.Route.From.Name+" with "+in.Route.To.Name, err)
		}
		if ahead := only(outcomes, replication.Failed); len(ahead) > 0 {
			_, text := notOK(ahead)
			return false, "", fmt.Errorf("%s can never equal %s: %s: %w", in.Route.To.Name, in.Route.From.Name, text, fault.ErrInvalid)
		}
		behind, text := notOK(outcomes)
		if len(behind) > 0 && time.Since(began) > stallsAfter {
			why = stalled(ctx, r, scope.TopicNames(), why)
			text += why
		}
		out.Partitions = len(outcomes)
		return len(behind) == 0 && len(outcomes) == len(ends), text, nil
	})
	out.Text = fmt.Sprintf("%s has all of %s: %d partitions compared", in.Route.To.Name, in.Route.From.Name, out.Partitions)
	return out, err
}

// stallsAfter is how long a drain goes on before anybody asks why: most are over by then.
const stallsAfter = time.Second

// stalled says which mirrors bring nothing now: whoever waits for them should know. A backend whose tasks fail may not answer for a
// while; then what it said before is the best there is.
func stalled(ctx context.Context, r *route, topics []string, before string) string {
	states, err := mirrorStates(ctx, r.link, topics)
	if err != nil && before != "" {
		return before
	}
	if err != nil {
		return "; why cannot be told: " + err.Error()
	}
	by := map[string][]string{}
	for _, topic := range topics {
		if m := states[topic]; m.State != replication.MirrorActive {
			why := strings.TrimSpace(fmt.Sprintf("%s: %s %s", m.State, m.Raw, m.Reason))
			by[why] = append(by[why], topic)
		}
	}
	text := ""
	for _, why := range slices.Sorted(maps.Keys(by)) {
		text += fmt.Sprintf("; the mirrors of %s are %s", firstFew(by[why]), why)
	}
	return text
}

// CatchUpResult lists groups that did not get there; that is a deviation, not a failure.
type CatchUpResult struct {
	Behind []replication.Outcome `json:"behind,omitempty"`
}

// catchUpEvery is how often the groups' commits are read; consumers commit every few seconds.
const catchUpEvery = 200 * time.Millisecond

// CatchUp waits until the runbook's groups have committed up to the source's ends, or the deadline. A partition that a
// group never committed is one it does not read.
func (a *Logs) CatchUp(ctx context.Context, in WaitInput) (out CatchUpResult, err error) {
	ctx, _ = begin(ctx)
	r, scope, err := a.scoped(ctx, in.Guard, in.Route)
	if err != nil {
		return out, err
	}
	defer r.close()
	err = until(ctx, in.Deadline, catchUpEvery, func(ctx context.Context) (bool, string, error) {
		var behind []replication.Outcome // the last whole look counts
		ends, err := r.from.Ends(ctx, scope.TopicNames())
		if err != nil {
			return false, "", err
		}
		for _, group := range scope.Groups {
			committed, err := r.from.Committed(ctx, group)
			if err != nil {
				return false, "", wrap("read offsets of group "+group, err)
			}
			if n := replication.GroupLag(committed, ends); n > 0 {
				behind = append(behind, replication.Outcome{Name: group, Status: replication.Pending, Reason: fmt.Sprintf("%d records behind", n)})
			}
		}
		out.Behind = behind
		_, text := notOK(behind)
		return len(behind) == 0, text, nil
	})
	if len(out.Behind) > 0 && ctx.Err() == nil {
		return out, nil // named in the result
	}
	return out, err
}
