package vmm

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestParseVsock(t *testing.T) {
	for text, want := range map[string]any{
		"cid=3":                 &VsockConfig{CID: 3},
		"cid=4294967294":        &VsockConfig{CID: 4294967294},
		"path=/x/../v,cid=5":    &VsockConfig{CID: 5, Path: "/v"},
		"":                      `""`,
		"path=/v":               "CID 0",
		"cid=2":                 "3 to 4294967294",
		"cid=4294967295":        "3 to 4294967294",
		"cid=x":                 `"cid=x"`,
		"cid=3,path=":           `"path="`,
		"cid=3,port=1":          `"port=1"`,
		"cid=3,path=/" + long97: "too long",
	} {
		got, err := ParseVsock(text)
		if refusal, ok := want.(string); ok {
			if err == nil || !strings.Contains(err.Error(), refusal) {
				t.Errorf("%q: %v, want %q in it", text, err, refusal)
			}
		} else if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v, want %+v", text, got, err, want)
		}
	}
}

var long97 = strings.Repeat("x", 96)

// TestVsockGoesWithItsVM: at each step of a migration that fails, and of one that
// does not, the host's programs find the VM that may run, and no other.
func TestVsockGoesWithItsVM(t *testing.T) {
	dir := t.TempDir()
	config := tinyConfig("beat=50")
	config.Vsock = &VsockConfig{CID: 3, Path: filepath.Join(dir, "v")}
	found := func(step string, want bool) net.Conn {
		t.Helper()
		c, err := net.Dial("unix", config.Vsock.Path)
		if (err == nil) != want {
			t.Fatalf("%s: %v, want it found: %t", step, err, want)
		}
		if err == nil {
			t.Cleanup(func() { c.Close() })
		}
		return c
	}
	vm, out := boot(t, config)
	out.wait(t, 1, "beat ")
	found("running", true)
	if _, err := New(t.Context(), config, Options{}); err == nil || !strings.Contains(err.Error(), "another process listens") {
		t.Errorf("a second VM with the socket: %v", err)
	}
	if err := errors.Join(vm.Depart(), vm.Pause(t.Context())); err != nil {
		t.Fatal(err)
	}
	moved := moveInPlace(t, vm, Options{Vsock: config.Vsock.Path})
	stream := found("paused", true)
	if err := moved.Run(); err == nil || !strings.Contains(err.Error(), "another process listens") || moved.State() != StateIncoming {
		t.Errorf("it runs without its socket: %v, %v", moved.State(), err)
	}
	if err := vm.HandOver(); err != nil {
		t.Fatal(err)
	}
	// It is reset if the device had not accepted it yet.
	if n, err := stream.Read(make([]byte, 1)); n != 0 || !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) {
		t.Errorf("a stream at the source: %d bytes, %v", n, err)
	}
	found("handed over", false)
	if err := vm.TakeBack(); err != nil {
		t.Fatal(err)
	}
	found("taken back", true)
	if err := vm.HandOver(); err != nil {
		t.Fatal(err)
	}
	if err := moved.Run(); err != nil {
		t.Fatal(err)
	}
	found("running there", true)
	if err := errors.Join(vm.Gone("there"), moved.Settle()); err != nil {
		t.Fatal(err)
	}
	found("gone", true)
	moved.Stop()
	found("ended", false)
}

func TestAPathForAVsockThatIsNotThereIsRefused(t *testing.T) {
	vm, _ := boot(t, tinyConfig("beat=50"))
	if err := errors.Join(vm.Depart(), vm.Pause(t.Context())); err != nil {
		t.Fatal(err)
	}
	machine, err := vm.Config()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewIncoming(t.Context(), machine, Options{Vsock: "/v"}); err == nil || !strings.Contains(err.Error(), "no vsock device") {
		t.Error(err)
	}
}
