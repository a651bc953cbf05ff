package migration

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"sync"
	"testing"

	"microvm/migration/wire"
)

// leg is one direction of one channel.
type leg struct {
	role wire.Role
	back bool // from the destination to the source
}

// point is a message on its way: the nth of its name on its leg, from 1 on.
type point struct {
	leg  leg
	name string
	nth  int
}

// Where a message goes.
var (
	mainLeg    = leg{role: wire.RoleMain}
	returnLeg  = leg{role: wire.RoleMain, back: true}
	urgentLeg  = leg{role: wire.RoleUrgent}
	urgentBack = leg{role: wire.RoleUrgent, back: true}
)

func (p point) String() string {
	return p.leg.role.String() + map[bool]string{false: " > ", true: " < "}[p.leg.back] + p.name + " " + string(rune('0'+p.nth))
}

// proxy stands between a source and a destination, on real sockets, and takes
// what passes apart into messages.
type proxy struct {
	middle
	// act is called with each message before it is passed on, one at a time.
	// It may change the bytes, and says how many of them go on and whether
	// every connection is cut after them.
	act func(at point, message []byte) (pass int, cut bool)

	mu     sync.Mutex
	done   bool // cut
	counts map[point]int
	conns  []net.Conn
}

// newProxy starts a proxy in front of target.
func newProxy(t *testing.T, target Address, act func(at point, message []byte) (pass int, cut bool)) (*proxy, Address) {
	t.Helper()
	p := &proxy{act: act, counts: map[point]int{}}
	return p, p.stand(t, target, p.carry, p.cut)
}

// cut closes everything, for good.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done = true
	p.ln.Close()
	for _, c := range p.conns {
		c.Close()
	}
}

// saw tells whether a message has come.
func (p *proxy) saw(at point) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.counts[point{leg: at.leg, name: at.name}] >= at.nth
}

// owns takes connections to close at the cut, unless that has been.
func (p *proxy) owns(conns ...net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.conns = append(p.conns, conns...)
	return !p.done
}

// carry serves one channel.
func (p *proxy) carry(src, dst net.Conn) {
	if !p.owns(src, dst) {
		return
	}
	in := bufio.NewReader(src)
	hello, err := wire.ReadHello(in)
	there := leg{role: hello.Role}
	if err != nil || !p.pass(dst, there, "hello", hello.Append(nil)) {
		return
	}
	p.served.Go(func() {
		defer src.Close()
		defer dst.Close()
		p.carryBack(dst, src, leg{hello.Role, true})
	})
	for {
		var message bytes.Buffer
		tee := io.TeeReader(in, &message)
		h, err := wire.ReadHeader(tee)
		if err != nil {
			return
		}
		if _, err := wire.ReadBody(tee, h); err != nil || !p.pass(dst, there, h.Type.String(), message.Bytes()) {
			return
		}
	}
}

// carryBack serves the way back of one channel.
func (p *proxy) carryBack(from, to net.Conn, l leg) {
	in := bufio.NewReader(from)
	w, err := wire.ReadWelcome(in)
	if err != nil || !p.pass(to, l, "welcome", w.Append(nil)) {
		return
	}
	if l.role != wire.RoleMain {
		io.Copy(io.Discard, in)
		return
	}
	buf := make([]byte, wire.MaxReturnBody)
	for {
		var message bytes.Buffer
		typ, _, err := wire.ReadReturn(io.TeeReader(in, &message), buf)
		if err != nil || !p.pass(to, l, typ.String(), message.Bytes()) {
			return
		}
	}
}

// pass passes a message on, as far as act lets it.
func (p *proxy) pass(to net.Conn, l leg, name string, message []byte) bool {
	p.mu.Lock()
	if p.done {
		p.mu.Unlock()
		return false
	}
	at := point{leg: l, name: name}
	p.counts[at]++
	at.nth = p.counts[at]
	n, cut := p.act(at, message)
	p.done = cut
	p.mu.Unlock()
	_, err := to.Write(message[:n])
	if cut {
		p.cut()
	}
	return err == nil && !cut
}
