package vsock

import (
	"io"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"microvm/devices/virtio/virtiotest"
)

// TestAMoveResetsConnectionsAndNothingElse: the programs of the old host get all
// that the guest has sent and the end; the guest is told; new connections work in
// both directions.
func TestAMoveResetsConnectionsAndNothingElse(t *testing.T) {
	r := newRig(t)
	l, c := r.pair(80)
	l.write([]byte("last words"))
	waiting := r.dial("CONNECT 52\n")
	request := r.expect(opRequest)
	r.mmio.Device().Hold()
	state, err := r.mmio.Save()
	if err != nil {
		t.Fatal(err)
	}
	if err := r.d.Leave(); err != nil {
		t.Fatal(err)
	}
	if got := read(t, c, 10); string(got) != "last words" {
		t.Errorf("%q", got)
	}
	ends(t, c)
	ends(t, waiting)
	if _, err := net.Dial("unix", r.path); err == nil {
		t.Error("it listens still")
	}

	// There: the same memory, as it were.
	there := r.arrive(t, state)
	there.event.Add(txArena+1<<20, 0, -1, virtiotest.Buf{Room: eventSize})
	there.event.Kick()
	early := there.dial("CONNECT 52\n")
	if _, n, data := there.event.Wait(); n != eventSize || data[0] != eventTransportReset {
		t.Errorf("event of %d bytes: %v", n, data)
	}
	// A packet that was on its way means nothing any more, and no program gets
	// through to a guest that resets what it has.
	l.r = there
	l.do(opRW, 0)
	there.expect(opReset)
	if _, _, _, ok := there.rx.Done(); ok {
		t.Error("something came before the guest was ready")
	}
	there.Config(0, 8)
	h := there.expect(opRequest)
	if h.srcPort == request.srcPort {
		t.Error("the port of an old connection is used again")
	}
	(&link{r: there, guest: 52, host: h.srcPort, window: 100}).do(opResponse, 0)
	read(t, early, 4)
	there.connectAndTalk(t, 81)
	if _, _, _, ok := there.event.Done(); ok {
		t.Error("a second event")
	}
}

// arrive is a device at another host with the state and the memory of this one,
// and this one's driver.
func (r *rig) arrive(t *testing.T, state []byte) *rig {
	t.Helper()
	there := *r
	m, d, driver := newMMIO(t, Options{Path: r.path})
	memory := make([]byte, ramSize)
	if err := r.Mem.ReadAt(memory, 0); err != nil {
		t.Fatal(err)
	}
	if err := driver.Mem.WriteAt(memory, 0); err != nil {
		t.Fatal(err)
	}
	if err := m.Load(m.Version(), state); err != nil {
		t.Fatal(err)
	}
	there.d, there.mmio = d, m
	// The queues know their driver: it goes over to the new device.
	*r.Driver = *driver
	r.Driver.Features = r.Offered()
	listen(t, d, r.path)
	m.Device().Release()
	return &there
}

// TestAPauseHarmsNoConnection, nor a migration that comes to nothing before the
// guest is handed over.
func TestAPauseHarmsNoConnection(t *testing.T) {
	r := newRig(t)
	l, c := r.pair(80)
	for range 3 {
		r.mmio.Device().Hold()
		if _, err := io.WriteString(c, "while it stood"); err != nil {
			t.Fatal(err)
		}
		if _, err := r.mmio.Save(); err != nil {
			t.Fatal(err)
		}
		r.mmio.Device().Release()
		if got := l.read(14); string(got) != "while it stood" {
			t.Errorf("%q", got)
		}
		l.write([]byte("x"))
		read(t, c, 1)
	}
}

// TestAVMThatIsTakenBackIsReset: its programs were sent away.
func TestAVMThatIsTakenBackIsReset(t *testing.T) {
	r := newRig(t)
	r.event.Add(txArena+1<<20, 0, -1, virtiotest.Buf{Room: eventSize})
	r.event.Kick()
	_, c := r.pair(80)
	r.mmio.Device().Hold()
	if err := r.d.Leave(); err != nil {
		t.Fatal(err)
	}
	ends(t, c)
	r.d.TransportReset()
	listen(t, r.d, r.path)
	r.mmio.Device().Release()
	if _, n, _ := r.event.Wait(); n != eventSize {
		t.Error(n)
	}
	// The guest has begun to connect before it hears.
	p := r.program(82)
	(&link{r: r, guest: 1, host: 82, window: 100}).do(opRequest, 0)
	r.expect(opResponse)
	stale := r.accept(p)
	r.Config(0, 4)
	ends(t, stale)
	r.connectAndTalk(t, 81)
}

// TestADriverThatSaysNothingIsReachedAllTheSame, after a while.
func TestADriverThatSaysNothingIsReachedAllTheSame(t *testing.T) {
	r := newRigWith(t, Options{handshake: 100 * time.Millisecond, closing: time.Second})
	r.mmio.Device().Hold()
	r.d.TransportReset()
	r.mmio.Device().Release()
	r.dial("CONNECT 52\n")
	if h := r.expect(opRequest); h.dstPort != 52 {
		t.Errorf("%+v", h)
	}
	r.expect(opReset) // for nobody answers
	r.connectAndTalk(t, 81)
}

// TestADriverThatGoesTakesItsConnectionsAlong.
func TestADriverThatGoesTakesItsConnectionsAlong(t *testing.T) {
	r := newRig(t)
	_, c := r.pair(80)
	r.Set(0x70, 0)
	ends(t, c)
	r.init(16)
	r.connectAndTalk(t, 81)
	r.counted(map[string]uint64{"connections": 1})
}

func TestAStateThatIsNoneIsRefused(t *testing.T) {
	r := newRig(t)
	good, err := r.d.SaveState()
	if err != nil {
		t.Fatal(err)
	}
	for want, spoil := range map[string]func(b []byte) []byte{
		"15 bytes":  func(b []byte) []byte { return b[:15] },
		"CID 43":    func(b []byte) []byte { b[0]++; return b },
		"next port": func(b []byte) []byte { b[11] = 0; return b },
		"reset 2":   func(b []byte) []byte { b[12] = 2; return b },
		// The port of nobody in particular, after which 0 would follow.
		"next port 4294967295": func(b []byte) []byte { copy(b[8:], "\xff\xff\xff\xff"); return b },
	} {
		if err := r.d.LoadState(spoil(append([]byte(nil), good...))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
	for _, cid := range []uint64{0, 2, MaxCID + 1} {
		if _, err := New(Options{CID: cid}); err == nil {
			t.Errorf("CID %d is taken", cid)
		}
	}
}

// TestAPacketAsksForAllItsPagesAtOnce: while memory is on its way, those of all
// connections wait behind it for one round trip to the source, not for two.
func TestAPacketAsksForAllItsPagesAtOnce(t *testing.T) {
	const far = txArena >> 12
	mem, block := virtiotest.NewMemory(t, ramSize)
	irq, log := virtiotest.NewIRQ(), slog.New(slog.DiscardHandler)
	d, err := New(Options{CID: guestCID, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	m := virtiotest.NewMMIO(t, "vsock0", d, mem, irq, log)
	asked := make(chan uint64, block.Pages())
	if err := block.Expect(func(page uint64) { asked <- page }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { block.Fail(nil) }) // or nothing would end, if the test fails
	block.MarkPresent(0, far)
	driver := virtiotest.NewDriver(t, m, mem, 4096, irq)
	driver.Init(driver.Offered())
	tx := driver.NewQueue(queueTransmit, 16)
	driver.OK()
	m.Device().Release()
	tx.Put(0, virtiotest.Desc{GPA: far << 12, Len: headerSize, Flags: virtiotest.Next, Next: 1})
	tx.Put(1, virtiotest.Desc{GPA: (far + 2) << 12, Len: 9000})
	tx.Offer(0)
	tx.Kick()
	for _, want := range []uint64{far, far + 2, far + 3, far + 4} {
		select {
		case page := <-asked: // none has come yet
			if page != want {
				t.Errorf("page %#x is asked for, want %#x", page, want)
			}
		case <-time.After(patience):
			t.Fatalf("page %#x is not asked for", want)
		}
	}
	block.MarkPresent(far, 5)
	virtiotest.Until(t, "the packet of nobody is counted", func() bool { return d.Counts().Of("transmit").Errors == 1 })
}
