package blk

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"

	"microvm/devices/virtio"
)

// Feature bits (section 5.2.3).
const (
	featureSegMax      = 1 << 2
	featureReadOnly    = 1 << 5
	featureBlockSize   = 1 << 6
	featureFlush       = 1 << 9
	featureTopology    = 1 << 10
	featureQueues      = 1 << 12
	featureDiscard     = 1 << 13
	featureWriteZeroes = 1 << 14
)

const (
	queueSize = 256
	// maxSegments leaves room for the header and the status.
	maxSegments = queueSize - 2

	// Limits of discard and write-zeroes: how many ranges a request may
	// have, and how long each.
	maxRanges       = 32
	maxRangeSectors = 1 << 22

	// underWay is how many requests may have been taken and not done, a
	// power of 2; workers how many of them the pool does at once.
	underWay = 128
	workers  = 16

	// MaxQueues is how many queues a disk can have.
	MaxQueues = 16
	// MaxSerial is how long a serial number can be.
	MaxSerial = 20
)

// Options say how a disk looks to the guest.
type Options struct {
	Serial string // at most MaxSerial bytes, or empty
	Queues int    // 1 to MaxQueues
	Log    *slog.Logger

	noRing bool // for tests: do without an io_uring
}

// A Disk is a virtio.Backend with an image behind it.
type Disk struct {
	image   *Image
	options Options
	sectors atomic.Uint64 // the capacity that the driver is told

	// durable: the driver does not flush, so each write has to last.
	durable atomic.Bool

	requests []*request // all there are, by index
	free     chan *request
	work     chan *request  // what the pool is to do; room for all
	engine   *engine        // nil if there is no io_uring
	pending  sync.WaitGroup // requests taken and not pushed
	pool     sync.WaitGroup
	counts   counters
}

// NewDisk makes a disk of an image, which is the disk's to close from then on.
func NewDisk(image *Image, o Options) (*Disk, error) {
	if o.Queues < 1 || o.Queues > MaxQueues {
		return nil, fmt.Errorf("disk %s: %d queues: has to be 1 to %d", image.path, o.Queues, MaxQueues)
	}
	if len(o.Serial) > MaxSerial {
		return nil, fmt.Errorf("disk %s: serial number %q: %d bytes at most", image.path, o.Serial, MaxSerial)
	}
	sectors, err := image.sectors()
	if err != nil {
		return nil, fmt.Errorf("disk %s: %w", image.path, err)
	}
	d := &Disk{
		image: image, options: o,
		free: make(chan *request, underWay), work: make(chan *request, underWay),
	}
	d.sectors.Store(sectors)
	for i := range underWay {
		r := &request{index: i}
		d.requests = append(d.requests, r)
		d.free <- r
	}
	for range workers {
		d.pool.Go(d.do)
	}
	if !o.noRing {
		d.startRing()
	}
	return d, nil
}

// Close closes the image. Preconditions: the device is held.
func (d *Disk) Close() error {
	d.stopRing()
	close(d.work)
	d.pool.Wait()
	return d.image.Close()
}

// Image is what the disk is made of.
func (d *Disk) Image() *Image { return d.image }

// Bytes is the capacity that the guest is told.
func (d *Disk) Bytes() uint64 { return d.sectors.Load() * sectorSize }

// Grow looks how large the image has become, and reports whether the capacity
// has changed: the driver is to be told then. A disk does not shrink.
func (d *Disk) Grow() (grown bool, err error) {
	sectors, err := d.image.sectors()
	if err != nil {
		return false, fmt.Errorf("disk %s: %w", d.image.path, err)
	}
	was := d.sectors.Load()
	if sectors < was {
		return false, fmt.Errorf("disk %s: it has %d bytes, and the guest was told %d: a disk cannot shrink", d.image.path, sectors*sectorSize, was*sectorSize)
	}
	return d.sectors.Swap(sectors) != sectors, nil
}

// Type implements virtio.Backend, as does all that follows.
func (d *Disk) Type() uint32 { return virtio.IDBlock }

// Features are the same for every image, so that they are on both sides of a
// migration: what a file system cannot do is done without it.
func (d *Disk) Features() uint64 {
	features := uint64(featureSegMax | featureBlockSize | featureFlush | featureTopology)
	if d.image.readOnly {
		features |= featureReadOnly
	} else {
		features |= featureDiscard | featureWriteZeroes
	}
	if d.options.Queues > 1 {
		features |= featureQueues
	}
	return features
}

// QueueSizes is queueSize for each.
func (d *Disk) QueueSizes() []uint16 {
	sizes := make([]uint16, d.options.Queues)
	for i := range sizes {
		sizes[i] = queueSize
	}
	return sizes
}

// configSize is that of struct virtio_blk_config up to the fields of
// write-zeroes.
const configSize = 60

// ReadConfig gives struct virtio_blk_config (section 5.2.4).
func (d *Disk) ReadConfig(p []byte, off uint64) {
	var c [configSize]byte
	le := binary.LittleEndian
	le.PutUint64(c[0:], d.sectors.Load())
	le.PutUint32(c[12:], maxSegments)
	le.PutUint32(c[20:], sectorSize)
	c[24] = 3               // a physical block is 2^3 sectors, so that partitions and file systems are aligned to 4 KiB
	le.PutUint16(c[26:], 8) // as is, at least, what is best read or written
	c[32] = 1               // there is a cache to be flushed
	le.PutUint16(c[34:], uint16(d.options.Queues))
	le.PutUint32(c[36:], maxRangeSectors)
	le.PutUint32(c[40:], maxRanges)
	le.PutUint32(c[44:], 8) // discards aligned to 4 KiB do most
	le.PutUint32(c[48:], maxRangeSectors)
	le.PutUint32(c[52:], maxRanges)
	c[56] = 1 // write-zeroes may unmap
	if off < configSize {
		copy(p, c[off:])
	}
}

// WriteConfig does nothing: no field that can be written is offered.
func (d *Disk) WriteConfig([]byte, uint64) {}

// Start takes note of what the driver does by itself.
func (d *Disk) Start(features uint64) { d.durable.Store(features&featureFlush == 0) }

// Drain waits for the pool and the ring.
func (d *Disk) Drain() { d.pending.Wait() }

// Version is that of SaveState's format, and of the features.
func (d *Disk) Version() uint16 { return 1 }

// SaveState writes 8 bytes: the capacity in sectors, little-endian.
func (d *Disk) SaveState() ([]byte, error) {
	return binary.LittleEndian.AppendUint64(nil, d.sectors.Load()), nil
}

// LoadState refuses an image that is smaller than the guest's disk. One that
// is larger waits for Grow.
func (d *Disk) LoadState(b []byte) error {
	if len(b) != 8 {
		return fmt.Errorf("state: %d bytes of a disk's state, want 8", len(b))
	}
	told := binary.LittleEndian.Uint64(b)
	if have := d.sectors.Load(); told == 0 || told > have {
		return fmt.Errorf("disk %s: it has %d sectors of %d bytes here, and the guest's disk %d", d.image.path, have, sectorSize, told)
	}
	d.sectors.Store(told)
	return nil
}
