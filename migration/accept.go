package migration

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"time"

	"microvm/migration/wire"
)

const (
	// maxGreetings bounds how many connections may be in the middle of their
	// hello at once; more wait in the listener's backlog.
	maxGreetings = 64
	// greetTimeout bounds a hello. It is shorter than a source's own patience,
	// so that a source behind silent strangers gets its turn.
	greetTimeout = helloTimeout / 4
)

// session is one set of connections, complete.
type session struct {
	id      wire.ID
	main    net.Conn
	urgent  net.Conn
	multi   []net.Conn
	resumed bool // goes on with a migration whose connections broke
}

func (s *session) close() {
	for _, c := range append([]net.Conn{s.main, s.urgent}, s.multi...) {
		if c != nil {
			c.Close()
		}
	}
}

// missing names the channels that have yet to come; "" is none.
func (s *session) missing() string {
	var out []string
	if s.urgent == nil {
		out = append(out, wire.RoleUrgent.String())
	}
	for i, c := range s.multi {
		if c == nil {
			out = append(out, fmt.Sprintf("%s %d", wire.RoleMulti, i))
		}
	}
	return strings.Join(out, ", ")
}

// acceptor turns whoever connects into a session: one main channel, then the
// other channels of the same migration, in any order. It goes on for as long as the listener
// is open, so that a stranger or a second source is told why it is refused, and
// so that the one source may come back when its connections broke. A whole new
// session says that they did, even if this side has not noticed; its main channel
// alone may be that of an attempt that the source gave up, come late.
type acceptor struct {
	log      *slog.Logger
	limit    int                // of connections for bulk
	tls      func() *tls.Config // nil: without
	answers  answers
	sessions chan *session // holds one: the newest that nobody has taken yet

	mu     sync.Mutex
	id     wire.ID
	half   *session // has its main channel, and waits for others
	begun  bool     // a session of id has been handed out
	newest *session // the last one handed out
}

// newAcceptor makes one for sources that spread bulk over up to limit
// connections; 0 is no limit of its own.
func newAcceptor(log *slog.Logger, limit int, secure func() *tls.Config) *acceptor {
	if limit == 0 {
		limit = MaxConnections
	}
	return &acceptor{log: log, limit: limit, tls: secure, sessions: make(chan *session, 1)}
}

// acceptPause is how long to wait when a connection could not be accepted, such
// as for want of file descriptors.
const acceptPause = 100 * time.Millisecond

// serve accepts until the listener is closed. Nothing else ends it: a guest may
// be waiting for its source to come back.
func (a *acceptor) serve(ln net.Listener) {
	room := make(chan struct{}, maxGreetings)
	for {
		c, err := ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			a.log.Error("a migration channel could not be accepted", "address", ListenAddress(ln).String(), "error", err)
			time.Sleep(acceptPause)
			continue
		}
		room <- struct{}{}
		go func() {
			defer func() { <-room }()
			if err := a.greet(c); err != nil {
				a.log.Warn("migration channel refused", "peer", peerName(c), "error", err)
				if errors.Is(err, os.ErrDeadlineExceeded) {
					c.Close() // it has had its time
					return
				}
				hangUp(c)
			}
		}()
	}
}

// greet reads a hello and answers it. The connection is the acceptor's
// afterwards, unless there is an error.
func (a *acceptor) greet(c net.Conn) error {
	c.SetDeadline(time.Now().Add(greetTimeout))
	if a.tls != nil {
		s, err := secureAccept(c, a.tls)
		if err != nil {
			if errors.As(err, new(tls.RecordHeaderError)) {
				refuse(c, errors.New(needsTLS))
			}
			why, _ := destinationSideTLS.explain(err)
			return why
		}
		c = s
	}
	h, err := wire.ReadHello(c)
	if err != nil {
		var broken *wire.Error
		if errors.As(err, &broken) {
			refuse(c, err)
		}
		return err
	}
	if h.MinVersion > wire.Version || h.MaxVersion < wire.Version {
		err := fmt.Errorf("the peer speaks versions %d to %d of the stream, this side %d", h.MinVersion, h.MaxVersion, wire.Version)
		refuse(c, err)
		return err
	}
	if h.Role == wire.RoleProbe {
		return a.probed(c, h)
	}
	if err := a.admit(c, h); err != nil {
		refuse(c, err)
		return err
	}
	return nil
}

// By these words a source knows what it is refused for: see unanswered.
const (
	needsTLS      = "TLS is needed here: migrate with --tls-dir"
	otherVersions = "the peer speaks versions"
	unknownRole   = "is unknown to this version"
)

var errUnderWay = errors.New("a migration is under way here already; only one VM can be received at a time")

// refuse tells the peer why. That it cannot be told is no further problem.
func refuse(c net.Conn, why error) {
	_, _ = c.Write(wire.Welcome{Refusal: why.Error()}.Append(nil))
}

// hangUp closes a connection that was refused, when the peer has had time to
// read why: to close it with data unread would destroy that on its way.
func hangUp(c net.Conn) {
	defer c.Close()
	if half, ok := c.(interface{ CloseWrite() error }); !ok || half.CloseWrite() != nil {
		return
	}
	c.SetDeadline(time.Now().Add(drainTimeout))
	_, _ = io.CopyN(io.Discard, c, 64<<10)
}

// admit decides about a channel, answers it if it is wanted, and hands out the
// session that it completes.
func (a *acceptor) admit(c net.Conn, h wire.Hello) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err := a.judge(h); err != nil {
		return err
	}
	if _, err := c.Write(wire.Welcome{Version: wire.Version}.Append(nil)); err != nil {
		return err
	}
	c.SetDeadline(time.Time{})
	tune(c, h)
	switch h.Role {
	case wire.RoleMain:
		if a.half != nil {
			a.half.close()
		}
		half := &session{id: h.ID, main: c, multi: make([]net.Conn, h.Multi), resumed: h.Resume}
		a.id, a.half = h.ID, half
		time.AfterFunc(greetTimeout, func() { a.abandon(half) })
		return nil
	case wire.RoleUrgent:
		a.half.urgent = prompt(c)
	case wire.RoleMulti:
		a.half.multi[h.Index] = c
	}
	if a.half.missing() != "" {
		return nil
	}
	if a.newest != nil {
		a.newest.close()
	}
	a.newest, a.half, a.begun = a.half, nil, true
	select {
	case <-a.sessions: // closed above
	default:
	}
	a.sessions <- a.newest
	return nil
}

// judge says why a channel is not wanted. a.mu is held.
func (a *acceptor) judge(h wire.Hello) error {
	switch {
	case h.Role != wire.RoleMain && h.Role != wire.RoleUrgent && h.Role != wire.RoleMulti:
		return fmt.Errorf("%s is unknown to this version (%d)", h.Role, wire.Version)
	case h.Index != 0 && h.Role != wire.RoleMulti:
		return fmt.Errorf("%s channel %d: there is only number 0", h.Role, h.Index)
	case h.Role != wire.RoleMain:
		return a.judgeFollower(h)
	case a.judgeMulti(h) != nil:
		return a.judgeMulti(h)
	case h.Resume && !(a.begun && h.ID == a.id):
		return errors.New("no migration of that id is under way here")
	case !h.Resume && (a.begun || a.half != nil):
		return errUnderWay
	}
	return nil
}

// judgeMulti refuses more connections for bulk than this side takes.
func (a *acceptor) judgeMulti(h wire.Hello) error {
	if int(h.Multi) > a.limit {
		return fmt.Errorf("the source spreads memory over %d connections, this side takes at most %d: use fewer there (migrate --connections), or allow more here (receive --max-connections)", h.Multi, a.limit)
	}
	return nil
}

// judgeFollower does so for a channel that is not main.
func (a *acceptor) judgeFollower(h wire.Hello) error {
	switch {
	case a.half == nil:
		return fmt.Errorf("a channel (%s) without its main channel, or a second one", h.Role)
	case h.ID != a.id || h.Resume != a.half.resumed:
		return errors.New("a channel of another migration")
	case int(h.Multi) != len(a.half.multi):
		return fmt.Errorf("%s channel %d: it says that there are %d multi channels, the main channel said %d", h.Role, h.Index, h.Multi, len(a.half.multi))
	case h.Role == wire.RoleMulti && int(h.Index) >= len(a.half.multi):
		return fmt.Errorf("multi channel %d: the main channel announced %d, counted from 0", h.Index, len(a.half.multi))
	case h.Role == wire.RoleUrgent && a.half.urgent != nil, h.Role == wire.RoleMulti && a.half.multi[h.Index] != nil:
		return fmt.Errorf("%s channel %d: a second one", h.Role, h.Index)
	}
	return nil
}

// abandon gives up a session of which not every channel came, so that it does
// not keep everybody else out.
func (a *acceptor) abandon(half *session) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.half == half {
		a.log.Warn("migration channels closed: others did not follow", "missing", half.missing(), "peer", peerName(half.main))
		half.close()
		a.half = nil
	}
}

// close closes what nobody will take any more.
func (a *acceptor) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.half != nil {
		a.half.close()
	}
	if a.newest != nil {
		a.newest.close()
	}
}

// next waits for a session.
func (a *acceptor) next(ctx context.Context) (*session, error) {
	select {
	case s := <-a.sessions:
		return s, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
