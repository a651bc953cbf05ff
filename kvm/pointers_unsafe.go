package kvm

import "unsafe"

// Structures with which the kernel is handed a second pointer. The fields have
// a pointer's type, so that the garbage collector sees them.

// dirtyLog is struct kvm_dirty_log.
type dirtyLog struct {
	slot, _ uint32
	bitmap  unsafe.Pointer // one bit a page
}

// clearDirtyLogArgs is struct kvm_clear_dirty_log.
type clearDirtyLogArgs struct {
	slot, numPages uint32
	firstPage      uint64
	bitmap         unsafe.Pointer // one bit a page, from firstPage on
}

// deviceAttr is struct kvm_device_attr.
type deviceAttr struct {
	_     uint32 // flags, none defined
	group uint32
	attr  uint64
	addr  unsafe.Pointer
}

// The C layouts, held at compile time; TestHeader asks the header too.
var (
	_ [16 - unsafe.Sizeof(dirtyLog{})]byte
	_ [unsafe.Sizeof(dirtyLog{}) - 16]byte
	_ [24 - unsafe.Sizeof(clearDirtyLogArgs{})]byte
	_ [unsafe.Sizeof(clearDirtyLogArgs{}) - 24]byte
)

func newDirtyLog(slot uint32, bitmap []uint64) dirtyLog {
	return dirtyLog{slot: slot, bitmap: unsafe.Pointer(unsafe.SliceData(bitmap))}
}

func newClearDirtyLog(slot uint32, firstPage uint64, pages uint32, bitmap []uint64) clearDirtyLogArgs {
	return clearDirtyLogArgs{
		slot:      slot,
		numPages:  pages,
		firstPage: firstPage,
		bitmap:    unsafe.Pointer(unsafe.SliceData(bitmap)),
	}
}

func newDeviceAttr(group uint32, attr uint64, value *uint64) deviceAttr {
	return deviceAttr{group: group, attr: attr, addr: unsafe.Pointer(value)}
}
