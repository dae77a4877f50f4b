package workflows

import (
	"fmt"
	"strings"
	"time"

	"go.temporal.io/sdk/workflow"

	"switchback/activities"
	"switchback/replication"
	"switchback/runbooks"
)

// letRead lets the groups read on the old cluster what was rewound there, until they have read it all or their time is over.
// Their clients find it outside of the keys that move the workload.
func (r *recovery) letRead(ctx workflow.Context, until time.Time) (string, error) {
	if r.treat.ReadFor == 0 {
		return "nobody asked to read there", nil
	}
	r.reading = true // from here on the groups are closed again, whatever happens
	in := r.readingInput(workflow.Now(ctx).Add(rewindBudget))
	opened, err := perform[activities.ReadingResult](r.engine, longWait(ctx, in.Until, "let groups read on "+r.route.From.Name), salvage.OpenReading, in)
	if err != nil {
		return "", r.parks(err)
	}
	if opened.Prefix == "" {
		return opened.Text, nil
	}
	in.Until = inside(ctx, until)
	r.say(string(ReadRewound), fmt.Sprintf("%s until %s at the latest", opened.Text, in.Until.UTC().Format(time.RFC3339)))
	out, err := perform[activities.ReadingResult](r.engine, longWait(ctx, until, "groups read on "+r.route.From.Name), salvage.AwaitReading, in)
	if err != nil {
		return "", r.parks(err)
	}
	return out.Text, nil
}

// closeReading ends what letRead began.
func (r *recovery) closeReading(ctx workflow.Context, until time.Time) (string, error) {
	if !r.reading {
		return "nobody was let in", nil
	}
	out, err := perform[activities.ReadingResult](r.engine, longWait(ctx, until, "close the groups on "+r.route.From.Name), salvage.CloseReading,
		r.readingInput(inside(ctx, workflow.Now(ctx).Add(r.stopTime()))))
	switch {
	case isStale(err):
		r.deviate(fmt.Sprintf("the groups on %s were not closed again, because another run has gone on: %s", r.route.From.Name, plain(err)))
		return "left to the run that has gone on", nil
	case err != nil:
		return "", r.parks(err)
	}
	r.readers = out.Groups
	for _, o := range out.Left {
		r.deviate(fmt.Sprintf("%s, which read on %s, did not say that it had stopped (%s); its group is closed to it", o.Name, r.route.From.Name, o.Reason))
	}
	return or(out.Text, "closed again"), nil
}

// mixed warns of readers on the old cluster who would meet there what is copied too.
func (r *recovery) mixed(topics []activities.StrandedTopic) []activities.Finding {
	var others []string
	rewound := false
	for _, t := range topics {
		if t.Treatment == replication.TreatRewind {
			rewound = true
		} else {
			others = append(others, t.Topic)
		}
	}
	if r.treat.ReadFor == 0 || !rewound || len(others) == 0 {
		return nil
	}
	return []activities.Finding{{Level: activities.LevelWarning, Check: "reading",
		Means: fmt.Sprintf("groups that are let in on %s stand in %s where they stood when it was lost", r.route.From.Name, strings.Join(others, ", ")),
		Do:    "have the instances that read there subscribe to rewound topics alone"}}
}

func (r *recovery) readingInput(until time.Time) activities.ReadingInput {
	return activities.ReadingInput{
		RecoveryInput: r.input(), Groups: r.book.Groups, Clients: names(r.book.ClientsByRole(runbooks.RoleConsumer, runbooks.RoleBoth)),
		Credentials: r.book.Credentials, Until: until,
	}
}

// readingBudget is how long groups may read there, and what it takes to let them in.
func (r *recovery) readingBudget() time.Duration { return r.treat.ReadFor.D() + leastBudget }

func (r *recovery) closingBudget() time.Duration {
	return rewindBudget + r.stopTime()
}
