package e2e_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"switchback/activities"
	"switchback/internal/consul"
	"switchback/lab/setup"
	"switchback/runbooks"
	"switchback/workflows"
)

func regional(o *setup.Options) { o.Regional = true }

// A region is lost as a whole: its brokers, its Consul, and the Vault that holds Switchback's own login to its cluster. The worker
// is a new one, so that it has never been able to log in there. The run needs none of it; the region's Consul is told as soon as it
// is back, which is what AlignDiscovery waits for, and the old cluster is fenced.
func TestALostRegionTakesItsConsulAndItsVaultAlong(t *testing.T) {
	t.Parallel()
	for name, with := range map[string]func(*testing.T) func(*setup.Options){
		"cluster linking": func(*testing.T) func(*setup.Options) { return func(*setup.Options) {} },
		"MirrorMaker 2":   onApache,
	} {
		t.Run(name, func(t *testing.T) {
			s := up(t, with(t), regional, edited(func(b *runbooks.Runbook) { b.Budgets.Promote = runbooks.Duration(10 * time.Second) }))
			p := s.play(t, "orders")
			p.flows("east")
			s.does(t, "the groups' offsets are mirrored", func(ctx context.Context) error { return p.HandedOver(ctx, "east", "west") })
			gone := p.dies("east")
			require.NoError(t, s.Kill("worker"))
			s.does(t, "start the worker again", func(ctx context.Context) error { return s.StartAgain(ctx, "worker") })

			var plan workflows.UnplannedPlan
			s.operator(t).json(0, &plan, "plan", "unplanned", "orders", "--to", "west")
			require.True(t, plan.GoesIfNow)
			require.Contains(t, plan.Assessment.From.Why, "kafka/east/switchback", "it says that the login is what cannot be had")

			run := p.unplanned("the-region-is-gone", gone)
			p.approved(run)
			out := p.ends(run, workflows.Completed)
			require.Contains(t, strings.Join(out.Deviations, "; "), "align/orders goes on until they do")
			p.flows("west")

			s.does(t, "bring the region back", func(ctx context.Context) error { return p.BringBack(ctx, "east") })
			var there consul.State
			eventually(t, "the region's Consul to say what the other says", func() (bool, error) {
				var err error
				there, err = s.RegionalDiscovery(t.Context(), "orders")
				return err == nil && there.Cluster == "west" && there.Epoch == out.Epoch, fmt.Errorf("it says %s, epoch %d (%w)", there.Cluster, there.Epoch, err)
			})
			require.Equal(t, out.Run, there.SwitchedBy)
			require.Equal(t, activities.DesiredRun, there.Clients["checkout"].Desired)
			fenced := p.fenced("east")
			require.Zero(t, fenced.Written, fenced.Ended)
			t.Logf("%s\n%s", out.Sentence, p.wellAfter("west", out))
		})
	}
}
