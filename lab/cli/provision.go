package cli

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"switchback/lab/setup"
)

// provisionCommand fills servers that somebody else starts: what docker-compose.yml runs as its set-up.
func provisionCommand() *cobra.Command {
	root := &cobra.Command{
		Use: "provision", Short: "Fill servers that somebody else starts, such as those of docker-compose.yml",
		Long: `provision does to servers that are started elsewhere what lab up does to its own: in this order secrets, before a server
starts; vault, which goes on; servers; and connectors, once Kafka Connect runs. Each may be repeated, and leaves alone what is
there.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%w: lab provision has no command %q", errUsage, args[0])
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.PersistentFlags().String("config", "", "file that says where the servers are and what is to be in them (YAML)")
	root.AddCommand(provisionSecrets(), provisionVault(),
		provisionStep("servers", "Users, ACLs, topics, keys, tokens, roles, namespace; Kafka Connect can start after it", (*setup.Lab).Provision),
		provisionStep("connectors", "The connectors of MirrorMaker 2", (*setup.Lab).ProvisionConnectors))
	return root
}

// elsewhere opens the lab that the flags name.
func elsewhere(cmd *cobra.Command) (*setup.Lab, error) {
	file, _ := cmd.Flags().GetString("config")
	if file == "" {
		return nil, fmt.Errorf("%w: --config is needed: the file that says where the servers are", errUsage)
	}
	e, err := setup.ReadElsewhere(file)
	if err != nil {
		return nil, err
	}
	return setup.OpenElsewhere(cmd.Context(), dirOf(cmd), e)
}

func provisionStep(name, short string, do func(*setup.Lab, context.Context) error) *cobra.Command {
	return &cobra.Command{
		Use: name, Short: short, Args: names(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			lab, err := elsewhere(cmd)
			if err != nil {
				return err
			}
			return do(lab, cmd.Context())
		},
	}
}

func provisionVault() *cobra.Command {
	var once bool
	cmd := &cobra.Command{
		Use: "vault", Short: "Initialize and unseal Vault, and unseal it again whenever it has started", Args: names(0, 0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error {
			lab, err := elsewhere(cmd)
			if err != nil {
				return err
			}
			if once {
				return lab.OpenVault(cmd.Context())
			}
			return lab.KeepVaultOpen(cmd.Context(), func(text string) { fmt.Fprintln(cmd.OutOrStdout(), text) })
		},
	}
	cmd.Flags().BoolVar(&once, "once", false, "do it once, and fail where it cannot be done")
	return cmd
}

func provisionSecrets() *cobra.Command {
	var owner string
	var own []string
	cmd := &cobra.Command{
		Use: "secrets", Short: "Make up secrets, and write every file that servers and programs read", Args: names(0, 0, "no arguments"),
		Long: `secrets writes passwords, tokens, settings and runbooks into the folder of --dir, each secret into a file of mode 0600. What
was made up once stays. As root it gives the files away: a container reads only what belongs to its user.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			owners, err := parseOwners(owner, own)
			if err != nil {
				return err
			}
			lab, err := elsewhere(cmd)
			if err != nil {
				return err
			}
			if err := lab.WriteFiles(); err != nil {
				return err
			}
			return owners.give(lab.Dir())
		},
	}
	cmd.Flags().StringVar(&owner, "owner", "", "UID:GID that the files are given to; nobody when empty")
	cmd.Flags().StringArrayVar(&own, "own", nil, "PATH=UID:GID for one file of the folder that another user reads (repeatable)")
	return cmd
}

// owners of files, by their path in the folder; "" is everything else.
type owners map[string][2]int

func parseOwners(owner string, own []string) (owners, error) {
	all := owners{}
	if owner != "" {
		own = append(own, "="+owner)
	}
	for _, text := range own {
		path, ids, _ := strings.Cut(text, "=")
		user, group, _ := strings.Cut(ids, ":")
		uid, err := strconv.Atoi(user)
		gid, groupErr := strconv.Atoi(group)
		if err != nil || groupErr != nil || (path == "") != (text == "="+owner) {
			return nil, fmt.Errorf("%w: %q is no owner: write UID:GID for --owner, PATH=UID:GID for --own", errUsage, text)
		}
		all[path] = [2]int{uid, gid}
	}
	return all, nil
}

// give hands the folder over. Others may look into it, for its runbooks and reports, but read no file of mode 0600.
func (o owners) give(dir string) error {
	everything, ok := o[""]
	if !ok {
		return nil
	}
	for path := range o {
		if _, err := os.Stat(filepath.Join(dir, path)); err != nil {
			return fmt.Errorf("give %s to its owner: %w", path, err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // a folder that is to be looked into
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { _ = root.Close() }()
	return fs.WalkDir(root.FS(), ".", func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		to, ok := o[name]
		if !ok {
			to = everything
		}
		return root.Lchown(name, to[0], to[1])
	})
}
