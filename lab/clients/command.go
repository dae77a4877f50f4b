package clients

import (
	"context"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// Command is `lab client`. It ends gracefully on SIGTERM.
func Command(getenv func(string) string) *cobra.Command {
	root := &cobra.Command{Use: "client", Short: "A sample application, as a child of supervisor", RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	var config Config
	root.PersistentFlags().StringVar(&config.Instance, "instance", "", "name of this instance; its ledger is called so")
	root.PersistentFlags().StringSliceVar(&config.Topics, "topics", nil, "topics, comma separated")
	root.PersistentFlags().StringVar(&config.Ledger, "ledger", "", "folder of the ledger")
	run := func(do func(context.Context) error) func(*cobra.Command, []string) error {
		return func(cmd *cobra.Command, _ []string) error {
			if err := config.FromEnvironment(getenv); err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			return do(ctx)
		}
	}
	p := ProducerConfig{}
	producer := &cobra.Command{Use: "producer", Short: "Write keyed records, idempotent, acks=all", Args: cobra.NoArgs, RunE: run(func(ctx context.Context) error {
		p.Config = config
		return Producer(ctx, p)
	})}
	producer.Flags().IntVar(&p.Rate, "rate", 200, "records per second")
	producer.Flags().DurationVar(&p.Every, "every", 10*time.Millisecond, "how often they are sent: seldom costs less, often is a smoother flow")
	producer.Flags().IntVar(&p.Keys, "keys", 120, "keys, each written by this instance alone")
	producer.Flags().IntVar(&p.ValueSize, "size", 200, "bytes of a value")
	c := ConsumerConfig{}
	consumer := &cobra.Command{Use: "consumer", Short: "Read in a group, commit after processing", Args: cobra.NoArgs, RunE: run(func(ctx context.Context) error {
		c.Config = config
		return Consumer(ctx, c)
	})}
	consumer.Flags().StringVar(&c.Group, "group", "", "consumer group")
	consumer.Flags().StringVar(&c.StaticID, "static-id", "", "group.instance.id: a static member, which does not leave when it ends")
	consumer.Flags().DurationVar(&c.Rest, "rest", 0, "pause between two polls: larger batches cost less")
	root.AddCommand(producer, consumer)
	return root
}
