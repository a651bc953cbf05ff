package devices

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"
)

// hand is a clock that is moved by hand.
type hand struct {
	now   time.Time
	f     func()
	due   time.Time
	armed bool
}

func (h *hand) Now() time.Time { return h.now }

func (h *hand) AfterFunc(d time.Duration, f func()) Timer {
	h.f = f
	h.Reset(d)
	return h
}

func (h *hand) Reset(d time.Duration) bool {
	was := h.armed
	h.due, h.armed = h.now.Add(d), true
	return was
}

func (h *hand) Stop() bool {
	was := h.armed
	h.armed = false
	return was
}

// advance moves the clock, firing the timer on the way.
func (h *hand) advance(d time.Duration) {
	end := h.now.Add(d)
	for h.armed && !h.due.After(end) {
		if h.due.After(h.now) {
			h.now = h.due
		}
		h.armed = false
		h.f()
	}
	h.now = end
}

func newRTC(at string) (*RTC, *hand, irqLatch) {
	t, err := time.Parse(time.DateTime, at)
	if err != nil {
		panic(err)
	}
	h := &hand{now: t.Add(400 * time.Millisecond)}
	irq := newIRQLatch()
	return NewRTC(irq, h), h, irq
}

func cmos(d *RTC, reg byte) byte {
	outb(d, 0, reg|0x80) // with NMI off, as kernels do it
	return in(d, 1)
}

func setCMOS(d *RTC, reg, v byte) {
	outb(d, 0, reg)
	outb(d, 1, v)
}

var rtcClockRegs = []byte{rtcCentury, rtcYear, rtcMonth, rtcDay, rtcWeekday, rtcHours, rtcMinutes, rtcSeconds}

func readClock(d *RTC) []byte {
	var v []byte
	for _, r := range rtcClockRegs {
		v = append(v, cmos(d, r))
	}
	return v
}

func TestRTCTellsTheTime(t *testing.T) {
	for _, c := range []struct {
		at   string
		b    byte
		want []byte
	}{
		{"2024-02-29 23:59:58", rtcB24Hours, []byte{0x20, 0x24, 0x02, 0x29, 5, 0x23, 0x59, 0x58}},
		{"2024-02-29 23:59:58", rtcB24Hours | rtcBBinary, []byte{20, 24, 2, 29, 5, 23, 59, 58}},
		{"1999-12-31 12:00:00", 0, []byte{0x19, 0x99, 0x12, 0x31, 6, 0x92, 0, 0}},
		{"1999-12-31 00:30:00", 0, []byte{0x19, 0x99, 0x12, 0x31, 6, 0x12, 0x30, 0}},
		{"1999-12-31 11:30:00", rtcBBinary, []byte{19, 99, 12, 31, 6, 11, 30, 0}},
		{"1999-12-31 23:30:00", rtcBBinary, []byte{19, 99, 12, 31, 6, 0x80 | 11, 30, 0}},
	} {
		d, h, _ := newRTC(c.at)
		setCMOS(d, rtcB, c.b)
		if got := readClock(d); !bytes.Equal(got, c.want) {
			t.Errorf("%s with B=%#x reads %x, want %x", c.at, c.b, got, c.want)
		}
		// Setting it to what it says and reading again changes nothing, in
		// any notation; and it goes on from there.
		set := readClock(d)
		setCMOS(d, rtcB, c.b|rtcBSet)
		h.advance(time.Hour)
		for i, r := range rtcClockRegs {
			setCMOS(d, r, set[i])
		}
		if got := readClock(d); !bytes.Equal(got, c.want) {
			t.Errorf("%s with B=%#x, stopped, reads %x, want %x", c.at, c.b, got, c.want)
		}
		setCMOS(d, rtcB, c.b)
		if got := readClock(d); !bytes.Equal(got, c.want) {
			t.Errorf("%s with B=%#x, set, reads %x, want %x", c.at, c.b, got, c.want)
		}
	}
}

func TestRTCIsSetByTheGuest(t *testing.T) {
	d, h, _ := newRTC("2024-01-01 00:00:00")
	setCMOS(d, rtcB, rtcB24Hours|rtcBSet)
	for i, v := range []byte{0x20, 0x31, 0x12, 0x31, 1, 0x23, 0x59, 0x59} {
		setCMOS(d, rtcClockRegs[i], v)
	}
	h.advance(5 * time.Second) // stopped meanwhile
	setCMOS(d, rtcB, rtcB24Hours)
	h.advance(2 * time.Second)
	want := []byte{0x20, 0x32, 0x01, 0x01, 5, 0x00, 0x00, 0x01}
	if got := readClock(d); !bytes.Equal(got, want) {
		t.Errorf("clock reads %x, want %x", got, want)
	}
	setCMOS(d, rtcMinutes, 0x30) // without stopping it
	if got := cmos(d, rtcMinutes); got != 0x30 {
		t.Errorf("minutes read %#x, want 0x30", got)
	}
	wantByte(t, "hours", cmos(d, rtcHours), 0)
}

// TestRTCTakesNonsense: dates that are none, in every notation.
func TestRTCTakesNonsense(t *testing.T) {
	for _, b := range []byte{0, rtcB24Hours, rtcBBinary, rtcBBinary | rtcB24Hours} {
		for _, v := range []byte{0, 0xFF, 0xC0, 0x7F} {
			d, h, _ := newRTC("2024-01-01 00:00:00")
			setCMOS(d, rtcB, b|rtcBSet|rtcBAlarm)
			for r := range byte(rtcA) {
				setCMOS(d, r, v)
			}
			setCMOS(d, rtcCentury, v)
			setCMOS(d, rtcB, b|rtcBAlarm)
			h.advance(time.Minute)
			readClock(d)
			state, err := d.Save()
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Load(rtcVersion, state); err != nil {
				t.Errorf("registers full of %#x, B=%#x: %v", v, b, err)
			}
		}
	}
}

func TestRTCRegisters(t *testing.T) {
	d, _, _ := newRTC("2024-01-01 00:00:00")
	wantByte(t, "A", cmos(d, rtcA), rtcAReset)
	wantByte(t, "B", cmos(d, rtcB), rtcB24Hours)
	wantByte(t, "D", cmos(d, rtcD), rtcDValid)
	setCMOS(d, rtcA, 0xFF)
	wantByte(t, "A: never updating", cmos(d, rtcA), 0x7F)
	setCMOS(d, rtcC, 0xFF)
	wantByte(t, "C", cmos(d, rtcC), 0)
	setCMOS(d, rtcD, 0)
	wantByte(t, "D", cmos(d, rtcD), rtcDValid)
	setCMOS(d, 0x0F, 0x0A) // shutdown status: how a warm reset goes on
	setCMOS(d, 0x7F, 0x77)
	wantByte(t, "RAM 0x0F", cmos(d, 0x0F), 0x0A)
	wantByte(t, "RAM 0x7F", cmos(d, 0x7F), 0x77)
	wantByte(t, "index port", in(d, 0), 0xFF)
	d.Write(0, []byte{0x7F, 0x11}) // both ports by one outw
	wantByte(t, "RAM 0x7F", cmos(d, 0x7F), 0x11)
}

func TestRTCAlarm(t *testing.T) {
	for _, c := range []struct {
		at      string
		h, m, s byte
		after   time.Duration
	}{
		{"2024-01-01 10:00:00", 0x10, 0x00, 0x05, 5 * time.Second},
		{"2024-01-01 10:00:00", 0x10, 0x00, 0x00, 24 * time.Hour},
		{"2024-01-01 10:00:00", 0x09, 0x59, 0x59, 24*time.Hour - time.Second},
		{"2024-01-01 10:00:30", 0xFF, 0xFF, 0x10, 40 * time.Second},
		{"2024-01-01 10:00:30", 0xC0, 0xC0, 0xC0, time.Second},
		{"2024-01-01 10:00:30", 0xFF, 0x00, 0x30, time.Hour},
		{"2024-01-01 10:00:30", 0xFF, 0x00, 0xFF, time.Second},
		{"2024-01-01 23:59:59", 0x00, 0xFF, 0xFF, time.Second},
		{"2024-01-01 10:00:00", 0x12, 0xFF, 0xFF, 2 * time.Hour},
		{"2024-01-01 10:00:00", 0x24, 0xFF, 0xFF, 0},
		{"2024-01-01 10:00:00", 0xFF, 0x60, 0xFF, 0},
		{"2024-01-01 10:00:00", 0xFF, 0xFF, 0x7A, 0},
	} {
		d, h, irq := newRTC(c.at)
		setCMOS(d, rtcHoursAlarm, c.h)
		setCMOS(d, rtcMinutesAlarm, c.m)
		setCMOS(d, rtcSecondsAlarm, c.s)
		setCMOS(d, rtcB, rtcB24Hours|rtcBAlarm)
		if c.after == 0 {
			h.advance(48 * time.Hour)
			if irq.taken() {
				t.Errorf("alarm %x:%x:%x, which is no time, went off", c.h, c.m, c.s)
			}
			continue
		}
		h.advance(c.after - 401*time.Millisecond)
		if irq.taken() {
			t.Errorf("%s: alarm %x:%x:%x is early", c.at, c.h, c.m, c.s)
		}
		h.advance(time.Millisecond)
		if !irq.taken() {
			t.Errorf("%s: alarm %x:%x:%x did not come after %v", c.at, c.h, c.m, c.s, c.after)
			continue
		}
		h.advance(72 * time.Hour)
		if irq.taken() {
			t.Error("another edge although C was not read")
		}
		wantByte(t, "C", cmos(d, rtcC), rtcCPending|rtcCAlarm|rtcCUpdate)
		wantByte(t, "C read again", cmos(d, rtcC), 0)
		h.advance(24 * time.Hour)
		if !irq.taken() {
			t.Error("the alarm did not come again the next day")
		}
	}
}

// TestRTCUpdateEnded is what hwclock waits for: one interrupt a second.
func TestRTCUpdateEnded(t *testing.T) {
	d, h, irq := newRTC("2024-01-01 00:00:00")
	setCMOS(d, rtcB, rtcB24Hours|rtcBUpdate)
	h.advance(599 * time.Millisecond)
	if irq.taken() {
		t.Error("early")
	}
	h.advance(time.Millisecond)
	for range 3 {
		if !irq.taken() {
			t.Fatal("no interrupt at the second")
		}
		wantByte(t, "C", cmos(d, rtcC), rtcCPending|rtcCUpdate)
		h.advance(time.Second)
	}
	setCMOS(d, rtcB, rtcB24Hours|rtcBUpdate|rtcBSet)
	wantByte(t, "B", cmos(d, rtcB), rtcB24Hours|rtcBSet) // SET clears UIE
	cmos(d, rtcC)
	irq.taken()
	h.advance(10 * time.Second)
	if irq.taken() {
		t.Error("a stopped clock interrupts")
	}
	wantByte(t, "C", cmos(d, rtcC), 0)
	if h.armed {
		t.Error("the timer runs with nothing to wait for")
	}
}

// TestRTCPolled: the flags come without the interrupts, for a guest that polls.
func TestRTCPolled(t *testing.T) {
	d, h, irq := newRTC("2024-01-01 00:00:00")
	wantByte(t, "C", cmos(d, rtcC), 0)
	h.advance(time.Second)
	wantByte(t, "C", cmos(d, rtcC), rtcCUpdate)
	h.advance(time.Second)
	if setCMOS(d, rtcB, rtcB24Hours|rtcBUpdate); !irq.taken() {
		t.Error("no interrupt when a flag that is set is enabled")
	}
	h.advance(-time.Hour) // the host's clock is set back
	cmos(d, rtcC)
	h.advance(time.Second)
	if !irq.taken() {
		t.Error("no interrupt after the host's clock was set back")
	}
}

// TestRTCMoves: a guest that set its clock keeps it, and an alarm that fell due
// on the way goes off at the destination.
func TestRTCMoves(t *testing.T) {
	d, h, _ := newRTC("2024-01-01 00:00:00")
	setCMOS(d, rtcYear, 0x30)
	setCMOS(d, rtcHoursAlarm, 0xFF)
	setCMOS(d, rtcMinutesAlarm, 0x00)
	setCMOS(d, rtcSecondsAlarm, 0x10)
	setCMOS(d, rtcB, rtcB24Hours|rtcBAlarm)
	h.advance(9 * time.Second)
	state, err := d.Save()
	if err != nil {
		t.Fatal(err)
	}
	d2, h2, irq2 := newRTC("2024-01-01 00:00:08")
	if err := d2.Load(rtcVersion, state); err != nil {
		t.Fatal(err)
	}
	if irq2.taken() {
		t.Error("the alarm is early")
	}
	wantByte(t, "year", cmos(d2, rtcYear), 0x30)
	h2.advance(2 * time.Second)
	if !irq2.taken() {
		t.Error("no alarm")
	}
	d3, _, irq3 := newRTC("2024-01-01 00:00:20")
	if err := d3.Load(rtcVersion, state); err != nil {
		t.Fatal(err)
	}
	if !irq3.taken() {
		t.Error("no alarm after arriving late")
	}
	state3, err := d3.Save()
	if err != nil {
		t.Fatal(err)
	}
	d4, _, irq4 := newRTC("2024-01-01 00:00:20")
	if err := d4.Load(rtcVersion, state3); err != nil {
		t.Fatal(err)
	}
	if !irq4.taken() {
		t.Error("a pending interrupt is not raised anew")
	}
}

func TestRTCRefusesState(t *testing.T) {
	d, _, _ := newRTC("2024-01-01 00:00:00")
	good, err := d.Save()
	if err != nil {
		t.Fatal(err)
	}
	le := func(v int64) []byte { return binary.LittleEndian.AppendUint64(nil, uint64(v)) }
	for _, c := range []struct {
		at   int
		b    []byte
		want string
	}{
		{0, []byte{128}, "index"},
		{1, []byte{rtcCPending}, "without a cause"},
		{1, []byte{0x01}, "register C"},
		{2 + rtcA, []byte{0xFF}, "register A"},
		{2 + rtcD, []byte{0x80}, "registers C and D"},
		{130, le(rtcOffsetMax + 1), "time offset"},
		{130, le(-1 << 63), "time offset"},
		{138, le(1<<63 - 1), "time 9223372036854775807 s"},
	} {
		b := bytes.Clone(good)
		copy(b[c.at:], c.b)
		wantError(t, d.Load(rtcVersion, b), "rtc0: state", c.want)
	}
	wantError(t, d.Load(0, good), "rtc0", "version 0")
	wantError(t, d.Load(rtcVersion, nil), "rtc0", "0 bytes, want 146")
	if after, err := d.Save(); err != nil || !bytes.Equal(after, good) {
		t.Errorf("state after all refusals: %x, %v, want %x", after, err, good)
	}
	broken := NewRTC(brokenIRQ{}, SystemClock{})
	defer broken.Close()
	broken.regs.flags = rtcCUpdate
	setCMOS(broken, rtcB, rtcBUpdate)
	_, err = broken.Save()
	wantError(t, err, "rtc0", "interrupt was lost")
}

// TestRTCSystemClock: with the host's own clock, the guest's is the host's.
func TestRTCSystemClock(t *testing.T) {
	irq := newIRQLatch()
	d := NewRTC(irq, SystemClock{})
	defer d.Close()
	setCMOS(d, rtcB, rtcB24Hours|rtcBBinary|rtcBUpdate)
	irq.wait(t)
	before := time.Now().UTC()
	got := readClock(d)
	after := time.Now().UTC()
	year := int(got[0])*100 + int(got[1])
	if year < before.Year() || year > after.Year() {
		t.Errorf("the year is %d, the host's %d", year, before.Year())
	}
}
