package vmm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
)

// A caller makes calls to a VM's API, and looks at what comes as it comes.
type caller struct{ http *http.Client }

// callTo makes one for the VM in a state directory.
func callTo(dir *StateDir) caller {
	return caller{&http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", filepath.Join(dir.Path, apiSocket))
		},
	}}}
}

// A reply is what came.
type reply struct {
	status int
	kind   string // its Content-Type
	header http.Header
	body   string
}

// into decodes a reply that has to be a T.
func into[T any](t *testing.T, r reply) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(r.body), &v); err != nil {
		t.Errorf("%d %s: %v", r.status, r.body, err)
	}
	return v
}

// do makes one call; body, if not nil, goes along as JSON.
func (c caller) do(t *testing.T, method, path string, body any) reply {
	t.Helper()
	var in io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		in = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://vm"+path, in)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return reply{resp.StatusCode, resp.Header.Get("Content-Type"), resp.Header, string(text)}
}

// serve shows a VM in a state directory of its own, and gives what calls it and
// what Serve returns.
func serve(t *testing.T, config Config) (caller, *VM, <-chan error) {
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
	AddMigration(server.API, slog.New(slog.DiscardHandler))
	AddSnapshot(server.API, "test")
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
	return callTo(dir), vm, ended
}

func TestAPIRefusesNonsense(t *testing.T) {
	call, vm, served := serve(t, tinyConfig(""))
	for _, c := range []struct {
		method, path string
		body         any
		code         string
	}{
		{http.MethodGet, "/v1/nothing", nil, CodeNotFound},
		{http.MethodDelete, "/v1/vm", nil, CodeWrongMethod},
		{http.MethodPut, "/v1/vm/stop", map[string]any{"farce": true}, CodeBadRequest},
		{http.MethodPut, "/v1/vm/stop", map[string]any{"timeout_ns": -1}, CodeBadRequest},
		{http.MethodPut, "/v1/vm/stop", []int{1}, CodeBadRequest},
		{http.MethodPut, "/v1/vm/stop", map[string]any{"force": strings.Repeat("x", maxBody)}, CodeBadRequest},
	} {
		r := call.do(t, c.method, c.path, c.body)
		if got := into[APIError](t, r); r.status == http.StatusOK || got.Code != c.code {
			t.Errorf("%s %s: %+v, want code %q", c.method, c.path, r, c.code)
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
