package migration

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"microvm/migration/wire"
)

// inbound is a session as the destination serves it.
type inbound struct {
	d    *Destination
	s    *session
	back *returnPath

	workers sync.WaitGroup
	meeting *meeting                // of main and the multi channels
	broken  chan error              // from workers; the first is what counts
	parts   atomic.Pointer[partsIn] // of device states; nil before the package
	over    chan struct{}           // closed when the session is
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
		meeting: newMeeting(1 + len(s.multi)),
		broken:  make(chan error, 4), over: make(chan struct{}), handshake: s.resumed,
	}
	if d.machine != nil {
		in.back.blocks = d.machine.Blocks()
	}
	// Cancelling has to reach reads that wait.
	defer context.AfterFunc(ctx, s.close)()

	err := in.readMain(ctx)
	d.current.Store(nil)
	if parts := in.parts.Load(); parts != nil {
		parts.end(err)
	}
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
	if errors.As(err, new(*damagedError)) {
		t = time.Unix(1, 0) // nobody has hung up, or has more to say
	}
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
	// From the socket: TLS does not read on after an error.
	in.s.main.SetReadDeadline(time.Now().Add(drainTimeout))
	_, _ = io.Copy(io.Discard, socketOf(in.s.main))
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
				err = in.ram(r, h, buf)
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
			if err := in.ram(r, h, buf); err != nil {
				return err
			}
		case wire.TypeComplete:
			_, err := wire.ReadBody(r, h)
			return err
		default:
			return protocolError(h.Type.String(), "on the urgent channel, which carries nothing but pages")
		}
	}
}

// ram reads a run of pages and puts it in place.
func (in *inbound) ram(r io.Reader, h wire.Header, buf *payload) error {
	p := in.d.pager.Load()
	if p == nil {
		return protocolError("RAM", "before POSTCOPY_ADVISE")
	}
	m, err := buf.readRAM(r, h, in.d.terms)
	if err != nil {
		if errors.As(err, new(*damagedError)) {
			in.d.damaged.Add(1)
		}
		return err
	}
	return p.place(int(m.Block), m.First, uint64(m.Count), buf.data(m))
}

// control deals with every message but RAM. It tells whether it was the last.
func (in *inbound) control(ctx context.Context, r io.Reader, h wire.Header) (done bool, err error) {
	d := in.d
	body, err := wire.ReadBody(r, h)
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
	case wire.TypeSync:
		return false, in.syncMain(ctx, r, body)
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
