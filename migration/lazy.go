package migration

import (
	"fmt"
	"sync"

	"microvm/memslot"
	"microvm/migration/snapshot"
	"microvm/migration/wire"
)

// lazy brings a guest's memory out of a file: what somebody waits for, with its
// neighbours, and meanwhile the rest. It is to a pager what the source is in a
// migration, and has, like that, a path for each of the two:
//
//	fault thread   userfaultfd ─▶ wanted
//	answer         wanted ─▶ file ─▶ UFFDIO_COPY
//	fill           file ─▶ UFFDIO_COPY
type lazy struct {
	pager  *pager
	file   *snapshot.Reader
	blocks []*memslot.Block

	wanted  chan pageRequest
	failed  chan error    // the first is what counts
	over    chan struct{} // closed by halt
	halt    func()        // ends the workers, and waits for them
	workers sync.WaitGroup
}

// neighbours is how many target pages are read for one that is waited for: reading
// ahead costs a disk little, and a guest goes on with what is near.
const neighbours = 16

// maxWanted is how many pages may be asked for before the fault thread waits.
const maxWanted = 1024

// newLazy arms userfaultfd on all of memory, and answers faults from now on.
func newLazy(blocks []*memslot.Block, file *snapshot.Reader) (*lazy, error) {
	l := &lazy{file: file, blocks: blocks, wanted: make(chan pageRequest, maxWanted), failed: make(chan error, 1), over: make(chan struct{})}
	l.halt = sync.OnceFunc(func() { close(l.over); l.workers.Wait() })
	var err error
	if l.pager, err = newPager(blocks, nil, l.want); err != nil {
		return nil, err
	}
	l.pager.listen(l.fail)
	l.workers.Go(l.answer)
	return l, nil
}

// broken has the error after which no more pages come. Of a nil one nothing ever does.
func (l *lazy) broken() <-chan error {
	if l == nil {
		return nil
	}
	return l.failed
}

func (l *lazy) fail(err error) {
	select {
	case l.failed <- err:
	default:
	}
}

// want is how the pager asks for pages.
func (l *lazy) want(pages []pageRequest) bool {
	for _, p := range pages {
		select {
		case l.wanted <- p:
		case <-l.over:
			return false
		}
	}
	return true
}

// answer brings what is waited for.
func (l *lazy) answer() {
	buf := newPageBuffer(l.blocks, neighbours)
	for {
		select {
		case p := <-l.wanted:
			b := l.blocks[p.block]
			// Those that a disk would read along are in one piece with it.
			span := max(1, neighbours*wire.PageSize/b.PageSize())
			first := p.page - p.page%span
			if err := l.bring(p.block, first, min(first+span, b.Pages()), buf); err != nil {
				l.fail(err)
				return
			}
		case <-l.over:
			return
		}
	}
}

// fill brings everything, in order, as the file has it.
func (l *lazy) fill() {
	l.workers.Go(func() {
		buf := newPageBuffer(l.blocks, readPages)
		for block := range l.blocks {
			if err := l.fillBlock(block, buf); err != nil {
				l.fail(err)
				return
			}
		}
	})
}

func (l *lazy) fillBlock(block int, buf []byte) error {
	b := l.blocks[block]
	perHost := b.PageSize() / wire.PageSize
	for page := uint64(0); page < b.Pages(); { // a host page
		data, n, err := l.file.NextData(block, page*perHost)
		if err != nil {
			return err
		}
		zeros := data / perHost // the host page that is not all zeros
		if err := l.each(page, zeros, readPages/perHost, func(first, end uint64) error {
			return l.pager.place(block, first*perHost, (end-first)*perHost, nil)
		}); err != nil {
			return err
		}
		page = min((data+n+perHost-1)/perHost, b.Pages())
		if err := l.each(zeros, page, uint64(len(buf))/b.PageSize(), func(first, end uint64) error {
			return l.bring(block, first, end, buf)
		}); err != nil {
			return err
		}
	}
	return nil
}

// each calls do for [first, end) in parts of at most step, as long as there is a
// reason to: whoever waits for a page of a part waits for the whole of it.
func (l *lazy) each(first, end, step uint64, do func(first, end uint64) error) error {
	step = max(step, 1)
	for ; first < end; first += min(step, end-first) {
		select {
		case <-l.over:
			return nil
		default:
		}
		if err := do(first, min(first+step, end)); err != nil {
			return err
		}
	}
	return nil
}

// bring puts those host pages of [first, end) in place that are not. buf has room
// for them.
func (l *lazy) bring(block int, first, end uint64, buf []byte) error {
	b := l.blocks[block]
	perHost := b.PageSize() / wire.PageSize
	for {
		var absent bool
		if first, absent = b.NextAbsent(first); !absent || first >= end {
			return nil
		}
		stop := first + 1
		for stop < end && !b.Present(stop) {
			stop++
		}
		mem := buf[:(stop-first)*b.PageSize()]
		for done := uint64(0); done < uint64(len(mem)); done += snapshot.MaxRead {
			part := mem[done:min(done+snapshot.MaxRead, uint64(len(mem)))]
			if err := l.file.Read(block, first*perHost+done/wire.PageSize, part); err != nil {
				return err
			}
		}
		if err := l.place(block, first, mem); err != nil {
			return err
		}
		first = stop
	}
}

// place puts host pages in place: runs of zeros as such.
func (l *lazy) place(block int, first uint64, mem []byte) error {
	size := l.blocks[block].PageSize()
	perHost := size / wire.PageSize
	for len(mem) > 0 {
		data, zero := firstRun(mem, size)
		n := uint64(len(data))
		if zero {
			data = nil
		}
		if err := l.pager.place(block, first*perHost, n/wire.PageSize, data); err != nil {
			return fmt.Errorf("put pages of a snapshot in place: %w", err)
		}
		first, mem = first+n/size, mem[n:]
	}
	return nil
}

// newPageBuffer has room for so many target pages, and for a host page of any block.
func newPageBuffer(blocks []*memslot.Block, pages uint64) []byte {
	size := pages * wire.PageSize
	for _, b := range blocks {
		size = max(size, b.PageSize())
	}
	return make([]byte, size)
}

// report says what was waited for.
func (l *lazy) report(rep *RestoreReport) {
	var s stats
	l.pager.report(&s)
	rep.Faults, rep.BlocktimeNS, rep.VCPUBlocktimeNS, rep.DeviceBlocktimeNS = s.Faults, s.BlocktimeNS, s.VCPUBlocktimeNS, s.DeviceBlocktimeNS
}
