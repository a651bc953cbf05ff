package virtio

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// stateVersion is that of what mmio_state.go and this file write. A device's
// version on the wire is a hundred times that plus its backend's.
const stateVersion = 1

const (
	coreStateSize  = 28
	queueStateSize = 32
)

// appendState appends the device's part of the state, little-endian:
//
//	 0  4  device type, as in the register DeviceID
//	 4  4  device status
//	 8  8  features that the driver accepted
//	16  4  configuration generation
//	20  4  n, the number of queues
//	24  4  m, the length of the backend's state
//	28 32n the queues
//	    m  the backend's state: see its SaveState
//
// and of each queue:
//
//	0  2  size, in entries
//	2  2  1 if it is ready, else 0
//	4  2  index in the driver area of what is taken next
//	6  2  index in the device area of what is pushed next
//	8  8  address of the descriptor table, 16 8 of the driver area, 24 8 of
//	      the device area
//
// No request is under way: see Hold. Whether to interrupt is weighed anew by
// whoever loads this, and then rather once too often.
//
// Preconditions: the device is held.
func (d *Device) appendState(b []byte) ([]byte, error) {
	own, err := d.backend.SaveState()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", d.id, err)
	}
	d.life.Lock()
	defer d.life.Unlock()
	if !d.held {
		return nil, fmt.Errorf("%s: saved while it is not held", d.id)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	le := binary.LittleEndian
	b = le.AppendUint32(b, d.backend.Type())
	b = le.AppendUint32(b, d.status)
	b = le.AppendUint64(b, d.features)
	b = le.AppendUint32(b, d.generation.Load())
	b = le.AppendUint32(b, uint32(len(d.queues)))
	b = le.AppendUint32(b, uint32(len(own)))
	for _, q := range d.queues {
		s := &q.setup
		var ready uint16
		if s.ready {
			ready = 1
		}
		for _, v := range []uint16{s.size, ready, q.next, q.usedIdx} {
			b = le.AppendUint16(b, v)
		}
		for _, v := range []uint64{s.desc, s.driver, s.device} {
			b = le.AppendUint64(b, v)
		}
	}
	return append(b, own...), nil
}

// loadedQueue is a queue as a state describes it.
type loadedQueue struct {
	setup      queueSetup
	next, used uint16
}

// load takes over what appendState wrote. On an error nothing has changed.
//
// Preconditions: the device is held, no driver has touched it.
func (d *Device) load(b []byte) error {
	if len(b) < coreStateSize {
		return fmt.Errorf("%s: state: %d bytes, at least %d are needed", d.id, len(b), coreStateSize)
	}
	le := binary.LittleEndian
	kind, status, features, generation := le.Uint32(b), le.Uint32(b[4:]), le.Uint64(b[8:]), le.Uint32(b[16:])
	n, m := uint64(le.Uint32(b[20:])), uint64(le.Uint32(b[24:]))
	if kind != d.backend.Type() {
		return fmt.Errorf("%s: state: of a device of type %d, this one has type %d", d.id, kind, d.backend.Type())
	}
	if n != uint64(len(d.queues)) {
		return fmt.Errorf("%s: state: %d queues, this device has %d", d.id, n, len(d.queues))
	}
	if want := coreStateSize + n*queueStateSize + m; uint64(len(b)) != want {
		return fmt.Errorf("%s: state: %d bytes, by its lengths it has %d", d.id, len(b), want)
	}
	if err := d.checkStatus(status, features); err != nil {
		return err
	}
	queues, own := b[coreStateSize:coreStateSize+n*queueStateSize], b[coreStateSize+n*queueStateSize:]
	var loaded []loadedQueue
	for i, q := range d.queues {
		l, err := parseQueue(queues[i*queueStateSize:][:queueStateSize], q.max)
		if err != nil {
			return fmt.Errorf("%s: state: queue %d: %w", d.id, i, err)
		}
		loaded = append(loaded, l)
	}
	d.life.Lock()
	defer d.life.Unlock()
	if !d.held {
		return fmt.Errorf("%s: loaded while it is not held", d.id)
	}
	if err := d.backend.LoadState(own); err != nil {
		return fmt.Errorf("%s: %w", d.id, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.status, d.features = status, features
	d.generation.Store(generation)
	for i, q := range d.queues {
		q.setup, q.next, q.usedIdx = loaded[i].setup, loaded[i].next, loaded[i].used
	}
	return nil
}

// checkStatus refuses a status that no driver could have led the device to.
func (d *Device) checkStatus(status uint32, features uint64) error {
	if extra := status &^ (statusOfDriver | statusNeedsReset); extra != 0 {
		return fmt.Errorf("%s: state: status %#x: reserved bits %#x are set", d.id, status, extra)
	}
	if status&(statusDriverOK|statusFeaturesOK) == statusDriverOK {
		return fmt.Errorf("%s: state: status %#x: DRIVER_OK without FEATURES_OK", d.id, status)
	}
	if status&statusFeaturesOK == 0 {
		return nil // the driver is still choosing
	}
	return d.checkFeatures(features)
}

func parseQueue(b []byte, max uint16) (loadedQueue, error) {
	le := binary.LittleEndian
	l := loadedQueue{
		setup: queueSetup{size: le.Uint16(b), desc: le.Uint64(b[8:]), driver: le.Uint64(b[16:]), device: le.Uint64(b[24:])},
		next:  le.Uint16(b[4:]), used: le.Uint16(b[6:]),
	}
	switch ready := le.Uint16(b[2:]); ready {
	case 0:
		return l, nil
	case 1:
		l.setup.ready = true
		return l, l.setup.check(max)
	}
	return l, errors.New("neither ready nor not")
}
