package devices

import (
	"bytes"
	"errors"
	"testing"
)

func TestPMPowersOffInS5Only(t *testing.T) {
	for _, c := range []struct {
		name  string
		write func(d *PM)
		want  int
	}{
		{"word", func(d *PM) { d.Write(4, []byte{0x01, 0x34}) }, 1},
		{"type, then start", func(d *PM) { d.Write(4, []byte{0x01, 0x14}); d.Write(4, []byte{0x01, 0x34}) }, 1},
		{"high byte", func(d *PM) { outb(d, 5, 0x34) }, 1},
		{"all six bytes", func(d *PM) { d.Write(0, []byte{0, 0, 0, 0, 1, 0x34}) }, 1},
		{"no start", func(d *PM) { d.Write(4, []byte{0x01, 0x14}) }, 0},
		{"S1", func(d *PM) { d.Write(4, []byte{0x01, 0x24}) }, 0},
		{"S0", func(d *PM) { outb(d, 5, 0x20) }, 0},
		{"beyond", func(d *PM) { outb(d, 7, 0x34) }, 0},
	} {
		off := 0
		d := NewPM(&level{}, func() { off++ })
		c.write(d)
		if off != c.want {
			t.Errorf("%s: powered off %d times, want %d", c.name, off, c.want)
		}
		if v := in(d, 5); v&0x20 != 0 {
			t.Errorf("%s: SLP_EN reads as 1", c.name)
		}
		wantByte(t, c.name+": control, low", in(d, 4), 0x01)
	}
}

// TestPMPowerButton: the SCI is high from the press until the guest clears the
// status, if and while it has enabled the event.
func TestPMPowerButton(t *testing.T) {
	var sci level
	d := NewPM(&sci, func() {})
	press := func() {
		t.Helper()
		if err := d.PressPowerButton(); err != nil {
			t.Fatal(err)
		}
	}
	press()
	if sci.high {
		t.Error("SCI is high, the event is not enabled")
	}
	outb(d, 3, 0x01)
	if !sci.high {
		t.Error("SCI is low, the event is pending and enabled")
	}
	press()
	outb(d, 0, 0xFF) // the other half
	wantByte(t, "status, high", in(d, 1), 0x01)
	if !sci.high || sci.sets != 1 {
		t.Errorf("SCI is %t after %d changes, want true after 1", sci.high, sci.sets)
	}
	var p [4]byte
	d.Read(0, p[:])
	if p != [4]byte{0, 1, 0, 1} {
		t.Errorf("event block reads %x", p)
	}
	d.Write(0, []byte{0x00, 0x01})
	if sci.high {
		t.Error("SCI is high after the status was cleared")
	}
	d.Write(2, []byte{0xFF, 0xFF})
	wantByte(t, "enable, low", in(d, 2), pmEnables&0xFF)
	wantByte(t, "enable, high", in(d, 3), pmEnables>>8)
	wantByte(t, "beyond", in(d, 6), 0xFF)
	press()
	if outb(d, 3, 0); sci.high {
		t.Error("SCI is high after the event was disabled")
	}
}

func TestPMMoves(t *testing.T) {
	d := NewPM(&level{}, func() {})
	outb(d, 3, 0x01)
	outb(d, 5, 0x14)
	if err := d.PressPowerButton(); err != nil {
		t.Fatal(err)
	}
	state, err := d.Save()
	if err != nil {
		t.Fatal(err)
	}
	var sci level
	d2 := NewPM(&sci, func() { t.Error("loading powers off") })
	if err := d2.Load(pmVersion, state); err != nil {
		t.Fatal(err)
	}
	if !sci.high {
		t.Error("SCI is low at the destination")
	}
	for _, c := range []struct {
		at   int
		v    byte
		want string
	}{
		{0, 0x02, "status"}, {2, 0x80, "enable"}, {4, 0x81, "control"}, {5, 0x20, "control"}, {4, 0x00, "SCI_EN"},
	} {
		b := bytes.Clone(state)
		b[c.at] = c.v
		wantError(t, d2.Load(pmVersion, b), "pm: state", c.want)
	}
	wantError(t, d2.Load(2, state), "pm", "version 2")
	wantError(t, d2.Load(pmVersion, state[:5]), "pm", "5 bytes, want 6")
	if after, err := d2.Save(); err != nil || !bytes.Equal(after, state) {
		t.Errorf("state is %x, %v, want %x", after, err, state)
	}
}

func TestPMReportsALostInterrupt(t *testing.T) {
	d := NewPM(brokenIRQ{}, func() {})
	state, err := d.Save()
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Load(pmVersion, state); !errors.Is(err, errLine) {
		t.Errorf("Load gave %v", err)
	}
	outb(d, 3, 0x01)
	if err := d.PressPowerButton(); !errors.Is(err, errLine) {
		t.Errorf("PressPowerButton gave %v", err)
	}
	_, err = d.Save()
	wantError(t, err, "pm: set SCI to true", "eventfd gone")
}

func TestPVPanic(t *testing.T) {
	var got []PanicEvent
	d := NewPVPanic(func(e PanicEvent) { got = append(got, e) })
	wantByte(t, "supported events", in(d, 0), 3)
	for _, v := range []byte{0, 4, 1, 2, 0xFF} {
		outb(d, 0, v)
	}
	want := []PanicEvent{PanicPanicked, PanicCrashLoaded, PanicPanicked | PanicCrashLoaded}
	if len(got) != len(want) {
		t.Fatalf("events %v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("event %d is %v, want %v", i, got[i], want[i])
		}
	}
	for e, s := range map[PanicEvent]string{0: "none", 1: "panicked", 2: "crash kernel loaded"} {
		if e.String() != s {
			t.Errorf("event %d is called %q, want %q", e, e, s)
		}
	}
	wantError(t, d.Load(pvpanicVersion, []byte{0}), "pvpanic", "1 bytes, want 0")
}
