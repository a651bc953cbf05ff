package virtio

import (
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"microvm/memslot"
)

// A Backend is one kind of device: what it does with the chains of its queues.
//
// Start, Serve and Drain come in that order, again and again: from Start on
// Serve may be called, by a goroutine per queue; after the last Serve has
// returned, Drain.
type Backend interface {
	// Type is the device ID (section 5).
	Type() uint32
	// Features are the kind's own feature bits that it offers. They do not
	// change.
	Features() uint64
	// QueueSizes are the most entries that each queue may have, powers of 2.
	QueueSizes() []uint16
	// ReadConfig fills p from the configuration space, at off; zeros where
	// there is nothing. It is called by vCPU threads.
	ReadConfig(p []byte, off uint64)
	// WriteConfig is a driver's write, to be ignored where a field is
	// read-only.
	WriteConfig(p []byte, off uint64)
	// Start says that a driver has come to drive, with these features.
	Start(features uint64)
	// Serve takes all chains that q has, and sees to it that each is pushed
	// some time. An error means that the driver broke the rules.
	Serve(q *Queue) error
	// Drain returns when each chain taken has been pushed.
	Drain()
	// SaveState and LoadState are for what is not in the queues. LoadState
	// takes the format of this Version only, from a stranger, and changes
	// nothing if it returns an error.
	Version() uint16
	SaveState() ([]byte, error)
	LoadState(b []byte) error
	// Counts is what the device has done since it is on this host, for its
	// users. It can be asked for at any time.
	Counts() Counts
	// Close frees what is behind the device, after the last Drain.
	Close() error
}

// An Interrupter is a Backend whose Serve may wait for something else than
// guest memory.
type Interrupter interface {
	// Interrupt has each Serve that waits return, and those that come before
	// the next Start not wait.
	Interrupt()
}

// A Resetter is a Backend whose state, beyond the queues', a reset by the driver
// undoes.
type Resetter interface {
	// Reset is called after Drain, or before any Start.
	Reset()
}

// A Notifier is a transport's way to reach the driver.
type Notifier interface {
	// Used says that there is something new in a queue's device area. It may
	// be called by any goroutine and must not wait for the guest.
	Used(q *Queue)
	// ConfigChanged says that the configuration or the status has changed.
	ConfigChanged()
}

// A Device is a virtio device without its transport.
type Device struct {
	id       string
	backend  Backend
	notifier Notifier
	log      *slog.Logger
	queues   []*Queue
	events   []*event // a queue's notifications, by index

	generation atomic.Uint32

	// life is held while the workers are started or ended: it makes resets,
	// holds and releases follow each other. mu is not held meanwhile, so
	// that registers can be read.
	life    sync.Mutex
	held    bool // guarded by life
	running bool // there are workers; guarded by life
	workers sync.WaitGroup

	mu       sync.Mutex
	status   uint32 // guarded by mu
	features uint64 // what the driver accepted; guarded by mu
}

// NewDevice makes a device as it is at power-on, held: see Release. id names
// it in logs and in a migration's stream. It takes over the backend, and closes
// it if it fails.
func NewDevice(id string, b Backend, mem *memslot.Memory, log *slog.Logger) (*Device, error) {
	d := &Device{id: id, backend: b, log: log.With("device", id), held: true}
	for i, size := range b.QueueSizes() {
		e, err := newEvent(fmt.Sprintf("queue %d of %s", i, id))
		if err != nil {
			return nil, errors.Join(err, d.Close())
		}
		q := &Queue{index: i, max: size, mem: mem, used: func(q *Queue) { d.notifier.Used(q) }, fail: d.fail}
		// It fails only if the device is closed.
		q.wake = func() { _ = e.signal() }
		q.reset()
		d.queues = append(d.queues, q)
		d.events = append(d.events, e)
	}
	return d, nil
}

// Close frees the device and what is behind it. Preconditions: it is held, and
// no vCPU runs.
func (d *Device) Close() error {
	var errs []error
	for _, e := range d.events {
		errs = append(errs, e.close())
	}
	return errors.Join(append(errs, d.backend.Close())...)
}

// Counts is the backend's.
func (d *Device) Counts() Counts { return d.backend.Counts() }

// Queues lists the queues.
func (d *Device) Queues() []*Queue { return d.queues }

// NotifyFD is the eventfd whose signals are the driver's notifications of a
// queue, for KVM to signal.
func (d *Device) NotifyFD(queue int) int { return d.events[queue].fd }

// notify is a notification that came by a register.
func (d *Device) notify(queue uint32) {
	if queue < uint32(len(d.events)) {
		// It fails only if the device is closed.
		_ = d.events[queue].signal()
	}
}

// ConfigChanged tells the driver that what ReadConfig gives has changed.
func (d *Device) ConfigChanged() {
	d.generation.Add(1)
	d.mu.Lock()
	live := d.status&statusDriverOK != 0
	d.mu.Unlock()
	if live {
		d.notifier.ConfigChanged()
	}
}

// offered are the features that a driver may choose from.
func (d *Device) offered() uint64 { return d.backend.Features() | coreFeatures }

// setFeatures is what the driver accepts. Once it has said FEATURES_OK it
// cannot take that back.
func (d *Device) setFeatures(mask, v uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.status&statusFeaturesOK == 0 {
		d.features = d.features&^mask | v&mask
	}
}

// getStatus is the device status.
func (d *Device) getStatus() uint32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.status
}

// setStatus is the driver's write to the device status (section 2.1): it can
// add bits, or reset the device by writing 0.
func (d *Device) setStatus(v uint32) {
	d.life.Lock()
	defer d.life.Unlock()
	if v == 0 {
		d.reset()
		return
	}
	d.mu.Lock()
	added := v & statusOfDriver &^ d.status
	if added&statusFeaturesOK != 0 {
		if err := d.checkFeatures(d.features); err != nil {
			d.log.Warn("the driver's features are refused", "error", err)
			added &^= statusFeaturesOK
		}
	}
	if (d.status|added)&statusFeaturesOK == 0 {
		added &^= statusDriverOK
	}
	d.status |= added
	d.mu.Unlock()
	d.start()
}

// checkFeatures refuses a driver's choice, whoever says that it is one.
func (d *Device) checkFeatures(features uint64) error {
	if extra := features &^ d.offered(); extra != 0 {
		return fmt.Errorf("%s: features that this device does not have: %s", d.id, describeFeatures(extra))
	}
	if features&FeatureVersion1 == 0 {
		return fmt.Errorf("%s: no VERSION_1 in the features: drivers of before VIRTIO 1.0 are not supported", d.id)
	}
	return nil
}

// reset makes the device as at power-on. life is held.
func (d *Device) reset() {
	d.stop()
	if r, ok := d.backend.(Resetter); ok {
		r.Reset()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.status, d.features = 0, 0
	for _, q := range d.queues {
		q.reset()
	}
}

// setup changes what a driver may set up of a queue, unless it is too late.
func (d *Device) setup(queue uint32, change func(*queueSetup)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if queue >= uint32(len(d.queues)) || d.status&statusDriverOK != 0 {
		return
	}
	if q := d.queues[queue]; !q.setup.ready {
		change(&q.setup)
	}
}

// getSetup is what a driver has set up; nothing for a queue that there isn't.
func (d *Device) getSetup(queue uint32) (s queueSetup, max uint16) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if queue >= uint32(len(d.queues)) {
		return s, 0
	}
	return d.queues[queue].setup, d.queues[queue].max
}

// setReady makes a queue ready, or not if it cannot be, or no more.
func (d *Device) setReady(queue uint32, ready bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if queue >= uint32(len(d.queues)) || d.status&statusDriverOK != 0 {
		return
	}
	q := d.queues[queue]
	if ready {
		if err := q.setup.check(q.max); err != nil {
			d.log.Warn("a queue cannot be made ready", "queue", queue, "error", err)
			return
		}
	}
	q.setup.ready = ready
}
