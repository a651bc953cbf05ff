package memslot

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"microvm/kvm"
)

// BenchmarkFind looks frames up among slots of 256 frames with gaps between:
// always in the slot found last, and at random.
func BenchmarkFind(b *testing.B) {
	for _, n := range []uint64{1, 8, 64, 512} {
		s := NewSlots(setterFunc(agreeable), 32764)
		for i := range n {
			if err := s.Create(kvm.MemoryRegion{Slot: uint32(i), GPA: i << 21, Size: 1 << 20}); err != nil {
				b.Fatal(err)
			}
		}
		b.Run(fmt.Sprintf("slots=%d/last", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if s.Find(n/2<<9+3) == nil {
					b.Fatal("not found")
				}
			}
		})
		r := rand.New(rand.NewPCG(n, 7))
		frames := make([]uint64, 1<<10)
		for i := range frames {
			frames[i] = r.Uint64N(n)<<9 + r.Uint64N(256)
		}
		b.Run(fmt.Sprintf("slots=%d/random", n), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if s.Find(frames[i%len(frames)]) == nil {
					b.Fatal("not found")
				}
				i++
			}
		})
	}
}
