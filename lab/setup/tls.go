package setup

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"switchback/internal/dial"
	"switchback/lab/apache"
	"switchback/lab/servers"
)

// certificates are the PEM files of a lab with TLS, and what its own clients trust. The zero value is a lab without.
type certificates struct {
	ca, cert, key string
	trust         *tls.Config
	brokers       bool // Kafka and Connect serve TLS as well, which those that somebody else starts do not
}

// on says whether the lab speaks TLS.
func (c certificates) on() bool { return c.trust != nil }

// scheme of the URLs of Consul, Vault and the link's API.
func (c certificates) scheme() string {
	if c.on() {
		return "https://"
	}
	return "http://"
}

// protocol is security.protocol of both clusters.
func (c certificates) protocol() string {
	if c.on() && c.brokers {
		return "SASL_SSL"
	}
	return "SASL_PLAINTEXT"
}

// files are the certificates for programs on the JVM; none where they serve no TLS.
func (c certificates) files() apache.TLS {
	if !c.on() || !c.brokers {
		return apache.TLS{}
	}
	return apache.TLS{CA: c.ca, Cert: c.cert, Key: c.key}
}

// http is a client that trusts the lab's authority.
func (c certificates) http() *http.Client {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = c.trust
	return &http.Client{Transport: transport}
}

// openCertificates finds the certificates of a lab, or makes them: an authority and, signed by it, one certificate for
// all servers, which differ by port alone. Temporal is left out: `temporal server start-dev` knows no setting for a
// certificate, neither as a flag nor in a file. See docs/lab.md.
func openCertificates(dir string, hosts ...string) (certificates, error) {
	file := func(name string) string { return filepath.Join(dir, "tls", name) }
	c := certificates{ca: file("ca.pem"), cert: file("server.pem"), key: file("server-key.pem")}
	_, err := os.Stat(c.ca) // the last one that is written
	if errors.Is(err, fs.ErrNotExist) {
		err = makeCertificates(c, hosts)
	}
	if err != nil {
		return c, fmt.Errorf("make certificates: %w", err)
	}
	c.trust, err = dial.TLS(dial.Files{CA: c.ca})
	return c, err
}

// makeCertificates forgets the authority's key once it has signed: nobody can sign another one.
func makeCertificates(c certificates, hosts []string) error {
	authority := &x509.Certificate{
		Subject: pkix.Name{CommonName: "lab authority"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	server := &x509.Certificate{
		Subject: pkix.Name{CommonName: "lab server"}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:    append([]string{"localhost"}, hosts...), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	authorityKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	root, err := sign(authority, authority, &authorityKey.PublicKey, authorityKey)
	if err != nil {
		return err
	}
	leaf, err := sign(server, authority, &key.PublicKey, authorityKey)
	if err != nil {
		return err
	}
	return errors.Join(writePEM(c.key, "PRIVATE KEY", keyDER), writePEM(c.cert, "CERTIFICATE", leaf), writePEM(c.ca, "CERTIFICATE", root))
}

// sign makes a certificate that outlives every lab.
func sign(of, by *x509.Certificate, public *ecdsa.PublicKey, key *ecdsa.PrivateKey) ([]byte, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		return nil, err
	}
	of.SerialNumber = serial
	of.NotBefore, of.NotAfter = time.Now().Add(-time.Hour), time.Now().AddDate(10, 0, 0)
	return x509.CreateCertificate(rand.Reader, of, by, public, key)
}

func writePEM(file, kind string, der []byte) error {
	return servers.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// CA is the PEM file of the authority that signed the servers' certificates, empty in a lab without TLS.
func (l *Lab) CA() string { return l.certs.ca }

// kafkaCA is CA for the brokers' certificates, empty where they have none.
func (l *Lab) kafkaCA() string {
	if !l.certs.brokers {
		return ""
	}
	return l.certs.ca
}

// HTTP is a client for Consul, Vault and the link's API that trusts the lab's authority.
func (l *Lab) HTTP() *http.Client { return l.http }

// url of one of the servers that speak TLS in a lab that does.
func (l *Lab) url(server string) string {
	return l.certs.scheme() + l.state.address(server)
}
