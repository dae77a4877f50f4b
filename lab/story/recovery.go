package story

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"go.temporal.io/sdk/client"

	"switchback/lab/ledger"
	"switchback/lab/setup"
	"switchback/replication"
	"switchback/report"
	"switchback/workflows"
)

// Recover starts a recovery of what is stranded on the cluster that the workload left, as Requester.
func (s *Story) Recover(ctx context.Context, id string, in workflows.RecoverInput) (client.WorkflowRun, error) {
	in.Runbook, in.Reason, in.By = s.Workload.Name, "exercise", setup.Requester
	return s.Start(ctx, id, "RecoverLaggedData", in)
}

// ApproveRecovery gives a recovery the one approval that the lab asks for.
func (s *Story) ApproveRecovery(ctx context.Context, id string) error {
	err := s.Reaches(ctx, id, string(workflows.Approve))
	if err != nil {
		if status, asked := s.Status(ctx, id); asked == nil {
			err = errors.Join(err, fmt.Errorf("it is %s: %s %s", status.Phase, status.Sentence, status.Parked))
		}
		return err
	}
	_, err = s.Order(ctx, id, workflows.UpdateApprove, workflows.Order{By: setup.Approvers[0], Reason: "exercise"})
	return err
}

// Brought is what a way home had to bring: what was stranded when the cluster that was lost was fenced, and what the report of the
// recovery says that came back, which may be that of a way home with a recovery in it.
func (s *Story) Brought(ctx context.Context, lost, path string) (r ledger.Roundtrip, err error) {
	fenced, err := s.Fenced(ctx, lost)
	if err != nil {
		return r, err
	}
	r.Stranded = fenced.Loss.AtLeast
	parsed, err := parsed(path)
	if err == nil && parsed.LaggedData == nil && len(parsed.Parts) > 0 {
		parsed, err = s.part(parsed, report.KindRecovery)
	}
	if err != nil {
		return r, err
	}
	if parsed.LaggedData == nil {
		return r, fmt.Errorf("report %s has no account of a recovery", path)
	}
	r.Recovered = parsed.LaggedData.Total.Recovered
	return r, nil
}

// part is the first report of its kind among those of the runs within a run.
func (s *Story) part(of report.Report, kind string) (report.Report, error) {
	for _, part := range of.Parts {
		if r, err := parsed(part.Report); err != nil || r.Kind == kind {
			return r, err
		}
	}
	return report.Report{}, fmt.Errorf("the report of %s names no %s", of.Run, kind)
}

func parsed(path string) (report.Report, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return report.Report{}, err
	}
	return report.Parse(raw)
}

// withDiverted adds what lies in <topic>.recovered to a log.
func (s *Story) withDiverted(ctx context.Context, r report.Report, log ledger.ClusterLog) (ledger.ClusterLog, error) {
	var topics []string
	for _, t := range r.LaggedData.Topics {
		if strings.HasSuffix(t.Into, replication.DivertSuffix) && t.Recovered > 0 {
			topics = append(topics, t.Into)
		}
	}
	if len(topics) == 0 {
		return log, nil
	}
	diverted, err := ledger.ReadCluster(ctx, r.To, topics, s.Lab.KafkaOptions(r.To, "lab")...)
	log.Records = append(log.Records, diverted.Records...)
	return log, err
}

// JudgeRoundtrip holds the ledgers of a story that went out of a disaster and home again against the log of home, and against its
// reports.
func (s *Story) JudgeRoundtrip(ctx context.Context, home, reportPath string, r ledger.Roundtrip) (ledger.Verdict, error) {
	v, err := s.Judge(ctx, home, "")
	if err != nil {
		return v, err
	}
	l, err := ledger.Read(s.Dir)
	if err != nil {
		return v, err
	}
	log, err := s.log(ctx, home)
	return v.AgainstRoundtrip(l, home, log, reportPath, r), err
}
