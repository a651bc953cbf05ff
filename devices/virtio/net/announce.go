package net

import (
	"context"
	"encoding/binary"
	"sync"
	"time"
)

const (
	// announcements is how often the network is told where the guest is,
	// firstPause how long after the first time the second is; each pause is
	// twice the one before. A switch that loses the first, or whose port is
	// not ready yet, hears a later one.
	announcements = 6
	firstPause    = 50 * time.Millisecond

	minFrame = 60 // Ethernet's shortest, without the checksum
)

// Announce tells the network, from here, that the guest's address is behind
// this tap, again and again for a few seconds; and has AskGuest ask the guest to
// do so too. It does not wait.
func (n *Net) Announce() {
	n.Silence()
	n.asked.Store(true)
	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	n.announcing.Lock()
	defer n.announcing.Unlock()
	n.silence = func() {
		cancel()
		done.Wait()
	}
	done.Go(func() { n.announce(ctx) })
}

// Silence ends the announcements from here. When it returns, none is under way.
func (n *Net) Silence() {
	n.announcing.Lock()
	defer n.announcing.Unlock()
	n.silence()
	n.silence = func() {}
	n.asked.Store(false)
}

// AskGuest sets what asks a driver to announce itself, once after Announce, and
// reports whether it has: then the driver is to be told that its configuration
// has changed. A driver that did not accept that is not asked.
func (n *Net) AskGuest() bool {
	if n.live.Load()&featureGuestAnnounce == 0 || !n.asked.Swap(false) {
		return false
	}
	n.status.Or(wantAnnounce)
	return true
}

func (n *Net) announce(ctx context.Context) {
	frame := announcement(n.options.MAC)
	for i, pause := 0, firstPause; ; i, pause = i+1, 2*pause {
		if _, err := n.tap.Files()[0].Write(frame); err != nil {
			n.complain("an announcement could not be sent", err)
		} else {
			n.announced.Add(1)
		}
		if i == announcements-1 {
			return
		}
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
	}
}

// announcement is a RARP request (RFC 903) of a host that asks for its own
// address, with the virtio header: a frame by which every switch learns where
// its sender is, and that nobody answers.
func announcement(mac [6]byte) []byte {
	const (
		etherRARP      = 0x8035
		hardwareEther  = 1
		protocolIPv4   = 0x0800
		requestReverse = 3
	)
	be := binary.BigEndian
	b := make([]byte, headerSize, headerSize+minFrame)
	b = append(b, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF)
	b = append(b, mac[:]...)
	b = be.AppendUint16(b, etherRARP)
	b = be.AppendUint16(b, hardwareEther)
	b = be.AppendUint16(b, protocolIPv4)
	b = append(b, 6, 4)
	b = be.AppendUint16(b, requestReverse)
	for range 2 { // sender and target: both are itself
		b = append(b, mac[:]...)
		b = append(b, 0, 0, 0, 0)
	}
	return b[:cap(b)]
}
