package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"

	"switchback/internal/consul"
	"switchback/internal/fault"
	"switchback/internal/secret"
)

// setting is one variable or property, with its value where it is no secret.
type setting struct {
	name   string
	value  string
	hidden secret.Value // instead of value
}

func (s setting) reveal() string {
	if !s.hidden.IsZero() {
		return s.hidden.Reveal()
	}
	return s.value
}

func (s setting) masked() string {
	if !s.hidden.IsZero() {
		return s.hidden.String()
	}
	return s.value
}

// needsLogin says whether the view's protocol logs in with a user name and a password.
func needsLogin(v consul.View) bool { return strings.HasPrefix(v.SecurityProtocol, "SASL") }

// environment is what the command finds in its environment. Without withPassword the password is in the file alone.
func environment(s settings, v consul.View, login secret.Login) []setting {
	list := []setting{
		{name: "KAFKA_BOOTSTRAP_SERVERS", value: v.Bootstrap},
		{name: "KAFKA_SECURITY_PROTOCOL", value: v.SecurityProtocol},
		{name: "KAFKA_TOPIC_PREFIX", value: v.TopicPrefix},
		{name: "KAFKA_PROPERTIES_FILE", value: s.propertiesFile},
		{name: "SWITCHBACK_CLUSTER", value: v.Cluster},
		{name: "SWITCHBACK_EPOCH", value: strconv.FormatInt(v.Epoch, 10)},
		{name: "SWITCHBACK_CLIENT", value: s.client},
		{name: "SWITCHBACK_INSTANCE", value: s.instance},
	}
	if s.kafkaCA != "" {
		list = append(list, setting{name: "KAFKA_SSL_CA_FILE", value: s.kafkaCA})
	}
	if needsLogin(v) {
		list = append(list, setting{name: "KAFKA_SASL_MECHANISM", value: v.SASLMechanism}, setting{name: "KAFKA_SASL_USERNAME", value: login.Username})
		if s.passwordInEnv {
			list = append(list, setting{name: "KAFKA_SASL_PASSWORD", hidden: login.Password})
		}
	}
	return list
}

// ours are the variables that the command gets from nobody else; the supervisor's own settings are none of its business.
func ours(name string) bool {
	return strings.HasPrefix(name, envPrefix) || slices.Contains([]string{
		"KAFKA_BOOTSTRAP_SERVERS", "KAFKA_SECURITY_PROTOCOL", "KAFKA_TOPIC_PREFIX", "KAFKA_PROPERTIES_FILE", "KAFKA_SSL_CA_FILE",
		"KAFKA_SASL_MECHANISM", "KAFKA_SASL_USERNAME", "KAFKA_SASL_PASSWORD",
		"SWITCHBACK_CLUSTER", "SWITCHBACK_EPOCH", "SWITCHBACK_CLIENT", "SWITCHBACK_INSTANCE",
		"CONSUL_HTTP_TOKEN", "CONSUL_HTTP_TOKEN_FILE", "VAULT_TOKEN",
	}, name)
}

// childEnv is the inherited environment with the rendered one over it.
func childEnv(inherited []string, list []setting) []string {
	env := slices.DeleteFunc(slices.Clone(inherited), func(pair string) bool {
		name, _, _ := strings.Cut(pair, "=")
		return ours(name)
	})
	for _, s := range list {
		env = append(env, s.name+"="+s.reveal())
	}
	return env
}

// properties are those of a Java client; other programs can read them as well.
func properties(s settings, v consul.View, login secret.Login) ([]setting, error) {
	list := []setting{{name: "bootstrap.servers", value: v.Bootstrap}}
	if v.SecurityProtocol != "" {
		list = append(list, setting{name: "security.protocol", value: v.SecurityProtocol})
	}
	if s.kafkaCA != "" {
		list = append(list, setting{name: "ssl.truststore.type", value: "PEM"}, setting{name: "ssl.truststore.location", value: s.kafkaCA})
	}
	if !needsLogin(v) {
		return list, nil
	}
	module := ""
	switch {
	case strings.HasPrefix(v.SASLMechanism, "SCRAM-SHA-"):
		module = "org.apache.kafka.common.security.scram.ScramLoginModule"
	case v.SASLMechanism == "PLAIN":
		module = "org.apache.kafka.common.security.plain.PlainLoginModule"
	default:
		return nil, fmt.Errorf("sasl.mechanism %q in Consul is not known; SCRAM-SHA-512, SCRAM-SHA-256 and PLAIN are: %w", v.SASLMechanism, fault.ErrInvalid)
	}
	jaas := fmt.Sprintf("%s required username=%s password=%s;", module, jaasString(login.Username), jaasString(login.Password.Reveal()))
	return append(list, setting{name: "sasl.mechanism", value: v.SASLMechanism},
		setting{name: "sasl.jaas.config", hidden: secret.New(jaas)}), nil
}

// jaasString quotes for the configuration of a JAAS login module.
func jaasString(text string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`, "\r", `\r`, "\t", `\t`).Replace(text) + `"`
}

// propertyValue escapes for java.util.Properties, which reads ISO 8859-1, takes \ as escape and drops leading blanks.
func propertyValue(text string) string {
	var b strings.Builder
	for i, r := range text {
		switch {
		case r == '\\':
			b.WriteString(`\\`)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r == '\t':
			b.WriteString(`\t`)
		case r == ' ' && i == 0:
			b.WriteString(`\ `)
		case r < 0x20 || r > 0x7e:
			for _, unit := range utf16.Encode([]rune{r}) {
				fmt.Fprintf(&b, `\u%04x`, unit)
			}
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// writeProperties replaces the file in one step; nobody but its owner ever reads it.
func writeProperties(name string, list []setting) error {
	var b strings.Builder
	b.WriteString("# written by supervisor at each start of its command\n")
	for _, s := range list {
		b.WriteString(s.name + "=" + propertyValue(s.reveal()) + "\n")
	}
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".*") // mode 0600
	if err != nil {
		return fmt.Errorf("write properties file: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }() // gone already after the rename
	_, err = f.WriteString(b.String())
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(f.Name(), name)
	}
	if err != nil {
		return fmt.Errorf("write properties file: %w", err)
	}
	return nil
}
