package net

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"microvm/devices/virtio/virtiotest"
)

// move takes the card to another process, with other wires, which it gives.
func (r *rig) move() (before *wires) {
	r.T.Helper()
	r.mmio.Device().Hold()
	state, err := r.mmio.Save()
	if err != nil {
		r.T.Fatal(err)
	}
	before = r.wires
	r.wires = newWires(r.T, len(before.files))
	there, n := newMMIO(r.T, r.wires, r.Mem, r.IRQ)
	// What came here before is not the guest's.
	r.wires.put(r.T, 0, []byte("for somebody else, long ago"))
	if err := there.Load(there.Version(), state); err != nil {
		r.T.Fatal(err)
	}
	r.Regs, r.mmio, r.net = there, there, n
	return before
}

// TestCardGoesOnWhereItMoves: frames that were read and buffers that were taken
// ahead come with it, and nothing is lost or comes twice.
func TestCardGoesOnWhereItMoves(t *testing.T) {
	r := newRig(t, 3, 0)
	r.command(classPairs, pairsSet, 2, 0)
	seed := rand.New(rand.NewPCG(5, 6))
	r.room(0, 60, 1536)
	for i := range 10 {
		want := randomBytes(seed, 60000)
		r.wires.put(t, 0, want) // it may come before the pause, or wait for room
		if i%2 == 0 {
			r.command(99)
		}
		r.tx[1].Add(arena, 0, -1, virtiotest.Buf{Data: append(make([]byte, headerSize), want[:1000]...)})
		r.tx[1].Kick()
		before := r.move()
		if _, used := r.wires.state(); used != 1 {
			t.Errorf("before it runs, %d pairs are used", used)
		}
		r.mmio.Device().Release()
		if offload, used := r.wires.state(); used != 2 || offload == 0 {
			t.Errorf("%d pairs are used there, offload %#x", used, offload)
		}
		r.tx[1].Wait()
		from := r.wires
		if unread(t, before.ends[1]) {
			from = before
		}
		sent := from.get(t, 1)
		if unread(t, before.ends[1]) || unread(t, r.wires.ends[1]) {
			t.Fatal("a frame was sent twice")
		}
		checkFrame(t, "sent", sent[headerSize:], want[:1000])
		r.room(0, 40, 1536)
		// A frame that is still in the tap stays at the source, as on any
		// network: it is sent again.
		if unread(t, before.files[0]) {
			r.wires.put(t, 0, want)
		}
		_, got, _ := r.frame(0)
		checkFrame(t, fmt.Sprintf("round %d", i), got, want)
	}
}

// TestFrameThatWaitsMoves: it was read, so nobody sends it again.
func TestFrameThatWaitsMoves(t *testing.T) {
	r := newRig(t, 1, 0)
	want := randomBytes(rand.New(rand.NewPCG(7, 8)), 40000)
	r.room(0, 2, 1536)
	first := []byte("a frame that there is room for")
	r.wires.put(t, 0, first)
	r.wires.put(t, 0, want)
	_, got, _ := r.frame(0)
	checkFrame(t, "the first", got, first)
	virtiotest.Until(t, "the card has read the frame", func() bool { return !unread(t, r.wires.files[0]) })
	for range 3 {
		r.move()
		r.mmio.Device().Release()
	}
	r.room(0, 40, 1536)
	_, got, _ = r.frame(0)
	checkFrame(t, "the one that waited", got, want)
}

func TestStateOfAnotherCardIsRefused(t *testing.T) {
	r := newRig(t, 2, 0)
	r.mmio.Device().Hold()
	good, err := r.net.SaveState()
	if err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	for want, change := range map[string]func(b []byte) []byte{
		"address":                  func(b []byte) []byte { b[0] ^= 1; return b },
		"MTU 1501":                 func(b []byte) []byte { b[6]++; return b },
		"3 pairs":                  func(b []byte) []byte { b[8] = 3; return b },
		"0 pairs":                  func(b []byte) []byte { b[8] = 0; return b },
		"reserved bits":            func(b []byte) []byte { b[11] = 1; return b },
		"1 bytes follow":           func(b []byte) []byte { return append(b, 0) },
		"before the frame":         func(b []byte) []byte { return b[:len(b)-1] },
		"at least 12":              func(b []byte) []byte { return b[:11] },
		"a frame of 12 bytes":      func(b []byte) []byte { le.PutUint32(b[12:], headerSize); return append(b, make([]byte, 12)...) },
		"a frame of 4294967295":    func(b []byte) []byte { le.PutUint32(b[16:], 1<<32-1); return b },
		fmt.Sprint(maxFrame + 1):   func(b []byte) []byte { le.PutUint32(b[16:], maxFrame+1); return append(b, make([]byte, maxFrame+1)...) },
		"a frame of 20 bytes wait": func(b []byte) []byte { le.PutUint32(b[16:], 20); return append(b, make([]byte, 19)...) },
	} {
		if err := r.net.LoadState(change(bytes.Clone(good))); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q in it", err, want)
		}
	}
	if after, err := r.net.SaveState(); err != nil || !bytes.Equal(after, good) {
		t.Errorf("%v: what was refused has changed it", err)
	}
}

// TestReceivedFramesAreInTheDirtyLog: they have to be sent again.
func TestReceivedFramesAreInTheDirtyLog(t *testing.T) {
	for name, without := range map[string]uint64{"merging": 0, "no merging": featureMergeable} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 1, without)
			if err := r.block.StartDirtyLog(); err != nil {
				t.Fatal(err)
			}
			r.room(0, 1, 8<<10)
			r.room(0, 12, 8<<10)
			r.wires.put(t, 0, make([]byte, 8000))
			r.frame(0)
			r.wires.put(t, 0, make([]byte, 60000)) // without merging it is dropped, and has been written
			r.wires.put(t, 0, []byte("the frame after that"))
			if without == 0 {
				r.frame(0)
			}
			r.frame(0)
			for page := range uint64(4) {
				if !r.block.Dirty().Test(roomArena>>12 + page) {
					t.Errorf("page %d of the buffers is not marked", page)
				}
			}
		})
	}
}

// TestFrameNeedsOnlyThePagesThatItIsPutInto: while memory is on its way,
// buffers that were taken ahead are not waited for.
func TestFrameNeedsOnlyThePagesThatItIsPutInto(t *testing.T) {
	r := newRig(t, 1, 0)
	r.mmio.Device().Hold()
	asked := make(chan uint64, r.block.Pages())
	if err := r.block.Expect(func(page uint64) { asked <- page }); err != nil {
		t.Fatal(err)
	}
	// All is here but the buffers. What Expect gave back is zeros, the
	// queues' areas too: so they are set up anew.
	r.block.MarkPresent(0, roomArena>>12)
	r.mmio.Device().Release()
	r.drive(r.Features)
	for range 60 {
		q := r.rx[0]
		q.Add(r.rooms, 0, -1, virtiotest.Buf{Room: 2048})
		r.rooms += 4096
	}
	r.rx[0].Kick()
	want := []byte("a frame that fits into one")
	r.wires.put(t, 0, want)
	if page := <-asked; page != roomArena>>12 {
		t.Errorf("page %#x is asked for, not that of the first buffer", page)
	}
	select {
	case page := <-asked:
		t.Errorf("page %#x is asked for too", page)
	default:
	}
	r.block.MarkPresent(roomArena>>12, 1)
	_, got, _ := r.frame(0)
	checkFrame(t, "received", got, want)
	// Once all is here, what comes goes straight to where it belongs, after
	// the buffers that were taken before.
	r.block.MarkPresent(0, r.block.Pages())
	if err := r.block.Complete(); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		want := fmt.Appendf(nil, "frame number %d, and so on", i)
		r.room(0, 1, 2048)
		r.wires.put(t, 0, want)
		_, got, _ := r.frame(0)
		checkFrame(t, fmt.Sprint(i), got, want)
	}
}

// TestFrameThatIsSentAsksForAllItsPagesAtOnce: while memory is on its way, a
// frame in many pieces costs one round trip to the source, not one for each.
func TestFrameThatIsSentAsksForAllItsPagesAtOnce(t *testing.T) {
	const pieces, far = 12, roomArena >> 12
	r := newRig(t, 1, 0)
	r.mmio.Device().Hold()
	asked := make(chan uint64, r.block.Pages())
	if err := r.block.Expect(func(page uint64) { asked <- page }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.block.Fail(nil) }) // or nothing would end, if the test fails
	r.block.MarkPresent(0, far)
	r.mmio.Device().Release()
	r.drive(r.Features)
	q := r.tx[0]
	for i := range uint16(pieces) {
		d := virtiotest.Desc{GPA: (far + 2*uint64(i)) << 12, Len: 100, Flags: virtiotest.Next, Next: i + 1}
		if i == pieces-1 {
			d.Flags = 0
		}
		q.Put(i, d)
	}
	q.Offer(0)
	q.Kick()
	for i := range uint64(pieces) {
		select {
		case page := <-asked: // none has come yet
			if page != far+2*i {
				t.Errorf("page %#x is asked for, want %#x", page, far+2*i)
			}
		case <-time.After(time.Minute):
			t.Fatalf("%d pages of %d are asked for", i, pieces)
		}
	}
	r.block.MarkPresent(far, 2*pieces)
	if got := r.wires.get(t, 0); len(got) != 100*pieces {
		t.Errorf("a frame of %d bytes", len(got))
	}
}
