package memslot

import (
	"encoding/binary"
	"runtime"
	"slices"
	"sync/atomic"
	"testing"
)

func dirtyPages(b *Block) []uint64 {
	var pages []uint64
	for page, ok := b.Dirty().NextSet(0); ok; page, ok = b.Dirty().NextSet(page + 1) {
		pages = append(pages, page)
	}
	return pages
}

func TestDirtyLogRecordsWrites(t *testing.T) {
	b := newBlock(t, 70, BlockOptions{})
	write := func(off uint64, n int) {
		t.Helper()
		if err := b.write(make([]byte, n), off); err != nil {
			t.Fatal(err)
		}
	}
	write(0, 8)
	if got := dirtyPages(b); got != nil {
		t.Errorf("pages %v are dirty without a log", got)
	}
	if err := b.StartDirtyLog(); err != nil {
		t.Fatal(err)
	}
	write(hostPage-1, 1)                // the last byte of page 0
	write(3*hostPage-1, 2)              // the end of 2, the start of 3
	write(10*hostPage, 2*int(hostPage)) // 10 and 11
	write(62*hostPage+5, 3*int(hostPage))
	write(30*hostPage, 0)
	if err := b.read(make([]byte, 8), 20*hostPage); err != nil {
		t.Fatal(err)
	}
	want := []uint64{0, 2, 3, 10, 11, 62, 63, 64, 65}
	if got := dirtyPages(b); !slices.Equal(got, want) {
		t.Errorf("pages %v are dirty, want %v", got, want)
	}
	b.StopDirtyLog()
	write(40*hostPage, 1)
	if got := dirtyPages(b); !slices.Equal(got, want) {
		t.Errorf("after the log was stopped: pages %v are dirty, want %v", got, want)
	}
	if err := b.StartDirtyLog(); err != nil {
		t.Fatal(err)
	}
	if got := dirtyPages(b); got != nil {
		t.Errorf("a new log begins with pages %v", got)
	}
}

// TestDirtyLogLosesNoWrite is precopy in small: while a device writes without a
// pause, the log is started, and its page is sent by clearing the bit and
// reading. What was sent last must be what is there at the end, or the bit be
// set. It fails when a page is marked before it is written.
func TestDirtyLogLosesNoWrite(t *testing.T) {
	b := newBlock(t, 1, BlockOptions{})
	for round := range uint64(2000) {
		var writes atomic.Uint64
		var stop atomic.Bool
		done := make(chan struct{})
		go func() {
			defer close(done)
			var p [8]byte
			for !stop.Load() {
				binary.LittleEndian.PutUint64(p[:], round<<32+writes.Load())
				if err := b.write(p[:], 0); err != nil {
					t.Error(err)
				}
				writes.Add(1)
			}
		}()
		// Not by a channel: the writer is to keep its CPU.
		for writes.Load() == 0 {
			runtime.Gosched()
		}
		if err := b.StartDirtyLog(); err != nil {
			t.Fatal(err)
		}
		var sent, now [8]byte
		for pass := range 1 + round%3 {
			if pass > 0 {
				b.Dirty().Clear(0)
			}
			if err := b.read(sent[:], 0); err != nil {
				t.Fatal(err)
			}
		}
		stop.Store(true)
		<-done
		if err := b.read(now[:], 0); err != nil {
			t.Fatal(err)
		}
		if now != sent && !b.Dirty().Test(0) {
			t.Fatalf("round %d: sent %x, is %x, and not dirty", round, sent, now)
		}
		b.StopDirtyLog()
	}
}
