package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"switchback/runbooks"
)

func (c *cli) validate() *cobra.Command {
	return &cobra.Command{
		Use:   "validate FILE...",
		Short: "Say what is wrong with runbook files, without touching a cluster",
		Long: `Validate loads runbook files as a run would, and says for each mistake the file, the line, what is wrong and what
would be right. It opens no connection. - is standard input. It exits with 1 when any file is wrong.`,
		Example:           "  switchback validate runbooks/*.yaml",
		ValidArgsFunction: cobra.FixedCompletions([]string{"yaml", "yml"}, cobra.ShellCompDirectiveFilterFileExt),
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return misused(cmd, "validate needs at least one FILE, or - for standard input")
			}
			return nil
		},
		RunE: func(_ *cobra.Command, files []string) error {
			type result struct {
				File    string `json:"file"`
				Runbook string `json:"runbook,omitempty"`
				SHA256  string `json:"sha256,omitempty"`
				Error   string `json:"error,omitempty"`
			}
			var results []result
			wrong := 0
			for _, file := range files {
				loaded, err := c.load(file)
				if err != nil {
					wrong++
					results = append(results, result{File: file, Error: err.Error()})
					continue
				}
				results = append(results, result{File: file, Runbook: loaded.Runbook.Metadata.Name, SHA256: loaded.SHA256})
			}
			if c.output == "json" {
				if err := c.json(results); err != nil {
					return err
				}
			} else {
				for _, r := range results {
					if r.Error != "" {
						fmt.Fprintln(c.stderr, r.Error)
						continue
					}
					fmt.Fprintf(c.stdout, "%s: runbook %s is right (sha256 %.12s)\n", r.File, r.Runbook, r.SHA256)
				}
			}
			if wrong > 0 {
				return errNotWell
			}
			return nil
		},
	}
}

// load reads a runbook from a file, or from standard input.
func (c *cli) load(file string) (*runbooks.Loaded, error) {
	if file != "-" {
		return runbooks.Load(file)
	}
	data, err := io.ReadAll(io.LimitReader(c.stdin, 2<<20)) // twice the largest runbook: Parse says that it is too large
	if err != nil {
		return nil, fmt.Errorf("read standard input: %w", err)
	}
	return runbooks.Parse("standard input", data)
}
