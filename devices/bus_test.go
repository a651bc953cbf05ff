package devices

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
)

// fill answers reads with the low byte of each address in it, and keeps what
// was written.
type fill struct {
	base, size uint64
	written    map[uint64]byte
	bad        bool // an access left the range
}

func (f *fill) Read(off uint64, p []byte) {
	f.bad = f.bad || off+uint64(len(p)) > f.size || len(p) == 0
	for i := range p {
		p[i] = byte(f.base+off+uint64(i)) &^ 0x80
	}
}

func (f *fill) Write(off uint64, p []byte) {
	f.bad = f.bad || off+uint64(len(p)) > f.size || len(p) == 0
	for i, b := range p {
		f.written[f.base+off+uint64(i)] = b
	}
}

func TestBusRefusesByName(t *testing.T) {
	var b Bus
	if err := b.Register("uart", 0x3F8, 8, nil); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name       string
		base, size uint64
		want       []string
	}{
		{"empty", 0x100, 0, []string{"empty", "0x100", "range is empty"}},
		{"wraps", ^uint64(0), 2, []string{"wraps", "wraps around"}},
		{"same", 0x3F8, 8, []string{"same", "overlaps uart", "[0x3f8, 0x3ff]"}},
		{"inside", 0x3FA, 1, []string{"overlaps uart"}},
		{"around", 0x300, 0x200, []string{"overlaps uart"}},
		{"front", 0x3F0, 9, []string{"overlaps uart"}},
		{"back", 0x3FF, 1, []string{"overlaps uart"}},
	} {
		wantError(t, b.Register(c.name, c.base, c.size, nil), c.want...)
	}
	for _, c := range []struct{ base, size uint64 }{{0x3F0, 8}, {0x400, 1}, {^uint64(0), 1}, {0, 1}} {
		if err := b.Register("neighbour", c.base, c.size, nil); err != nil {
			t.Error(err)
		}
	}
}

// TestBusAgreesWithByteMap compares every access with a map of bytes: whole,
// straddling one range or many, across gaps and the top of the address space.
func TestBusAgreesWithByteMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range 300 {
		var b Bus
		owner := map[uint64]*fill{}
		var devs []*fill
		start := rng.Uint64()
		if round%2 == 0 {
			start = ^uint64(31) // so that accesses wrap around
		}
		for range 12 {
			base, size := start+rng.Uint64N(64), rng.Uint64N(7)+1
			f := &fill{base: base, size: size, written: map[uint64]byte{}}
			free := base+size-1 >= base
			for a := range size {
				free = free && owner[base+a] == nil
			}
			if err := b.Register(fmt.Sprint("dev", len(devs)), base, size, f); (err == nil) != free {
				t.Fatalf("register [%#x, +%d): error %v, but free is %t", base, size, err, free)
			}
			if free {
				devs = append(devs, f)
				for a := range size {
					owner[base+a] = f
				}
			}
		}
		for range 200 {
			addr := start - 8 + rng.Uint64N(88)
			p := make([]byte, 1+rng.IntN(16))
			want := make([]byte, len(p))
			claimed := false
			for i := range want {
				want[i] = 0xFF
				if a := addr + uint64(i); owner[a] != nil {
					want[i] = byte(a) &^ 0x80
					claimed = true
				}
			}
			if got := b.Read(addr, p); got != claimed || !bytes.Equal(p, want) {
				t.Fatalf("read %d at %#x: %x, %t, want %x, %t", len(p), addr, p, got, want, claimed)
			}
			for i := range p {
				p[i] = byte(rng.Uint32())
			}
			if got := b.Write(addr, p); got != claimed {
				t.Fatalf("write %d at %#x: %t, want %t", len(p), addr, got, claimed)
			}
			for i, v := range p {
				if f := owner[addr+uint64(i)]; f != nil && f.written[addr+uint64(i)] != v {
					t.Fatalf("write at %#x: byte %d got lost", addr, i)
				}
			}
		}
		for _, f := range devs {
			if f.bad {
				t.Fatalf("an access left [%#x, +%d)", f.base, f.size)
			}
		}
	}
}

// TestBusRegisterWhileInUse: a device that comes never disturbs one in use.
func TestBusRegisterWhileInUse(t *testing.T) {
	var b Bus
	f := &fill{base: 500, size: 1}
	if err := b.Register("used", 500, 1, f); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		var p [1]byte
		for range 20000 {
			if p[0] = 0; !b.Read(500, p[:]) || p[0] != 500&0x7F {
				t.Error("the device was not there for a while")
				return
			}
		}
	})
	for i := range uint64(1000) {
		if i != 500 {
			if err := b.Register("new", i, 1, f); err != nil {
				t.Error(err)
			}
		}
	}
	wg.Wait()
}

func TestBusEmpty(t *testing.T) {
	var b Bus
	p := []byte{1, 2}
	if b.Read(0, p) || b.Write(0, p) {
		t.Error("somebody answered on an empty bus")
	}
	if !bytes.Equal(p, []byte{0xFF, 0xFF}) {
		t.Errorf("an empty bus reads %x, want ones", p)
	}
}

func BenchmarkBusRead(b *testing.B) {
	for _, n := range []int{1, 8, 64} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var bus Bus
			for i := range n {
				if err := bus.Register("d", uint64(i)*0x1000, 0x1000, &fill{size: 0x1000}); err != nil {
					b.Fatal(err)
				}
			}
			var p [4]byte
			b.ReportAllocs()
			for i := range b.N {
				bus.Read(uint64(i%n)*0x1000, p[:])
			}
		})
	}
}
