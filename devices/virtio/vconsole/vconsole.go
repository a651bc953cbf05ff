package vconsole

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"microvm/devices/virtio"
)

// featureSize is VIRTIO_CONSOLE_F_SIZE (section 5.3.3).
const featureSize = 1 << 0

// The queues of port 0 (section 5.3.2).
const (
	queueReceive = iota
	queueTransmit

	queueSize = 64
)

// pieceSize is how much of a request is taken at a time.
const pieceSize = 4 << 10

// A Device is a virtio.Backend.
type Device struct {
	in   input
	out  output
	size atomic.Uint32 // columns, and rows << 16

	received, transmitted virtio.Tally // by, and from, the guest

	// mu guards stopping, which is closed while the transmit queue's worker
	// must not wait.
	mu       sync.Mutex
	stopping chan struct{}

	// The workers'; taken is how much of the next request has been taken.
	rx, tx           virtio.Chain
	rxPiece, txPiece [pieceSize]byte
	taken            uint32
}

// New makes a console that prints to w.
func New(w io.Writer) *Device {
	d := &Device{stopping: make(chan struct{})}
	d.in.init()
	d.out.init(w)
	return d
}

// Resize says what size the terminal has, and reports whether that is news: the
// driver is to be told then.
func (d *Device) Resize(columns, rows uint16) bool {
	v := uint32(columns) | uint32(rows)<<16
	return d.size.Swap(v) != v
}

// Live reports whether there is a driver.
func (d *Device) Live() bool { return d.in.isLive() }

// InputAll gives p to the guest. It returns, and how much that was, once all of it
// is on its way or ctx is done; a device that rests, or a guest that does not read,
// is waited for. One caller at a time.
func (d *Device) InputAll(ctx context.Context, p []byte) (int, error) { return d.in.putAll(ctx, p) }

// Flush waits until everything the guest has sent, and the device has taken, is
// written. The error is the writer's first, or ctx's.
func (d *Device) Flush(ctx context.Context) error {
	if err := d.out.flush(ctx); err != nil {
		return fmt.Errorf("virtio console: flush output: %w", err)
	}
	return nil
}

// Type implements virtio.Backend, as does all that follows.
func (d *Device) Type() uint32 { return virtio.IDConsole }

// Features is SIZE.
func (d *Device) Features() uint64 { return featureSize }

// QueueSizes is queueSize for each.
func (d *Device) QueueSizes() []uint16 { return []uint16{queueSize, queueSize} }

// ReadConfig gives struct virtio_console_config (section 5.3.4): the size, and one
// port.
func (d *Device) ReadConfig(p []byte, off uint64) {
	var c [12]byte
	binary.LittleEndian.PutUint32(c[0:], d.size.Load())
	binary.LittleEndian.PutUint32(c[4:], 1)
	if off < uint64(len(c)) {
		copy(p, c[off:])
	}
}

// WriteConfig does nothing: no field that can be written is offered.
func (d *Device) WriteConfig([]byte, uint64) {}

// Start implements virtio.Backend.
func (d *Device) Start(uint64) {
	d.mu.Lock()
	d.stopping = make(chan struct{})
	d.mu.Unlock()
	d.in.start()
}

// Interrupt implements virtio.Interrupter.
func (d *Device) Interrupt() {
	d.mu.Lock()
	defer d.mu.Unlock()
	select {
	case <-d.stopping:
	default:
		close(d.stopping)
	}
}

// Drain has no more typed.
func (d *Device) Drain() { d.in.stop() }

// Reset forgets what was for a driver that is no more.
func (d *Device) Reset() {
	d.taken = 0
	d.in.reset()
}

// Serve implements virtio.Backend.
func (d *Device) Serve(q *virtio.Queue) error {
	if q.Index() == queueReceive {
		d.in.wake.Store(q)
		return d.serveReceive(q)
	}
	return d.serveTransmit(q)
}

// serveReceive gives the guest what was typed, as long as it has buffers.
func (d *Device) serveReceive(q *virtio.Queue) error {
	for {
		piece := d.in.look(d.rxPiece[:])
		if len(piece) == 0 {
			return nil
		}
		ok, err := q.Next(&d.rx)
		if !ok {
			return err
		}
		if d.rx.WriteLen == 0 {
			return errors.New("a receive buffer without room")
		}
		piece = piece[:min(uint64(len(piece)), d.rx.WriteLen)]
		if err := d.rx.WriteAt(piece, 0); err != nil {
			return err
		}
		d.in.drop(len(piece))
		d.received.Add(uint64(len(piece)), -1, nil)
		if err := q.Push(&d.rx, uint32(len(piece))); err != nil {
			return err
		}
	}
}

// serveTransmit takes what the guest prints, as fast as it is written.
func (d *Device) serveTransmit(q *virtio.Queue) error {
	d.mu.Lock()
	stopping := d.stopping
	d.mu.Unlock()
	for {
		ok, err := q.Next(&d.tx)
		if !ok {
			return err
		}
		all, err := d.transmit(stopping)
		if err != nil {
			return err
		}
		if !all {
			q.Return(1)
			return nil
		}
		d.transmitted.Add(d.tx.ReadLen, -1, nil)
		if err := q.Push(&d.tx, 0); err != nil {
			return err
		}
	}
}

// transmit takes a request, and reports whether all of it.
func (d *Device) transmit(stopping <-chan struct{}) (all bool, err error) {
	for uint64(d.taken) < d.tx.ReadLen {
		piece := d.txPiece[:min(pieceSize, d.tx.ReadLen-uint64(d.taken))]
		if err := d.tx.ReadAt(piece, uint64(d.taken)); err != nil {
			return false, err
		}
		for len(piece) > 0 {
			n := d.out.put(piece)
			d.taken += uint32(n)
			if piece = piece[n:]; n > 0 {
				continue
			}
			select {
			case <-d.out.room:
			case <-stopping:
				return false, nil
			}
		}
	}
	d.taken = 0
	return true, nil
}

// Counts implements virtio.Backend. Bytes that the writer refused are lost.
func (d *Device) Counts() virtio.Counts {
	return virtio.Counts{
		Requests: []virtio.RequestCounts{d.received.Counts("receive"), d.transmitted.Counts("transmit")},
		Counters: map[string]uint64{"lost_bytes": d.out.lost.Load()},
		Gauges:   map[string]uint64{"columns": uint64(d.size.Load() & 0xFFFF), "rows": uint64(d.size.Load() >> 16)},
	}
}

// Close ends the output; what is not written is lost. It does not wait for a
// Write that is under way.
func (d *Device) Close() error {
	d.out.close()
	return nil
}
