package main

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"microvm/migration"
	"microvm/migration/tlstest"
)

func TestAVMMovesWithinTLSByEveryMode(t *testing.T) {
	dir := tlstest.NewCA(t).Folder()
	for name, how := range map[string][]string{
		"postcopy": {"--postcopy"},
		"hybrid":   {"--mode", "hybrid", "--precopy-rounds", "2", "--connections", "4"},
		"precopy":  {"--mode", "precopy", "--downtime", "1h"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			source := h.boot("a", busy)
			dest, addr := h.receive("--name", "b", "--tls-dir", dir)
			r := readReport(t, h.must(0, append([]string{"migrate", "a", addr, "--tls-dir", dir, "--verify", "--report", "json"}, how...)...).stdout)
			arrived(t, h, r, source, dest)
		})
	}
}

// blindRelay is a network that breaks once, when so many bytes have passed to
// the destination. It understands nothing of what passes.
func blindRelay(t *testing.T, dest string, bytes int64) (addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var conns []net.Conn
	var relaying sync.WaitGroup
	cut := func() {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range conns {
			c.Close()
		}
		conns = nil
	}
	var once sync.Once
	pass := func(to, from net.Conn, limit int64) {
		if n, _ := io.CopyN(to, from, limit); n == limit {
			once.Do(cut)
			_, _ = io.Copy(to, from)
		}
		_ = to.(*net.TCPConn).CloseWrite()
	}
	relaying.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			d, err := net.Dial("tcp", strings.TrimPrefix(dest, "tcp:"))
			if err != nil {
				c.Close()
				continue
			}
			mu.Lock()
			conns = append(conns, c, d)
			mu.Unlock()
			relaying.Go(func() {
				defer c.Close()
				defer d.Close()
				var both sync.WaitGroup
				both.Go(func() { pass(d, c, bytes) })
				pass(c, d, 1<<62)
				both.Wait()
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		cut()
		relaying.Wait()
	})
	return migration.ListenAddress(ln).String()
}

func TestAMigrationWithinTLSGoesOnAfterACut(t *testing.T) {
	h := newHost(t)
	dir := tlstest.NewCA(t).Folder()
	source := h.boot("a", busy)
	dest, addr := h.receive("--name", "b", "--tls-dir", dir)
	r := readReport(t, h.must(0, "migrate", "a", blindRelay(t, addr, 32<<20), "--postcopy", "--tls-dir", dir, "--verify", "--report", "json").stdout)
	checkTakenUp(t, r)
	h.endsThere(source, dest, "b")
}

// A person takes it up, by another way, without saying anything of TLS again.
func TestAPausedMigrationIsTakenUpWithinTLS(t *testing.T) {
	h := newHost(t)
	dir := tlstest.NewCA(t).Folder()
	source := h.boot("a", modest)
	dest, addr := h.receive("--name", "b", "--tls-dir", dir)
	migrate := h.start("migrate", "a", blindRelay(t, addr, 32<<20), "--postcopy", "--tls-dir", dir, "--verify", "--recover", "0s")
	migrate.wait(exitPaused)
	if r := h.run("migrate", "a", "unix:"+filepath.Join(h.root, "s"), "--resume"); r.status == 0 || !strings.Contains(r.stderr, "TLS is for tcp") {
		t.Errorf("resumed on a unix socket: status %d, %s", r.status, r.stderr)
	}
	h.must(exitUsage, "migrate", "a", addr, "--resume", "--tls-dir", dir)
	checkTakenUp(t, readReport(t, h.must(0, "migrate", "a", addr, "--resume", "--report", "json").stdout))
	h.endsThere(source, dest, "b")
}

// What TLS refuses has the exit status of what is refused beforehand, and the
// VM runs on where it is.
func TestATLSPeerThatIsRefusedLeavesTheVMWhereItIs(t *testing.T) {
	h := newHost(t)
	ca := tlstest.NewCA(t)
	good, named, other, expired, open := ca.Folder(), ca.Folder(), tlstest.NewCA(t).Folder(), ca.Folder(), ca.Folder()
	ca.Server(named, tlstest.Cert{Names: []string{"b.example"}})
	ca.Client(expired, tlstest.Cert{From: -2e9, Until: -1e9})
	for _, key := range []string{"server-key.pem", "client-key.pem"} {
		if err := os.Chmod(filepath.Join(open, key), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	source := h.boot("a", modest)
	secure, secureAddr := h.receive("--name", "b", "--tls-dir", named)
	plain, plainAddr := h.receive("--name", "c")
	for _, c := range []struct {
		addr, dir, want string
		flags           []string
	}{
		{secureAddr, "", "TLS is needed here", nil},
		{plainAddr, good, "both sides need --tls-dir, or neither", nil},
		{secureAddr, good, "b.example", nil},
		{secureAddr, other, "is not signed by the CA", []string{"--tls-hostname", "b.example"}},
		{secureAddr, expired, "client-cert.pem expired", nil},
		{secureAddr, open, "chmod 600", nil},
		{secureAddr, filepath.Join(good, "nothing"), "no such file", nil},
	} {
		args := append([]string{"migrate", "a", c.addr, "--postcopy"}, c.flags...)
		if c.dir != "" {
			args = append(args, "--tls-dir", c.dir)
		}
		if r := h.must(exitRefused, args...); !strings.Contains(r.stderr, c.want) {
			t.Errorf("%q: stderr lacks %q: %s", args, c.want, r.stderr)
		}
	}
	unix := "unix:" + filepath.Join(h.root, "s")
	for _, args := range [][]string{
		{"migrate", "a", unix, "--postcopy", "--tls-dir", good},
		{"migrate", "a", secureAddr, "--postcopy", "--tls-hostname", "b.example"},
		{"receive", "--listen", unix, "--tls-dir", good},
	} {
		h.must(exitUsage, args...)
	}
	if r := h.must(exitRefused, "receive", "--listen", "tcp:127.0.0.1:0", "--tls-dir", open); !strings.Contains(r.stderr, "server-key.pem") || r.stdout != "" {
		t.Errorf("receive prints %q and says %s", r.stdout, r.stderr)
	}
	h.stays(source, "a")
	secure.runs()
	plain.runs()

	h.must(0, "migrate", "a", secureAddr, "--postcopy", "--tls-dir", good, "--tls-hostname", "b.example")
	h.endsThere(source, secure, "b")
}

// The commands in docs/tls.md make what both sides take.
func TestTheDocumentedCertificatesWork(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skipf("%v; install openssl", err)
	}
	text, err := os.ReadFile("../../docs/tls.md")
	if err != nil {
		t.Fatal(err)
	}
	var script strings.Builder
	script.WriteString("set -e\n")
	for line := range strings.Lines(string(text)) {
		if command, ok := strings.CutPrefix(line, "    "); ok && !strings.HasPrefix(command, "microvm ") {
			script.WriteString(command)
		}
	}
	commands := strings.ReplaceAll(script.String(), "192.0.2.7", "127.0.0.1")
	cmd := exec.CommandContext(t.Context(), "sh", "-c", commands)
	cmd.Dir = t.TempDir()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	h := newHost(t)
	source := h.boot("a", modest)
	dest, addr := h.receive("--name", "b", "--tls-dir", filepath.Join(cmd.Dir, "host-b"))
	h.must(0, "migrate", "a", addr, "--postcopy", "--tls-dir", filepath.Join(cmd.Dir, "host-a"))
	source.wait(0)
	h.must(0, "stop", "b", "--force")
	dest.wait(0)
}
