package compose_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/loader"
	"github.com/compose-spec/compose-go/v2/types"

	"switchback/lab/apache"
	"switchback/lab/setup"
)

// check is what is known of the repository, and what is wrong with a compose file.
type check struct {
	root     string // of the repository
	made     string // a folder as `lab provision secrets` makes it; stands for .compose
	settings setup.Elsewhere
	secrets  [][]byte
	programs programs
	project  *types.Project
	problems []string
}

func (c *check) wrong(service, text string, args ...any) {
	c.problems = append(c.problems, service+": "+fmt.Sprintf(text, args...))
}

// load is what a container engine would make of the file, or its first complaint.
func load(ctx context.Context, root string, file []byte) (*types.Project, error) {
	return loader.LoadWithContext(ctx, types.ConfigDetails{
		WorkingDir: root, ConfigFiles: []types.ConfigFile{{Filename: filepath.Join(root, "docker-compose.yml"), Content: file}},
	}, func(o *loader.Options) { o.SetProjectName("switchback", true) })
}

// all looks at everything, and returns what is wrong.
func (c *check) all(file []byte) []string {
	for name, s := range c.project.Services {
		c.image(name, s)
		c.health(name, s)
		c.user(name, s)
		c.mounts(name, s)
		c.variables(name, s)
		c.commands(name, s)
		c.publishes(name, s)
	}
	c.secretFiles(file)
	c.places()
	c.workload()
	slices.Sort(c.problems)
	return c.problems
}

var pinned = regexp.MustCompile(`^[^:@]+:[^:@]*\d+\.\d+[^:@]*$`)

func (c *check) image(name string, s types.ServiceConfig) {
	switch {
	case s.Build != nil:
		if _, err := os.Stat(filepath.Join(s.Build.Context, "Dockerfile")); err != nil {
			c.wrong(name, "is built from a folder without a Dockerfile")
		}
	case !pinned.MatchString(s.Image):
		c.wrong(name, "image %s is not pinned to a version", s.Image)
	case strings.HasPrefix(s.Image, "apache/kafka:") && s.Image != "apache/kafka:"+apache.Version():
		c.wrong(name, "image %s is not the version that the lab runs, %s", s.Image, apache.Version())
	}
}

// health: what goes on has a health check, what ends is not started again, and who waits waits for what there is.
func (c *check) health(name string, s types.ServiceConfig) {
	job := s.Restart == "no"
	if !job && s.Restart != "unless-stopped" {
		c.wrong(name, "restart is %q: say no or unless-stopped", s.Restart)
	}
	if !job && (s.HealthCheck == nil || s.HealthCheck.Disable || len(s.HealthCheck.Test) < 2) {
		c.wrong(name, "goes on, and has no health check")
	}
	for other, d := range s.DependsOn {
		ends := c.project.Services[other].Restart == "no"
		if ends != (d.Condition == types.ServiceConditionCompletedSuccessfully) {
			c.wrong(name, "waits for %s with %s", other, d.Condition)
		}
	}
}

func (c *check) user(name string, s types.ServiceConfig) {
	reads := len(s.Secrets) > 0 || s.Build != nil
	switch {
	case reads && s.User == "":
		c.wrong(name, "reads files and names no user")
	case strings.HasPrefix(s.User, "0") && name != "secrets":
		c.wrong(name, "runs as root")
	}
}

// source is where a file of the host is here: in the repository, or among what the set-up makes.
func (c *check) source(path string) string {
	if name, err := filepath.Rel(filepath.Join(c.root, ".compose"), path); err == nil && !strings.HasPrefix(name, "..") {
		return filepath.Join(c.made, name)
	}
	return path
}

func (c *check) mounts(name string, s types.ServiceConfig) {
	for _, v := range s.Volumes {
		if v.Type != types.VolumeTypeBind {
			continue
		}
		if _, err := os.Stat(c.source(v.Source)); err != nil {
			c.wrong(name, "mounts %s, which neither the repository has nor the set-up makes", v.Source)
		}
		if !v.ReadOnly && !strings.Contains(v.Source, ".compose") {
			c.wrong(name, "may write %s", v.Source)
		}
	}
}

// inside maps the paths of a service's own files and folders to where they are here; volumes have no place.
func (c *check) inside(s types.ServiceConfig) map[string]string {
	all := map[string]string{}
	for _, v := range s.Volumes {
		all[v.Target] = ""
		if v.Type == types.VolumeTypeBind {
			all[v.Target] = c.source(v.Source)
		}
	}
	for _, m := range s.Tmpfs {
		target, _, _ := strings.Cut(m, ":")
		all[target] = ""
	}
	for _, secret := range s.Secrets {
		target := secret.Target
		if !filepath.IsAbs(target) {
			target = "/run/secrets/" + filepath.Base(max(target, secret.Source))
		}
		all[target] = c.source(c.project.Secrets[secret.Source].File)
	}
	return all
}

var (
	asked    = regexp.MustCompile(`\$\{env:(\w+)\}`)
	expanded = regexp.MustCompile(`\$\{?([A-Z][A-Z_]+)`)
	assigned = regexp.MustCompile(`(?m)^([A-Z_]+)=`)
	// knows are variables that images and programs know themselves.
	knows = map[string][]string{
		"apache/kafka": {"KAFKA_HEAP_OPTS", "KAFKA_OPTS"}, "postgres": {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD_FILE"},
		"temporalio/ui": {"TEMPORAL_ADDRESS"}, "hashicorp/vault": {"VAULT_ADDR", "VAULT_CACERT"},
		"hashicorp/consul": {"CONSUL_HTTP_ADDR", "CONSUL_CACERT", "CONSUL_HTTP_TOKEN_FILE"}, "switchback-lab": {"TEMPORAL_ADDRESS"},
	}
)

// variables: what the mounted files ask for is given, and nothing that nobody asks for.
func (c *check) variables(name string, s types.ServiceConfig) {
	var wanted []string
	for _, here := range c.inside(s) {
		text, err := os.ReadFile(here)
		if err != nil {
			continue // a folder, or a volume
		}
		what := asked
		if strings.HasSuffix(here, ".sh") {
			what = expanded
		}
		uncommented := regexp.MustCompile(`(?m)^\s*#.*$`).ReplaceAll(text, nil)
		for _, v := range what.FindAllSubmatch(uncommented, -1) {
			if !slices.ContainsFunc(assigned.FindAllSubmatch(text, -1), func(a [][]byte) bool { return bytes.Equal(a[1], v[1]) }) {
				wanted = append(wanted, string(v[1]))
			}
		}
	}
	for _, v := range wanted {
		if value := s.Environment[v]; value == nil || *value == "" {
			c.wrong(name, "a file asks for the variable %s, which is not given", v)
		}
	}
	image, _, _ := strings.Cut(s.Image, ":")
	for v := range s.Environment {
		if !slices.Contains(wanted, v) && !slices.Contains(knows[image], v) {
			c.wrong(name, "nobody asks for the variable %s", v)
		}
	}
}

func (c *check) publishes(name string, s types.ServiceConfig) {
	for _, p := range s.Ports {
		if p.HostIP != "127.0.0.1" {
			c.wrong(name, "publishes port %d on %q, not on 127.0.0.1 alone", p.Target, p.HostIP)
		}
	}
}

// secretFiles: files that the set-up makes, for one reader each, mode 0600; and none of their values anywhere else.
func (c *check) secretFiles(file []byte) {
	readers := map[string]string{} // secret to user
	for name, s := range c.project.Services {
		for _, secret := range s.Secrets {
			readers[secret.Source] = s.User
			path := c.project.Secrets[secret.Source].File
			in, err := filepath.Rel(filepath.Join(c.root, ".compose"), path)
			if err == nil && c.ownerOf(in) != s.User {
				c.wrong(name, "reads secret %s as %s, but it belongs to %s", secret.Source, s.User, c.ownerOf(in))
			}
		}
	}
	for name, secret := range c.project.Secrets {
		info, err := os.Stat(c.source(secret.File))
		switch {
		case secret.File == "" || bool(secret.External):
			c.wrong("secret "+name, "is no file")
		case !strings.HasPrefix(secret.File, filepath.Join(c.root, ".compose")+"/"):
			c.wrong("secret "+name, "lies outside of .compose, which git ignores")
		case err != nil:
			c.wrong("secret "+name, "nobody makes %s", secret.File)
		case info.Mode() != 0o600:
			c.wrong("secret "+name, "has mode %v", info.Mode())
		}
		if readers[name] == "" {
			c.wrong("secret "+name, "nobody reads it")
		}
	}
	for _, value := range c.secrets {
		if bytes.Contains(file, value) {
			c.problems = append(c.problems, "the file holds a secret")
		}
	}
	for name, s := range c.project.Services {
		for v := range s.Environment {
			if regexp.MustCompile(`PASSWORD|PWD|TOKEN|SECRET`).MatchString(v) && !strings.HasSuffix(v, "_FILE") {
				c.wrong(name, "the variable %s would hold a secret", v)
			}
		}
	}
}

// ownerOf a file below .compose, by the flags of the service secrets.
func (c *check) ownerOf(path string) string {
	owner := ""
	for _, arg := range c.project.Services["secrets"].Command {
		if ids, ok := strings.CutPrefix(arg, "--own="+path+"="); ok {
			return ids
		}
		if ids, ok := strings.CutPrefix(arg, "--owner="); ok {
			owner = ids
		}
	}
	return owner
}
