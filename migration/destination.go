package migration

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"microvm/migration/wire"
)

// DestinationOptions of a VM that is to arrive.
type DestinationOptions struct {
	// Recover is how long to wait for the source to come back when the
	// connections broke and the guest can do without it: it has never run
	// here, has all of its pages, or has ended. 0: not at all. For a guest
	// that runs here and needs pages the wait has no end: the source may
	// come back when a person has mended what broke, and to stop a guest
	// that runs would lose it.
	Recover time.Duration
	// MaxConnections is over how many connections the source may spread bulk
	// RAM; 0 is as many as there can be.
	MaxConnections int
	TLS            func() *tls.Config // for every channel, see [DestinationTLS]; nil: without
	Check          Checker            // answers probes; nil: they are refused
	Program        string             // this program's version, which probes are told
	Log            *slog.Logger       // nil: nothing is logged
	Events         *EventLog          // of this migration alone; nil: none are kept
}

// Destination receives one VM.
type Destination struct {
	build Builder
	opt   DestinationOptions
	log   *slog.Logger
	began time.Time

	// fate is decided once: the VM runs here, or never will.
	fate    atomic.Int32
	givenUp context.Context // its cause says why
	giveUp  context.CancelCauseFunc

	phase    phaseCell
	received atomic.Uint64
	damaged  atomic.Uint64 // runs that were not what had been sent
	pager    atomic.Pointer[pager]
	// current is the session that requests for pages go to; nil while there
	// is none, or none that is ready for them.
	current atomic.Pointer[inbound]
	// fatal has the error after which no connection helps: a page that
	// cannot be put in place, a device that will not load.
	fatal chan error

	// What follows belongs to the goroutine that reads the main channel of
	// the session; the loader has machine while it runs.
	machine DestinationMachine
	terms   payloadTerms // not changed once there is a pager; for all readers then
	sums    *sums
	collect func()     // has garbage be collected again
	loaded  chan error // has the loader's result
	loader  sync.WaitGroup
	whole   bool // every page is here, and userfaultfd is gone
	// verdict is what --verify found, once it has.
	verdict atomic.Pointer[verified]

	// alone ends by Abandon: a source that is not connected is not waited for.
	alone   context.Context
	abandon context.CancelFunc
}

type verified struct {
	ok      bool
	problem string
}

// NewDestination returns a destination that builds its machine with build.
func NewDestination(build Builder, opt DestinationOptions) *Destination {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	d := &Destination{build: build, opt: opt, log: opt.Log, began: time.Now(), fatal: make(chan error, 1), collect: func() {}}
	d.givenUp, d.giveUp = context.WithCancelCause(context.Background())
	d.alone, d.abandon = context.WithCancel(context.Background())
	d.phase.events = opt.Events
	opt.Events.begin(OwnerDestination, "")
	d.phase.Store(PhaseSetup)
	return d
}

// What Destination.fate says.
const (
	fateOpen int32 = iota
	fateRan
	fateGivenUp
)

// ErrGivenUp is what Receive returns after GiveUp.
var ErrGivenUp = errors.New("given up by this side before the VM ran here")

// GiveUp ends Receive, unless the VM runs here already: then it reports false,
// and nothing changes.
func (d *Destination) GiveUp() bool { return d.decline(ErrGivenUp) }

// decline decides that the VM never runs here, unless it has run.
func (d *Destination) decline(why error) bool {
	if d.fate.CompareAndSwap(fateOpen, fateGivenUp) {
		d.giveUp(why)
	}
	return d.fate.Load() == fateGivenUp
}

// owed tells whether LOADED may have been said: the source may have answered
// it by POSTCOPY_RUN, and not be the owner any more.
func (d *Destination) owed() bool {
	switch d.Phase() {
	case PhaseLoaded, PhaseRunning, PhasePaused:
		return true
	}
	return false
}

// Phase tells where the migration is.
func (d *Destination) Phase() Phase { return d.phase.Load() }

// Status describes the migration as it is now.
func (d *Destination) Status() Status {
	s := Status{Phase: d.Phase(), ElapsedNS: int64(time.Since(d.began)), BytesWire: d.received.Load()}
	if p := d.pager.Load(); p != nil {
		for _, b := range p.blocks {
			s.PagesTotal += b.Size() / wire.PageSize
		}
		s.PagesLeft = uint64(p.left.Load())
		s.Faults = p.waits.latency.count.Load()
		s.P99NS = int64(p.waits.latency.quantile(0.99))
		if d.fate.Load() == fateRan {
			st := d.stats()
			s.Waits = &Waits{st.Faults, st.BlocktimeNS, st.VCPUBlocktimeNS, st.DeviceBlocktimeNS}
		}
	}
	return s
}

// Receive takes one VM in from whoever dials ln first, and returns when the
// last page is here and the source has been told so. The machine then runs.
//
// An error before POSTCOPY_RUN has come means that the VM was never this
// side's, and still is the source's. After it, a broken connection stops
// nothing: the guest goes on with the pages it has, and Receive waits for the
// source to come back, however long that takes. Only when a page cannot be put
// in place, when ctx ends, or after [Destination.Abandon] is the guest lost; the
// error then is a [LostError].
func (d *Destination) Receive(ctx context.Context, ln net.Listener) (err error) {
	defer func() {
		d.collect()
		d.opt.Events.received(err)
	}()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(d.givenUp, func() {
		if !d.owed() {
			cancel(context.Cause(d.givenUp))
		}
	})()
	acc := newAcceptor(d.log, d.opt.MaxConnections, d.opt.TLS)
	acc.answers = newAnswers(d.opt.Program, d.opt.Check)
	var accepting sync.WaitGroup
	accepting.Go(func() { acc.serve(ln) })
	defer accepting.Wait()
	defer acc.close()
	defer ln.Close()

	s, err := acc.next(ctx)
	if err != nil {
		return err
	}
	d.opt.Events.begin(OwnerDestination, s.id.String())
	d.log.Info("migration begins", "id", s.id.String(), "source", peerName(s.main))
	for {
		err = d.serve(ctx, s)
		if err == nil {
			d.phase.Store(PhaseCompleted)
			d.log.Info("migration completed", "faults", d.Status().Faults)
			return nil
		}
		if !d.recoverable(ctx, err) {
			return d.end(err)
		}
		d.log.Error("migration paused: the connections to the source broke; a guest that runs here goes on with the pages it has", "error", err)
		d.phase.Store(PhasePaused)
		d.opt.Events.broken(err, d.Status().PagesLeft)
		if s, err = d.again(ctx, acc, err); err != nil {
			return d.end(err)
		}
		d.log.Info("migration goes on", "source", peerName(s.main))
	}
}

// peerName is the other end's address; a unix socket's is seldom bound.
func peerName(c net.Conn) string {
	if c.RemoteAddr().Network() == "unix" {
		return "unix:" + c.LocalAddr().String()
	}
	return c.RemoteAddr().String()
}

// fatalError is one after which no connection helps.
type fatalError struct{ err error }

func (e *fatalError) Error() string { return e.err.Error() }

func (e *fatalError) Unwrap() error { return e.err }

// recoverable tells whether a new connection can mend what ended a session.
// Until device state is loaded it cannot: the source has taken the VM back.
func (d *Destination) recoverable(ctx context.Context, err error) bool {
	var fatal *fatalError
	if ctx.Err() != nil || errors.As(err, &fatal) {
		return false
	}
	return d.owed() && (d.opt.Recover > 0 || d.needy())
}

// needy tells whether a guest that runs here cannot do without the source.
func (d *Destination) needy() bool { return d.fate.Load() == fateRan && !d.settled() }

// again waits for the source to come back; why is what it went away with. A
// guest that has ended does not end the wait, since the source has yet to hear
// of it.
func (d *Destination) again(ctx context.Context, acc *acceptor, why error) (*session, error) {
	late := time.NewTimer(d.opt.Recover)
	defer late.Stop()
	var ended <-chan struct{}
	if d.needy() {
		late.Stop()
		ended = d.machine.Done()
	}
	for {
		select {
		case s := <-acc.sessions:
			return s, nil
		case err := <-d.fatal:
			return nil, err // after the VM ran here: see fail
		case <-ended:
			ended = nil
			late.Reset(d.opt.Recover)
		case <-d.alone.Done():
			return nil, fmt.Errorf("%w, after: %w", ErrAbandoned, why)
		case <-late.C:
			return nil, fmt.Errorf("the source did not come back within %v after: %w", d.opt.Recover, why)
		case <-ctx.Done():
			return nil, fmt.Errorf("%w, after: %w", context.Cause(ctx), why)
		}
	}
}

// end is what is left to do when no connection will come any more.
func (d *Destination) end(err error) error {
	if d.fate.Load() == fateRan && d.settled() {
		// All that is missing is that the source knows.
		d.log.Warn("the source may not know that it is needed no more", "error", err)
		d.phase.Store(PhaseCompleted)
		return nil
	}
	unheard := d.owed() && !errors.As(err, new(*fatalError)) // such as CANCEL
	d.phase.Store(PhaseFailed)
	if d.fate.Load() == fateRan {
		return d.lose(err)
	}
	if d.machine != nil {
		d.machine.Stop()
	}
	if p := d.pager.Load(); p != nil {
		p.abort(err)
	}
	// It may be in guest memory, which whoever called Receive will unmap.
	d.loader.Wait()
	if why := context.Cause(d.givenUp); why != nil && !errors.Is(err, why) {
		err = fmt.Errorf("%w (%w)", why, err)
	}
	if unheard {
		err = fmt.Errorf("%w: %w", ErrUnheard, err)
	}
	return err
}

// settled tells whether the guest needs nothing more from the source: it has
// every page, or has ended.
func (d *Destination) settled() bool {
	select {
	case <-d.machine.Done():
		return true
	default:
		return d.whole
	}
}
