package migration

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
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
	resumed bool // goes on with a migration whose connections broke
}

func (s *session) close() {
	s.main.Close()
	s.urgent.Close()
}

// acceptor turns whoever connects into a session: one main channel, then the
// urgent channel of the same migration. It goes on for as long as the listener
// is open, so that a stranger or a second source is told why it is refused, and
// so that the one source may come back when its connections broke. That it
// dials again says that they did, even if this side has not noticed.
type acceptor struct {
	log      *slog.Logger
	sessions chan *session // holds one: the newest that nobody has taken yet

	mu       sync.Mutex
	id       wire.ID
	main     net.Conn // accepted and waiting for its urgent channel, or in use
	resuming bool     // main was opened to go on
	begun    bool     // a session of id has been handed out
	newest   *session // the last one handed out
}

func newAcceptor(log *slog.Logger) *acceptor {
	return &acceptor{log: log, sessions: make(chan *session, 1)}
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
				c.Close()
			}
		}()
	}
}

// greet reads a hello and answers it. The connection is the acceptor's
// afterwards, unless there is an error.
func (a *acceptor) greet(c net.Conn) error {
	c.SetDeadline(time.Now().Add(greetTimeout))
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
	if err := a.admit(c, h); err != nil {
		refuse(c, err)
		return err
	}
	return nil
}

// refuse tells the peer why. That it cannot be told is no further problem.
func refuse(c net.Conn, why error) {
	_, _ = c.Write(wire.Welcome{Refusal: why.Error()}.Append(nil))
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
	tune(c, h.Role)
	if h.Role == wire.RoleMain {
		if a.newest != nil {
			a.newest.close()
		}
		if a.main != nil {
			a.main.Close()
		}
		a.id, a.main, a.resuming = h.ID, c, h.Resume
		time.AfterFunc(greetTimeout, func() { a.abandon(c) })
		return nil
	}
	a.newest = &session{id: h.ID, main: a.main, urgent: prompt(c), resumed: h.Resume}
	a.begun, a.main = true, nil
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
	case h.Role != wire.RoleMain && h.Role != wire.RoleUrgent:
		return fmt.Errorf("%s is unknown to this version (%d)", h.Role, wire.Version)
	case h.Index != 0:
		return fmt.Errorf("%s channel %d: there is only number 0", h.Role, h.Index)
	case h.Role == wire.RoleMain && h.Resume && !(a.begun && h.ID == a.id):
		return errors.New("no migration of that id is under way here")
	case h.Role == wire.RoleMain && !h.Resume && (a.begun || a.main != nil):
		return errors.New("a migration is under way here already; only one VM can be received at a time")
	case h.Role == wire.RoleUrgent && a.main == nil:
		return errors.New("an urgent channel without its main channel, or a second one")
	case h.Role == wire.RoleUrgent && (h.ID != a.id || h.Resume != a.resuming):
		return errors.New("a channel of another migration")
	}
	return nil
}

// abandon gives up a main channel whose urgent channel never came, so that it
// does not keep everybody else out.
func (a *acceptor) abandon(c net.Conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.main == c {
		a.log.Warn("migration channel closed: its urgent channel did not follow", "peer", peerName(c))
		c.Close()
		a.main = nil
	}
}

// close closes what nobody will take any more.
func (a *acceptor) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.main != nil {
		a.main.Close()
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
