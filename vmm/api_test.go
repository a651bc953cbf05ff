package vmm

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// serve shows a VM in a state directory of its own, and gives a client of it
// and what Serve returns.
func serve(t *testing.T, config Config) (*Client, *VM, <-chan error) {
	t.Helper()
	needKVM(t)
	stateRoot(t)
	dir, err := OpenStateDir(config.Name)
	if err != nil {
		t.Fatal(err)
	}
	console := NewConsole(nil)
	server, err := Listen(dir, console, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	client, err := Dial(config.Name)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := client.Info(t.Context()); err != nil || info.State != StateIncoming || info.Name != config.Name {
		t.Errorf("before the VM is there: %+v, %v", info, err)
	}
	if err := client.Pause(t.Context()); err == nil || !strings.Contains(err.Error(), "not arrived") {
		t.Errorf("pause before the VM is there: %v", err)
	}
	vm, err := New(t.Context(), config, Options{Console: console})
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

func TestAPIOverItsSocket(t *testing.T) {
	client, vm, served := serve(t, tinyConfig("beat=20"))
	ctx := t.Context()
	conn, err := client.Console(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	screen := newScreen()
	go io.Copy(screen, conn)
	screen.wait(t, 1, "ready")
	state := func(want State) {
		t.Helper()
		info, err := client.Info(ctx)
		if err != nil || info.State != want || info.CPUs != 1 || info.Memory != 128<<20 || info.PID != os.Getpid() {
			t.Errorf("%+v, %v; want it %v", info, err, want)
		}
	}
	state(StateRunning)
	for range 2 { // the second time changes nothing
		if err := client.Pause(ctx); err != nil {
			t.Fatal(err)
		}
		state(StatePaused)
	}
	var refused *APIError
	if err := client.Stop(ctx, false, time.Second); !errors.As(err, &refused) || refused.Code != CodeWrongState || !strings.Contains(refused.Message, "--force") {
		t.Errorf("the power button of a paused VM: %v", err)
	}
	if err := client.Resume(ctx); err != nil {
		t.Fatal(err)
	}
	state(StateRunning)
	io.WriteString(conn, "hello\r")
	screen.wait(t, 1, "echo hello")
	if err := client.Stop(ctx, false, time.Millisecond); !errors.As(err, &refused) || refused.Code != CodeTimeout {
		t.Errorf("a guest without ACPI stops by its power button: %v", err)
	}

	waited := make(chan ExitStatus, 1)
	go func() {
		exit, err := client.Wait(ctx)
		if err != nil {
			t.Error(err)
		}
		waited <- exit
	}()
	if err := client.Stop(ctx, true, 0); err != nil {
		t.Fatal(err)
	}
	if exit := <-waited; exit != (ExitStatus{0, "stopped"}) {
		t.Errorf("wait says %+v", exit)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
	screen.wait(t, 1, "[microvm: stopped]")
	if s := vm.State(); s != StateStopped {
		t.Errorf("state %v", s)
	}
	if _, err := Dial("test"); !errors.Is(err, ErrNoSuchVM) {
		t.Errorf("after the end: %v", err)
	}
}

func TestAPIRefusesNonsense(t *testing.T) {
	client, vm, served := serve(t, tinyConfig(""))
	ctx := t.Context()
	for _, c := range []struct {
		method, path string
		body         any
		code         string
	}{
		{http.MethodGet, "/v1/nothing", nil, CodeNotFound},
		{http.MethodDelete, "/v1/vm", nil, ""}, // 405, by the mux
		{http.MethodPut, "/v1/vm/stop", map[string]any{"farce": true}, CodeBadRequest},
		{http.MethodPut, "/v1/vm/stop", map[string]any{"timeout_ns": -1}, CodeBadRequest},
		{http.MethodPut, "/v1/vm/stop", []int{1}, CodeBadRequest},
		{http.MethodPut, "/v1/vm/stop", map[string]any{"force": strings.Repeat("x", maxBody)}, CodeBadRequest},
	} {
		err := client.Do(ctx, c.method, c.path, c.body, nil)
		var got *APIError
		if err == nil || c.code != "" && (!errors.As(err, &got) || got.Code != c.code) {
			t.Errorf("%s %s: %v, want code %q", c.method, c.path, err, c.code)
		}
	}
	if s := vm.State(); s != StateRunning {
		t.Errorf("state %v", s)
	}
	vm.Stop()
	<-served
}

// A wait lasts as long as the VM does, however little time there was to ask.
func TestAskingLongIsNotSlow(t *testing.T) {
	stateRoot(t)
	dir, err := OpenStateDir("test")
	if err != nil {
		t.Fatal(err)
	}
	server, err := Listen(dir, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close(ExitStatus{})
	if server.http.ReadTimeout != 0 || server.http.WriteTimeout != 0 || server.http.ReadHeaderTimeout == 0 {
		t.Errorf("a handler is given up after a time, or a header is waited for without limit: %v, %v, %v",
			server.http.ReadTimeout, server.http.WriteTimeout, server.http.ReadHeaderTimeout)
	}
}

func TestServedVMEndsWithItsContext(t *testing.T) {
	needKVM(t)
	stateRoot(t)
	dir, err := OpenStateDir("test")
	if err != nil {
		t.Fatal(err)
	}
	server, err := Listen(dir, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	vm, err := New(t.Context(), tinyConfig(""), Options{})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	err = server.Serve(ctx, vm, func() error {
		cancel()
		return vm.Start()
	})
	if err != nil {
		t.Error(err)
	}
	if exit := vm.ExitStatus(); exit != (ExitStatus{0, "killed"}) {
		t.Errorf("%+v", exit)
	}
}

func TestServedVMThatCannotStart(t *testing.T) {
	needKVM(t)
	stateRoot(t)
	dir, err := OpenStateDir("test")
	if err != nil {
		t.Fatal(err)
	}
	server, err := Listen(dir, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	vm, err := New(t.Context(), tinyConfig(""), Options{})
	if err != nil {
		t.Fatal(err)
	}
	broken := errors.New("no luck")
	if err := server.Serve(t.Context(), vm, func() error { return broken }); err != broken {
		t.Errorf("got %v", err)
	}
	if _, err := FindInstance("test"); !errors.Is(err, ErrNoSuchVM) {
		t.Errorf("its directory is left: %v", err)
	}
}
