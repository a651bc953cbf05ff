package migration

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"microvm/memslot"
	"microvm/migration/uffd"
)

// probe measures what a userfaultfd does not tell of the guest's faults, since
// its events have no time: how long it takes the kernel to bring a fault to our
// reader, and to have whoever waited run again. It has a page of its own that
// it touches now and then, inside a system call as a vCPU does, and that the
// reader fills at once.
type probe struct {
	block *memslot.Block
	// touched and filled are times of the fault that is under way, in
	// nanoseconds since began.
	began           time.Time
	touched, filled atomic.Int64
	kernel, woken   histogram

	over  chan struct{} // closed to end it
	ended sync.WaitGroup
	once  sync.Once // stops
}

// probeEvery is how often it does. Each time costs the reader some 30 us.
const probeEvery = 50 * time.Millisecond

func newProbe(fd *uffd.UFFD) (*probe, error) {
	b, err := memslot.NewBlock("probe", uint64(os.Getpagesize()), memslot.BlockOptions{})
	if err != nil {
		return nil, fmt.Errorf("a page to measure faults with: %w", err)
	}
	if err := fd.Register(b.Addr(), b.Size()); err != nil {
		b.Close()
		return nil, fmt.Errorf("a page to measure faults with: %w", err)
	}
	return &probe{block: b, began: time.Now(), over: make(chan struct{})}, nil
}

// start begins to measure. The reader runs.
func (p *probe) start() { p.ended.Go(p.run) }

func (p *probe) run() {
	mem, err := p.block.View(0, p.block.Size())
	if err != nil {
		return
	}
	tick := time.NewTicker(probeEvery)
	defer tick.Stop()
	for {
		select {
		case <-p.over:
			return
		case <-tick.C:
		}
		if unix.Madvise(mem, unix.MADV_DONTNEED) != nil {
			return
		}
		p.filled.Store(0)
		p.touched.Store(int64(time.Since(p.began)))
		// Linux 5.14. Without it there are no such figures.
		if unix.Madvise(mem, unix.MADV_POPULATE_READ) != nil {
			return
		}
		if filled := p.filled.Load(); filled != 0 {
			p.woken.add(time.Since(p.began) - time.Duration(filled))
		}
	}
}

// answer is the reader's part: it tells whether a fault was the probe's, and if
// so ends it.
func (p *probe) answer(fd *uffd.UFFD, addr uint64, now time.Time) bool {
	if addr-uint64(p.block.Addr()) >= p.block.Size() {
		return false
	}
	p.kernel.add(now.Sub(p.began) - time.Duration(p.touched.Load()))
	p.filled.Store(int64(time.Since(p.began)))
	_, _ = fd.ZeroPage(p.block.Addr(), p.block.Size())
	// If that was EAGAIN or EEXIST: it touches the page again if it has to.
	// The only errors are of a process that is ending.
	_ = fd.Wake(p.block.Addr(), p.block.Size())
	return true
}

// stop ends it, whether the reader still runs or not. The userfaultfd must not
// have been closed: until Linux 6.15 its close hangs for ever if it meets a fault
// from inside MADV_POPULATE_READ, which then tries again and again without
// letting go of the address space that the close waits for. To unregister the
// page ends such a fault.
func (p *probe) stop(fd *uffd.UFFD) {
	p.once.Do(func() {
		close(p.over)
		// It can only fail in a process that is ending.
		_ = fd.Unregister(p.block.Addr(), p.block.Size())
		p.ended.Wait()
		p.block.Close()
	})
}
