package devices

import (
	"encoding/binary"
	"fmt"
)

const (
	rtcID      = "rtc0"
	rtcVersion = 1

	rtcStateSize = 2 + rtcSize + 8 + 8

	// The registers can name years up to 25755, which is less.
	rtcOffsetMax = 1 << 40 // seconds
	rtcSeenMax   = 1 << 41
)

// ID names the device in a migration stream.
func (d *RTC) ID() string { return rtcID }

// Version is that of the format Save writes.
func (d *RTC) Version() uint32 { return rtcVersion }

// Save writes the state, 146 bytes:
//
//	  0  1  selected register, 0 to 127
//	  1  1  register C
//	  2 128 the registers; those of time and date count only while B's SET
//	        is on, else they are what was last read; C is 0
//	130  8  guest's time less the host's, seconds, signed
//	138  8  until when C is up to date, guest's Unix time, signed
//
// Save fails if an interrupt could not be delivered.
func (d *RTC) Save() ([]byte, error) {
	if err := d.irq.err(); err != nil {
		return nil, fmt.Errorf("%s: an interrupt was lost: %w", rtcID, err)
	}
	d.mu.Lock()
	r := d.regs
	d.mu.Unlock()
	b := make([]byte, 2, rtcStateSize)
	b[0], b[1] = r.index, r.flags
	b = append(b, r.ram[:]...)
	b = binary.LittleEndian.AppendUint64(b, uint64(r.offset))
	return binary.LittleEndian.AppendUint64(b, uint64(r.seen)), nil
}

// Load takes over what Save wrote. The guest's time stays as far from this
// host's clock as it was from the other's; an alarm that fell due on the way
// is raised now.
func (d *RTC) Load(version uint32, b []byte) error {
	if err := checkState(rtcID, version, rtcVersion, b, rtcStateSize); err != nil {
		return err
	}
	r := rtcState{
		index:  b[0],
		flags:  b[1],
		ram:    [rtcSize]byte(b[2:]),
		offset: int64(binary.LittleEndian.Uint64(b[2+rtcSize:])),
		seen:   int64(binary.LittleEndian.Uint64(b[2+rtcSize+8:])),
	}
	if err := reserved(rtcID, "index", uint64(r.index), rtcSize-1); err != nil {
		return err
	}
	if err := reserved(rtcID, "register C", uint64(r.flags), rtcCMask); err != nil {
		return err
	}
	if r.flags == rtcCPending {
		return fmt.Errorf("%s: state: register C %#x: an interrupt without a cause", rtcID, r.flags)
	}
	if err := reserved(rtcID, "register A", uint64(r.ram[rtcA]), 0xFF&^rtcAUpdating); err != nil {
		return err
	}
	if r.ram[rtcC] != 0 || r.ram[rtcD] != 0 {
		return fmt.Errorf("%s: state: registers C and D are stored as %#x and %#x, want 0", rtcID, r.ram[rtcC], r.ram[rtcD])
	}
	if r.offset < -rtcOffsetMax || r.offset > rtcOffsetMax {
		return fmt.Errorf("%s: state: time offset %d s is out of range", rtcID, r.offset)
	}
	if r.seen < -rtcSeenMax || r.seen > rtcSeenMax {
		return fmt.Errorf("%s: state: time %d s is out of range", rtcID, r.seen)
	}
	d.mu.Lock()
	d.regs = r
	now := d.clock.Now()
	d.regs.catchUp(now)
	d.regs.raise()
	fire := d.regs.flags&rtcCPending != 0
	d.schedule(now)
	d.mu.Unlock()
	if fire {
		d.irq.pulse()
	}
	return nil
}
