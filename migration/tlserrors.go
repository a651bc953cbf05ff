package migration

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"
)

// outOfDate says why a certificate is not valid now; "" if it is.
func outOfDate(c *x509.Certificate) string {
	const clock = "2006-01-02 15:04:05 MST"
	switch now := time.Now(); {
	case now.After(c.NotAfter):
		return fmt.Sprintf("expired at %s; here it is %s", c.NotAfter.Format(clock), now.UTC().Format(clock))
	case now.Before(c.NotBefore):
		return fmt.Sprintf("is not yet valid: it will be at %s; here it is %s", c.NotBefore.Format(clock), now.UTC().Format(clock))
	}
	return ""
}

// tlsSide is an end of a handshake, for what is said of the other.
type tlsSide struct {
	peer     string
	peerFile string // the certificate that the peer shows
	ownFile  string
}

var (
	sourceSideTLS      = tlsSide{"the destination", serverCertFile, clientCertFile}
	destinationSideTLS = tlsSide{"the source", clientCertFile, serverCertFile}
)

// explain turns what crypto/tls returned into what a person can act on, and
// tells whether one of the sides turned the other down: otherwise it was the
// connection.
func (s tlsSide) explain(err error) (why error, refused bool) {
	if reason := s.refusal(err); reason != "" {
		return errors.New("TLS: " + reason), true
	}
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		err = fmt.Errorf("%s did not answer within %v: %w", s.peer, helloTimeout, err)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		err = fmt.Errorf("%s closed the connection: %w", s.peer, err)
	}
	return fmt.Errorf("TLS: %w", err), false
}

// refusal is the reason if one of the sides turned the other down, else "".
func (s tlsSide) refusal(err error) string {
	var header tls.RecordHeaderError
	var verify *tls.CertificateVerificationError
	var op *net.OpError
	switch {
	case errors.As(err, &header) && header.Conn != nil:
		return fmt.Sprintf("%s does not speak it: it opens with %q; both sides need --tls-dir, or neither", s.peer, header.RecordHeader[:])
	case errors.As(err, &verify):
		return fmt.Sprintf("%s's certificate (%s) %s", s.peer, s.peerFile, unverified(verify.Err))
	case errors.As(err, &op) && op.Op == "remote error":
		return s.alert(strings.TrimPrefix(op.Err.Error(), "tls: "))
	case errors.As(err, &op) && op.Op == "local error":
		return s.peer + " breaks TLS: " + strings.TrimPrefix(op.Err.Error(), "tls: ")
	case strings.Contains(err.Error(), "didn't provide a certificate"):
		return s.peer + " shows no certificate, and this side wants one (" + s.peerFile + ")"
	case errors.As(err, &op), !strings.HasPrefix(err.Error(), "tls: "):
		return ""
	}
	return err.Error()
}

// unverified says what is wrong with a certificate.
func unverified(err error) string {
	var unknown x509.UnknownAuthorityError
	var host x509.HostnameError
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(err, &unknown):
		return "is not signed by the CA in this side's " + caFile + ": " + err.Error()
	case errors.As(err, &host):
		names := host.Certificate.DNSNames
		for _, ip := range host.Certificate.IPAddresses {
			names = append(names, ip.String())
		}
		if len(names) == 0 {
			return fmt.Sprintf("is not for %q: it has no subjectAltName, which is what counts", host.Host)
		}
		return fmt.Sprintf("is for %q, not for %q; dial one of these, or say --tls-hostname", names, host.Host)
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		if why := outOfDate(invalid.Cert); why != "" {
			return fmt.Sprintf("does not count: that of %q %s", invalid.Cert.Subject, why)
		}
	}
	return "does not count: " + err.Error()
}

// alert says what the peer's alert means. The peer itself knows more.
func (s tlsSide) alert(text string) string {
	switch text {
	case "unknown certificate authority":
		return fmt.Sprintf("%s refuses this side's certificate (%s): the CA in its %s has not signed it", s.peer, s.ownFile, caFile)
	case "expired certificate":
		return fmt.Sprintf("%s refuses this side's certificate (%s): it has expired, or is not yet valid; compare the clocks", s.peer, s.ownFile)
	case "certificate required":
		return fmt.Sprintf("%s wants a certificate of this side (%s)", s.peer, s.ownFile)
	case "bad certificate":
		return fmt.Sprintf("%s refuses this side's certificate (%s) for its CA, name, dates or purpose; it says itself which", s.peer, s.ownFile)
	}
	return s.peer + " refuses: " + text
}
