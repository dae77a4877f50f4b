package apache

import (
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"software.sslmate.com/src/go-pkcs12"

	"switchback/internal/dial"
	"switchback/lab/servers"
)

// TLS are the PEM files of an authority and of the certificate that all servers show. The zero value is no TLS.
type TLS struct{ CA, Cert, Key string }

func (t TLS) on() bool { return t.CA != "" }

// protocol is security.protocol of the clients' listener.
func (t TLS) protocol() string {
	if t.on() {
		return "SASL_SSL"
	}
	return "SASL_PLAINTEXT"
}

// keystore writes certificate and key into one file, which is what Kafka wants, and returns the settings of a server that shows it.
func (t TLS) keystore(dir, prefix string) ([]string, error) {
	if !t.on() {
		return nil, nil
	}
	key, err := os.ReadFile(t.Key)
	cert, other := os.ReadFile(t.Cert)
	file := filepath.Join(dir, "server.pem")
	if err = errors.Join(err, other); err == nil {
		err = servers.WriteFile(file, append(key, cert...))
	}
	if err != nil {
		return nil, fmt.Errorf("write the certificate: %w", err)
	}
	return []string{prefix + "ssl.keystore.type=PEM", prefix + "ssl.keystore.location=" + file}, nil
}

// store is keystore for Jetty, which serves the REST API of Connect and knows no PEM: a file of its own format. Its password keeps
// nothing from anybody who may read the file, and is no secret.
func (t TLS) store(dir, prefix string) ([]string, error) {
	if !t.on() {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(t.Cert, t.Key)
	if err != nil {
		return nil, fmt.Errorf("read the certificate: %w", err)
	}
	data, err := pkcs12.Modern.Encode(pair.PrivateKey, pair.Leaf, nil, storePassword)
	file := filepath.Join(dir, "rest.p12")
	if err == nil {
		err = servers.WriteFile(file, data)
	}
	if err != nil {
		return nil, fmt.Errorf("write the certificate: %w", err)
	}
	return []string{prefix + "ssl.keystore.type=PKCS12", prefix + "ssl.keystore.location=" + file, prefix + "ssl.keystore.password=" + storePassword, prefix + "ssl.key.password=" + storePassword}, nil
}

const storePassword = "not-a-secret"

// trust are the settings of a client that trusts the authority alone.
func (t TLS) trust(prefix string) map[string]string {
	if !t.on() {
		return nil
	}
	return map[string]string{prefix + "ssl.truststore.type": "PEM", prefix + "ssl.truststore.location": t.CA}
}

// client of the REST API.
func (t TLS) client() (*http.Client, error) {
	if !t.on() {
		return http.DefaultClient, nil
	}
	config, err := dial.TLS(dial.Files{CA: t.CA})
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = config
	return &http.Client{Transport: transport}, err
}

// lines of a properties file.
func lines(settings map[string]string) string {
	var b strings.Builder
	for _, key := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&b, "%s=%s\n", key, settings[key])
	}
	return b.String()
}
