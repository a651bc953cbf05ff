package vsock

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"microvm/devices/virtio/virtiotest"
)

func TestAProgramOfTheHostReachesTheGuest(t *testing.T) {
	r := newRig(t)
	if got := r.Config(0, 8); !bytes.Equal(got, []byte{guestCID, 0, 0, 0, 0, 0, 0, 0}) {
		t.Errorf("CID %v", got)
	}
	c := r.dial("CONNECT 52\nhello")
	h := r.expect(opRequest)
	if h.dstPort != 52 || h.srcPort < firstPort || h.kind != typeStream || h.bufAlloc == 0 {
		t.Fatalf("request %+v", h)
	}
	l := &link{r: r, guest: 52, host: h.srcPort, window: 4096}
	l.do(opResponse, 0)
	if got := read(t, c, 14); string(got) != "OK 1073741824\n" {
		t.Errorf("%q", got)
	}
	if got := l.read(5); string(got) != "hello" {
		t.Errorf("the guest got %q", got)
	}
	l.write([]byte("world"))
	if got := read(t, c, 5); string(got) != "world" {
		t.Errorf("the program got %q", got)
	}
	// A second one has a port of its own.
	r.dial("connect 52\r\n")
	if second := r.expect(opRequest); second.srcPort == h.srcPort {
		t.Error("two connections are one")
	}
	// The program goes: the guest hears of it, and says that it has heard.
	c.Close()
	for flags := uint32(0); flags != shutBoth; {
		flags = r.expect(opShutdown).flags
	}
	l.do(opReset, 0)
	r.counted(map[string]uint64{"from_host": 1, "rx_bytes": 5, "tx_bytes": 5, "resets": 0, "errors": 0, "connections": 1})
}

func TestTheGuestReachesAProgramOfTheHost(t *testing.T) {
	r := newRig(t)
	l, c := r.pair(80)
	l.write([]byte("GET /"))
	if got := read(t, c, 5); string(got) != "GET /" {
		t.Errorf("%q", got)
	}
	if _, err := io.WriteString(c, "200"); err != nil {
		t.Fatal(err)
	}
	if got := l.read(3); string(got) != "200" {
		t.Errorf("%q", got)
	}
	// The guest closes: the program has all of it, and the end.
	l.write([]byte("bye"))
	l.do(opShutdown, shutBoth)
	r.expect(opReset)
	if got := read(t, c, 3); string(got) != "bye" {
		t.Errorf("%q", got)
	}
	ends(t, c)
	r.counted(map[string]uint64{"from_guest": 1, "connections": 0, "resets": 0})
}

// TestEachDirectionEndsByItself: a program, or the guest, that sends no more may
// still be answered.
func TestEachDirectionEndsByItself(t *testing.T) {
	r := newRig(t)
	l, c := r.pair(80)
	l.write([]byte("question"))
	l.do(opShutdown, shutSend)
	if got, err := io.ReadAll(io.LimitReader(c, 100)); err != nil || string(got) != "question" {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := io.WriteString(c, "answer"); err != nil {
		t.Fatal(err)
	}
	if got := l.read(6); string(got) != "answer" {
		t.Errorf("%q", got)
	}
	c.Close()
	for flags := uint32(0); flags != shutBoth; {
		flags = r.expect(opShutdown).flags
	}
	l.do(opReset, 0)

	l, c = r.pair(81)
	if _, err := io.WriteString(c, "question"); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	l.read(8)
	if h := r.expect(opShutdown); h.flags != shutSend {
		t.Errorf("flags %d", h.flags)
	}
	l.write([]byte("answer"))
	if got := read(t, c, 6); string(got) != "answer" {
		t.Errorf("%q", got)
	}
	// One that does not listen any more.
	if err := c.CloseRead(); err != nil {
		t.Fatal(err)
	}
	l.write([]byte("lost"))
	if h := r.expect(opShutdown); h.flags != shutBoth {
		t.Errorf("flags %d", h.flags)
	}
	l.do(opReset, 0)

	// The guest does not receive any more.
	l, c = r.pair(82)
	l.do(opShutdown, shutReceive)
	virtiotest.Until(t, "the program cannot write", func() bool {
		_, err := io.WriteString(c, "x")
		return errors.Is(err, unix.EPIPE)
	})
}

func TestNobodyThereIsSaidAtOnce(t *testing.T) {
	r := newRig(t)
	// No program listens.
	l := &link{r: r, guest: 7, host: 99, window: 1}
	l.do(opRequest, 0)
	r.expect(opReset)
	// Nobody in the guest does.
	c := r.dial("CONNECT 52\n")
	h := r.expect(opRequest)
	l = &link{r: r, guest: 52, host: h.srcPort}
	l.do(opReset, 0)
	ends(t, c)
	// The program asks for something else.
	for _, greeting := range []string{"CONNECT\n", "CONNECT x\n", "CONNECT 4294967296\n", "GET / HTTP/1.1\n", strings.Repeat("x", maxGreeting), "\n"} {
		ends(t, r.dial(greeting))
	}
	r.counted(map[string]uint64{"refused": 8, "connections": 0})
}

// TestAWaitEnds for who does not answer.
func TestAWaitEnds(t *testing.T) {
	r := newRigWith(t, Options{handshake: 50 * time.Millisecond, closing: 50 * time.Millisecond})
	ends(t, r.dial("CONN"))
	c := r.dial("CONNECT 1\n")
	r.expect(opRequest)
	r.expect(opReset)
	ends(t, c)
	// The guest does not let go of a connection that the host has closed.
	_, c = r.pair(80)
	c.Close()
	h := r.expect(opShutdown)
	for h.op == opShutdown {
		h, _ = r.receive()
	}
	if h.op != opReset {
		t.Errorf("%+v", h)
	}
	virtiotest.Until(t, "all slots are free", func() bool { return r.d.open() == 0 })
}

// TestASlowProgramHoldsUpNoOther: what it does not take is kept as far as its
// window goes, the guest is told of no more, and others go on.
func TestASlowProgramHoldsUpNoOther(t *testing.T) {
	r := newRig(t)
	slow, sleeper := r.pair(80)
	quick, c := r.pair(81)
	content := make([]byte, 3*fullWindow)
	rand.NewChaCha8([32]byte{2}).Read(content)
	// All that it may: what the socket takes, and a window's worth.
	out := &r.d.conns[key{slow.guest, slow.host}].out
	at := 0
	for slow.sent-out.forwarded.Load()+32<<10 <= slow.theirs {
		slow.write(content[at : at+32<<10])
		at += 32 << 10
	}
	if at <= fullWindow {
		t.Fatalf("%d bytes: the socket took none", at)
	}
	for i := range 100 {
		quick.write([]byte{byte(i)})
		if got := read(t, c, 1); got[0] != byte(i) {
			t.Fatalf("%d, want %d", got[0], i)
		}
	}
	if got := read(t, sleeper, at); !bytes.Equal(got, content[:at]) {
		t.Error("the slow program got something else")
	}
	// The guest hears that there is room again.
	for slow.sent-slow.forwarded >= fullWindow/4 {
		slow.forwarded = r.expect(opCreditUpdate).fwdCnt
	}
	// The last bytes of a connection that the guest has closed, and of a guest
	// that is no more, arrive.
	rest := content[at : at+64<<10]
	slow.write(rest[:32<<10])
	slow.write(rest[32<<10:])
	slow.do(opShutdown, shutBoth)
	r.mmio.Device().Hold()
	left := make(chan error, 1)
	go func() { left <- r.d.Leave() }()
	if got := read(t, sleeper, len(rest)); !bytes.Equal(got, rest) {
		t.Error("the last bytes are others")
	}
	ends(t, sleeper)
	ends(t, c)
	if err := <-left; err != nil {
		t.Error(err)
	}
}

// TestASlowGuestHoldsUpNoOther: without credit, nothing of a connection is read.
func TestASlowGuestHoldsUpNoOther(t *testing.T) {
	r := newRig(t)
	p := r.program(80)
	slow := &link{r: r, guest: 1, host: 80, window: 100}
	slow.do(opRequest, 0)
	r.expect(opResponse)
	flood := r.accept(p)
	quick, c := r.pair(81)
	content := bytes.Repeat([]byte("0123456789"), 25)
	if _, err := flood.Write(content); err != nil {
		t.Fatal(err)
	}
	got := []byte(nil)
	for len(got) < 100 {
		h, b := r.receive()
		if h.op != opRW || h.srcPort != 80 {
			t.Fatalf("%+v", h)
		}
		got = append(got, b...)
	}
	if h := r.expect(opCreditRequest); h.srcPort != 80 || len(got) != 100 {
		t.Fatalf("%+v after %d bytes", h, len(got))
	}
	for range 10 {
		if _, err := io.WriteString(c, "x"); err != nil {
			t.Fatal(err)
		}
		quick.read(1)
	}
	slow.taken = 100
	slow.window = 4096
	slow.do(opCreditUpdate, 0)
	if got = append(got, slow.read(150)...); !bytes.Equal(got, content) {
		t.Error("the guest got something else")
	}
}

// TestTooManyConnectionsAreRefused in both directions, and none of those that
// there are is harmed.
func TestTooManyConnectionsAreRefused(t *testing.T) {
	r := newRig(t)
	p := r.program(80)
	var programs []net.Conn
	links := make([]*link, MaxConnections)
	for i := range links {
		links[i] = &link{r: r, guest: uint32(i), host: 80, window: 4096}
		links[i].do(opRequest, 0)
		if h := r.expect(opResponse); h.bufAlloc != fullWindow && h.bufAlloc != smallWindow {
			t.Fatal(h)
		}
		programs = append(programs, r.accept(p))
	}
	(&link{r: r, guest: MaxConnections, host: 80}).do(opRequest, 0)
	r.expect(opReset)
	ends(t, r.dial(""))
	for i := 0; i < MaxConnections; i += 111 {
		links[i].write([]byte{1})
		read(t, programs[i], 1)
	}
	links[5].do(opReset, 0)
	ends(t, programs[5])
	links[5].do(opRequest, 0)
	r.expect(opResponse)
}
