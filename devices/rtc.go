package devices

import (
	"sync"
	"time"
)

// Registers of an MC146818 real-time clock (data sheet, figure 12).
const (
	rtcSeconds      = 0x00
	rtcSecondsAlarm = 0x01
	rtcMinutes      = 0x02
	rtcMinutesAlarm = 0x03
	rtcHours        = 0x04
	rtcHoursAlarm   = 0x05
	rtcWeekday      = 0x06
	rtcDay          = 0x07
	rtcMonth        = 0x08
	rtcYear         = 0x09
	rtcA            = 0x0A
	rtcB            = 0x0B
	rtcC            = 0x0C
	rtcD            = 0x0D
	rtcCentury      = 0x32 // not in the data sheet; where PCs keep it
	rtcSize         = 128
)

const (
	rtcAUpdating = 1 << 7
	rtcAReset    = 0x26 // 32768 Hz crystal, 1024 Hz periodic rate

	rtcBSet       = 1 << 7 // the clock is stopped, to be set
	rtcBAlarm     = 1 << 5
	rtcBUpdate    = 1 << 4
	rtcBBinary    = 1 << 2 // else BCD
	rtcB24Hours   = 1 << 1
	rtcEnableMask = rtcBAlarm | rtcBUpdate

	rtcCPending = 1 << 7
	rtcCAlarm   = 1 << 5
	rtcCUpdate  = 1 << 4
	rtcCMask    = rtcCPending | rtcCAlarm | rtcCUpdate

	rtcDValid = 1 << 7 // the battery is good
)

// Clock is the time a host keeps. Tests put their own in its place.
type Clock interface {
	Now() time.Time
	// AfterFunc calls f in its own goroutine after d.
	AfterFunc(d time.Duration, f func()) Timer
}

// Timer is one that [Clock] started; Reset and Stop are those of [time.Timer].
type Timer interface {
	Reset(d time.Duration) bool
	Stop() bool
}

// SystemClock is the host's own clock.
type SystemClock struct{}

// Now is [time.Now].
func (SystemClock) Now() time.Time { return time.Now() }

// AfterFunc is [time.AfterFunc].
func (SystemClock) AfterFunc(d time.Duration, f func()) Timer { return time.AfterFunc(d, f) }

// RTC is an MC146818 with 128 bytes of CMOS RAM behind an index port (0x70)
// and a data port (0x71): one range of two bytes.
//
// The guest's time is the clock's, in UTC, plus an offset that changes when the
// guest sets it. BCD and binary, 12 and 24 hours are supported; the update in
// progress bit never shows, since the time is read in one piece. Alarm and
// update-ended interrupts work. The periodic interrupt and the square wave do
// not: their bits in registers A and B keep what is written to them and have
// no effect.
type RTC struct {
	irq   edge
	clock Clock
	timer Timer

	mu   sync.Mutex
	regs rtcState // guarded by mu
}

// rtcState is what a guest can tell.
type rtcState struct {
	index byte
	// ram holds every register but those that are made when they are read:
	// time and date while the clock runs, and C.
	ram    [rtcSize]byte
	flags  byte  // register C
	offset int64 // guest's time less the clock's, seconds
	seen   int64 // until when flags is up to date, guest's Unix time
}

// NewRTC returns the device. irq is pulsed when register C's IRQF becomes set.
// Close ends it.
func NewRTC(irq Interrupt, clock Clock) *RTC {
	d := &RTC{irq: edge{irq: irq}, clock: clock}
	d.regs.ram[rtcA] = rtcAReset
	d.regs.ram[rtcB] = rtcB24Hours
	d.regs.seen = clock.Now().Unix()
	d.timer = clock.AfterFunc(time.Hour, d.tick)
	d.timer.Stop()
	return d
}

// Close stops the timer. The vCPUs must have stopped: an access may start it.
func (d *RTC) Close() { d.timer.Stop() }

// Read reads the selected register from the data port. The index port is
// write-only and gives all-ones.
func (d *RTC) Read(off uint64, p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range p {
		p[i] = 0xFF
		if off+uint64(i) == 1 {
			p[i] = d.read()
		}
	}
}

// Write selects a register (index port, whose bit 7 gates NMI on a PC and is
// ignored) or writes the selected one (data port).
func (d *RTC) Write(off uint64, p []byte) {
	d.mu.Lock()
	fire := false
	for i, b := range p {
		switch off + uint64(i) {
		case 0:
			d.regs.index = b &^ 0x80
		case 1:
			fire = d.write(b) || fire
		}
	}
	d.mu.Unlock()
	if fire {
		d.irq.pulse()
	}
}

func (d *RTC) read() byte {
	r := &d.regs
	now := d.clock.Now()
	switch r.index {
	case rtcC:
		r.catchUp(now)
		r.raise() // read and taken back at once: there is nothing to pulse
		v := r.flags
		r.flags = 0
		d.schedule(now)
		return v
	case rtcD:
		return rtcDValid
	}
	if isTime(r.index) && r.ram[rtcB]&rtcBSet == 0 {
		r.latch(now)
	}
	return r.ram[r.index]
}

// write reports whether the interrupt became pending.
func (d *RTC) write(v byte) (fire bool) {
	r := &d.regs
	now := d.clock.Now()
	// What happened until now happened by the registers as they were.
	r.catchUp(now)
	set := r.ram[rtcB]&rtcBSet != 0
	switch {
	case r.index == rtcA:
		r.ram[rtcA] = v &^ rtcAUpdating
		return false
	case r.index == rtcC || r.index == rtcD:
		return false // read-only
	case r.index == rtcB:
		if v&rtcBSet != 0 {
			v &^= rtcBUpdate // as the data sheet has it
			if !set {
				r.latch(now)
			}
		}
		r.ram[rtcB] = v
		if set && v&rtcBSet == 0 {
			r.setTime(now)
		}
	case isTime(r.index) && !set:
		r.latch(now)
		r.ram[r.index] = v
		r.setTime(now)
	default:
		r.ram[r.index] = v
	}
	fire = r.raise()
	d.schedule(now)
	return fire
}

// isTime says which registers are the time, not an alarm.
func isTime(index byte) bool {
	switch index {
	case rtcSeconds, rtcMinutes, rtcHours, rtcWeekday, rtcDay, rtcMonth, rtcYear, rtcCentury:
		return true
	}
	return false
}

// tick runs when the next event that the guest wants to hear of is due.
func (d *RTC) tick() {
	d.mu.Lock()
	now := d.clock.Now()
	d.regs.catchUp(now)
	fire := d.regs.raise()
	d.schedule(now)
	d.mu.Unlock()
	if fire {
		d.irq.pulse()
	}
}

// schedule starts the timer for the next event that would interrupt, if one
// can. mu is held.
func (d *RTC) schedule(now time.Time) {
	next, ok := d.regs.next()
	if !ok {
		d.timer.Stop()
		return
	}
	wait := time.Unix(next-d.regs.offset, 0).Sub(now)
	d.timer.Reset(max(wait, 0))
}
