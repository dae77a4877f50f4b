package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"switchback/lab/demo"
	"switchback/lab/setup"
)

func demoCommand() *cobra.Command {
	root := &cobra.Command{
		Use: "demo", Short: "Start everything, move a workload under traffic, and let the ledger judge",
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.AddCommand(demoOf("planned", "A planned failover from east to west: nothing lost, nothing read twice",
		`demo planned starts the lab in a folder of its own, lets producers and consumers work on east, runs a planned failover to
west as an operator would, lets them work on west, and ends with the report of the run beside the clients' own ledger. It
exits with 1 unless nothing was lost, doubled, read twice or out of order, and the report agrees with the ledger.`, demo.Planned, as))
	root.AddCommand(demoOf("disaster", "The active cluster is killed under traffic: an unplanned failover, and its loss to the record",
		`demo disaster starts the lab in a folder of its own, on Apache Kafka and MirrorMaker 2 where this machine has Java, lets
producers and consumers work on east, kills every broker of east with kill -9, runs an unplanned failover to west with two
approvals as operators would, lets clients work on west, starts east again, and waits until it is fenced and the loss is
closed. It ends with the report of the run beside the clients' own ledger, and exits with 1 unless no mirrored record was
lost, what was lost is exactly what was stated, groups went on within what the report promises, and the report agrees
with the ledger.`, demo.Disaster, worst))
	root.AddCommand(demoOf("roundtrip", "Away in a disaster with stranded records, and home again: every record is there once",
		`demo roundtrip starts the lab in a folder of its own, lets producers and consumers work on east, holds up the mirror, kills
every broker of east with kill -9, runs an unplanned failover to west, starts east again, and takes the workload home as an
operator would: what was stranded is recovered, the mirror is turned round, a planned failover goes home, and the mirror runs
as before. It exits with 1 unless something was stranded, all of it was recovered, every acknowledged record is on east once,
and every consumer has read it.`, demo.Roundtrip, as))
	return root
}

// as leaves the lab as the flags have it.
func as(*cobra.Command, *upFlags) {}

// worst is the lab in which most can be lost, where the machine can run it and the flags do not say otherwise.
func worst(cmd *cobra.Command, f *upFlags) {
	if f.kafka != "" || f.link != "" {
		return
	}
	if missing := setup.Missing(setup.Options{Kafka: setup.Apache}); missing != "" {
		fmt.Fprintf(cmd.OutOrStdout(), "Without Apache Kafka, on the lab's own Kafka and Cluster Linking: %s\n", missing)
		return
	}
	f.kafka, f.link = setup.Apache, setup.MirrorMaker
}

func demoOf(name, short, long string, play func(context.Context, demo.Options, io.Writer, io.Writer) error, choose func(*cobra.Command, *upFlags)) *cobra.Command {
	var flags upFlags
	var o demo.Options
	cmd := &cobra.Command{
		Use: name, Short: short, Long: long, Args: names(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if err := os.RemoveAll(filepath.Join(o.Out, "lab")); err != nil {
				return err
			}
			choose(cmd, &flags)
			if o.Lab, err = flags.options(filepath.Join(o.Out, "lab")); err != nil {
				return err
			}
			return play(cmd.Context(), o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	flags.register(cmd)
	cmd.Flags().StringVar(&o.Out, "out", "out/demo", "folder of the lab and of verdict.json; what is there is removed")
	cmd.Flags().DurationVar(&o.Flow, "flow", 4*time.Second, "how long traffic flows before and after the run")
	return cmd
}
