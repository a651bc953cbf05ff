package model

import "strings"

// message is one of those that ownership hangs on. Pages and what belongs to
// them are left out.
type message uint8

const (
	none message = iota
	// Forward.
	setup // OPEN_RETURN_PATH, CONFIG, POSTCOPY_ADVISE, PING
	packaged
	run
	partOfRun // the first bytes of POSTCOPY_RUN; the rest never comes
	cancel
	resume
	complete
	end
	// Return path.
	pong
	loaded
	running
	failed
	ackLoaded  // RECV_BITMAP..., RESUME_ACK: the guest does not run here
	ackRunning // RECV_BITMAP..., RESUME_ACK: it does
	shut
)

var messageNames = [...]string{
	"-", "CONFIG", "PACKAGED", "RUN", "part of RUN", "CANCEL", "RESUME", "COMPLETE", "END",
	"PONG", "LOADED", "RUNNING", "FAILED", "ACK(loaded)", "ACK(running)", "SHUT",
}

func (m message) String() string { return messageNames[m] }

// queue is what is on its way in one direction, oldest first.
type queue [3]message

func (q queue) head() message { return q[0] }

func (q queue) len() int {
	n := 0
	for n < len(q) && q[n] != none {
		n++
	}
	return n
}

func (q *queue) push(m message) { q[q.len()] = m }

func (q *queue) pop() { *q = queue{q[1], q[2]} }

// first keeps the first n messages: the rest is lost.
func (q queue) first(n int) queue {
	for i := n; i < len(q); i++ {
		q[i] = none
	}
	return q
}

func (q queue) String() string {
	var names []string
	for _, m := range q[:q.len()] {
		names = append(names, m.String())
	}
	return strings.Join(names, ",")
}

// connection is all channels of one session, as one: they are opened together,
// and when one of them breaks its reader closes the others.
type connection struct {
	open      bool  // there is such a connection; otherwise all is zero
	forward   queue // to the destination
	back      queue // to the source
	srcClosed bool  // the source has closed it
	dstClosed bool
	// cut: what is written from now on is lost, and each end notices at
	// some time, after it has read what had arrived.
	cut bool
}

// send puts m on its way to the destination, or loses it.
func (c *connection) send(m message) {
	if c.open && !c.srcClosed && !c.dstClosed && !c.cut {
		c.forward.push(m)
	}
}

// reply puts m on its way to the source, or loses it.
func (c *connection) reply(m message) {
	if c.open && !c.srcClosed && !c.dstClosed && !c.cut {
		c.back.push(m)
	}
}

// brokenAtSource tells whether the source may notice that it is broken: all
// that arrived is read.
func (c connection) brokenAtSource() bool {
	return c.srcClosed || c.back.len() == 0 && (c.dstClosed || c.cut)
}

// brokenAtDestination is the same for the other end, whose reader may also sit
// in the middle of a message.
func (c connection) brokenAtDestination() bool {
	ended := c.srcClosed || c.dstClosed || c.cut
	switch {
	case c.forward.len() == 0:
		return ended
	case c.forward.head() == partOfRun:
		return ended || c.forward.len() > 1 // a header made of two halves
	}
	return false
}

func (c connection) String() string {
	var parts []string
	if c.forward.len() > 0 {
		parts = append(parts, c.forward.String()+" >")
	}
	if c.back.len() > 0 {
		parts = append(parts, "< "+c.back.String())
	}
	switch {
	case c.srcClosed && c.dstClosed:
		parts = append(parts, "closed")
	case c.srcClosed:
		parts = append(parts, "closed by the source")
	case c.dstClosed:
		parts = append(parts, "closed by the destination")
	case c.cut:
		parts = append(parts, "cut")
	}
	return strings.Join(parts, "  ")
}

// networkMoves are cuts: any connection, at any time, with any end lost of
// what is on its way.
func (b *builder) networkMoves() {
	for i, c := range b.s.conns {
		if !c.open || c.cut {
			continue
		}
		for f := 0; f <= c.forward.len(); f++ {
			for k := 0; k <= c.back.len(); k++ {
				name := "network: cut"
				if lost := lostBy(c, f, k); lost != "" {
					name += ", lost: " + lost
				}
				b.trouble(name, func(s *state) {
					s.conns[i].cut = true
					s.conns[i].forward = c.forward.first(f)
					s.conns[i].back = c.back.first(k)
				})
			}
		}
	}
}

func lostBy(c connection, forward, back int) string {
	var names []string
	for _, m := range c.forward[forward:c.forward.len()] {
		names = append(names, m.String())
	}
	for _, m := range c.back[back:c.back.len()] {
		names = append(names, m.String())
	}
	return strings.Join(names, ", ")
}
