package activities

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"switchback/internal/fault"
	"switchback/replication"
)

// A topic that was deleted and made again has its name, and nothing of what the marks say: their offsets are another topic's. Kafka
// gives each topic an id. Marks keep those of both sides as far as somebody could read them; of a cluster without ids, or one that
// was dead, nothing is known, and then only its records tell.

// topicIDs are the ids by name; a topic whose id is not known is missing.
func topicIDs(topics []replication.Topic) map[string]string {
	ids := make(map[string]string, len(topics))
	for _, t := range topics {
		if t.ID != "" {
			ids[t.Name] = t.ID
		}
	}
	return ids
}

// madeAnew says that a topic is another one than it was, and what that means; empty where it is the same, or nobody can say.
func madeAnew(site, was, is string) string {
	if replication.SameTopic(was, is) {
		return ""
	}
	return fmt.Sprintf("the topic on %s is another one than it was (its id was %s, and is %s): it was deleted and made anew under its name", site, was, is)
}

// topicPair are the ids of topics on both clusters, by the source's names.
type topicPair struct{ source, target map[string]string }

// bothIDs reads them from clusters that both answer.
func bothIDs(ctx context.Context, r *route, names []string) (p topicPair, err error) {
	match := func(name string) bool { return slices.Contains(names, name) }
	var from, to []replication.Topic
	err = sideBySide(
		func() (err error) {
			from, err = r.from.Topics(ctx, match)
			return wrap("list topics of "+r.names.From.Name, err)
		},
		func() (err error) {
			to, err = r.to.Topics(ctx, match)
			return wrap("list topics of "+r.names.To.Name, err)
		},
	)
	return topicPair{topicIDs(from), topicIDs(to)}, err
}

// sameTopics refuses to handle tails of topics that are others than when the recovery was planned, on either cluster.
func (r *recovering) sameTopics(ctx context.Context, tails []replication.Tail) error {
	var names []string
	for _, t := range tails {
		names = append(names, t.Topic)
	}
	ids, err := bothIDs(ctx, r.route, names)
	if err != nil {
		return err
	}
	for _, t := range tails {
		if why := cmp.Or(madeAnew(r.names.From.Name, t.ID, ids.source[t.Topic]), madeAnew(r.names.To.Name, t.IntoID, ids.target[t.Topic])); why != "" {
			return fault.Hint(fmt.Errorf("%s: %s, while it was recovered: %w", t.Topic, why, fault.ErrInvalid), "start the recovery again: its plan says what is there now")
		}
	}
	return nil
}
