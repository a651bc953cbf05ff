package vmm

import (
	"context"
	"errors"
	"net/http"
	"sync"

	"microvm/migration/snapshot"
)

// SnapshotRequest asks for a snapshot. Its files, which are empty, are passed with it
// in the order of snapshot.Files.List.
type SnapshotRequest struct {
	LeaveRunning bool `json:"leave_running,omitempty"`
	// Dir is where the files are, for messages.
	Dir string `json:"dir"`
	// Files are passed along, and closed here then.
	Files *snapshot.Files `json:"-"`
}

// saves is the snapshot of a VM that is being made, if one is.
type saves struct {
	api     *API
	program string

	mu     sync.Mutex
	cancel context.CancelFunc // nil: none is
	done   chan struct{}      // closed when the VM is as it was, or is saved
}

// AddSnapshot gives a VM's API the calls that save it:
//
//	POST   /v1/vm/snapshot   SnapshotRequest; answers a migration.SaveReport
//	DELETE /v1/vm/snapshot   calls that off, and answers when the VM is as it was
//
// It is called off too when the client goes. program is this program's version.
func AddSnapshot(a *API, program string) {
	s := &saves{api: a, program: program}
	a.Handle("POST /v1/vm/snapshot", s.post)
	a.Handle("DELETE /v1/vm/snapshot", s.delete)
}

func (s *saves) post(w http.ResponseWriter, r *http.Request) {
	var req SnapshotRequest
	err := readJSON(w, r, &req)
	passed := passedFiles(r)
	if err != nil {
		closeFiles(passed)
		writeError(w, err)
		return
	}
	files, err := snapshot.FromList(passed)
	if err != nil {
		writeError(w, &APIError{Message: err.Error() + " (SCM_RIGHTS, with the request's first byte)", Code: CodeBadRequest})
		return
	}
	defer files.Close()
	vm := s.api.VM()
	if vm == nil {
		writeRefusal(w, s.api.errNotArrived())
		return
	}
	ctx, end := s.begin(r.Context())
	rep, err := vm.Save(ctx, files, SaveOptions{LeaveRunning: req.LeaveRunning, Dir: req.Dir, Program: s.program})
	cancelled := ctx.Err() != nil
	end()
	switch {
	case err == nil:
		writeJSON(w, http.StatusOK, rep)
	case errors.As(err, new(*StateError)):
		writeRefusal(w, err)
	case cancelled:
		writeError(w, &APIError{Message: "the snapshot was called off", Code: CodeCancelled})
	default:
		writeError(w, &APIError{Message: err.Error(), Code: CodeFailed})
	}
}

// begin notes a snapshot, unless one is being made: then this one is about to be
// refused. end has to be called when it is over.
func (s *saves) begin(ctx context.Context) (_ context.Context, end func()) {
	ctx, cancel := context.WithCancel(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cancel != nil {
		return ctx, cancel
	}
	s.cancel, s.done = cancel, make(chan struct{})
	return ctx, func() {
		cancel()
		s.mu.Lock()
		defer s.mu.Unlock()
		close(s.done)
		s.cancel = nil
	}
}

func (s *saves) delete(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	cancel, done := s.cancel, s.done
	s.mu.Unlock()
	if cancel == nil {
		writeError(w, &APIError{Message: "no snapshot is being made", Code: CodeNotFound})
		return
	}
	cancel()
	select {
	case <-done:
		writeJSON(w, http.StatusOK, struct{}{})
	case <-r.Context().Done():
	}
}
