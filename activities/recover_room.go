package activities

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"switchback/internal/fault"
	"switchback/replication"
)

const maxMessageBytes = "max.message.bytes"

// keptRoom is what stood on a topic before it was made to take copies of records that are as large as it allows. Before is the
// topic's own setting; empty: it had none.
type keptRoom struct {
	Topic  string `json:"topic"`
	Before string `json:"before,omitempty"`
	Raised string `json:"raised"`
}

func roomKey(tail string) string { return "recovery/" + tail + "/room/" }

// makeRoom lets topics take the headers of copies, where records are so large that they would not fit with them. What stood is
// recorded first, and the first look is the truth: an attempt after a crash finds it recorded.
func (r *recovering) makeRoom(ctx context.Context, tail string, list []replication.Stranded) (text string, err error) {
	var topics []string
	for _, s := range list {
		if s.Gone == "" && s.Large > 0 && s.Treatment == replication.TreatAppend && !slices.Contains(topics, s.Topic) {
			topics = append(topics, s.Topic)
		}
	}
	if len(topics) == 0 {
		return "", nil
	}
	kept, err := getList[keptRoom](ctx, r.records.to, roomKey(tail))
	if err != nil && !errors.Is(err, fault.ErrNotFound) {
		return "", err
	}
	changes, kept, err := r.room(ctx, topics, kept)
	if err != nil || len(changes) == 0 {
		return "", err
	}
	wctx, cancel, err := r.writing(ctx)
	if err != nil {
		return "", err
	}
	defer cancel()
	if err := putList(wctx, r.records, roomKey(tail), kept); err != nil {
		return "", err
	}
	err = r.to.AlterTopicConfigs(wctx, changes)
	if errors.Is(err, fault.ErrDenied) {
		return fmt.Sprintf("; Switchback may not raise max.message.bytes of %s, so records as large as that are refused: grant it ALTER_CONFIGS there", firstFew(topics)), nil
	}
	return fmt.Sprintf("; max.message.bytes of %s is raised by %d until they are copied", firstFew(topics), replication.HeaderRoom), wrap("make room for the headers of copies", err)
}

// room says what to change, and what stood before.
func (r *recovering) room(ctx context.Context, topics []string, kept []keptRoom) (map[string]map[string]*string, []keptRoom, error) {
	var own, effective map[string]map[string]string
	err := sideBySide(
		func() (err error) { own, err = r.to.TopicOverrides(ctx, topics); return err },
		func() (err error) { effective, err = r.to.TopicConfigs(ctx, topics); return err },
	)
	if err != nil {
		return nil, nil, wrap("read how large records may be", err)
	}
	changes := map[string]map[string]*string{}
	for _, topic := range topics {
		at := slices.IndexFunc(kept, func(k keptRoom) bool { return k.Topic == topic })
		if at < 0 {
			limit, err := strconv.Atoi(effective[topic][maxMessageBytes])
			if err != nil {
				continue // what nobody can read is not raised either
			}
			at, kept = len(kept), append(kept, keptRoom{Topic: topic, Before: own[topic][maxMessageBytes], Raised: strconv.Itoa(limit + replication.HeaderRoom)})
		}
		if raised := kept[at].Raised; effective[topic][maxMessageBytes] != raised {
			changes[topic] = map[string]*string{maxMessageBytes: &raised}
		}
	}
	return changes, kept, nil
}

// giveRoomBack puts back what makeRoom found. Where somebody has set it meanwhile it stays as it is.
func (r *recovering) giveRoomBack(ctx context.Context, tail string) (text string, err error) {
	kept, err := getList[keptRoom](ctx, r.records.to, roomKey(tail))
	if errors.Is(err, fault.ErrNotFound) || err == nil && len(kept) == 0 {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	var topics, back []string
	for _, k := range kept {
		topics = append(topics, k.Topic)
	}
	now, err := r.to.TopicOverrides(ctx, topics)
	if err != nil {
		return "", wrap("read how large records may be", err)
	}
	changes := map[string]map[string]*string{}
	for _, k := range kept {
		if now[k.Topic][maxMessageBytes] != k.Raised {
			continue
		}
		var before *string
		if k.Before != "" {
			before = &k.Before
		}
		changes[k.Topic], back = map[string]*string{maxMessageBytes: before}, append(back, k.Topic)
	}
	wctx, cancel, err := r.writing(ctx)
	if err != nil {
		return "", err
	}
	defer cancel()
	if len(changes) > 0 {
		text = "; max.message.bytes of " + strings.Join(back, ", ") + " as it was before"
		if err := r.to.AlterTopicConfigs(wctx, changes); err != nil {
			return "", wrap("put max.message.bytes back", err)
		}
	}
	return text, clearList[keptRoom](wctx, r.records, roomKey(tail))
}
