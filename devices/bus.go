package devices

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// Bus maps an address space (the x86 ports, or guest-physical MMIO) to
// devices. The zero value is an empty bus.
//
// Readers take no lock: each Register publishes a new sorted array behind an
// atomic pointer, since every exit of every vCPU comes through here while
// registration happens a handful of times in a VM's life.
type Bus struct {
	mu     sync.Mutex // serializes Register
	ranges atomic.Pointer[[]busRange]
}

// busRange is [base, last]. The last address and not the end is kept, so that
// a range may reach the top of the address space.
type busRange struct {
	base, last uint64
	name       string
	dev        Device
}

// Register puts dev at [base, base+size). It is an error, and nothing has
// changed, if size is 0, if the range wraps around, or if it overlaps one that
// is there already.
func (b *Bus) Register(name string, base, size uint64, dev Device) error {
	if size == 0 {
		return fmt.Errorf("bus: register %s at %#x: the range is empty", name, base)
	}
	r := busRange{base: base, last: base + size - 1, name: name, dev: dev}
	if r.last < r.base {
		return fmt.Errorf("bus: register %s at %#x, size %#x: the range wraps around", name, base, size)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.load()
	i := find(old, base)
	if i < len(old) && old[i].base <= r.last {
		o := old[i]
		return fmt.Errorf("bus: register %s at [%#x, %#x]: overlaps %s at [%#x, %#x]",
			name, r.base, r.last, o.name, o.base, o.last)
	}
	// Clip: the old array must not be written to, readers are in it.
	ranges := slices.Insert(slices.Clip(old), i, r)
	b.ranges.Store(&ranges)
	return nil
}

// Read fills p from addr on and reports whether a device answered. What no
// device claims reads as all-ones, as an open bus does.
func (b *Bus) Read(addr uint64, p []byte) bool {
	return b.access(addr, p, false)
}

// Write hands p to the device at addr and reports whether there was one. What
// no device claims is dropped.
func (b *Bus) Write(addr uint64, p []byte) bool {
	return b.access(addr, p, true)
}

// access splits an access that straddles the edge of a range: each device
// gets the bytes that are its own. Addresses wrap at 2^64.
func (b *Bus) access(addr uint64, p []byte, write bool) bool {
	ranges := b.load()
	claimed := false
	for len(p) > 0 {
		n := uint64(len(p))
		i := find(ranges, addr)
		if i < len(ranges) && ranges[i].base <= addr {
			r := &ranges[i]
			if left := r.last - addr; n > left {
				n = left + 1 // left < n, so this can't overflow
			}
			if write {
				r.dev.Write(addr-r.base, p[:n:n])
			} else {
				r.dev.Read(addr-r.base, p[:n:n])
			}
			claimed = true
		} else {
			// Up to the next range, or to the top of the address space.
			gap := -addr
			if i < len(ranges) {
				gap = ranges[i].base - addr
			}
			if gap != 0 && n > gap {
				n = gap
			}
			if !write {
				for j := range p[:n] {
					p[j] = 0xFF
				}
			}
		}
		p = p[n:]
		addr += n
	}
	return claimed
}

func (b *Bus) load() []busRange {
	if p := b.ranges.Load(); p != nil {
		return *p
	}
	return nil
}

// find returns the index of the first range that ends at or after addr. It
// contains addr if its base is not above addr.
func find(ranges []busRange, addr uint64) int {
	lo, hi := 0, len(ranges)
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if ranges[mid].last < addr {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	return lo
}
