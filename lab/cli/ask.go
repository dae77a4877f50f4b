package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func statusCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "status", Short: "What runs, since when, and how the rest ended", Args: names(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := ask(cmd.Context(), dirOf(cmd), "GET", "/")
			if err != nil {
				return err
			}
			switch format {
			case "json":
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				return e.Encode(r)
			case "text":
				fmt.Fprintf(cmd.OutOrStdout(), "The lab is %s. %s\n", r.Phase, r.Error)
				showProcesses(cmd.OutOrStdout(), r)
				return nil
			}
			return fmt.Errorf("%w: there is no format %q, only text and json", errUsage, format)
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	return cmd
}

func killCommand() *cobra.Command {
	return &cobra.Command{
		Use: "kill NAME", Short: "End one process with kill -9", Args: names(1, 1, "the name of one process"),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := ask(cmd.Context(), dirOf(cmd), "POST", processPath("kill", args[0]))
			return err
		},
	}
}

func startCommand() *cobra.Command {
	return &cobra.Command{
		Use: "start NAME", Short: "Start a process that has ended, with its state, and wait until it is ready", Args: names(1, 1, "the name of one process"),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := ask(cmd.Context(), dirOf(cmd), "POST", processPath("start", args[0]))
			return err
		},
	}
}

func logsCommand() *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use: "logs NAME", Short: "Print the log of a process", Args: names(1, 1, "the name of one process"),
		RunE: func(cmd *cobra.Command, args []string) error {
			file := filepath.Join(dirOf(cmd), "logs", filepath.Base(args[0])+".log")
			if args[0] == "keeper" {
				file = filepath.Join(dirOf(cmd), "keeper.log")
			}
			f, err := os.Open(file) //nolint:gosec // of the lab's folder
			if err != nil {
				return fmt.Errorf("there is no log of %s: %w", args[0], err)
			}
			defer f.Close()
			for {
				if _, err := io.Copy(cmd.OutOrStdout(), f); err != nil || !follow {
					return err
				}
				select {
				case <-cmd.Context().Done():
					return nil
				case <-time.After(200 * time.Millisecond):
				}
			}
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on as it grows")
	return cmd
}

func envCommand() *cobra.Command {
	return &cobra.Command{
		Use: "env", Short: "Print the lab's addresses as variables: eval \"$(lab env)\"", Args: names(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := ask(cmd.Context(), dirOf(cmd), "GET", "/")
			if err != nil {
				return err
			}
			for _, p := range r.Places {
				fmt.Fprintf(cmd.OutOrStdout(), "export %s='%s'\n", p.Name, strings.ReplaceAll(p.Value, "'", `'\''`))
			}
			return nil
		},
	}
}

// show prints what there is to look at.
func show(w io.Writer, r report) {
	for _, p := range r.Places {
		if p.Name != "PATH" {
			fmt.Fprintf(w, "  %-24s %s\n", p.Name, p.Value)
		}
	}
}

func showProcesses(w io.Writer, r report) {
	t := tabwriter.NewWriter(w, 2, 0, 2, ' ', 0)
	for _, p := range r.Processes {
		fmt.Fprintf(t, "  %s\t%s\t%d\t%s\t%s\n", p.Name, p.State, p.PID, p.Since.Format("15:04:05"), p.Exit)
	}
	_ = t.Flush() // to a terminal or a buffer
}

func text(r *http.Response) string {
	body, _ := io.ReadAll(io.LimitReader(r.Body, 64<<10))
	return strings.TrimSpace(string(body))
}

func upper(s string) string {
	return strings.ToUpper(strings.NewReplacer("-", "_", ".", "_").Replace(s))
}

func join(list []string) string { return strings.Join(list, ",") }

// valueOf a flag in the form in which it is read.
func valueOf(f *pflag.Flag) string {
	if s, ok := f.Value.(pflag.SliceValue); ok {
		return strings.Join(s.GetSlice(), ",")
	}
	return f.Value.String()
}
