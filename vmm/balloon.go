package vmm

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"microvm/devices/virtio/balloon"
)

// BalloonConfig is what a user chooses of a memory balloon.
type BalloonConfig struct {
	// Size is how many bytes it takes from the guest from the beginning.
	Size uint64 `json:"size,omitempty"`
	// DeflateOnOOM gives pages back to a guest that runs out of memory.
	DeflateOnOOM bool `json:"deflate_on_oom,omitempty"`
	// FreePageReporting has the guest say which of its memory is free, which
	// the host then uses.
	FreePageReporting bool `json:"free_page_reporting,omitempty"`
}

// A ballooned is the virtio balloon of a VM.
type ballooned struct {
	*virtioDevice
	balloon *balloon.Balloon
}

// addBalloon makes the balloon, if there is to be one.
func (vm *VM) addBalloon() error {
	c := vm.config.Balloon
	if c == nil {
		return nil
	}
	backend, err := balloon.New(vm.mem, balloon.Options{Target: c.Size, DeflateOnOOM: c.DeflateOnOOM, Reporting: c.FreePageReporting})
	if err != nil {
		return err
	}
	device, err := vm.addVirtio("balloon0", backend)
	if err != nil {
		return err
	}
	vm.balloon = &ballooned{device, backend}
	return nil
}

// errNoBalloon refuses what is asked of a balloon that there is not.
func (vm *VM) errNoBalloon() error {
	return &APIError{Message: fmt.Sprintf("VM %s has no balloon: run it with --balloon SIZE, which may be 0", vm.config.Name), Code: CodeBadRequest}
}

// SetBalloon says how many bytes the balloon is to take from the guest. The
// guest's driver does it some time.
func (vm *VM) SetBalloon(bytes uint64) error {
	if vm.balloon == nil {
		return vm.errNoBalloon()
	}
	vm.control.Lock()
	defer vm.control.Unlock()
	if err := vm.free(CommandBalloon); err != nil {
		return err
	}
	if err := vm.balloon.balloon.SetTarget(bytes); err != nil {
		return &APIError{Message: fmt.Sprintf("VM %s: %v", vm.config.Name, err), Code: CodeBadRequest}
	}
	vm.balloon.mmio.Device().ConfigChanged()
	return nil
}

// Balloon describes the balloon, with figures that the guest has just given,
// if it gives any before ctx ends.
func (vm *VM) Balloon(ctx context.Context) (balloon.Stats, error) {
	if vm.balloon == nil {
		return balloon.Stats{}, vm.errNoBalloon()
	}
	vm.balloon.balloon.Refresh(ctx)
	return vm.balloon.balloon.Stats(), nil
}

// askGuest has a guest with a balloon give its figures anew, for the next who
// looks at them.
func (vm *VM) askGuest() {
	if vm.balloon != nil {
		vm.balloon.balloon.Ask()
	}
}

// BalloonRequest says how many bytes a balloon is to take from the guest.
type BalloonRequest struct {
	Size uint64 `json:"size"`
}

func (a *API) setBalloon(w http.ResponseWriter, r *http.Request) {
	var req BalloonRequest
	if err := readJSON(w, r, &req); err != nil {
		writeError(w, err)
		return
	}
	a.command(func(_ *http.Request, vm *VM) error { return vm.SetBalloon(req.Size) })(w, r)
}

// guestAnswers is for how long a user waits for the guest's figures, which may
// be busy, or have no driver any more.
const guestAnswers = time.Second

func (a *API) getBalloon(w http.ResponseWriter, r *http.Request) {
	vm := a.VM()
	if vm == nil {
		writeError(w, a.errNotArrived())
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), guestAnswers)
	defer cancel()
	stats, err := vm.Balloon(ctx)
	if err != nil {
		writeError(w, err)
		return
	}
	writeJSON(w, http.StatusOK, stats)
}
