package vmm

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"microvm/vmm/confine"
)

// maxBody bounds what a client of the API may send.
const maxBody = 64 << 10

// An API is a VM's control interface: HTTP with JSON bodies, described by the
// files in openapi/, which it answers with too. Other features of the VM add
// their calls with Handle.
type API struct {
	mux *http.ServeMux
	// calls are the patterns that mux has, METHOD PATH.
	calls []string
	// metrics are what GET /v1/metrics shows.
	metrics *prometheus.Registry

	name    string
	started time.Time
	vm      atomic.Pointer[VM]
	// confined is what holds of the process, nil before it is confined.
	confined atomic.Pointer[confine.Status]
}

// NewAPI makes the API of the VM that is, or is going to be, called name.
func NewAPI(name string) *API {
	a := &API{mux: http.NewServeMux(), metrics: prometheus.NewRegistry(), name: name, started: time.Now()}
	a.metrics.MustRegister(vmCollector{a})
	a.Handle("GET /v1/openapi.json", a.describe)
	a.Handle("GET /v1/metrics", promhttp.HandlerFor(a.metrics, promhttp.HandlerOpts{DisableCompression: true}).ServeHTTP)
	a.Handle("GET /v1/vm", a.inspect)
	a.Handle("GET /v1/vm/stats", a.stats)
	a.Handle("PUT /v1/vm/pause", a.command(func(r *http.Request, vm *VM) error { return vm.PauseByUser(r.Context()) }))
	a.Handle("PUT /v1/vm/resume", a.command(func(_ *http.Request, vm *VM) error { return vm.ResumeByUser() }))
	a.Handle("PUT /v1/vm/grow", a.command(func(_ *http.Request, vm *VM) error { return vm.GrowDisks() }))
	a.Handle("GET /v1/vm/balloon", a.getBalloon)
	a.Handle("PUT /v1/vm/balloon", a.setBalloon)
	a.Handle("PUT /v1/vm/console/size", a.resizeConsole)
	a.Handle("PUT /v1/vm/stop", a.stop)
	a.Handle("GET /v1/vm/wait", a.wait)
	a.mux.HandleFunc(noCall, a.refuse)
	return a
}

// Handle adds a call, METHOD PATH.
func (a *API) Handle(pattern string, h http.HandlerFunc) {
	a.calls = append(a.calls, pattern)
	a.mux.HandleFunc(pattern, h)
}

// ServeHTTP implements http.Handler.
func (a *API) ServeHTTP(w http.ResponseWriter, r *http.Request) { a.mux.ServeHTTP(w, r) }

// noCall is the pattern of what is no call.
const noCall = "/"

// refuse answers what is no call: there is none of this path, or none with this
// method.
func (a *API) refuse(w http.ResponseWriter, r *http.Request) {
	var allowed []string
	for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodPost, http.MethodDelete} {
		if _, pattern := a.mux.Handler(&http.Request{Method: method, URL: r.URL, Host: r.Host}); pattern != noCall {
			allowed = append(allowed, method)
		}
	}
	if allowed == nil {
		writeError(w, &APIError{Message: r.Method + " " + r.URL.Path + ": no such call", Code: CodeNotFound})
		return
	}
	methods := strings.Join(allowed, ", ")
	w.Header().Set("Allow", methods)
	writeError(w, &APIError{Message: fmt.Sprintf("%s %s: has to be %s", r.Method, r.URL.Path, methods), Code: CodeWrongMethod})
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
	// Confinement is what its process has given up, nil if nothing.
	Confinement *confine.Status `json:"confinement,omitempty"`
}

func (a *API) inspect(w http.ResponseWriter, _ *http.Request) {
	info := Info{State: StateIncoming, PID: os.Getpid(), Started: a.started, Confinement: a.confined.Load()}
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
