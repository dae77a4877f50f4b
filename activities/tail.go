package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"switchback/internal/fault"
	"switchback/internal/killpoint"
	"switchback/replication"
)

// keptTail is what stood on a topic of a cluster that was left before its stranded tail was kept from expiring (P13): the
// topic's own settings. One that is not named was not set.
type keptTail struct {
	Topic  string            `json:"topic"`
	Before map[string]string `json:"before,omitempty"`
}

func tailKey(runbook, site string) string { return "retention/" + runbook + "/" + site + "/" }

// Settings that let records vanish.
const (
	retentionMs    = "retention.ms"
	retentionBytes = "retention.bytes"
	cleanupPolicy  = "cleanup.policy"
	forEver        = "-1"
	policyDelete   = "delete"
)

// keepTail sets retention on the runbook's topics to for ever, and turns compaction off, after it has recorded what stood
// there. The first look is the truth: an attempt after a crash finds it recorded.
func (o *old) keepTail(ctx context.Context) error {
	site := o.in.Route.From.Name
	want, before, err := tails(ctx, o.r.from, o.topics)
	if err != nil {
		o.wait("the settings of the topics of %s: %v", site, err)
		return nil
	}
	if len(want) == 0 {
		return nil
	}
	key := tailKey(o.in.Guard.Run.Runbook, site)
	kept, err := getList[keptTail](ctx, o.r.records.to, key)
	if err != nil && !errors.Is(err, fault.ErrNotFound) {
		return err
	}
	for _, b := range before {
		if !slices.ContainsFunc(kept, func(k keptTail) bool { return k.Topic == b.Topic }) {
			kept = append(kept, b)
		}
	}
	if err := putList(ctx, o.r.records, key, kept); err != nil {
		return err
	}
	killpoint.Reach("WhenReachable/middle")
	wctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), WriteDeadline)
	defer cancel()
	switch err := o.r.from.AlterTopicConfigs(wctx, want); {
	case errors.Is(err, fault.ErrDenied):
		o.wait("the right to keep the stranded records of %s from expiring: grant Switchback ALTER_CONFIGS on its topics there (%v)", site, err)
	case err != nil:
		o.wait("the retention of the topics of %s: %v", site, err)
	default:
		o.out.Changed = true
	}
	return nil
}

// tails says what to change on each topic so that nothing of it expires, and what the topics' own settings were.
func tails(ctx context.Context, on Kafka, topics []string) (map[string]map[string]*string, []keptTail, error) {
	var set, effective map[string]map[string]string
	err := sideBySide(
		func() (err error) { set, err = on.TopicOverrides(ctx, topics); return ignoreMissing(err) },
		func() (err error) { effective, err = on.TopicConfigs(ctx, topics); return ignoreMissing(err) },
	)
	if err != nil {
		return nil, nil, err
	}
	want := map[string]map[string]*string{}
	var before []keptTail
	for _, topic := range topics {
		if effective[topic] == nil {
			continue // not there
		}
		change := map[string]*string{}
		now := keptTail{Topic: topic, Before: map[string]string{}}
		to := func(name, value string) {
			if was, ok := set[topic][name]; ok {
				now.Before[name] = was
			}
			if effective[topic][name] != value {
				change[name] = &value
			}
		}
		to(retentionMs, forEver)
		to(retentionBytes, forEver)
		if strings.Contains(effective[topic][cleanupPolicy], "compact") {
			to(cleanupPolicy, policyDelete)
		}
		if len(change) > 0 {
			want[topic], before = change, append(before, now)
		}
	}
	return want, before, nil
}

// TailResult says what was put back.
type TailResult struct {
	Acted
	Topics int    `json:"topics"`
	Text   string `json:"text"`
}

// ReleaseTail puts the topics' settings of the source back as they were before WhenReachable kept its stranded tail: after
// its records were recovered, or were given up by name. Where nothing was kept it changes nothing.
func (a *Fences) ReleaseTail(ctx context.Context, in FenceInput) (out TailResult, err error) {
	ctx, out.Acted = begin(ctx)
	r, err := a.opened(ctx, in.Guard, in.Route)
	if err != nil {
		return out, err
	}
	defer r.close()
	site := in.Route.From.Name
	key := tailKey(in.Guard.Run.Runbook, site)
	kept, err := getList[keptTail](ctx, r.records.to, key)
	if err != nil && !errors.Is(err, fault.ErrNotFound) {
		return out, err
	}
	if len(kept) == 0 {
		out.Text = "no retention was held on " + site
		return out, nil
	}
	there, err := r.from.Topics(ctx, func(name string) bool {
		return slices.ContainsFunc(kept, func(k keptTail) bool { return k.Topic == name })
	})
	if err != nil {
		return out, wrap("list topics of "+site, err)
	}
	changes := map[string]map[string]*string{}
	for _, k := range kept {
		if !slices.ContainsFunc(there, func(t replication.Topic) bool { return t.Name == k.Topic }) {
			continue
		}
		back := map[string]*string{}
		for _, name := range []string{retentionMs, retentionBytes, cleanupPolicy} {
			if was, ok := k.Before[name]; ok {
				back[name] = &was
			} else {
				back[name] = nil
			}
		}
		changes[k.Topic] = back
	}
	wctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), WriteDeadline)
	defer cancel()
	if err := r.from.AlterTopicConfigs(wctx, changes); err != nil {
		return out, wrap("put the retention of "+site+" back", err)
	}
	killpoint.Reach("ReleaseTail/middle")
	out.Changed, out.Topics = true, len(changes)
	out.Text = fmt.Sprintf("retention of %d topics of %s as it was before", out.Topics, site)
	return out, clearList[keptTail](wctx, r.records, key)
}
