package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"

	"switchback/internal/vault"
)

// Settings are the worker's own: where Temporal, Vault and the runbooks are. Each is taken from the defaults, then the
// file, then the environment (SWITCHBACK_TEMPORAL_ADDRESS for temporal.address), then flags. Their names do not depend
// on case: roleIdFile in the file is --vault.roleidfile and SWITCHBACK_VAULT_ROLEIDFILE.
type Settings struct {
	Temporal struct {
		Address   string `koanf:"address"`
		Namespace string `koanf:"namespace"`
		TaskQueue string `koanf:"taskqueue"`
		TLS       TLS    `koanf:"tls"`
	} `koanf:"temporal"`
	Runbooks string `koanf:"runbooks"` // folder of <name>.yaml
	Reports  string `koanf:"reports"`  // folder that finished runs' reports are written to
	Vault    Vault  `koanf:"vault"`
	// Vaults of single regions, in the file alone: references below their prefixes are looked up there.
	Vaults  []RegionalVault `koanf:"vaults"`
	Metrics struct {
		Address string `koanf:"address"` // host:port of /metrics; empty serves none
	} `koanf:"metrics"`
	Log struct {
		Level  string `koanf:"level"`
		Format string `koanf:"format"` // text or json
	} `koanf:"log"`
	StopTimeout time.Duration `koanf:"stoptimeout"`
}

// Vault says where a Vault is, and as whom the worker logs in: an AppRole, or a token that somebody else renews.
type Vault struct {
	Address      string   `koanf:"address"`
	Namespace    string   `koanf:"namespace"`
	RoleIDFile   string   `koanf:"roleidfile"`
	SecretIDFile string   `koanf:"secretidfile"`
	AppRoleMount string   `koanf:"approlemount"`
	TokenFile    string   `koanf:"tokenfile"`
	TLS          PEMFiles `koanf:"tls"`
}

// RegionalVault is one of several, such as that of the region of cluster east with the prefix kafka/east.
type RegionalVault struct {
	Prefix string `koanf:"prefix"`
	Vault  `koanf:",squash"`
}

func (v Vault) config(log *slog.Logger) vault.Config {
	return vault.Config{
		Address: v.Address, Namespace: v.Namespace, AppRoleMount: v.AppRoleMount,
		RoleIDFile: v.RoleIDFile, SecretIDFile: v.SecretIDFile, TokenFile: v.TokenFile,
		TLS: vault.TLS{CAFile: v.TLS.CA, CertFile: v.TLS.Cert, KeyFile: v.TLS.Key}, Log: log,
	}
}

// PEMFiles names files. Empty means that the system's roots are trusted and no client certificate is shown.
type PEMFiles struct {
	CA   string `koanf:"ca"`
	Cert string `koanf:"cert"`
	Key  string `koanf:"key"`
}

// TLS is PEMFiles for what is not addressed by a URL, which would say whether it is encrypted.
type TLS struct {
	PEMFiles   `koanf:",squash"`
	Enabled    bool   `koanf:"enabled"` // implied by the files
	ServerName string `koanf:"servername"`
}

func (t TLS) on() bool { return t != (TLS{}) }

func defaults() Settings {
	var s Settings
	s.Temporal.Address, s.Temporal.Namespace, s.Temporal.TaskQueue = "127.0.0.1:7233", "default", "switchback"
	s.Runbooks, s.Reports = "runbooks", "reports"
	s.Vault.AppRoleMount = "approle"
	s.Log.Level, s.Log.Format = "info", "json"
	s.StopTimeout = 15 * time.Second // above the longest atomic write
	return s
}

// flags are all settings. Secrets are files' contents, never arguments.
func flags() *pflag.FlagSet {
	d := defaults()
	f := pflag.NewFlagSet("worker", pflag.ContinueOnError)
	f.SortFlags = false
	f.String("config", "", "settings file (YAML); environment and flags win over it")
	f.String("temporal.address", d.Temporal.Address, "host:port of Temporal's frontend")
	f.String("temporal.namespace", d.Temporal.Namespace, "Temporal namespace")
	f.String("temporal.taskqueue", d.Temporal.TaskQueue, "task queue that this worker serves")
	f.Bool("temporal.tls.enabled", false, "use TLS to Temporal (the files below imply it)")
	f.String("temporal.tls.ca", "", "PEM file of the authorities to trust for Temporal")
	f.String("temporal.tls.cert", "", "PEM file of the client certificate for Temporal")
	f.String("temporal.tls.key", "", "PEM file of its key")
	f.String("temporal.tls.servername", "", "name to expect in Temporal's certificate (default: the host)")
	f.String("runbooks", d.Runbooks, "folder of runbook files, <name>.yaml each")
	f.String("reports", d.Reports, "folder that the reports of finished runs are written to")
	f.String("vault.address", "", "URL of Vault, such as https://vault:8200")
	f.String("vault.namespace", "", "namespace in Vault")
	f.String("vault.roleidfile", "", "file with the AppRole's role id")
	f.String("vault.secretidfile", "", "file with the AppRole's secret id")
	f.String("vault.approlemount", d.Vault.AppRoleMount, "where the AppRole method is mounted")
	f.String("vault.tokenfile", "", "file with a token that somebody else renews, instead of an AppRole")
	f.String("vault.tls.ca", "", "PEM file of the authorities to trust for Vault")
	f.String("vault.tls.cert", "", "PEM file of the client certificate for Vault")
	f.String("vault.tls.key", "", "PEM file of its key")
	f.String("metrics.address", "", "host:port of /metrics; empty serves none")
	f.String("log.level", d.Log.Level, "debug, info, warn or error")
	f.String("log.format", d.Log.Format, "text or json")
	f.Duration("stoptimeout", d.StopTimeout, "how long activities may go on after SIGTERM")
	return f
}

// others are variables with our prefix that are not the worker's: the command line's, and the tests' seam.
var others = []string{"SWITCHBACK_BY", "SWITCHBACK_TASK_QUEUE", "SWITCHBACK_KILLPOINTS"}

// onlyInFile is a list, which no variable and no flag can hold.
const onlyInFile = "vaults"

// load reads the settings. An unknown key anywhere is an error: a misspelt one would silently be a default.
func load(f *pflag.FlagSet, environ func() []string) (Settings, error) {
	s, k := defaults(), koanf.New(".")
	if path, _ := f.GetString("config"); path != "" {
		in := koanf.New(".")
		if err := in.Load(file.Provider(path), yaml.Parser()); err != nil {
			return s, fmt.Errorf("read settings %s: %w", path, err)
		}
		for key, v := range in.All() {
			name := strings.ToLower(key)
			if v == nil {
				continue // a key with nothing behind it says nothing
			}
			if name != onlyInFile && (f.Lookup(name) == nil || name == "config") {
				return s, fmt.Errorf("settings %s: unknown key %s: %s", path, key, instead(f, name))
			}
			if k.Exists(name) {
				return s, fmt.Errorf("settings %s: %s stands there twice, in different case: leave one", path, name)
			}
			if err := k.Set(name, v); err != nil {
				return s, fmt.Errorf("settings %s: %s: %w", path, key, err)
			}
		}
	}
	var unknown []string
	fromEnv := env.Provider(".", env.Opt{Prefix: "SWITCHBACK_", EnvironFunc: environ, TransformFunc: func(variable, v string) (string, any) {
		key := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(variable, "SWITCHBACK_"), "_", "."))
		switch {
		case f.Lookup(key) != nil && key != "config":
			return key, v
		case !slices.Contains(others, variable):
			unknown = append(unknown, fmt.Sprintf("the environment has %s, which is no setting: %s", variable, instead(f, key)))
		}
		return "", nil
	}})
	if err := k.Load(fromEnv, nil); err != nil {
		return s, fmt.Errorf("read settings from the environment: %w", err)
	}
	if len(unknown) > 0 {
		return s, errors.New(unknown[0])
	}
	if err := k.Load(posflag.ProviderWithFlag(f, ".", k, changedOnly), nil); err != nil {
		return s, fmt.Errorf("read flags: %w", err)
	}
	err := k.UnmarshalWithConf("", &s, koanf.UnmarshalConf{DecoderConfig: &mapstructure.DecoderConfig{
		Result: &s, ErrorUnused: true, WeaklyTypedInput: true, TagName: "koanf", Squash: true,
		DecodeHook: mapstructure.StringToTimeDurationHookFunc(),
	}})
	if err != nil {
		return s, fmt.Errorf("settings: %w", err)
	}
	return s, s.validate()
}

func changedOnly(f *pflag.Flag) (string, any) {
	if f.Name == "config" || !f.Changed {
		return "", nil
	}
	return f.Name, f.Value.String()
}

// instead says what a key that is not known might have been: one of the same last word, or all there are.
func instead(f *pflag.FlagSet, key string) string {
	last := key[strings.LastIndex(key, ".")+1:]
	var all, near []string
	f.VisitAll(func(flag *pflag.Flag) {
		if flag.Name == "config" {
			return
		}
		all = append(all, flag.Name)
		if strings.HasSuffix(strings.ReplaceAll(flag.Name, ".", ""), strings.ReplaceAll(last, "_", "")) {
			near = append(near, flag.Name)
		}
	})
	if len(near) > 0 {
		return "did you mean " + strings.Join(near, " or ") + "?"
	}
	return "there are " + strings.Join(all, ", ")
}

// validate returns everything that is wrong, one sentence a line.
func (s Settings) validate() error {
	var errs []error
	need := func(ok bool, text string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf(text, args...))
		}
	}
	need(strings.Contains(s.Temporal.Address, ":"), "temporal.address is %q: give host:port of Temporal's frontend", s.Temporal.Address)
	need(s.Temporal.Namespace != "", "temporal.namespace is empty: give the namespace, such as default")
	need(s.Temporal.TaskQueue != "", "temporal.taskQueue is empty: give the one that runs are started on, such as switchback")
	need((s.Temporal.TLS.Cert == "") == (s.Temporal.TLS.Key == ""), "temporal.tls needs both of cert and key, or none")
	s.Vault.validate("vault", need)
	prefixes := map[string]bool{}
	for i, v := range s.Vaults {
		at, prefix := fmt.Sprintf("vaults[%d]", i), strings.Trim(v.Prefix, "/")
		v.validate(at, need)
		need(prefix != "" && !prefixes[prefix], "%s.prefix is %q: give how the references begin whose secrets are there, such as kafka/east, once", at, v.Prefix)
		prefixes[prefix] = true
	}
	_, err := s.level()
	need(err == nil, "log.level is %q: use debug, info, warn or error", s.Log.Level)
	need(s.Log.Format == "json" || s.Log.Format == "text", "log.format is %q: use json or text", s.Log.Format)
	need(s.StopTimeout >= time.Second, "stopTimeout is %s: give a second or more, with its unit, such as 15s", s.StopTimeout)
	need(s.Reports != "", "reports is empty: give a folder that reports are written to")
	info, err := os.Stat(s.Runbooks)
	need(err == nil && info.IsDir(), "runbooks: %q is not a folder: give the one with the runbook files", s.Runbooks)
	return errors.Join(errs...)
}

func (v Vault) validate(at string, need func(bool, string, ...any)) {
	need((v.TLS.Cert == "") == (v.TLS.Key == ""), "%s.tls needs both of cert and key, or none", at)
	need(strings.HasPrefix(v.Address, "http://") || strings.HasPrefix(v.Address, "https://"), "%s.address is %q: give the URL of Vault, such as https://vault:8200", at, v.Address)
	role := v.RoleIDFile != "" && v.SecretIDFile != ""
	need(role != (v.TokenFile != ""), "the way to log in to Vault is not clear: give %[1]s.roleIdFile and %[1]s.secretIdFile, or %[1]s.tokenFile alone", at)
}

func (s Settings) level() (slog.Level, error) {
	var l slog.Level
	err := l.UnmarshalText([]byte(s.Log.Level))
	return l, err
}
