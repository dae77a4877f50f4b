// Package clients holds the lab's sample applications: a producer and a consumer as teams write them. They run as
// children of `supervisor` and know nothing of Switchback: where Kafka is and how to log in they take from the
// properties file that they are given, like any other client. What was acknowledged to them and what they read they
// write into a ledger, which is what runs are judged by.
//
// Start reading at Producer and Consumer.
package clients

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl/scram"
)

// Config is what both clients are told.
type Config struct {
	Instance string
	Topics   []string // as the workload calls them, and the ledger
	Prefix   string   // of their names on this cluster
	Ledger   string   // folder
	// Label says which cluster and epoch the records of this life are written down under.
	Cluster string
	Epoch   int64
	Client  string
	// Options connect to Kafka.
	Options []kgo.Opt
}

// FromEnvironment fills in what the wrapper around the program has set: the properties file, and the labels for the
// ledger.
func (c *Config) FromEnvironment(getenv func(string) string) error {
	file := getenv("KAFKA_PROPERTIES_FILE")
	if file == "" {
		return fmt.Errorf("KAFKA_PROPERTIES_FILE is not set: it names the client properties file")
	}
	p, err := readProperties(file)
	if err != nil {
		return err
	}
	if c.Options, err = connect(p, getenv("KAFKA_SSL_CA_FILE")); err != nil {
		return err
	}
	c.Cluster, c.Client, c.Prefix = getenv("SWITCHBACK_CLUSTER"), getenv("SWITCHBACK_CLIENT"), getenv("KAFKA_TOPIC_PREFIX")
	c.Epoch, err = strconv.ParseInt(getenv("SWITCHBACK_EPOCH"), 10, 64)
	return err
}

// onCluster are the topics as the cluster calls them.
func (c *Config) onCluster() []string {
	names := make([]string, len(c.Topics))
	for i, topic := range c.Topics {
		names[i] = c.Prefix + topic
	}
	return names
}

// logical is a topic of the cluster as the ledger calls it: a record keeps its name wherever it is.
func (c *Config) logical(topic string) string { return strings.TrimPrefix(topic, c.Prefix) }

// readProperties reads the simple part of the format of java.util.Properties: key=value, one a line.
func readProperties(file string) (map[string]string, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fmt.Errorf("read client properties: %w", err)
	}
	defer f.Close()
	p := map[string]string{}
	s := bufio.NewScanner(f)
	for s.Scan() {
		line := strings.TrimSpace(s.Text())
		if line == "" || line[0] == '#' || line[0] == '!' {
			continue
		}
		key, value, ok := strings.Cut(line, "=")
		if !ok {
			return nil, fmt.Errorf("read client properties: %s has a line without =", file)
		}
		p[strings.TrimSpace(key)] = unescape(strings.TrimSpace(value))
	}
	return p, s.Err()
}

func unescape(v string) string {
	return strings.NewReplacer(`\\`, `\`, `\:`, ":", `\=`, "=", `\#`, "#", `\!`, "!", `\ `, " ").Replace(v)
}

var jaas = regexp.MustCompile(`username="((?:[^"\\]|\\.)*)"\s+password="((?:[^"\\]|\\.)*)"`)

// connect turns properties into options.
func connect(p map[string]string, caFile string) ([]kgo.Opt, error) {
	options := []kgo.Opt{kgo.SeedBrokers(strings.Split(p["bootstrap.servers"], ",")...)}
	protocol := p["security.protocol"]
	if strings.HasPrefix(protocol, "SASL") {
		login := jaas.FindStringSubmatch(p["sasl.jaas.config"])
		if login == nil {
			return nil, fmt.Errorf("sasl.jaas.config has no username and password")
		}
		quoted := strings.NewReplacer(`\\`, `\`, `\"`, `"`)
		auth := scram.Auth{User: quoted.Replace(login[1]), Pass: quoted.Replace(login[2])}
		switch p["sasl.mechanism"] {
		case "SCRAM-SHA-512":
			options = append(options, kgo.SASL(auth.AsSha512Mechanism()))
		case "SCRAM-SHA-256":
			options = append(options, kgo.SASL(auth.AsSha256Mechanism()))
		default:
			return nil, fmt.Errorf("sasl.mechanism %q is not one that this client knows", p["sasl.mechanism"])
		}
	}
	if strings.HasSuffix(protocol, "SSL") {
		config := &tls.Config{MinVersion: tls.VersionTLS12}
		if caFile != "" {
			pem, err := os.ReadFile(caFile)
			if err != nil {
				return nil, err
			}
			config.RootCAs = x509.NewCertPool()
			config.RootCAs.AppendCertsFromPEM(pem)
		}
		options = append(options, kgo.DialTLSConfig(config))
	}
	return options, nil
}
