package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"time"

	"github.com/go-viper/mapstructure/v2"
	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/env/v2"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/providers/posflag"
	"github.com/knadh/koanf/v2"
	"github.com/spf13/pflag"
)

// Settings are the worker's own: where Temporal, Vault and the runbooks are. Each is taken from the defaults, then the
// file, then the environment (SWITCHBACK_TEMPORAL_ADDRESS for temporal.address), then flags.
type Settings struct {
	Temporal struct {
		Address   string `koanf:"address"`
		Namespace string `koanf:"namespace"`
		TaskQueue string `koanf:"taskqueue"`
		TLS       TLS    `koanf:"tls"`
	} `koanf:"temporal"`
	Runbooks string `koanf:"runbooks"` // folder of <name>.yaml
	Reports  string `koanf:"reports"`  // folder that finished runs' reports are written to
	Vault    struct {
		Address      string `koanf:"address"`
		RoleIDFile   string `koanf:"roleidfile"`
		SecretIDFile string `koanf:"secretidfile"`
		TokenFile    string `koanf:"tokenfile"`
		TLS          TLS    `koanf:"tls"`
	} `koanf:"vault"`
	Metrics struct {
		Address string `koanf:"address"` // host:port of /metrics; empty serves none
	} `koanf:"metrics"`
	Log struct {
		Level  string `koanf:"level"`
		Format string `koanf:"format"` // text or json
	} `koanf:"log"`
	StopTimeout time.Duration `koanf:"stoptimeout"`
}

// TLS names PEM files. Empty means that the system's roots are trusted and no client certificate is shown.
type TLS struct {
	Enabled bool   `koanf:"enabled"`
	CA      string `koanf:"ca"`
	Cert    string `koanf:"cert"`
	Key     string `koanf:"key"`
}

func defaults() Settings {
	var s Settings
	s.Temporal.Address, s.Temporal.Namespace, s.Temporal.TaskQueue = "127.0.0.1:7233", "default", "switchback"
	s.Runbooks, s.Reports = "runbooks", "reports"
	s.Log.Level, s.Log.Format = "info", "json"
	s.StopTimeout = 15 * time.Second // above the longest atomic write
	return s
}

// flags are the settings that are also flags. Secrets are files' contents, never arguments.
func flags() *pflag.FlagSet {
	d := defaults()
	f := pflag.NewFlagSet("worker", pflag.ContinueOnError)
	f.String("config", "", "settings file (YAML); environment and flags win over it")
	f.String("temporal.address", d.Temporal.Address, "host:port of Temporal's frontend")
	f.String("temporal.namespace", d.Temporal.Namespace, "Temporal namespace")
	f.String("temporal.taskqueue", d.Temporal.TaskQueue, "task queue that this worker serves")
	f.String("runbooks", d.Runbooks, "folder of runbook files, <name>.yaml each")
	f.String("reports", d.Reports, "folder that the reports of finished runs are written to")
	f.String("vault.address", "", "URL of Vault, such as https://vault:8200")
	f.String("vault.roleidfile", "", "file with the AppRole's role id")
	f.String("vault.secretidfile", "", "file with the AppRole's secret id")
	f.String("metrics.address", "", "host:port of /metrics; empty serves none")
	f.String("log.level", d.Log.Level, "debug, info, warn or error")
	f.String("log.format", d.Log.Format, "text or json")
	return f
}

// load reads the settings. An unknown key anywhere in the file is an error: a misspelt one would be a default.
func load(f *pflag.FlagSet, environ func() []string) (Settings, error) {
	s := defaults()
	k := koanf.New(".")
	if path, _ := f.GetString("config"); path != "" {
		if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
			return s, fmt.Errorf("read settings %s: %w", path, err)
		}
		lower := koanf.New(".")
		for key, v := range k.All() {
			if err := lower.Set(strings.ToLower(key), v); err != nil {
				return s, fmt.Errorf("read settings %s: %w", path, err)
			}
		}
		k = lower
	}
	fromEnv := env.Provider(".", env.Opt{Prefix: "SWITCHBACK_", EnvironFunc: environ, TransformFunc: func(key, v string) (string, any) {
		key = strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(key, "SWITCHBACK_"), "_", "."))
		if strings.HasPrefix(key, "kill.") { // the tests' seam, not a setting
			return "", nil
		}
		return key, v
	}})
	if err := k.Load(fromEnv, nil); err != nil {
		return s, fmt.Errorf("read settings from the environment: %w", err)
	}
	if err := k.Load(posflag.ProviderWithFlag(f, ".", k, changedOnly), nil); err != nil {
		return s, fmt.Errorf("read flags: %w", err)
	}
	err := k.UnmarshalWithConf("", &s, koanf.UnmarshalConf{DecoderConfig: &mapstructure.DecoderConfig{
		Result: &s, ErrorUnused: true, WeaklyTypedInput: true, TagName: "koanf",
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

func (s Settings) validate() error {
	var errs []error
	need := func(ok bool, text string) {
		if !ok {
			errs = append(errs, errors.New(text))
		}
	}
	need(s.Temporal.Address != "", "temporal.address is empty: give host:port of Temporal's frontend")
	need(s.Vault.Address != "", "vault.address is empty: give the URL of Vault, such as https://vault:8200")
	need(s.Vault.TokenFile != "" || s.Vault.RoleIDFile != "" && s.Vault.SecretIDFile != "", "no way to log in to Vault: give vault.roleIdFile and vault.secretIdFile, or vault.tokenFile")
	_, err := s.level()
	need(err == nil, "log.level is "+s.Log.Level+": use debug, info, warn or error")
	need(s.Log.Format == "json" || s.Log.Format == "text", "log.format is "+s.Log.Format+": use json or text")
	if info, err := os.Stat(s.Runbooks); err != nil || !info.IsDir() {
		errs = append(errs, fmt.Errorf("runbooks: %s is not a folder: give the one with the runbook files", s.Runbooks))
	}
	return errors.Join(errs...)
}

func (s Settings) level() (slog.Level, error) {
	var l slog.Level
	err := l.UnmarshalText([]byte(s.Log.Level))
	return l, err
}
