package vsock

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"microvm/devices/virtio"
)

// featureStream is VIRTIO_VSOCK_F_STREAM (section 5.10.3).
const featureStream = 1 << 0

// The queues (section 5.10.2).
const (
	queueReceive = iota
	queueTransmit
	queueEvent

	queueSize = 256
)

const (
	// MaxConnections is how many a guest has at most, in both directions.
	MaxConnections = 1024
	// fullWindow is how much a guest may send on a connection before the host
	// has taken it, in bytes; smallWindow the same for one that is made while
	// there are manyConnections.
	fullWindow      = 256 << 10
	smallWindow     = 64 << 10
	manyConnections = 64
	// maxPacket is how much payload a packet to the guest has.
	maxPacket = 64 << 10
	// maxOrphans is how many answers to packets of no connection wait.
	maxOrphans = 256

	// firstPort is where the ports of host programs that connect begin; they end
	// before anyPort, which is no port (VMADDR_PORT_ANY).
	firstPort = 1 << 30
	anyPort   = 1<<32 - 1

	// handshakeTime is how long a host program may take to say what it wants,
	// and then the guest to answer; closingTime how long a guest may take
	// until it has done with a connection that the host has closed.
	handshakeTime = 10 * time.Second
	closingTime   = 30 * time.Second
	// lingerTime is how long Close waits for the host's programs to take what
	// the guest has sent them.
	lingerTime = time.Second
)

// Options say which guest it is, and where the host's programs find it.
type Options struct {
	CID uint64 // MinCID to MaxCID
	// Path is that of the unix socket; a guest that connects to port P gets
	// to whoever listens at Path_P.
	Path string
	Log  *slog.Logger

	// Other than handshakeTime and closingTime, for tests.
	handshake, closing time.Duration
}

// key names a connection: the guest's port and the host's.
type key struct{ guest, host uint32 }

// A Device is a virtio.Backend.
type Device struct {
	options Options
	counts  counters

	rx work // the receive queue's worker's
	tx work // the transmit queue's worker's
	// receive is the receive queue, once there is a worker.
	receive atomic.Pointer[virtio.Queue]

	mu sync.Mutex
	// listener is nil while no program can connect; guarded by mu, as all
	// below.
	listener *net.UnixListener
	greeting map[*net.UnixConn]struct{} // that have not said yet what they want
	conns    map[key]*conn
	closing  map[*conn]struct{} // whose last bytes the host has not taken
	slots    int                // of MaxConnections, those in use
	nextPort uint32
	ready    list     // connections that have something for the guest
	orphans  []header // answers to packets of no connection
	receiver receiverState
	notice   notice

	// told: the driver is to read its CID; a copy of notice.sent for vCPUs.
	told atomic.Bool
}

// work is what a worker uses again and again.
type work struct {
	chain   virtio.Chain
	header  [headerSize]byte
	vectors []unix.Iovec
}

// New makes a device that no program can connect to: see Listen.
func New(o Options) (*Device, error) {
	if o.CID < MinCID || o.CID > MaxCID {
		return nil, fmt.Errorf("vsock: CID %d: has to be %d to %d", o.CID, MinCID, MaxCID)
	}
	if o.handshake == 0 {
		o.handshake, o.closing = handshakeTime, closingTime
	}
	d := &Device{
		options: o, nextPort: firstPort,
		greeting: map[*net.UnixConn]struct{}{}, conns: map[key]*conn{}, closing: map[*conn]struct{}{},
		notice: notice{over: make(chan struct{})},
	}
	close(d.notice.over)
	return d, nil
}

// Type implements virtio.Backend, as does all that follows.
func (d *Device) Type() uint32 { return virtio.IDVsock }

// Features is STREAM.
func (d *Device) Features() uint64 { return featureStream }

// QueueSizes is queueSize for each.
func (d *Device) QueueSizes() []uint16 { return []uint16{queueSize, queueSize, queueSize} }

// ReadConfig gives struct virtio_vsock_config (section 5.10.4): the CID.
func (d *Device) ReadConfig(p []byte, off uint64) {
	var c [8]byte
	binary.LittleEndian.PutUint64(c[:], d.options.CID)
	if off < uint64(len(c)) {
		copy(p, c[off:])
	}
	d.cidRead()
}

// WriteConfig does nothing: there is nothing to write.
func (d *Device) WriteConfig([]byte, uint64) {}

// Serve implements virtio.Backend.
func (d *Device) Serve(q *virtio.Queue) error {
	switch q.Index() {
	case queueReceive:
		d.receive.Store(q)
		return d.serveReceive(q)
	case queueTransmit:
		return d.serveTransmit(q)
	default:
		return d.serveEvents(q)
	}
}

// Drain has nothing to wait for: the workers push what they take.
func (d *Device) Drain() {}

// Reset forgets the connections of a driver that is no more.
func (d *Device) Reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.conns {
		d.finish(c, false)
	}
	d.orphans = d.orphans[:0]
	d.notice.due = false
	d.endNotice()
}

// Version is that of SaveState's format.
func (d *Device) Version() uint16 { return 1 }

// SaveState writes 16 bytes, little-endian:
//
//	0 8 the guest's CID
//	8 4 the port that the next host program gets that connects
//	12 4 1 if the driver has to be told of a TRANSPORT_RESET, else 0
//
// The connections are no part of it. The port goes on at the destination, so
// that a packet of an old connection is not taken for one of a new one.
func (d *Device) SaveState() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	le := binary.LittleEndian
	b := le.AppendUint64(nil, d.options.CID)
	b = le.AppendUint32(b, d.nextPort)
	var reset uint32
	if d.notice.due {
		reset = 1
	}
	return le.AppendUint32(b, reset), nil
}

// LoadState has the driver told that its connections are gone.
func (d *Device) LoadState(b []byte) error {
	le := binary.LittleEndian
	if len(b) != 16 {
		return fmt.Errorf("vsock: state: %d bytes, want 16", len(b))
	}
	cid, port, reset := le.Uint64(b), le.Uint32(b[8:]), le.Uint32(b[12:])
	switch {
	case cid != d.options.CID:
		return fmt.Errorf("vsock: state: CID %d, this device has %d", cid, d.options.CID)
	case port < firstPort || port == anyPort:
		return fmt.Errorf("vsock: state: next port %d: has to be %d to %d", port, firstPort, anyPort-1)
	case reset > 1:
		return fmt.Errorf("vsock: state: reset %d: has to be 0 or 1", reset)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.nextPort = port
	d.setNotice()
	return nil
}

// Close ends every connection, after a moment for the host's programs to take
// what the guest has sent.
func (d *Device) Close() error {
	err := d.Leave()
	late := time.Now().Add(lingerTime)
	for {
		d.mu.Lock()
		n := len(d.closing)
		if n == 0 || time.Now().After(late) {
			for c := range d.closing {
				c.out.abort()
			}
			d.mu.Unlock()
			return err
		}
		d.mu.Unlock()
		time.Sleep(time.Millisecond)
	}
}
