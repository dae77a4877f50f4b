package cli

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"switchback/lab/setup"
	"switchback/lab/story"
)

// errNotWell ends `lab verdict` after it has printed what is wrong.
var errNotWell = errors.New("the verdict is not well")

func verdictCommand() *cobra.Command {
	var flags upFlags
	var workload, active, reportFile string
	var asJSON bool
	cmd := &cobra.Command{
		Use: "verdict", Short: "Hold what the clients wrote down against both clusters, and a run's report against that",
		Long: `verdict reads the ledgers of the sample clients and the logs of both clusters and says what was lost, doubled, out of
order, read twice or never read, and how long the switch took for clients. Records that are on their way at this moment
count as never read: stop the producers first, or look again. It exits with 1 unless all is well.`,
		Example: "  lab verdict --active west --report out/lab/reports/RUN.json",
		Args:    names(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			o, err := flags.options(dirOf(cmd))
			if err != nil {
				return err
			}
			lab, err := setup.Open(cmd.Context(), o)
			if err != nil {
				return err
			}
			for _, w := range lab.Options().Workloads {
				if w.Name != workload {
					continue
				}
				v, err := (&story.Story{Lab: lab, Workload: w, Dir: lab.LedgerDir()}).Judge(cmd.Context(), active, reportFile)
				if err != nil {
					return err
				}
				if asJSON {
					e := json.NewEncoder(cmd.OutOrStdout())
					e.SetIndent("", "  ")
					err = e.Encode(v)
				} else {
					_, err = fmt.Fprintln(cmd.OutOrStdout(), v)
				}
				if err == nil && !v.Well() {
					err = errNotWell
				}
				return err
			}
			return fmt.Errorf("%w: there is no workload %q", errUsage, workload)
		},
	}
	flags.register(cmd)
	cmd.Flags().StringVar(&workload, "workload", "orders", "workload to judge")
	cmd.Flags().StringVar(&active, "active", "east", "cluster that the workload is on now")
	cmd.Flags().StringVar(&reportFile, "report", "", "report of a run, to be held against the ledger")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
