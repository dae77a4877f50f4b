//go:build bench

package bench

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kadm"
	enums "go.temporal.io/api/enums/v1"
	"go.temporal.io/sdk/client"
	"google.golang.org/protobuf/proto"

	"switchback/lab/setup"
	"switchback/lab/story"
	"switchback/replication/clusterlinking"
	"switchback/replication/kafka"
	"switchback/runbooks"
)

// positions is how long it takes to know where every partition is, in seconds.
type positions struct {
	Topics     int    `json:"topics"`
	Partitions int    `json:"partitions"`
	Ends       spread `json:"ends"`    // both clusters side by side: start, high watermark, last stable and log end offset
	Mirrors    spread `json:"mirrors"` // the link's own list of mirrors, by REST
	Raw        spread `json:"raw"`     // the baseline: both clusters side by side, latest offset alone
}

// size is what a run leaves in Temporal and took of the worker. Bytes are those of the events as Temporal sends them.
type size struct {
	Topics          int                `json:"topics"`
	Partitions      int                `json:"partitions"`
	Events          int                `json:"events"`
	Bytes           int                `json:"bytes"`
	LargestResult   int                `json:"largestResult"` // bytes of the largest result of an activity
	LargestOf       string             `json:"largestOf"`     // the activity
	Retried         []string           `json:"retried"`       // activities that needed another attempt, and why
	WorkerPeakBytes int                `json:"workerPeakBytes"`
	Seconds         float64            `json:"seconds"` // of the run
	ProducersWindow float64            `json:"producersWindow"`
	Steps           map[string]float64 `json:"steps"` // seconds
}

// Budgets of a run with 1,000 topics of 10 partitions.
const (
	mostEvents = 1000
	mostBytes  = 1 << 20
	mostResult = 64 << 10
	mostMemory = 200 << 20
)

// TestSize moves a workload of 20 topics and a large one, each on a lab of its own. The budgets that are sizes are asserted;
// times are not.
func TestSize(t *testing.T) {
	for _, n := range []int{20, *topics} {
		t.Run(fmt.Sprintf("%d topics", n), func(t *testing.T) { measureSize(t, n) })
	}
}

func measureSize(t *testing.T, n int) {
	w := setup.DefaultWorkload("orders")
	w.Topics, w.Partitions, w.Rate = n, 10, 100
	lab := up(t, setup.Options{Workloads: []setup.Workload{w}, EditRunbook: patient})
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	s, err := story.Open(lab, w)
	require.NoError(t, err)
	defer s.Close()
	s.Dir = ledgerOf(lab.Dir(), w)
	require.NoError(t, s.Flows(ctx, "east", time.Time{}, 20))
	if n == *topics {
		results.Positions = measurePositions(ctx, t, lab, w)
	}
	r, took := failover(ctx, t, s)
	row := size{
		Topics: n, Partitions: n * w.Partitions, Seconds: took.Seconds(), WorkerPeakBytes: peak(t, lab), Steps: map[string]float64{},
	}
	for _, step := range r.Steps {
		row.Steps[step.Name] = *step.DurationSeconds
		t.Logf("%s: %.2f s: %s", step.Name, *step.DurationSeconds, step.Result)
	}
	for _, d := range r.Deviations {
		t.Log("deviation: ", d)
	}
	row.history(ctx, t, s.Temporal, r.Run.WorkflowID)
	require.NoError(t, s.Flows(ctx, "west", time.Now(), 10))
	row.ProducersWindow = pause(judged(ctx, t, s, r).acks, *r.Epoch.Before, *r.Epoch.After).seconds
	results.Sizes = append(results.Sizes, row)
	require.Less(t, row.Events, mostEvents, "events of the history")
	require.Less(t, row.Bytes, mostBytes, "bytes of the history")
	require.LessOrEqual(t, row.LargestResult, mostResult, "bytes of the result of %s", row.LargestOf)
	require.Less(t, row.WorkerPeakBytes, mostMemory, "bytes of the worker's memory at its peak")
}

// patient budgets are for what is measured here: that it ends well, and how large it gets.
func patient(b *runbooks.Runbook) {
	minute := runbooks.Duration(time.Minute)
	b.Objectives.RTO = 5 * minute
	b.Budgets.StopClients, b.Budgets.Drain, b.Budgets.StartClients = minute, minute, minute
	b.Budgets.Promote, b.Budgets.Verify = minute, minute
}

// measurePositions reads with what the worker reads with: the same code, login and link.
func measurePositions(ctx context.Context, t *testing.T, lab *setup.Lab, w setup.Workload) *positions {
	t.Helper()
	book, err := runbooks.Load(lab.RunbookFile(w.Name))
	require.NoError(t, err)
	clusters, raw := map[string]*kafka.Cluster{}, map[string]*kadm.Client{}
	for _, name := range setup.Clusters {
		c := book.Runbook.Clusters[name]
		clusters[name], err = kafka.Open(kafka.Config{Name: name, Bootstrap: c.Bootstrap, Security: c.Security, Login: lab.KafkaLogin(name, "switchback")})
		require.NoError(t, err)
		defer clusters[name].Close()
		plain, err := lab.Kafka(name, "switchback")
		require.NoError(t, err)
		defer plain.Close()
		raw[name] = kadm.NewClient(plain)
	}
	cl, _ := book.Runbook.Link("east", "west")
	link, err := clusterlinking.New(clusterlinking.Config{
		REST: cl.ClusterLinking.REST, PathPrefix: cl.ClusterLinking.PathPrefix, ClusterID: cl.ClusterLinking.Cluster,
		Link: cl.ClusterLinking.Link, Login: lab.LinkLogin(),
	})
	require.NoError(t, err)
	defer link.Close()

	p := &positions{Topics: w.Topics, Partitions: w.Topics * w.Partitions}
	ends := func(cluster string) error {
		list, err := clusters[cluster].Ends(ctx, w.TopicNames())
		if err == nil && len(list) != p.Partitions {
			err = fmt.Errorf("%s has %d of %d partitions", cluster, len(list), p.Partitions)
		}
		return err
	}
	latest := func(cluster string) error {
		list, err := raw[cluster].ListEndOffsets(ctx, w.TopicNames()...)
		if err != nil {
			return err
		}
		return list.Error()
	}
	mirrors := func(string) error {
		list, err := link.Mirrors(ctx)
		if err == nil && len(list) != w.Topics {
			err = fmt.Errorf("the link lists %d of %d mirrors", len(list), w.Topics)
		}
		return err
	}
	require.NoError(t, story.Until(ctx, "all mirrors", func() (bool, error) { err := mirrors(""); return err == nil, err }))
	for i := range *looks + 1 {
		for _, m := range []struct {
			into *spread
			read func(string) error
			on   []string
		}{{&p.Ends, ends, setup.Clusters}, {&p.Mirrors, mirrors, []string{"link"}}, {&p.Raw, latest, setup.Clusters}} {
			seconds := sideBySide(t, m.read, m.on)
			if i > 0 { // the first logs in
				m.into.add(seconds)
			}
		}
	}
	return p
}

func sideBySide(t *testing.T, read func(string) error, on []string) (seconds float64) {
	t.Helper()
	errs := make(chan error, len(on))
	begun := time.Now()
	for _, name := range on {
		go func() { errs <- read(name) }()
	}
	for range on {
		require.NoError(t, <-errs)
	}
	return time.Since(begun).Seconds()
}

// history counts what a run left in Temporal.
func (s *size) history(ctx context.Context, t *testing.T, c client.Client, id string) {
	t.Helper()
	names := map[int64]string{}
	events := c.GetWorkflowHistory(ctx, id, "", false, enums.HISTORY_EVENT_FILTER_TYPE_ALL_EVENT)
	for events.HasNext() {
		e, err := events.Next()
		require.NoError(t, err)
		s.Events++
		s.Bytes += proto.Size(e)
		if scheduled := e.GetActivityTaskScheduledEventAttributes(); scheduled != nil {
			names[e.GetEventId()] = scheduled.GetActivityType().GetName()
		}
		if started := e.GetActivityTaskStartedEventAttributes(); started.GetAttempt() > 1 {
			why := fmt.Sprintf("%s, attempt %d: %s", names[started.GetScheduledEventId()], started.GetAttempt(), started.GetLastFailure().GetMessage())
			s.Retried = append(s.Retried, why)
			t.Log(why)
		}
		if done := e.GetActivityTaskCompletedEventAttributes(); done != nil {
			if n := proto.Size(done.GetResult()); n > s.LargestResult {
				s.LargestResult, s.LargestOf = n, names[done.GetScheduledEventId()]
			}
		}
	}
}

// peak is the most memory that the worker had resident since its start; 0 where the system does not say.
func peak(t *testing.T, lab *setup.Lab) int {
	t.Helper()
	for _, p := range lab.Status() {
		if p.Name != "worker" {
			continue
		}
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.PID))
		if err != nil {
			return 0
		}
		for line := range strings.Lines(string(raw)) {
			if kB, ok := strings.CutPrefix(line, "VmHWM:"); ok {
				n, err := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(kB), "kB")))
				require.NoError(t, err)
				return n << 10
			}
		}
	}
	return 0
}
