package vsock

import (
	"net"
	"syscall"
	"time"
)

type connState int

const (
	stateAsking  connState = iota // a program of the host waits for the guest's answer
	stateDialing                  // the guest waits for ours
	stateOpen
	stateDying // the guest has to be told, and nothing else
	stateGone
)

// A conn is one connection. Its fields are guarded by Device.mu unless they say
// otherwise.
type conn struct {
	d   *Device
	key key

	state   connState
	pending uint16 // bit N: a packet of operation N has to be sent
	queued  bool   // it is in Device.ready
	next    *conn  // there
	holds   int    // why it holds its slot: the table, the outlet
	timer   *time.Timer

	// To the guest. The source is read by the receive queue's worker alone.
	in           source
	readable     bool   // there is something in the socket, or its end
	ended        bool   // that was its end
	asked        bool   // for credit
	sent         uint32 // bytes, ever, as all counts of credit
	alloc, taken uint32 // the guest's buffer, and what it has taken from it
	said         uint32 // flags of shutdown that the guest is, or is to be, told

	// To the host.
	out outlet
	// received and heard are the transmit queue's worker's: bytes, and flags
	// of shutdown.
	received uint32
	heard    uint32

	// proceed has the watcher look at the socket again; done ends it.
	proceed chan struct{}
	done    chan struct{}
}

// newConn makes a connection that holds the slot that its caller has. mu is held.
func (d *Device) newConn(k key, state connState) *conn {
	c := &conn{d: d, key: k, state: state, holds: 1, proceed: make(chan struct{}, 1), done: make(chan struct{})}
	c.out.window = fullWindow
	if d.slots > manyConnections {
		c.out.window = smallWindow
	}
	c.out.c = c
	d.conns[k] = c
	return c
}

// attach gives a connection its socket. mu is held.
func (c *conn) attach(host *net.UnixConn, raw syscall.RawConn) {
	c.in.init(raw)
	c.out.init(host, raw)
	c.holds++
}

// say has a packet sent to the guest. mu is held.
func (c *conn) say(op uint16) {
	c.pending |= 1 << op
	c.d.enqueue(c)
}

// credit is how many bytes the guest has room for. mu is held.
func (c *conn) credit() uint32 {
	if under := c.sent - c.taken; under < c.alloc {
		return c.alloc - under
	}
	return 0 // whatever the guest says
}

// learn takes over what each packet says of credit. mu is held.
func (c *conn) learn(h *header) {
	c.alloc, c.taken = h.bufAlloc, h.fwdCnt
	if c.credit() > 0 {
		c.asked = false
		if c.readable {
			c.d.enqueue(c)
		}
	}
}

// shut has the guest told that the host receives, or sends, no more. mu is held.
func (c *conn) shut(flags uint32) {
	if c.state != stateOpen || c.said|flags == c.said {
		return
	}
	c.said |= flags
	c.say(opShutdown)
	if c.said == shutBoth {
		c.expire(stateOpen, c.d.options.closing)
	}
}

// expire ends the connection if it is still in a state after a while. mu is held.
func (c *conn) expire(state connState, after time.Duration) {
	c.timer = time.AfterFunc(after, func() {
		c.d.mu.Lock()
		defer c.d.mu.Unlock()
		if c.state == state {
			c.d.finish(c, true)
		}
	})
}

// finish ends a connection: what the guest has sent still goes to the host. tell
// has the guest told, for which it keeps its place in the table. mu is held.
func (d *Device) finish(c *conn, tell bool) {
	switch c.state {
	case stateGone:
		return
	case stateDying:
		if !tell {
			d.forget(c)
		}
		return
	case stateAsking, stateDialing:
		d.counts.refused.Add(1)
	}
	if c.timer != nil {
		c.timer.Stop()
	}
	close(c.done)
	c.state, c.pending, c.readable = stateDying, 0, false
	if c.out.host != nil {
		d.closing[c] = struct{}{}
		if c.out.end() {
			d.closed(c)
		}
	}
	if tell {
		c.say(opReset)
	} else {
		d.forget(c)
	}
}

// forget takes a connection out of the table. mu is held.
func (d *Device) forget(c *conn) {
	c.state, c.pending = stateGone, 0
	delete(d.conns, c.key)
	d.letGo(c)
}

// closed is a connection whose socket is closed. mu is held.
func (d *Device) closed(c *conn) {
	delete(d.closing, c)
	d.letGo(c)
}

// letGo gives the slot back when nothing of the connection is left. mu is held.
func (d *Device) letGo(c *conn) {
	if c.holds--; c.holds == 0 {
		d.slots--
	}
}

// takeSlot makes room for a connection, if there is some. mu is held.
func (d *Device) takeSlot() bool {
	if d.slots >= MaxConnections {
		return false
	}
	d.slots++
	return true
}

// violate ends a connection whose guest breaks the rules. mu is held.
func (d *Device) violate(c *conn) {
	d.counts.errors.Add(1)
	d.abort(c)
}

// abort ends a connection that neither side has closed. mu is held.
func (d *Device) abort(c *conn) {
	if c.state == stateOpen {
		d.counts.resets.Add(1)
	}
	d.finish(c, true)
}

// A list is a queue of connections.
type list struct{ first, last *conn }

// enqueue puts a connection at the end of those that have something for the
// guest, and sees to it that somebody looks. mu is held.
func (d *Device) enqueue(c *conn) {
	if c.queued {
		return
	}
	c.queued, c.next = true, nil
	if d.ready.first == nil {
		d.ready.first = c
	} else {
		d.ready.last.next = c
	}
	d.ready.last = c
	d.wakeReceiver()
}

// dequeue takes the first, nil if there is none. mu is held.
func (d *Device) dequeue() *conn {
	c := d.ready.first
	if c != nil {
		d.ready.first, c.next, c.queued = c.next, nil, false
	}
	return c
}
