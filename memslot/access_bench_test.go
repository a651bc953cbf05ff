package memslot

import (
	"fmt"
	"testing"
)

// BenchmarkAccess is what a device pays for touching guest RAM: in the steady
// state, with the dirty log, and while a migration comes in.
func BenchmarkAccess(b *testing.B) {
	const size = 64 << 20
	block := newBlock(b, size/hostPage, BlockOptions{})
	m := NewMemory(setterFunc(agreeable), 8)
	if err := m.Map(0, 0, block, 0, size, 0); err != nil {
		b.Fatal(err)
	}
	run := func(state string) {
		for _, n := range []int{2, 8, 4096} {
			p := make([]byte, n)
			b.Run(fmt.Sprintf("%s/read/%d", state, n), func(b *testing.B) {
				for b.Loop() {
					m.ReadAt(p, 0x10000)
				}
			})
			b.Run(fmt.Sprintf("%s/write/%d", state, n), func(b *testing.B) {
				for b.Loop() {
					m.WriteAt(p, 0x10000)
				}
			})
		}
	}
	run("steady")
	if err := block.StartDirtyLog(); err != nil {
		b.Fatal(err)
	}
	run("logging")
	block.StopDirtyLog()
	expect(b, block, func(page uint64) {})
	block.MarkPresent(0, block.Pages()-1)
	run("incoming")
}

// BenchmarkArrival is what the pager pays for each page fault and for each run
// of pages, with nobody waiting in this process.
func BenchmarkArrival(b *testing.B) {
	const pages = 1 << 18 // 1 GiB
	block := newBlock(b, pages, BlockOptions{})
	expect(b, block, func(uint64) {})
	for _, n := range []uint64{1, 256} {
		b.Run(fmt.Sprintf("MarkPresent/%d", n), func(b *testing.B) {
			b.ReportAllocs()
			page := uint64(0)
			for b.Loop() {
				block.MarkPresent(page%pages, n)
				page += n
			}
		})
	}
	b.Run("NextAbsent/over 1 GiB", func(b *testing.B) {
		expect(b, block, func(uint64) {})
		block.MarkPresent(0, pages-1)
		for b.Loop() {
			if _, ok := block.NextAbsent(0); !ok {
				b.Fatal("none is absent")
			}
		}
	})
	b.Run("Present", func(b *testing.B) {
		for b.Loop() {
			block.Present(12345)
		}
	})
}
