package blk

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"

	"microvm/devices/virtio/virtiotest"
)

// TestDiskKeepsWhatWasWritten does at random what file systems do, in many
// forms, several requests at a time on several queues, and compares with a
// slice.
func TestDiskKeepsWhatWasWritten(t *testing.T) {
	places(t, func(t *testing.T, dir string) {
		for _, c := range []struct {
			without uint64
			noRing  bool
		}{{0, false}, {0, true}, {featureFlush | ringFeatures&^(1<<32), false}} {
			t.Run(fmt.Sprintf("without %#x, io_uring %t", c.without, !c.noRing), func(t *testing.T) {
				path, want := newImage(t, dir, 256*sectorSize*16)
				r := newRig(t, path, false, Options{Queues: 3, noRing: c.noRing}, c.without)
				t.Logf("O_DIRECT: %t, io_uring: %t", r.disk.Image().Direct(), r.disk.engine != nil)
				churn(t, r, want, 300)
				r.mmio.Device().Hold()
				if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
					t.Errorf("the file is not what was written: %v", err)
				}
				c := r.disk.Counts()
				if n := c.Counters["io_uring"]; (n > 0) != (r.disk.engine != nil) {
					t.Errorf("an io_uring has done %d requests; there is one: %t", n, r.disk.engine != nil)
				}
				for _, s := range c.Requests {
					timed := uint64(0)
					for _, n := range s.Latency {
						timed += n
					}
					if timed != s.Requests || s.Errors != 0 {
						t.Errorf("it has counted %+v", s)
					}
				}
				if c.Of("read").Bytes == 0 || c.Of("write").Bytes == 0 || c.Of("flush").Requests == 0 || c.Gauges["size"] != r.disk.Bytes() {
					t.Errorf("it has counted %+v", c)
				}
			})
		}
	})
}

// churn gives each of 3 queues a third of the disk, and some requests to do
// in parts of it that don't overlap, round by round.
func churn(t *testing.T, r *rig, want []byte, rounds int) {
	rnd := rand.New(rand.NewPCG(7, 7))
	const lane = 128 << 10 // of memory, for a request
	third := uint64(len(want)) / sectorSize / 3
	for round := range rounds {
		q := r.queues[round%3]
		type check struct{ off, n uint64 }
		reads := map[uint16]check{}
		made := 0
		for i := range uint64(6) {
			// A sixth of the third for each, so that order means nothing.
			first := uint64(round%3)*third + i*(third/6) + rnd.Uint64N(8)
			n := (1 + rnd.Uint64N(60)) * sectorSize
			off := first * sectorSize
			base := arena + i*lane + rnd.Uint64N(3)*256 // often not aligned for O_DIRECT
			pad := uint64(0)
			if round%2 == 0 { // and every other time so that all are
				first &^= 7
				n = max(n&^4095, 4096)
				off = first * sectorSize
				base, pad = arena+i*lane, 4096-headerSize
			}
			switch kind := rnd.IntN(5); kind {
			case 0, 1:
				data := make([]byte, n)
				for j := range data {
					data[j] = byte(rnd.Uint32())
				}
				cut := rnd.Uint64N(n)
				h := append(header(typeOut, first), data...) // where it is cut means nothing
				if pad > 0 {
					cut = headerSize - 1
				}
				q.Add(base, pad, -1, virtiotest.Buf{Data: h[:cut+1]}, virtiotest.Buf{Data: h[cut+1:]}, virtiotest.Buf{Room: 1})
				copy(want[off:], data)
			case 2, 3:
				cut := rnd.IntN(int(n))
				if pad > 0 {
					cut = int(n)
				}
				head, _ := q.Add(base, pad, -1, virtiotest.Buf{Data: header(typeIn, first)}, virtiotest.Buf{Room: cut}, virtiotest.Buf{Room: int(n) - cut + 1})
				reads[head] = check{off, n}
			case 4:
				h := append(header(typeWriteZeroes, 0), extents([3]uint64{first, n / sectorSize, rnd.Uint64N(2)})...)
				q.Add(base, 0, -1, virtiotest.Buf{Data: h}, virtiotest.Buf{Room: 1})
				clear(want[off : off+n])
			}
			made++
		}
		q.Kick()
		for range made {
			head, written, data := q.Wait()
			if data[len(data)-1] != statusOK || int(written) != len(data) {
				t.Fatalf("round %d: status %d, %d bytes written of %d", round, data[len(data)-1], written, len(data))
			}
			if c, ok := reads[head]; ok && !bytes.Equal(data[:c.n], want[c.off:c.off+c.n]) {
				t.Fatalf("round %d: %d bytes at %#x are not what was written", round, c.n, c.off)
			}
		}
		if round%10 == 0 && r.ask(typeFlush, 0, nil) != statusOK {
			t.Fatal("flush")
		}
	}
}

func TestRequestsThatAreWrongFail(t *testing.T) {
	const sectors = 64
	path, want := newImage(t, t.TempDir(), sectors*sectorSize+100) // the rest of a sector is no part of it
	r := newRig(t, path, false, Options{Queues: 1}, 0)
	data := make([]byte, 2*sectorSize)
	for _, c := range []struct {
		name   string
		kind   uint32
		sector uint64
		data   []byte
		want   byte
	}{
		{"write past the end", typeOut, sectors - 1, data, statusError},
		{"write after the end", typeOut, sectors, data[:sectorSize], statusError},
		{"write far after the end", typeOut, 1<<63 + 1, data, statusError},
		{"write around", typeOut, 1<<64 - 1, data, statusError},
		{"write half a sector", typeOut, 0, data[:700], statusError},
		{"write nothing", typeOut, 0, nil, statusOK},
		{"read nothing", typeIn, 0, nil, statusOK},
		{"discard past the end", typeDiscard, 0, extents([3]uint64{sectors - 1, 2, 0}), statusError},
		{"discard around", typeDiscard, 0, extents([3]uint64{1<<64 - 1, 2, 0}), statusError},
		{"discard too much", typeDiscard, 0, extents([3]uint64{0, 1<<32 - 1, 0}), statusError},
		{"discard with a flag", typeDiscard, 0, extents([3]uint64{0, 1, 1}), statusUnsupported},
		{"discard half a range", typeDiscard, 0, extents([3]uint64{0, 1, 0})[:8], statusError},
		{"discard nothing", typeDiscard, 0, nil, statusError},
		{"discard many", typeDiscard, 0, bytes.Repeat(extents([3]uint64{0, 1, 0}), maxRanges+1), statusError},
		{"zeroes with a flag", typeWriteZeroes, 0, extents([3]uint64{0, 1, 2}), statusUnsupported},
		{"zeroes, the second range wrong", typeWriteZeroes, 0, extents([3]uint64{0, 1, 0}, [3]uint64{sectors, 1, 0}), statusError},
		{"secure erase", 14, 0, extents([3]uint64{0, 1, 0}), statusUnsupported},
		{"lifetime", 10, 0, nil, statusUnsupported},
		{"nonsense", 0xFFFF_FFFF, 0, nil, statusUnsupported},
	} {
		if got := r.ask(c.kind, c.sector, c.data); got != c.want {
			t.Errorf("%s: status %d, want %d", c.name, got, c.want)
		}
	}
	for name, bufs := range map[string][]virtiotest.Buf{
		"half a header": {{Data: header(typeIn, 0)[:15]}, {Room: sectorSize + 1}},
		"no header":     {{Room: sectorSize + 1}},
	} {
		if _, all := r.queues[0].Do(arena, bufs...); all[len(all)-1] != statusError {
			t.Errorf("%s: status %d", name, all[len(all)-1])
		}
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("what failed has changed the file: %v", err)
	}
	if data, status := r.in(sectors-2, 2*sectorSize); status != statusOK || !bytes.Equal(data, want[(sectors-2)*sectorSize:sectors*sectorSize]) {
		t.Errorf("afterwards it reads with status %d", status)
	}
}

// TestBufferThatIsNoRAMFailsItsRequest and no other one.
func TestBufferThatIsNoRAMFailsItsRequest(t *testing.T) {
	path, want := newImage(t, t.TempDir(), 1<<20)
	r := newRig(t, path, false, Options{Queues: 1}, 0)
	q := r.queues[0]
	head, _ := q.Add(arena, 0, -1, virtiotest.Buf{Data: header(typeIn, 0)}, virtiotest.Buf{Room: 512}, virtiotest.Buf{Room: 1})
	// The descriptors of an unused queue are taken in order: the second is
	// where the data goes.
	q.Put(head+1, virtiotest.Desc{GPA: ramSize - 256, Len: 512, Flags: virtiotest.Write | virtiotest.Next, Next: head + 2})
	q.Kick()
	_, _, all := q.Wait()
	if status := all[len(all)-1]; status != statusError {
		t.Errorf("status %d", status)
	}
	if data, status := r.in(3, 4096); status != statusOK || !bytes.Equal(data, want[3*512:3*512+4096]) {
		t.Errorf("afterwards it reads with status %d", status)
	}
}

// TestRequestWithoutStatusStopsTheDevice: there is nowhere to say that it is
// wrong.
func TestRequestWithoutStatusStopsTheDevice(t *testing.T) {
	path, _ := newImage(t, t.TempDir(), 1<<20)
	for name, status := range map[string]virtiotest.Desc{
		"none":   {GPA: arena + 0x1000, Len: 1},
		"no RAM": {GPA: ramSize, Len: 1, Flags: virtiotest.Write},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, path, false, Options{Queues: 1}, 0)
			q := r.queues[0]
			head, _ := q.Add(arena, 0, -1, virtiotest.Buf{Data: header(typeFlush, 0)}, virtiotest.Buf{Room: 1})
			q.Put(head+1, status)
			q.Kick()
			for r.Get(0x60)&2 == 0 {
				r.IRQ.Wait(t)
			}
			if got := r.Get(0x70); got&64 == 0 {
				t.Errorf("status %#x", got)
			}
		})
	}
}

func TestReadOnlyDiskIsNotWritten(t *testing.T) {
	path, want := newImage(t, t.TempDir(), 1<<20)
	r := newRig(t, path, true, Options{Queues: 1}, 0)
	if r.Features&featureReadOnly == 0 || r.Features&(featureDiscard|featureWriteZeroes) != 0 {
		t.Errorf("features %#x", r.Features)
	}
	for kind, data := range map[uint32][]byte{
		typeOut: make([]byte, 512), typeDiscard: extents([3]uint64{0, 1, 0}), typeWriteZeroes: extents([3]uint64{0, 1, 0}),
	} {
		if got := r.ask(kind, 0, data); got != statusError {
			t.Errorf("type %d: status %d", kind, got)
		}
	}
	if data, status := r.in(0, 8192); status != statusOK || !bytes.Equal(data, want[:8192]) {
		t.Errorf("it reads with status %d", status)
	}
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("the file has changed: %v", err)
	}
}

func TestDiskHasItsSerialNumber(t *testing.T) {
	path, _ := newImage(t, t.TempDir(), 1<<20)
	r := newRig(t, path, false, Options{Queues: 1, Serial: "root-7"}, 0)
	for room, want := range map[int]string{20: "root-7" + strings.Repeat("\x00", 14), 4: "root", 40: "root-7"} {
		_, all := r.queues[0].Do(arena, virtiotest.Buf{Data: header(typeGetID, 0)}, virtiotest.Buf{Room: room + 1})
		if got := string(all[:room]); !strings.HasPrefix(got, want) || all[room] != statusOK {
			t.Errorf("with room for %d it is %q, status %d", room, got, all[room])
		}
	}
}

func TestDiscardedSpaceIsGivenBack(t *testing.T) {
	path, want := newImage(t, t.TempDir(), 1<<20)
	r := newRig(t, path, false, Options{Queues: 1}, 0)
	before := blocksOf(t, path)
	if got := r.ask(typeDiscard, 0, extents([3]uint64{16, 1024, 0}, [3]uint64{1200, 8, 0})); got != statusOK {
		t.Fatalf("status %d", got)
	}
	if after := blocksOf(t, path); after >= before {
		t.Errorf("the file has %d blocks, as before %d", after, before)
	}
	if data, _ := r.in(0, 16*512); !bytes.Equal(data, want[:16*512]) {
		t.Error("more was discarded than was asked for")
	}
}

func TestDiskGrowsWhileItIsUsed(t *testing.T) {
	path, _ := newImage(t, t.TempDir(), 1<<20)
	r := newRig(t, path, false, Options{Queues: 1}, 0)
	capacity := func() uint64 { return binary.LittleEndian.Uint64(r.Config(0, 8)) }
	if capacity() != 2048 || r.disk.Bytes() != 1<<20 {
		t.Errorf("%d sectors, %d bytes", capacity(), r.disk.Bytes())
	}
	if grown, err := r.disk.Grow(); grown || err != nil {
		t.Errorf("it has grown: %t, %v", grown, err)
	}
	if _, status := r.in(4000, 512); status != statusError {
		t.Errorf("past its end it reads with status %d", status)
	}
	if err := os.Truncate(path, 2<<20); err != nil {
		t.Fatal(err)
	}
	if grown, err := r.disk.Grow(); !grown || err != nil || capacity() != 4096 {
		t.Errorf("it has grown: %t, %v, to %d sectors", grown, err, capacity())
	}
	if data, status := r.in(4000, 512); status != statusOK || !bytes.Equal(data, make([]byte, 512)) {
		t.Errorf("what is new reads with status %d", status)
	}
	if err := os.Truncate(path, 1<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := r.disk.Grow(); err == nil || capacity() != 4096 {
		t.Errorf("it has shrunk to %d sectors: %v", capacity(), err)
	}
	if _, status := r.in(4000, 512); status != statusError {
		t.Errorf("where the file has gone it reads with status %d", status)
	}
}
