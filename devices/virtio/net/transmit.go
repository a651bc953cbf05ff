package net

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"microvm/devices/virtio"
)

// The frame's header, struct virtio_net_hdr (section 5.1.6).
const (
	headerFlags   = 0
	headerGSOType = 1
	headerBuffers = 10 // in how many buffers a received frame is

	flagNeedsCsum = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM

	gsoNone  = 0
	gsoTCPv4 = 1
	gsoTCPv6 = 4
	gsoECN   = 0x80 // with one of the two
)

const (
	// maxVectors is how many vectors a system call takes (UIO_MAXIOV).
	maxVectors = 1024
	// batch is how many chains are given back at once.
	batch = 32
)

// A transmitter takes frames from a queue to the tap.
type transmitter struct {
	net     *Net
	fd      int
	chain   virtio.Chain
	header  [headerSize]byte
	vectors []unix.Iovec
	used    []virtio.Used
	counts  direction
}

func (t *transmitter) serve(q *virtio.Queue) error {
	for {
		ok, err := q.Next(&t.chain)
		if ok {
			err = t.send()
		}
		if ok && err == nil {
			t.used = append(t.used, t.chain.Used(0))
			if len(t.used) < batch {
				continue
			}
		}
		pushed := q.PushAll(t.used)
		t.used = t.used[:0]
		if !ok || err != nil || pushed != nil {
			return errors.Join(err, pushed)
		}
	}
}

// send writes the frame that a chain has. A frame that cannot be sent is
// counted; an error means that the driver's memory cannot be had.
func (t *transmitter) send() error {
	size := t.chain.ReadLen
	if size <= headerSize || size > maxFrame {
		return t.refuse(errSize)
	}
	if !t.chain.Whole() {
		t.chain.Request() // all its pages at once: frames behind it wait too
	}
	if err := t.chain.ReadAt(t.header[:], 0); err != nil {
		return err
	}
	if !t.check() {
		return t.refuse(errHeader)
	}
	t.vectors = append(t.vectors[:0], unix.Iovec{Base: &t.header[0], Len: headerSize})
	var err error
	if t.vectors, err = t.chain.ReadVectors(t.vectors, headerSize, size-headerSize); err != nil {
		return err
	}
	if len(t.vectors) > maxVectors {
		return t.refuse(errPieces)
	}
	if _, err := writev(t.fd, t.vectors); err != nil {
		return t.refuse(err)
	}
	t.counts.Add(size-headerSize, -1, nil)
	return nil
}

// What a driver may not ask for.
var (
	errSize   = fmt.Errorf("its length is not that of a header of %d bytes and a frame, %d together", headerSize, maxFrame)
	errHeader = errors.New("its header asks for what was not negotiated")
	errPieces = fmt.Errorf("it is in more than %d pieces", maxVectors-1)
)

// refuse counts a frame that is not sent. The host's network may be down or
// busy; else it is the driver's doing.
func (t *transmitter) refuse(err error) error {
	switch err {
	case unix.EIO, unix.EAGAIN, unix.ENOBUFS, unix.ENOMEM:
		t.counts.drops.Add(1)
	default:
		t.counts.Add(0, -1, err)
	}
	t.net.complain("a frame could not be sent", err)
	return nil
}

// check looks whether the header asks for no more than the driver accepted, and
// clears what means nothing.
func (t *transmitter) check() bool {
	h, features := &t.header, t.net.features
	h[headerFlags] &= flagNeedsCsum
	h[headerBuffers], h[headerBuffers+1] = 0, 0
	need := uint64(0)
	if h[headerFlags] != 0 {
		need |= featureCsum
	}
	gso := h[headerGSOType]
	switch gso &^ gsoECN {
	case gsoNone:
		if gso != gsoNone {
			return false
		}
	case gsoTCPv4:
		need |= featureHostTSO4
	case gsoTCPv6:
		need |= featureHostTSO6
	default:
		return false
	}
	if gso&gsoECN != 0 {
		need |= featureHostECN
	}
	return features&need == need
}
