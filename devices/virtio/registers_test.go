package virtio_test

import (
	"bytes"
	"errors"
	"testing"

	"microvm/devices/virtio"
	"microvm/devices/virtio/virtiotest"
)

func TestFeaturesAreNegotiated(t *testing.T) {
	r := newRig(t, 16)
	r.echo.extra = 1<<5 | 1<<40
	if got, want := r.Offered(), uint64(allFeatures|1<<5|1<<40); got != want {
		t.Errorf("it offers %#x, want %#x", got, want)
	}
	try := func(features uint64) bool {
		r.Set(0x70, 0)
		r.Set(0x70, 3)
		for half := range uint32(3) { // the third is none
			r.Set(0x24, half)
			r.Set(0x20, uint32(features>>(32*(half%2))))
		}
		r.Set(0x70, 11)
		return r.Get(0x70)&8 != 0
	}
	for _, c := range []struct {
		features uint64
		want     bool
	}{
		{allFeatures, true},
		{virtio.FeatureVersion1 | 1<<40, true},
		{0, false},
		{virtio.FeatureEventIdx, false},
		{virtio.FeatureVersion1 | 1<<6, false},
		{virtio.FeatureVersion1 | 1<<63, false},
	} {
		if got := try(c.features); got != c.want {
			t.Errorf("features %#x taken: %t, want %t", c.features, got, c.want)
		}
	}
	// Not taken means that there is no way on.
	r.Set(0x70, 15)
	if r.Get(0x70) != 3 || r.echo.started != 0 {
		t.Errorf("status %#x, started %d times, without FEATURES_OK", r.Get(0x70), r.echo.started)
	}
	// And taken means for good.
	try(allFeatures)
	r.Set(0x20, 0)
	q := r.NewQueue(0, 8)
	r.Features = allFeatures
	r.OK()
	if written, _ := q.Do(arena, virtiotest.Buf{Data: []byte{1}}, virtiotest.Buf{Room: 1}); written != 1 {
		t.Error("it does not work")
	}
}

func TestQueueRegistersAreChecked(t *testing.T) {
	r := newRig(t, 16, 32)
	r.Init(allFeatures)
	r.Set(0x30, 1)
	if r.Get(0x34) != 32 {
		t.Errorf("QueueNumMax is %d", r.Get(0x34))
	}
	for _, c := range []struct {
		name                 string
		size                 uint32
		desc, driver, device uint64
		want                 uint32
	}{
		{"good", 32, 0x1000, 0x2002, 0x3004, 1},
		{"smaller", 1, 0x1000, 0x2002, 0x3004, 1},
		{"no RAM, which may come", 32, 1 << 40, 2 << 40, 3 << 40, 1},
		{"no size", 0, 0x1000, 0x2000, 0x3000, 0},
		{"too large", 64, 0x1000, 0x2000, 0x3000, 0},
		{"more than 16 bits", 0x10020, 0x1000, 0x2000, 0x3000, 0},
		{"no power of 2", 24, 0x1000, 0x2000, 0x3000, 0},
		{"descriptors askew", 32, 0x1008, 0x2000, 0x3000, 0},
		{"driver area askew", 32, 0x1000, 0x2001, 0x3000, 0},
		{"device area askew", 32, 0x1000, 0x2000, 0x3002, 0},
		{"descriptors wrap", 32, ^uint64(15), 0x2000, 0x3000, 0},
		{"driver area wraps", 32, 0x1000, ^uint64(1), 0x3000, 0},
		{"device area wraps", 32, 0x1000, 0x2000, ^uint64(3), 0},
	} {
		q := virtiotest.Queue{Index: 1}
		r.Set(0x44, 0)
		r.Set(0x38, c.size)
		for reg, addr := range map[uint64]uint64{0x80: c.desc, 0x90: c.driver, 0xA0: c.device} {
			r.Set(reg, uint32(addr))
			r.Set(reg+4, uint32(addr>>32))
		}
		r.Set(0x44, 1)
		if got := r.Get(0x44); got != c.want {
			t.Errorf("%s: queue %d ready: %d, want %d", c.name, q.Index, got, c.want)
		}
	}
	r.Set(0x30, 2)
	r.Set(0x38, 16)
	r.Set(0x44, 1)
	if r.Get(0x34) != 0 || r.Get(0x44) != 0 {
		t.Error("there is a queue 2")
	}
	r.Set(0x50, 2)
	r.Set(0x50, ^uint32(0))
}

func TestRegistersTakeOnlyTheirWidth(t *testing.T) {
	r := newRig(t, 16)
	copy(r.echo.config[:], "ABCDEFGH")
	for _, c := range []struct {
		off  uint64
		n    int
		want string
	}{
		{0, 4, "virt"}, {0, 1, "\x00"}, {0, 2, "\x00\x00"}, {0, 8, "\x00\x00\x00\x00\x00\x00\x00\x00"}, {2, 4, "\x00\x00\x00\x00"},
		{0x100, 1, "A"}, {0x103, 2, "DE"}, {0x100, 8, "ABCDEFGH"}, {0x106, 4, "GH\x00\x00"}, {0xFFC, 4, "\x00\x00\x00\x00"},
		{0xB0, 4, "\xff\xff\xff\xff"},
	} {
		p := bytes.Repeat([]byte{0x55}, c.n)
		r.Regs.Read(c.off, p)
		if string(p) != c.want {
			t.Errorf("%d bytes at %#x are %q, want %q", c.n, c.off, p, c.want)
		}
	}
	r.Init(allFeatures)
	r.Regs.Write(0x70, []byte{0})
	r.Regs.Write(0x72, []byte{0, 0, 0, 0})
	if r.Get(0x70) != 11 {
		t.Error("a write of another width reset the device")
	}
}

func TestConfigurationChangesAreTold(t *testing.T) {
	r := newRig(t, 16)
	r.mmio.Device().ConfigChanged()
	if r.Get(0x60) != 0 {
		t.Error("a device without a driver interrupts")
	}
	r.Init(allFeatures)
	r.NewQueue(0, 16)
	r.OK()
	before := r.Get(0xFC)
	r.mmio.Device().ConfigChanged()
	r.IRQ.Wait(t)
	if r.Get(0x60) != 2 || r.Get(0xFC) == before {
		t.Errorf("interrupt status %d, generation %d after %d", r.Get(0x60), r.Get(0xFC), before)
	}
	r.Set(0x64, 2)
	if r.Get(0x60) != 0 {
		t.Error("the acknowledgement is not taken")
	}
}

// TestResetWaitsForWhatIsUnderWay: a driver that has reset its device may give
// its memory to somebody else.
func TestResetWaitsForWhatIsUnderWay(t *testing.T) {
	r := newRig(t, 16)
	r.echo.hold = make(chan struct{})
	r.Init(allFeatures)
	q := r.NewQueue(0, 16)
	r.OK()
	q.Add(arena, 0, -1, virtiotest.Buf{Data: []byte{1}}, virtiotest.Buf{Room: 1})
	q.Kick()
	for r.mmio.Device().Queues()[0].Stats().Chains == 0 {
		q.Kick()
	}
	reset := make(chan struct{})
	go func() { r.Set(0x70, 0); close(reset) }()
	select {
	case <-reset:
		t.Error("the reset did not wait")
	default:
	}
	close(r.echo.hold)
	<-reset
	if _, _, _, done := q.Done(); !done {
		t.Error("the request was dropped")
	}
	if r.Get(0x70) != 0 || r.Get(0x60) != 0 {
		t.Errorf("status %#x, interrupt status %#x after a reset", r.Get(0x70), r.Get(0x60))
	}
	r.works(t, virtio.FeatureVersion1)
}

// TestHeldDeviceRests: between a pause and the end of a migration nothing may
// change in guest memory; what was asked meanwhile is done afterwards.
func TestHeldDeviceRests(t *testing.T) {
	r := newRig(t, 16)
	r.Init(allFeatures)
	q := r.NewQueue(0, 16)
	r.OK()
	q.Do(arena, virtiotest.Buf{Data: []byte{1}}, virtiotest.Buf{Room: 1})
	d := r.mmio.Device()
	d.Hold()
	d.Hold()
	q.Add(arena, 0, -1, virtiotest.Buf{Data: []byte("abc")}, virtiotest.Buf{Room: 3})
	before := d.Queues()[0].Stats()
	r.Set(0x50, 0)
	if _, _, _, done := q.Done(); done || d.Queues()[0].Stats() != before {
		t.Error("a held device works")
	}
	d.Release()
	if _, written, data := q.Wait(); written != 3 || string(data) != "bcd" {
		t.Errorf("%d bytes: %q", written, data)
	}
}

// broken is an interrupt line whose eventfd is gone.
type broken struct{}

var errLine = errors.New("eventfd gone")

func (broken) Trigger() error { return errLine }

func TestLostInterruptIsNotHushedUp(t *testing.T) {
	mem, _ := virtiotest.NewMemory(t, 4<<20)
	m := newMMIO(t, &echo{queues: []uint16{16}}, mem, nil)
	m = virtio.NewMMIO(m.Device(), broken{})
	m.ConfigChanged()
	if _, err := m.Save(); !errors.Is(err, errLine) {
		t.Errorf("saved with %v", err)
	}
}
