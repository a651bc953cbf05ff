package vsock

import (
	"encoding/binary"
	"io"
	"net"
	"strings"
	"testing"

	"microvm/devices/virtio/virtiotest"
)

// TestAGuestThatBreaksTheRulesLosesItsConnection, and no other one.
func TestAGuestThatBreaksTheRulesLosesItsConnection(t *testing.T) {
	r := newRig(t)
	well, c := r.pair(79)
	for name, break_ := range map[string]func(l *link) header{
		"more than it may":   func(l *link) header { h := l.header(opRW); h.length = fullWindow + 1; return h },
		"more than there is": func(l *link) header { h := l.header(opRW); h.length = 9; return h },
		"a second request":   func(l *link) header { return l.header(opRequest) },
		"a response":         func(l *link) header { return l.header(opResponse) },
		"no operation":       func(l *link) header { return l.header(opInvalid) },
		"another operation":  func(l *link) header { return l.header(77) },
		"after its end": func(l *link) header {
			l.do(opShutdown, shutSend)
			h := l.header(opRW)
			h.length = 1
			return h
		},
	} {
		t.Run(name, func(t *testing.T) {
			p := r.program(80)
			l := &link{r: r, guest: 5, host: 80, window: 100}
			l.do(opRequest, 0)
			r.expect(opResponse)
			victim := r.accept(p)
			p.Close()
			r.send(break_(l), make([]byte, 8))
			r.expect(opReset)
			ends(t, victim)
		})
	}
	// Packets that are of no connection.
	l := &link{r: r, guest: 6, host: 81}
	for _, op := range []uint16{opInvalid, opResponse, opShutdown, opRW, opCreditUpdate, opCreditRequest, 77} {
		l.do(op, 0)
		if h := r.expect(opReset); h.srcPort != 81 || h.dstPort != 6 {
			t.Errorf("%+v", h)
		}
	}
	l.do(opReset, 0) // has no answer
	h := l.header(opRequest)
	h.dstCID = 3
	r.send(h, nil)
	if h := r.expect(opReset); h.srcCID != 3 {
		t.Errorf("%+v", h)
	}
	h = l.header(opRequest)
	h.kind = 2 // SEQPACKET
	r.send(h, nil)
	if h := r.expect(opReset); h.kind != 2 {
		t.Errorf("%+v", h)
	}
	h = l.header(opRequest)
	h.srcCID = 3 // another guest's: no answer
	r.send(h, nil)
	r.tx.Do(txArena, virtiotest.Buf{Data: make([]byte, headerSize-1)})
	r.counted(map[string]uint64{"errors": 9})
	well.write([]byte("still here"))
	if got := read(t, c, 10); string(got) != "still here" {
		t.Errorf("%q", got)
	}
}

// TestCreditThatIsNoneIsNotBelieved: whatever a guest says of its buffer, it
// gets no more than it has buffers for, and nothing breaks.
func TestCreditThatIsNoneIsNotBelieved(t *testing.T) {
	r := newRig(t)
	l, c := r.pair(80)
	l.window, l.taken = 1<<32-1, 1<<31
	l.do(opCreditUpdate, 0)
	if _, err := io.WriteString(c, "abc"); err != nil {
		t.Fatal(err)
	}
	l.r.receive()
	l.window, l.taken = 10, 1<<32-100 // it took what it never got
	l.do(opCreditUpdate, 0)
	if _, err := io.WriteString(c, "def"); err != nil {
		t.Fatal(err)
	}
	r.expect(opCreditRequest)
	l.taken = 3
	l.do(opCreditUpdate, 0)
	if got := l.read(3); string(got) != "def" {
		t.Errorf("%q", got)
	}
}

// TestAnswersThatNobodyTakesAreBounded: a guest that makes no room to receive
// and goes on sending costs nothing more.
func TestAnswersThatNobodyTakesAreBounded(t *testing.T) {
	r := newRig(t)
	r.Set(0x70, 0)
	r.init(0)
	l := &link{r: r, guest: 6}
	for l.host = range uint32(maxOrphans + 10) {
		l.do(opRW, 0)
	}
	r.counted(map[string]uint64{"unanswered": 10})
	for l.host = range uint32(MaxConnections + 10) {
		l.do(opRequest, 0)
	}
	r.counted(map[string]uint64{"unanswered": 20, "connections": MaxConnections})
	// They come when there is room.
	for i := range uint64(8) {
		r.post(rxArena + i*rxRoom)
	}
	r.rx.Kick()
	for range maxOrphans + MaxConnections {
		r.expect(opReset)
	}
	r.counted(map[string]uint64{"connections": 0})
}

// TestAReceiveBufferOfNoUseStopsTheDevice until it is reset.
func TestAReceiveBufferOfNoUseStopsTheDevice(t *testing.T) {
	r := newRig(t)
	r.Set(0x70, 0)
	r.init(0)
	r.rx.Add(rxArena, 0, -1, virtiotest.Buf{Room: headerSize})
	r.rx.Kick()
	var b [headerSize]byte
	h := (&link{r: r, guest: 6}).header(opRW)
	h.put(&b)
	r.tx.Add(txArena, 0, -1, virtiotest.Buf{Data: b[:]})
	r.tx.Kick()
	virtiotest.Until(t, "it needs a reset", func() bool { return r.Get(0x70)&64 != 0 })
	r.Set(0x70, 0)
	r.init(8)
	r.connectAndTalk(t, 80)
}

// connectAndTalk checks that it works.
func (r *rig) connectAndTalk(t *testing.T, port uint32) {
	t.Helper()
	l, c := r.pair(port)
	l.write([]byte("ping"))
	if got := read(t, c, 4); string(got) != "ping" {
		t.Errorf("%q", got)
	}
	if _, err := io.WriteString(c, "pong"); err != nil {
		t.Fatal(err)
	}
	if got := l.read(4); string(got) != "pong" {
		t.Errorf("%q", got)
	}
}

// FuzzHostileDriver plays a guest whose packets, queues and memory are anything.
// A step is a kind and 44 bytes: a packet, or where in memory to put what.
func FuzzHostileDriver(f *testing.F) {
	packet := func(op uint16, host, length, flags uint32) []byte {
		l := &link{guest: 9, host: host, window: 100}
		h := l.header(op)
		h.length, h.flags = length, flags
		var b [headerSize]byte
		h.put(&b)
		return append([]byte{0}, b[:]...)
	}
	poke := func(at uint64, v uint64) []byte {
		b := make([]byte, 1+headerSize)
		b[0] = 1
		binary.LittleEndian.PutUint64(b[1:], at)
		binary.LittleEndian.PutUint64(b[9:], v)
		return b
	}
	join := func(steps ...[]byte) (all []byte) {
		for _, s := range steps {
			all = append(all, s...)
		}
		return all
	}
	f.Add(join(packet(opRequest, 80, 0, 0), packet(opRW, 80, 20, 0), packet(opShutdown, 80, 0, shutSend), packet(opShutdown, 80, 0, shutBoth)))
	f.Add(join(packet(opRequest, 80, 0, 0), packet(opRequest, 80, 0, 0), packet(opRW, 80, 1<<31, 0)))
	f.Add(join(packet(opRequest, 1, 0, 0), packet(opReset, 1, 0, 0), packet(opCreditRequest, 80, 0, 0)))
	f.Add(join(packet(opRequest, 80, 0, 0), poke(0x1000, 1<<40), poke(0x1400, 0xFFFF_FFFF)))
	f.Fuzz(func(t *testing.T, steps []byte) {
		r := newRig(t)
		p := r.program(80)
		go func() {
			for {
				c, err := p.AcceptUnix()
				if err != nil {
					return
				}
				go func() {
					defer c.Close()
					_, _ = io.CopyN(c, c, 100) // the guest may be gone
				}()
			}
		}()
		host, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: r.path, Net: "unix"})
		if err != nil {
			t.Fatal(err)
		}
		defer host.Close()
		if _, err := io.WriteString(host, "CONNECT 9\n"+strings.Repeat("x", 1000)); err != nil {
			t.Fatal(err)
		}
		var b [headerSize + 64]byte
		for len(steps) >= 1+headerSize && len(steps) < 4096 {
			copy(b[:], steps[1:1+headerSize])
			switch steps[0] % 4 {
			case 0:
				if r.tx.Free() == 0 {
					break
				}
				r.tx.Add(txArena, 0, -1, virtiotest.Buf{Data: b[:]})
				r.Set(0x50, queueTransmit)
			case 1:
				if err := r.Mem.WriteAt(b[8:16], binary.LittleEndian.Uint64(b[:])%(64<<10)); err != nil {
					t.Fatal(err)
				}
				for q := range uint32(3) {
					r.Set(0x50, q)
				}
			case 2:
				r.Set(uint64(b[0])*4, binary.LittleEndian.Uint32(b[4:]))
			case 3:
				r.mmio.Device().Hold()
				if state, err := r.mmio.Save(); err != nil || r.mmio.Load(r.mmio.Version(), state) != nil {
					t.Errorf("save and load: %v", err)
				}
				r.mmio.Device().Release()
			}
			steps = steps[1+headerSize:]
		}
		r.Set(0x70, 0)
		if n := r.d.open(); n > MaxConnections {
			t.Errorf("%d connections", n)
		}
		r.init(16)
		l := &link{r: r, guest: 77, host: 80, window: 4096}
		l.do(opRequest, 0)
		for op := uint16(0); op != opResponse; { // others ask for the guest, too
			h, _ := r.receive()
			op = h.op
		}
	})
}

// FuzzGreeting: what a program of the host says.
func FuzzGreeting(f *testing.F) {
	f.Add("CONNECT 52")
	f.Add("connect 4294967295\r")
	f.Add("CONNECT -1")
	f.Fuzz(func(t *testing.T, line string) {
		port, err := parseGreeting(line)
		if err == nil && !strings.Contains(line, " ") {
			t.Errorf("%q is port %d", line, port)
		}
	})
}
