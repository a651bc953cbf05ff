package vmm

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"microvm/migration"
)

// Codes of the errors that a migration ends with.
const (
	CodeRefused   = "refused"   // turned down before anything moved
	CodeFailed    = "failed"    // the source still runs the VM
	CodeCancelled = "cancelled" // likewise
	CodePaused    = "paused"    // the guest is at the destination, pages of it here
	CodeEnded     = "ended"     // the VM has ended here meanwhile
)

// progressEvery is how often a client that waits for a migration hears of it.
const progressEvery = 200 * time.Millisecond

// MigrateRequest asks a VM to leave.
type MigrateRequest struct {
	Destination string        `json:"destination"`    // tcp:HOST:PORT, unix:PATH or fd:N,M,...
	Mode        string        `json:"mode,omitempty"` // postcopy (also if empty), hybrid or precopy
	Verify      bool          `json:"verify,omitempty"`
	Timeout     time.Duration `json:"timeout_ns,omitempty"` // until the guest runs at the destination; 0 is no limit
	// TimeoutSwitches has the guest run at the destination when Timeout is
	// over while memory is sent, instead of calling the migration off.
	TimeoutSwitches bool `json:"timeout_switches,omitempty"`
	// AutoConverge has precopy slow the guest down while passes do not get
	// ahead of what it writes.
	AutoConverge bool `json:"auto_converge,omitempty"`
	// Of precopy and hybrid: passes at most, 0 as many as help; and what
	// precopy aims at.
	Rounds   int           `json:"rounds,omitempty"`
	Downtime time.Duration `json:"downtime_ns,omitempty"`
	// Bytes a second while the guest runs here, and after the switch; 0 is
	// no limit.
	Bandwidth     uint64 `json:"bandwidth,omitempty"`
	PushBandwidth uint64 `json:"push_bandwidth,omitempty"`
	// Connections is over how many memory is spread, 1 to
	// migration.MaxConnections; 0 is 1.
	Connections int `json:"connections,omitempty"`
	// Compress is how pages are compressed, none (also if empty), s2 or
	// zstd; Checksum has each run of them checked as it arrives.
	Compress string `json:"compress,omitempty"`
	Checksum bool   `json:"checksum,omitempty"`
	// Recover is for how long to dial again when the connections broke after
	// that, 0 not at all.
	Recover time.Duration `json:"recover_ns,omitempty"`
	// TLSDir is the folder with the files of TLS, an absolute path; see
	// migration.SourceTLS. Empty is without TLS. TLSHostname is what the
	// destination's certificate has to bear instead of the host in Destination.
	TLSDir      string `json:"tls_dir,omitempty"`
	TLSHostname string `json:"tls_hostname,omitempty"`
	// Passed are the sockets that a Destination of fd:N,M,... names, in its
	// order. They go along with the request, and are closed here then.
	Passed []*os.File `json:"-"`
	// Log has the events of the migration's log in the answer too.
	Log bool `json:"log,omitempty"`
	// Detach answers at once, with the first event.
	Detach bool `json:"detach,omitempty"`
}

// MigrationEvent is one line of the answer to a MigrateRequest, and the answer
// to a question about it. The last one has the report. A line with an event of
// the log has nothing else.
type MigrationEvent struct {
	Event  json.RawMessage   `json:"event,omitempty"` // a migration.Event
	Status migration.Status  `json:"status"`
	Report *migration.Report `json:"report,omitempty"`
	Error  *APIError         `json:"error,omitempty"`
}

// departure is a VM's way out: at most one migration at a time.
type departure struct {
	api *API
	log *slog.Logger

	mu     sync.Mutex
	source *migration.Source // of the last migration, nil before the first
	events *migration.EventLog
	done   chan struct{}  // closed when it has ended, or is paused
	last   MigrationEvent // how; valid after done
	wanted bool           // back, when the attempts to connect again end
	ended  [len(results)]int
}

// AddMigration gives a VM's API the calls for leaving:
//
//	POST   /v1/vm/migration          MigrateRequest; answers MigrationEvents, a line each
//	POST   /v1/vm/migration/check    MigrateRequest; what would stop it: migration.Outlook
//	POST   /v1/vm/migration/resume   ResumeMigrationRequest; likewise
//	POST   /v1/vm/migration/take-back  TakeBackRequest; of one that is paused
//	GET    /v1/vm/migration          MigrationEvent
//	GET    /v1/vm/migration/events   MigrationEvents, a line each, to the end; ?log=true with those of the log
//	GET    /v1/vm/migration/log      migration.Events so far, a line each
//	DELETE /v1/vm/migration          cancels; refused once the guest runs elsewhere
//
// A migration does not depend on the client that asked for it. One that is
// paused counts as ended until it is resumed.
func AddMigration(a *API, log *slog.Logger) {
	d := &departure{api: a, log: log}
	a.metrics.MustRegister(d)
	a.Handle("POST /v1/vm/migration", d.post)
	a.Handle("POST /v1/vm/migration/check", d.postCheck)
	a.Handle("POST /v1/vm/migration/resume", d.postResume)
	a.Handle("POST /v1/vm/migration/take-back", d.postTakeBack)
	a.Handle("GET /v1/vm/migration", d.get)
	a.Handle("GET /v1/vm/migration/events", d.watch)
	a.Handle("GET /v1/vm/migration/log", d.getLog)
	a.Handle("DELETE /v1/vm/migration", d.delete)
}

func (d *departure) post(w http.ResponseWriter, r *http.Request) {
	var req MigrateRequest
	err := readJSON(w, r, &req)
	req.Passed = passedFiles(r)
	if err != nil {
		closeFiles(req.Passed)
		writeError(w, err)
		return
	}
	done, err := d.start(req)
	if err != nil {
		writeRefusal(w, err)
		return
	}
	d.follow(w, r, done, answer{once: req.Detach, log: req.Log})
}

// answer is what a client wants to hear of a migration.
type answer struct {
	once bool // the first event, and no more
	log  bool // the log as well
}

// follow answers with events until done is closed, or with the first alone.
func (d *departure) follow(w http.ResponseWriter, r *http.Request, done <-chan struct{}, want answer) {
	// The answer lasts as long as the migration.
	ctl := http.NewResponseController(w)
	_ = ctl.SetWriteDeadline(time.Time{})
	w.Header().Set("Content-Type", "application/x-ndjson")
	out := json.NewEncoder(w)
	log := d.reader(want)
	tick := time.NewTicker(progressEvery)
	defer tick.Stop()
	for {
		e := d.event()
		more, err := log.send(func(e json.RawMessage) error { return out.Encode(loggedEvent{e}) })
		if err != nil || out.Encode(e) != nil || ctl.Flush() != nil || e.Report != nil || want.once {
			return
		}
		select {
		case <-done:
		case <-more:
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
	}
}

// start begins a migration, and returns a channel that is closed at its end. It
// takes over the sockets that were passed.
func (d *departure) start(req MigrateRequest) (_ <-chan struct{}, err error) {
	defer func() {
		if err != nil {
			closeFiles(req.Passed)
		}
	}()
	vm, dest, opt, err := d.options(req)
	if err != nil {
		return nil, err
	}
	if opt.Passed, err = passed(dest, req.Connections, req.Passed); err != nil {
		return nil, &APIError{Message: err.Error(), Code: CodeBadRequest}
	}
	if err := vm.Depart(); err != nil {
		closeConns(opt.Passed)
		return nil, err
	}
	opt.Events = migration.NewEventLog(vm.Name())
	source, err := migration.NewSource(vm, dest, opt)
	if err != nil {
		closeConns(opt.Passed)
		vm.Stay()
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.source, d.events = source, opt.Events
	return d.run(vm, func() (*migration.Report, error) { return source.Run(context.Background()) }), nil
}

// options checks a request, and turns it into what a migration is told.
func (d *departure) options(req MigrateRequest) (vm *VM, dest migration.Address, opt migration.Options, err error) {
	refuse := func(err error) (*VM, migration.Address, migration.Options, error) { return nil, dest, opt, err }
	if vm = d.api.VM(); vm == nil {
		return refuse(d.api.errNotArrived())
	}
	if dest, err = migration.ParseDestination(req.Destination); err != nil {
		return refuse(&APIError{Message: err.Error(), Code: CodeBadRequest})
	}
	if req.Timeout < 0 || req.Recover < 0 {
		return refuse(&APIError{Message: fmt.Sprintf("timeout_ns is %d, recover_ns %d: have to be 0 or more", req.Timeout, req.Recover), Code: CodeBadRequest})
	}
	switch migration.Mode(req.Mode) {
	case "", migration.ModePostcopy, migration.ModeHybrid, migration.ModePrecopy:
	default:
		return refuse(&APIError{Message: fmt.Sprintf("mode is %q: has to be postcopy, hybrid or precopy", req.Mode), Code: CodeBadRequest})
	}
	if req.Rounds < 0 || req.Downtime < 0 {
		return refuse(&APIError{Message: fmt.Sprintf("rounds is %d, downtime_ns %d: have to be 0 or more", req.Rounds, req.Downtime), Code: CodeBadRequest})
	}
	if req.Connections < 0 || req.Connections > migration.MaxConnections {
		return refuse(&APIError{Message: fmt.Sprintf("connections is %d: has to be 1 to %d", req.Connections, migration.MaxConnections), Code: CodeBadRequest})
	}
	codec, err := migration.ParseCodec(req.Compress)
	if err != nil {
		return refuse(&APIError{Message: err.Error(), Code: CodeBadRequest})
	}
	secure, err := d.tls(req, dest)
	if err != nil {
		return refuse(err)
	}
	return vm, dest, migration.Options{
		VM: vm.Name(), Mode: migration.Mode(req.Mode), Verify: req.Verify,
		Timeout: req.Timeout, TimeoutSwitches: req.TimeoutSwitches, Recover: req.Recover,
		AutoConverge: req.AutoConverge, Rounds: req.Rounds, Downtime: req.Downtime, Bandwidth: req.Bandwidth, PushBandwidth: req.PushBandwidth,
		Connections: req.Connections, Compress: codec, Checksum: req.Checksum, TLS: secure, Log: d.log,
	}, nil
}

// run has a part of the migration done, and returns a channel that is closed
// at its end. d.mu is held.
func (d *departure) run(vm *VM, do func() (*migration.Report, error)) <-chan struct{} {
	source, done := d.source, make(chan struct{})
	d.done, d.last = done, MigrationEvent{}
	used := vm.inMemory.begin() == nil // else the VM has ended, and so will this
	go func() {
		// A guest that ends here is not to arrive anywhere.
		select {
		case <-vm.Done():
			_ = source.Cancel() // refused once the guest is the destination's
		case <-done:
		}
	}()
	go func() {
		report, err := d.back(do())
		if used {
			vm.inMemory.done()
		}
		d.settle(vm, source.Destination(), err)
		// Whoever hears of the end may want to do something with the VM.
		d.mu.Lock()
		d.last = MigrationEvent{Status: source.Status(), Report: report, Error: vm.outcomeOf(err)}
		d.ended[slices.Index(results[:], report.Result)]++
		close(done)
		d.mu.Unlock()
	}()
	return done
}

// tls reads the files of TLS; nil is without.
func (d *departure) tls(req MigrateRequest, dest migration.Address) (func() *tls.Config, error) {
	if req.TLSDir == "" {
		return nil, nil
	}
	if !filepath.IsAbs(req.TLSDir) {
		return nil, &APIError{Message: fmt.Sprintf("tls_dir is %q: has to be an absolute path", req.TLSDir), Code: CodeBadRequest}
	}
	if err := dest.CheckSourceTLS(); err != nil {
		return nil, &APIError{Message: err.Error(), Code: CodeBadRequest}
	}
	c, err := migration.SourceTLS(req.TLSDir, req.TLSHostname, d.log)
	if err != nil {
		return nil, &APIError{Message: err.Error(), Code: CodeRefused}
	}
	return c, nil
}

// settle does to the VM what the migration's end means for it.
func (d *departure) settle(vm *VM, dest migration.Address, err error) {
	var paused *migration.PausedError
	switch {
	case err == nil:
		if err := vm.Gone(dest.String()); err != nil {
			d.log.Error("the VM has migrated, but does not end here", "error", err)
		}
	case errors.As(err, &paused):
		d.log.Error("migration paused", "error", err)
	default:
		d.log.Warn("migration ended, the VM stays here", "error", err)
		vm.Stay()
	}
}

// outcomeOf is migrationError for a VM that may have ended meanwhile: then it does not
// run on here.
func (vm *VM) outcomeOf(err error) *APIError {
	e := migrationError(err)
	select {
	case <-vm.Done():
		if e != nil && e.Code != CodePaused {
			e = &APIError{Message: fmt.Sprintf("VM %s has ended (%s): %v", vm.config.Name, vm.ExitStatus().Reason, err), Code: CodeEnded}
			e.Classify()
		}
	default:
	}
	return e
}

// migrationError classes what Source.Run returned.
func migrationError(err error) *APIError {
	if err == nil {
		return nil
	}
	out := &APIError{Message: err.Error(), Code: CodeFailed}
	var refused *migration.RefusedError
	var paused *migration.PausedError
	switch {
	case errors.As(err, &refused):
		out.Code = CodeRefused
	case errors.As(err, &paused):
		out.Code = CodePaused
	case errors.Is(err, migration.ErrCancelled):
		out.Code = CodeCancelled
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, migration.ErrTimeout):
		out.Code = CodeTimeout
	}
	out.Classify()
	return out
}

// event describes the last migration. Preconditions: there was one.
func (d *departure) event() MigrationEvent {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.last.Report != nil {
		return d.last
	}
	return MigrationEvent{Status: d.source.Status()}
}

var errNoMigration = &APIError{Message: "no migration of this VM has been asked for", Code: CodeNotFound}

func (d *departure) get(w http.ResponseWriter, _ *http.Request) {
	if d.none() {
		writeError(w, errNoMigration)
		return
	}
	writeJSON(w, http.StatusOK, d.event())
}

func (d *departure) delete(w http.ResponseWriter, _ *http.Request) {
	if d.none() {
		writeError(w, errNoMigration)
		return
	}
	d.mu.Lock()
	source, done := d.source, d.done
	d.mu.Unlock()
	if err := source.Cancel(); err != nil {
		writeError(w, &APIError{Message: "cannot cancel the migration: " + err.Error(), Code: CodeWrongState})
		return
	}
	<-done
	writeJSON(w, http.StatusOK, struct{}{})
}

func (d *departure) none() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.source == nil
}
