package net

import (
	"encoding/binary"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"microvm/devices/virtio"
)

// Feature bits (section 5.1.3).
const (
	featureCsum          = 1 << 0
	featureGuestCsum     = 1 << 1
	featureMTU           = 1 << 3
	featureMAC           = 1 << 5
	featureGuestTSO4     = 1 << 7
	featureGuestTSO6     = 1 << 8
	featureGuestECN      = 1 << 9
	featureHostTSO4      = 1 << 11
	featureHostTSO6      = 1 << 12
	featureHostECN       = 1 << 13
	featureMergeable     = 1 << 15
	featureStatus        = 1 << 16
	featureControl       = 1 << 17
	featureGuestAnnounce = 1 << 21
	featurePairs         = 1 << 22
)

const (
	queueSize = 256
	// MaxPairs is how many pairs of queues a device can have.
	MaxPairs = 16
	// DefaultMTU is Ethernet's.
	DefaultMTU = 1500
	// MinMTU is what IPv4 needs, MaxMTU the most that fits a tap device.
	MinMTU = 68
	MaxMTU = 65521

	headerSize = 12 // struct virtio_net_hdr
	// A frame's own header, with a VLAN tag.
	etherSize = 14
	vlanSize  = 4
	// maxSegment is the most that TCP has in one frame, IP header and all.
	maxSegment = 1 << 16
	// maxFrame is the longest that is written or read, with all headers.
	maxFrame = headerSize + etherSize + vlanSize + maxSegment
)

// A Tap is the host's side of the device.
type Tap interface {
	// Files are what frames with their headers are read from and written
	// to, a file for each pair of queues. They do not block.
	Files() []*os.File
	// SetOffload says what the reader takes, as TUN_F_*.
	SetOffload(flags int) error
	// UseQueues has only the first n files be given frames.
	UseQueues(n int) error
	Close() error
}

// Options say how a device looks to the guest.
type Options struct {
	MAC   [6]byte
	MTU   int // MinMTU to MaxMTU
	Pairs int // of queues, 1 to MaxPairs; the tap has as many files
	Log   *slog.Logger
}

// A Net is a virtio.Backend with a tap behind it.
type Net struct {
	tap     Tap
	options Options

	receivers    []*receiver
	transmitters []*transmitter
	control      controller

	// What the driver accepted; set before any Serve.
	features uint64
	// fresh: no driver has driven since the last reset.
	fresh bool
	// inUse is how many pairs the driver uses. The control queue's worker
	// changes it, and who holds the device.
	inUse atomic.Int32
	// halted: Serve is to return.
	halted atomic.Bool

	// status is the status field of the configuration; asked: the driver is
	// to be asked to announce itself.
	status atomic.Uint32
	asked  atomic.Bool
	live   atomic.Uint64 // features, for AskGuest

	announcing sync.Mutex
	silence    func() // ends the announcements from here; guarded by announcing

	announced atomic.Uint64
	logged    atomic.Uint64 // how many failures there were to log
}

// Bits of the status field.
const (
	linkUp       = 1
	wantAnnounce = 2
)

// NewNet makes a device of a tap, which is the device's to close from then on.
func NewNet(tap Tap, o Options) (*Net, error) {
	files := tap.Files()
	switch {
	case o.Pairs < 1 || o.Pairs > MaxPairs:
		return nil, fmt.Errorf("%d pairs of queues: has to be 1 to %d", o.Pairs, MaxPairs)
	case len(files) != o.Pairs:
		return nil, fmt.Errorf("a tap of %d queues for %d pairs", len(files), o.Pairs)
	case o.MTU < MinMTU || o.MTU > MaxMTU:
		return nil, fmt.Errorf("MTU %d: has to be %d to %d", o.MTU, MinMTU, MaxMTU)
	}
	n := &Net{tap: tap, options: o, silence: func() {}}
	n.status.Store(linkUp)
	for _, f := range files {
		r, err := newReceiver(n, f)
		if err != nil {
			return nil, err
		}
		n.receivers = append(n.receivers, r)
		n.transmitters = append(n.transmitters, &transmitter{net: n, fd: r.fd})
	}
	return n, n.usePairs(1)
}

// Close ends the announcements and closes the tap. Preconditions: the device is
// held.
func (n *Net) Close() error {
	n.Silence()
	return n.tap.Close()
}

// Type implements virtio.Backend, as does all that follows.
func (n *Net) Type() uint32 { return virtio.IDNetwork }

// Features are the same on every host: opening a tap fails where the kernel
// lacks what they need.
func (n *Net) Features() uint64 {
	features := uint64(featureCsum | featureGuestCsum | featureMTU | featureMAC |
		featureGuestTSO4 | featureGuestTSO6 | featureGuestECN | featureHostTSO4 | featureHostTSO6 | featureHostECN |
		featureMergeable | featureStatus | featureControl | featureGuestAnnounce)
	if n.options.Pairs > 1 {
		features |= featurePairs
	}
	return features
}

// QueueSizes are those of receive queue, transmit queue, receive queue, and so
// on, and last the control queue (section 5.1.2).
func (n *Net) QueueSizes() []uint16 {
	sizes := make([]uint16, 2*n.options.Pairs+1)
	for i := range sizes {
		sizes[i] = queueSize
	}
	return sizes
}

// configSize is that of struct virtio_net_config up to the MTU.
const configSize = 12

// ReadConfig gives struct virtio_net_config (section 5.1.4).
func (n *Net) ReadConfig(p []byte, off uint64) {
	var c [configSize]byte
	le := binary.LittleEndian
	copy(c[0:], n.options.MAC[:])
	le.PutUint16(c[6:], uint16(n.status.Load()))
	le.PutUint16(c[8:], uint16(n.options.Pairs))
	le.PutUint16(c[10:], uint16(n.options.MTU))
	if off < configSize {
		copy(p, c[off:])
	}
}

// WriteConfig does nothing: a driver of VIRTIO 1.0 or later writes none of it.
func (n *Net) WriteConfig([]byte, uint64) {}

// Start tells the tap what the driver accepted.
func (n *Net) Start(features uint64) {
	n.features = features
	n.live.Store(features)
	if err := n.tap.SetOffload(offload(features)); err != nil {
		n.complain("offloads cannot be set", err)
	}
	if err := n.tap.UseQueues(n.pairs()); err != nil {
		n.complain("queues cannot be chosen", err)
	}
	for _, r := range n.receivers {
		r.start(features)
		if n.fresh {
			// It was meant for whoever drove before, and may be of a kind
			// that this driver did not accept.
			r.discard()
		}
	}
	n.fresh = false
	n.halted.Store(false)
}

// offload is what the kernel may leave undone in frames for this driver.
func offload(features uint64) (flags int) {
	for feature, flag := range map[uint64]int{
		featureGuestCsum: unix.TUN_F_CSUM, featureGuestTSO4: unix.TUN_F_TSO4,
		featureGuestTSO6: unix.TUN_F_TSO6, featureGuestECN: unix.TUN_F_TSO_ECN,
	} {
		if features&feature != 0 {
			flags |= flag
		}
	}
	if flags&unix.TUN_F_CSUM == 0 {
		return 0 // a segment's checksum is never complete
	}
	if flags&(unix.TUN_F_TSO4|unix.TUN_F_TSO6) == 0 {
		flags &^= unix.TUN_F_TSO_ECN
	}
	return flags
}

// Serve implements virtio.Backend.
func (n *Net) Serve(q *virtio.Queue) error {
	i := q.Index()
	switch {
	case i == n.controlQueue():
		return n.control.serve(n, q)
	case i/2 >= len(n.receivers):
		return nil // the control queue of a driver that knows of more pairs
	case i%2 == 0:
		return n.receivers[i/2].serve(q)
	}
	return n.transmitters[i/2].serve(q)
}

// controlQueue is its number, which depends on whether the driver knows of
// several pairs.
func (n *Net) controlQueue() int {
	switch {
	case n.features&featureControl == 0:
		return -1
	case n.features&featurePairs == 0:
		return 2
	}
	return 2 * n.options.Pairs
}

// Interrupt implements virtio.Interrupter.
func (n *Net) Interrupt() {
	n.halted.Store(true)
	for _, r := range n.receivers {
		r.interrupt()
	}
}

// Drain gives back what the receivers have taken ahead. Frames to be sent are
// gone when Serve returns.
func (n *Net) Drain() {
	for _, r := range n.receivers {
		r.giveBack()
	}
}

// Reset implements virtio.Resetter: one pair, nothing to announce, and no frame
// that waits.
func (n *Net) Reset() {
	n.fresh = true
	n.inUse.Store(1)
	n.status.Store(linkUp)
	n.live.Store(0)
	for _, r := range n.receivers {
		r.forget()
	}
}

func (n *Net) pairs() int { return int(n.inUse.Load()) }

// usePairs has frames come for the first pairs alone.
func (n *Net) usePairs(pairs int) error {
	if err := n.tap.UseQueues(pairs); err != nil {
		return err
	}
	n.inUse.Store(int32(pairs))
	return nil
}

// complain logs the first failure, the second, the fourth, and so on: a guest
// can cause as many as it likes.
func (n *Net) complain(what string, err error) {
	if count := n.logged.Add(1); count&(count-1) == 0 {
		n.options.Log.Warn("network: "+what, "error", err, "failures", count)
	}
}
