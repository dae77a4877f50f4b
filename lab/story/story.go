// Package story plays a workload's story in the lab and has the ledger judge it: traffic flows, something happens, the
// traffic ends, and what every client wrote down is held against the clusters' logs and against the run's report.
//
// Start reading at Open. The demo and the end-to-end tests are written in these words.
package story

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"go.temporal.io/sdk/client"
	"go.temporal.io/sdk/temporal"

	"switchback/activities"
	"switchback/lab/ledger"
	"switchback/lab/setup"
	"switchback/report"
	"switchback/workflows"
)

// Story is one workload of a running lab.
type Story struct {
	Lab      *setup.Lab
	Workload setup.Workload
	Temporal client.Client
	Dir      string // of its ledgers
	Outages  []ledger.Outage
}

// Open begins the story of a workload.
func Open(lab *setup.Lab, w setup.Workload) (*Story, error) {
	t, err := lab.Temporal()
	if err != nil {
		return nil, err
	}
	return &Story{Lab: lab, Workload: w, Temporal: t, Dir: lab.LedgerDir()}, nil
}

// Close ends it; the lab goes on.
func (s *Story) Close() { s.Temporal.Close() }

// every is the pause between two looks at a condition.
const every = 100 * time.Millisecond

// Until waits for a condition, or fails at ctx's end with what it was still waiting for.
func Until(ctx context.Context, what string, look func() (bool, error)) error {
	tick := time.NewTicker(every)
	defer tick.Stop()
	var last error
	for {
		ok, err := look()
		if ok {
			return nil
		}
		if last == nil || ctx.Err() == nil { // a look that the end of the time cut short says nothing
			last = err
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("waiting for %s: %w", what, ctx.Err()), last)
		case <-tick.C:
		}
	}
}

// Flows waits until every producer was acknowledged at least so many records on a cluster, and every group has read some
// there, since the moment given.
func (s *Story) Flows(ctx context.Context, cluster string, since time.Time, records int) error {
	return Until(ctx, fmt.Sprintf("traffic on %s", cluster), func() (bool, error) {
		l, err := ledger.Read(s.Dir)
		if err != nil {
			return false, err
		}
		acked, seen := map[string]int{}, map[string]int{}
		for _, a := range l.Acked {
			if a.Cluster == cluster && a.At.After(since) {
				acked[a.Instance]++
			}
		}
		for _, r := range l.Seen {
			if r.Cluster == cluster && r.At.After(since) {
				seen[r.Group]++
			}
		}
		for _, c := range s.Workload.Clients {
			for i := 1; i <= c.Instances; i++ {
				if instance := fmt.Sprintf("%s-%d", c.Name, i); c.Group == "" && acked[instance] < records {
					return false, fmt.Errorf("%s was acknowledged %d of %d records", instance, acked[instance], records)
				}
			}
			if c.Group != "" && seen[c.Group] == 0 {
				return false, fmt.Errorf("group %s has read nothing", c.Group)
			}
		}
		return true, nil
	})
}

// Plan starts a planned failover of the workload. The id may be anything.
func (s *Story) Plan(ctx context.Context, id, to string) (client.WorkflowRun, error) {
	return s.Start(ctx, id, "PlannedFailover", workflows.PlannedInput{Runbook: s.Workload.Name, To: to, Reason: "exercise", By: "operator"})
}

// Start starts any workflow.
func (s *Story) Start(ctx context.Context, id, workflow string, in any) (client.WorkflowRun, error) {
	return s.Temporal.ExecuteWorkflow(ctx, client.StartWorkflowOptions{ID: id, TaskQueue: setup.TaskQueue, WorkflowTaskTimeout: activities.TaskTimeout}, workflow, in)
}

// Status asks a run how it is.
func (s *Story) Status(ctx context.Context, id string) (workflows.Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	var status workflows.Status
	answer, err := s.Temporal.QueryWorkflow(ctx, id, "", workflows.QueryStatus)
	if err != nil {
		return status, err
	}
	return status, answer.Get(&status)
}

// Reaches waits until a run is in a phase: a step's name, or parked, held, or an outcome.
func (s *Story) Reaches(ctx context.Context, id, phase string) error {
	return Until(ctx, "run "+id+" to reach "+phase, func() (bool, error) {
		status, err := s.Status(ctx, id)
		if err != nil {
			return false, err
		}
		return status.Phase == phase, fmt.Errorf("it is at %s: %s", status.Phase, status.WaitsFor)
	})
}

// Order sends an Update and returns its answer; a refusal is an error with the validator's sentence.
func (s *Story) Order(ctx context.Context, id, order string, o workflows.Order) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	handle, err := s.Temporal.UpdateWorkflow(ctx, client.UpdateWorkflowOptions{WorkflowID: id, UpdateName: order, Args: []any{o}, WaitForStage: client.WorkflowUpdateStageCompleted})
	if err != nil {
		return "", err
	}
	var answer string
	return answer, handle.Get(ctx, &answer)
}

// Ends waits for the end of a run. A failed run is a Result too.
func (s *Story) Ends(ctx context.Context, run client.WorkflowRun) (workflows.Result, error) {
	var r workflows.Result
	err := run.Get(ctx, &r)
	var failed *temporal.ApplicationError
	if errors.As(err, &failed) && failed.HasDetails() {
		return r, failed.Details(&r)
	}
	return r, err
}

// Settle ends the producers and waits until every group has read all that was acknowledged.
func (s *Story) Settle(ctx context.Context) error {
	if err := s.stopProducers(ctx); err != nil {
		return err
	}
	return s.read(ctx, func(string) bool { return true })
}

// SettleOn is Settle for a workload that has lost records: the groups read all that the cluster has on which it is now.
func (s *Story) SettleOn(ctx context.Context, active string) error {
	if err := s.stopProducers(ctx); err != nil {
		return err
	}
	log, err := s.log(ctx, active)
	if err != nil {
		return err
	}
	there := make(map[string]bool, len(log.Records))
	for _, r := range log.Records {
		there[id(r.Key, r.Seq)] = true
	}
	return s.read(ctx, func(record string) bool { return there[record] })
}

// read waits until every group has read all that was acknowledged and counts.
func (s *Story) read(ctx context.Context, counts func(record string) bool) error {
	return Until(ctx, "the groups to read everything", func() (bool, error) {
		l, err := ledger.Read(s.Dir)
		if err != nil {
			return false, err
		}
		acked, read := map[string]bool{}, map[string]map[string]bool{}
		for _, a := range l.Acked {
			if record := id(a.Key, a.Seq); s.owns(a.Topic) && counts(record) {
				acked[record] = true
			}
		}
		for _, r := range l.Seen {
			if read[r.Group] == nil {
				read[r.Group] = map[string]bool{}
			}
			read[r.Group][id(r.Key, r.Seq)] = true
		}
		missing := 0
		for _, g := range s.Workload.Groups() {
			for record := range acked {
				if !read[g][record] {
					missing++
				}
			}
		}
		return missing == 0, fmt.Errorf("%d records are not read yet", missing)
	})
}

func id(key string, seq int64) string { return fmt.Sprintf("%s#%d", key, seq) }

func (s *Story) owns(topic string) bool {
	return len(topic) > len(s.Workload.Name) && topic[:len(s.Workload.Name)+1] == s.Workload.Name+"."
}

// stopProducers asks through discovery, as a run would.
func (s *Story) stopProducers(ctx context.Context) error {
	entry, err := s.Lab.Discovery(s.Workload.Name)
	if err != nil {
		return err
	}
	defer entry.Close()
	state, err := entry.Read(ctx)
	if err != nil {
		return err
	}
	desired := map[string]string{}
	for _, c := range s.Workload.Clients {
		if c.Group == "" {
			desired[c.Name] = activities.DesiredStop
		}
	}
	if _, err := entry.SetDesired(ctx, state.Epoch, desired); err != nil {
		return err
	}
	return Until(ctx, "the producers to end", func() (bool, error) {
		state, err := entry.Read(ctx)
		if err != nil {
			return false, err
		}
		for name := range desired {
			for instance, i := range state.Clients[name].Instances {
				if i.State != "stopped" {
					return false, fmt.Errorf("%s is %s", instance, i.State)
				}
			}
		}
		return true, nil
	})
}

// Judge holds the ledgers against the logs of both clusters, and the report, if there is one, against the ledgers.
func (s *Story) Judge(ctx context.Context, active, reportPath string) (ledger.Verdict, error) {
	l, err := ledger.Read(s.Dir)
	if err != nil {
		return ledger.Verdict{}, err
	}
	// Other workloads write into the same folder, and their records are in none of the logs that are read here.
	l.Acked = slices.DeleteFunc(l.Acked, func(a ledger.Acked) bool { return !s.owns(a.Topic) })
	l.Seen = slices.DeleteFunc(l.Seen, func(r ledger.Seen) bool { return !s.owns(r.Topic) })
	l.Outages = s.Outages
	logs := map[string]ledger.ClusterLog{}
	for _, cluster := range setup.Clusters {
		if logs[cluster], err = s.log(ctx, cluster); err != nil {
			return ledger.Verdict{}, err
		}
	}
	if s.Lab.Options().Link == setup.MirrorMaker {
		l.Renumbered = logs
	}
	groups := map[string][]string{}
	for _, g := range s.Workload.Groups() {
		groups[g] = s.Workload.TopicNames()
	}
	v := ledger.Judge(l, active, logs, groups)
	if reportPath == "" {
		return v, nil
	}
	raw, err := os.ReadFile(reportPath)
	if err != nil {
		return v, err
	}
	r, err := report.Parse(raw)
	if err != nil {
		return v, err
	}
	if r.Kind == report.KindRecovery {
		logs[r.To], err = s.withDiverted(ctx, r, logs[r.To])
		return v.AgainstRecovery(r, reportPath, logs), err
	}
	if r.Kind != report.KindUnplanned {
		return v.Against(l, r, reportPath), nil
	}
	closed, err := s.closed(ctx, r.From)
	return v.AgainstUnplanned(l, r, reportPath, ledger.Disaster{Logs: logs, Closed: closed}), err
}

// Missing counts the acknowledged records that a cluster does not have.
func (s *Story) Missing(ctx context.Context, cluster string) (n int64, err error) {
	return s.missing(ctx, cluster, s.owns)
}

// MissingOf counts those of one topic.
func (s *Story) MissingOf(ctx context.Context, cluster, topic string) (n int64, err error) {
	return s.missing(ctx, cluster, func(of string) bool { return of == topic })
}

func (s *Story) missing(ctx context.Context, cluster string, counts func(topic string) bool) (n int64, err error) {
	l, err := ledger.Read(s.Dir)
	if err != nil {
		return 0, err
	}
	log, err := s.log(ctx, cluster)
	if err != nil {
		return 0, err
	}
	there := make(map[string]bool, len(log.Records))
	for _, r := range log.Records {
		there[id(r.Key, r.Seq)] = true
	}
	for _, a := range l.Acked {
		if counts(a.Topic) && !there[id(a.Key, a.Seq)] {
			n++
		}
	}
	return n, nil
}

// Somewhere waits until every record that was acknowledged so far is seen on one of the clusters (I9). Topics may be missing, cut
// back or made anew at the moment, and a transaction that its dead writer left open hides what lies behind it until it ends.
func (s *Story) Somewhere(ctx context.Context) error {
	l, err := ledger.Read(s.Dir)
	if err != nil {
		return err
	}
	nowhere := map[string]bool{}
	for _, a := range l.Acked {
		if s.owns(a.Topic) {
			nowhere[id(a.Key, a.Seq)] = true
		}
	}
	return Until(ctx, "acknowledged records to be somewhere", func() (bool, error) {
		for _, cluster := range setup.Clusters {
			log, err := s.standing(ctx, cluster)
			for _, r := range log.Records {
				delete(nowhere, id(r.Key, r.Seq))
			}
			if err != nil {
				return false, err
			}
		}
		return len(nowhere) == 0, fmt.Errorf("%d records are nowhere", len(nowhere))
	})
}

// standing is the log of those of the workload's topics that a cluster has at the moment.
func (s *Story) standing(ctx context.Context, cluster string) (ledger.ClusterLog, error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	client, err := s.Lab.Kafka(cluster, "lab")
	if err != nil {
		return ledger.ClusterLog{}, err
	}
	defer client.Close()
	topics, err := kadm.NewClient(client).ListTopics(ctx, s.Lab.TopicNames(cluster, s.Workload)...)
	if err != nil {
		return ledger.ClusterLog{}, err
	}
	var names []string
	for _, t := range topics {
		if t.Err == nil {
			names = append(names, t.Topic)
		}
	}
	return ledger.ReadCluster(ctx, cluster, names, s.Lab.KafkaOptions(cluster, "lab")...)
}

// log is what a cluster has of the workload's topics.
func (s *Story) log(ctx context.Context, cluster string) (ledger.ClusterLog, error) {
	log, err := ledger.ReadCluster(ctx, cluster, s.Lab.TopicNames(cluster, s.Workload), s.Lab.KafkaOptions(cluster, "lab")...)
	if err != nil {
		return log, fmt.Errorf("read the log of %s: %w", cluster, err)
	}
	return log.WithoutPrefix(s.Lab.TopicPrefix(cluster)).Named(s.clusterName), nil
}

// clusterName is the lab's name for a cluster that says it has this id.
func (s *Story) clusterName(id string) string {
	for _, name := range setup.Clusters {
		if s.Lab.ClusterID(name) == id {
			return name
		}
	}
	return id
}

// Write keeps a verdict as JSON.
func Write(path string, v ledger.Verdict) error {
	raw, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o750); err != nil {
		return err
	}
	return os.WriteFile(path, append(raw, '\n'), 0o600)
}
