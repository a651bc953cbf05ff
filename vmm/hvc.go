package vmm

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"

	"microvm/devices/virtio/vconsole"
)

// An hvc is the virtio console of a VM, which Linux calls hvc0. It shares the
// VM's Console with the serial port.
type hvc struct {
	*virtioDevice
	console *vconsole.Device
	// size is that of the terminal that was last attached or resized here,
	// nil if there was none.
	size atomic.Pointer[ConsoleSize]
}

// addHVC makes the virtio console, if there is to be one.
func (vm *VM) addHVC(out io.Writer) error {
	if !vm.config.VirtioConsole {
		return nil
	}
	backend := vconsole.New(out)
	device, err := vm.addVirtio("console0", backend)
	if err != nil {
		return err
	}
	vm.hvc = &hvc{virtioDevice: device, console: backend}
	return nil
}

// typeAll gives the guest what was typed: at hvc0 once it has a driver for that,
// at the serial port otherwise.
func (vm *VM) typeAll(ctx context.Context, p []byte) (n int, err error) {
	if vm.hvc != nil && vm.hvc.console.Live() {
		if n, err = vm.hvc.console.InputAll(ctx, p); n == len(p) || err != nil {
			return n, err
		}
	}
	m, err := vm.serial.InputAll(ctx, p[n:])
	return n + m, err
}

// flushHVC waits for the guest's output.
func (vm *VM) flushHVC(ctx context.Context) error {
	if vm.hvc == nil {
		return nil
	}
	return vm.hvc.console.Flush(ctx)
}

// ConsoleSize is that of a terminal, in characters.
type ConsoleSize struct {
	Columns uint16 `json:"columns"`
	Rows    uint16 `json:"rows"`
}

// ResizeConsole says what size the terminal has on which the VM's console shows.
// The guest hears of it, when it runs.
func (vm *VM) ResizeConsole(size ConsoleSize) error {
	if vm.hvc == nil {
		return &APIError{Message: fmt.Sprintf("VM %s has no virtio console, and a serial port has no size: run it with --virtio-console", vm.config.Name), Code: CodeBadRequest}
	}
	if size.Columns == 0 || size.Rows == 0 {
		return &APIError{Message: fmt.Sprintf("a console of %d columns and %d rows: has to have 1 or more of each", size.Columns, size.Rows), Code: CodeBadRequest}
	}
	vm.hvc.size.Store(&size)
	vm.control.Lock()
	defer vm.control.Unlock()
	// A guest that does not run, or runs elsewhere, is told by goOn.
	if s := vm.State(); s == StateRunning || s == StatePostcopy && vm.errand != ErrandMigration {
		vm.tellSize()
	}
	return nil
}

// tellSize tells the guest of its terminal's size if it does not know. control is
// held, and the devices are not: what they are like may have been saved.
func (vm *VM) tellSize() {
	if vm.hvc == nil {
		return
	}
	if size := vm.hvc.size.Load(); size != nil && vm.hvc.console.Resize(size.Columns, size.Rows) {
		vm.hvc.mmio.Device().ConfigChanged()
	}
}

func (a *API) resizeConsole(w http.ResponseWriter, r *http.Request) {
	var size ConsoleSize
	if err := readJSON(w, r, &size); err != nil {
		writeError(w, err)
		return
	}
	a.command(func(_ *http.Request, vm *VM) error { return vm.ResizeConsole(size) })(w, r)
}
