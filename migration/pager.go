package migration

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"microvm/memslot"
	"microvm/migration/uffd"
	"microvm/migration/wire"
)

// pageRequest names a host page that somebody waits for.
type pageRequest struct {
	block int
	page  uint64
}

// pager makes guest memory appear at the destination: it hears of every touch
// of a page that is not there, asks for the page once, and puts pages in place
// as they come, whether asked for or not.
//
// The thread that reads the userfaultfd does nothing else. It sends a request
// at once, does not wait for the answer to the one before, and never queues
// behind bulk data, which travels the other way.
type pager struct {
	fd     *uffd.UFFD
	blocks []*memslot.Block
	asked  []*memslot.Bitmap // by block: host pages a request was made for
	waits  *waits
	// request sends requests to the source. While there is no connection it
	// drops them: what is asked for and not there is asked again when there
	// is one. It does not keep its argument, and tells whether it has
	// written them.
	request func([]pageRequest) bool
	sums    *sums // nil unless verifying
	probe   *probe

	// listening: the guest may run, so that a page that is in place may be
	// newer than the one that comes. Before that what comes is newer.
	listening atomic.Bool
	// early is held, shared, by whoever puts pages in place before that, and
	// alone for what must not happen at the same time: whatever the source
	// sends on several channels, in whatever order.
	early     sync.RWMutex
	left      atomic.Int64 // target pages not in place yet
	requested atomic.Uint64
	finish    func()        // closes done, once
	done      chan struct{} // closed when the last page is in place
	reader    sync.WaitGroup
}

// newPager arms userfaultfd on every block: from here on, no page of them is
// there until it is placed. No vCPU has run and no device has been loaded.
func newPager(blocks []*memslot.Block, s *sums, request func([]pageRequest) bool) (*pager, error) {
	fd, err := uffd.Open()
	if err != nil {
		return nil, err
	}
	p := &pager{
		fd: fd, blocks: blocks, waits: newWaits(), request: request, sums: s,
		done: make(chan struct{}),
	}
	p.finish = sync.OnceFunc(func() { close(p.done) })
	for i, b := range blocks {
		if err := fd.Register(b.Addr(), b.Size()); err != nil {
			fd.Close()
			return nil, fmt.Errorf("RAM block %q [%#x, +%d bytes): %w", b.Name(), b.Addr(), b.Size(), err)
		}
		p.asked = append(p.asked, memslot.NewBitmap(b.Pages()))
		p.left.Add(int64(b.Size() / wire.PageSize))
		if err := b.Expect(func(page uint64) { p.fetch(i, page) }); err != nil {
			fd.Close()
			return nil, fmt.Errorf("RAM block %q: %w", b.Name(), err)
		}
	}
	if p.probe, err = newProbe(fd); err != nil {
		fd.Close()
		return nil, err
	}
	return p, nil
}

// start starts the thread that reads the userfaultfd. failed is called if it
// has to end before stop.
func (p *pager) start(failed func(error)) {
	p.reader.Go(func() {
		if err := p.readFaults(); err != nil {
			failed(err)
		}
	})
}

// run notes that the vCPUs run, by these threads. From now on threads of ours wait for
// pages inside the kernel, where no signal reaches them: the probe's too, which is
// therefore not started before. What has every thread of the process do something, as
// it is confined (syscall.AllThreadsSyscall), stops the reader first, and would wait for
// them for ever.
func (p *pager) run(tids []int) {
	p.waits.setVCPUs(tids, time.Now())
	p.probe.start()
}

// stop ends the reader. It is called when every page is in place, or when no
// more will come: a page touched after it is never fetched.
func (p *pager) stop() {
	p.fd.Interrupt()
	p.reader.Wait()
}

// readFaults is the fault thread. It keeps an OS thread to itself so that the
// kernel wakes the one that will do the work, and it does not allocate.
func (p *pager) readFaults() error {
	urgentThread()
	var (
		events   [64]uffd.Event
		requests [len(events)]pageRequest
	)
	for {
		if err := p.fd.Wait(); err != nil {
			if errors.Is(err, uffd.ErrInterrupted) {
				return nil
			}
			return fmt.Errorf("wait for page faults: %w", err)
		}
		n, err := p.fd.Read(events[:])
		if err == unix.EAGAIN {
			continue // whoever faulted was woken, or killed, in the meantime
		}
		if err != nil {
			return fmt.Errorf("read page faults: %w", err)
		}
		now := time.Now()
		out := requests[:0]
		for _, ev := range events[:n] {
			if p.probe.answer(p.fd, ev.Addr, now) {
				continue
			}
			block, page, ok := p.find(ev.Addr)
			if !ok {
				return fmt.Errorf("page fault at %#x, which is in no RAM block", ev.Addr)
			}
			if p.expect(block, page, ev.TID, now) {
				out = append(out, pageRequest{block, page})
			}
		}
		if len(out) > 0 && p.request(out) {
			p.waits.asked(out, now, time.Now())
		}
	}
}

// find translates a host address into a block and a host page in it.
func (p *pager) find(addr uint64) (block int, page uint64, ok bool) {
	for i, b := range p.blocks {
		if off := addr - uint64(b.Addr()); addr >= uint64(b.Addr()) && off < b.Size() {
			return i, off / b.PageSize(), true
		}
	}
	return 0, 0, false
}

// expect notes that thread tid (0: a device) waits for a page, and tells
// whether it has yet to be asked for.
func (p *pager) expect(block int, page uint64, tid int, now time.Time) bool {
	b := p.blocks[block]
	p.waits.add(block, page, tid, now)
	// Whoever places the page sets it present first and looks for waits
	// after that. So either it sees ours, or we see the page here.
	if b.Present(page) {
		now = time.Now()
		p.waits.placed(block, page, 1, now, now)
		p.wake(b, page)
		return false
	}
	if p.asked[block].TestAndSet(page) {
		return false
	}
	p.requested.Add(1)
	return true
}

// single holds requests on their way from fetch to the wire: a slice that a
// function value takes would be allocated for each.
var single = sync.Pool{New: func() any { return new([1]pageRequest) }}

// fetch is asked by the accessors of guest memory for a page that a device
// waits for.
func (p *pager) fetch(block int, page uint64) {
	now := time.Now()
	if !p.expect(block, page, 0, now) {
		return
	}
	one := single.Get().(*[1]pageRequest)
	one[0] = pageRequest{block, page}
	if p.request(one[:]) {
		p.waits.asked(one[:], now, time.Now())
	}
	single.Put(one)
}

// wake wakes threads whose fault was raised while the page was being placed.
func (p *pager) wake(b *memslot.Block, page uint64) {
	// The only errors are of a process that is ending.
	_ = p.fd.Wake(b.Addr()+uintptr(page*b.PageSize()), b.PageSize())
}

// place puts a run of target pages in place; data nil stands for zeros. It is
// called by the readers of all channels at once. first and count come from the
// wire and are checked here.
func (p *pager) place(block int, first, count uint64, data []byte) error {
	if block >= len(p.blocks) {
		return protocolError("RAM", "block %d of %d", block, len(p.blocks))
	}
	b := p.blocks[block]
	total := b.Size() / wire.PageSize
	if first >= total || count > total-first {
		return protocolError("RAM", "RAM block %q: pages [%d, +%d) of %d", b.Name(), first, count, total)
	}
	perHost := b.PageSize() / wire.PageSize
	whole := first%perHost == 0 && count%perHost == 0
	off, length := first*wire.PageSize, count*wire.PageSize
	if !p.listening.Load() {
		p.early.RLock()
		defer p.early.RUnlock()
	}
	if !p.listening.Load() {
		if !whole {
			p.sums.placed(block, first, count, data)
			return p.patch(b, off, length, data)
		}
		return p.replace(b, block, off, length, data)
	}
	if !whole {
		return protocolError("RAM", "RAM block %q: pages [%d, +%d) are not whole host pages of %d bytes", b.Name(), first, count, b.PageSize())
	}
	if p.left.Load() == 0 {
		return nil // sent again
	}
	return p.install(block, off, length, data)
}

// replace puts pages in place before the guest runs: those that are there
// already are old.
func (p *pager) replace(b *memslot.Block, block int, off, length uint64, data []byte) error {
	part := func(n uint64) []byte {
		if data == nil {
			return nil
		}
		return data[:n]
	}
	for length > 0 {
		first := off / b.PageSize()
		present := b.Present(first)
		n := b.PageSize()
		for n < length && b.Present((off+n)/b.PageSize()) == present {
			n += b.PageSize()
		}
		var err error
		if present {
			p.sums.placed(block, off/wire.PageSize, n/wire.PageSize, part(n))
			err = b.Overwrite(off, n, part(n))
		} else {
			err = p.install(block, off, n, part(n))
		}
		if err != nil {
			return err
		}
		off, length = off+n, length-n
		if data != nil {
			data = data[n:]
		}
	}
	return nil
}

// discard drops target pages that the source has changed since it sent them.
func (p *pager) discard(d wire.Discard) error {
	p.early.Lock()
	defer p.early.Unlock()
	i := slices.IndexFunc(p.blocks, func(b *memslot.Block) bool { return b.Name() == d.Block })
	if i < 0 {
		return protocolError("RAM_DISCARD", "RAM block %q: there is none of that name", d.Block)
	}
	b := p.blocks[i]
	perHost := b.PageSize() / wire.PageSize
	for _, r := range d.Ranges {
		total := b.Size() / wire.PageSize
		if r.First >= total || r.Count > total-r.First || r.First%perHost != 0 || r.Count%perHost != 0 {
			return protocolError("RAM_DISCARD", "RAM block %q: pages [%d, +%d) of %d, in host pages of %d", b.Name(), r.First, r.Count, total, perHost)
		}
		first, n := r.First/perHost, r.Count/perHost
		for page := first; page < first+n; page++ {
			if b.Present(page) {
				p.left.Add(int64(perHost))
			}
		}
		if err := b.Discard(first, n); err != nil {
			return &fatalError{err}
		}
	}
	return nil
}

// listen begins postcopy: from here on faults are answered, and what is in
// place stays.
func (p *pager) listen(failed func(error)) {
	p.early.Lock()
	p.listening.Store(true)
	p.early.Unlock()
	if p.left.Load() == 0 {
		p.finish()
	}
	p.start(failed)
}

// install moves length bytes from off on into the block, in as few calls of
// the kernel as it lets us.
func (p *pager) install(block int, off, length uint64, data []byte) error {
	b := p.blocks[block]
	came := time.Now()
	for length > 0 {
		var n uint64
		var err error
		dst := b.Addr() + uintptr(off)
		if data != nil {
			n, err = p.fd.Copy(dst, data[:length], true)
		} else {
			n, err = p.fd.ZeroPage(dst, length)
		}
		if n > 0 {
			p.arrived(block, off, n, came)
			// Of what comes twice, this is what the guest has.
			p.sums.placed(block, off/wire.PageSize, n/wire.PageSize, data[:min(n, uint64(len(data)))])
			p.left.Add(-int64(n / wire.PageSize))
		}
		switch err {
		case nil, unix.EAGAIN:
			// EAGAIN: the address space was changing under the call (a
			// fork, an mmap elsewhere). What is left is tried again.
		case unix.EEXIST:
			// The page was placed before: sent twice, since it was asked
			// for when it was on its way, or around a broken connection.
			// What is there may be newer; it stays.
			p.arrived(block, off+n, b.PageSize(), came)
			n += b.PageSize()
		default:
			return &fatalError{fmt.Errorf("RAM block %q: place %d bytes at offset %#x: %w", b.Name(), length, off, err)}
		}
		off, length = off+n, length-n
		if data != nil {
			data = data[n:]
		}
	}
	if p.left.Load() == 0 && p.listening.Load() {
		p.finish()
	}
	return nil
}

// arrived makes pages known that are in place, to whoever waits for them. They
// were in hand when it was came.
func (p *pager) arrived(block int, off, length uint64, came time.Time) {
	b := p.blocks[block]
	first, n := off/b.PageSize(), length/b.PageSize()
	b.MarkPresent(first, n)
	p.waits.placed(block, first, n, came, time.Now())
}

// missing lists the pages that somebody waits for.
func (p *pager) missing() []pageRequest {
	var out []pageRequest
	p.waits.pending(func(block int, page uint64) { out = append(out, pageRequest{block, page}) })
	return out
}

// report fills in what the pager knows of faults.
func (p *pager) report(s *stats) {
	p.waits.report(s)
	s.Faults.Requested = p.requested.Load()
	f := &s.Faults.Phases
	f.KernelP50NS, f.KernelP99NS = int64(p.probe.kernel.quantile(0.50)), int64(p.probe.kernel.quantile(0.99))
	f.WakeP50NS, f.WakeP99NS = int64(p.probe.woken.quantile(0.50)), int64(p.probe.woken.quantile(0.99))
}

// release gives memory back to the kernel's ordinary care. Every page is in
// place.
func (p *pager) release() error {
	p.stop()
	p.probe.stop(p.fd)
	for _, b := range p.blocks {
		if page, absent := b.NextAbsent(0); absent {
			return fmt.Errorf("RAM block %q: page %d: %w", b.Name(), page, memslot.ErrAbsent)
		}
		// In this order: once the block is complete, devices may drop pages
		// of it, which are zero then, and not to be fetched.
		if err := p.fd.Unregister(b.Addr(), b.Size()); err != nil {
			return fmt.Errorf("RAM block %q: %w", b.Name(), err)
		}
		if err := b.Complete(); err != nil {
			return err
		}
	}
	return p.fd.Close()
}

// abort ends the pager with pages missing: whoever waits for one in this
// program gets err. No vCPU has ever run, so that no page that is missing can
// read as zeros to the guest.
func (p *pager) abort(err error) {
	p.forsake(err)
	// One by one first, for the reason that probe.stop gives: KVM may be at a
	// page too. They can only fail in a process that is ending.
	for _, b := range p.blocks {
		_ = p.fd.Unregister(b.Addr(), b.Size())
	}
	_ = p.fd.Close()
}

// forsake is abort with vCPUs that have run, and may be waiting for a page in
// the kernel: the userfaultfd stays open for as long as the process lives, so
// that they never see anything else in its place.
func (p *pager) forsake(err error) {
	for _, b := range p.blocks {
		b.Fail(err)
	}
	p.stop()
	p.probe.stop(p.fd)
}
