package migration

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"microvm/migration/tlstest"
	"microvm/migration/wire"
)

// sourceTLS and destTLS read a folder that has to be good.
func sourceTLS(t *testing.T, dir, hostname string) func() *tls.Config {
	t.Helper()
	c, err := SourceTLS(dir, hostname, quietLog(t))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func destTLS(t *testing.T, dir string) func() *tls.Config {
	t.Helper()
	c, err := DestinationTLS(dir, quietLog(t))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// A tap stands between a source and a destination and keeps what passes.
type tap struct {
	middle
	passed func(connections int) // called with each new connection

	mu    sync.Mutex
	ways  []*bytes.Buffer // of each connection, to the destination and back
	conns []net.Conn
}

func newTap(t *testing.T, target Address, passed func(connections int)) (*tap, Address) {
	t.Helper()
	p := &tap{passed: passed}
	return p, p.stand(t, target, p.carry, p.cut)
}

// cut breaks what is connected now.
func (p *tap) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
}

func (p *tap) carry(near, far net.Conn) {
	p.mu.Lock()
	p.conns = append(p.conns, near, far)
	there, back := &bytes.Buffer{}, &bytes.Buffer{}
	p.ways = append(p.ways, there, back)
	n := len(p.ways) / 2
	p.mu.Unlock()
	if p.passed != nil {
		p.passed(n)
	}
	var both sync.WaitGroup
	pass := func(to, from net.Conn, keep *bytes.Buffer) {
		_, _ = io.Copy(io.MultiWriter(to, keep), from)
		_ = to.(*net.TCPConn).CloseWrite()
	}
	both.Go(func() { pass(far, near, there) })
	pass(near, far, back)
	both.Wait()
}

// secret fails the test if a byte of the stream passed in the clear.
func (p *tap) secret(t *testing.T, connections int) {
	t.Helper()
	p.ln.Close()
	p.cut()
	p.served.Wait()
	if len(p.ways) != 2*connections {
		t.Errorf("%d connections, want %d", len(p.ways)/2, connections)
	}
	hello := helloOf(wire.ID{}, wire.RoleMain).Append(nil)[:8]
	page := make([]byte, 64)
	for i := range page {
		page[i] = pattern(201, i)
	}
	for i, way := range p.ways {
		b := way.Bytes()
		if len(b) < 3 || b[0] != 0x16 || b[1] != 3 {
			t.Errorf("way %d opens with %x: not TLS", i, b[:min(len(b), 8)])
		}
		if bytes.Contains(b, hello) || bytes.Contains(b, page) {
			t.Errorf("way %d: what is the guest's, or the stream's, passes in the clear", i)
		}
	}
}

func TestNothingOfAMigrationWithinTLSPassesInTheClear(t *testing.T) {
	for _, opt := range []Options{
		{Mode: ModePostcopy},
		{Mode: ModeHybrid, Rounds: 2},
		{Mode: ModePrecopy, Downtime: time.Hour},
		{Mode: ModeHybrid, Rounds: 2, Connections: 4},
	} {
		t.Run(fmt.Sprintf("%s over %d", opt.Mode, max(opt.Connections, 1)), func(t *testing.T) {
			dir := tlstest.NewCA(t).Folder()
			build, built := builderOf(t, func(dst *testMachine) { dst.guests = 2 })
			r := receiveWith(t, &ledger{}, DestinationOptions{TLS: destTLS(t, dir)}, build)
			p, addr := newTap(t, r.addr, nil)
			src := newBusyMachine(t, 16<<20, 256<<10, 100*time.Microsecond)
			opt.Verify, opt.TLS = true, sourceTLS(t, dir, "")
			s, err := NewSource(src, addr, opt)
			if err != nil {
				t.Fatal(err)
			}
			mv := &move{source: src.testMachine}
			mv.report, mv.err = s.Run(t.Context())
			mv.destErr = r.wait()
			mv.dest = built()
			mv.completed(t)
			if v := mv.report.Verified; v == nil || !*v {
				t.Errorf("not verified: %q", mv.report.Error)
			}
			p.secret(t, mv.report.Channels)
		})
	}
}

// A certificate may expire while a migration is paused. Nothing is lost by it,
// and to put a new one in its place is enough.
func TestAnExpiredCertificateHoldsRecoveryUpUntilItIsReplaced(t *testing.T) {
	ca := tlstest.NewCA(t)
	here, there := ca.Folder(), ca.Folder()
	l := &ledger{}
	build, p := buildOwned(t, l, nil), (*tap)(nil)
	r := receiveWith(t, l, DestinationOptions{Recover: time.Minute, TLS: destTLS(t, there)}, func(ctx context.Context, config []byte) (DestinationMachine, error) {
		m, err := build(ctx, config)
		return cutAtRun{m, func() {
			past := tlstest.Cert{From: -2 * time.Hour, Until: -time.Hour}
			ca.Client(here, past)
			ca.Server(there, past)
			p.cut()
		}}, err
	})
	p, addr := newTap(t, r.addr, func(n int) {
		switch n {
		case 4: // the source's second attempt after the cut
			ca.Server(there, tlstest.Cert{})
		case 6:
			ca.Client(here, tlstest.Cert{})
		}
	})
	s := send(t, l, addr, Options{Verify: true, Recover: time.Minute, TLS: sourceTLS(t, here, "")})
	if err := errors.Join(s.run(), r.wait()); err != nil {
		t.Fatal(err)
	}
	if s.report.Recoveries == 0 || s.report.Verified == nil || !*s.report.Verified {
		t.Errorf("report: %+v", s.report)
	}
}

// So may the CA itself: both sides have another one when they meet again, and
// trust the old one no more.
func TestACAThatIsReplacedIsTheOneThatCounts(t *testing.T) {
	old, renewed := tlstest.NewCA(t), tlstest.NewCA(t)
	here, there := old.Folder(), old.Folder()
	l := &ledger{}
	build, p := buildOwned(t, l, nil), (*tap)(nil)
	r := receiveWith(t, l, DestinationOptions{Recover: time.Minute, TLS: destTLS(t, there)}, func(ctx context.Context, config []byte) (DestinationMachine, error) {
		m, err := build(ctx, config)
		return cutAtRun{m, func() {
			renewed.Trust(there)
			renewed.Server(there, tlstest.Cert{})
			p.cut()
		}}, err
	})
	p, addr := newTap(t, r.addr, func(n int) {
		switch n {
		case 4: // the source's second attempt after the cut
			renewed.Client(here, tlstest.Cert{}) // it does not trust the destination yet
		case 6:
			renewed.Trust(here)
		}
	})
	s := send(t, l, addr, Options{Verify: true, Recover: time.Minute, TLS: sourceTLS(t, here, "")})
	if err := errors.Join(s.run(), r.wait()); err != nil {
		t.Fatal(err)
	}
	if s.report.Recoveries == 0 || s.report.Verified == nil || !*s.report.Verified {
		t.Errorf("report: %+v", s.report)
	}
	if n := len(p.ways) / 2; n < 6 {
		t.Errorf("%d connections: the CA before it was renewed was trusted still", n)
	}
}

// cutAtRun breaks the connections when the guest begins to run.
type cutAtRun struct {
	DestinationMachine
	cut func()
}

func (m cutAtRun) Run() error {
	err := m.DestinationMachine.Run()
	m.cut()
	return err
}

// TestFilesForTLSThatCannotBeUsedAreRefused: each by the file's name.
func TestFilesForTLSThatCannotBeUsedAreRefused(t *testing.T) {
	ca := tlstest.NewCA(t)
	in := func(dir, name string) string { return filepath.Join(dir, name) }
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		spoil func(dir string)
		want  []string // for both sides; SIDE stands for client or server
	}{
		"no folder":  {func(dir string) { must(os.RemoveAll(dir)) }, []string{"ca-cert.pem", "no such file"}},
		"no CA":      {func(dir string) { must(os.Remove(in(dir, "ca-cert.pem"))) }, []string{"ca-cert.pem", "docs/tls.md"}},
		"CA not PEM": {func(dir string) { must(os.WriteFile(in(dir, "ca-cert.pem"), []byte("x"), 0o600)) }, []string{"ca-cert.pem", "no certificate in PEM"}},
		"keys missing": {func(dir string) {
			must(os.Remove(in(dir, "server-key.pem")))
			must(os.Remove(in(dir, "client-key.pem")))
		}, []string{"SIDE-key.pem", "no such file"}},
		"keys everybody's": {func(dir string) {
			must(os.Chmod(in(dir, "server-key.pem"), 0o644))
			must(os.Chmod(in(dir, "client-key.pem"), 0o644))
		}, []string{"SIDE-key.pem", "0644", "chmod 600"}},
		"keys of another": {func(dir string) { swap(t, in(dir, "server-key.pem"), in(dir, "client-key.pem")) }, []string{"SIDE-cert.pem", "SIDE-key.pem", "does not match"}},
		"expired":         {func(dir string) { both(ca, dir, tlstest.Cert{From: -2 * time.Hour, Until: -time.Hour}) }, []string{"SIDE-cert.pem", "expired at"}},
		"not yet valid":   {func(dir string) { both(ca, dir, tlstest.Cert{From: time.Hour, Until: 2 * time.Hour}) }, []string{"SIDE-cert.pem", "is not yet valid"}},
		"a folder as a key": {func(dir string) {
			for _, f := range []string{"server-key.pem", "client-key.pem"} {
				must(os.Remove(in(dir, f)))
				must(os.Mkdir(in(dir, f), 0o700))
			}
		}, []string{"SIDE-key.pem", "is a directory"}},
	} {
		dir := ca.Folder()
		c.spoil(dir)
		_, atSource := SourceTLS(dir, "", quietLog(t))
		_, atDest := DestinationTLS(dir, quietLog(t))
		for side, err := range map[string]error{"client": atSource, "server": atDest} {
			for _, want := range c.want {
				if want = strings.ReplaceAll(want, "SIDE", side); err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("%s, %s: %v; want %q in it", name, side, err, want)
				}
			}
		}
	}
	dir := ca.Folder()
	for _, f := range []string{"server-key.pem", "client-key.pem"} {
		must(os.Chmod(in(dir, f), 0o640)) // a group's
	}
	sourceTLS(t, dir, "")
	destTLS(t, dir)
}

func both(ca *tlstest.CA, dir string, c tlstest.Cert) {
	ca.Server(dir, c)
	ca.Client(dir, c)
}

func swap(t *testing.T, a, b string) {
	t.Helper()
	tmp := a + ".tmp"
	if err := errors.Join(os.Rename(a, tmp), os.Rename(b, a), os.Rename(tmp, b)); err != nil {
		t.Fatal(err)
	}
}

func TestTLSOnAUnixSocketIsRefused(t *testing.T) {
	dir := tlstest.NewCA(t).Folder()
	unix := Address{"unix", filepath.Join(t.TempDir(), "s")}
	m := newTestMachine(t, 1<<20)
	if _, err := NewSource(m, unix, Options{TLS: sourceTLS(t, dir, "")}); err == nil || !strings.Contains(err.Error(), "TLS is for tcp") {
		t.Errorf("a migration to a unix socket: %v", err)
	}
	s, err := NewSource(m, Address{"tcp", "127.0.0.1:1"}, Options{TLS: sourceTLS(t, dir, "")})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Resume(context.Background(), unix, time.Second); err == nil || !strings.Contains(err.Error(), "TLS is for tcp") {
		t.Errorf("resumed at a unix socket: %v", err)
	}
}
