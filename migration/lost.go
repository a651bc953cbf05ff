package migration

import "errors"

// LostError says that the guest was running here and cannot go on: pages that
// it needs are gone. See [DestinationMachine]'s Abandon for what is left of it.
type LostError struct{ Err error }

func (e *LostError) Error() string {
	return "the guest ran here and cannot go on, it is lost: " + e.Err.Error()
}

func (e *LostError) Unwrap() error { return e.Err }

// ErrAbandoned is what a destination ends with after Abandon.
var ErrAbandoned = errors.New("its source is not waited for any longer")

// ErrUnheard says that the guest has never run here and never will, but that
// its source may not know: if that has written POSTCOPY_RUN it keeps the guest
// paused, until a person takes it back: [Source.TakeBack].
var ErrUnheard = errors.New("the source may not know that the VM does not run here")

// Abandon has Receive wait no longer for a source that is not connected, now or
// later. A guest that runs here and needs pages is lost then: [LostError]. One
// that needs none goes on, and one that never ran here never will.
//
// A guest that is to end while its source is connected is better ended itself:
// the source then hears that it is needed no more.
func (d *Destination) Abandon() { d.abandon() }

// lose ends a guest that ran here. Whatever waits for its pages waits for ever.
func (d *Destination) lose(err error) error {
	lost := &LostError{err}
	d.machine.Abandon(lost)
	d.pager.Load().forsake(lost)
	return lost
}
