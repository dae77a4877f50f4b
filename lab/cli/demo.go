package cli

import (
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"switchback/lab/demo"
)

func demoCommand() *cobra.Command {
	root := &cobra.Command{
		Use: "demo", Short: "Start everything, move a workload under traffic, and let the ledger judge",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	var flags upFlags
	var o demo.Options
	planned := &cobra.Command{
		Use: "planned", Short: "A planned failover from east to west: nothing lost, nothing read twice",
		Long: `demo planned starts the lab in a folder of its own, lets producers and consumers work on east, runs a planned failover to
west as an operator would, lets them work on west, and ends with the report of the run beside the clients' own ledger. It
exits with 1 unless nothing was lost, doubled, read twice or out of order, and the report agrees with the ledger.`,
		Args: names(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if err := os.RemoveAll(filepath.Join(o.Out, "lab")); err != nil {
				return err
			}
			if o.Lab, err = flags.options(filepath.Join(o.Out, "lab")); err != nil {
				return err
			}
			return demo.Planned(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags.register(planned)
	planned.Flags().StringVar(&o.Out, "out", "out/demo", "folder of the lab and of verdict.json; what is there is removed")
	planned.Flags().DurationVar(&o.Flow, "flow", 4*time.Second, "how long traffic flows before and after the run")
	root.AddCommand(planned)
	return root
}
