package migration

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"microvm/migration/wire"
)

// inbound is a session as the destination serves it.
type inbound struct {
	d    *Destination
	s    *session
	back *returnPath

	workers sync.WaitGroup
	broken  chan error    // from workers; the first is what counts
	over    chan struct{} // closed when the session is
	// handshake: POSTCOPY_RESUME has yet to come, and nothing else may.
	handshake bool
	// telling keeps STATS on the wire in the order in which they were true.
	telling sync.Mutex
	// last is for the last word, SHUT or FAILED, which is said once.
	last sync.Once
}

// serve runs a session to its end. Without an error the migration is over.
func (d *Destination) serve(ctx context.Context, s *session) error {
	in := &inbound{
		d: d, s: s, back: newReturnPath(s.main),
		broken: make(chan error, 4), over: make(chan struct{}), handshake: s.resumed,
	}
	if d.machine != nil {
		in.back.blocks = d.machine.Blocks()
	}
	// Cancelling has to reach reads that wait.
	defer context.AfterFunc(ctx, s.close)()

	err := in.readMain(ctx)
	d.current.Store(nil)
	if err != nil {
		err = cause(ctx, err)
		if !d.recoverable(ctx, err) && d.fate.Load() != fateRan {
			in.sayFailed(err)
			in.drain()
		}
	}
	close(in.over)
	s.close()
	in.workers.Wait()
	return err
}

// fail has the main reader end with err, at once.
func (in *inbound) fail(err error) { in.failBy(time.Unix(1, 0), err) }

func (in *inbound) failBy(t time.Time, err error) {
	select {
	case in.broken <- err:
	default:
	}
	in.s.main.SetReadDeadline(t)
}

// drainTimeout bounds the wait for the source to have understood. Tests whose
// source never does shorten it.
var drainTimeout = 2 * time.Second

// drain says that no more will come, and reads what the source still sends
// until it has understood and closes: to close a socket with data unread would
// destroy the message on its way back.
func (in *inbound) drain() {
	if c, ok := in.s.main.(interface{ CloseWrite() error }); ok {
		_ = c.CloseWrite() // an error is one of a connection that is closed
	}
	in.s.main.SetReadDeadline(time.Now().Add(drainTimeout))
	_, _ = io.Copy(io.Discard, in.s.main)
}

// sayFailed tells the source, if it can still be told, that this side cannot
// go on. It is only said before this side ever ran the guest.
func (in *inbound) sayFailed(err error) {
	in.last.Do(func() { in.sendFailed(err) })
}

func (in *inbound) sendFailed(err error) {
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
func (in *inbound) readMain(ctx context.Context) error {
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
				done, err = in.control(ctx, r, h)
				if done {
					return nil
				}
			}
		}
		if err != nil {
			// What a worker saw came first and caused this, unless the
			// source has said why it hangs up.
			if !errors.As(err, new(*fatalError)) {
				select {
				case err = <-in.broken:
				default:
				}
			}
			if err == io.EOF {
				err = fmt.Errorf("main channel: the source closed it in phase %s: %w", in.d.Phase(), io.ErrUnexpectedEOF)
			}
			return err
		}
	}
}

// urgent is the worker that reads the urgent channel.
func (in *inbound) urgent() {
	if err := in.readUrgent(); err != nil {
		// A source that hangs up closes this channel and the main one.
		// What it said there before, such as CANCEL, comes first.
		in.failBy(time.Now().Add(drainTimeout), fmt.Errorf("urgent channel: %w", err))
	}
}

// readUrgent reads the urgent channel until the source ends it.
func (in *inbound) readUrgent() error {
	urgentThread()
	r := bufio.NewReaderSize(in.s.urgent, 8<<10)
	buf, err := newPayload()
	if err != nil {
		return err
	}
	defer buf.free()
	for {
		h, err := wire.ReadHeader(r)
		if err != nil {
			return err
		}
		in.d.received.Add(wire.HeaderSize + uint64(h.Length))
		switch h.Type {
		case wire.TypeRAM:
			if err := in.ram(r, h.Length, buf); err != nil {
				return err
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
		return protocolError("RAM", "before POSTCOPY_ADVISE")
	}
	m, err := buf.readRAM(r, length)
	if err != nil {
		return err
	}
	return p.place(int(m.Block), m.First, uint64(m.Count), buf.data(m))
}

// control deals with every message but RAM. It tells whether it was the last.
func (in *inbound) control(ctx context.Context, r io.Reader, h wire.Header) (done bool, err error) {
	d := in.d
	body, err := wire.ReadBody(r, h.Length)
	if err != nil {
		return false, fmt.Errorf("main channel: %s: %w", h.Type, err)
	}
	d.log.Debug("received", "message", h.Type.String(), "bytes", h.Length)
	if in.handshake != (h.Type == wire.TypeResume) {
		return false, protocolError(h.Type.String(), "in the wrong place: POSTCOPY_RESUME opens a resumed session, and no other")
	}
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
		return false, in.config(ctx, body)
	case wire.TypeAdvise:
		return false, in.advise(body)
	case wire.TypeDiscard:
		return false, in.discard(body)
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
		return false, in.complete(ctx, c)
	case wire.TypeResume:
		return false, in.resume()
	case wire.TypeEnd:
		if d.fate.Load() != fateRan || !d.settled() {
			return false, protocolError("END", "not all is here")
		}
		return true, nil
	case wire.TypeCancel:
		if d.fate.Load() == fateRan {
			return false, protocolError("CANCEL", "the guest runs here already")
		}
		return false, &fatalError{fmt.Errorf("the source keeps the VM: %s", wire.DecodeCancel(body))}
	}
	return false, protocolError(h.Type.String(), "on the main channel in phase %s", d.Phase())
}

// config has the machine built.
func (in *inbound) config(ctx context.Context, body []byte) error {
	d := in.d
	if d.machine != nil {
		return protocolError("CONFIG", "a second time")
	}
	c, err := wire.DecodeConfig(body)
	if err != nil {
		return err
	}
	m, err := d.build(ctx, c.Machine)
	if err != nil {
		return &RefusedError{err.Error()}
	}
	d.machine = m
	in.back.blocks = m.Blocks()
	if err := agree(c, m); err != nil {
		return &RefusedError{err.Error()}
	}
	if c.Verify {
		d.sums = newSums(m.Blocks())
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
	// Armed this early, userfaultfd puts what comes by precopy in place as
	// well, three times as fast as first touches would.
	p, err := newPager(blocks, d.sums, d.request)
	if err != nil {
		return &RefusedError{err.Error()}
	}
	d.pager.Store(p)
	d.phase.Store(PhaseAdvise)
	return nil
}

// discard drops pages that changed since they were sent.
func (in *inbound) discard(body []byte) error {
	if in.d.Phase() != PhaseAdvise {
		return protocolError("RAM_DISCARD", "in phase %s", in.d.Phase())
	}
	m, err := wire.DecodeDiscard(body)
	if err != nil {
		return err
	}
	return in.d.pager.Load().discard(m)
}

// packaged begins postcopy and has the devices loaded, by a goroutine of their
// own: loading may touch a page that is still at the source, and this
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
	d.pager.Load().listen(d.fail)
	d.phase.Store(PhaseListening)
	d.current.Store(in)
	in.workers.Go(in.urgent)
	in.workers.Go(in.watchFate)
	d.loaded = make(chan error, 1)
	d.loader.Go(func() {
		err := load(d.machine, states)
		d.loaded <- err
		if err == nil {
			if !d.phase.CompareAndSwap(PhaseListening, PhaseLoaded) {
				return // the session has ended, and Receive with it
			}
			// In this order: who declines looks at the phase after it
			// has decided the fate.
			if d.fate.Load() == fateGivenUp {
				in.fail(&fatalError{context.Cause(d.givenUp)})
				return
			}
			took := uint64(time.Since(began))
			err = in.back.send(func(b []byte) []byte { return wire.AppendLoaded(b, took) })
		}
		if err != nil {
			in.fail(err)
		}
	})
	return nil
}

// request sends requests for pages. Without a connection they are dropped:
// what is missing is asked for again when there is one.
func (d *Destination) request(pages []pageRequest) (written bool) {
	in := d.current.Load()
	if in == nil {
		return false
	}
	err := in.back.request(pages)
	if err != nil {
		in.fail(fmt.Errorf("return path: request pages: %w", err))
	}
	return err == nil
}

// fail notes that pages cannot be fetched any more, by any connection.
func (d *Destination) fail(err error) {
	err = &fatalError{err}
	if d.decline(err) && d.owed() {
		return // watchFate tells the source
	}
	select {
	case d.fatal <- err:
	default:
	}
	if in := d.current.Load(); in != nil {
		in.fail(err)
	}
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
		return nil // the source has been told, or is about to be
	}
	if err := d.machine.Run(); err != nil {
		// No vCPU has run: it is as if the source had been told before.
		d.fate.Store(fateGivenUp)
		d.giveUp(fmt.Errorf("start the vCPUs: %w", err))
		return nil
	}
	now := time.Now()
	d.pager.Load().waits.setVCPUs(d.machine.VCPUThreads())
	d.phase.Store(PhaseRunning)
	err := in.back.send(func(b []byte) []byte {
		return wire.AppendRunning(b, wire.Running{Time: uint64(now.UnixNano()), ResumeNanos: uint64(now.Sub(began))})
	})
	if err != nil {
		return err
	}
	in.watch()
	return nil
}

// watchFate tells a source that may have written POSTCOPY_RUN that the VM will
// never run here. It answers by CANCEL, or comes back if it did not hear it.
func (in *inbound) watchFate() {
	select {
	case <-in.d.givenUp.Done():
		if in.d.owed() {
			in.decline()
		}
	case <-in.over:
	}
}

func (in *inbound) decline() {
	in.sayFailed(context.Cause(in.d.givenUp))
	in.s.main.SetReadDeadline(time.Now().Add(drainTimeout))
}

// watch looks after a guest that runs here while pages are missing.
func (in *inbound) watch() {
	in.workers.Go(in.statistics)
	in.workers.Go(in.watchGuest)
}

// watchGuest ends the migration early if the guest ends: it needs no more
// pages. What is on its way is read, up to END.
func (in *inbound) watchGuest() {
	select {
	case <-in.d.machine.Done():
		in.sayShut()
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
	in.telling.Lock()
	defer in.telling.Unlock()
	text, err := json.Marshal(in.d.stats())
	if err != nil {
		return fmt.Errorf("STATS: %w", err)
	}
	return in.back.send(func(b []byte) []byte { return wire.AppendStats(b, text) })
}

func (d *Destination) stats() stats {
	p := d.pager.Load()
	s := stats{PagesLeft: uint64(p.left.Load())}
	if v := d.verdict.Load(); v != nil {
		s.Verified, s.Problem = &v.ok, v.problem
	}
	p.waits.report(&s)
	s.Faults.Requested = p.requested.Load()
	return s
}

// lastPages bounds the wait for pages that were sent before COMPLETE on the
// urgent channel, and can only be in its socket still.
const lastPages = time.Minute

// complete sees to the end: the last pages in place, userfaultfd unregistered,
// the source told.
func (in *inbound) complete(ctx context.Context, c wire.Complete) error {
	d := in.d
	if d.Phase() != PhaseRunning {
		return protocolError("COMPLETE", "in phase %s", d.Phase())
	}
	p := d.pager.Load()
	late := time.NewTimer(lastPages)
	defer late.Stop()
	select {
	case <-p.done:
	case <-d.machine.Done():
		return nil // watchGuest says SHUT
	case err := <-in.broken:
		return err
	case <-late.C:
		return protocolError("COMPLETE", "%d data and %d zero pages sent, but %d never came", c.DataPages, c.ZeroPages, p.left.Load())
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	if !d.whole {
		if err := in.settle(p); err != nil {
			return err
		}
	}
	in.sayShut()
	return nil
}

// settle makes memory ordinary again: every page is here.
func (in *inbound) settle(p *pager) error {
	d := in.d
	if err := p.release(); err != nil {
		return &fatalError{err}
	}
	d.whole = true
	if err := d.machine.Settle(); err != nil {
		d.log.Warn("every page is here", "error", err)
	}
	if d.sums == nil {
		return nil
	}
	err := d.sums.verify(p.blocks)
	v := &verified{ok: err == nil}
	if err != nil {
		v.problem = err.Error()
		d.log.Error("verification failed", "error", err)
	}
	d.verdict.Store(v)
	return nil
}

// sayShut tells the source that it is needed no more, with the final
// statistics. The source answers by END. If it has not heard it, it comes back.
func (in *inbound) sayShut() {
	in.last.Do(func() {
		err := in.sendStats()
		if err == nil {
			err = in.back.send(func(b []byte) []byte { return wire.AppendShut(b, 0) })
		}
		if err != nil {
			in.d.log.Warn("the source does not know that it is needed no more", "error", err)
		}
		in.s.main.SetReadDeadline(time.Now().Add(helloTimeout))
	})
}
