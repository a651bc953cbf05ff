package migration

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"microvm/migration/wire"
)

// link is the source's end of the connections. One goroutine reads the return
// path and answers requests for pages itself, on the urgent channel, so that a
// page never waits for anything but the pages asked for before it.
type link struct {
	main net.Conn
	rtt  time.Duration
	// resume: this is not the first link of the migration.
	resume bool
	// serving is set when the destination may ask for pages: with the
	// package, since loading a device may touch one.
	serving atomic.Bool
	// detach has the connections outlive the context they were opened in. It
	// reports false if that has ended, and closed them, already.
	detach func() bool

	urgentMu sync.Mutex
	urgent   net.Conn
	multi    []net.Conn
	lanes    []lane // for bulk: the multi channels, or main if there are none
	syncs    uint32 // how many SYNCs were sent

	pongs   chan uint32
	loaded  chan uint64
	running chan wire.Running
	shut    chan uint32
	resumed chan uint32
	closed  chan struct{}   // closed when the reader has ended
	alive   context.Context // ends with the reader
	died    context.CancelCauseFunc
	err     error // why; valid after closed
}

// errPeerGone is what whoever waits for his turn to send hears when there is
// nobody to send to any more; explain knows more.
var errPeerGone = errors.New("the connections ended")

func newLink(main, urgent net.Conn, multi []net.Conn) *link {
	l := &link{
		main: prompt(main), urgent: urgent, multi: multi, lanes: lanesOf(main, multi),
		pongs:   make(chan uint32, 1),
		loaded:  make(chan uint64, 1),
		running: make(chan wire.Running, 1),
		shut:    make(chan uint32, 1),
		resumed: make(chan uint32, 1),
		closed:  make(chan struct{}),
	}
	l.alive, l.died = context.WithCancelCause(context.Background())
	return l
}

// sayCancel tells the destination, if it can still be told, that the VM stays
// here, and closes. Another message may be on its way on the main channel, and
// block: then closing has to say it.
func (l *link) sayCancel(why error) {
	l.main.SetWriteDeadline(time.Now().Add(time.Second))
	_, _ = l.main.Write(wire.Cancel(why.Error()))
	l.close()
}

func (l *link) close() {
	l.main.Close()
	l.urgent.Close()
	for _, c := range l.multi {
		c.Close()
	}
}

// listen reads the return path until it ends.
func (l *link) listen(s *Source) {
	urgentThread()
	defer close(l.closed)
	defer l.died(errPeerGone)
	err := l.read(s)
	l.err = errShutEarly(err)
	if err == nil || errors.As(err, new(*FailedError)) {
		return // its last word, which will be answered
	}
	// Whoever writes to a peer that is gone should hear of it now.
	l.close()
}

// read reads and acts on messages. It returns after SHUT, or with the error.
func (l *link) read(s *Source) error {
	r := bufio.NewReaderSize(l.main, 16<<10)
	buf := make([]byte, wire.MaxReturnBody)
	answer := newAnswerer(s.ram, l)
	var arrived *arrivals
	running, ponged := false, false
	for {
		t, body, err := wire.ReadReturn(r, buf)
		if err != nil {
			return err
		}
		switch t {
		case wire.ReturnReqPages:
			if !l.serving.Load() {
				return protocolError("REQ_PAGES", "before the package was sent")
			}
			req, err := wire.DecodeReqPages(body)
			if err != nil {
				return err
			}
			if err := answer.timed(req, &s.answering); err != nil {
				return err
			}
		case wire.ReturnPageSizes:
			// Whoever sends pages begins after the first PONG.
			if l.resume || ponged {
				return protocolError("PAGE_SIZES", "not in answer to POSTCOPY_ADVISE")
			}
			sizes, err := wire.DecodePageSizes(body)
			if err == nil {
				err = s.ram.setUnits(sizes)
			}
			if err != nil {
				return err
			}
		case wire.ReturnPong:
			ponged = true
			if !offer(l.pongs, wire.DecodeUint32(body)) {
				return protocolError("PONG", "not asked for")
			}
		case wire.ReturnLoaded:
			if !l.serving.Load() || s.committed.Load() == runWritten || !offer(l.loaded, wire.DecodeLoaded(body)) {
				return protocolError("LOADED", "out of place")
			}
		case wire.ReturnRunning:
			if running || s.committed.Load() != runWritten {
				return protocolError("RUNNING", "a second time, or before POSTCOPY_RUN")
			}
			running = true
			l.running <- wire.DecodeRunning(body)
		case wire.ReturnStats:
			var st stats
			if err := json.Unmarshal(body, &st); err != nil {
				return protocolError("STATS", "%v", err)
			}
			s.remote.Store(&st)
			s.opt.Events.faults(&st)
		case wire.ReturnFailed:
			f := wire.DecodeFailed(body)
			if f.Code == wire.FailureRefused {
				return &RefusedError{f.Text}
			}
			return &FailedError{f.Text}
		case wire.ReturnRecvBitmap:
			if !l.resume || l.serving.Load() {
				return protocolError("RECV_BITMAP", "not asked for")
			}
			if arrived == nil {
				arrived = newArrivals(s.ram)
			}
			m, err := wire.DecodeRecvBitmap(body)
			if err == nil {
				err = arrived.add(m)
			}
			if err != nil {
				return err
			}
		case wire.ReturnResumeAck:
			if arrived == nil || l.serving.Load() {
				return protocolError("RESUME_ACK", "not asked for")
			}
			if err := arrived.apply(); err != nil {
				return err
			}
			l.serving.Store(true)
			l.resumed <- wire.DecodeUint32(body)
		case wire.ReturnShut:
			l.shut <- wire.DecodeUint32(body)
			return nil
		}
	}
}

// offer puts v into a channel that has room for one, and tells whether it had.
func offer[T any](c chan T, v T) bool {
	select {
	case c <- v:
		return true
	default:
		return false
	}
}

// explain gives the reason for which writing failed: what the destination said
// last, if it said anything.
func (l *link) explain(err error) error {
	// The reader ends as well, soon: it reads the peer's last words, or the
	// end of the stream. A peer that does neither is not waited for.
	defer time.AfterFunc(helloTimeout, l.close).Stop()
	<-l.closed
	var refused *RefusedError
	var failed *FailedError
	if errors.As(l.err, &refused) || errors.As(l.err, &failed) {
		return l.err
	}
	return fmt.Errorf("%w (return path: %v)", err, l.err)
}

// pong waits for the answer to PING seq.
func (l *link) pong(ctx context.Context, seq uint32) error {
	got, err := await(ctx, l, l.pongs)
	if err == nil && got != seq {
		err = protocolError("PONG", "number %d, not %d", got, seq)
	}
	return err
}

// awaitRunning does not end with a context: POSTCOPY_RUN is written, and only
// RUNNING or a broken connection says more.
func (l *link) awaitRunning() (wire.Running, error) {
	return await(context.Background(), l, l.running)
}

// awaitShut waits for the destination's last word.
func (l *link) awaitShut() error {
	status, err := await(context.Background(), l, l.shut)
	if err == nil && status != 0 {
		err = fmt.Errorf("the destination ended the migration with status %d", status)
	}
	return err
}

// await waits for something to come on the return path.
func await[T any](ctx context.Context, l *link, c chan T) (v T, err error) {
	select {
	case v = <-c:
		return v, nil
	case <-ctx.Done():
		return v, context.Cause(ctx)
	case <-l.closed:
		// The reader may have put it there just before it ended.
		select {
		case v = <-c:
			return v, nil
		default:
			return v, l.err
		}
	}
}

// sendUrgent writes one message to the urgent channel, after those that are
// being written.
func (l *link) sendUrgent(o *outgoing, m []byte) error {
	l.urgentMu.Lock()
	defer l.urgentMu.Unlock()
	n, err := l.urgent.Write(m)
	o.count(urgentChannel, int64(n))
	return err
}
