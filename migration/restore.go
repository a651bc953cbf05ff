package migration

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"time"

	"microvm/memslot"
	"microvm/migration/snapshot"
	"microvm/migration/wire"
)

// RestoreOptions of a machine that comes from a snapshot.
type RestoreOptions struct {
	// Lazy has the guest run at once, and brings its pages as it touches them; the
	// rest follow in the background. Without it all of memory is read before.
	Lazy bool
	Log  *slog.Logger // nil: nothing is logged
}

// RestoreReport is the account of it; durations are in nanoseconds.
type RestoreReport struct {
	MemoryBytes uint64 `json:"memory_bytes"`
	LoadNS      int64  `json:"load_ns"`  // until the guest could run
	TotalNS     int64  `json:"total_ns"` // until all of its memory was here
	// What it waited for, if Lazy.
	Faults            FaultReport `json:"faults"`
	BlocktimeNS       int64       `json:"blocktime_ns"`
	VCPUBlocktimeNS   []int64     `json:"vcpu_blocktime_ns"`
	DeviceBlocktimeNS int64       `json:"device_blocktime_ns"`
}

// A Restoration brings a machine to where its snapshot left it.
//
//	r, err := NewRestoration(machine, reader, options)
//	err = r.Run()
//	report, err := r.Wait()
type Restoration struct {
	m    DestinationMachine
	file *snapshot.Reader
	log  *slog.Logger
	rep  RestoreReport

	began time.Time
	lazy  *lazy // nil: all of memory is here
	ended chan struct{}
	err   error // valid after ended
}

// NewRestoration loads a machine that has just been built: its devices, and its
// memory or the means to get it. On an error the machine has to be freed; it never
// ran. The files have to stay as they are until Wait has returned.
func NewRestoration(m DestinationMachine, file *snapshot.Reader, o RestoreOptions) (*Restoration, error) {
	r := &Restoration{m: m, file: file, log: o.Log, began: time.Now(), ended: make(chan struct{})}
	if r.log == nil {
		r.log = slog.New(slog.DiscardHandler)
	}
	states, err := r.check()
	if err != nil {
		return nil, err
	}
	if o.Lazy {
		if r.lazy, err = newLazy(m.Blocks(), file); err != nil {
			return nil, err
		}
	} else if err := readAll(m.Blocks(), file); err != nil {
		return nil, err
	}
	if err := r.loadDevices(states); err != nil {
		return nil, err
	}
	r.rep.LoadNS = int64(time.Since(r.began))
	return r, nil
}

// check compares the snapshot with the machine, and reads its devices' states.
func (r *Restoration) check() ([]wire.DeviceState, error) {
	blocks := r.m.Blocks()
	if len(blocks) != len(r.file.Head.Blocks) {
		return nil, fmt.Errorf("the snapshot has %d RAM blocks, the machine %d", len(r.file.Head.Blocks), len(blocks))
	}
	for i, b := range blocks {
		if have := r.file.Head.Blocks[i]; have.Name != b.Name() || have.Size != b.Size() {
			return nil, fmt.Errorf("RAM block %d: the snapshot has %q with %d bytes, the machine %q with %d", i, have.Name, have.Size, b.Name(), b.Size())
		}
		r.rep.MemoryBytes += b.Size()
	}
	state, err := r.file.State()
	if err != nil {
		return nil, err
	}
	return unpack(state)
}

// loadDevices loads them. One may need a page, which may turn out not to be had.
func (r *Restoration) loadDevices(states []wire.DeviceState) error {
	parts, err := newPartsIn(r.m, states, 0)
	if err != nil {
		r.GiveUp(err)
		return err
	}
	loaded := make(chan error, 1)
	go func() { loaded <- load(r.m, states, parts) }()
	select {
	case err = <-loaded:
	case err = <-r.lazy.broken():
		r.GiveUp(err)
		<-loaded // it may be in guest memory
		return err
	}
	if err != nil {
		r.GiveUp(err)
	}
	return err
}

// GiveUp ends a restoration whose Run has not been called, or has failed: why is what
// waits for a page is told.
func (r *Restoration) GiveUp(why error) {
	r.m.Stop()
	if r.lazy != nil {
		r.lazy.halt()
		r.lazy.pager.abort(why)
	}
}

// Run runs the guest. Wait has to be called then, whatever becomes of it.
func (r *Restoration) Run() error {
	if err := r.m.Run(); err != nil {
		r.GiveUp(err)
		return err
	}
	if r.lazy == nil {
		r.err = r.settle()
		close(r.ended)
		return nil
	}
	r.lazy.pager.run(r.m.VCPUThreads())
	r.lazy.fill()
	go func() {
		r.err = r.follow()
		close(r.ended)
	}()
	return nil
}

// settle says that all of memory is here.
func (r *Restoration) settle() error {
	r.rep.TotalNS = int64(time.Since(r.began))
	if err := r.m.Settle(); err != nil {
		r.log.Warn("all of the guest's memory is here", "error", err)
	}
	return nil
}

// follow sees to the end of a lazy one.
func (r *Restoration) follow() error {
	l := r.lazy
	select {
	case <-l.pager.done:
		l.halt()
		l.report(&r.rep)
		if err := l.pager.release(); err != nil {
			return r.lose(err)
		}
		f := r.rep.Faults
		r.log.Info("all of the guest's memory is here", "faults", f.Count, "p50", time.Duration(f.P50NS), "p99", time.Duration(f.P99NS), "blocktime", time.Duration(r.rep.BlocktimeNS))
		return r.settle()
	case err := <-l.broken():
		l.halt()
		return r.lose(err)
	case <-r.m.Done(): // no vCPU runs any more
		l.halt()
		l.report(&r.rep)
		l.pager.abort(errors.New("the guest has ended"))
		return nil
	}
}

// lose ends a guest whose memory cannot be had. The snapshot is still there.
func (r *Restoration) lose(err error) error {
	lost := &LostError{err}
	r.m.Abandon(lost)
	r.lazy.pager.forsake(lost)
	return lost
}

// Wait returns when all of the guest's memory is here, or the guest has ended. The
// error is a *LostError: the guest ran, and needs memory that cannot be read.
func (r *Restoration) Wait() (RestoreReport, error) {
	<-r.ended
	return r.rep, r.err
}

// PagesLeft is how many pages of 4096 bytes are still to be read.
func (r *Restoration) PagesLeft() uint64 {
	if r.lazy == nil {
		return 0
	}
	return uint64(r.lazy.pager.left.Load())
}

// readAll reads all of memory, which is zeros, several parts at once.
func readAll(blocks []*memslot.Block, file *snapshot.Reader) error {
	ctx, fail := context.WithCancelCause(context.Background())
	defer fail(nil)
	type part struct {
		block      int
		first, end uint64
	}
	parts := make(chan part)
	var readers sync.WaitGroup
	for range min(runtime.NumCPU(), 4) {
		readers.Go(func() {
			for p := range parts {
				mem, err := blocks[p.block].View(p.first*wire.PageSize, (p.end-p.first)*wire.PageSize)
				if err == nil {
					err = file.Read(p.block, p.first, mem)
				}
				if err != nil {
					fail(err)
				}
			}
		})
	}
	for block := range blocks {
		for first := uint64(0); ctx.Err() == nil; {
			data, n, err := file.NextData(block, first)
			if err != nil {
				fail(err)
			}
			if n == 0 || err != nil {
				break
			}
			for ; n > 0 && ctx.Err() == nil; n -= min(n, readPages) {
				parts <- part{block, data, data + min(n, readPages)}
				data += min(n, readPages)
			}
			first = data
		}
	}
	close(parts)
	readers.Wait()
	return context.Cause(ctx)
}

// readPages is how many pages are read at a time where nobody waits for them.
const readPages = snapshot.MaxRead / wire.PageSize
