package confine

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"
)

const dirEnv = "MICROVM_CONFINE_DIR"

func init() {
	// What a process can do with which Landlock is told of ours, theirs, and a
	// device. The result has what went wrong, by what was tried.
	cases["files"] = func() (any, error) {
		dir := os.Getenv(dirEnv)
		in := func(name string) string { return filepath.Join(dir, name) }
		status, err := Apply(Options{Seccomp: SeccompKill, Landlock: true, Grants: []Grant{
			{in("own"), Own}, {in("disk"), ReadWrite}, {in("tls"), Read}, {in("sockets"), Sockets}, {in("missing"), Own},
			{"/proc", Read}, // where a build with cgo looks its threads up
		}})
		if err != nil {
			return nil, err
		}
		if status.Landlock == 0 {
			return nil, errors.New(status.NoLandlock)
		}
		failed := make(map[string]string)
		note := func(what string, err error) {
			failed[what] = ""
			if err != nil {
				failed[what] = fmt.Sprint(errors.Is(err, fs.ErrPermission))
			}
		}
		_, err = os.ReadFile(in("tls/ca-cert.pem"))
		note("read of what may be read", err)
		note("write of what may be read", os.WriteFile(in("tls/ca-cert.pem"), nil, 0o600))
		note("write of the disk", os.WriteFile(in("disk"), []byte("x"), 0o600))
		note("file of its own", os.WriteFile(in("own/exit"), nil, 0o600))
		note("removal of its own", os.Remove(in("own/exit")))
		_, err = os.ReadFile(in("theirs"))
		note("read of another file", err)
		_, err = os.ReadDir(dir)
		note("look around", err)
		note("another's file", os.WriteFile(in("new"), nil, 0o600))
		note("removal of another's", os.Remove(in("theirs")))
		l, err := net.Listen("unix", in("sockets/s"))
		note("socket", err)
		if err == nil {
			note("end of the socket", l.Close())
		}
		_, err = net.Listen("unix", in("s"))
		note("socket elsewhere", err)
		var lc net.ListenConfig
		lc.SetMultipathTCP(false) // which kills
		_, err = lc.Listen(context.Background(), "tcp", "127.0.0.1:0")
		note("port", err)
		// From a thread that was there before, and one that was not.
		done := make(chan error)
		go func() { _, err := os.ReadFile(in("theirs")); done <- err }()
		note("read by another thread", <-done)
		return failed, nil
	}
}

func TestNoFileIsUsedButTheVMsOwn(t *testing.T) {
	r, err := newRuleset(nil)
	if err != nil {
		t.Skipf("%v; boot with lsm=landlock,... to run this test", err)
	}
	r.close()
	dir := t.TempDir()
	for _, name := range []string{"own", "tls", "sockets"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"disk", "theirs", "tls/ca-cert.pem"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var failed map[string]string
	start(t, "files", &failed, dirEnv+"="+dir)
	const fine, denied = "", "true"
	want := map[string]string{
		"read of what may be read": fine, "write of what may be read": denied, "write of the disk": fine,
		"file of its own": fine, "removal of its own": fine, "read of another file": denied, "look around": denied,
		"another's file": denied, "removal of another's": denied, "socket": fine, "end of the socket": fine, "socket elsewhere": denied,
		"port": denied, "read by another thread": denied,
	}
	if r.abi < netABI {
		delete(want, "port")
	}
	for what, w := range want {
		if got, ok := failed[what]; !ok || got != w {
			t.Errorf("%s: permission denied is %q, want %q", what, got, w)
		}
	}
}
