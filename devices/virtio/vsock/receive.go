package vsock

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"microvm/devices/virtio"
)

// receiverState is what the receive queue's worker is at.
type receiverState int

const (
	receiverIdle    receiverState = iota // wants to be woken when there is something for the guest
	receiverBusy                         // looks by itself
	receiverStarved                      // has no chains; the driver wakes it
)

// wakeReceiver has somebody look at what there is for the guest. mu is held.
func (d *Device) wakeReceiver() {
	q := d.receive.Load()
	if q == nil || d.receiver != receiverIdle {
		return
	}
	d.receiver = receiverBusy
	q.Wake()
}

// serveReceive gives the guest what there is for it, as long as it has buffers.
func (d *Device) serveReceive(q *virtio.Queue) error {
	for d.hasMore() {
		ok, err := q.Next(&d.rx.chain)
		if !ok {
			d.mu.Lock()
			d.receiver = receiverStarved
			d.mu.Unlock()
			return err
		}
		if n := d.rx.chain.WriteLen; n <= headerSize {
			return fmt.Errorf("a receive buffer of %d bytes: has to have room for a header of %d and more", n, headerSize)
		}
		n, err := d.fill()
		if err != nil {
			return err
		}
		if n == 0 {
			q.Return(1)
			continue
		}
		d.counts.rxPackets.Add(1)
		if err := q.Push(&d.rx.chain, n); err != nil {
			return err
		}
	}
	return nil
}

// hasMore reports whether there is something for the guest, and has the worker
// woken if there is later.
func (d *Device) hasMore() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.orphans) > 0 || d.ready.first != nil {
		d.receiver = receiverBusy
		return true
	}
	d.receiver = receiverIdle
	return false
}

// fill puts one packet into the chain, and returns how long it is; 0 if there was
// none after all.
func (d *Device) fill() (n uint32, err error) {
	d.mu.Lock()
	if last := len(d.orphans) - 1; last >= 0 {
		h := d.orphans[last]
		d.orphans = d.orphans[:last]
		d.mu.Unlock()
		return headerSize, d.putHeader(&h)
	}
	c := d.dequeue()
	if c == nil {
		d.mu.Unlock()
		return 0, nil
	}
	h, room := c.packet()
	d.mu.Unlock()
	switch {
	case h.op == opInvalid:
		return 0, nil
	case h.op == opRW:
		if n, err = d.fillData(c, &h, room); n == 0 {
			return 0, err
		}
	}
	c.out.told.Store(h.fwdCnt)
	return headerSize + n, d.putHeader(&h)
}

func (d *Device) putHeader(h *header) error {
	h.put(&d.rx.header)
	return d.rx.chain.WriteAt(d.rx.header[:], 0)
}

// packet is the next one of a connection: what has to be said first, then data,
// of which there is room for so many bytes. mu is held.
func (c *conn) packet() (h header, room uint32) {
	h = c.header()
	for _, op := range [...]uint16{opReset, opRequest, opResponse, opShutdown, opCreditRequest, opCreditUpdate} {
		if c.pending&(1<<op) == 0 {
			continue
		}
		c.pending &^= 1 << op
		h.op = op
		switch op {
		case opReset:
			c.d.forget(c)
			return h, 0
		case opShutdown:
			h.flags = c.said
		}
		if c.pending != 0 || c.readable {
			c.d.enqueue(c)
		}
		return h, 0
	}
	if c.state != stateOpen || !c.readable {
		return h, 0
	}
	if room = min(c.credit(), maxPacket); room > 0 {
		h.op = opRW
	} else if !c.asked {
		// A guest says by itself that it has room again; but it is asked, in
		// case it has said so before it was known that it had to.
		c.asked = true
		h.op = opCreditRequest
	}
	return h, room
}

// header is what the packets of a connection have in common.
func (c *conn) header() header {
	return header{
		srcCID: hostCID, dstCID: c.d.options.CID, srcPort: c.key.host, dstPort: c.key.guest,
		kind: typeStream, bufAlloc: c.out.window, fwdCnt: c.out.forwarded.Load(),
	}
}

// fillData reads from a connection's socket into the chain.
func (d *Device) fillData(c *conn, h *header, room uint32) (n uint32, err error) {
	w := &d.rx
	room = uint32(min(uint64(room), w.chain.WriteLen-headerSize))
	if w.vectors, err = w.chain.WriteVectors(w.vectors[:0], headerSize, uint64(room)); err != nil {
		return 0, err
	}
	n, failed := c.in.read(w.vectors)
	w.chain.MarkWritten(headerSize, uint64(n))
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case c.state != stateOpen:
		return 0, nil // while it was read
	case n > 0:
		h.length = n
		c.sent += n
		d.counts.rxBytes.Add(uint64(n))
		if n == room {
			d.enqueue(c)
			return n, nil
		}
	case errors.Is(failed, unix.EAGAIN):
	case failed != nil:
		d.abort(c) // the host's program has closed it without reading all
		return 0, nil
	default:
		c.ended = true
	}
	c.readable = false
	c.proceed <- struct{}{} // has room: the watcher waits for this
	return n, nil
}
