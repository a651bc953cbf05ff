package net

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"
)

// TestGuestIsAnnouncedWhereItComes, by its host and by itself.
func TestGuestIsAnnouncedWhereItComes(t *testing.T) {
	r := newRig(t, 1, 0)
	r.move()
	r.net.Announce()
	r.mmio.Device().Release()
	for range 3 {
		b := r.wires.get(t, 0)
		frame := b[headerSize:]
		if !bytes.Equal(b[:headerSize], make([]byte, headerSize)) || len(frame) != 60 {
			t.Fatalf("% x", b)
		}
		if binary.BigEndian.Uint16(frame[12:]) != 0x8035 || !bytes.Equal(frame[:6], []byte{255, 255, 255, 255, 255, 255}) {
			t.Errorf("it is no RARP to all: % x", frame)
		}
		for _, at := range []int{6, 22, 32} {
			if !bytes.Equal(frame[at:at+6], testMAC[:]) {
				t.Errorf("at %d stands not the guest's address: % x", at, frame)
			}
		}
	}
	status := func() uint16 { return binary.LittleEndian.Uint16(r.Config(6, 2)) }
	if status() != linkUp {
		t.Errorf("status %#x before the guest is asked", status())
	}
	if !r.net.AskGuest() || r.net.AskGuest() || status() != linkUp|wantAnnounce {
		t.Errorf("status %#x, want the driver to be asked, once", status())
	}
	// It has not answered when it moves on.
	r.move()
	r.mmio.Device().Release()
	if status() != linkUp|wantAnnounce {
		t.Errorf("status %#x where it moves", status())
	}
	if r.command(classAnnounce, announceAck) != answerOK || status() != linkUp {
		t.Errorf("status %#x after its answer", status())
	}
}

// TestDriverThatDoesNotKnowIsNotAsked to announce itself.
func TestDriverThatDoesNotKnowIsNotAsked(t *testing.T) {
	r := newRig(t, 1, featureGuestAnnounce)
	r.net.Announce()
	if r.net.AskGuest() {
		t.Error("it is asked")
	}
	if r.command(classAnnounce, announceAck) != answerError {
		t.Error("its answer is taken")
	}
}

// TestGivenUpMeansSilent: no announcement comes from a host that has given the
// guest up.
func TestGivenUpMeansSilent(t *testing.T) {
	r := newRig(t, 1, 0)
	r.net.Announce()
	r.wires.get(t, 0)
	r.net.Silence()
	r.mmio.Device().Hold()
	sent := r.net.Counts().Counters["announcements"]
	for range sent - 1 {
		r.wires.get(t, 0)
	}
	if err := r.wires.ends[0].SetReadDeadline(time.Now().Add(4 * firstPause)); err != nil {
		t.Fatal(err)
	}
	if n, err := r.wires.ends[0].Read(make([]byte, maxFrame)); err == nil {
		t.Errorf("%d bytes come from it", n)
	}
	if r.net.AskGuest() {
		t.Error("it would have the guest announce itself")
	}
}
