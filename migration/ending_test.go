package migration

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"testing"

	"microvm/migration/wire"
)

// The stages before POSTCOPY_RUN at which a destination can keep a source
// waiting.
var stages = []struct {
	name string
	hold func(t *testing.T, l *ledger) (addr Address, reached <-chan struct{}, let func())
}{
	{"hello", func(t *testing.T, l *ledger) (Address, <-chan struct{}, func()) {
		reached, release := make(chan struct{}), make(chan struct{})
		addr := rawListener(t, func(ln net.Listener) {
			accept(t, ln)
			close(reached)
			<-release
		})
		return addr, reached, func() { close(release) }
	}},
	{"build", func(t *testing.T, l *ledger) (Address, <-chan struct{}, func()) {
		reached, release := make(chan struct{}), make(chan struct{})
		build, _ := builderOf(t, nil)
		r := receiveWith(t, l, DestinationOptions{}, func(ctx context.Context, config []byte) (DestinationMachine, error) {
			close(reached)
			<-release
			return build(ctx, config)
		})
		return r.addr, reached, func() { close(release) }
	}},
	{"load", func(t *testing.T, l *ledger) (Address, <-chan struct{}, func()) {
		reached, release := make(chan struct{}), make(chan struct{})
		r := receive(t, l, func(m *testMachine) {
			m.device.touch = func() error { close(reached); <-release; return nil }
		})
		return r.addr, reached, func() { close(release) }
	}},
}

func TestRunEndsWithItsContextBeforeRunOnly(t *testing.T) {
	for _, stage := range stages {
		t.Run(stage.name, func(t *testing.T) {
			l := &ledger{}
			addr, reached, let := stage.hold(t, l)
			s := send(t, l, addr, Options{})
			var cancel context.CancelFunc
			s.ctx, cancel = context.WithCancel(s.ctx)
			defer cancel()
			wait := s.start()
			<-reached
			cancel()
			if err := wait(); !errors.Is(err, context.Canceled) {
				t.Errorf("Run: %v", err)
			}
			let()
			s.stayed()
		})
	}
}

// The destination has RUN, the source does not know yet what it did with it.
func TestNothingStopsAMigrationAfterRun(t *testing.T) {
	l := &ledger{}
	r := receive(t, l, nil)
	var s *sender
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	_, addr := newProxy(t, r.addr, func(at point, message []byte) (int, bool) {
		if at.name == "RUNNING" {
			cancel()
			if err := s.source.Cancel(); err == nil {
				t.Error("Cancel is not refused after POSTCOPY_RUN")
			}
		}
		return len(message), false
	})
	s = send(t, l, addr, Options{})
	s.ctx = ctx
	if err := s.run(); err != nil {
		t.Errorf("Run: %v", err)
	}
	if err := r.wait(); err != nil {
		t.Errorf("Receive: %v", err)
	}
	if l.ran != 1 || l.stopped != 0 || l.resumed != 0 {
		t.Errorf("%+v", l)
	}
	if err := s.source.Cancel(); err == nil {
		t.Error("Cancel is not refused after the end")
	}
}

func TestGiveUpIsForBeforeRunOnly(t *testing.T) {
	t.Run("before", func(t *testing.T) {
		l := &ledger{}
		r := receive(t, l, nil)
		s := newRawSource(t, r.addr)
		s.loaded()
		if !r.dest.GiveUp() {
			t.Error("GiveUp is refused")
		}
		s.send(runMessage)
		if err := r.wait(); !errors.Is(err, ErrGivenUp) || l.ran != 0 {
			t.Errorf("Receive: %v; ran %d times", err, l.ran)
		}
	})
	t.Run("nobody came", func(t *testing.T) {
		r := receive(t, &ledger{}, nil)
		r.dest.GiveUp()
		if err := r.wait(); !errors.Is(err, ErrGivenUp) {
			t.Errorf("Receive: %v", err)
		}
	})
	t.Run("after", func(t *testing.T) {
		l := &ledger{}
		r := receive(t, l, nil)
		s := newRawSource(t, r.addr)
		s.running()
		if r.dest.GiveUp() {
			t.Error("GiveUp is not refused while the guest runs")
		}
		s.send(zeros(0, 0, 256), zeros(1, 0, 1))
		s.urgent.Write(wire.Complete{}.Append(nil))
		s.send(wire.Complete{}.Append(nil))
		s.next(wire.ReturnShut)
		s.main.Close()
		if err := r.wait(); err != nil || l.stopped != 0 {
			t.Errorf("Receive: %v; stopped %d times", err, l.stopped)
		}
	})
}

// shutListener gives connections that call shut once SHUT has been written.
type shutListener struct {
	net.Listener
	shut func()
}

func (l shutListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return shutConn{c, l.shut}, err
}

type shutConn struct {
	net.Conn
	shut func()
}

func (c shutConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	if n == 8 && wire.ReturnType(binary.BigEndian.Uint16(b)) == wire.ReturnShut {
		c.shut()
	}
	return n, err
}

// The source has heard SHUT 0 and forgets the guest: nobody else has it.
func TestAGuestThatHasArrivedIsNotStoppedByACancel(t *testing.T) {
	l := &ledger{}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ln, err := Listen(ctx, Address{"tcp", "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	d := NewDestination(buildOwned(t, l, nil), DestinationOptions{Log: quietLog(t)})
	done := make(chan error, 1)
	go func() { done <- d.Receive(ctx, shutListener{ln, cancel}) }()
	s := send(t, l, ListenAddress(ln), Options{})
	if err := s.run(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("Receive: %v", err)
	}
	if l.stopped != 0 {
		t.Error("the guest was stopped")
	}
}
