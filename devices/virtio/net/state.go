package net

import (
	"encoding/binary"
	"fmt"
)

const (
	stateSize = 12
	// Bits of the state's flags.
	stateAnnounce = 1
)

// Version is that of SaveState's format, and of the features.
func (n *Net) Version() uint16 { return 1 }

// SaveState writes, little-endian:
//
//	 0  6  the MAC address
//	 6  2  MTU
//	 8  2  how many pairs of queues the driver uses
//	10  2  flags: 1, the driver has been asked to announce itself and has not
//	12     for each pair of queues that there is: 4 m, m a frame with its header
//	       that was read and waits for the driver to have room; m is 0 if none
//	       does
func (n *Net) SaveState() ([]byte, error) {
	le := binary.LittleEndian
	b := append([]byte(nil), n.options.MAC[:]...)
	b = le.AppendUint16(b, uint16(n.options.MTU))
	b = le.AppendUint16(b, uint16(n.pairs()))
	var flags uint16
	if n.status.Load()&wantAnnounce != 0 {
		flags |= stateAnnounce
	}
	b = le.AppendUint16(b, flags)
	for _, r := range n.receivers {
		b = le.AppendUint32(b, uint32(r.waiting))
		b = append(b, r.spill[:r.waiting]...)
	}
	return b, nil
}

// LoadState refuses the state of another card than this one. What this host's
// tap has got before is not for the guest that comes, and thrown away.
func (n *Net) LoadState(b []byte) error {
	if len(b) < stateSize {
		return fmt.Errorf("state: %d bytes of a network card's state, at least %d are needed", len(b), stateSize)
	}
	le := binary.LittleEndian
	mac, mtu := [6]byte(b), int(le.Uint16(b[6:]))
	pairs, flags := int(le.Uint16(b[8:])), le.Uint16(b[10:])
	switch {
	case mac != n.options.MAC:
		return fmt.Errorf("state: of a network card with address %x, this one has %x", mac, n.options.MAC)
	case mtu != n.options.MTU:
		return fmt.Errorf("state: of a network card with MTU %d, this one has %d", mtu, n.options.MTU)
	case pairs < 1 || pairs > n.options.Pairs:
		return fmt.Errorf("state: %d pairs of queues in use, this card has %d", pairs, n.options.Pairs)
	case flags&^stateAnnounce != 0:
		return fmt.Errorf("state: flags %#x: reserved bits are set", flags)
	}
	var frames [][]byte
	b = b[stateSize:]
	for i := range n.receivers {
		if len(b) < 4 {
			return fmt.Errorf("state: it ends before the frame of pair %d", i)
		}
		m := uint64(le.Uint32(b))
		if b = b[4:]; m > uint64(len(b)) || m > maxFrame || m > 0 && m <= headerSize {
			return fmt.Errorf("state: a frame of %d bytes waits for pair %d: has to be %d to %d, and %d are there", m, i, headerSize+1, maxFrame, len(b))
		}
		frames = append(frames, b[:m])
		b = b[m:]
	}
	if len(b) != 0 {
		return fmt.Errorf("state: %d bytes follow its end", len(b))
	}
	n.inUse.Store(int32(pairs))
	n.status.Store(linkUp)
	if flags&stateAnnounce != 0 {
		n.status.Or(wantAnnounce)
	}
	for i, r := range n.receivers {
		r.discard()
		r.waiting = copy(r.spill, frames[i])
	}
	return nil
}
