package migration

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"microvm/migration/wire"
)

// Destination receives one VM.
type Destination struct {
	build Builder
	log   *slog.Logger

	// fate is decided once: the VM runs here, or never will.
	fate    atomic.Int32
	givenUp context.Context
	giveUp  context.CancelFunc

	phase    atomic.Value // Phase
	received atomic.Uint64
	pager    atomic.Pointer[pager]
	began    time.Time

	// What follows belongs to the goroutine that reads the main channel;
	// the loader of device state has machine and sums while it runs.
	machine DestinationMachine
	blocks  []wire.Block
	sums    *sums
	loaded  chan error // holds the loader's result
	listens bool
	verify  *bool
	problem string
}

// NewDestination returns a destination that builds its machine with build.
func NewDestination(build Builder, log *slog.Logger) *Destination {
	d := &Destination{build: build, log: log, began: time.Now()}
	d.givenUp, d.giveUp = context.WithCancel(context.Background())
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
func (d *Destination) GiveUp() bool {
	if d.fate.CompareAndSwap(fateOpen, fateGivenUp) {
		d.giveUp()
	}
	return d.fate.Load() == fateGivenUp
}

// Phase tells where the migration is.
func (d *Destination) Phase() Phase { return d.phase.Load().(Phase) }

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
	}
	return s
}

// LostError says that the guest was running here and cannot go on: pages that
// it needs are gone. Its vCPUs are stopped.
type LostError struct{ Err error }

func (e *LostError) Error() string {
	return "the guest ran here and cannot go on: " + e.Err.Error()
}

func (e *LostError) Unwrap() error { return e.Err }

// Receive takes one VM in from whoever dials ln first, and returns when the
// last page is here and the source has been told so. The machine then runs.
//
// An error before POSTCOPY_RUN has come means that the VM was never this
// side's, and still is the source's. After it, a broken connection stops
// nothing: the guest goes on with the pages it has, and Receive waits until ctx
// ends. Only then, or when a page cannot be put in place, the vCPUs are stopped
// and the error is a [LostError].
func (d *Destination) Receive(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(d.givenUp, func() { cancel(ErrGivenUp) })()
	acc := newAcceptor(d.log)
	var accepting sync.WaitGroup
	accepting.Go(func() {
		if err := acc.serve(ln); err != nil {
			d.log.Error("no more migration channels", "error", err)
		}
	})
	defer accepting.Wait()
	defer ln.Close()

	s, err := acc.next(ctx)
	if err != nil {
		return err
	}
	d.log.Info("migration begins", "id", s.id.String(), "source", s.main.RemoteAddr().String())
	err = d.receive(ctx, s)
	if err != nil {
		d.phase.Store(PhaseFailed)
	}
	return err
}

// receive runs a session to its end.
func (d *Destination) receive(ctx context.Context, s *session) error {
	defer s.close()
	// Cancelling has to reach reads that wait.
	defer context.AfterFunc(ctx, s.close)()

	back := newReturnPath(s.main)
	in := &inbound{d: d, s: s, back: back, ctx: ctx, broken: make(chan error, 4), over: make(chan struct{})}
	err := in.readMain()
	if errors.Is(err, errGuestEnded) {
		err = nil
		in.sayShut()
		in.drain()
	}
	in.end()
	if err != nil {
		err = cause(ctx, err)
	}
	switch {
	case err == nil:
		d.phase.Store(PhaseCompleted)
		d.log.Info("migration completed", "faults", d.Status().Faults)
		return nil
	case !in.ran:
		in.sayFailed(err)
		if d.machine != nil {
			d.machine.Stop()
		}
		if p := d.pager.Load(); p != nil {
			p.abort(err)
		}
		return err
	}
	d.log.Error("migration paused: the connection to the source broke; the guest goes on with the pages it has", "error", err)
	d.phase.Store(PhasePaused)
	<-ctx.Done()
	d.machine.Stop()
	d.pager.Load().abort(err)
	return &LostError{err}
}

// inbound is a session as the destination serves it.
type inbound struct {
	d    *Destination
	s    *session
	back *returnPath
	ctx  context.Context
	ran  bool // POSTCOPY_RUN was acted on

	workers sync.WaitGroup
	broken  chan error    // from workers; the first is what counts
	over    chan struct{} // closed when the session is
}

// end closes the connections and waits for all who used them.
func (in *inbound) end() {
	close(in.over)
	in.s.close()
	in.workers.Wait()
}

// fail has the main reader end with err: closing its connection is what
// reaches it.
func (in *inbound) fail(err error) {
	select {
	case in.broken <- err:
	default:
	}
	in.s.main.SetReadDeadline(time.Unix(1, 0))
}

// drain reads what the source still sends, until it has understood: to close a
// socket with data unread would destroy the SHUT that is on its way there.
func (in *inbound) drain() {
	in.s.main.SetReadDeadline(time.Now().Add(helloTimeout))
	_, _ = io.Copy(io.Discard, in.s.main)
}

// sayFailed tells the source, if it can still be told, that this side cannot
// go on. It is only said before this side ever ran the guest.
func (in *inbound) sayFailed(err error) {
	code := wire.FailureOther
	var refused *RefusedError
	var broken *wire.Error
	text := err.Error()
	switch {
	case errors.As(err, &refused):
		code, text = wire.FailureRefused, refused.Reason
	case errors.As(err, &broken):
		code = wire.FailureProtocol
	}
	_ = in.back.send(func(b []byte) []byte { return wire.AppendFailed(b, wire.Failed{Code: code, Text: text}) })
}

// readMain reads the main channel to COMPLETE, and sees the end of the
// migration through.
func (in *inbound) readMain() error {
	r := bufio.NewReaderSize(in.s.main, 8<<10)
	buf, err := newPayload()
	if err != nil {
		return err
	}
	defer buf.free()
	for {
		h, err := wire.ReadHeader(r)
		if err == nil {
			in.d.received.Add(wire.HeaderSize + uint64(h.Length))
			if h.Type == wire.TypeRAM {
				err = in.ram(r, h.Length, buf)
			} else {
				var done bool
				done, err = in.control(r, h)
				if done {
					return nil
				}
			}
		}
		if err != nil {
			// What a worker saw came first and caused this.
			select {
			case err = <-in.broken:
			default:
			}
			if err == io.EOF {
				err = fmt.Errorf("main channel: the source closed it in phase %s: %w", in.d.Phase(), io.ErrUnexpectedEOF)
			}
			return err
		}
	}
}

// readUrgent reads the urgent channel until the source ends it.
func (in *inbound) readUrgent() error {
	r := bufio.NewReaderSize(in.s.urgent, 8<<10)
	buf, err := newPayload()
	if err != nil {
		return err
	}
	defer buf.free()
	for {
		h, err := wire.ReadHeader(r)
		if err != nil {
			return fmt.Errorf("urgent channel: %w", err)
		}
		in.d.received.Add(wire.HeaderSize + uint64(h.Length))
		switch h.Type {
		case wire.TypeRAM:
			if err := in.ram(r, h.Length, buf); err != nil {
				return fmt.Errorf("urgent channel: %w", err)
			}
		case wire.TypeComplete:
			_, err := wire.ReadBody(r, h.Length)
			return err
		default:
			return protocolError(h.Type.String(), "on the urgent channel, which carries nothing but pages")
		}
	}
}

// ram reads a run of pages and puts it in place.
func (in *inbound) ram(r io.Reader, length uint32, buf *payload) error {
	p := in.d.pager.Load()
	if p == nil {
		return protocolError("RAM", "before POSTCOPY_LISTEN")
	}
	m, err := buf.readRAM(r, length)
	if err != nil {
		return err
	}
	return p.place(int(m.Block), m.First, uint64(m.Count), buf.data(m))
}

// control deals with every message but RAM. It tells whether it was the last.
func (in *inbound) control(r io.Reader, h wire.Header) (done bool, err error) {
	d := in.d
	body, err := wire.ReadBody(r, h.Length)
	if err != nil {
		return false, fmt.Errorf("main channel: %s: %w", h.Type, err)
	}
	d.log.Debug("received", "message", h.Type.String(), "bytes", h.Length)
	switch h.Type {
	case wire.TypeOpenReturnPath:
		return false, nil // it is the main channel's other direction, and open
	case wire.TypePing:
		seq, err := wire.DecodePing(body)
		if err != nil {
			return false, err
		}
		return false, in.back.send(func(b []byte) []byte { return wire.AppendPong(b, seq) })
	case wire.TypeConfig:
		return false, in.config(body)
	case wire.TypeAdvise:
		return false, in.advise(body)
	case wire.TypePackaged:
		return false, in.packaged(body)
	case wire.TypeRun:
		return false, in.run()
	case wire.TypeChecksums:
		c, err := wire.DecodeChecksums(body)
		if err != nil {
			return false, err
		}
		return false, d.sums.expect(c)
	case wire.TypeComplete:
		c, err := wire.DecodeComplete(body)
		if err != nil {
			return false, err
		}
		return true, in.complete(c)
	}
	return false, protocolError(h.Type.String(), "on the main channel in phase %s", d.Phase())
}

// config has the machine built.
func (in *inbound) config(body []byte) error {
	d := in.d
	if d.machine != nil {
		return protocolError("CONFIG", "a second time")
	}
	c, err := wire.DecodeConfig(body)
	if err != nil {
		return err
	}
	m, err := d.build(in.ctx, c.Machine)
	if err != nil {
		return &RefusedError{err.Error()}
	}
	d.machine = m
	d.blocks = c.Blocks
	in.back.blocks = m.Blocks()
	if err := agree(c, m); err != nil {
		return &RefusedError{err.Error()}
	}
	if c.Verify {
		d.sums = newSums(m.Blocks())
	}
	return nil
}

// agree checks that what was built is what CONFIG lists: RAM blocks by name
// and size, devices by id, each of a version that this side can load.
func agree(c wire.Config, m Machine) error {
	blocks := m.Blocks()
	if len(blocks) != len(c.Blocks) {
		return fmt.Errorf("the source has %d RAM blocks, the destination %d", len(c.Blocks), len(blocks))
	}
	for i, b := range blocks {
		if want := c.Blocks[i]; b.Name() != want.Name || b.Size() != want.Size {
			return fmt.Errorf("RAM block %d: the source has %q with %d bytes, the destination %q with %d", i, want.Name, want.Size, b.Name(), b.Size())
		}
	}
	have := map[string]uint32{}
	for _, s := range m.Devices() {
		have[s.ID()] = s.Version()
	}
	if len(c.Devices) != len(have) {
		return fmt.Errorf("the source has %d device states, the destination %d", len(c.Devices), len(have))
	}
	for _, dev := range c.Devices {
		version, ok := have[dev.ID]
		if !ok {
			return fmt.Errorf("device %q: the destination has none of that name", dev.ID)
		}
		if dev.Version > version {
			return fmt.Errorf("device %q: the source saves format %d, the destination loads up to %d; upgrade the destination", dev.ID, dev.Version, version)
		}
	}
	return nil
}

// advise checks the page sizes, which postcopy needs equal: a page of the
// destination is placed whole, so it must arrive whole.
func (in *inbound) advise(body []byte) error {
	d := in.d
	a, err := wire.DecodeAdvise(body)
	if err != nil {
		return err
	}
	if d.machine == nil || d.Phase() != PhaseSetup {
		return protocolError("POSTCOPY_ADVISE", "in phase %s", d.Phase())
	}
	if a.TargetPageSize != wire.PageSize {
		return &RefusedError{fmt.Sprintf("the source counts in pages of %d bytes, the destination of %d", a.TargetPageSize, wire.PageSize)}
	}
	blocks := d.machine.Blocks()
	if len(a.PageSizes) != len(blocks) {
		return protocolError("POSTCOPY_ADVISE", "%d blocks, CONFIG had %d", len(a.PageSizes), len(blocks))
	}
	for i, b := range blocks {
		if a.PageSizes[i] != b.PageSize() {
			return &RefusedError{fmt.Sprintf("RAM block %q: postcopy needs matching host page sizes: source %d, destination %d", b.Name(), a.PageSizes[i], b.PageSize())}
		}
	}
	d.phase.Store(PhaseAdvise)
	return nil
}

// packaged arms userfaultfd and has the devices loaded, by a goroutine of
// their own: loading may touch a page that is still at the source, and this
// one has to be free to place it.
func (in *inbound) packaged(body []byte) error {
	d := in.d
	if d.Phase() != PhaseAdvise {
		return protocolError("PACKAGED", "in phase %s", d.Phase())
	}
	began := time.Now()
	states, err := unpack(body)
	if err != nil {
		return err
	}
	p, err := newPager(d.machine.Blocks(), d.sums, func(pages []pageRequest) {
		if err := in.back.request(pages); err != nil {
			in.fail(fmt.Errorf("return path: request pages: %w", err))
		}
	})
	if err != nil {
		return &RefusedError{err.Error()}
	}
	p.start(in.fail)
	d.pager.Store(p)
	d.phase.Store(PhaseListening)
	in.workers.Go(func() {
		if err := in.readUrgent(); err != nil {
			in.fail(err)
		}
	})
	d.loaded = make(chan error, 1)
	go func() {
		err := load(d.machine, states)
		if err == nil {
			d.phase.Store(PhaseLoaded)
			took := uint64(time.Since(began))
			err = in.back.send(func(b []byte) []byte { return wire.AppendLoaded(b, took) })
		}
		d.loaded <- err
		if err != nil {
			in.fail(err)
		}
	}()
	return nil
}

// unpack takes a package apart: LISTEN first, then a state for each device.
func unpack(body []byte) ([]wire.DeviceState, error) {
	var states []wire.DeviceState
	for listening := false; len(body) > 0; {
		if len(body) < wire.HeaderSize {
			return nil, protocolError("PACKAGED", "%d bytes after the last message", len(body))
		}
		h, err := wire.DecodeHeader([wire.HeaderSize]byte(body))
		if err != nil {
			return nil, err
		}
		body = body[wire.HeaderSize:]
		if uint64(h.Length) > uint64(len(body)) {
			return nil, protocolError("PACKAGED", "%s of %d bytes with %d left", h.Type, h.Length, len(body))
		}
		switch {
		case h.Type == wire.TypeListen && listening:
			return nil, protocolError("POSTCOPY_LISTEN", "a second time")
		case h.Type == wire.TypeListen:
			listening = true
		case h.Type == wire.TypeDeviceState && listening:
			s, err := wire.DecodeDeviceState(body[:h.Length])
			if err != nil {
				return nil, err
			}
			states = append(states, s)
		default:
			return nil, protocolError("PACKAGED", "%s has no place there, or comes before POSTCOPY_LISTEN", h.Type)
		}
		body = body[h.Length:]
	}
	return states, nil
}

// load loads every device, in the machine's order. A device without a state,
// or a state without a device, is an error.
func load(m Machine, states []wire.DeviceState) error {
	byID := map[string]wire.DeviceState{}
	for _, s := range states {
		if _, twice := byID[s.ID]; twice {
			return protocolError("DEVICE_STATE", "device %q: a second time", s.ID)
		}
		byID[s.ID] = s
	}
	for _, dev := range m.Devices() {
		s, ok := byID[dev.ID()]
		if !ok {
			return protocolError("DEVICE_STATE", "device %q: none came", dev.ID())
		}
		if err := dev.Load(s.Version, s.Data); err != nil {
			return fmt.Errorf("device %q: load state of format %d: %w", dev.ID(), s.Version, err)
		}
		delete(byID, s.ID)
	}
	for id := range byID {
		return protocolError("DEVICE_STATE", "device %q: this machine has none", id)
	}
	return nil
}

// run makes this side the owner.
func (in *inbound) run() error {
	d := in.d
	began := time.Now()
	if d.Phase() != PhaseLoaded {
		return protocolError("POSTCOPY_RUN", "in phase %s", d.Phase())
	}
	if err := <-d.loaded; err != nil {
		return err
	}
	if !d.fate.CompareAndSwap(fateOpen, fateRan) {
		return ErrGivenUp
	}
	in.ran = true
	if err := d.machine.Run(); err != nil {
		return fmt.Errorf("start the vCPUs: %w", err)
	}
	now := time.Now()
	d.pager.Load().waits.setVCPUs(d.machine.VCPUThreads())
	d.phase.Store(PhaseRunning)
	if err := in.back.send(func(b []byte) []byte {
		return wire.AppendRunning(b, wire.Running{Time: uint64(now.UnixNano()), ResumeNanos: uint64(now.Sub(began))})
	}); err != nil {
		return err
	}
	in.workers.Go(in.statistics)
	in.workers.Go(in.watchGuest)
	return nil
}

// errGuestEnded is how watchGuest ends the main reader.
var errGuestEnded = errors.New("the guest has ended")

// watchGuest ends the migration early if the guest ends: it needs no more
// pages.
func (in *inbound) watchGuest() {
	select {
	case <-in.d.machine.Done():
		in.fail(errGuestEnded)
	case <-in.over:
	}
}

// statsEvery is how often the source hears how things are here.
const statsEvery = 250 * time.Millisecond

// statistics sends STATS until the last page is in place.
func (in *inbound) statistics() {
	tick := time.NewTicker(statsEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if in.sendStats() != nil {
				return // the main reader finds out as well
			}
		case <-in.d.pager.Load().done:
			return
		case <-in.over:
			return
		}
	}
}

func (in *inbound) sendStats() error {
	text, err := json.Marshal(in.d.stats())
	if err != nil {
		return fmt.Errorf("STATS: %w", err)
	}
	return in.back.send(func(b []byte) []byte { return wire.AppendStats(b, text) })
}

func (d *Destination) stats() stats {
	p := d.pager.Load()
	s := stats{PagesLeft: uint64(p.left.Load()), Verified: d.verify, Problem: d.problem}
	p.waits.report(&s)
	s.Faults.Requested = p.requested.Load()
	return s
}

// lastPages bounds the wait for pages that were sent before COMPLETE on the
// urgent channel, and can only be in its socket still.
const lastPages = time.Minute

// complete sees to the end: the last pages in place, userfaultfd unregistered,
// the source told.
func (in *inbound) complete(c wire.Complete) error {
	d := in.d
	if !in.ran {
		return protocolError("COMPLETE", "in phase %s", d.Phase())
	}
	p := d.pager.Load()
	select {
	case <-p.done:
	case err := <-in.broken:
		return err
	case <-time.After(lastPages):
		return protocolError("COMPLETE", "%d data and %d zero pages sent, but %d never came", c.DataPages, c.ZeroPages, p.left.Load())
	case <-in.ctx.Done():
		return in.ctx.Err()
	}
	if err := p.release(); err != nil {
		return err
	}
	if d.sums != nil {
		err := d.sums.verify(p.blocks)
		ok := err == nil
		d.verify = &ok
		if !ok {
			d.problem = err.Error()
			d.log.Error("verification failed", "error", err)
		}
	}
	in.sayShut()
	return nil
}

// sayShut tells the source that it is needed no more, with the final
// statistics. The migration is over for this side whether the source hears it
// or not.
func (in *inbound) sayShut() {
	err := in.sendStats()
	if err == nil {
		err = in.back.send(func(b []byte) []byte { return wire.AppendShut(b, 0) })
	}
	if err != nil {
		in.d.log.Warn("the source does not know that it is needed no more", "error", err)
	}
}
