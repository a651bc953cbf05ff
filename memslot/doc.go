// Package memslot is guest RAM: which guest-physical addresses are RAM, which
// host memory is behind them, and the only way for the rest of the program to
// touch it.
//
// # Slots
//
// [Slots] keeps KVM's memory slots as KVM itself did for most of its life: an
// array sorted from the highest guest frame number to the lowest, whose only
// terminator is the count of used entries, and a table from slot id to index
// that holds -1 for an id not in use.
//
//	index      0            1            2          used = 3
//	       ┌────────────┬────────────┬────────────┐
//	slots  │ id 7       │ id 0       │ id 2       │
//	       │ gfn 100000 │ gfn 1000   │ gfn 0      │
//	       └────────────┴────────────┴────────────┘
//	id to index:  0→1  1→-1  2→2  3→-1 ... 7→0 ...
//
// Create puts the new slot at the back and moves it forward to its place; move
// walks backward, then forward; delete shifts down and drops used; a change of
// flags keeps the place. An array is never changed once readers can see it:
// each change is made on a copy, told to KVM, and published with one pointer
// store if KVM took it. Readers take no lock. A lookup is a binary search that
// starts at the slot found last.
//
// # RAM blocks
//
// A [Block] is one host mapping: anonymous memory advised for transparent huge
// pages, a memfd, or hugetlb pages. It lies outside the Go heap between two
// inaccessible guard areas, aligned to 2 MiB. A [Memory] puts ranges of blocks
// at guest-physical addresses and reads and writes them there.
//
// # Missing pages
//
// While a VM arrives by postcopy, pages of its RAM are still at the source. Go
// code must not touch such a page: a thread that faults outside a system call
// cannot be stopped, so a garbage collection waits for it, and the code that
// would bring the page waits for the garbage collection. Therefore a block has
// a presence bitmap, and an accessor never touches a page whose bit is clear:
//
//	accessor                       pager
//	bit set? ── yes ──▶ touch
//	   │ no
//	   └─ fetch(page), once ─────▶ request to the source ...
//	      wait on a channel        UFFDIO_COPY
//	      touch          ◀──────── MarkPresent: set bits, wake
//
// [Block.Expect] begins this, [Block.Complete] ends it, [Block.Fail] gives
// every access to a page that is absent an error. Outside of it an access pays
// one atomic load.
//
// # Dirty pages
//
// KVM logs what vCPUs write, not what this process writes. Between
// [Block.StartDirtyLog] and [Block.StopDirtyLog] each write through an accessor
// sets the bits of its pages, after the data is written, so that whoever takes
// a bit and then reads the page has the data or will find the bit set again.
package memslot
