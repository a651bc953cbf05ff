package vsock

import (
	"errors"
	"io"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"microvm/devices/virtio"
	"microvm/devices/virtio/virtiotest"
)

const (
	guestCID = 42
	ramSize  = 8 << 20
	// Where the driver's buffers are: those to receive in, one by one, and one
	// to send from.
	rxArena, rxRoom = 1 << 20, headerSize + 4096
	txArena         = 4 << 20
	patience        = 20 * time.Second
)

// rig is a device on a machine without vCPUs, and its driver.
type rig struct {
	*virtiotest.Driver
	d       *Device
	mmio    *virtio.MMIO
	path    string
	rx, tx  *virtiotest.Queue
	event   *virtiotest.Queue
	buffers map[uint16]uint64 // where the receive buffers are, by head
}

func newMMIO(t testing.TB, o Options) (*virtio.MMIO, *Device, *virtiotest.Driver) {
	t.Helper()
	mem, _ := virtiotest.NewMemory(t, ramSize)
	irq := virtiotest.NewIRQ()
	log := slog.New(slog.DiscardHandler)
	o.CID, o.Log = guestCID, log
	d, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	m := virtiotest.NewMMIO(t, "vsock0", d, mem, irq, log)
	return m, d, virtiotest.NewDriver(t, m, mem, 4096, irq)
}

// listen lets programs connect.
func listen(t testing.TB, d *Device, path string) {
	t.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	d.Listen(l)
}

func newRig(t testing.TB) *rig {
	t.Helper()
	return newRigWith(t, Options{})
}

func newRigWith(t testing.TB, o Options) *rig {
	t.Helper()
	path := filepath.Join(t.TempDir(), "v")
	o.Path = path
	m, d, driver := newMMIO(t, o)
	r := &rig{Driver: driver, d: d, mmio: m, path: path}
	listen(t, d, path)
	m.Device().Release()
	r.init(64)
	return r
}

// init has a driver come, with so many buffers to receive in.
func (r *rig) init(buffers int) {
	r.T.Helper()
	r.Init(r.Offered())
	r.rx, r.tx, r.event = r.NewQueue(queueReceive, 128), r.NewQueue(queueTransmit, 16), r.NewQueue(queueEvent, 16)
	r.OK()
	r.buffers = map[uint16]uint64{}
	for i := range buffers {
		r.post(rxArena + uint64(i)*rxRoom)
	}
	r.rx.Kick()
}

// post makes a buffer available to receive in.
func (r *rig) post(base uint64) {
	head, _ := r.rx.Add(base, 0, -1, virtiotest.Buf{Room: rxRoom})
	r.buffers[head] = base
}

// send sends a packet and waits until the device has taken it.
func (r *rig) send(h header, payload []byte) {
	r.T.Helper()
	var b [headerSize]byte
	h.put(&b)
	r.tx.Do(txArena, virtiotest.Buf{Data: append(b[:], payload...)})
}

// receive waits for a packet.
func (r *rig) receive() (header, []byte) {
	r.T.Helper()
	head, written, data := r.rx.Wait()
	return r.received(head, written, data)
}

func (r *rig) received(head uint16, written uint32, data []byte) (header, []byte) {
	r.T.Helper()
	h := parseHeader((*[headerSize]byte)(data))
	if h.length+headerSize != written || h.srcCID != hostCID && h.op != opReset || h.dstCID != guestCID {
		r.T.Fatalf("%d bytes of a packet %+v", written, h)
	}
	base := r.buffers[head]
	delete(r.buffers, head)
	r.post(base)
	r.rx.Kick()
	return h, data[headerSize:written]
}

// expect waits for a packet of an operation.
func (r *rig) expect(op uint16) header {
	r.T.Helper()
	h, payload := r.receive()
	if h.op != op || len(payload) > 0 {
		r.T.Fatalf("operation %d with %d bytes came, want %d", h.op, len(payload), op)
	}
	return h
}

// link is one connection as the guest has it.
type link struct {
	r                 *rig
	guest, host       uint32
	window            uint32 // of the guest
	taken             uint32 // by the guest
	sent              uint32
	theirs, forwarded uint32 // the device's window, and what it has taken
}

func (l *link) header(op uint16) header {
	return header{
		srcCID: guestCID, dstCID: hostCID, srcPort: l.guest, dstPort: l.host, kind: typeStream, op: op,
		bufAlloc: l.window, fwdCnt: l.taken,
	}
}

func (l *link) do(op uint16, flags uint32) {
	l.r.T.Helper()
	h := l.header(op)
	h.flags = flags
	l.r.send(h, nil)
}

func (l *link) write(p []byte) {
	l.r.T.Helper()
	h := l.header(opRW)
	h.length = uint32(len(p))
	l.sent += h.length
	l.r.send(h, p)
}

// read waits for n bytes, and takes them at once.
func (l *link) read(n int) (all []byte) {
	l.r.T.Helper()
	for len(all) < n {
		h, p := l.r.receive()
		switch h.op {
		case opRW:
			all = append(all, p...)
			l.taken += h.length
			l.do(opCreditUpdate, 0)
		case opCreditUpdate:
		case opCreditRequest:
			l.do(opCreditUpdate, 0)
		default:
			l.r.T.Fatalf("operation %d after %d bytes of %d", h.op, len(all), n)
		}
	}
	return all
}

// connect is the guest's to a port of the host where a program listens.
func (r *rig) connect(port uint32) *link {
	r.T.Helper()
	l := &link{r: r, guest: 1000 + port, host: port, window: 64 << 10}
	l.do(opRequest, 0)
	h := r.expect(opResponse)
	if h.srcPort != port || h.dstPort != l.guest || h.bufAlloc == 0 {
		r.T.Fatalf("response %+v", h)
	}
	l.theirs = h.bufAlloc
	return l
}

// program listens for the guest at a port.
func (r *rig) program(port uint32) *net.UnixListener {
	r.T.Helper()
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: r.path + "_" + strconv.Itoa(int(port)), Net: "unix"})
	if err != nil {
		r.T.Fatal(err)
	}
	r.T.Cleanup(func() { l.Close() })
	return l
}

func (r *rig) accept(l *net.UnixListener) *net.UnixConn {
	r.T.Helper()
	return r.impatient(l.AcceptUnix())
}

// impatient is a connection that a test does not wait for for ever.
func (r *rig) impatient(c *net.UnixConn, err error) *net.UnixConn {
	r.T.Helper()
	if err == nil {
		err = c.SetDeadline(time.Now().Add(patience))
	}
	if err != nil {
		r.T.Fatal(err)
	}
	r.T.Cleanup(func() { c.Close() })
	return c
}

// pair is a connection that the guest has made, and the program's end.
func (r *rig) pair(port uint32) (*link, *net.UnixConn) {
	r.T.Helper()
	l := r.program(port)
	link := r.connect(port)
	return link, r.accept(l)
}

// dial is a program of the host that connects.
func (r *rig) dial(greeting string) *net.UnixConn {
	r.T.Helper()
	c := r.impatient(net.DialUnix("unix", nil, &net.UnixAddr{Name: r.path, Net: "unix"}))
	if _, err := io.WriteString(c, greeting); err != nil {
		r.T.Fatal(err)
	}
	return c
}

// read reads n bytes of a program's connection.
func read(t testing.TB, c net.Conn, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	return b
}

// ends checks that a program's connection has nothing more.
func ends(t testing.TB, c net.Conn) {
	t.Helper()
	var b [1]byte
	n, err := c.Read(b[:])
	if n > 0 || err == nil || errors.Is(err, net.ErrClosed) {
		t.Fatalf("%d bytes, %v, want the end", n, err)
	}
	var late net.Error
	if errors.As(err, &late) && late.Timeout() {
		t.Fatal("it does not end")
	}
}

// counted checks counts: of the two sorts of packets, by name, and connections.
func (r *rig) counted(want map[string]uint64) {
	r.T.Helper()
	c := r.d.Counts()
	rx, tx := c.Of("receive"), c.Of("transmit")
	have := map[string]uint64{
		"rx_bytes": rx.Bytes, "tx_bytes": tx.Bytes, "errors": tx.Errors, "connections": c.Gauges["connections"],
	}
	maps.Copy(have, c.Counters)
	for name, n := range want {
		if have[name] != n {
			r.T.Errorf("%s is %d, want %d: %v", name, have[name], n, have)
		}
	}
}
