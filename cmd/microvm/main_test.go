package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"microvm/vmm"
)

// beMicrovm makes the test's binary be the program itself, so that tests run
// real processes without building anything.
const beMicrovm = "MICROVM_TEST_IS_MICROVM"

func TestMain(m *testing.M) {
	if os.Getenv(beMicrovm) != "" {
		main()
		return
	}
	// Under the race detector each process would sleep for a second at its end.
	os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
	os.Exit(m.Run())
}

// patience is how long a test waits for a process; it is no measurement.
const patience = 2 * time.Minute

// needKVM skips a test that runs a guest where there is no KVM.
func needKVM(t *testing.T) {
	t.Helper()
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EACCES) {
			t.Skipf("%v; load kvm_intel or kvm_amd, and be in the group kvm or root; or run this test in the lab (hack/lab)", err)
		}
		t.Fatal(err)
	}
	f.Close()
}

// A host is a place where VMs are: a state directory of its own.
type host struct {
	t         *testing.T
	root      string
	processes []*process // that start has started
}

func newHost(t *testing.T) *host {
	t.Helper()
	// Not t.TempDir(): a test's name may be too long for a socket's path.
	root, err := os.MkdirTemp("", "microvm")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(vmm.StateDirEnv, root)
	h := &host{t: t, root: root}
	t.Cleanup(func() {
		// A test that failed may have left some VM running.
		list, err := vmm.Instances()
		if err != nil {
			t.Error(err)
		}
		for _, i := range list {
			if i.Running {
				t.Logf("VM %s is left over", i.Name)
				_ = unix.Kill(i.PID, unix.SIGKILL)
			}
		}
		os.RemoveAll(root)
	})
	return h
}

// command prepares a microvm process.
func (h *host) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(h.t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), beMicrovm+"=1")
	cmd.WaitDelay = patience
	return cmd
}

// result is what a process left.
type result struct {
	stdout, stderr string
	status         int
}

// run runs microvm to its end.
func (h *host) run(args ...string) result {
	h.t.Helper()
	cmd := h.command(args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	timer := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		h.t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// must is run, for what has to exit with the status.
func (h *host) must(status int, args ...string) result {
	h.t.Helper()
	r := h.run(args...)
	if r.status != status {
		h.t.Fatalf("microvm %q: status %d, want %d\nstdout: %s\nstderr: %s", args, r.status, status, r.stdout, r.stderr)
	}
	return r
}
