package net

import (
	"bytes"
	"encoding/binary"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"microvm/devices/virtio"
	"microvm/devices/virtio/virtiotest"
	"microvm/memslot"
)

const (
	ramSize = 8 << 20
	// arena is where the driver's buffers are, and roomArena those that it
	// has frames put into.
	arena     = 1 << 20
	roomArena = 2 << 20
)

var testMAC = [6]byte{2, 0, 0, 1, 2, 3}

// wires is a Tap whose other ends the test has: sockets that keep frames
// apart, as a tap device does.
type wires struct {
	files []*os.File
	ends  []*os.File // the test's

	mu      sync.Mutex
	offload int // guarded by mu
	used    int // guarded by mu
}

func newWires(t testing.TB, n int) *wires {
	t.Helper()
	w := &wires{}
	for range n {
		pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		w.files = append(w.files, os.NewFile(uintptr(pair[0]), "tap"))
		end := os.NewFile(uintptr(pair[1]), "wire")
		t.Cleanup(func() { end.Close() })
		w.ends = append(w.ends, end)
	}
	return w
}

func (w *wires) Files() []*os.File { return w.files }

func (w *wires) SetOffload(flags int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.offload = flags
	return nil
}

func (w *wires) UseQueues(n int) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.used = n
	return nil
}

func (w *wires) Close() error {
	var errs []error
	for _, f := range w.files {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}

// state is what the device has told the tap.
func (w *wires) state() (offload, used int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.offload, w.used
}

// put sends a frame to the guest, with an empty header.
func (w *wires) put(t testing.TB, pair int, frame []byte) {
	t.Helper()
	w.putRaw(t, pair, append(make([]byte, headerSize), frame...))
}

func (w *wires) putRaw(t testing.TB, pair int, b []byte) {
	t.Helper()
	if _, err := w.ends[pair].Write(b); err != nil {
		t.Fatal(err)
	}
}

// get waits for a frame of the guest's, and gives it with its header.
func (w *wires) get(t testing.TB, pair int) []byte {
	t.Helper()
	b := make([]byte, maxFrame)
	if err := w.ends[pair].SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	n, err := w.ends[pair].Read(b)
	if err != nil {
		t.Fatalf("no frame comes out: %v", err)
	}
	return b[:n]
}

// unread says whether there are frames in a file that nobody has read.
func unread(t testing.TB, f *os.File) bool {
	t.Helper()
	conn, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	var failed error
	if err := conn.Control(func(fd uintptr) { n, failed = unix.IoctlGetInt(int(fd), unix.SIOCINQ) }); err != nil {
		t.Fatal(err)
	}
	if failed != nil {
		t.Fatal(failed)
	}
	return n > 0
}

// rig is a network card on a machine without vCPUs, and its driver.
type rig struct {
	*virtiotest.Driver
	wires  *wires
	net    *Net
	mmio   *virtio.MMIO
	block  *memslot.Block
	rx, tx []*virtiotest.Queue
	ctrl   *virtiotest.Queue
	rooms  uint64 // where the next buffer for a frame is
}

// newMMIO is a held card that ends with the test.
func newMMIO(t testing.TB, w *wires, mem *memslot.Memory, irq virtiotest.IRQ) (*virtio.MMIO, *Net) {
	t.Helper()
	return newMMIOOn(t, w, len(w.files), mem, irq)
}

func newMMIOOn(t testing.TB, tap Tap, pairs int, mem *memslot.Memory, irq virtiotest.IRQ) (*virtio.MMIO, *Net) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	n, err := NewNet(tap, Options{MAC: testMAC, MTU: DefaultMTU, Pairs: pairs, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	return virtiotest.NewMMIO(t, "net0", n, mem, irq, log), n
}

// newRig has a driver take all features but those in without.
func newRig(t testing.TB, pairs int, without uint64) *rig {
	t.Helper()
	mem, block := virtiotest.NewMemory(t, ramSize)
	irq := virtiotest.NewIRQ()
	w := newWires(t, pairs)
	m, n := newMMIO(t, w, mem, irq)
	r := &rig{Driver: virtiotest.NewDriver(t, m, mem, 4096, irq), wires: w, net: n, mmio: m, block: block}
	m.Device().Release()
	r.drive(r.Offered() &^ without)
	return r
}

// drive takes the card over.
func (r *rig) drive(features uint64) {
	r.T.Helper()
	r.Init(features)
	r.rooms = roomArena
	r.rx, r.tx, r.ctrl = nil, nil, nil
	pairs := 1
	if features&featurePairs != 0 {
		pairs = len(r.wires.files)
	}
	for i := range pairs {
		r.rx = append(r.rx, r.NewQueue(uint32(2*i), 256))
		r.tx = append(r.tx, r.NewQueue(uint32(2*i+1), 64))
	}
	if features&featureControl != 0 {
		r.ctrl = r.NewQueue(uint32(2*pairs), 16)
	}
	r.OK()
}

// room makes n buffers of so many bytes available for frames.
func (r *rig) room(pair, n, size int) {
	r.T.Helper()
	for range n {
		if r.rooms+uint64(size) > ramSize {
			r.rooms = roomArena
		}
		_, r.rooms = r.rx[pair].Add(r.rooms, 0, -1, virtiotest.Buf{Room: size})
	}
	r.rx[pair].Kick()
}

// frame waits for a frame, and puts its buffers together. They are gone then.
func (r *rig) frame(pair int) (header, frame []byte, buffers int) {
	r.T.Helper()
	_, written, data := r.rx[pair].Wait()
	all := append([]byte(nil), data[:written]...)
	n := int(all[headerBuffers]) | int(all[headerBuffers+1])<<8
	for range n - 1 {
		// They come with the first.
		_, written, data, ok := r.rx[pair].Done()
		if !ok {
			r.T.Fatalf("a frame is in %d buffers, and they are not all there", n)
		}
		all = append(all, data[:written]...)
	}
	return all[:headerSize], all[headerSize:], n
}

// send has the card send a frame, header and all, in pieces.
func (r *rig) send(pair int, pieces ...[]byte) {
	r.T.Helper()
	var bufs []virtiotest.Buf
	for _, p := range pieces {
		bufs = append(bufs, virtiotest.Buf{Data: p})
	}
	r.tx[pair].Add(arena, 3, -1, bufs...)
	r.tx[pair].Kick()
	r.tx[pair].Wait()
}

// command gives the control queue's answer.
func (r *rig) command(b ...byte) byte {
	r.T.Helper()
	_, answer := r.ctrl.Do(arena, virtiotest.Buf{Data: b}, virtiotest.Buf{Room: 1})
	return answer[0]
}

// counted checks how many frames of a sort came through, were dropped, and were
// wrong.
func (r *rig) counted(frames, drops, errors uint64, sort string) {
	r.T.Helper()
	counts := r.net.Counts()
	c, dropped := counts.Of(sort), counts.Counters[sort+"_drops"]
	if c.Requests-c.Errors != frames || c.Errors != errors || dropped != drops {
		r.T.Errorf("%s: %+v, %d drops; want %d frames, %d drops, %d errors", sort, c, dropped, frames, drops, errors)
	}
}

// randomBytes are a frame that cannot be mistaken for another one.
func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, 0, n+8)
	for len(b) < n {
		b = binary.LittleEndian.AppendUint64(b, r.Uint64())
	}
	return b[:n]
}

func checkFrame(t testing.TB, what string, got, want []byte) {
	t.Helper()
	if !bytes.Equal(got, want) {
		t.Fatalf("%s: a frame of %d bytes came out as %d others", what, len(want), len(got))
	}
}
