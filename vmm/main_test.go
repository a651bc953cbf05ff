package vmm

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what should come soon. It is no
// measurement: the guest may run in an instruction emulator.
const patience = 2 * time.Minute

// needKVM skips a test that runs a guest where there is no KVM.
func needKVM(t testing.TB) {
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

// A screen is what a guest prints to, and a test waits at.
type screen struct {
	mu   sync.Mutex
	text bytes.Buffer
	more chan struct{} // closed when text grows
}

func newScreen() *screen { return &screen{more: make(chan struct{})} }

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.text.Write(p)
	close(s.more)
	s.more = make(chan struct{})
	return len(p), nil
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.text.String()
}

// lines counts the whole lines that begin with prefix.
func lines(text, prefix string) int {
	n := 0
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, prefix) && strings.HasSuffix(line, "\n") {
			n++
		}
	}
	return n
}

// wait returns once n whole lines begin with prefix.
func (s *screen) wait(t testing.TB, n int, prefix string) {
	t.Helper()
	deadline := time.After(patience)
	for {
		s.mu.Lock()
		text, more := s.text.String(), s.more
		s.mu.Unlock()
		if lines(text, prefix) >= n {
			return
		}
		select {
		case <-more:
		case <-deadline:
			t.Fatalf("the guest has not printed %q %d times, but:\n%s", prefix, n, text)
		}
	}
}

// tinyConfig is a VM with the tiny kernel.
func tinyConfig(cmdline string) Config {
	return Config{Name: "test", Cmdline: cmdline, CPUs: 1, Memory: 128 << 20}
}

// boot starts a VM, which ends with the test.
func boot(t testing.TB, config Config) (*VM, *screen) {
	t.Helper()
	needKVM(t)
	out := newScreen()
	vm, err := New(t.Context(), config, Options{Console: NewConsole(out)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := vm.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := vm.Start(); err != nil {
		t.Fatal(err)
	}
	return vm, out
}

// ended waits for the VM's end.
func ended(t testing.TB, vm *VM) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	err := vm.Wait(ctx)
	if ctx.Err() != nil {
		t.Fatalf("the VM does not end: %v", vm.State())
	}
	return err
}
