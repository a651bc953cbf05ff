package vmm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync/atomic"
	"time"
)

// maxBody bounds what a client of the API may send.
const maxBody = 64 << 10

// Codes of API errors, for programs; the text is for people.
const (
	CodeBadRequest = "bad_request"
	CodeNotFound   = "not_found"
	CodeWrongState = "wrong_state"
	CodeTimeout    = "timeout"
	CodeInternal   = "internal"
)

// An APIError is an error that has crossed the API.
type APIError struct {
	Message string `json:"error"`
	Code    string `json:"code"`
}

func (e *APIError) Error() string { return e.Message }

// An API is a VM's control interface: HTTP with JSON bodies.
//
//	GET  /v1/vm         Info
//	GET  /v1/vm/stats   Stats
//	PUT  /v1/vm/pause
//	PUT  /v1/vm/resume
//	PUT  /v1/vm/grow    looks whether its disks have grown
//	GET  /v1/vm/balloon balloon.Stats
//	PUT  /v1/vm/balloon BalloonRequest
//	PUT  /v1/vm/console/size  ConsoleSize
//	PUT  /v1/vm/stop    StopRequest; answers when the VM has ended
//	GET  /v1/vm/wait    ExitStatus, when the VM has ended
//
// Other features of the VM add their handlers to Mux.
type API struct {
	Mux *http.ServeMux

	name    string
	started time.Time
	vm      atomic.Pointer[VM]
}

// NewAPI makes the API of the VM that is, or is going to be, called name.
func NewAPI(name string) *API {
	a := &API{Mux: http.NewServeMux(), name: name, started: time.Now()}
	a.Mux.HandleFunc("GET /v1/vm", a.inspect)
	a.Mux.HandleFunc("GET /v1/vm/stats", a.stats)
	a.Mux.HandleFunc("PUT /v1/vm/pause", a.command(func(r *http.Request, vm *VM) error { return vm.PauseByUser(r.Context()) }))
	a.Mux.HandleFunc("PUT /v1/vm/resume", a.command(func(_ *http.Request, vm *VM) error { return vm.ResumeByUser() }))
	a.Mux.HandleFunc("PUT /v1/vm/grow", a.command(func(_ *http.Request, vm *VM) error { return vm.GrowDisks() }))
	a.Mux.HandleFunc("GET /v1/vm/balloon", a.getBalloon)
	a.Mux.HandleFunc("PUT /v1/vm/balloon", a.setBalloon)
	a.Mux.HandleFunc("PUT /v1/vm/console/size", a.resizeConsole)
	a.Mux.HandleFunc("PUT /v1/vm/stop", a.stop)
	a.Mux.HandleFunc("GET /v1/vm/wait", a.wait)
	a.Mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		writeJSON(w, http.StatusNotFound, &APIError{Message: r.Method + " " + r.URL.Path + ": no such call", Code: CodeNotFound})
	})
	return a
}

// Attach gives the API its VM. Until then it answers as an incoming one that
// has nothing yet.
func (a *API) Attach(vm *VM) { a.vm.Store(vm) }

// VM is what Attach was given, nil before.
func (a *API) VM() *VM { return a.vm.Load() }

// Info describes a VM to its users.
type Info struct {
	Config
	State State `json:"state"`
	// Migrating: a migration from here is under way.
	Migrating bool      `json:"migrating"`
	PID       int       `json:"pid"`
	Started   time.Time `json:"started"`
}

func (a *API) inspect(w http.ResponseWriter, _ *http.Request) {
	info := Info{State: StateIncoming, PID: os.Getpid(), Started: a.started}
	if vm := a.VM(); vm != nil {
		info.Config, info.State, info.Migrating = vm.UserConfig(), vm.State(), vm.Migrating()
	}
	info.Name = a.name
	writeJSON(w, http.StatusOK, info)
}

// command makes a handler of something that is done to a VM and returns
// nothing but perhaps an error.
func (a *API) command(do func(*http.Request, *VM) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		vm := a.VM()
		if vm == nil {
			writeError(w, a.errNotArrived())
			return
		}
		if err := do(r, vm); err != nil {
			writeError(w, err)
			return
		}
		writeJSON(w, http.StatusOK, struct{}{})
	}
}

func (a *API) errNotArrived() error {
	return &APIError{Message: fmt.Sprintf("VM %s has not arrived yet: it waits for a migration", a.name), Code: CodeWrongState}
}

// StopRequest says how to stop a VM.
type StopRequest struct {
	// Force cuts the power. Without it the guest's power button is pressed.
	Force bool `json:"force"`
	// Timeout is how long the guest may take to power off, in nanoseconds.
	Timeout time.Duration `json:"timeout_ns"`
}

// maxStopTimeout bounds StopRequest.Timeout.
const maxStopTimeout = time.Hour

func (a *API) stop(w http.ResponseWriter, r *http.Request) {
	var req StopRequest
	if err := readJSON(w, r, &req); err != nil {
		writeError(w, err)
		return
	}
	if req.Timeout < 0 || req.Timeout > maxStopTimeout {
		writeError(w, &APIError{Message: fmt.Sprintf("timeout_ns is %d: has to be 0 to %d", req.Timeout, maxStopTimeout), Code: CodeBadRequest})
		return
	}
	a.command(func(r *http.Request, vm *VM) error {
		if req.Force {
			return vm.PowerOff()
		}
		if err := vm.PressPowerButton(); err != nil {
			return fmt.Errorf("%w; or use --force", err)
		}
		ctx, cancel := context.WithTimeout(r.Context(), req.Timeout)
		defer cancel()
		select {
		case <-vm.Done():
			return nil
		case <-ctx.Done():
			return &APIError{
				Message: fmt.Sprintf("VM %s has not powered off %v after its power button was pressed: the guest may ignore it; use --force", vm.Name(), req.Timeout),
				Code:    CodeTimeout,
			}
		}
	})(w, r)
}

func (a *API) wait(w http.ResponseWriter, r *http.Request) {
	vm := a.VM()
	if vm == nil {
		writeError(w, a.errNotArrived())
		return
	}
	select {
	case <-vm.Done():
	case <-vm.Lost():
	case <-r.Context().Done():
		return
	}
	writeJSON(w, http.StatusOK, vm.ExitStatus())
}

// readJSON reads a request's body, strictly and bounded. An empty body leaves
// v as it is.
func readJSON(w http.ResponseWriter, r *http.Request, v any) error {
	ctl := http.NewResponseController(w)
	err := ctl.SetReadDeadline(time.Now().Add(requestTime))
	var b []byte
	if err == nil {
		b, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	}
	if err == nil {
		// The connection lives on: it is how a client that goes is noticed.
		err = ctl.SetReadDeadline(time.Time{})
	}
	if err == nil && len(b) > 0 {
		err = decodeStrict(b, v)
	}
	if err != nil {
		return &APIError{Message: fmt.Sprintf("%s %s: %v", r.Method, r.URL.Path, err), Code: CodeBadRequest}
	}
	return nil
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// The client may have gone; there is nobody to tell.
	_ = json.NewEncoder(w).Encode(v)
}

// writeError answers with an error, its code and the HTTP status that fits.
func writeError(w http.ResponseWriter, err error) {
	out := &APIError{Message: err.Error(), Code: CodeInternal}
	var api *APIError
	var state *StateError
	switch {
	case errors.As(err, &api):
		out.Code = api.Code
	case errors.As(err, &state):
		out.Code = CodeWrongState
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		out.Code = CodeTimeout
	}
	status := map[string]int{
		CodeBadRequest: http.StatusBadRequest,
		CodeNotFound:   http.StatusNotFound,
		CodeWrongState: http.StatusConflict,
		CodeTimeout:    http.StatusGatewayTimeout,
	}[out.Code]
	if status == 0 {
		status = http.StatusInternalServerError
	}
	writeJSON(w, status, out)
}
