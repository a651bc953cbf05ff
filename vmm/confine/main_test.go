package confine

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What is confined stays so, and what is forbidden may kill: each case is done by
// the test's binary, run again as a process of its own.
const asCase = "MICROVM_CONFINE_CASE"

// cases are what such a process does; what it returns is printed as JSON.
var cases = map[string]func() (any, error){}

func TestMain(m *testing.M) {
	do, ok := cases[os.Getenv(asCase)]
	if !ok {
		// Under the race detector each process would sleep for a second at its end.
		os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE"))
		os.Exit(m.Run())
	}
	result, err := do()
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(result)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// start runs a case to its end. result, if not nil, takes what it returned;
// otherwise the process is expected to be killed, and the signal is returned.
func start(t *testing.T, name string, result any, env ...string) syscall.Signal {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(append(os.Environ(), asCase+"="+name), env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	timer := time.AfterFunc(time.Minute, func() { _ = cmd.Process.Kill() })
	defer timer.Stop()
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	status := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if result == nil {
		if !status.Signaled() {
			t.Errorf("%s %q: it was not killed, but ended with %d: %s", name, env, status.ExitStatus(), &stderr)
		}
		return status.Signal()
	}
	if err != nil {
		t.Fatalf("%s %q: %v: %s", name, env, err, &stderr)
	}
	if err := json.Unmarshal(stdout.Bytes(), result); err != nil {
		t.Fatalf("%s: %v: %s", name, err, &stdout)
	}
	return 0
}

// needRoot skips a test that a process without capabilities says nothing in.
func needRoot(t *testing.T) {
	t.Helper()
	if unix.Geteuid() != 0 {
		t.Skip("there is nothing to give up; run this test as root")
	}
}

// threads has a few threads there be, some of them in a system call.
func threads(n int) (stop func()) {
	done := make(chan struct{})
	ready := make(chan struct{})
	for i := range n {
		go func() {
			runtime.LockOSThread()
			ready <- struct{}{}
			for i%2 == 0 {
				// EINTR: what all threads do interrupts it.
				if _, err := unix.Poll(nil, 20); err != nil && err != unix.EINTR {
					panic(err)
				}
				select {
				case <-done:
					return
				default:
				}
			}
			<-done
		}()
	}
	for range n {
		<-ready
	}
	return func() { close(done) }
}
