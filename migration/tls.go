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
// has to bear; "" is the host that is dialled. Errors name the file.
//
// What it returns reads the files anew each time, which is for each connection:
// when a certificate or its CA expires, or is replaced, while a migration is
// paused, new ones in their place let that go on. log is told if they cannot be
// read then; nil is nobody.
func SourceTLS(dir, hostname string, log *slog.Logger) (func() *tls.Config, error) {
	files, err := readTLS(dir, clientCertFile, clientKeyFile, log)
	if err != nil {
		return nil, err
	}
	return func() *tls.Config {
		pool, own := files.current()
		return &tls.Config{
			MinVersion: tls.VersionTLS13,
			RootCAs:    pool,
			ServerName: hostname,
			// Not Certificates: of those, one that the destination's CA has not
			// signed is silently not sent, and the reason would be lost.
			GetClientCertificate:        func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own, nil },
			DynamicRecordSizingDisabled: true, // a page is one record, not four
		}
	}, nil
}

// DestinationTLS reads what a destination needs for TLS from dir: ca-cert.pem,
// which has to have signed the source's certificate, and its own
// server-cert.pem and server-key.pem. All are read anew for each connection, as
// [SourceTLS] does it. Errors name the file.
func DestinationTLS(dir string, log *slog.Logger) (func() *tls.Config, error) {
	files, err := readTLS(dir, serverCertFile, serverKeyFile, log)
	if err != nil {
		return nil, err
	}
	return func() *tls.Config {
		pool, own := files.current()
		return &tls.Config{
			MinVersion:                  tls.VersionTLS13,
			ClientCAs:                   pool,
			ClientAuth:                  tls.RequireAndVerifyClientCert,
			Certificates:                []tls.Certificate{*own},
			SessionTicketsDisabled:      true, // each channel shows its certificate
			DynamicRecordSizingDisabled: true,
		}
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
func readTLS(dir, certFile, keyFile string, log *slog.Logger) (*tlsFiles, error) {
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	in := func(name string) string { return filepath.Join(dir, name) }
	f := &tlsFiles{ca: in(caFile), cert: in(certFile), key: in(keyFile), log: log}
	var err error
	if f.pool, f.own, err = f.read(); err != nil {
		return nil, err
	}
	if why := outOfDate(f.own.Leaf); why != "" {
		return nil, fmt.Errorf("TLS: %s %s", f.cert, why)
	}
	return f, nil
}

// tlsFiles are the CA that this side trusts, the certificate that it shows, and
// the key of that.
type tlsFiles struct {
	ca, cert, key string // paths
	log           *slog.Logger

	mu   sync.Mutex
	pool *x509.CertPool // the last that could be read, like own
	own  *tls.Certificate
}

// current is what the files hold now, or the last that could be used. All of
// them count or none: whoever replaces them does so one by one.
func (f *tlsFiles) current() (*x509.CertPool, *tls.Certificate) {
	f.mu.Lock()
	defer f.mu.Unlock()
	pool, own, err := f.read()
	if err != nil {
		f.log.Warn("the files for TLS are not read anew; those before go on", "error", err)
		return f.pool, f.own
	}
	f.pool, f.own = pool, own
	return pool, own
}

func (f *tlsFiles) read() (*x509.CertPool, *tls.Certificate, error) {
	ca, err := readPEM(f.ca)
	if err != nil {
		return nil, nil, err
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(ca) {
		return nil, nil, fmt.Errorf("TLS: %s: no certificate in PEM", f.ca)
	}
	certPEM, err := readPEM(f.cert)
	if err != nil {
		return nil, nil, err
	}
	keyPEM, err := readPEM(f.key)
	if err != nil {
		return nil, nil, err
	}
	// A warning would be read by nobody, and the remedy is short. To let a
	// group read keys is customary, and somebody's decision.
	if info, err := os.Stat(f.key); err == nil && info.Mode().Perm()&0o007 != 0 {
		return nil, nil, fmt.Errorf("TLS: %s: everybody on this host may use this private key (mode %#o), and so take VMs in the name of its owner; chmod 600 it", f.key, info.Mode().Perm())
	}
	own, err := tls.X509KeyPair(certPEM, keyPEM)
	if err != nil {
		return nil, nil, fmt.Errorf("TLS: %s with %s: %w", f.cert, filepath.Base(f.key), err)
	}
	return pool, &own, nil
}

func readPEM(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("TLS: %w; docs/tls.md says which files there have to be", err)
	}
	return b, nil
}
