package vmm

import (
	"context"
	"net/http"

	"microvm/migration"
)

// postCheck answers what would stop a migration: a migration.Outlook. The VM
// runs on meanwhile, and is not asked to do anything.
func (d *departure) postCheck(w http.ResponseWriter, r *http.Request) {
	var req MigrateRequest
	if err := readJSON(w, r, &req); err != nil {
		writeError(w, err)
		return
	}
	found, err := d.check(r.Context(), req)
	if err != nil {
		writeRefusal(w, err)
		return
	}
	writeJSON(w, http.StatusOK, found)
}

// check asks the destination of req.
func (d *departure) check(ctx context.Context, req MigrateRequest) (migration.Outlook, error) {
	vm, dest, opt, err := d.options(req)
	if err != nil {
		return migration.Outlook{}, err
	}
	if dest.Passed() > 0 {
		return migration.Outlook{}, &APIError{Message: dest.String() + ": sockets that were passed are good for one migration, and not for a question before it: give an address that can be dialled", Code: CodeBadRequest}
	}
	if err := vm.MayDepart(); err != nil {
		return migration.Outlook{}, err
	}
	opt.Log = nil // nothing happens
	source, err := migration.NewSource(vm, dest, opt)
	if err != nil {
		return migration.Outlook{}, err
	}
	return source.Check(ctx)
}
