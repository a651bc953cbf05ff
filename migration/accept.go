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

// maxGreetings bounds how many connections may be in the middle of their hello
// at once; more wait in the listener's backlog.
const maxGreetings = 16

// session is one set of connections, complete.
type session struct {
	id     wire.ID
	main   net.Conn
	urgent net.Conn
}

func (s *session) close() {
	s.main.Close()
	s.urgent.Close()
}

// acceptor turns whoever connects into a session: one main channel, then the
// urgent channel of the same migration. It goes on for as long as the listener
// is open, so that a stranger or a second source is told why it is refused.
type acceptor struct {
	log      *slog.Logger
	sessions chan *session

	mu   sync.Mutex
	id   wire.ID
	main net.Conn // accepted and waiting for its urgent channel, or in use
	full bool     // the session has been handed out
}

func newAcceptor(log *slog.Logger) *acceptor {
	return &acceptor{log: log, sessions: make(chan *session, 1)}
}

// serve accepts until the listener is closed.
func (a *acceptor) serve(ln net.Listener) error {
	room := make(chan struct{}, maxGreetings)
	for {
		c, err := ln.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return nil
			}
			return fmt.Errorf("accept on %s: %w", ListenAddress(ln), err)
		}
		room <- struct{}{}
		go func() {
			defer func() { <-room }()
			if err := a.greet(c); err != nil {
				a.log.Warn("migration channel refused", "peer", c.RemoteAddr().String(), "error", err)
				c.Close()
			}
		}()
	}
}

// greet reads a hello and answers it. The connection is the acceptor's
// afterwards, unless there is an error.
func (a *acceptor) greet(c net.Conn) error {
	c.SetDeadline(time.Now().Add(helloTimeout))
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
	s, err := a.admit(c, h)
	if err != nil {
		refuse(c, err)
		return err
	}
	tune(c, h.Role)
	if s != nil {
		a.sessions <- s
	}
	return nil
}

// refuse tells the peer why. That it cannot be told is no further problem.
func refuse(c net.Conn, why error) {
	_, _ = c.Write(wire.Welcome{Refusal: why.Error()}.Append(nil))
}

// admit decides about a channel, answers it if it is wanted, and gives the
// session that it completes.
func (a *acceptor) admit(c net.Conn, h wire.Hello) (*session, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case h.Index != 0:
		return nil, fmt.Errorf("%s channel %d: there is only number 0", h.Role, h.Index)
	case h.Role == wire.RoleMain && a.main != nil:
		return nil, errors.New("a migration is under way here already; only one VM can be received at a time")
	case h.Role == wire.RoleUrgent && a.main == nil:
		return nil, errors.New("an urgent channel before its main channel")
	case h.Role == wire.RoleUrgent && h.ID != a.id:
		return nil, errors.New("a channel of another migration")
	case h.Role == wire.RoleUrgent && a.full:
		return nil, errors.New("a second urgent channel")
	case h.Role != wire.RoleMain && h.Role != wire.RoleUrgent:
		return nil, fmt.Errorf("%s is unknown to this version (%d)", h.Role, wire.Version)
	}
	if _, err := c.Write(wire.Welcome{Version: wire.Version}.Append(nil)); err != nil {
		return nil, err
	}
	c.SetDeadline(time.Time{})
	if h.Role == wire.RoleMain {
		a.id, a.main = h.ID, c
		time.AfterFunc(helloTimeout, func() { a.abandon(c) })
		return nil, nil
	}
	a.full = true
	return &session{id: h.ID, main: a.main, urgent: c}, nil
}

// abandon gives up a main channel whose urgent channel never came, so that it
// does not keep everybody else out.
func (a *acceptor) abandon(c net.Conn) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.main == c && !a.full {
		a.log.Warn("migration channel closed: its urgent channel did not follow", "peer", c.RemoteAddr().String())
		c.Close()
		a.main = nil
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
