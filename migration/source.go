package migration

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
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
	Rounds          int           // passes of precopy, at most; 0: as many as help
	Downtime        time.Duration // that precopy aims at; 0: 300 ms
	Bandwidth       uint64        // bytes/s while the guest runs here; 0: no limit
	PushBandwidth   uint64        // bytes/s after the switch, but for pages that are waited for; 0: no limit
	// Recover is for how long to dial again when the connections broke after
	// POSTCOPY_RUN; 0: not at all.
	Recover time.Duration
	Log     *slog.Logger // nil: nothing is logged
}

// Source moves one VM away, once.
type Source struct {
	machine SourceMachine
	route   route
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

	phase  atomic.Value // Phase
	ram    *outgoing
	remote atomic.Pointer[stats] // the last STATS
	cancel atomic.Pointer[context.CancelCauseFunc]
	// committed is set by whoever comes first: Cancel, or the write of
	// POSTCOPY_RUN.
	committed atomic.Int32
}

// What Source.committed says.
const (
	undecided int32 = iota
	cancelled
	runWritten
)

// NewSource prepares the migration of m to dest.
func NewSource(m SourceMachine, dest Address, opt Options) (*Source, error) {
	s := &Source{machine: m, opt: opt, id: newID(), began: time.Now(), route: route{dest: dest, within: opt.Recover}}
	if opt.Mode == "" {
		s.opt.Mode = ModePostcopy
	}
	if opt.Log == nil {
		s.opt.Log = slog.New(slog.DiscardHandler)
	}
	s.phase.Store(PhaseSetup)
	ram, err := newOutgoing(m.Blocks())
	if err != nil {
		return nil, err
	}
	s.ram = ram
	return s, nil
}

// ID names the migration, as the destination's log does.
func (s *Source) ID() string { return s.id.String() }

// Phase tells where the migration is.
func (s *Source) Phase() Phase { return s.phase.Load().(Phase) }

// Status describes the migration as it is now.
func (s *Source) Status() Status {
	st := Status{
		Phase:      s.Phase(),
		ElapsedNS:  int64(time.Since(s.began)),
		PagesTotal: s.ram.total,
		PagesLeft:  s.ram.total - s.ram.claimed.Load(),
		BytesWire:  s.ram.wire.Load(),
	}
	if r := s.remote.Load(); r != nil {
		st.Faults = r.Faults.Count
		st.P99NS = r.Faults.P99NS
	}
	return st
}

// Cancel calls the migration off; Run then returns ErrCancelled and the VM
// runs on here. After POSTCOPY_RUN it is refused: the guest is the
// destination's.
func (s *Source) Cancel() error {
	if !s.committed.CompareAndSwap(undecided, cancelled) {
		if s.committed.Load() == cancelled {
			return nil
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
		VM: s.opt.VM, ID: s.ID(), Mode: string(s.opt.Mode), Owner: OwnerSource, Channels: 2,
		RAM: RAMReport{PagesTotal: s.ram.total, BytesTotal: s.ram.total * wire.PageSize},
	}
	return s.finish(s.report, s.migrate(ctx))
}

// finish completes the report. What it returns is what Run and Resume do.
func (s *Source) finish(rep *Report, err error) (*Report, error) {
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
	rep.RAM.PagesZero = s.ram.zeroPages.Load()
	rep.RAM.PagesPostcopy = s.ram.dataPages.Load() - rep.RAM.PagesPrecopy
	rep.RAM.BytesWire = s.ram.wire.Load()
	if r := s.remote.Load(); r != nil {
		rep.Faults = r.Faults
		rep.BlocktimeNS = r.BlocktimeNS
		rep.VCPUBlocktimeNS = r.VCPUBlocktimeNS
		rep.DeviceBlocktimeNS = r.DeviceBlocktimeNS
		rep.Verified = r.Verified
		if r.Problem != "" {
			rep.Error = "verification failed: " + r.Problem
		}
	}
	s.phase.Store(phase)
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
	return s.postcopy(context.WithoutCancel(ctx), l)
}

// leave has the guest leave: after passes of precopy, unless the mode is
// postcopy. An error means that it runs here.
func (s *Source) leave(ctx context.Context, l *link) (*checksummer, error) {
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
	p := newPrecopy(s, l, log)
	if err := p.run(ctx); err != nil {
		return nil, err
	}
	return s.handOver(ctx, l, func() error { return p.last(ctx) })
}

// postcopy sees a guest off that is the destination's now: POSTCOPY_RUN has
// been written. l is nil if the connections are broken; they are opened again,
// for as long as that is wanted and ctx has not ended.
func (s *Source) postcopy(ctx context.Context, l *link) error {
	for {
		if l == nil {
			s.phase.Store(PhasePostcopyPaused)
			var err error
			l, err = s.reconnect(ctx)
			if s.declined(err) {
				return s.takeBack(l, err)
			}
			if err != nil {
				return &PausedError{err}
			}
			s.report.Recoveries++
			s.opt.Log.Info("connected again", "pages_left", s.ram.total-s.ram.claimed.Load())
		}
		s.phase.Store(PhasePostcopyActive)
		err := s.finishOn(l)
		if s.declined(err) {
			return s.takeBack(l, err)
		}
		l.close()
		if err == nil {
			return nil
		}
		<-l.closed // it shares the account of pages with its successor
		s.opt.Log.Warn("the connections broke; the guest runs at the destination on the pages it has", "error", err)
		l, s.broke = nil, err
	}
}

// declined tells whether err is the destination's word that it has never run
// the guest and never will.
func (s *Source) declined(err error) bool {
	return !s.running && errors.As(err, new(*FailedError))
}

// takeBack makes this side the owner again, after POSTCOPY_RUN, and tells the
// destination so. why is what that said.
func (s *Source) takeBack(l *link, why error) error {
	s.sums.stop()
	if err := errors.Join(s.machine.TakeBack(), s.machine.Resume()); err != nil {
		why = errors.Join(why, fmt.Errorf("resume the VM that the destination declined: %w", err))
	}
	s.report.Owner = OwnerSource
	l.sayCancel(why)
	return why
}

// finishOn does what is left to do, on connections that work so far.
func (s *Source) finishOn(l *link) error {
	if !s.running {
		running, err := l.awaitRunning()
		if err != nil {
			return fmt.Errorf("no RUNNING after POSTCOPY_RUN: %w", err)
		}
		s.ran(l, running)
	}
	return s.push(l)
}

// ran notes that the guest runs at the destination.
func (s *Source) ran(l *link, r wire.Running) {
	s.running = true
	d := &s.report.Downtime
	d.ResumeNS = int64(r.ResumeNanos)
	parts := d.PauseNS + d.SaveNS + d.LoadNS + d.ResumeNS
	// Half a round trip is an estimate, and on a busy host a bad one.
	s.report.DowntimeNS = max(int64(time.Since(s.stopping)-l.rtt/2), parts+1)
	d.TransferNS = s.report.DowntimeNS - parts
	s.opt.Log.Info("the guest runs at the destination", "downtime", time.Duration(s.report.DowntimeNS))
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

// connect opens the channels and starts to read the return path.
func (s *Source) connect(ctx context.Context, dest Address, resume bool) (*link, error) {
	hello := wire.Hello{MinVersion: wire.Version, MaxVersion: wire.Version, ID: s.id, Role: wire.RoleMain, Resume: resume}
	main, err := dialChannel(ctx, dest, hello)
	if err != nil {
		return nil, err
	}
	hello.Role = wire.RoleUrgent
	urgent, err := dialChannel(ctx, dest, hello)
	if err != nil {
		main.Close()
		return nil, err
	}
	l := newLink(main, urgent)
	l.resume = resume
	go l.listen(s)
	return l, nil
}

// setup has the destination built and checked, and measures the round trip.
func (s *Source) setup(ctx context.Context, l *link) error {
	config, err := s.config()
	if err != nil {
		return err
	}
	advise := wire.Advise{TargetPageSize: wire.PageSize}
	for _, b := range s.machine.Blocks() {
		advise.PageSizes = append(advise.PageSizes, b.PageSize())
	}
	if err := s.sendMain(l, wire.Message(wire.TypeOpenReturnPath, nil), wire.Message(wire.TypeConfig, config), advise.Append(nil)); err != nil {
		return l.explain(err)
	}
	// The first PONG says that all of the above is as the destination wants
	// it; the shortest of the later ones is the round trip.
	const pings = 8
	for seq := range uint32(pings) {
		sent := time.Now()
		if err := s.sendMain(l, wire.Ping(seq)); err != nil {
			return l.explain(err)
		}
		if err := l.pong(ctx, seq); err != nil {
			return err
		}
		if rtt := time.Since(sent); seq > 0 && (l.rtt == 0 || rtt < l.rtt) {
			l.rtt = rtt
		}
	}
	s.opt.Log.Debug("the destination is ready", "round_trip", l.rtt)
	return nil
}

// config is the body of CONFIG.
func (s *Source) config() ([]byte, error) {
	machine, err := s.machine.Config()
	if err != nil {
		return nil, fmt.Errorf("describe the VM: %w", err)
	}
	c := wire.Config{VM: s.opt.VM, Verify: s.opt.Verify, Machine: machine}
	for _, b := range s.machine.Blocks() {
		c.Blocks = append(c.Blocks, wire.Block{Name: b.Name(), Size: b.Size(), PageSize: b.PageSize()})
	}
	for _, d := range s.machine.Devices() {
		c.Devices = append(c.Devices, wire.Device{ID: d.ID(), Version: d.Version()})
	}
	body, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("CONFIG: %w", err)
	}
	if limit, _ := wire.TypeConfig.MaxBody(); len(body) > int(limit) {
		return nil, fmt.Errorf("CONFIG: %d bytes, at most %d allowed", len(body), limit)
	}
	return body, nil
}

// handOver is the downtime: it pauses the guest here and gives it up, so that
// it runs there. An error means that the guest runs here again.
//
// last does what precopy has left to do once the guest has stopped.
func (s *Source) handOver(ctx context.Context, l *link, last func() error) (sums *checksummer, err error) {
	s.phase.Store(PhaseDevice)
	d := &s.report.Downtime
	s.stopping = time.Now()
	if err := s.machine.Pause(ctx); err != nil {
		return nil, fmt.Errorf("pause the VM: %w", err)
	}
	d.PauseNS = int64(time.Since(s.stopping))
	defer func() {
		if err == nil {
			return
		}
		sums.stop()
		if rerr := s.machine.Resume(); rerr != nil {
			err = errors.Join(err, fmt.Errorf("resume the VM after the failed migration: %w", rerr))
		}
	}()
	if err := last(); err != nil {
		return nil, err
	}
	saving := time.Now()
	pack, err := s.pack()
	if err != nil {
		return nil, err
	}
	d.SaveNS = int64(time.Since(saving))
	l.serving.Store(true)
	if err := s.sendMain(l, pack); err != nil {
		return nil, l.explain(err)
	}
	loadNanos, err := await(ctx, l, l.loaded)
	if err != nil {
		return nil, err
	}
	d.LoadNS = int64(loadNanos)
	if s.opt.Verify {
		sums = startChecksums(s.machine.Blocks())
	}
	// From here on there is no way back by ourselves.
	if !s.committed.CompareAndSwap(undecided, runWritten) {
		return sums, ErrCancelled
	}
	if !l.detach() {
		return sums, context.Cause(ctx)
	}
	if err := s.machine.HandOver(); err != nil {
		return sums, err
	}
	if written, err := s.sendRun(l); !written {
		// The destination never gets the rest of it, so it never runs.
		return sums, errors.Join(err, s.machine.TakeBack())
	}
	s.report.Owner = OwnerDestination
	return sums, nil
}

// sendRun writes POSTCOPY_RUN. Whether all of it was written decides who owns
// the guest.
func (s *Source) sendRun(l *link) (written bool, err error) {
	run := wire.Message(wire.TypeRun, nil)
	n, err := l.main.Write(run)
	s.ram.wire.Add(uint64(n))
	if n < len(run) {
		return false, fmt.Errorf("POSTCOPY_RUN: %w", l.explain(err))
	}
	return true, nil
}

// deviceHeader is room for what a DEVICE_STATE has besides the state, in bytes.
const deviceHeader = 512

// pack saves every device into one PACKAGED message.
func (s *Source) pack() ([]byte, error) {
	blob := wire.Message(wire.TypeListen, nil)
	for _, d := range s.machine.Devices() {
		data, err := d.Save()
		if err != nil {
			return nil, fmt.Errorf("device %q: save: %w", d.ID(), err)
		}
		if limit, _ := wire.TypeDeviceState.MaxBody(); len(data) > int(limit)-deviceHeader {
			return nil, fmt.Errorf("device %q: state of %d bytes, at most %d allowed", d.ID(), len(data), int(limit)-deviceHeader)
		}
		state := wire.DeviceState{ID: d.ID(), Version: d.Version(), Data: data}
		blob = state.Append(blob)
	}
	if limit, _ := wire.TypePackaged.MaxBody(); len(blob) > int(limit) {
		return nil, fmt.Errorf("device state of %d bytes, at most %d allowed", len(blob), limit)
	}
	return wire.Message(wire.TypePackaged, blob), nil
}

// sendMain writes whole messages to the main channel. Only the goroutine that
// runs the migration writes there.
func (s *Source) sendMain(l *link, messages ...[]byte) error {
	bufs := net.Buffers(messages)
	n, err := bufs.WriteTo(l.main)
	s.ram.wire.Add(uint64(n))
	return err
}

// push sends what is left without being asked, then sees the migration out.
func (s *Source) push(l *link) error {
	err := s.pushAll(l)
	if err != nil {
		err = l.explain(err)
	}
	// After an error too: a guest that ends needs no more pages, and the
	// destination then says SHUT without waiting for them.
	if serr := l.awaitShut(); serr == nil || err == nil {
		err = serr
	}
	if err == nil {
		s.sayEnd(l)
	}
	return err
}

// sayEnd answers SHUT, and waits until the destination has heard it: to close
// with its statistics unread would destroy END on its way. If it does not hear
// it, it waits for a source that never comes back, which harms nobody.
func (s *Source) sayEnd(l *link) {
	defer time.AfterFunc(drainTimeout, l.close).Stop()
	if s.sendMain(l, wire.Message(wire.TypeEnd, nil)) == nil {
		_, _ = io.Copy(io.Discard, l.main)
	}
}

func (s *Source) pushAll(l *link) error {
	if err := newPusher(s.ram, l, s.opt.PushBandwidth).run(); err != nil {
		return err
	}
	count, err := s.sums.send(func(m []byte) error { return s.sendMain(l, m) })
	if err != nil {
		return err
	}
	done := wire.Complete{DataPages: s.ram.dataPages.Load(), ZeroPages: s.ram.zeroPages.Load(), Checksums: count}.Append(nil)
	if err := l.sendUrgent(s.ram, done); err != nil {
		return err
	}
	return s.sendMain(l, done)
}

// errShutEarly says that the destination closed in a way that is no success.
func errShutEarly(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return fmt.Errorf("the destination closed the connection: %w", io.ErrUnexpectedEOF)
	}
	return err
}
