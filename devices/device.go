package devices

import "sync/atomic"

// Device is what a [Bus] hands accesses to. off is relative to the base the
// device was registered with; off+len(p) never exceeds the registered size.
// p is little-endian, as the guest's register is, and valid only during the
// call (it lies in the kvm_run page). Both methods are called from several
// vCPU threads at once and must neither block nor allocate.
type Device interface {
	// Read fills p completely.
	Read(off uint64, p []byte)
	Write(off uint64, p []byte)
}

// Interrupt is an edge-triggered interrupt line, as ISA devices have.
type Interrupt interface {
	// Trigger makes one low-high-low pulse. It does not wait for the guest.
	Trigger() error
}

// LevelInterrupt is a level-triggered interrupt line, such as ACPI's SCI.
type LevelInterrupt interface {
	// Set drives the line. Setting the level that it has is no error.
	Set(level bool) error
}

// edge is an [Interrupt] whose first failure is kept for the next Save, so
// that an interrupt the guest never got is not lost silently: a vCPU thread
// has nobody to return an error to.
type edge struct {
	irq    Interrupt
	failed atomic.Pointer[error]
}

func (e *edge) pulse() {
	if err := e.irq.Trigger(); err != nil {
		e.fail(err)
	}
}

// fail is apart from pulse because its argument moves to the heap.
func (e *edge) fail(err error) { e.failed.CompareAndSwap(nil, &err) }

// err returns the first error that Trigger gave, or nil.
func (e *edge) err() error {
	if p := e.failed.Load(); p != nil {
		return *p
	}
	return nil
}
