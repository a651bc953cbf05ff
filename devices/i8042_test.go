package devices

import (
	"bytes"
	"testing"
)

func newI8042(t *testing.T) (data, command Device, d *I8042, resets *int) {
	resets = new(int)
	d = NewI8042(func() { *resets++ })
	return d.Data(), d.Command(), d, resets
}

func TestI8042Resets(t *testing.T) {
	for _, c := range []struct {
		name  string
		write func(data, command Device)
		want  int
	}{
		{"reboot=k", func(_, c Device) { outb(c, 0, 0xFE) }, 1},
		{"pulse all lines", func(_, c Device) { outb(c, 0, 0xF0) }, 1},
		{"pulse none", func(_, c Device) { outb(c, 0, 0xFF) }, 0},
		{"pulse A20", func(_, c Device) { outb(c, 0, 0xFD) }, 0},
		{"output port", func(d, c Device) { outb(c, 0, 0xD1); outb(d, 0, 0x02) }, 1},
		{"output port, A20 only", func(d, c Device) { outb(c, 0, 0xD1); outb(d, 0, 0x01) }, 0},
		{"to the keyboard", func(d, _ Device) { outb(d, 0, 0xFE) }, 0},
		{"parameter of another", func(d, c Device) { outb(c, 0, 0x60); outb(d, 0, 0xFE) }, 0},
	} {
		data, command, _, resets := newI8042(t)
		c.write(data, command)
		if *resets != c.want {
			t.Errorf("%s: %d resets, want %d", c.name, *resets, c.want)
		}
	}
}

// TestI8042Probed follows Linux's driver: buffer flushed, configuration read
// twice and written, the mouse port found missing without a timeout.
func TestI8042Probed(t *testing.T) {
	data, command, _, resets := newI8042(t)
	answer := func(what string, cmd, want byte) {
		t.Helper()
		outb(command, 0, cmd)
		wantByte(t, what+": status", in(command, 0), kbdUnlocked|kbdSystem|kbdOutputFull|kbdLastCommand)
		wantByte(t, what, in(data, 0), want)
		wantByte(t, what+": status", in(command, 0), kbdUnlocked|kbdSystem|kbdLastCommand)
	}
	wantByte(t, "status", in(command, 0), kbdUnlocked|kbdSystem)
	answer("self test", 0xAA, 0x55)
	answer("configuration", 0x20, kbdConfigReset)
	outb(command, 0, 0x60)
	outb(data, 0, 0x74)
	answer("configuration", 0x20, 0x74)
	outb(command, 0, 0xAE)
	answer("keyboard enabled", 0x20, 0x64)
	outb(command, 0, 0xAD)
	answer("keyboard disabled", 0x20, 0x74)
	outb(command, 0, 0xA8)
	answer("mouse enabled", 0x20, 0x54)
	outb(command, 0, 0xA7)
	answer("mouse disabled", 0x20, 0x74)
	answer("keyboard test", 0xAB, 0)
	answer("mouse test", 0xA9, 1)
	answer("input port", 0xC0, 0x80)
	answer("output port", 0xD0, 0x03)
	outb(command, 0, 0xD3)
	outb(data, 0, 0x5A)
	wantByte(t, "mouse loop: status", in(command, 0), kbdUnlocked|kbdSystem|kbdOutputFull)
	wantByte(t, "mouse loop", in(data, 0), 0x5A)
	outb(data, 0, 0xF2) // nobody is there to say who it is
	wantByte(t, "keyboard: status", in(command, 0), kbdUnlocked|kbdSystem)
	outb(command, 0, 0xD4)
	outb(data, 0, 0xFE)
	if *resets != 0 {
		t.Error("the probe resets the machine")
	}
}

func TestI8042Moves(t *testing.T) {
	_, command, d, _ := newI8042(t)
	outb(command, 0, 0x20)
	outb(command, 0, 0xD1)
	state, err := d.Save()
	if err != nil {
		t.Fatal(err)
	}
	data2, command2, d2, resets2 := newI8042(t)
	if err := d2.Load(kbdVersion, state); err != nil {
		t.Fatal(err)
	}
	wantByte(t, "status", in(command2, 0), kbdUnlocked|kbdSystem|kbdOutputFull|kbdLastCommand)
	wantByte(t, "buffer", in(data2, 0), kbdConfigReset)
	for _, c := range []struct {
		at   int
		v    byte
		want string
	}{
		{1, 0xFE, "output port"}, {3, 2, "buffer full"}, {4, 0xAA, "pending command 0xaa"}, {5, 2, "last write"},
	} {
		b := bytes.Clone(state)
		b[c.at] = c.v
		wantError(t, d2.Load(kbdVersion, b), "i8042: state", c.want)
	}
	wantError(t, d2.Load(9, state), "i8042", "version 9")
	wantError(t, d2.Load(kbdVersion, append(state, 0)), "i8042", "7 bytes, want 6")
	outb(data2, 0, 0x00)
	if *resets2 != 1 {
		t.Error("the command that waited for its parameter was lost")
	}
}
