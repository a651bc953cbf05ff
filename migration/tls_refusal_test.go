package migration

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"microvm/migration/tlstest"
	"microvm/migration/wire"
)

func TestCutAnywhereWithinTLSEndsInOneOfTwoWays(t *testing.T) {
	dir := tlstest.NewCA(t).Folder()
	for seed := range uint64(*seeds) / 2 {
		rng := rand.New(rand.NewPCG(seed, 3))
		cuts := 1 + rng.IntN(4)
		reach := int64(1) << (11 + rng.IntN(12)) // a handshake is about 2 KiB
		connections := 1 + 3*rng.IntN(2)
		if cutRun(t, seed, cuts, reach, connections, dir); t.Failed() {
			t.Fatalf("seed %d: %d cuts within %d bytes, %d connections", seed, cuts, reach, connections)
		}
	}
}

// Whoever is not wanted within TLS is told why in words, the guest stays where it
// is, and the destination waits on for who is.
func TestTLSRefusesWithTheReason(t *testing.T) {
	past, future := tlstest.Cert{From: -2 * time.Hour, Until: -time.Hour}, tlstest.Cert{From: time.Hour, Until: 2 * time.Hour}
	type ends struct {
		ca           *tlstest.CA        // of both
		here, there  string             // folders
		source, dest func() *tls.Config // as read from those
	}
	for name, c := range map[string]struct {
		hostname string
		spoil    func(t *testing.T, e *ends)
		want     []string
	}{
		"another name in the certificate": {spoil: func(t *testing.T, e *ends) {
			e.ca.Server(e.there, tlstest.Cert{Names: []string{"b.example", "192.0.2.7"}})
		}, want: []string{"server-cert.pem", "b.example", "192.0.2.7", `not for "127.0.0.1"`, "--tls-hostname"}},
		"another name asked for": {hostname: "b.example", want: []string{`not for "b.example"`}},
		"no name in the certificate": {spoil: func(t *testing.T, e *ends) {
			e.ca.Server(e.there, tlstest.Cert{Names: []string{}})
		}, want: []string{"no subjectAltName"}},
		"another CA signed the destination's": {spoil: func(t *testing.T, e *ends) {
			tlstest.NewCA(t).Server(e.there, tlstest.Cert{})
		}, want: []string{"server-cert.pem", "is not signed by the CA in this side's ca-cert.pem"}},
		"another CA signed the source's": {spoil: func(t *testing.T, e *ends) {
			tlstest.NewCA(t).Client(e.here, tlstest.Cert{})
		}, want: []string{"client-cert.pem", "ca-cert.pem has not signed it"}},
		"the destination's has expired": {spoil: func(t *testing.T, e *ends) {
			e.ca.Server(e.there, past)
		}, want: []string{"server-cert.pem", "expired at", "here it is"}},
		"the destination's is not valid yet": {spoil: func(t *testing.T, e *ends) {
			e.ca.Server(e.there, future)
		}, want: []string{"server-cert.pem", "not yet valid"}},
		"the source's has expired": {spoil: func(t *testing.T, e *ends) {
			e.ca.Client(e.here, past)
		}, want: []string{"client-cert.pem", "expired", "clocks"}},
		"the source's is not valid yet": {spoil: func(t *testing.T, e *ends) {
			e.ca.Client(e.here, future)
		}, want: []string{"client-cert.pem", "not yet valid"}},
		"the source has a destination's": {spoil: func(t *testing.T, e *ends) {
			e.ca.Client(e.here, tlstest.Cert{Usage: x509.ExtKeyUsageServerAuth})
		}, want: []string{"client-cert.pem", "purpose"}},
		"the source shows none": {spoil: func(t *testing.T, e *ends) {
			e.source = changed(e.source, func(c *tls.Config) {
				c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &tls.Certificate{}, nil }
			})
		}, want: []string{"wants a certificate", "client-cert.pem"}},
		"the source is without TLS":      {spoil: func(t *testing.T, e *ends) { e.source = nil }, want: []string{"TLS is needed here", "--tls-dir"}},
		"the destination is without TLS": {spoil: func(t *testing.T, e *ends) { e.dest = nil }, want: []string{"does not speak it", "--tls-dir"}},
		"the source knows only TLS 1.2": {spoil: func(t *testing.T, e *ends) {
			e.source = changed(e.source, func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 })
		}, want: []string{"protocol version"}},
	} {
		t.Run(name, func(t *testing.T) {
			ca := tlstest.NewCA(t)
			e := &ends{ca: ca, here: ca.Folder(), there: ca.Folder()}
			e.source, e.dest = sourceTLS(t, e.here, c.hostname), destTLS(t, e.there)
			if c.spoil != nil {
				c.spoil(t, e)
			}
			l := &ledger{}
			r := receiveWith(t, l, DestinationOptions{TLS: e.dest}, buildOwned(t, l, nil))
			s := send(t, l, r.addr, Options{TLS: e.source})
			err := s.run()
			says(t, err, c.want...)
			if !errors.As(err, new(*RefusedError)) {
				t.Errorf("%T, want a *RefusedError", err)
			}
			s.stayed()

			e.ca.Server(e.there, tlstest.Cert{})
			e.ca.Client(e.here, tlstest.Cert{})
			good := Options{Verify: true}
			if e.dest != nil {
				good.TLS = sourceTLS(t, e.here, "")
			}
			if err := errors.Join(send(t, &ledger{}, r.addr, good).run(), r.wait()); err != nil {
				t.Errorf("the migration afterwards: %v", err)
			}
		})
	}
}

// changed gives each connection a config with a change.
func changed(secure func() *tls.Config, change func(c *tls.Config)) func() *tls.Config {
	return func() *tls.Config {
		c := secure()
		change(c)
		return c
	}
}

func TestTheNameToCheckMayBeAnother(t *testing.T) {
	ca := tlstest.NewCA(t)
	dir := ca.Folder()
	ca.Server(dir, tlstest.Cert{Names: []string{"b.example"}})
	l := &ledger{}
	r := receiveWith(t, l, DestinationOptions{TLS: destTLS(t, dir)}, buildOwned(t, l, nil))
	s := send(t, l, r.addr, Options{TLS: sourceTLS(t, dir, "b.example")})
	if err := errors.Join(s.run(), r.wait()); err != nil {
		t.Error(err)
	}
}

// hostileRecords are what a stranger may say where a handshake is due.
var hostileRecords = map[string][]byte{
	"garbage":                   []byte("GET / HTTP/1.1\r\nHost: microvm\r\n\r\n"),
	"the plain stream":          helloOf(wire.ID{1}, wire.RoleMain).Append(nil),
	"a record of 64 KiB":        append([]byte{0x16, 3, 1, 0xff, 0xff}, make([]byte, 1<<16)...),
	"a handshake of 16 MiB":     append([]byte{0x16, 3, 1, 0x40, 0, 1, 0xff, 0xff, 0xff}, make([]byte, 1<<14)...),
	"an empty record":           {0x16, 3, 1, 0, 0},
	"data before the handshake": {0x17, 3, 3, 0, 4, 1, 2, 3, 4},
	"an alert":                  {0x15, 3, 3, 0, 2, 2, 80},
	"a ClientHello cut short":   {0x16, 3, 1, 2, 0, 1, 0, 1},
	"nothing":                   nil,
}

// Strangers who garble the handshake, or never go on with it, are more than may
// greet at once; the source gets its turn.
func TestStrangersAtTheHandshakeHoldNobodyUp(t *testing.T) {
	dir := tlstest.NewCA(t).Folder()
	l := &ledger{}
	r := receiveWith(t, l, DestinationOptions{TLS: destTLS(t, dir)}, buildOwned(t, l, nil))
	for _, words := range hostileRecords {
		for range maxGreetings/len(hostileRecords) + 1 {
			dial(t, r.addr).Write(words)
		}
	}
	s := send(t, l, r.addr, Options{Verify: true, TLS: sourceTLS(t, dir, "")})
	if err := errors.Join(s.run(), r.wait()); err != nil {
		t.Error(err)
	}
}

// A destination that garbles the handshake is refused; one that stalls it is
// waited for no longer than the migration may take.
func TestAHostileDestinationAtTheHandshakeIsLeft(t *testing.T) {
	dir := tlstest.NewCA(t).Folder()
	for name, words := range hostileRecords {
		t.Run(name, func(t *testing.T) {
			addr := rawListener(t, func(ln net.Listener) {
				c, err := ln.Accept()
				if err != nil {
					return
				}
				defer c.Close()
				c.Write(words)
				io.Copy(io.Discard, c) // stays as long as the source
			})
			s := send(t, &ledger{}, addr, Options{TLS: sourceTLS(t, dir, ""), Timeout: 200 * time.Millisecond})
			if err := s.run(); !errors.As(err, new(*RefusedError)) && !errors.Is(err, ErrTimeout) {
				t.Errorf("%v, want a refusal or %v", err, ErrTimeout)
			}
			s.stayed()
		})
	}
}
