package vsock

import (
	"time"

	"microvm/devices/virtio"
)

// This file is the event TRANSPORT_RESET (section 5.10.6.7): the driver's
// connections are gone. A driver has done with it some time after the event is in
// its queue, and resets whatever it has then, which is not to hit a connection
// that was made meanwhile. What tells is that it reads its CID again, as it must.
// Until then no program of the host gets through, and what the guest has begun is
// dropped. A driver that does not read it is waited for as long as for an answer.

const (
	eventTransportReset = 0
	eventSize           = 4
)

// A notice is how far the driver knows.
type notice struct {
	due  bool          // it is to be told
	sent bool          // it has been told and has not read its CID
	over chan struct{} // closed when connections can be made
}

// TransportReset has the driver told that its connections are gone.
func (d *Device) TransportReset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.setNotice()
}

// setNotice does it. mu is held.
func (d *Device) setNotice() {
	d.notice.due = true
	select {
	case <-d.notice.over:
		d.notice.over = make(chan struct{})
	default:
	}
}

// Start sees to it that programs of the host wait for a driver that says nothing
// only so long.
func (d *Device) Start(uint64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	over := d.notice.over
	select {
	case <-over:
		return
	default:
	}
	time.AfterFunc(d.options.handshake, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if d.notice.over == over {
			d.endNotice()
		}
	})
}

// serveEvents tells the driver what there is to tell. The queue's other chains
// stay where they are.
func (d *Device) serveEvents(q *virtio.Queue) error {
	d.mu.Lock()
	due := d.notice.due
	d.mu.Unlock()
	if !due {
		return nil
	}
	var chain virtio.Chain
	ok, err := q.Next(&chain)
	if !ok {
		return err
	}
	if err := chain.WriteAt([]byte{eventTransportReset, 0, 0, 0}, 0); err != nil {
		return err
	}
	d.mu.Lock()
	d.notice.due, d.notice.sent = false, true
	d.mu.Unlock()
	d.told.Store(true)
	return q.Push(&chain, eventSize)
}

// cidRead is a driver that reads its CID. A vCPU does that, and is not held up.
func (d *Device) cidRead() {
	if d.told.Load() && d.told.Swap(false) {
		go func() {
			d.mu.Lock()
			defer d.mu.Unlock()
			d.endNotice()
		}()
	}
}

// endNotice lets connections be made. mu is held.
func (d *Device) endNotice() {
	if d.notice.sent {
		d.notice.sent = false
		for _, c := range d.conns {
			d.finish(c, false) // the driver has forgotten it
		}
	}
	select {
	case <-d.notice.over:
	default:
		close(d.notice.over)
	}
}
