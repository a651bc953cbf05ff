package blk

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From linux/io_uring.h.
const (
	offSQRing = 0          // IORING_OFF_SQ_RING
	offCQRing = 0x800_0000 // IORING_OFF_CQ_RING
	offSQEs   = 0x1000_0000

	opReadv  = 1
	opWritev = 2

	enterGetEvents = 1 << 0

	// What is left to the kernel between being written and being submitted
	// is copied then (IORING_FEAT_SUBMIT_STABLE), so that vectors can be used
	// again; and a completion is never dropped (IORING_FEAT_NODROP).
	featNoDrop       = 1 << 1
	featSubmitStable = 1 << 2
)

// uringParams is struct io_uring_params.
type uringParams struct {
	sqEntries, cqEntries, flags, sqThreadCPU, sqThreadIdle, features, wqFD uint32
	_                                                                      [3]uint32
	sq                                                                     sqOffsets
	cq                                                                     cqOffsets
}

// sqOffsets is struct io_sqring_offsets.
type sqOffsets struct {
	head, tail, ringMask, ringEntries, flags, dropped, array, _ uint32
	userAddr                                                    uint64
}

// cqOffsets is struct io_cqring_offsets.
type cqOffsets struct {
	head, tail, ringMask, ringEntries, overflow, cqes, flags, _ uint32
	userAddr                                                    uint64
}

// uringSQE is struct io_uring_sqe.
type uringSQE struct {
	opcode, flags uint8
	ioprio        uint16
	fd            int32
	off, addr     uint64
	len, rwFlags  uint32
	userData      uint64
	_             [3]uint64
}

// uringCQE is struct io_uring_cqe.
type uringCQE struct {
	userData uint64
	res      int32
	flags    uint32
}

// A uring is an io_uring(7). Any goroutine may put and submit; one at a time
// takes what is done, and one waits.
type uring struct {
	fd             int
	regions        []region
	sqTail         *uint32
	cqHead, cqTail *uint32
	sqMask, cqMask uint32
	sqArray        unsafe.Pointer
	sqes, cqes     unsafe.Pointer

	mu   sync.Mutex
	tail uint32 // of the submission queue; guarded by mu
	// unsent is how many entries the kernel has not been told of; guarded by
	// mu.
	unsent uint32
}

type region struct {
	at     unsafe.Pointer
	length uintptr
}

// newRing makes a ring for so many requests at once, a power of 2. It fails
// where there is no io_uring, or the administrator does not allow it.
func newRing(entries uint32) (*uring, error) {
	var p uringParams
	fd, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, uintptr(entries), uintptr(unsafe.Pointer(&p)), 0)
	if errno != 0 {
		return nil, os.NewSyscallError("io_uring_setup", errno)
	}
	r := &uring{fd: int(fd)}
	if need := uint32(featNoDrop | featSubmitStable); p.features&need != need {
		r.close()
		return nil, fmt.Errorf("io_uring: features %#x, %#x are needed: Linux 5.5 or newer", p.features, need)
	}
	sq, err := r.mmap(offSQRing, uintptr(p.sq.array)+4*uintptr(p.sqEntries))
	if err != nil {
		return nil, err
	}
	cq, err := r.mmap(offCQRing, uintptr(p.cq.cqes)+unsafe.Sizeof(uringCQE{})*uintptr(p.cqEntries))
	if err != nil {
		return nil, err
	}
	if r.sqes, err = r.mmap(offSQEs, unsafe.Sizeof(uringSQE{})*uintptr(p.sqEntries)); err != nil {
		return nil, err
	}
	word := func(base unsafe.Pointer, off uint32) *uint32 { return (*uint32)(unsafe.Add(base, off)) }
	r.sqTail, r.sqMask = word(sq, p.sq.tail), *word(sq, p.sq.ringMask)
	r.cqHead, r.cqTail, r.cqMask = word(cq, p.cq.head), word(cq, p.cq.tail), *word(cq, p.cq.ringMask)
	r.sqArray, r.cqes = unsafe.Add(sq, p.sq.array), unsafe.Add(cq, p.cq.cqes)
	return r, nil
}

// mmap maps a part of the ring; if that fails, it frees the ring.
func (r *uring) mmap(off int64, length uintptr) (unsafe.Pointer, error) {
	at, err := unix.MmapPtr(r.fd, off, nil, length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_POPULATE)
	if err != nil {
		r.close()
		return nil, fmt.Errorf("io_uring: mmap: %w", err)
	}
	r.regions = append(r.regions, region{at, length})
	return at, nil
}

// close frees the ring. Preconditions: nobody waits, nothing is under way.
func (r *uring) close() {
	for _, m := range r.regions {
		_ = unix.MunmapPtr(m.at, m.length) // it was mapped so
	}
	_ = unix.Close(r.fd)
}

// put prepares a transfer for submit; vectors stay as they are until then.
//
// Preconditions: fewer than the ring's entries are under way.
func (r *uring) put(op uint8, fd int, vectors []unix.Iovec, off uint64, rwFlags uint32, id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := uringSQE{opcode: op, fd: int32(fd), off: off, len: uint32(len(vectors)), rwFlags: rwFlags, userData: id}
	if len(vectors) > 0 {
		// Kept by whoever owns the vectors, and the heap does not move.
		e.addr = uint64(uintptr(unsafe.Pointer(&vectors[0])))
	}
	i := r.tail & r.sqMask
	*(*uringSQE)(unsafe.Add(r.sqes, unsafe.Sizeof(e)*uintptr(i))) = e
	*(*uint32)(unsafe.Add(r.sqArray, 4*uintptr(i))) = i
	r.tail++
	r.unsent++
	atomic.StoreUint32(r.sqTail, r.tail)
}

// submit has the kernel begin what was put.
func (r *uring) submit() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.unsent > 0 {
		n, errno := r.enter(r.unsent, 0, 0)
		if errno == unix.EAGAIN || errno == unix.EBUSY {
			time.Sleep(time.Millisecond) // it is short of memory, or completions have not been taken
		}
		r.unsent -= n
	}
}

// any reports whether something is done that has not been taken.
func (r *uring) any() bool { return atomic.LoadUint32(r.cqHead) != atomic.LoadUint32(r.cqTail) }

// take calls done for each that is done.
func (r *uring) take(done func(id uint64, res int32)) {
	for head := atomic.LoadUint32(r.cqHead); head != atomic.LoadUint32(r.cqTail); {
		e := *(*uringCQE)(unsafe.Add(r.cqes, unsafe.Sizeof(uringCQE{})*uintptr(head&r.cqMask)))
		head++
		atomic.StoreUint32(r.cqHead, head)
		done(e.userData, e.res)
	}
}

// wait returns when something is done, or after a signal. Preconditions:
// something is under way.
func (r *uring) wait() {
	if !r.any() {
		r.enter(0, 1, enterGetEvents)
	}
}

// enter is io_uring_enter(2): the number of entries that the kernel took, or
// EAGAIN, EBUSY or EINTR. What else it can say is that this file is wrong, of
// which a guest is no cause.
func (r *uring) enter(submit, complete, flags uint32) (uint32, unix.Errno) {
	n, _, errno := unix.Syscall6(unix.SYS_IO_URING_ENTER, uintptr(r.fd), uintptr(submit), uintptr(complete), uintptr(flags), 0, 0)
	switch errno {
	case 0:
		return uint32(n), 0
	case unix.EAGAIN, unix.EBUSY, unix.EINTR:
		return 0, errno
	}
	panic(fmt.Sprintf("blk: io_uring_enter with %d to submit, %d to wait for: %v", submit, complete, errno))
}
