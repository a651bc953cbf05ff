package migration

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"microvm/migration/wire"
)

// ledger keeps who may run the guest, and finds the instant at which both may.
type ledger struct {
	mu      sync.Mutex
	source  bool
	dest    bool
	both    bool // at some instant
	paused  int
	resumed int
	handed  int // over
	taken   int // back
	ran     int
	stopped int
	// abandoned: the destination could not go on after it had run.
	abandoned int
}

func (l *ledger) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
	l.both = l.both || l.source && l.dest
}

// sourceSide is a machine whose ledger knows of its pauses.
type sourceSide struct {
	*testMachine
	l *ledger
}

func (m sourceSide) Pause(ctx context.Context) error {
	err := m.testMachine.Pause(ctx)
	m.l.change(func() { m.l.paused++; m.l.source = false })
	return err
}

func (m sourceSide) Resume() error {
	m.l.change(func() { m.l.resumed++; m.l.source = true })
	return m.testMachine.Resume()
}

func (m sourceSide) HandOver() error {
	m.l.change(func() { m.l.handed++ })
	return m.testMachine.HandOver()
}

func (m sourceSide) TakeBack() error {
	m.l.change(func() { m.l.taken++ })
	return m.testMachine.TakeBack()
}

// destSide is a machine whose ledger knows when it runs.
type destSide struct {
	*testMachine
	l *ledger
}

func (m destSide) Run() error {
	m.l.change(func() { m.l.ran++; m.l.dest = true })
	return m.testMachine.Run()
}

func (m destSide) Stop() {
	m.testMachine.Stop()
	m.l.change(func() { m.l.stopped++; m.l.dest = false })
}

func (m destSide) Abandon(err error) {
	m.testMachine.Abandon(err)
	m.l.change(func() { m.l.abandoned++; m.l.dest = false })
}

// receiver is a destination that runs in the background.
type receiver struct {
	t      *testing.T
	dest   *Destination
	addr   Address
	ledger *ledger
	cancel context.CancelFunc
	ended  chan struct{}
	err    error // after ended
}

// receive starts a destination; configure adjusts the machine that it builds.
func receive(t *testing.T, l *ledger, configure func(*testMachine)) *receiver {
	t.Helper()
	return receiveWith(t, l, DestinationOptions{}, buildOwned(t, l, configure))
}

// buildOwned builds machines whose ledger knows when they run.
func buildOwned(t *testing.T, l *ledger, configure func(*testMachine)) Builder {
	build, built := builderOf(t, configure)
	return func(ctx context.Context, config []byte) (DestinationMachine, error) {
		if _, err := build(ctx, config); err != nil {
			return nil, err
		}
		return destSide{built(), l}, nil
	}
}

func receiveWith(t *testing.T, l *ledger, opt DestinationOptions, build Builder) *receiver {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ln, err := Listen(ctx, Address{"tcp", "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	r := &receiver{t: t, addr: ListenAddress(ln), ledger: l, cancel: cancel, ended: make(chan struct{})}
	opt.Log = quietLog(t)
	r.dest = NewDestination(build, opt)
	go func() {
		defer close(r.ended)
		r.err = r.dest.Receive(ctx, ln)
	}()
	t.Cleanup(func() { cancel(); r.wait() })
	return r
}

// patience is how long a test waits for what must come.
const patience = 20 * time.Second

// wait waits for Receive to return, and gives what it returned.
func (r *receiver) wait() error {
	select {
	case <-r.ended:
	case <-time.After(patience):
		r.t.Fatalf("Receive has not returned, in phase %s", r.dest.Phase())
	}
	return r.err
}

// reach waits until the destination is in a phase.
func (r *receiver) reach(p Phase) {
	r.t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for deadline := time.Now().Add(patience); r.dest.Phase() != p; <-tick.C {
		if time.Now().After(deadline) {
			r.t.Fatalf("in phase %s, not %s", r.dest.Phase(), p)
		}
	}
}

// kill ends the destination, and waits until it has.
func (r *receiver) kill() error {
	r.cancel()
	return r.wait()
}

// sender is a source with the machine that it moves.
type sender struct {
	t       *testing.T
	ctx     context.Context // of Run
	machine *testMachine
	ledger  *ledger
	source  *Source
	report  *Report
	err     error
}

// Sizes of the blocks of the machine that send moves.
var sentSizes = []uint64{1 << 20, wire.PageSize}

// send prepares the migration of a machine of 257 pages to a.
func send(t *testing.T, l *ledger, a Address, opt Options) *sender {
	t.Helper()
	return sendAs(t, l, a, opt, sentSizes, func(m sourceSide) SourceMachine { return m })
}

// sendAs is send with a machine of these sizes, changed by as.
func sendAs(t *testing.T, l *ledger, a Address, opt Options, sizes []uint64, as func(sourceSide) SourceMachine) *sender {
	t.Helper()
	m := newTestMachine(t, sizes...)
	m.fill(t)
	l.change(func() { l.source = true })
	opt.Log = quietLog(t)
	s, err := NewSource(as(sourceSide{m, l}), a, opt)
	if err != nil {
		t.Fatal(err)
	}
	return &sender{t: t, ctx: t.Context(), machine: m, ledger: l, source: s}
}

// run migrates. It fails the test if that does not end.
func (s *sender) run() error {
	s.t.Helper()
	return s.start()()
}

// start migrates in the background; what it returns waits for the end.
func (s *sender) start() (wait func() error) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		s.report, s.err = s.source.Run(s.ctx)
	}()
	return func() error {
		s.t.Helper()
		select {
		case <-ended:
		case <-time.After(patience):
			s.t.Fatalf("Run has not returned, in phase %s", s.source.Phase())
		}
		return s.err
	}
}

// says fails the test unless err holds all of the words.
func says(t *testing.T, err error, words ...string) {
	t.Helper()
	if err == nil {
		t.Fatal("no error")
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
}

// stayed fails the test unless the migration failed and the guest is where it
// was: resumed as often as it was paused, its memory as it was, and nothing of
// it ever ran anywhere else.
func (s *sender) stayed() {
	s.t.Helper()
	l := s.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.err == nil {
		s.t.Fatal("the migration went through")
	}
	var paused *PausedError
	if errors.As(s.err, &paused) {
		s.t.Errorf("the source gave the guest away: %v", s.err)
	}
	if s.report.Owner != OwnerSource || s.report.Result == ResultCompleted || s.report.Result == ResultPaused {
		s.t.Errorf("report: owner %q, result %q", s.report.Owner, s.report.Result)
	}
	if s.report.Error == "" || s.report.DowntimeNS != 0 {
		s.t.Errorf("report: error %q, downtime %d ns", s.report.Error, s.report.DowntimeNS)
	}
	if l.paused != l.resumed || l.paused > 1 || !l.source {
		s.t.Errorf("paused %d times, resumed %d times", l.paused, l.resumed)
	}
	if l.handed != l.taken {
		s.t.Errorf("handed over %d times, taken back %d times", l.handed, l.taken)
	}
	if l.ran != 0 {
		s.t.Error("the destination ran the guest")
	}
	s.intact()
}

// gone fails the test unless the guest is the destination's and the source
// knows that it may never run it again.
func (s *sender) gone() {
	s.t.Helper()
	l := s.ledger
	l.mu.Lock()
	defer l.mu.Unlock()
	var paused *PausedError
	if !errors.As(s.err, &paused) {
		s.t.Errorf("error %v, want a *PausedError", s.err)
	}
	if s.report.Owner != OwnerDestination || s.report.Result != ResultPaused {
		s.t.Errorf("report: owner %q, result %q", s.report.Owner, s.report.Result)
	}
	if l.paused != 1 || l.resumed != 0 || l.source || l.both {
		s.t.Errorf("paused %d times, resumed %d times; both ran it: %v", l.paused, l.resumed, l.both)
	}
	if l.handed != 1 || l.taken != 0 {
		s.t.Errorf("handed over %d times, taken back %d times", l.handed, l.taken)
	}
	s.intact()
}

// intact fails the test unless the source's memory is what fill made it.
func (s *sender) intact() {
	s.t.Helper()
	for _, b := range s.machine.blocks {
		mem, err := b.View(0, b.Size())
		if err != nil {
			s.t.Fatal(err)
		}
		for i, got := range mem {
			page := uint64(i) / wire.PageSize
			want := pattern(page, i%wire.PageSize)
			if page%5 == 0 {
				want = 0
			}
			if got != want {
				s.t.Fatalf("RAM block %q, byte %#x: %#x, was %#x", b.Name(), i, got, want)
			}
		}
	}
}

// quietLog is testLog for goroutines that may outlive the test by a little.
func quietLog(t *testing.T) *slog.Logger {
	out := &testOutput{w: t.Output()}
	t.Cleanup(func() {
		out.mu.Lock()
		defer out.mu.Unlock()
		out.w = io.Discard
	})
	return slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

type testOutput struct {
	mu sync.Mutex
	w  io.Writer
}

func (o *testOutput) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.w.Write(b)
}
