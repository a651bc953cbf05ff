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

// StoppableMachine is a VM that can be brought to rest, and let run on: see
// SourceMachine, which it is the smaller part of.
type StoppableMachine interface {
	Machine
	Pause(ctx context.Context) error
	Resume() error
}

// SaveOptions of a snapshot.
type SaveOptions struct {
	// LeaveRunning has the guest run while most of its memory is written, and go
	// on after that; the machine is a DirtyLogger then. Without it the machine
	// is paused when Save returns nil, and is not to run here any more: it is
	// where the snapshot is.
	LeaveRunning bool
	// Head is asked for once the machine is paused.
	Head func() (snapshot.Head, error)
	Log  *slog.Logger // nil: nothing is logged
}

// SaveReport is the account of one snapshot; durations are in nanoseconds.
type SaveReport struct {
	VM           string `json:"vm"`
	MemoryBytes  uint64 `json:"memory_bytes"`  // of guest RAM
	BytesWritten uint64 `json:"bytes_written"` // of it, pages of zeros left out, and each time
	Passes       int    `json:"passes"`        // over memory while the guest ran
	// DowntimeNS is for how long the guest stood still, if it runs on, and
	// otherwise from its pause to everything on the disk.
	DowntimeNS  int64 `json:"downtime_ns"`
	TotalNS     int64 `json:"total_ns"`
	LeftRunning bool  `json:"left_running"`
}

// What is little enough to be written while the guest stands still, and how often
// it is tried to get there.
const (
	saveRest   = 16 << 20 / wire.PageSize
	savePasses = 8
)

// Save writes a machine to w, which its blocks fit. An error means that the machine
// is as it was, and that there is no snapshot.
func Save(ctx context.Context, m StoppableMachine, w *snapshot.Writer, o SaveOptions) (*SaveReport, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	s, err := newSaving(m, w)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	rep := &SaveReport{MemoryBytes: s.pages() * wire.PageSize, LeftRunning: o.LeaveRunning}
	if o.LeaveRunning {
		log, ok := m.(DirtyLogger)
		if !ok {
			return nil, errors.New("a snapshot of a VM that is left running needs a dirty log, which this machine does not have")
		}
		if err := log.StartDirtyLog(); err != nil {
			return nil, fmt.Errorf("start the dirty log: %w", err)
		}
		defer func() {
			if err := log.StopDirtyLog(); err != nil {
				o.Log.Warn("stop the dirty log", "error", err)
			}
		}()
		s.log = log
		if rep.Passes, err = s.passes(ctx, o.Log); err != nil {
			return nil, err
		}
	}
	if err := s.rest(ctx, o, rep); err != nil {
		return nil, err
	}
	rep.BytesWritten, rep.TotalNS = w.Written(), int64(time.Since(began))
	return rep, nil
}

// saving is a snapshot being written.
type saving struct {
	m   StoppableMachine
	w   *snapshot.Writer
	log DirtyLogger // nil: the guest does not run meanwhile
	mem [][]byte    // by block
	// todo has the pages that the file has not as they are; dirty those that were
	// logged and not cleared since; early is the first pass, before which the file
	// has zeros everywhere.
	todo, dirty []*memslot.Bitmap
	early       bool
}

func newSaving(m StoppableMachine, w *snapshot.Writer) (*saving, error) {
	s := &saving{m: m, w: w, early: true}
	for _, b := range m.Blocks() {
		mem, err := b.View(0, b.Size())
		if err != nil {
			return nil, err
		}
		pages := b.Size() / wire.PageSize
		todo := memslot.NewBitmap(pages)
		todo.SetRange(0, pages)
		s.mem, s.todo, s.dirty = append(s.mem, mem), append(s.todo, todo), append(s.dirty, memslot.NewBitmap(pages))
	}
	return s, nil
}

func (s *saving) pages() (n uint64) {
	for _, t := range s.todo {
		n += t.Len()
	}
	return n
}

// passes writes memory while the guest runs, and again what it has written
// meanwhile, until little is left, or passes do not help any more.
func (s *saving) passes(ctx context.Context, log *slog.Logger) (n int, err error) {
	// A log may begin with every page in it: see precopy.
	left, err := s.collect()
	if err != nil {
		return 0, err
	}
	for n < savePasses && left > saveRest {
		if err := s.pass(ctx); err != nil {
			return n, err
		}
		n++
		before := left
		if left, err = s.collect(); err != nil {
			return n, err
		}
		log.Debug("snapshot", "pass", n, "dirty", left)
		if left > before/4*3 {
			break
		}
	}
	// What is on the disk now need not be waited for while the guest stands still.
	return n, s.w.Sync()
}

// collect takes in what was written since it was last cleared in the log.
func (s *saving) collect() (left uint64, err error) {
	if err := s.log.DirtyPages(s.dirty); err != nil {
		return 0, fmt.Errorf("read the dirty log: %w", err)
	}
	for i, dirty := range s.dirty {
		todo := s.todo[i].Words()
		for j := range dirty.Words() {
			if word := dirty.Words()[j].Load(); word != 0 {
				todo[j].Or(word)
			}
		}
		left += s.todo[i].Count()
	}
	return left, nil
}

// rest is what the guest stands still for.
func (s *saving) rest(ctx context.Context, o SaveOptions, rep *SaveReport) (err error) {
	stopping := time.Now()
	if err := s.m.Pause(ctx); err != nil {
		return fmt.Errorf("pause the VM: %w", err)
	}
	goOn := sync.OnceValue(func() error {
		if err := s.m.Resume(); err != nil {
			return fmt.Errorf("resume the VM: %w", err)
		}
		rep.DowntimeNS = int64(time.Since(stopping))
		return nil
	})
	defer func() {
		if err != nil {
			err = errors.Join(err, goOn())
		}
	}()
	if s.log != nil {
		if _, err := s.collect(); err != nil {
			return err
		}
		s.log = nil // nothing is written any more
	}
	if err := s.pass(ctx); err != nil {
		return err
	}
	head, err := o.Head()
	if err != nil {
		return err
	}
	state, err := packDevices(ctx, s.m, func(Snapshotter) bool { return false })
	if err != nil {
		return err
	}
	if o.LeaveRunning {
		if err := goOn(); err != nil {
			return err
		}
	}
	rep.VM = head.VM
	if err := s.w.Commit(head, state); err != nil {
		return err
	}
	if !o.LeaveRunning {
		rep.DowntimeNS = int64(time.Since(stopping))
	}
	return nil
}

// pass writes every page that is to be written, chunk after chunk, several at once.
// In a chunk of which the guest may write, its writes are logged anew before it is
// read.
func (s *saving) pass(ctx context.Context) error {
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	type chunk struct {
		block int
		first uint64
	}
	chunks := make(chan chunk)
	var writers sync.WaitGroup
	for range min(runtime.NumCPU(), 4) {
		writers.Go(func() {
			for c := range chunks {
				if err := s.write(ctx, c.block, c.first); err != nil {
					fail(err)
				}
			}
		})
	}
give:
	for block, todo := range s.todo {
		for first := uint64(0); first < todo.Len(); first += clearChunk {
			select {
			case chunks <- chunk{block, first}:
			case <-ctx.Done():
				break give
			}
		}
	}
	close(chunks)
	writers.Wait()
	s.early = false
	return context.Cause(ctx)
}

// write writes what is to be written of the clearChunk pages from first on.
func (s *saving) write(ctx context.Context, block int, first uint64) error {
	todo := s.todo[block]
	end := min(first+clearChunk, todo.Len())
	if s.log != nil {
		var mask [clearChunk / 64]uint64
		if err := protectChunk(s.log, s.dirty, block, first, &mask); err != nil {
			return err
		}
	}
	for ctx.Err() == nil {
		page, any := todo.NextSet(first)
		if !any || page >= end {
			break
		}
		stop, more := todo.NextClear(page)
		if !more || stop > end {
			stop = end
		}
		todo.ClearRange(page, stop-page)
		if err := s.writeRun(block, page, stop); err != nil {
			return err
		}
	}
	return nil
}

// writeRun writes pages [first, end): zeros as holes.
func (s *saving) writeRun(block int, first, end uint64) error {
	for first < end {
		mem, zero := firstRun(s.mem[block][first*wire.PageSize:end*wire.PageSize], wire.PageSize)
		pages := uint64(len(mem)) / wire.PageSize
		var err error
		switch {
		case !zero:
			err = s.w.Write(block, first, mem)
		case !s.early:
			err = s.w.Zero(block, first, pages)
		}
		if err != nil {
			return err
		}
		first += pages
	}
	return nil
}
