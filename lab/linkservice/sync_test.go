package linkservice

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/lab/kafka"
)

const allGroups = `{"groupFilters":[{"name":"*","patternType":"LITERAL","filterType":"INCLUDE"},{"name":"secret-","patternType":"PREFIXED","filterType":"EXCLUDE"}]}`

func (l *lab) commit(s *kafka.Server, group, topic string, at int64) {
	l.Helper()
	o := kadm.Offsets{}
	o.AddOffset(topic, 0, at, -1)
	l.ok(l.admin(s).CommitAllOffsets(l.ctx(), group, o))
}

func (l *lab) committed(s *kafka.Server, group, topic string) int64 {
	l.Helper()
	o, err := l.admin(s).FetchOffsets(l.ctx(), group)
	if errors.Is(err, kerr.GroupIDNotFound) {
		return -1
	}
	l.ok(err)
	if c, ok := o.Lookup(topic, 0); ok {
		return c.At
	}
	return -1
}

func (l *lab) taskErrors(name string) string {
	l.Helper()
	for _, x := range l.call("GET", link1+"?include_tasks=true", "", 200)["tasks"].([]any) {
		if t := x.(map[string]any); t["task_name"] == name {
			return fmt.Sprint(t["state"], t["errors"])
		}
	}
	return "no such task"
}

func TestOffsetSyncFiltersClampsAndKeepsOffGroupsInUse(t *testing.T) {
	l := newLab(t, nil)
	l.topic(l.east, "orders", 1)
	l.write(l.east, "orders", 0, "a", "b", "c")
	l.commit(l.east, "billing", "orders", 2)
	l.commit(l.east, "beyond", "orders", 50)
	l.commit(l.east, "secret-1", "orders", 1)
	l.commit(l.east, "busy", "orders", 1)
	l.createLink("consumer.offset.sync.enable", "true", "consumer.offset.sync.ms", "20", "consumer.offset.group.filters", allGroups)
	l.mirror("orders")
	for group, want := range map[string]int64{"billing": 2, "beyond": 3, "busy": 1} {
		l.until(group+" synced", func() bool { return l.committed(l.west, group, "orders") == want })
	}
	l.commit(l.west, "billing", "orders", 0) // a sync overwrites what was committed here
	l.until("overwritten", func() bool { return l.committed(l.west, "billing", "orders") == 2 })
	if got := l.committed(l.west, "secret-1", "orders"); got != -1 {
		t.Errorf("excluded group was synced to %d", got)
	}

	member := l.client(l.west, "shop", kgo.ConsumerGroup("busy"), kgo.ConsumeTopics("orders"), kgo.DisableAutoCommit())
	ctx, cancel := context.WithCancel(l.ctx())
	defer cancel()
	go func() {
		for ctx.Err() == nil {
			member.PollFetches(ctx)
		}
	}()
	l.until("member joined", func() bool {
		g, err := l.admin(l.west).DescribeGroups(l.ctx(), "busy")
		return err == nil && len(g["busy"].Members) > 0
	})
	l.commit(l.east, "busy", "orders", 3)
	l.until("task says so", func() bool {
		return strings.Contains(l.taskErrors("ConsumerOffsetSync"), "CONSUMER_GROUP_IN_USE_ERROR")
	})
	if got := l.committed(l.west, "busy", "orders"); got != 1 {
		t.Errorf("group with members was moved to %d", got)
	}
}

func TestOffsetSyncThatHadBegunWritesAfterItWasTurnedOff(t *testing.T) {
	l := newLab(t, func(c *Config) { c.Timings.SyncInFlightMillis = 400 })
	l.topic(l.east, "orders", 1)
	l.write(l.east, "orders", 0, "a", "b")
	l.createLink("consumer.offset.sync.ms", "10", "consumer.offset.group.filters", allGroups)
	l.mirror("orders")
	l.commit(l.east, "billing", "orders", 1)
	l.until("mirrored", func() bool { return l.end(l.west, "orders", 0) == 2 })
	reads := kafka.Fault{ID: "reads", Kind: "delay", Key: "OffsetFetch"} // delays by nothing, and counts
	l.ok(l.east.AddFault(reads))
	l.call("PUT", link1+"/configs/consumer.offset.sync.enable", `{"value":"true"}`, 204)
	l.until("a cycle has begun", func() bool { return l.east.Faults()[0].Hits > 0 })
	l.call("PUT", link1+"/configs:alter", `{"data":[{"name":"consumer.offset.sync.enable","value":"false","operation":"SET"}]}`, 204)
	if got := l.committed(l.west, "billing", "orders"); got != -1 {
		t.Fatalf("the cycle was over before the sync was turned off: %d", got)
	}
	l.until("late write", func() bool { return l.committed(l.west, "billing", "orders") == 1 })
	if v := l.call("GET", link1+"/configs/consumer.offset.group.filters", "", 200)["value"]; v != "" {
		t.Errorf("turning the sync off kept its filters: %v", v)
	}
}

func (l *lab) acls(s *kafka.Server) string {
	l.Helper()
	all, err := l.admin(s).DescribeACLs(l.ctx(), kadm.NewACLs().AnyResource().ResourcePatternType(kadm.ACLPatternAny).Operations().Allow().Deny().AllowHosts().DenyHosts())
	l.ok(err)
	var out []string
	for _, r := range all {
		for _, d := range r.Described {
			out = append(out, fmt.Sprint(d.Permission, " ", d.Principal, " ", d.Operation, " ", d.Type, " ", d.Name))
		}
	}
	return strings.Join(out, "\n")
}

func TestACLSyncCopiesDenyAndDeletesWhatTheSourceLacks(t *testing.T) {
	l := newLab(t, nil)
	fence := kadm.NewACLs().Topics("orders").Deny("User:*").DenyHosts("*").Operations(kadm.OpWrite)
	_, err := l.admin(l.east).CreateACLs(l.ctx(), fence)
	l.ok(err)
	_, err = l.admin(l.west).CreateACLs(l.ctx(), kadm.NewACLs().Topics("only-here").Allow("User:shop").AllowHosts("*").Operations(kadm.OpRead))
	l.ok(err)
	l.createLink("acl.sync.enable", "true", "acl.sync.ms", "20",
		"acl.filters", `{"aclFilters":[{"resourceFilter":{"resourceType":"any","patternType":"any"},"accessFilter":{"operation":"any","permissionType":"any"}}]}`)
	l.until("DENY copied", func() bool { return strings.Contains(l.acls(l.west), "DENY User:* WRITE TOPIC orders") })
	l.until("target-only ACL deleted", func() bool { return !strings.Contains(l.acls(l.west), "only-here") })
	l.until("equal", func() bool { return l.acls(l.west) == l.acls(l.east) })
}

func TestTopicsAreFollowed(t *testing.T) {
	l := newLab(t, nil)
	l.createLink("auto.create.mirror.topics.enable", "true", "topic.config.sync.ms", "20",
		"auto.create.mirror.topics.filters", `{"topicFilters":[{"name":"pay.","patternType":"PREFIXED","filterType":"INCLUDE"}]}`)
	l.topic(l.east, "other", 1)
	l.topic(l.east, "pay.in", 2)
	l.until("mirror made", func() bool {
		return strings.Contains(fmt.Sprint(l.call("GET", link1, "", 200)["topic_names"]), "pay.in")
	})
	l.awaitStatus(link1, "pay.in", "ACTIVE")
	value := "12345"
	_, err := l.admin(l.east).AlterTopicConfigs(l.ctx(), []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "retention.ms", Value: &value}}, "pay.in")
	l.ok(err)
	l.until("config synced", func() bool {
		got, err := l.admin(l.west).DescribeTopicConfigs(l.ctx(), "pay.in")
		l.ok(err)
		for _, c := range got[0].Configs {
			if c.Key == "retention.ms" {
				return c.MaybeValue() == value
			}
		}
		return false
	})
	_, err = l.admin(l.east).UpdatePartitions(l.ctx(), 3, "pay.in")
	l.ok(err)
	l.until("partitions followed", func() bool { return l.call("GET", link1+"/mirrors/pay.in", "", 200)["num_partitions"] == 3.0 })
	l.write(l.east, "pay.in", 2, "x")
	l.until("new partition mirrored", func() bool { return l.end(l.west, "pay.in", 2) == 1 })
	_, err = l.admin(l.east).DeleteTopic(l.ctx(), "pay.in")
	l.ok(err)
	l.awaitStatus(link1, "pay.in", "FAILED")
	if got := l.call("GET", link1+"/mirrors/pay.in?include_state_transition_errors=true", "", 200)["mirror_topic_error"]; got != "SOURCE_TOPIC_MAY_BE_DELETED" {
		t.Errorf("mirror_topic_error %v", got)
	}
	if s := l.call("GET", link1+"/mirrors?mirror_status=ACTIVE", "", 200)["data"]; len(s.([]any)) != 0 {
		t.Errorf("topics outside the filter are mirrored: %v", s)
	}
}
