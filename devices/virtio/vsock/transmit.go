package vsock

import (
	"fmt"

	"microvm/devices/virtio"
)

// serveTransmit takes what the guest sends.
func (d *Device) serveTransmit(q *virtio.Queue) error {
	w := &d.tx
	for {
		ok, err := q.Next(&w.chain)
		if !ok {
			return err
		}
		d.counts.txPackets.Add(1)
		if err := d.take(w); err != nil {
			return err
		}
		if err := q.Push(&w.chain, 0); err != nil {
			return err
		}
	}
}

// take does what a packet says. An error means that the guest's memory cannot be
// had; a packet that breaks the rules costs its connection.
func (d *Device) take(w *work) error {
	if w.chain.ReadLen < headerSize {
		d.counts.errors.Add(1)
		return nil
	}
	if !w.chain.Whole() {
		w.chain.Request() // header and payload at once: the next packet waits for this one
	}
	if err := w.chain.ReadAt(w.header[:], 0); err != nil {
		return err
	}
	h := parseHeader(&w.header)
	d.mu.Lock()
	c, data := d.handle(&h, w.chain.ReadLen-headerSize)
	d.mu.Unlock()
	if !data {
		return nil
	}
	d.counts.txBytes.Add(uint64(h.length))
	return c.out.take(w, h.length)
}

// handle does what a packet says, but for its payload: data says that it has to
// be taken. mu is held.
func (d *Device) handle(h *header, payload uint64) (c *conn, data bool) {
	switch {
	case h.srcCID != d.options.CID:
		d.counts.errors.Add(1) // an answer would go to another guest
		return nil, false
	case h.dstCID != hostCID || h.kind != typeStream:
		d.refuse(h)
		return nil, false
	}
	c = d.conns[key{guest: h.srcPort, host: h.dstPort}]
	switch {
	case c == nil && h.op == opRequest:
		d.request(h)
		return nil, false
	case c == nil:
		d.refuse(h)
		return nil, false
	case h.op == opReset:
		if c.state == stateOpen && c.said|c.heard != shutBoth {
			d.counts.resets.Add(1)
		}
		d.finish(c, false)
		return nil, false
	case c.state == stateDying:
		return nil, false // it will hear of it
	}
	c.learn(h)
	switch {
	case h.op == opResponse && c.state == stateAsking:
		c.answered()
	case h.op == opShutdown:
		c.hear(h.flags)
	case h.op == opCreditUpdate && c.state == stateOpen:
	case h.op == opCreditRequest && c.state == stateOpen:
		c.say(opCreditUpdate)
	case h.op == opRW && c.state == stateOpen && c.heard&shutSend == 0 &&
		uint64(h.length) <= payload && h.length <= c.out.window-(c.received-c.out.forwarded.Load()):
		c.received += h.length
		return c, true
	default:
		d.violate(c)
	}
	return nil, false
}

// refuse answers a packet that is of no connection. mu is held.
func (d *Device) refuse(h *header) {
	switch {
	case h.op == opReset:
		return // or two that know nothing would tell each other for ever
	case h.op == opRequest:
		d.counts.refused.Add(1)
	}
	if len(d.orphans) == maxOrphans {
		d.counts.unanswered.Add(1)
		return
	}
	d.orphans = append(d.orphans, h.refusal())
	d.wakeReceiver()
}

// request is a guest that connects. mu is held.
func (d *Device) request(h *header) {
	if d.listener == nil || !d.takeSlot() {
		d.refuse(h)
		return
	}
	c := d.newConn(key{guest: h.srcPort, host: h.dstPort}, stateDialing)
	c.learn(h)
	go c.dial(fmt.Sprintf("%s_%d", d.options.Path, h.dstPort))
}

// answered is a guest that takes the connection that a program of the host wants.
// mu is held.
func (c *conn) answered() {
	c.timer.Stop()
	c.state = stateOpen
	c.d.counts.fromHost.Add(1)
	if err := c.out.say(fmt.Appendf(nil, "OK %d\n", c.key.host)); err != nil {
		c.d.finish(c, true) // the program has gone
		return
	}
	c.proceed <- struct{}{}
}

// hear is a guest that receives, or sends, no more. mu is held.
func (c *conn) hear(flags uint32) {
	c.heard |= flags & shutBoth
	switch {
	case c.heard == shutBoth || c.state != stateOpen:
		c.d.finish(c, true) // a reset is the answer to the last shutdown
	case flags&shutReceive != 0:
		_ = c.out.host.CloseRead()
	case flags&shutSend != 0:
		c.out.shutSend()
	}
}
