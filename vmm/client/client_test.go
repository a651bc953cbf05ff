package client

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http/httptrace"
	"os"
	"strings"
	"testing"
	"time"

	"microvm/vmm"
)

// patience is how long a test waits for what should come soon.
const patience = 2 * time.Minute

// serve shows a VM with the tiny kernel in a state directory of its own, and
// gives a client of it and what Serve returns.
func serve(t *testing.T, cmdline string) (*Client, *vmm.VM, <-chan error) {
	t.Helper()
	if _, err := os.Stat("/dev/kvm"); err != nil {
		t.Skipf("%v; load kvm_intel or kvm_amd, or run this test in the lab (hack/lab)", err)
	}
	t.Setenv(vmm.StateDirEnv, t.TempDir())
	config := vmm.Config{Name: "test", Cmdline: cmdline, CPUs: 1, Memory: 128 << 20}
	dir, err := vmm.OpenStateDir(config.Name)
	if err != nil {
		t.Fatal(err)
	}
	console := vmm.NewConsole(nil)
	server, err := vmm.Listen(dir, console, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	client, err := Dial(config.Name)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := client.Info(t.Context()); err != nil || info.State != vmm.StateIncoming || info.Name != config.Name {
		t.Errorf("before the VM is there: %+v, %v", info, err)
	}
	if err := client.Pause(t.Context()); err == nil || !strings.Contains(err.Error(), "not arrived") {
		t.Errorf("pause before the VM is there: %v", err)
	}
	vm, err := vmm.New(t.Context(), config, vmm.Options{Console: console})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	started := make(chan struct{})
	go func() {
		ended <- server.Serve(ctx, vm, func() error {
			defer close(started)
			return vm.Start()
		})
	}()
	t.Cleanup(cancel)
	<-started
	return client, vm, ended
}

// waitFor reads what a guest prints until text has come.
func waitFor(t *testing.T, r interface {
	io.Reader
	SetReadDeadline(time.Time) error
}, seen *bytes.Buffer, text string) {
	t.Helper()
	if err := r.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	var p [256]byte
	for !strings.Contains(seen.String(), text) {
		n, err := r.Read(p[:])
		seen.Write(p[:n])
		if err != nil && !strings.Contains(seen.String(), text) {
			t.Fatalf("the guest has not printed %q, but:\n%s\n%v", text, seen, err)
		}
	}
}

func TestVMIsRunByItsSocket(t *testing.T) {
	client, vm, served := serve(t, "beat=20")
	ctx := t.Context()
	conn, err := client.Console(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	var screen bytes.Buffer
	waitFor(t, conn, &screen, "ready")
	state := func(want vmm.State) {
		t.Helper()
		info, err := client.Info(ctx)
		if err != nil || info.State != want || info.CPUs != 1 || info.Memory != 128<<20 || info.PID != os.Getpid() {
			t.Errorf("%+v, %v; want it %v", info, err, want)
		}
	}
	state(vmm.StateRunning)
	for range 2 { // the second time changes nothing
		if err := client.Pause(ctx); err != nil {
			t.Fatal(err)
		}
		state(vmm.StatePaused)
	}
	var refused *vmm.APIError
	if err := client.Stop(ctx, false, time.Second); !errors.As(err, &refused) || refused.Code != vmm.CodeWrongState || !strings.Contains(refused.Message, "--force") {
		t.Errorf("the power button of a paused VM: %v", err)
	}
	if err := client.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	state(vmm.StateRunning)
	io.WriteString(conn, "hello\r")
	waitFor(t, conn, &screen, "echo hello")
	if err := client.Stop(ctx, false, time.Millisecond); !errors.As(err, &refused) || refused.Code != vmm.CodeTimeout {
		t.Errorf("a guest without ACPI stops by its power button: %v", err)
	}

	waited, asked := make(chan vmm.ExitStatus, 1), make(chan struct{})
	go func() {
		exit, err := client.Wait(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{WroteRequest: func(httptrace.WroteRequestInfo) { close(asked) }}))
		if err != nil {
			t.Error(err)
		}
		waited <- exit
	}()
	<-asked
	state(vmm.StateRunning) // what was asked before has come too
	if err := client.Stop(ctx, true, 0); err != nil {
		t.Fatal(err)
	}
	if exit := <-waited; exit != (vmm.ExitStatus{Code: 0, Reason: "stopped"}) {
		t.Errorf("wait says %+v", exit)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	waitFor(t, conn, &screen, "[microvm: stopped]")
	if s := vm.State(); s != vmm.StateStopped {
		t.Errorf("state %v", s)
	}
	if _, err := Dial("test"); !errors.Is(err, vmm.ErrNoSuchVM) {
		t.Errorf("after the end: %v", err)
	}
}
