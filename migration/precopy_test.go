package migration

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"microvm/memslot"
	"microvm/migration/wire"
)

// busyMachine is a testMachine whose guest writes at random until it is
// paused, to the first of it.
type busyMachine struct {
	*testMachine
	mem     *memslot.Memory
	rng     *rand.Rand
	bytes   uint64
	rate    time.Duration // between two writes
	stop    chan struct{}
	stopped sync.WaitGroup
	logging chan struct{} // closed when its dirty log begins
	slow    atomic.Int32  // percent of its writes that it leaves out
}

func newBusyMachine(t *testing.T, size, busy uint64, rate time.Duration) *busyMachine {
	t.Helper()
	return busyOn(t, newTestMachine(t, size), busy, rate)
}

// busyOn gives a machine of one block such a guest.
func busyOn(t *testing.T, of *testMachine, busy uint64, rate time.Duration) *busyMachine {
	t.Helper()
	m := &busyMachine{testMachine: of, rng: rand.New(rand.NewPCG(1, 2)), bytes: busy, rate: rate, logging: make(chan struct{})}
	m.fill(t)
	m.mem = memslot.NewMemory(nullRegions{}, 4)
	if err := m.mem.Map(0, 0, m.blocks[0], 0, m.blocks[0].Size(), 0); err != nil {
		t.Fatal(err)
	}
	m.work()
	t.Cleanup(func() { m.Pause(context.Background()) })
	return m
}

// work lets the guest write.
func (m *busyMachine) work() {
	m.stop = make(chan struct{})
	m.stopped.Go(func() {
		var word [8]byte
		tick := time.NewTicker(m.rate)
		defer tick.Stop()
		for {
			select {
			case <-m.stop:
				return
			case <-tick.C:
			}
			for range 16 {
				if m.rng.Int32N(100) < m.slow.Load() {
					continue
				}
				page := m.rng.Uint64N(m.bytes / wire.PageSize)
				word[0] = pattern(page, 0) // so that the reader still knows it
				word[7] = byte(m.rng.Uint32())
				if page%5 == 0 {
					word[0] = 0
				}
				if err := m.mem.WriteAt(word[:], page*wire.PageSize); err != nil {
					panic(err)
				}
			}
		}
	})
}

// Pause stops the guest, after one more write: to page 1, which any pass has
// sent.
func (m *busyMachine) Pause(ctx context.Context) error {
	if m.stop != nil {
		close(m.stop)
		m.stopped.Wait()
		m.stop = nil
		if err := m.mem.WriteAt([]byte{pattern(1, 0), 42}, wire.PageSize); err != nil {
			return err
		}
	}
	return m.testMachine.Pause(ctx)
}

func (m *busyMachine) Resume() error {
	m.work()
	return m.testMachine.Resume()
}

func (m *busyMachine) StartDirtyLog() error {
	close(m.logging)
	return m.blocks[0].StartDirtyLog()
}

func (m *busyMachine) DirtyPages(dirty []*memslot.Bitmap) error {
	words := dirty[0].Words()
	for i := range m.blocks[0].Dirty().Words() {
		words[i].Or(m.blocks[0].Dirty().Words()[i].Swap(0))
	}
	return nil
}

func (m *busyMachine) ClearDirty(int, uint64, []uint64) error { return nil }

func (m *busyMachine) StopDirtyLog() error { m.blocks[0].StopDirtyLog(); return nil }

// moveBusy moves a machine whose guest writes.
func moveBusy(t *testing.T, src *busyMachine, opt Options) *move {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	build, built := builderOf(t, func(dst *testMachine) { dst.guests = 2 })
	return moveTo(t, ctx, src, opt, build, built)
}

// moveTo moves it to what build builds.
func moveTo(t *testing.T, ctx context.Context, src *busyMachine, opt Options, build Builder, built func() *testMachine) *move {
	t.Helper()
	addr, d, done := destination(t, ctx, build)
	opt.Log, opt.Verify = testLog(t), true
	s, err := NewSource(src, addr, opt)
	if err != nil {
		t.Fatal(err)
	}
	mv := &move{source: src.testMachine}
	mv.report, mv.err = s.Run(ctx)
	if mv.err != nil {
		d.GiveUp()
	}
	mv.destErr = <-done
	mv.dest = built()
	return mv
}

func TestHybridSwitchesByItselfWhenPassesStopHelping(t *testing.T) {
	src := newBusyMachine(t, 32<<20, 16<<20, 20*time.Microsecond)
	mv := moveBusy(t, src, Options{Mode: ModeHybrid})
	mv.completed(t)
	r := mv.report
	if r.Verified == nil || !*r.Verified {
		t.Errorf("verified: %v, %q", r.Verified, r.Error)
	}
	if r.Passes == 0 || r.Switch == "" || r.PrecopyNS == 0 || r.RAM.PagesPrecopy == 0 {
		t.Errorf("the report does not know of the passes: %+v", r)
	}
	t.Logf("passes %d, discarded %d, precopy %d, postcopy %d: %s", r.Passes, r.RAM.PagesDiscarded, r.RAM.PagesPrecopy, r.RAM.PagesPostcopy, r.Switch)
}

func TestHybridSendsAgainWhatTheGuestWroteSinceItWasSent(t *testing.T) {
	src := newBusyMachine(t, 8<<20, 8<<20, 20*time.Microsecond)
	mv := moveBusy(t, src, Options{Mode: ModeHybrid, Rounds: 1})
	mv.completed(t)
	if r := mv.report; r.Verified == nil || !*r.Verified || r.Passes != 1 || r.RAM.PagesDiscarded == 0 || r.RAM.PagesPostcopy == 0 {
		t.Errorf("verified %v, %d passes, %d pages discarded, %d by postcopy", r.Verified, r.Passes, r.RAM.PagesDiscarded, r.RAM.PagesPostcopy)
	}
}

func TestPrecopyLeavesNothingToFetch(t *testing.T) {
	src := newBusyMachine(t, 16<<20, 1<<20, time.Millisecond)
	mv := moveBusy(t, src, Options{Mode: ModePrecopy})
	mv.completed(t)
	r := mv.report
	if r.Verified == nil || !*r.Verified || r.Faults.Count != 0 || r.RAM.PagesPostcopy != 0 || r.RAM.PagesDiscarded != 0 {
		t.Errorf("verified %v, %d faults, %d pages by postcopy, %d discarded", r.Verified, r.Faults.Count, r.RAM.PagesPostcopy, r.RAM.PagesDiscarded)
	}
}

// With a link slower than the guest's writes, precopy never fits.
func TestPrecopyThatDoesNotConvergeGivesUpOrSwitches(t *testing.T) {
	slow := Options{Mode: ModePrecopy, Bandwidth: 8 << 20, Downtime: time.Millisecond}
	t.Run("rounds", func(t *testing.T) {
		src := newBusyMachine(t, 4<<20, 4<<20, 20*time.Microsecond)
		opt := slow
		opt.Rounds = 2
		mv := moveBusy(t, src, opt)
		if !errors.Is(mv.err, ErrTimeout) || mv.report.Owner != OwnerSource || src.paused.Load() != src.resumed.Load() {
			t.Errorf("%v, owner %s, %d pauses, %d resumes", mv.err, mv.report.Owner, src.paused.Load(), src.resumed.Load())
		}
		if mv.dest != nil && mv.dest.running.Load() {
			t.Error("it runs at the destination as well")
		}
	})
	t.Run("timeout switches", func(t *testing.T) {
		src := newBusyMachine(t, 4<<20, 4<<20, 20*time.Microsecond)
		opt := slow
		opt.Timeout, opt.TimeoutSwitches = time.Millisecond, true
		mv := moveBusy(t, src, opt)
		mv.completed(t)
		if !strings.Contains(mv.report.Switch, "timeout") {
			t.Errorf("switched because: %s", mv.report.Switch)
		}
	})
}

func TestCancelDuringPrecopyLeavesTheGuestRunning(t *testing.T) {
	for _, connections := range []int{1, 4} {
		t.Run(fmt.Sprint(connections), func(t *testing.T) { cancelPrecopy(t, connections) })
	}
}

func cancelPrecopy(t *testing.T, connections int) {
	src := newBusyMachine(t, 4<<20, 4<<20, 20*time.Microsecond)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	build, built := builderOf(t, nil)
	addr, _, done := destination(t, ctx, build)
	s, err := NewSource(src, addr, Options{Mode: ModePrecopy, Bandwidth: 1 << 20, Connections: connections, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		<-src.logging
		s.Cancel()
	}()
	rep, err := s.Run(ctx)
	if !errors.Is(err, ErrCancelled) || rep.Result != ResultCancelled || src.paused.Load() != 0 {
		t.Errorf("%v, result %s, %d pauses", err, rep.Result, src.paused.Load())
	}
	if err := <-done; err == nil {
		t.Error("the destination thinks it received the VM")
	}
	if b := built(); b != nil && b.running.Load() {
		t.Error("it runs at the destination")
	}
}
