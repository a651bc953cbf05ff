package vmm

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func stateRoot(t *testing.T) string {
	t.Helper()
	// Not t.TempDir(): a test's name may be too long for a socket's path.
	root, err := os.MkdirTemp("", "vmm")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(root) })
	t.Setenv(StateDirEnv, root)
	return root
}

func TestNameBelongsToOneVM(t *testing.T) {
	root := stateRoot(t)
	first, err := OpenStateDir("a")
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(first.Path); err != nil || st.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", st.Mode(), err)
	}
	if _, err := OpenStateDir("a"); !errors.Is(err, ErrNameTaken) {
		t.Errorf("a second VM of the name: %v", err)
	}
	i, err := FindInstance("a")
	if err != nil || !i.Running || i.PID != os.Getpid() {
		t.Errorf("%+v, %v", i, err)
	}
	if err := first.Release(ExitStatus{}, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := FindInstance("a"); !errors.Is(err, ErrNoSuchVM) {
		t.Errorf("after its end: %v", err)
	}
	if left, _ := os.ReadDir(root); len(left) != 0 {
		t.Errorf("it left %v", left)
	}
	again, err := OpenStateDir("a")
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Release(ExitStatus{}, nil); err != nil {
		t.Error(err)
	}
}

func TestLogOutlivesTheVM(t *testing.T) {
	stateRoot(t)
	d, err := OpenStateDir("a")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(d.LogPath(), []byte("it crashed\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	want := ExitStatus{Code: 33, Reason: "triple fault"}
	if err := d.Release(want, nil); err != nil {
		t.Fatal(err)
	}
	list, err := Instances()
	if err != nil || len(list) != 1 || list[0].Running || list[0].Exit == nil || *list[0].Exit != want {
		t.Fatalf("%+v, %v", list, err)
	}
	// The next one of the name starts afresh.
	if d, err = OpenStateDir("a"); err != nil {
		t.Fatal(err)
	}
	if i, err := FindInstance("a"); err != nil || i.Exit != nil || !i.Running {
		t.Errorf("%+v, %v", i, err)
	}
	if err := d.Release(ExitStatus{}, nil); err != nil {
		t.Error(err)
	}
}

func TestChildInheritsTheName(t *testing.T) {
	stateRoot(t)
	d, err := OpenStateDir("a")
	if err != nil {
		t.Fatal(err)
	}
	// As a child has it: a copy of the descriptor, whose first owner goes.
	f, err := os.OpenFile(d.File().Name(), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	if i, err := FindInstance("a"); err != nil || !i.Running {
		t.Errorf("closing another descriptor of the file gave the name up: %+v, %v", i, err)
	}
	child, err := AdoptStateDir("a", d.File())
	if err != nil {
		t.Fatal(err)
	}
	if child.Path != d.Path {
		t.Errorf("%s is not %s", child.Path, d.Path)
	}
	if err := child.Release(ExitStatus{}, nil); err != nil {
		t.Error(err)
	}
}

func TestStaleSocketGoesOnlyWhenRefused(t *testing.T) {
	stateRoot(t)
	d, err := OpenStateDir("a")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Release(ExitStatus{}, nil)
	path := filepath.Join(d.Path, apiSocket)

	// A process that was killed leaves its socket.
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	dead.Close()
	live, err := d.listen(apiSocket)
	if err != nil {
		t.Fatalf("a stale socket is in the way: %v", err)
	}
	defer live.Close()
	if _, err := d.listen(apiSocket); err == nil || !strings.Contains(err.Error(), "another process") {
		t.Errorf("a live socket was taken away: %v", err)
	}

	// A file that is no socket is not ours to remove.
	if err := os.WriteFile(filepath.Join(d.Path, consoleSocket), []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := d.listen(consoleSocket); err == nil {
		l.Close()
		t.Error("a file that is no socket was taken for a stale one")
	}
	if b, err := os.ReadFile(filepath.Join(d.Path, consoleSocket)); err != nil || string(b) != "mine" {
		t.Errorf("the file was touched: %q, %v", b, err)
	}
}

func TestSocketPathTooLong(t *testing.T) {
	root := stateRoot(t)
	t.Setenv(StateDirEnv, filepath.Join(root, strings.Repeat("d", 100)))
	if _, err := OpenStateDir("a"); err == nil || !strings.Contains(err.Error(), StateDirEnv) {
		t.Errorf("got %v, want the remedy", err)
	}
}
