package vmm

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"microvm/migration"
)

// ResumeMigrationRequest takes up a migration that is paused, or has one that
// connects again by itself do so at once.
type ResumeMigrationRequest struct {
	// Destination is where the destination is to be reached now; empty:
	// where it was.
	Destination string `json:"destination,omitempty"`
	// Recover is for how long to dial, now and whenever the connections break.
	Recover time.Duration `json:"recover_ns"`
	Log     bool          `json:"log,omitempty"` // as in MigrateRequest
	Detach  bool          `json:"detach,omitempty"`
}

func (d *departure) postResume(w http.ResponseWriter, r *http.Request) {
	var req ResumeMigrationRequest
	if err := readJSON(w, r, &req); err != nil {
		writeError(w, err)
		return
	}
	done, err := d.resume(r.Context(), req)
	if err != nil {
		writeRefusal(w, err)
		return
	}
	d.follow(w, r, done, answer{once: req.Detach, log: req.Log})
}

func (d *departure) watch(w http.ResponseWriter, r *http.Request) {
	if d.none() {
		writeError(w, errNoMigration)
		return
	}
	d.mu.Lock()
	done := d.done
	d.mu.Unlock()
	d.follow(w, r, done, answer{log: r.URL.Query().Get("log") == "true"})
}

// resume takes a migration up, and returns a channel that is closed at its end.
func (d *departure) resume(ctx context.Context, req ResumeMigrationRequest) (<-chan struct{}, error) {
	var dest migration.Address
	if req.Destination != "" {
		var err error
		if dest, err = migration.ParseAddress(req.Destination); err != nil {
			return nil, &APIError{Message: err.Error(), Code: CodeBadRequest}
		}
	}
	if req.Recover <= 0 {
		return nil, &APIError{Message: fmt.Sprintf("recover_ns is %d: has to be more than 0", req.Recover), Code: CodeBadRequest}
	}
	if d.none() {
		return nil, errNoMigration
	}
	if err := d.checkRoute(dest); err != nil {
		return nil, err
	}
	for {
		done, err := d.tryResume(dest, req.Recover)
		if done != nil || err != nil {
			return done, err
		}
		// It is about to dial again, or about to stop that.
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// checkRoute refuses an address that the migration cannot go on by.
func (d *departure) checkRoute(dest migration.Address) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if err := d.source.CheckDestination(dest); err != nil {
		return &APIError{Message: err.Error(), Code: CodeBadRequest}
	}
	return nil
}

// tryResume is resume, which gives nothing at all when it cannot be told yet
// what a migration that is paused is going to do.
func (d *departure) tryResume(dest migration.Address, within time.Duration) (<-chan struct{}, error) {
	vm := d.api.VM()
	d.mu.Lock()
	defer d.mu.Unlock()
	source := d.source
	switch phase := source.Phase(); {
	case source.Redirect(dest, within):
		return d.done, nil
	case d.last.Error != nil && d.last.Error.Code == CodePaused:
		return d.run(vm, func() (*migration.Report, error) { return source.Resume(context.Background(), dest, within) }), nil
	case phase == migration.PhasePostcopyPaused:
		return nil, nil
	default:
		return nil, &APIError{
			Message: fmt.Sprintf("cannot resume the migration of VM %s: it is %s, and has to be %s", vm.Name(), phase, migration.PhasePostcopyPaused),
			Code:    CodeWrongState,
		}
	}
}
