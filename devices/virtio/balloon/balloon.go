// Package balloon is the virtio memory balloon (VIRTIO 1.2, section 5.5): a
// driver in the guest takes memory from the guest, as much as it is told, and
// says which, so that the host can use it. It also says which memory of the
// guest's is free, where that is asked for, and how much of what the guest has.
//
//	SetTarget ── configuration change ──▶ driver
//	inflateq, reportingq ── pages that it does without ──▶ memslot.Memory.GiveBack
//	deflateq ── pages that it uses again: nothing to do, a touch brings memory
//	statsq ── one buffer, kept until figures are wanted, and filled anew
//
// # What is not given back
//
// Package memslot gives nothing back while pages of guest memory may be missing,
// as after a postcopy migration until all have come, nor of huge pages. The
// driver is not told: its pages are in the balloon all the same. While a
// precopy migration sends memory, what is given back counts as written, with
// zeros. When the guest is stopped so is the device; that includes all of the
// time from which on its memory is another host's to have.
//
// Nobody but the guest knows which pages are in the balloon, and nobody has to:
// what moves with the device is the target and how much is in it.
package balloon

import (
	"encoding/binary"
	"fmt"
	"sync"

	"microvm/devices/virtio"
	"microvm/memslot"
)

// Feature bits (section 5.5.3).
const (
	featureStats     = 1 << 1
	featureOOM       = 1 << 2
	featurePoison    = 1 << 4
	featureReporting = 1 << 5
)

// PageSize is the unit of the balloon in bytes, whatever the guest's pages are.
const PageSize = 4096

const queueSize = 128

// Options say how a balloon looks to the guest.
type Options struct {
	// Target is how many bytes it is to hold, a multiple of PageSize.
	Target uint64
	// DeflateOnOOM lets the guest take pages back rather than end programs
	// when its memory runs out.
	DeflateOnOOM bool
	// Reporting has the guest say which pages are free, balloon or not.
	Reporting bool
}

// roles are what a queue is for.
type role int

const (
	inflate role = iota
	deflate
	stats
	reporting
)

// A Balloon is a virtio.Backend.
type Balloon struct {
	mem     *memslot.Memory
	options Options

	mu     sync.Mutex
	config config // guarded by mu

	// By a queue's index; what the driver accepted decides. Set before the
	// workers start.
	roles  []role
	chains [4]virtio.Chain // each its worker's, but that of stats
	// poisoned: free pages have contents that the driver relies on.
	poisoned bool

	raw  [4 * maxPages]byte // the worker's of inflateq
	pfns [maxPages]uint32

	counts counters
	guest  guestStats
}

// config is struct virtio_balloon_config (section 5.5.4), in pages.
type config struct{ target, actual, poison uint32 }

const (
	configActual = 4 // offsets
	configPoison = 12
	configSize   = 16
)

// New makes a balloon for the guest that has the memory.
func New(mem *memslot.Memory, o Options) (*Balloon, error) {
	b := &Balloon{mem: mem, options: o}
	b.guest.init()
	return b, b.SetTarget(o.Target)
}

// SetTarget says how many bytes the balloon is to hold; what is less than a
// page of them does not count. The driver has to be told then, by
// Device.ConfigChanged.
func (b *Balloon) SetTarget(bytes uint64) error {
	if have := b.mem.Size(); bytes > have {
		return fmt.Errorf("a balloon of %d bytes: the guest has %d", bytes, have)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.config.target = uint32(bytes / PageSize)
	return nil
}

// Size is how many bytes the balloon is to hold, and how many it does hold,
// by what the driver says.
func (b *Balloon) Size() (target, actual uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return uint64(b.config.target) * PageSize, uint64(b.config.actual) * PageSize
}

// Type implements virtio.Backend, as does all that follows.
func (*Balloon) Type() uint32 { return virtio.IDBalloon }

// Features has PAGE_POISON where it has PAGE_REPORTING: a guest that fills its
// free pages with something would not report them otherwise.
func (b *Balloon) Features() uint64 {
	features := uint64(featureStats)
	if b.options.DeflateOnOOM {
		features |= featureOOM
	}
	if b.options.Reporting {
		features |= featureReporting | featurePoison
	}
	return features
}

// QueueSizes has a queue for each role that may be.
func (b *Balloon) QueueSizes() []uint16 {
	sizes := []uint16{queueSize, queueSize, queueSize}
	if b.options.Reporting {
		sizes = append(sizes, queueSize)
	}
	return sizes
}

// Start takes note of what the driver accepted. Queues of features that it did
// not accept are not there, and those after them move up, as all drivers count.
func (b *Balloon) Start(features uint64) {
	b.roles = append(b.roles[:0], inflate, deflate)
	if features&featureStats != 0 {
		b.roles = append(b.roles, stats)
	}
	if features&featureReporting != 0 {
		b.roles = append(b.roles, reporting)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.poisoned = features&featurePoison != 0 && b.config.poison != 0
}

// bytes is the configuration space. mu is held.
func (c *config) bytes() (p [configSize]byte) {
	le := binary.LittleEndian
	le.PutUint32(p[:], c.target)
	le.PutUint32(p[configActual:], c.actual)
	le.PutUint32(p[configPoison:], c.poison)
	return p
}

// ReadConfig gives struct virtio_balloon_config.
func (b *Balloon) ReadConfig(p []byte, off uint64) {
	b.mu.Lock()
	c := b.config.bytes()
	b.mu.Unlock()
	if off < configSize {
		copy(p, c[off:])
	}
}

// WriteConfig takes what the driver may write: actual and poison_val.
func (b *Balloon) WriteConfig(p []byte, off uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c := b.config.bytes()
	if off < configSize {
		copy(c[off:], p)
	}
	b.config.actual = binary.LittleEndian.Uint32(c[configActual:])
	b.config.poison = binary.LittleEndian.Uint32(c[configPoison:])
}

// Version is that of SaveState's format, and of the features.
func (*Balloon) Version() uint16 { return 1 }

const stateSize = 12

// SaveState writes, in pages and little-endian: 4 bytes what the balloon is to
// hold, 4 what it holds by the driver's word; and 4 bytes poison_val.
func (b *Balloon) SaveState() ([]byte, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	le := binary.LittleEndian
	return le.AppendUint32(le.AppendUint32(le.AppendUint32(nil, b.config.target), b.config.actual), b.config.poison), nil
}

// LoadState takes over what SaveState wrote.
func (b *Balloon) LoadState(p []byte) error {
	if len(p) != stateSize {
		return fmt.Errorf("state: %d bytes of a balloon's state, want %d", len(p), stateSize)
	}
	le := binary.LittleEndian
	if err := b.SetTarget(uint64(le.Uint32(p)) * PageSize); err != nil {
		return fmt.Errorf("state: %w", err)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.config.actual, b.config.poison = le.Uint32(p[4:]), le.Uint32(p[8:])
	return nil
}

// Close has nothing to free.
func (*Balloon) Close() error { return nil }
