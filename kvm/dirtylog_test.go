package kvm

import (
	"strings"
	"testing"
)

func TestDirtyLogManualProtect(t *testing.T) {
	s := open(t)
	g := newGuest(t, s, false, nil)
	must(t, g.EnableCap(CapManualDirtyLogProtect2, 1))
	slot := MemoryRegion{Flags: MemLogDirtyPages, Size: memSize, HVA: hva(g.mem)}
	must(t, g.SetUserMemoryRegion(slot))
	g.longMode(t,
		0xc6, 0x04, 0x25, 0x00, 0x00, 0x02, 0x00, 0x01, // mov byte [0x20000], 1
		0xc6, 0x04, 0x25, 0x00, 0x10, 0x02, 0x00, 0x01, // mov byte [0x21000], 1
		0xe6, 0x80, // out 0x80, al
		0xc6, 0x04, 0x25, 0x00, 0x10, 0x02, 0x00, 0x02, // mov byte [0x21000], 2
		0xe6, 0x80, // out 0x80, al
	)
	bitmap := make([]uint64, words(memSize/pageSize))
	dirty := func(page int) bool {
		t.Helper()
		must(t, g.DirtyLog(0, bitmap))
		return bitmap[page/64]&(1<<(page%64)) != 0
	}

	g.wantExit(t, ExitIO)
	if !dirty(0x20) || !dirty(0x21) {
		t.Fatalf("after the writes: % x, want pages 0x20 and 0x21", bitmap)
	}
	if dirty(0x22) {
		t.Errorf("a page that nobody wrote is dirty: % x", bitmap)
	}
	if !dirty(0x20) {
		t.Error("fetching the log cleared it, in spite of manual protect")
	}
	must(t, g.ClearDirtyLog(0, 0, 64, []uint64{1<<0x20 | 1<<0x21}))
	if dirty(0x20) || dirty(0x21) {
		t.Errorf("after the clear: % x", bitmap)
	}
	g.wantExit(t, ExitIO)
	if dirty(0x20) || !dirty(0x21) {
		t.Errorf("after the second write: % x, want page 0x21 and not 0x20", bitmap)
	}
}

// TestDirtyLogChecksTheBitmap: KVM writes as much as the slot needs, whatever the
// length of the slice, and would overwrite the heap.
func TestDirtyLogChecksTheBitmap(t *testing.T) {
	g := newGuest(t, open(t), false, nil)
	for _, c := range []struct {
		err  error
		want string
	}{
		{g.DirtyLog(0, make([]uint64, 3)), "256 pages need a bitmap of 4 words, got 3"},
		{g.DirtyLog(7, make([]uint64, 4)), "memslot 7: KVM_GET_DIRTY_LOG: no such slot"},
		{g.ClearDirtyLog(0, 0, 65, make([]uint64, 1)), "65 pages with a bitmap of 1 words"},
		{g.ClearDirtyLog(0, 0, 1<<32, nil), "4294967296 pages"},
		{g.DirtyLog(0, make([]uint64, 4)), "memslot 0: KVM_GET_DIRTY_LOG: no such file"}, // not logging
	} {
		if c.err == nil || !strings.Contains(c.err.Error(), c.want) {
			t.Errorf("got %v, want ...%s...", c.err, c.want)
		}
	}
}
