// Package labtest runs Go tests in the lab: it builds a package's tests with the tag linuxguest, boots a lab with the
// binary in it, and reports each test of it as a subtest of the calling one.
//
// Such tests find a Linux kernel and an initramfs in $MICROVM_GUEST_KERNEL and $MICROVM_GUEST_INITRD (labvm's guest.sh
// says what the initramfs does) and their testdata folder in the working directory. Where /dev/kvm can boot Linux they
// run natively just as well: go test -tags linuxguest.
package labtest

import (
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"microvm/hack/lab/labvm"
)

const (
	testBinary   = "/lab/test"
	vsockProgram = "/lab/guest/vsock"
	// margin is the time kept back, from what `go test -timeout` leaves, for each of: the tests in the lab to print
	// where they hang, and this process to report it.
	margin = 10 * time.Second
)

// Options say what the tests want of the lab.
type Options struct {
	Tests     []string // the tests to run; none: all
	Skip      []string // of those, tests to leave out: their place is not the lab
	Modules   []string // kernel modules besides KVM's
	MemoryMiB int      // the lab's RAM; 0: the lab's default
	QEMU      bool     // copy this machine's QEMU into the lab
	Stress    bool     // have stress-ng for the lab's guests
	Program   bool     // build the microvm program and put it into the lab's PATH, and what tests put into guests
}

// Pieces returns the lab's pieces, fetched if need be, and skips the test where there can be no lab.
func Pieces(t *testing.T) *labvm.Pieces {
	t.Helper()
	for tool, remedy := range map[string]string{
		labvm.QEMUBinary: "apt-get install qemu-system-x86",
		"apt-get":        "the lab is made from Debian packages; run this on Debian or Ubuntu",
	} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("no lab: %s is not here: %s", tool, remedy)
		}
	}
	cache, err := labvm.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	pieces, err := labvm.EnsurePieces(cache, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	return pieces
}

// Run runs the tests of the package at path in a lab of their own.
func Run(t *testing.T, pieces *labvm.Pieces, path string, o Options) {
	t.Helper()
	dir := t.TempDir()
	binary := filepath.Join(dir, "test")
	build(t, "test", "-c", "-tags", Tag, "-o", binary, path)
	files := []labvm.File{{Host: binary, Guest: testBinary}}
	if o.Program {
		microvm := filepath.Join(dir, "microvm")
		build(t, "build", "-o", microvm, "microvm/cmd/microvm")
		vsock := filepath.Join(dir, "vsock")
		build(t, "build", "-trimpath", "-ldflags=-s -w", "-o", vsock, "microvm/hack/lab/vsock")
		files = append(files, labvm.File{Host: microvm, Guest: "/bin/microvm"}, labvm.File{Host: vsock, Guest: vsockProgram})
	}
	if testdata := filepath.Join(packageDir(t, path), "testdata"); exists(testdata) {
		files = append(files, labvm.File{Host: testdata, Guest: "/root/testdata"})
	}
	var env []string
	if o.Program {
		env = append(env, labvm.EnvGuestVsock+"="+vsockProgram)
	}
	command := []string{testBinary, "-test.v=test2json"}
	if len(o.Tests) > 0 {
		command = append(command, "-test.run", "^("+strings.Join(o.Tests, "|")+")$")
	}
	if len(o.Skip) > 0 {
		command = append(command, "-test.skip", "^("+strings.Join(o.Skip, "|")+")$")
	}
	var deadline time.Duration
	if end, ok := t.Deadline(); ok {
		deadline = time.Until(end) - margin
		command = append(command, "-test.timeout", (deadline - margin).String())
	}

	// The lab's output, standard error too as in `go test`, goes through test2json and comes back as events.
	convert := exec.Command("go", "tool", "test2json", "-p", path)
	convert.Stderr = os.Stderr
	raw, err := convert.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	events, err := convert.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := convert.Start(); err != nil {
		t.Fatal(err)
	}
	var status int
	var labErr error
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer raw.Close()
		status, labErr = pieces.Run(t.Context(), labvm.Options{
			Command: command, Env: env, Files: files, Modules: o.Modules, MemoryMiB: o.MemoryMiB, QEMU: o.QEMU, Stress: o.Stress,
			Deadline: deadline, Stdout: raw, Stderr: raw,
		})
	}()
	rest, err := collect(t, events)
	if err != nil {
		t.Error(err)
		_, _ = io.Copy(io.Discard, events) // or the lab would wait for ever with its output
	}
	<-ended
	if err := errors.Join(labErr, convert.Wait()); err != nil {
		t.Error(err)
	}
	if status != 0 {
		t.Errorf("the tests ended with status %d:\n%s", status, rest.output.String())
	}
	if len(rest.subs) == 0 && labErr == nil {
		t.Errorf("no test ran:\n%s", rest.output.String())
	}
}

// build runs the go command for a static program, which needs nothing of the lab but its kernel.
func build(t *testing.T, args ...string) {
	t.Helper()
	cmd := exec.Command("go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func packageDir(t *testing.T, path string) string {
	t.Helper()
	out, err := exec.Command("go", "list", "-f", "{{.Dir}}", path).Output()
	if err != nil {
		t.Fatalf("go list %s: %v", path, err)
	}
	return strings.TrimSpace(string(out))
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
