//go:build bench

package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/clients/supervised"
	"switchback/internal/consul"
	"switchback/lab/ledger"
	"switchback/lab/setup"
	"switchback/lab/story"
	"switchback/report"
	"switchback/runbooks"
	"switchback/workflows"
)

// windows are the pauses of one Temporal server's runs, in seconds. Each is the worst of all instances of a role.
type windows struct {
	Producers        spread `json:"producers"`        // by their ledgers: last acknowledgement to the first at the next epoch
	Consumers        spread `json:"consumers"`        // the same between records that they read
	Report           spread `json:"report"`           // the producers' window that the run's own report says
	RestartProducers spread `json:"restartProducers"` // the same clients stopped and started without a run
	RestartConsumers spread `json:"restartConsumers"`
	Run              spread `json:"run"` // from its start to its end
}

// phaseTimes is where the producers' window of one run went, in seconds, by the step's name.
type phaseTimes map[string]float64

const (
	tuned    = "tuned"
	defaults = "default"
)

// TestSwitchWindow moves workloads on a server with its default settings and on a tuned one, in turns, so that both see
// the same noise of the machine.
func TestSwitchWindow(t *testing.T) {
	labs := map[string]*setup.Lab{}
	for _, kind := range []string{defaults, tuned} {
		o := setup.Options{TemporalDefaults: kind == defaults}
		for i := range *runs {
			w := setup.DefaultWorkload(fmt.Sprintf("w%02d", i+1))
			w.Idle = true
			o.Workloads = append(o.Workloads, w)
		}
		labs[kind], results.Windows[kind] = up(t, o), &windows{}
	}
	for i := range *runs {
		for _, kind := range []string{defaults, tuned} {
			measureWindow(t, kind, labs[kind], labs[kind].Options().Workloads[i])
		}
	}
}

// measureWindow stops and starts the clients of a workload without a run, then moves it by one.
func measureWindow(t *testing.T, kind string, lab *setup.Lab, w setup.Workload) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := story.Open(lab, w)
	require.NoError(t, err)
	defer s.Close()
	s.Dir = ledgerOf(lab.Dir(), w)
	require.NoError(t, lab.StartClients(ctx, w))
	require.NoError(t, s.Flows(ctx, "east", time.Time{}, 100))
	before, restarted := restart(ctx, t, lab, w)
	require.NoError(t, s.Flows(ctx, "east", time.Now(), 100))

	r, took := failover(ctx, t, s)
	require.NoError(t, s.Flows(ctx, "west", time.Now(), 50))
	l := judged(ctx, t, s, r)
	require.NoError(t, lab.StopClients(ctx, w))

	row := results.Windows[kind]
	row.Run.add(took.Seconds())
	row.Report.add(*r.SwitchWindow.ProducersSeconds)
	row.RestartProducers.add(pause(l.acks, before, restarted).seconds)
	row.RestartConsumers.add(pause(l.reads, before, restarted).seconds)
	row.Consumers.add(pause(l.reads, restarted, *r.Epoch.After).seconds)
	worst := pause(l.acks, restarted, *r.Epoch.After)
	row.Producers.add(worst.seconds)
	results.Phases[kind] = append(results.Phases[kind], phases(r, l.acks, worst))
	t.Logf("%s %s: producers %.2f s (without a run %.2f s), consumers %.2f s (%.2f s), report %.2f s", kind, w.Name, worst.seconds,
		last(row.RestartProducers), last(row.Consumers), last(row.RestartConsumers), last(row.Report))
}

func last(s spread) float64 { return s.Each[len(s.Each)-1] }

// restart is the baseline: every client is asked to stop and, at the next epoch of the same cluster, to run.
func restart(ctx context.Context, t *testing.T, lab *setup.Lab, w setup.Workload) (before, after int64) {
	t.Helper()
	book, err := runbooks.Load(lab.RunbookFile(w.Name))
	require.NoError(t, err)
	d, err := lab.Discovery(w.Name)
	require.NoError(t, err)
	defer d.Close()
	clients := supervised.New(d)
	reaches := func(desired string, epoch int64) {
		_, err := clients.Ask(ctx, epoch, desired, book.Runbook.Clients)
		require.NoError(t, err)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			p, err := clients.Look(ctx, epoch, desired, book.Runbook.Clients)
			require.NoError(t, err)
			if len(p.Waiting) == 0 {
				return
			}
			<-tick.C
		}
	}
	state, err := d.Read(ctx)
	require.NoError(t, err)
	reaches(consul.Stop, state.Epoch)
	_, err = d.Switch(ctx, consul.SwitchInput{Expect: state.Epoch, Epoch: state.Epoch + 1, By: "bench", Values: state.Values})
	require.NoError(t, err)
	reaches(consul.Run, state.Epoch+1)
	return state.Epoch, state.Epoch + 1
}

// failover runs one and reads its report.
func failover(ctx context.Context, t *testing.T, s *story.Story) (r report.Report, took time.Duration) {
	t.Helper()
	begun := time.Now()
	run, err := s.Plan(ctx, "planned-"+s.Workload.Name, "west")
	require.NoError(t, err)
	result, err := s.Ends(ctx, run)
	require.NoError(t, err)
	require.Equal(t, workflows.Completed, result.Outcome, result.Sentence)
	raw, err := os.ReadFile(result.Report)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(raw, &r))
	return r, time.Since(begun)
}

// event is an acknowledgement or a record that was read.
type event struct {
	instance string
	epoch    int64
	at       time.Time
}

type events struct{ acks, reads []event }

// judged ends the traffic and refuses to take figures from a run that lost, doubled or disordered anything.
func judged(ctx context.Context, t *testing.T, s *story.Story, r report.Report) (e events) {
	t.Helper()
	require.NoError(t, s.Settle(ctx))
	v, err := s.Judge(ctx, r.To, "")
	require.NoError(t, err)
	require.True(t, v.Well(), "%s", v)
	l, err := ledger.Read(s.Dir)
	require.NoError(t, err)
	for _, a := range l.Acked {
		e.acks = append(e.acks, event{a.Instance, a.Epoch, a.At})
	}
	for _, r := range l.Seen {
		e.reads = append(e.reads, event{r.Instance, r.Epoch, r.At})
	}
	return e
}

// standstill is the pause of one instance between two epochs.
type standstill struct {
	from, to time.Time
	seconds  float64
}

// pause is the longest of all instances.
func pause(list []event, from, to int64) (worst standstill) {
	all := map[string]standstill{}
	for _, e := range list {
		one := all[e.instance]
		if e.epoch == from && e.at.After(one.from) {
			one.from = e.at
		}
		if e.epoch == to && (one.to.IsZero() || e.at.Before(one.to)) {
			one.to = e.at
		}
		all[e.instance] = one
	}
	for _, one := range all {
		if one.from.IsZero() || one.to.IsZero() {
			continue
		}
		if one.seconds = one.to.Sub(one.from).Seconds(); one.seconds > worst.seconds {
			worst = one
		}
	}
	return worst
}

// The phases of a window, in their order. Those between are the run's own steps; stop-consumers runs beside three of them.
const (
	phaseEnd   = "last acknowledgement to all producers stopped"
	phaseStart = "clients said to run, to first acknowledgement"
)

var inWindow = []workflows.Step{
	workflows.FenceSource, workflows.ProveQuiescence, workflows.Drain, workflows.StopConsumers, workflows.HandOverOffsets,
	workflows.Promote, workflows.SwitchTraffic, workflows.StartClients,
}

// phases cuts the worst producer's window at the steps of the run.
func phases(r report.Report, acks []event, worst standstill) phaseTimes {
	p := phaseTimes{}
	var began time.Time
	ends := worst.from
	for _, s := range r.Steps {
		for _, name := range inWindow {
			if s.Name != string(name) || s.Started == nil {
				continue
			}
			p[s.Name] = *s.DurationSeconds
			if began.IsZero() {
				began = *s.Started
			}
			if end := s.Started.Add(time.Duration(*s.DurationSeconds * float64(time.Second))); end.After(ends) {
				ends = end
			}
		}
	}
	p[phaseEnd] = began.Sub(worst.from).Seconds()
	p[phaseStart] = worst.to.Sub(ends).Seconds()
	return p
}
