package vmm

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"microvm/migration"
)

// TakeBackRequest has a VM run on here of which nobody knows whether it runs at
// its destination.
type TakeBackRequest struct {
	// Force: a person has made sure that the destination does not run the VM
	// and never will. If it does, there are two of it.
	Force bool `json:"force"`
}

func (d *departure) postTakeBack(w http.ResponseWriter, r *http.Request) {
	var req TakeBackRequest
	err := readJSON(w, r, &req)
	if err == nil {
		err = d.takeBack(r.Context(), req)
	}
	if err != nil {
		writeRefusal(w, err)
		return
	}
	writeJSON(w, http.StatusOK, struct{}{})
}

// takeBack ends a migration that is paused, or whose source still tries to
// connect again, with the VM here.
func (d *departure) takeBack(ctx context.Context, req TakeBackRequest) error {
	if d.none() {
		return errNoMigration
	}
	for {
		done, err := d.tryTakeBack(req)
		if err != nil {
			return err
		}
		if done != nil {
			<-done
			return d.takenBack()
		}
		// It is about to dial again, or about to stop that.
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// tryTakeBack is what tryResume is: the channel that it gives is closed when
// the VM is here, or is not.
func (d *departure) tryTakeBack(req TakeBackRequest) (<-chan struct{}, error) {
	vm := d.api.VM()
	refused := func(format string, args ...any) error {
		return &APIError{Message: fmt.Sprintf("cannot take back VM %s: ", vm.Name()) + fmt.Sprintf(format, args...), Code: CodeWrongState}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	source := d.source
	paused := d.last.Error != nil && d.last.Error.Code == CodePaused
	switch phase := source.Phase(); {
	case phase != migration.PhasePostcopyPaused:
		return nil, refused("its migration is %s, and has to be %s", phase, migration.PhasePostcopyPaused)
	case source.RanThere():
		return nil, refused("%v; it can only be completed (microvm migrate %s --resume)", migration.ErrRanThere, vm.Name())
	case !req.Force:
		return nil, refused("it was given away, and its destination %s may run it. Ask that first: microvm migrate %s --resume. "+
			"If it can never be asked again, make sure that it does not run the VM and never will, because its process has ended without having run it, "+
			"and say so with --force: if it does run it, there are two of it from then on", source.Destination(), vm.Name())
	case paused:
		return d.run(vm, func() (*migration.Report, error) { return byHand(vm, source) }), nil
	case source.Redirect(migration.Address{}, 0):
		d.wanted = true
		return d.done, nil
	}
	return nil, nil
}

// byHand takes a VM back upon a person's word. Should it run at its destination
// all the same, then it goes on twice from the same time: so its generation
// changes.
func byHand(vm *VM, source *migration.Source) (*migration.Report, error) {
	vm.inDoubt.Store(true)
	defer vm.inDoubt.Store(false)
	return source.TakeBack()
}

// back takes the VM back if that is wanted, once a part of the migration has
// ended with report and err, and gives how it has ended then.
func (d *departure) back(report *migration.Report, err error) (*migration.Report, error) {
	d.mu.Lock()
	wanted := d.wanted
	d.wanted = false
	d.mu.Unlock()
	if wanted && errors.As(err, new(*migration.PausedError)) {
		if r, terr := byHand(d.api.VM(), d.source); errors.Is(terr, migration.ErrTakenBack) {
			return r, terr
		}
	}
	return report, err
}

// takenBack tells whether the VM is here again. An error says why not.
func (d *departure) takenBack() error {
	e := d.event()
	if e.Report != nil && e.Report.Owner == migration.OwnerSource {
		return nil
	}
	return &APIError{Message: "not taken back: the destination was reached meanwhile, and the migration is " + string(e.Status.Phase), Code: CodeWrongState}
}
