// Package tlstest makes certificates for tests of migration within TLS: folders
// of PEM files as the commands' --tls-dir wants them, good and bad.
package tlstest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// A CA signs certificates.
type CA struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// A Cert is what may be unusual about a certificate.
type Cert struct {
	// Names are those that it is for: host names or IP addresses. Nil is
	// "127.0.0.1" and "localhost".
	Names []string
	// From and Until bound its validity, counted from now; 0 is an hour ago
	// and an hour ahead.
	From, Until time.Duration
	Usage       x509.ExtKeyUsage // 0 (any) is that of its side
}

// NewCA makes a CA.
func NewCA(t *testing.T) *CA {
	t.Helper()
	ca := &CA{t: t, key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "CA of " + t.Name()},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	ca.cert = ca.sign(template, template, ca.key)
	return ca
}

// Folder makes a folder with the files of both sides, all good.
func (ca *CA) Folder() string {
	ca.t.Helper()
	dir := ca.t.TempDir()
	ca.Trust(dir)
	ca.Server(dir, Cert{})
	ca.Client(dir, Cert{})
	return dir
}

// Trust makes this CA that of a folder.
func (ca *CA) Trust(dir string) {
	ca.t.Helper()
	ca.write(dir, "ca-cert.pem", "CERTIFICATE", ca.cert.Raw)
}

// Server puts a certificate for a destination, and its key, into a folder.
func (ca *CA) Server(dir string, c Cert) {
	ca.t.Helper()
	ca.issue(dir, "server", x509.ExtKeyUsageServerAuth, c)
}

// Client does so for a source.
func (ca *CA) Client(dir string, c Cert) {
	ca.t.Helper()
	ca.issue(dir, "client", x509.ExtKeyUsageClientAuth, c)
}

func (ca *CA) issue(dir, side string, usage x509.ExtKeyUsage, c Cert) {
	ca.t.Helper()
	if c.Usage != 0 {
		usage = c.Usage
	}
	if c.From == 0 {
		c.From = -time.Hour
	}
	if c.Until == 0 {
		c.Until = time.Hour
	}
	if c.Names == nil {
		c.Names = []string{"127.0.0.1", "localhost"}
	}
	key := newKey(ca.t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: side},
		NotBefore: time.Now().Add(c.From), NotAfter: time.Now().Add(c.Until),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{usage},
	}
	for _, name := range c.Names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		ca.t.Fatal(err)
	}
	ca.write(dir, side+"-cert.pem", "CERTIFICATE", ca.sign(template, ca.cert, key).Raw)
	ca.write(dir, side+"-key.pem", "PRIVATE KEY", der)
}

// sign has parent's owner, this CA, sign the certificate of a key.
func (ca *CA) sign(template, parent *x509.Certificate, key *ecdsa.PrivateKey) *x509.Certificate {
	ca.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, ca.key)
	if err != nil {
		ca.t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		ca.t.Fatal(err)
	}
	return cert
}

func (ca *CA) write(dir, name, kind string, der []byte) {
	ca.t.Helper()
	b := pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
		ca.t.Fatal(err)
	}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}
