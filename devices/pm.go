package devices

import (
	"encoding/binary"
	"fmt"
	"sync"
)

// Registers of the ACPI fixed hardware (ACPI specification 6.5, 4.8.3), as
// offsets in PM's six bytes.
const (
	pmStatus  = 0 // PM1a_EVT_BLK, status half
	pmEnable  = 2 // PM1a_EVT_BLK, enable half
	pmControl = 4 // PM1a_CNT_BLK
	pmSize    = 6
)

// Bits of the PM1 registers (tables 4.11 to 4.13).
const (
	pmTimer       = 1 << 0
	pmGlobal      = 1 << 5
	pmPowerButton = 1 << 8
	pmSleepButton = 1 << 9
	pmRTC         = 1 << 10
	pmWake        = 1 << 15

	pmSCIEnable  = 1 << 0
	pmBusMaster  = 1 << 1
	pmSleepShift = 10
	pmSleepMask  = 7 << pmSleepShift
	pmSleepStart = 1 << 13

	// The timer, global lock, sleep button and RTC events never happen, but
	// an ACPI driver expects to read back the enables it wrote.
	pmEnables     = pmTimer | pmGlobal | pmPowerButton | pmSleepButton | pmRTC
	pmStatuses    = pmPowerButton | pmWake
	pmControlKept = pmBusMaster | pmSleepMask
)

// SleepTypeS5 is the SLP_TYP that powers the machine off. The DSDT's \_S5
// package has to say the same.
const SleepTypeS5 = 5

// PM is the ACPI power management event block and control register: one
// range of six bytes, PM1a_EVT_BLK (4) followed by PM1a_CNT_BLK (2). There is
// no SMI command port, so SCI_EN is always set. Sleep types other than S5 are
// stored and otherwise ignored, since the DSDT offers none.
type PM struct {
	sci        LevelInterrupt
	onPowerOff func()

	mu                      sync.Mutex
	status, enable, control uint16 // guarded by mu
	level                   bool   // what sci was last set to; guarded by mu
	sciErr                  error  // first failure of sci; guarded by mu
}

// NewPM returns the device. sci is the level-triggered line that the FADT
// names; onPowerOff is called each time the guest enters S5, on its thread.
func NewPM(sci LevelInterrupt, onPowerOff func()) *PM {
	return &PM{sci: sci, onPowerOff: onPowerOff, control: pmSCIEnable}
}

// PressPowerButton reports a press of the power button to the guest. A guest
// that has not enabled the event sees it when it does. The error is the
// interrupt line's.
func (d *PM) PressPowerButton() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.status |= pmPowerButton
	return d.updateSCI()
}

// updateSCI drives the line by what is pending and enabled. It runs with mu
// held, so that two changes can't reach the line in the wrong order.
func (d *PM) updateSCI() error {
	level := d.status&d.enable != 0
	if level == d.level {
		return nil
	}
	if err := d.sci.Set(level); err != nil {
		err = fmt.Errorf("pm: set SCI to %t: %w", level, err)
		if d.sciErr == nil {
			d.sciErr = err
		}
		return err
	}
	d.level = level
	return nil
}

// Read gives the registers, in any width.
func (d *PM) Read(off uint64, p []byte) {
	d.mu.Lock()
	regs := d.bytes()
	d.mu.Unlock()
	for i := range p {
		if at := off + uint64(i); at < pmSize {
			p[i] = regs[at]
		} else {
			p[i] = 0xFF
		}
	}
}

func (d *PM) bytes() (regs [pmSize]byte) {
	binary.LittleEndian.PutUint16(regs[pmStatus:], d.status)
	binary.LittleEndian.PutUint16(regs[pmEnable:], d.enable)
	binary.LittleEndian.PutUint16(regs[pmControl:], d.control)
	return regs
}

// Write changes the registers, in any width; a status bit is cleared by
// writing 1 to it.
func (d *PM) Write(off uint64, p []byte) {
	d.mu.Lock()
	start := false
	for i, b := range p {
		at := off + uint64(i)
		shift := 8 * (at & 1)
		v, mask := uint16(b)<<shift, uint16(0xFF)<<shift
		switch at &^ 1 {
		case pmStatus:
			d.status &^= v
		case pmEnable:
			d.enable = (d.enable&^mask | v) & pmEnables
		case pmControl:
			d.control = (d.control&^mask|v)&pmControlKept | pmSCIEnable
			start = start || v&pmSleepStart != 0
		}
	}
	powerOff := start && d.control&pmSleepMask == SleepTypeS5<<pmSleepShift
	_ = d.updateSCI() // kept in sciErr for Save
	d.mu.Unlock()
	if powerOff {
		d.onPowerOff()
	}
}

const (
	pmID      = "pm"
	pmVersion = 1
)

// ID names the device in a migration stream.
func (d *PM) ID() string { return pmID }

// Version is that of the format Save writes.
func (d *PM) Version() uint32 { return pmVersion }

// Save writes three 16-bit registers: status, enable, control. It fails if an
// interrupt could not be delivered.
func (d *PM) Save() ([]byte, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.sciErr != nil {
		return nil, d.sciErr
	}
	regs := d.bytes()
	return regs[:], nil
}

// Load takes over what Save wrote and drives SCI to match it.
func (d *PM) Load(version uint32, b []byte) error {
	if err := checkState(pmID, version, pmVersion, b, pmSize); err != nil {
		return err
	}
	status := binary.LittleEndian.Uint16(b[pmStatus:])
	enable := binary.LittleEndian.Uint16(b[pmEnable:])
	control := binary.LittleEndian.Uint16(b[pmControl:])
	if err := reserved(pmID, "status", uint64(status), pmStatuses); err != nil {
		return err
	}
	if err := reserved(pmID, "enable", uint64(enable), pmEnables); err != nil {
		return err
	}
	if err := reserved(pmID, "control", uint64(control), pmControlKept|pmSCIEnable); err != nil {
		return err
	}
	if control&pmSCIEnable == 0 {
		return fmt.Errorf("%s: state: control %#x: SCI_EN is clear, it is always set in this machine", pmID, control)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	level := status&enable != 0
	if err := d.sci.Set(level); err != nil {
		return fmt.Errorf("%s: set SCI to %t: %w", pmID, level, err)
	}
	d.status, d.enable, d.control, d.level = status, enable, control, level
	return nil
}
