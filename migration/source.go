package migration

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"microvm/migration/wire"
)

// Options of a migration.
type Options struct {
	VM      string        // its name, for the report and the destination
	Mode    Mode          // "" is ModePostcopy
	Verify  bool          // checksum every page, at the pause and as placed
	Timeout time.Duration // for all that comes before POSTCOPY_RUN; 0: no limit
	// TimeoutSwitches has Timeout, when it is over while memory is sent, end
	// that and switch, instead of calling the migration off.
	TimeoutSwitches bool
	// AutoConverge has precopy slow the guest down, in steps, while passes do
	// not get ahead of what it writes.
	AutoConverge  bool
	Rounds        int           // passes of precopy, at most; 0: as many as help
	Downtime      time.Duration // that precopy aims at; 0: 300 ms
	Bandwidth     uint64        // bytes/s while the guest runs here; 0: no limit
	PushBandwidth uint64        // bytes/s after the switch, but for pages that are waited for; 0: no limit
	// Connections is over how many connections bulk RAM is spread: 1 to
	// MaxConnections, 0 is 1. With 1 it goes by the main channel; more are
	// connections of their own. The limits of bandwidth are for all together.
	Connections int
	// Passed are connections to a destination whose address is "fd:N,M,...", in
	// the order of its numbers, which somebody has made: main, urgent, multi 0
	// and on. Run uses them instead of dialling, and closes them.
	Passed []net.Conn
	// Compress is how runs of pages are compressed, where that pays; "" is
	// CodecNone. Pages that somebody waits for never are.
	Compress Codec
	// Checksum has every run of pages carry a CRC-32C, which the destination
	// checks before it puts them in place.
	Checksum bool
	// Recover is for how long to dial again when the connections broke after
	// POSTCOPY_RUN; 0: not at all.
	Recover time.Duration
	// TLS, if not nil, gives each channel its own; see [SourceTLS]. A ServerName
	// of "" is the host that is dialled.
	TLS    func() *tls.Config
	Log    *slog.Logger // nil: nothing is logged
	Events *EventLog    // of this migration alone; nil: none are kept
}

// Source moves one VM away, once.
type Source struct {
	machine SourceMachine
	route   route
	passed  passedConns
	opt     Options
	id      wire.ID
	began   time.Time
	report  *Report

	// What follows belongs to the goroutine of Run or Resume. stopping is when
	// the guest was stopped here, switched when it was given away; running,
	// that it runs there; broke, why there are no connections.
	stopping time.Time
	switched time.Time
	running  bool
	sums     *checksummer
	broke    error

	throttle *throttle // nil without AutoConverge
	samples  *sampler  // nil before the first page, and without Events
	collect  func()    // has garbage be collected again

	phase  phaseCell
	ram    *outgoing
	remote atomic.Pointer[stats] // the last STATS
	// answering is the time from a request read to its pages written.
	answering histogram
	cancel    atomic.Pointer[context.CancelCauseFunc]
	// committed is set by whoever comes first: Cancel, or the write of
	// POSTCOPY_RUN.
	committed atomic.Int32
	ranThere  atomic.Bool // what running says, for everybody
	downtime  atomic.Pointer[ranAfter]
}

// ranAfter is the downtime after which the guest ran at the destination, for
// everybody.
type ranAfter struct {
	total int64 // nanoseconds
	parts Downtime
}

// What Source.committed says.
const (
	undecided int32 = iota
	cancelled
	runWritten
	takenBack // after runWritten: the guest is here all the same
)

// NewSource prepares the migration of m to dest.
func NewSource(m SourceMachine, dest Address, opt Options) (*Source, error) {
	s := &Source{machine: m, opt: opt, id: newID(), began: time.Now(), route: route{dest: dest, within: opt.Recover}, collect: func() {}}
	if opt.Mode == "" {
		s.opt.Mode = ModePostcopy
	}
	if err := s.CheckDestination(dest); err != nil {
		return nil, err
	}
	if err := s.takePassed(dest); err != nil {
		return nil, err
	}
	if opt.Connections < 0 || opt.Connections > MaxConnections {
		return nil, fmt.Errorf("%d connections: has to be 1 to %d", opt.Connections, MaxConnections)
	}
	if opt.Log == nil {
		s.opt.Log = slog.New(slog.DiscardHandler)
	}
	s.phase.events = opt.Events
	opt.Events.begin(OwnerSource, s.ID())
	s.phase.Store(PhaseSetup)
	var err error
	if s.throttle, err = newThrottle(m, &s.opt); err != nil {
		return nil, err
	}
	ram, err := newOutgoing(m.Blocks())
	if err != nil {
		return nil, err
	}
	codec, err := ParseCodec(string(opt.Compress))
	if err != nil {
		return nil, err
	}
	ram.terms = payloadTerms{compression: wire.KindOf(codec.wireName()), checksum: opt.Checksum}
	s.ram, s.opt.Compress = ram, codec
	return s, nil
}

// ID names the migration, as the destination's log does.
func (s *Source) ID() string { return s.id.String() }

// Phase tells where the migration is.
func (s *Source) Phase() Phase { return s.phase.Load() }

// Status describes the migration as it is now.
func (s *Source) Status() Status {
	st := Status{
		Phase:      s.Phase(),
		ElapsedNS:  int64(time.Since(s.began)),
		PagesTotal: s.ram.total,
		PagesLeft:  s.ram.total - s.ram.claimed.Load(),
		BytesWire:  s.ram.wire.Load(),
		Throttle:   s.throttle.percent(),
	}
	if m := s.downtime.Load(); m != nil {
		st.DowntimeNS, st.Downtime = m.total, &m.parts
	}
	if r := s.remote.Load(); r != nil {
		st.Faults = r.Faults.Count
		st.P99NS = r.Faults.P99NS
		st.Waits = s.waits(r)
	}
	return st
}

var errOver = errors.New("it has ended already, and the guest is here")

// Cancel calls the migration off; Run then returns ErrCancelled and the VM
// runs on here. After POSTCOPY_RUN it is refused: the guest is the
// destination's. One that has failed, or whose guest was taken back, is not
// there any more to be called off: that is refused too.
func (s *Source) Cancel() error {
	if s.Phase() == PhaseFailed {
		return errOver
	}
	if !s.committed.CompareAndSwap(undecided, cancelled) {
		switch {
		case s.committed.Load() == cancelled:
			return nil
		case s.committed.Load() == takenBack:
			return errOver
		case !s.RanThere():
			return errors.New("the guest has been given to the destination, which has yet to say that it runs there; the migration can only be completed, or taken back if it is paused")
		}
		return errors.New("the guest runs at the destination already; the migration can only be completed")
	}
	if cancel := s.cancel.Load(); cancel != nil {
		(*cancel)(ErrCancelled)
	}
	return nil
}

// Run moves the VM. Whatever the error, the report tells what happened and who
// owns the guest. Errors: *RefusedError (nothing has moved), ErrCancelled, and
// any other with the guest running on here; *PausedError with the guest at the
// destination and some of its pages here.
func (s *Source) Run(ctx context.Context) (*Report, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	s.cancel.Store(&cancel)
	if s.committed.Load() == cancelled {
		cancel(ErrCancelled)
	}
	if s.opt.Timeout > 0 && !s.opt.TimeoutSwitches {
		var stop context.CancelFunc
		ctx, stop = context.WithTimeoutCause(ctx, s.opt.Timeout, fmt.Errorf("%w: the guest does not run at the destination after %v", ErrTimeout, s.opt.Timeout))
		defer stop()
	}
	s.report = &Report{
		VM: s.opt.VM, ID: s.ID(), Mode: string(s.opt.Mode), Owner: OwnerSource, Channels: multiChannels + s.multi(), Checksum: s.opt.Checksum,
		RAM: RAMReport{PagesTotal: s.ram.total, BytesTotal: s.ram.total * wire.PageSize},
	}
	return s.finish(s.report, s.migrate(ctx))
}

// finish completes the report. What it returns is what Run and Resume do.
func (s *Source) finish(rep *Report, err error) (*Report, error) {
	s.sums.stop()
	s.collect()
	var paused *PausedError
	phase := PhaseCompleted
	switch {
	case err == nil:
		rep.Result, rep.Owner = ResultCompleted, OwnerDestination
	case errors.As(err, &paused):
		rep.Result, rep.Owner, phase = ResultPaused, OwnerDestination, PhasePostcopyPaused
	case errors.Is(err, ErrCancelled):
		rep.Result, phase = ResultCancelled, PhaseCancelled
	default:
		rep.Result, phase = ResultFailed, PhaseFailed
	}
	if err != nil {
		rep.Error = err.Error()
	}
	rep.TotalNS = int64(time.Since(s.began))
	if !s.switched.IsZero() {
		rep.PostcopyNS = int64(time.Since(s.switched))
	}
	rep.Throttle = s.throttle.report()
	rep.RAM.PagesZero = s.ram.zeroPages.Load()
	rep.RAM.PagesRepeated = s.ram.repeated.Load()
	rep.RAM.PagesRequested = s.ram.sentAs[sendsUrgent].Load()
	rep.RAM.PagesPostcopy = s.ram.dataPages.Load() - rep.RAM.PagesPrecopy
	rep.RAM.BytesWire = s.ram.wire.Load()
	rep.ChannelBytes = s.channelBytes()
	rep.Compression = s.ram.packed.report(s.ram.terms.compression)
	if r := s.remote.Load(); r != nil {
		w := s.waits(r)
		rep.Faults, rep.BlocktimeNS, rep.VCPUBlocktimeNS, rep.DeviceBlocktimeNS = w.Faults, w.BlocktimeNS, w.VCPUBlocktimeNS, w.DeviceBlocktimeNS
		rep.Verified = r.Verified
		rep.RAM.RunsDamaged = r.RunsDamaged
		if r.Problem != "" {
			rep.Error = "verification failed: " + r.Problem
		}
	}
	s.samples.stop()
	s.samples = nil // a paused migration may be taken up, or taken back
	s.phase.Store(phase)
	s.opt.Events.ended(rep)
	if rep.Result == ResultPaused {
		s.route.hold()
	}
	return rep, err
}

// migrate goes through the sequence of the package's diagram.
func (s *Source) migrate(ctx context.Context) error {
	l, err := s.connect(ctx, s.Destination(), false)
	if err != nil {
		return cause(ctx, err)
	}
	// Until POSTCOPY_RUN, ending the context ends the connections, and so
	// whatever waits for them.
	l.detach = context.AfterFunc(ctx, func() { l.sayCancel(context.Cause(ctx)) })
	defer l.detach()

	if err := s.setup(ctx, l); err != nil {
		l.close()
		return cause(ctx, err)
	}
	if s.sums, err = s.leave(ctx, l); err != nil {
		l.sayCancel(err)
		return cause(ctx, err)
	}
	s.switched = time.Now()
	s.samples.restart()
	return s.postcopy(context.WithoutCancel(ctx), l)
}

// leave has the guest leave: after passes of precopy, unless the mode is
// postcopy. An error means that it runs here.
func (s *Source) leave(ctx context.Context, l *link) (*checksummer, error) {
	s.samples = newSampler(s.ram, s.opt.Events)
	if s.opt.Mode == ModePostcopy {
		return s.handOver(ctx, l, func() error { return nil })
	}
	log, err := s.dirtyLogger()
	if err != nil {
		return nil, err
	}
	defer func() {
		if err := log.StopDirtyLog(); err != nil {
			s.opt.Log.Warn("stop the dirty log", "error", err)
		}
	}()
	s.phase.Store(PhaseActive)
	defer s.throttle.end()
	p := newPrecopy(s, l, log)
	if err := p.run(ctx); err != nil {
		return nil, err
	}
	return s.handOver(ctx, l, func() error { return p.last(ctx) })
}

// cause prefers the reason for which ctx ended to the error that its ending
// brought about.
func cause(ctx context.Context, err error) error {
	var late net.Error
	if deadline, ok := ctx.Deadline(); ok && errors.As(err, &late) && late.Timeout() && !time.Now().Before(deadline) {
		<-ctx.Done() // the network can notice a deadline before the context does
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

// sendMain writes whole messages to the main channel. Only the goroutine that
// runs the migration writes there.
func (s *Source) sendMain(l *link, messages ...[]byte) error {
	n, err := writeAll(l.main, messages)
	s.ram.count(mainChannel, n)
	return err
}
