package workflows

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/activities"
)

func at(minute, second int) time.Time { return time.Date(2026, 11, 21, 3, minute, second, 0, time.UTC) }

func row(name Step, state State, started, ended *time.Time, text string) StepStatus {
	until := at(20, 0)
	return StepStatus{Step: name, State: state, Started: started, Ended: ended, Until: &until, BudgetSeconds: 120, Text: text}
}

// Who opens the page at night sees first what is so and what to do, then the rest.
func TestPageSaysFirstWhoMustDoWhat(t *testing.T) {
	begun, ended := at(10, 0), at(13, 40)
	running := []StepStatus{row(Drain, Done, &begun, &ended, "all | of\nit"), row(StopConsumers, Running, &begun, nil, ""), row(Promote, Waiting, nil, nil, "")}
	approving := []StepStatus{row(Approve, Running, &begun, nil, "")}
	for name, tc := range map[string]struct {
		status Status
		says   []string // in this order
		not    []string
	}{
		"a step runs beside another": {
			Status{Phase: string(Drain), WaitsFor: string(Drain), Steps: running},
			[]string{"Now: **stop-consumers** until 2026-11-21T03:20:00Z at the latest", "| drain | done | 3m40s of 2m | all / of it |", "| **stop-consumers** | **running** | of 2m |", "| promote | waiting |"},
			[]string{"waits for", "Send an Update"},
		},
		"approval": {
			Status{Phase: string(Approve), WaitsFor: "2 approvals", Steps: approving,
				Findings:  []activities.Finding{{Check: "clocks", Level: activities.LevelWarning, Means: "cannot be seen", Do: "set it"}, {Check: "drain", Level: activities.LevelOK, Means: "short"}},
				Decisions: []Decision{{At: at(1, 2), What: UpdateApprove, By: "ann", Reason: "seen"}}},
			[]string{"Now: **approve**, waits for 2 approvals", "`switchback approve orders --reason why`", "- warning: **clocks** cannot be seen; to do: set it\n", "short\n", "T03:01:02Z **approve** by ann: seen", "| **approve** |"},
			nil,
		},
		"held": {
			Status{Phase: phaseHeld, Held: "held before drain by ann (lunch): resume it, or abort it", Steps: running},
			[]string{"**Held** before drain by ann (lunch)", "`switchback resume orders --reason why`"},
			[]string{"**Held** held"},
		},
		"a paged team": {
			Status{Phase: string(StopConsumers), WaitsFor: "team night: stop client batch, then `acknowledge` it", Steps: running},
			[]string{"waits for team night: stop client batch", "`switchback acknowledge orders --client which --reason why`"},
			nil,
		},
		"parked while it is taken back": {
			Status{Phase: phaseParked, Parked: "Consul is away. An operator must mend that and `retry`.", Epoch: 8, NextEpoch: 8, Steps: running,
				Closing: []StepStatus{row("restore-consumers", Failed, &begun, &ended, "Consul is away")}, Deviations: []string{"two\nlines"}},
			[]string{"**Parked.** Consul is away", "`switchback retry orders --reason why`", "Epoch 8.", "| promote | not run |", "| **restore-consumers** | **failed** | 3m40s of 2m | Consul is away |", "**Deviations**\n\n- two lines\n"},
			[]string{"the switch gets"},
		},
		"past the point of no return": {
			Status{Phase: string(SwitchTraffic), Final: true, Steps: running},
			[]string{"Past the point of no return", "Epoch 7, the switch gets 8."}, nil,
		},
		"ended": {
			Status{Phase: Completed, Outcome: Completed, Sentence: "orders is on west.", Final: true, Ended: ended, Steps: running},
			[]string{"**completed.** orders is on west."}, []string{"Past the point", "Send an Update"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := tc.status
			s.Workflow, s.Runbook, s.From, s.To = "PlannedFailover", "orders", "east", "west"
			if s.Epoch == 0 {
				s.Epoch, s.NextEpoch = 7, 8
			}
			got := strings.ReplaceAll(page(s), "\u00a0", " ")
			from := 0
			for _, says := range append([]string{"## PlannedFailover of `orders`: east → west"}, tc.says...) {
				i := strings.Index(got[from:], says)
				require.GreaterOrEqual(t, i, 0, "%q is not there, or too early:\n%s", says, got)
				from += i
			}
			for _, not := range tc.not {
				require.NotContains(t, got, not)
			}
		})
	}
}

func TestShortDurations(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "0s", 110 * time.Millisecond: "0.11s", 59830 * time.Millisecond: "1m", 20 * time.Second: "20s", 2 * time.Minute: "2m", time.Hour: "1h",
		220 * time.Second: "3m40s", 90 * time.Minute: "1h30m", time.Hour + time.Second: "1h0m1s", 10 * time.Minute: "10m", 20 * time.Hour: "20h",
	} {
		require.Equal(t, want, short(d))
	}
}
