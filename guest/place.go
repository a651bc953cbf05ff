package guest

import (
	"fmt"
	"slices"
)

// span is the guest-physical range [start, end).
type span struct{ start, end uint64 }

func (s span) size() uint64   { return s.end - s.start }
func (s span) String() string { return fmt.Sprintf("[%#x, %#x)", s.start, s.end) }

// space is the RAM that kernel and initramfs may use and do not use yet:
// disjoint spans in ascending order.
type space []span

// newSpace is all of ram from kernelMin up.
func newSpace(ram []RAMRegion) space {
	var s space
	for _, r := range ram {
		s = append(s, span{max(r.GPA, kernelMin), r.GPA + r.Size})
	}
	return s
}

// take removes want, which must be free as a whole, from s.
func (s *space) take(want span) bool {
	i := slices.IndexFunc(*s, func(f span) bool { return f.start <= want.start && want.end <= f.end })
	if i < 0 || want.end < want.start {
		return false
	}
	f := (*s)[i]
	var rest []span
	for _, r := range []span{{f.start, want.start}, {want.end, f.end}} {
		if r.size() > 0 {
			rest = append(rest, r)
		}
	}
	*s = slices.Replace(*s, i, i+1, rest...)
	return true
}

// highest is the highest page-aligned address at which size bytes are free and
// end at limit or below.
func (s space) highest(size, limit uint64) (uint64, bool) {
	for _, f := range slices.Backward(s) {
		end := min(f.end, limit)
		if end < f.start || end-f.start < size {
			continue
		}
		if at := (end - size) &^ (pageSize - 1); at >= f.start {
			return at, true
		}
	}
	return 0, false
}

// largest is the size of the largest free piece below limit.
func (s space) largest(limit uint64) uint64 {
	var n uint64
	for _, f := range s {
		if end := min(f.end, limit); end > f.start {
			n = max(n, end-f.start)
		}
	}
	return n
}

// placeInitrd chooses where the initramfs goes: as high as the kernel says it
// may be, so that it is out of the way of a kernel that unpacks or relocates
// itself.
func placeInitrd(s *space, k *kernel, initrd Image) (span, error) {
	if !initrd.present() {
		return span{}, nil
	}
	if initrd.Size <= 0 {
		return span{}, fmt.Errorf("initrd %s: the file is empty", initrd.Name)
	}
	size, limit := uint64(initrd.Size), k.initrdLimit
	at, ok := s.highest(size, limit)
	if !ok && k.initrdAbove4G {
		limit = MaxRAM + HighRAMBase
		at, ok = s.highest(size, limit)
	}
	if !ok {
		return span{}, fmt.Errorf("initrd %s: its %s do not fit: the largest room below %#x is %s; give the guest more memory or use a smaller initrd",
			initrd.Name, bytesText(size), limit, bytesText(s.largest(limit)))
	}
	sp := span{at, at + size}
	s.take(sp)
	return sp, nil
}
