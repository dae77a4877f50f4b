package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"switchback/internal/consul"
	"switchback/internal/secret"
	"switchback/internal/vault"
)

// envPrefix begins the variables that serve in place of flags: SUPERVISOR_CONSUL_ADDRESS for --consul-address.
const envPrefix = "SUPERVISOR_"

// settings are the command line, checked.
type settings struct {
	client, instance   string
	consul             entrySettings // the required entry
	discovery          []string      // others, as written
	others             []entrySettings
	vault              vault.Config
	propertiesFile     string
	kafkaCA            string
	passwordInEnv      bool
	stopTimeout        time.Duration
	backoff            time.Duration
	backoffMax         time.Duration
	once, dryRun       bool
	logFormat          string
	command            []string
	temporaryDirectory string // to be removed at the end
}

// entrySettings say where one discovery entry is.
type entrySettings struct{ address, prefix, tokenFile, datacenter, ca string }

func (e entrySettings) open() (*consul.Discovery, error) {
	token := ""
	if e.tokenFile != "" {
		b, err := os.ReadFile(e.tokenFile)
		if err != nil {
			return nil, fmt.Errorf("read the token of Consul: %w", err)
		}
		token = strings.TrimSpace(string(b))
	}
	return consul.Open(consul.Config{Address: e.address, Token: secret.New(token), Prefix: e.prefix, Datacenter: e.datacenter, TLS: consul.TLS{CAFile: e.ca}})
}

// parseEntry reads address=https://consul:8501,prefix=kafka/orders,token-file=/run/token,datacenter=west,ca=/etc/ca.pem.
func parseEntry(text string) (e entrySettings, err error) {
	fields := map[string]*string{"address": &e.address, "prefix": &e.prefix, "token-file": &e.tokenFile, "datacenter": &e.datacenter, "ca": &e.ca}
	for _, pair := range strings.Split(text, ",") {
		name, value, ok := strings.Cut(pair, "=")
		field, known := fields[strings.TrimSpace(name)]
		if !ok || !known {
			return e, fmt.Errorf("--discovery %q: %q is not one of address=, prefix=, token-file=, datacenter=, ca=", text, pair)
		}
		*field = value
	}
	if e.address == "" || e.prefix == "" {
		return e, fmt.Errorf("--discovery %q: address= and prefix= are both needed", text)
	}
	return e, nil
}

// check completes the settings, or says what is wrong and what to do.
func (s *settings) check() error {
	switch {
	case s.client == "":
		return errors.New("--client is needed: the client's name in the runbook")
	case s.consul.address == "" || s.consul.prefix == "":
		return errors.New("--consul-address and --consul-prefix are needed: the required discovery entry of the runbook")
	case len(s.command) == 0:
		return errors.New("a command is needed after --, such as: supervisor --client checkout -- java -jar checkout.jar")
	case s.stopTimeout <= 0 || s.backoff <= 0 || s.backoffMax < s.backoff:
		return errors.New("--stop-timeout and --restart-backoff are above 0, --restart-backoff-max is not below the back-off")
	case s.logFormat != "text" && s.logFormat != "json":
		return fmt.Errorf("--log-format %q: it is text or json", s.logFormat)
	case strings.Contains(s.client+s.instance, "/"):
		return errors.New("--client and --instance are names without a slash")
	}
	if _, err := exec.LookPath(s.command[0]); err != nil {
		return fmt.Errorf("the command cannot be run: %w", err)
	}
	for _, text := range s.discovery {
		e, err := parseEntry(text)
		if err != nil {
			return err
		}
		s.others = append(s.others, e)
	}
	if s.instance == "" {
		host, err := os.Hostname()
		if err != nil {
			return fmt.Errorf("--instance is needed, for the host has no name: %w", err)
		}
		s.instance = fmt.Sprintf("%s-%d", host, os.Getpid())
	}
	return nil
}

// place makes a folder that only we can read for a properties file that no flag names.
func (s *settings) place() error {
	if s.propertiesFile != "" {
		absolute, err := filepath.Abs(s.propertiesFile)
		s.propertiesFile = absolute
		return err
	}
	dir, err := os.MkdirTemp("", "supervisor-")
	if err != nil {
		return fmt.Errorf("make a folder for the properties file: %w", err)
	}
	s.temporaryDirectory = dir
	s.propertiesFile = filepath.Join(dir, "client.properties")
	return nil
}
