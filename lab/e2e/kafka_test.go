package e2e_test

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kgo"

	"switchback/lab/kafka"
	"switchback/lab/ledger"
	"switchback/lab/setup"
	"switchback/runbooks"
	"switchback/workflows"
)

func three(o *setup.Options) { o.Brokers = 3 }

// onlyTheFirstTopic has producers leave the other topics alone.
func onlyTheFirstTopic(o *setup.Options) {
	o.ClientCommand = func(w setup.Workload, c setup.Client, instance string, rate int) []string {
		args := command("client", ledgerOf(o), w, c, instance, rate)
		if c.Role == runbooks.RoleProducer {
			for i, arg := range args {
				if arg == "--topics" {
					args[i+1] = w.TopicNames()[0]
				}
			}
		}
		return args
	}
}

// One of three brokers does not say what its authorizer holds: "not fenced", and it is named. A fence that one broker
// has not got is none.
func TestP06_ABrokerThatDoesNotAnswerIsNotFenced(t *testing.T) {
	s := up(t, three, approvals(1), edited(hasty))
	p := s.play(t, "orders")
	p.flows("east")
	before := p.look()
	node := int32(1)
	run, let := p.goesTo("deaf-broker", hold{at: workflows.FenceSource, keep: func(p *play) func() {
		return s.kafkaFault(p.t, "east", kafka.Fault{Kind: "close", Key: "DescribeACLs", Node: &node})
	}})
	p.turnsBack(run)
	let()
	out := p.ends(run, workflows.RolledBack)
	require.Contains(t, out.Sentence, "broker 1")
	p.cameBack(before, true)
	p.flows("east")
	p.clean("east", out)
}

// A record waits for a follower that has stalled: it is in the leader's log, cannot be seen by ListOffsets, and will be
// acknowledged later. The cluster is not quiescent, however still the high watermark stands. Without the look at the log
// end this run would go on and leave the record behind.
func TestP07_ARecordThatWaitsForAFollowerIsSeen(t *testing.T) {
	s := up(t, three, approvals(1), edited(hasty), onlyTheFirstTopic)
	p := s.play(t, "orders")
	p.flows("east")
	before := p.look()
	run := p.start("stalled-follower")
	p.reaches(run, string(workflows.Approve))
	let := s.kafkaFault(t, "east", kafka.Fault{Kind: "stall", Topic: "orders.01"})
	// Once: a second try would be a second record. An idempotent producer never gives up what it cannot know the fate of.
	stray, err := p.Lab.Kafka("east", "checkout", kgo.ProducerLinger(0), kgo.DisableIdempotentWrite(), kgo.RecordRetries(0))
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	record := &kgo.Record{Topic: "orders.01", Key: []byte("stray"), Value: ledger.EncodeValue(1, 40)}
	require.Error(t, stray.ProduceSync(ctx, record).FirstErr(), "nobody acknowledges it while the follower is stalled")
	stray.Close()
	p.order(run, workflows.UpdateApprove)
	p.turnsBack(run)
	let()
	out := p.ends(run, workflows.RolledBack)
	require.Contains(t, out.Sentence, "orders.01-")
	require.Contains(t, out.Sentence, "wait for a follower")
	p.cameBack(before, true)
	p.flows("east")

	before = p.look()
	run = p.start("follower-is-back")
	p.reaches(run, string(workflows.Approve))
	p.order(run, workflows.UpdateApprove)
	second := p.ends(run, workflows.Completed)
	p.wentOver(before)
	p.flows("west")
	require.EqualValues(t, 1, p.end("west", "orders.01"), "the record came over")
	p.clean("west", out, second)
}

// end is how many offsets a topic has, over its partitions.
func (p *play) end(cluster, topic string) (total int64) {
	p.t.Helper()
	ends, err := p.stage.admin(p.t, cluster).ListEndOffsets(p.t.Context(), topic)
	require.NoError(p.t, err)
	require.NoError(p.t, ends.Error())
	for _, at := range ends.Offsets()[topic] {
		total += at.At
	}
	return total
}

// A static member does not leave when it ends, and would hold its group for a session's time. It is removed, because its
// instance is proven stopped. Partitions without data, and without a commit, are handed over like the others (P24).
func TestP08_AStaticMemberIsRemovedOnceItsInstanceIsStopped(t *testing.T) {
	s := up(t, onlyTheFirstTopic, func(o *setup.Options) {
		first := o.ClientCommand
		o.ClientCommand = func(w setup.Workload, c setup.Client, instance string, rate int) []string {
			args := first(w, c, instance, rate)
			if strings.HasPrefix(instance, "shipping") {
				args = append(args, "--static-id", instance)
			}
			return args
		}
	})
	p := s.play(t, "orders")
	p.flows("east")
	before := p.look()
	out := p.ends(p.start("static-member"), workflows.Completed)
	require.Contains(t, strings.Join(out.Deviations, "\n"), "shipping: static member shipping-1")
	p.flows("west")
	p.wentOver(before)
	handed := map[string]int{}
	for _, o := range p.report(out).Offsets {
		require.NotNil(t, o.Target, "%s %s-%d", o.Group, o.Topic, o.Partition)
		if o.Topic != "orders.00" {
			require.Zero(t, *o.Target)
		}
		require.True(t, o.ReadBack)
		handed[o.Group]++
	}
	partitions := p.Workload.Topics * p.Workload.Partitions
	require.Equal(t, map[string]int{"billing": partitions, "shipping": partitions}, handed, "P24: explicit offsets for every partition")
	p.clean("west", out)
}
