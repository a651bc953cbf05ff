package devices

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"testing"
	"time"
)

// stateful is what package migration asks of a device.
type stateful interface {
	ID() string
	Version() uint32
	Save() ([]byte, error)
	Load(version uint32, b []byte) error
}

// all returns one device of each kind, and a function that ends them.
func all() (states []stateful, ports []Device, end func()) {
	irq := newIRQLatch()
	s := NewSerial(irq, io.Discard)
	rtc := NewRTC(irq, SystemClock{})
	kbd := NewI8042(func() {})
	pm := NewPM(&level{}, func() {})
	pv := NewPVPanic(func(PanicEvent) {})
	return []stateful{s, rtc, kbd, pm, pv},
		[]Device{s, rtc, kbd.Data(), kbd.Command(), pm, pv},
		func() { _ = s.Close(); rtc.Close() }
}

func TestDeviceIDsDiffer(t *testing.T) {
	states, _, end := all()
	defer end()
	var ids []string
	for _, s := range states {
		if slices.Contains(ids, s.ID()) {
			t.Errorf("two devices are called %q", s.ID())
		}
		ids = append(ids, s.ID())
		if s.Version() == 0 {
			t.Errorf("%s: version 0", s.ID())
		}
	}
}

// TestAccessAllocatesNothing: an exit of a vCPU must not feed the garbage
// collector, whatever register it is for.
func TestAccessAllocatesNothing(t *testing.T) {
	_, ports, end := all()
	defer end()
	var b Bus
	for i, d := range ports {
		if err := b.Register("device", uint64(i)*0x100, 0x100, d); err != nil {
			t.Fatal(err)
		}
	}
	p := make([]byte, 4)
	v := byte(0)
	n := testing.AllocsPerRun(2000, func() {
		for i := range ports {
			for off := range uint64(9) {
				addr := uint64(i)*0x100 + off
				v += 37
				p[0], p[1], p[2], p[3] = v, v+1, v+2, v+3
				b.Write(addr, p[:1+int(v&1)])
				b.Read(addr, p)
			}
		}
	})
	if n != 0 {
		t.Errorf("a round of accesses allocates %v times", n)
	}
}

// FuzzLoad: a stranger's state is either refused, by an error that names the
// device, with nothing changed; or taken, and then saved state is taken again.
func FuzzLoad(f *testing.F) {
	states, _, end := all()
	for i, s := range states {
		b, err := s.Save()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), s.Version(), b)
		f.Add(uint8(i), uint32(7), b)
		if len(b) > 0 {
			f.Add(uint8(i), s.Version(), b[:len(b)-1])
			f.Add(uint8(i), s.Version(), bytes.Repeat([]byte{0xFF}, len(b)))
		}
	}
	end()
	f.Fuzz(func(t *testing.T, which uint8, version uint32, b []byte) {
		states, ports, end := all()
		defer end()
		s := states[int(which)%len(states)]
		before, err := s.Save()
		if err != nil {
			t.Fatal(err)
		}
		loadErr := s.Load(version, b)
		after, err := s.Save()
		if err != nil {
			t.Fatal(err)
		}
		if loadErr != nil {
			if !strings.HasPrefix(loadErr.Error(), s.ID()+": ") {
				t.Errorf("%q does not begin with the device's name, %s", loadErr, s.ID())
			}
			if !bytes.Equal(before, after) {
				t.Errorf("refused state changed the device:\n%x\n%x", before, after)
			}
			return
		}
		if err := s.Load(s.Version(), after); err != nil {
			t.Errorf("saved state is refused: %v", err)
		}
		var p [1]byte
		for _, d := range ports {
			for off := range uint64(8) {
				d.Read(off, p[:])
				d.Write(off, p[:])
			}
		}
	})
}

// FuzzRTC: whatever is written at whatever time, the clock answers soon and its
// state can be moved.
func FuzzRTC(f *testing.F) {
	f.Add([]byte{rtcB, rtcBSet, rtcYear, 0x99, rtcB, rtcBAlarm})
	f.Fuzz(func(t *testing.T, ops []byte) {
		d, h, _ := newRTC("2024-01-01 00:00:00")
		for ; len(ops) >= 2; ops = ops[2:] {
			setCMOS(d, ops[0], ops[1])
			cmos(d, ops[1])
			h.now = h.now.Add(time.Duration(ops[0]) * time.Second)
			h.f()
		}
		state, err := d.Save()
		if err != nil {
			t.Fatal(err)
		}
		if err := d.Load(rtcVersion, state); err != nil {
			t.Fatalf("what was saved is refused: %v", err)
		}
	})
}

func BenchmarkSerialWrite(b *testing.B) {
	s := NewSerial(newIRQLatch(), io.Discard)
	defer s.Close()
	p := []byte{'x'}
	b.ReportAllocs()
	for range b.N {
		s.Write(uartData, p)
	}
}
