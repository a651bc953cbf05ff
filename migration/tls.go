package migration

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
)

// The files of a folder for TLS, all PEM, named as QEMU names them. Only a
// source needs those of the client, only a destination those of the server.
const (
	caFile         = "ca-cert.pem"
	serverCertFile = "server-cert.pem"
	serverKeyFile  = "server-key.pem"
	clientCertFile = "client-cert.pem"
	clientKeyFile  = "client-key.pem"
)

// SourceTLS reads what a source needs for TLS from dir: ca-cert.pem, which has
// to have signed the destination's certificate, and its own client-cert.pem
// and client-key.pem. hostname is the name that the destination's certificate
// has to bear; "" is the host that is dialled. Errors name the file. The
// certificate is read anew for each connection: when it expires during a
// migration that is paused, a new one in its place lets that go on. log is told
// if it cannot be read then; nil is nobody.
func SourceTLS(dir, hostname string, log *slog.Logger) (*tls.Config, error) {
	pool, id, err := readTLS(dir, clientCertFile, clientKeyFile, log)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		RootCAs:    pool,
		ServerName: hostname,
		// Not Certificates: of those, one that the destination's CA has not
		// signed is silently not sent, and the reason would be lost.
		GetClientCertificate:        func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return id.current(), nil },
		DynamicRecordSizingDisabled: true, // a page is one record, not four
	}, nil
}

// DestinationTLS reads what a destination needs for TLS from dir: ca-cert.pem,
// which has to have signed the source's certificate, and its own
// server-cert.pem and server-key.pem, which are read anew for each connection
// as [SourceTLS] does it. Errors name the file.
func DestinationTLS(dir string, log *slog.Logger) (*tls.Config, error) {
	pool, id, err := readTLS(dir, serverCertFile, serverKeyFile, log)
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		MinVersion:                  tls.VersionTLS13,
		ClientCAs:                   pool,
		ClientAuth:                  tls.RequireAndVerifyClientCert,
		GetCertificate:              func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return id.current(), nil },
		SessionTicketsDisabled:      true, // each channel shows its certificate
		DynamicRecordSizingDisabled: true,
	}, nil
}

// CheckTLS refuses TLS for an address that has no use for it.
func (a Address) CheckTLS() error {
	if a.Network == "unix" {
		return fmt.Errorf("TLS is for tcp: %s stays on this host, and its file's permissions say who may connect", a)
	}
	return nil
}

// readTLS reads the CA, and a certificate with its key.
func readTLS(dir, certFile, keyFile string, log *slog.Logger) (*x509.CertPool, *identity, error) {
	ca, err := readPEM(filepath.Join(dir, caFile))
	if err != nil {
		return nil, nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, nil, fmt.Errorf("TLS: %s: no certificate in PEM", filepath.Join(dir, caFile))
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	id := &identity{cert: filepath.Join(dir, certFile), key: filepath.Join(dir, keyFile), log: log}
	if id.last, err = id.read(); err != nil {
		return nil, nil, err
	}
	if why := outOfDate(id.last.Leaf); why != "" {
		return nil, nil, fmt.Errorf("TLS: %s %s", id.cert, why)
	}
	return pool, id, nil
}

// identity is the certificate that this side shows, and its key.
type identity struct {
	cert, key string // paths
	log       *slog.Logger

	mu   sync.Mutex
	last *tls.Certificate // that could be read
}

// current is what the files hold now, or the last that could be used.
func (id *identity) current() *tls.Certificate {
	id.mu.Lock()
	defer id.mu.Unlock()
	c, err := id.read()
	if err != nil {
		id.log.Warn("the certificate is not read anew; the one before goes on", "error", err)
		return id.last
	}
	id.last = c
	return c
}

func (id *identity) read() (*tls.Certificate, error) {
	certPEM, err := readPEM(id.cert)
	if err != nil {
		return nil, err
	}
	keyPEM, err := readPEM(id.key)
	if err != nil {
		return nil, err
	}
	// A warning would be read by nobody, and the remedy is short. To let a
	// group read keys is customary, and somebody's decision.
	if info, err := os.Stat(id.key); err == nil && info.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("TLS: %s: everybody on this host may use this private key (mode %#o), and so take VMs in the name of its owner; chmod 600 it", id.key, info.Mode().Perm())
	}
	c, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, fmt.Errorf("TLS: %s with %s: %w", id.cert, filepath.Base(id.key), err)
	}
	return &c, nil
}

func readPEM(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("TLS: %w; docs/tls.md says which files there have to be", err)
	}
	return b, nil
}
