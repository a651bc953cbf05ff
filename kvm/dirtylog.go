package kvm

import "fmt"

// DirtyLog fetches the pages of a slot that vCPUs have written since the log
// was last fetched (or, after EnableCap(CapManualDirtyLogProtect2, 1), since
// they were last cleared). Bit i of word i/64 is the slot's page i. The slot
// must have MemLogDirtyPages. Writes of user space are not in it.
func (vm *VM) DirtyLog(slot uint32, bitmap []uint64) error {
	vm.mu.Lock()
	defer vm.mu.Unlock()

	pages, ok := vm.pages[slot]
	if !ok {
		return fmt.Errorf("memslot %d: %s: no such slot", slot, getDirtyLog.name)
	}
	if need := words(pages); uint64(len(bitmap)) < need {
		return fmt.Errorf("memslot %d: %s: %d pages need a bitmap of %d words, got %d", slot, getDirtyLog.name, pages, need, len(bitmap))
	}
	l := newDirtyLog(slot, bitmap)
	if _, err := ioctlPtr(vm.fd, getDirtyLog, &l); err != nil {
		return fmt.Errorf("memslot %d: %w", slot, err)
	}
	return nil
}

// ClearDirtyLog clears, and write-protects again, those of pages pages from
// firstPage on whose bit is set in bitmap, whose bit 0 is firstPage. firstPage
// is a multiple of 64, and so is pages unless they reach the slot's end.
// It needs EnableCap(CapManualDirtyLogProtect2, 1).
func (vm *VM) ClearDirtyLog(slot uint32, firstPage, pages uint64, bitmap []uint64) error {
	if pages == 0 || uint64(uint32(pages)) != pages || uint64(len(bitmap)) < words(pages) {
		return fmt.Errorf("memslot %d: %s: %d pages with a bitmap of %d words: want 1 to 2^32-1 pages and a word for each 64",
			slot, clearDirtyLog.name, pages, len(bitmap))
	}
	l := newClearDirtyLog(slot, firstPage, uint32(pages), bitmap)
	if _, err := ioctlPtr(vm.fd, clearDirtyLog, &l); err != nil {
		return fmt.Errorf("memslot %d pages [%d, +%d): %w", slot, firstPage, pages, err)
	}
	return nil
}

// words is the length of a bitmap of n bits.
func words(n uint64) uint64 { return (n + 63) / 64 }
