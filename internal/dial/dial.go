// Package dial makes TLS configurations out of the names of PEM files, the same way for everything that is dialled.
package dial

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"os"

	"switchback/internal/fault"
)

// Files are the names of PEM files. Empty ones mean the system's authorities and no client certificate.
type Files struct {
	CA   string
	Cert string
	Key  string
	// ServerName is expected in the server's certificate instead of the host that was dialled.
	ServerName string
}

// TLS reads the files. The error wraps fault.ErrInvalid and names the file that is wrong.
func TLS(f Files) (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: f.ServerName}
	if f.CA != "" {
		pem, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, fmt.Errorf("read the authorities: %w: %w", fault.ErrInvalid, err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no PEM certificate: %w", f.CA, fault.ErrInvalid)
		}
	}
	if (f.Cert == "") != (f.Key == "") {
		return nil, fmt.Errorf("a client certificate needs both of its files, certificate and key: %w", fault.ErrInvalid)
	}
	if f.Cert != "" {
		pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil { // it names the file or what is wrong in it, never its content
			return nil, fmt.Errorf("read the client certificate: %w: %w", fault.ErrInvalid, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}
