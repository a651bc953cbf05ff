package migration

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"microvm/migration/wire"
)

// A rawSource speaks to a destination message by message, in any order.
type rawSource struct {
	t            *testing.T
	main, urgent net.Conn
	multi        []net.Conn
	back         *bufio.Reader
	buf          []byte
}

// open dials a and says hello; it gives what the destination answers.
func open(t *testing.T, a Address, h wire.Hello) (net.Conn, wire.Welcome) {
	t.Helper()
	c := dial(t, a)
	c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write(h.Append(nil)); err != nil {
		t.Fatal(err)
	}
	w, err := wire.ReadWelcome(c)
	if err != nil {
		t.Fatal(err)
	}
	return c, w
}

// helloOf is a proper hello.
func helloOf(id wire.ID, role wire.Role) wire.Hello {
	return wire.Hello{MinVersion: wire.Version, MaxVersion: wire.Version, ID: id, Role: role}
}

// newRawSource opens main and urgent channel to a.
func newRawSource(t *testing.T, a Address) *rawSource {
	t.Helper()
	return newRawMultiSource(t, a, 0)
}

// newRawMultiSource opens multi channels besides.
func newRawMultiSource(t *testing.T, a Address, multi int) *rawSource {
	t.Helper()
	id := newID()
	s := &rawSource{t: t, buf: make([]byte, wire.MaxReturnBody)}
	channel := func(role wire.Role, index int) net.Conn {
		t.Helper()
		h := helloOf(id, role)
		h.Index, h.Multi = uint8(index), uint8(multi)
		c, w := open(t, a, h)
		if w.Version != wire.Version {
			t.Fatalf("%s channel %d refused: %s", role, index, w.Refusal)
		}
		return c
	}
	s.main = channel(wire.RoleMain, 0)
	s.back = bufio.NewReader(s.main)
	// In an order of their own: only main has to be the first.
	for i := range multi {
		s.multi = append(s.multi, channel(wire.RoleMulti, i))
	}
	s.urgent = channel(wire.RoleUrgent, 0)
	return s
}

// send writes to the main channel. A destination that has closed it already
// has its reason, which the test looks at.
func (s *rawSource) send(messages ...[]byte) {
	for _, m := range messages {
		_, _ = s.main.Write(m)
	}
}

// next reads the return path up to a message of the type wanted, and gives its
// body; STATS come when they come.
func (s *rawSource) next(want wire.ReturnType) []byte {
	s.t.Helper()
	for {
		got, body, err := wire.ReadReturn(s.back, s.buf)
		if err != nil {
			s.t.Fatalf("return path: %v; waiting for %v", err, want)
		}
		if got == want {
			return body
		}
		if got != wire.ReturnStats {
			s.t.Fatalf("return path: %v %q; waiting for %v", got, body, want)
		}
	}
}

// closed waits for the destination to close the main channel.
func (s *rawSource) closed() {
	io.Copy(io.Discard, s.back)
}

// config is a CONFIG of the machine that send moves, with a change.
func config(change func(*wire.Config)) []byte {
	machine, _ := json.Marshal(testConfig{Sizes: sentSizes})
	c := wire.Config{
		VM:      "hostile",
		Blocks:  []wire.Block{{Name: "ram0", Size: sentSizes[0], PageSize: 4096}, {Name: "ram1", Size: sentSizes[1], PageSize: 4096}},
		Devices: []wire.Device{{ID: "test0", Version: 1}},
		Machine: machine,
	}
	if change != nil {
		change(&c)
	}
	body, _ := json.Marshal(c)
	return wire.Message(wire.TypeConfig, body)
}

// advise is the ADVISE that goes with config.
func advise(sizes ...uint64) []byte {
	if sizes == nil {
		sizes = []uint64{4096, 4096}
	}
	return wire.Advise{TargetPageSize: wire.PageSize, PageSizes: sizes}.Append(nil)
}

// packageOf is a PACKAGED with these messages.
func packageOf(messages ...[]byte) []byte {
	var blob []byte
	for _, m := range messages {
		blob = append(blob, m...)
	}
	return wire.Message(wire.TypePackaged, blob)
}

var (
	listenMessage = wire.Message(wire.TypeListen, nil)
	runMessage    = wire.Message(wire.TypeRun, nil)
	stateMessage  = wire.DeviceState{ID: "test0", Version: 1, Flags: wire.StateConfig, Data: []byte("state")}.Append(nil)
)

// zeros is a RAM message of count zero pages.
func zeros(block uint16, first uint64, count uint32) []byte {
	return wire.AppendRAM(nil, wire.RAM{Block: block, Kind: wire.KindZero, First: first, Count: count})
}

// Where a hostile source stops to behave.
func (s *rawSource) advised() {
	s.t.Helper()
	s.send(wire.Message(wire.TypeOpenReturnPath, nil), config(nil), advise(), wire.Ping(0))
	s.next(wire.ReturnPong)
}

func (s *rawSource) loaded() {
	s.t.Helper()
	s.advised()
	s.send(packageOf(listenMessage, stateMessage))
	s.next(wire.ReturnLoaded)
}

func (s *rawSource) running() {
	s.t.Helper()
	s.loaded()
	s.send(runMessage)
	s.next(wire.ReturnRunning)
}

// A rawDest answers a source message by message, in any order. What it does
// runs in a goroutine of its own, which ends where the source hangs up.
type rawDest struct {
	main, urgent net.Conn
	in           *bufio.Reader
}

// newRawDest listens, and has script play the destination from the end of the
// hellos on. The connections stay open until the test ends, unless script
// closes them.
func newRawDest(t *testing.T, script func(d *rawDest)) Address {
	t.Helper()
	return rawListener(t, func(ln net.Listener) {
		d := &rawDest{}
		for range 2 {
			c := accept(t, ln)
			h, err := wire.ReadHello(c)
			if err != nil {
				return
			}
			c.Write(wire.Welcome{Version: wire.Version}.Append(nil))
			if h.Role == wire.RoleMain {
				d.main, d.in = c, bufio.NewReader(c)
			} else {
				d.urgent = c
			}
		}
		script(d)
	})
}

// rawListener listens, and has script play the destination from the start.
func rawListener(t *testing.T, script func(ln net.Listener)) Address {
	t.Helper()
	ln, err := Listen(t.Context(), Address{"tcp", "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		script(ln)
	}()
	t.Cleanup(func() {
		ln.Close()
		<-ended
	})
	return ListenAddress(ln)
}

// accept accepts a connection, open until the test ends.
func accept(t *testing.T, ln net.Listener) net.Conn {
	c, err := ln.Accept()
	if err != nil {
		runtime.Goexit()
	}
	c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { c.Close() })
	return c
}

func (d *rawDest) send(messages ...[]byte) {
	for _, m := range messages {
		_, _ = d.main.Write(m)
	}
}

// hangUp ends what is said here, so that the source reads all of it and then the
// end of the stream. To close with something unread would destroy both.
func (d *rawDest) hangUp() {
	_ = d.main.(*net.TCPConn).CloseWrite() // an error is one of a connection that is closed
	_, _ = io.Copy(io.Discard, d.in)
}

// until reads what the source sends up to a message of type t, answering every
// PING before it.
func (d *rawDest) until(t wire.Type) {
	for {
		h, err := wire.ReadHeader(d.in)
		if err != nil {
			runtime.Goexit()
		}
		body, err := wire.ReadBody(d.in, h)
		if err != nil {
			runtime.Goexit()
		}
		if h.Type == t {
			return
		}
		if h.Type == wire.TypePing {
			seq, _ := wire.DecodePing(body)
			d.send(wire.AppendPong(nil, seq))
		}
	}
}

// running goes on to where the guest would run here.
func (d *rawDest) running() {
	d.until(wire.TypePackaged)
	d.send(wire.AppendLoaded(nil, 1))
	d.until(wire.TypeRun)
	d.send(wire.AppendRunning(nil, wire.Running{Time: 1, ResumeNanos: 1}))
}
