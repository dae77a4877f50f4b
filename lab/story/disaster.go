package story

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"go.temporal.io/api/serviceerror"
	"go.temporal.io/sdk/client"

	"switchback/lab/setup"
	"switchback/report"
	"switchback/workflows"
)

// Lose kills every broker of a cluster with SIGKILL, and the Consul and Vault of its region where it has them, and says when
// the last one was gone.
func (s *Story) Lose(cluster string) (gone time.Time, err error) {
	for _, process := range s.region(cluster) {
		err = errors.Join(err, s.Lab.Kill(process))
	}
	return time.Now(), err
}

func (s *Story) region(cluster string) []string {
	return append(s.Lab.BrokerProcesses(cluster), s.Lab.RegionProcesses(cluster)...)
}

// BringBack starts again, with all that it had, what Lose killed.
func (s *Story) BringBack(ctx context.Context, cluster string) error {
	brokers := s.region(cluster)
	ends := make(chan error, len(brokers))
	for _, broker := range brokers { // side by side: one that waits for the others is not ready before them
		go func() { ends <- s.Lab.StartAgain(ctx, broker) }()
	}
	var err error
	for range brokers {
		err = errors.Join(err, <-ends)
	}
	return err
}

// PlanUnplanned starts an unplanned failover of the workload, as Requester.
func (s *Story) PlanUnplanned(ctx context.Context, id, to string, outage time.Time) (client.WorkflowRun, error) {
	return s.Start(ctx, id, "UnplannedFailover", workflows.UnplannedInput{Runbook: s.Workload.Name, To: to, Reason: "exercise", By: setup.Requester, Outage: outage})
}

// Approve gives a run that waits for them the approvals of all approvers of the lab.
func (s *Story) Approve(ctx context.Context, id string) error {
	if err := s.Reaches(ctx, id, string(workflows.Approve)); err != nil {
		return err
	}
	for _, by := range setup.Approvers {
		if _, err := s.Order(ctx, id, workflows.UpdateApprove, workflows.Order{By: by, Reason: "exercise"}); err != nil {
			return err
		}
	}
	return nil
}

// Fencing asks the workflow that waits to fence a cluster how it is; it answers after its end as well. There is none where
// the run could fence the cluster itself.
func (s *Story) Fencing(ctx context.Context, cluster string) (f workflows.FencingStatus, there bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	answer, err := s.Temporal.QueryWorkflow(ctx, "fence/"+s.Workload.Name+"/"+cluster, "", workflows.QueryStatus)
	var none *serviceerror.NotFound
	if errors.As(err, &none) {
		return f, false, nil
	}
	if err != nil {
		return f, false, err
	}
	return f, true, answer.Get(&f)
}

// Fenced waits until a cluster that came back is fenced, and its loss closed.
func (s *Story) Fenced(ctx context.Context, cluster string) (f workflows.FencingStatus, err error) {
	return f, Until(ctx, "the fence of "+cluster, func() (bool, error) {
		now, there, err := s.Fencing(ctx, cluster)
		if err != nil || !there {
			return false, errors.Join(err, errors.New("no workflow waits to fence it"))
		}
		f = now
		return f.Fenced != nil && f.Loss != nil, fmt.Errorf("after %d attempts it waits for %s %s", f.Tries, f.Waiting, f.Ended)
	})
}

// closed is the loss as the fence of a cluster has closed it; nil where none has.
func (s *Story) closed(ctx context.Context, cluster string) (*report.Loss, error) {
	f, _, err := s.Fencing(ctx, cluster)
	if err != nil || f.Loss == nil {
		return nil, err
	}
	return &report.Loss{AtLeast: f.Loss.AtLeast, AtMost: report.Offset(f.Loss.AtMost), Why: f.Loss.Why}, nil
}

// HandedOver waits until the mirror has brought the offsets that every group has on one cluster to another: a disaster
// before that makes the groups read all of it again. A partition that nobody wrote to has none on either.
func (s *Story) HandedOver(ctx context.Context, from, to string) error {
	source, err := s.Lab.Kafka(from, "lab")
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := s.Lab.Kafka(to, "lab")
	if err != nil {
		return err
	}
	defer target.Close()
	here, there := s.Lab.TopicNames(from, s.Workload), s.Lab.TopicNames(to, s.Workload)
	return Until(ctx, "the groups' offsets on "+to, func() (bool, error) {
		for _, group := range s.Workload.Groups() {
			stands, err := kadm.NewClient(source).FetchOffsets(ctx, group)
			if err != nil {
				return false, err
			}
			mirrored, err := kadm.NewClient(target).FetchOffsets(ctx, group)
			if err != nil {
				return false, err
			}
			for i := range here {
				if want, have := len(stands[here[i]]), len(mirrored[there[i]]); have < want {
					return false, fmt.Errorf("group %s has offsets of %d of %d partitions of %s", group, have, want, there[i])
				}
			}
		}
		return true, nil
	})
}
