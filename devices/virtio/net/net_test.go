package net

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"microvm/devices/virtio"
	"microvm/devices/virtio/virtiotest"
)

// without are what drivers may leave out, by what they then lack.
var without = map[string]uint64{
	"everything":         0,
	"no merging":         featureMergeable,
	"no event index":     virtio.FeatureEventIdx,
	"no long frames":     featureGuestTSO4 | featureGuestTSO6 | featureGuestECN,
	"no long, no merged": featureGuestTSO4 | featureGuestTSO6 | featureGuestECN | featureMergeable,
	"nothing":            ^uint64(virtio.FeatureVersion1),
}

// TestEveryFrameComesThroughWhole, whatever its length and however the driver
// cuts its buffers.
func TestEveryFrameComesThroughWhole(t *testing.T) {
	for name, without := range without {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 1, without)
			seed := rand.New(rand.NewPCG(1, 2))
			merged, long := r.Features&featureMergeable != 0, r.Features&featureGuestTSO4 != 0
			size := 1 << 11
			if long && !merged {
				size = 1 << 17
			}
			var sent, received uint64
			for i := range 300 {
				n := 14 + seed.IntN(1500)
				if long && i%10 == 0 {
					n = 14 + seed.IntN(65536)
				}
				want := randomBytes(seed, n)
				for r.rx[0].Free() > 256-maxFrame/size-1 {
					r.room(0, 1, size)
				}
				header := make([]byte, headerSize)
				header[headerFlags] = 2 // DATA_VALID
				r.wires.putRaw(t, 0, append(header, want...))
				got, frame, k := r.frame(0)
				checkFrame(t, "received", frame, want)
				if (got[headerFlags] == 2) != (r.Features&featureGuestCsum != 0) || k != (headerSize+n-1)/size+1 {
					t.Fatalf("%d bytes in %d buffers, flags %d", n, k, got[headerFlags])
				}
				received += uint64(n)

				want = randomBytes(seed, 14+seed.IntN(3000))
				whole := append(make([]byte, headerSize), want...)
				a, b := seed.IntN(len(whole)), seed.IntN(len(whole))
				r.send(0, whole[:min(a, b)+1], whole[min(a, b)+1:max(a, b)+1], whole[max(a, b)+1:])
				checkFrame(t, "sent", r.wires.get(t, 0)[headerSize:], want)
				sent += uint64(len(want))
			}
			r.counted(300, 0, 0, sortReceive)
			r.counted(300, 0, 0, sortTransmit)
			if c := r.net.Counts(); c.Of(sortReceive).Bytes != received || c.Of(sortTransmit).Bytes != sent {
				t.Errorf("%+v, want %d and %d bytes", c, received, sent)
			}
		})
	}
}

// TestBurstsComeInOrder: many frames at once, and more than there is room for.
func TestBurstsComeInOrder(t *testing.T) {
	r := newRig(t, 1, 0)
	frame := func(i int) []byte { return fmt.Appendf(nil, "frame number %06d", i) }
	next := 0
	for i := range 200 {
		r.wires.put(t, 0, frame(i))
		if i%40 == 39 {
			r.room(0, 40, 1536)
			for ; next <= i; next++ {
				_, got, _ := r.frame(0)
				checkFrame(t, fmt.Sprint(next), got, frame(next))
			}
		}
	}
	for i := range 1000 {
		want := append(make([]byte, headerSize), frame(i)...)
		r.tx[0].Add(arena+4096*uint64(i%32), 0, -1, virtiotest.Buf{Data: want})
		if i%32 == 31 {
			r.tx[0].Kick()
			for range 32 {
				r.tx[0].Wait()
			}
			for j := i - 31; j <= i; j++ {
				checkFrame(t, fmt.Sprint(j), r.wires.get(t, 0)[headerSize:], frame(j))
			}
		}
	}
}

// TestFrameWaitsForRoom: a driver that is short of buffers loses nothing.
func TestFrameWaitsForRoom(t *testing.T) {
	r := newRig(t, 1, 0)
	seed := rand.New(rand.NewPCG(3, 4))
	long, short := randomBytes(seed, 60000), randomBytes(seed, 100)
	r.room(0, 3, 1536)
	r.wires.put(t, 0, short)
	_, got, _ := r.frame(0)
	checkFrame(t, "the first", got, short)
	r.wires.put(t, 0, long)
	r.wires.put(t, 0, short)
	for range 10 {
		r.room(0, 4, 1536)
	}
	_, got, k := r.frame(0)
	checkFrame(t, "the long one", got, long)
	if want := (60000 + headerSize + 1535) / 1536; k != want {
		t.Errorf("it is in %d buffers, want %d", k, want)
	}
	_, got, _ = r.frame(0)
	checkFrame(t, "the one after it", got, short)
	r.counted(3, 0, 0, sortReceive)
}

// TestFrameThatCanNeverFitIsDropped, and the next one comes.
func TestFrameThatCanNeverFitIsDropped(t *testing.T) {
	for name, without := range map[string]uint64{"merging": 0, "no merging": featureMergeable} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, 1, without)
			short := []byte("a short frame, a short one")
			r.wires.put(t, 0, make([]byte, 60000))
			r.wires.put(t, 0, short)
			r.room(0, 256, 64)
			_, got, _ := r.frame(0)
			checkFrame(t, "the short one", got, short)
			r.counted(1, 1, 0, sortReceive)
		})
	}
}

// TestDriverAsksForWhatItAccepted and nothing else: see section 5.1.6.2.
func TestDriverAsksForWhatItAccepted(t *testing.T) {
	const all = ^uint64(0)
	for _, c := range []struct {
		name       string
		without    uint64
		flags, gso byte
		ok         bool
	}{
		{"plain", all &^ virtio.FeatureVersion1, 0, gsoNone, true},
		{"checksum", 0, flagNeedsCsum, gsoNone, true},
		{"checksum", featureCsum, flagNeedsCsum, gsoNone, false},
		{"TSO4", 0, flagNeedsCsum, gsoTCPv4, true},
		{"TSO4", featureHostTSO4, flagNeedsCsum, gsoTCPv4, false},
		{"TSO6", 0, flagNeedsCsum, gsoTCPv6, true},
		{"TSO6", featureHostTSO6, flagNeedsCsum, gsoTCPv6, false},
		{"ECN", 0, flagNeedsCsum, gsoTCPv6 | gsoECN, true},
		{"ECN", featureHostECN, flagNeedsCsum, gsoTCPv6 | gsoECN, false},
		{"ECN alone", 0, 0, gsoECN, false},
		{"UDP", 0, flagNeedsCsum, 3, false},
		{"reserved flags", 0, 0xFE, gsoNone, true},
	} {
		r := newRig(t, 1, c.without)
		header := make([]byte, headerSize)
		header[headerFlags], header[headerGSOType], header[headerBuffers] = c.flags, c.gso, 77
		frame := []byte("fourteen bytes and some")
		r.send(0, append(header, frame...))
		if s := r.net.Counts().Of(sortTransmit); s.Requests != 1 || s.Errors == 0 != c.ok {
			t.Errorf("%s without %#x: %+v", c.name, c.without, s)
		}
		if c.ok {
			got := r.wires.get(t, 0)
			if got[headerFlags] != c.flags&flagNeedsCsum || got[headerGSOType] != c.gso || got[headerBuffers] != 0 {
				t.Errorf("%s: header % x", c.name, got[:headerSize])
			}
		}
	}
}

// TestFrameOfNoLengthIsAnError of that frame alone.
func TestFrameOfNoLengthIsAnError(t *testing.T) {
	r := newRig(t, 1, 0)
	for _, n := range []int{1, headerSize - 1, headerSize, maxFrame + 1} {
		r.send(0, make([]byte, n))
	}
	r.send(0, make([]byte, headerSize+14))
	r.counted(1, 0, 4, sortTransmit)
}

// TestTapDoesWhatTheDriverLeavesUndone: the kernel is told what was accepted.
func TestTapDoesWhatTheDriverLeavesUndone(t *testing.T) {
	const all = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
	for without, want := range map[uint64]int{
		0:                                   all,
		featureGuestECN:                     all &^ unix.TUN_F_TSO_ECN,
		featureGuestTSO4:                    all &^ unix.TUN_F_TSO4,
		featureGuestCsum:                    0, // nothing else goes without
		1<<64 - 1 - 1<<32:                   0,
		featureMergeable:                    all,
		featureGuestTSO6:                    all &^ unix.TUN_F_TSO6,
		featureGuestTSO6 | featureGuestTSO4: unix.TUN_F_CSUM,
	} {
		r := newRig(t, 1, without)
		if got, _ := r.wires.state(); got != want {
			t.Errorf("without %#x the tap is told %#x, want %#x", without, got, want)
		}
	}
}

// TestNewDriverGetsNothingOfTheLast: what came before a reset is not for who
// drives after it.
func TestNewDriverGetsNothingOfTheLast(t *testing.T) {
	r := newRig(t, 1, 0)
	for range 3 {
		r.wires.put(t, 0, make([]byte, 60000)) // the first is read, and waits
	}
	r.room(0, 1, 1536)
	r.drive(r.Features)
	r.room(0, 100, 1536)
	want := []byte("for the new one alone")
	r.wires.put(t, 0, want)
	_, got, _ := r.frame(0)
	checkFrame(t, "the first", got, want)
	r.counted(1, 3, 0, sortReceive)
}

// TestControlQueue: the commands that there are, and those that there are not.
func TestControlQueue(t *testing.T) {
	r := newRig(t, 4, 0)
	for _, c := range []struct {
		command []byte
		answer  byte
		used    int // pairs, afterwards
	}{
		{[]byte{classPairs, pairsSet, 3, 0}, answerOK, 3},
		{[]byte{classPairs, pairsSet, 4, 0}, answerOK, 4},
		{[]byte{classPairs, pairsSet, 5, 0}, answerError, 4},
		{[]byte{classPairs, pairsSet, 0, 0}, answerError, 4},
		{[]byte{classPairs, pairsSet, 1, 1}, answerError, 4},
		{[]byte{classPairs, pairsSet, 1}, answerError, 4},
		{[]byte{classPairs, pairsSet, 1, 0, 0}, answerError, 4},
		{[]byte{classPairs, 1, 1, 0}, answerError, 4},
		{[]byte{classPairs}, answerError, 4},
		{[]byte{0, 0, 1}, answerError, 4}, // promiscuous
		{[]byte{classAnnounce, announceAck}, answerOK, 4},
		{[]byte{classPairs, pairsSet, 2, 0}, answerOK, 2},
	} {
		if got := r.command(c.command...); got != c.answer {
			t.Errorf("% x is answered with %d", c.command, got)
		}
		if _, used := r.wires.state(); used != c.used || r.net.Counts().Gauges["pairs"] != uint64(c.used) {
			t.Errorf("after % x, %d pairs are used, want %d", c.command, used, c.used)
		}
	}
	// Every pair that is used works by itself.
	for pair := range 2 {
		r.room(pair, 64, 1536)
		want := fmt.Appendf(nil, "to the guest by pair %d", pair)
		r.wires.put(t, pair, want)
		_, got, _ := r.frame(pair)
		checkFrame(t, "received", got, want)
		r.send(pair, make([]byte, headerSize), want)
		checkFrame(t, "sent", r.wires.get(t, pair)[headerSize:], want)
	}
	r.drive(r.Features &^ featurePairs)
	if _, used := r.wires.state(); used != 1 {
		t.Errorf("after a reset %d pairs are used", used)
	}
	if got := r.command(classPairs, pairsSet, 2, 0); got != answerError {
		t.Errorf("a driver that knows of one pair is given more: %d", got)
	}
}
