package devices

import (
	"fmt"
	"sync"
)

// Status register of the keyboard controller (port 0x64, reading).
const (
	kbdOutputFull  = 1 << 0
	kbdSystem      = 1 << 2 // self test passed
	kbdLastCommand = 1 << 3 // the last write went to 0x64
	kbdUnlocked    = 1 << 4
)

// Commands (port 0x64, writing). Those from 0xF0 on pulse the lines of the
// output port whose bit is 0.
const (
	kbdReadConfig   = 0x20
	kbdWriteConfig  = 0x60
	kbdDisableAux   = 0xA7
	kbdEnableAux    = 0xA8
	kbdTestAux      = 0xA9
	kbdSelfTest     = 0xAA
	kbdTestKeyboard = 0xAB
	kbdDisable      = 0xAD
	kbdEnable       = 0xAE
	kbdReadInput    = 0xC0
	kbdReadOutput   = 0xD0
	kbdWriteOutput  = 0xD1
	kbdLoopKeyboard = 0xD2
	kbdLoopAux      = 0xD3
	kbdWriteAux     = 0xD4
	kbdPulse        = 0xF0
)

const (
	kbdConfigDisabled    = 1 << 4
	kbdConfigAuxDisabled = 1 << 5
	kbdConfigReset       = 0x65 // keyboard irq, self test passed, aux off, translate
	kbdLineReset         = 1 << 0
	kbdOutputReset       = 0x03 // no reset, A20 on
)

// I8042 is a PC keyboard controller with nothing plugged in: enough for a
// kernel to probe it quickly and to reset the machine by it (reboot=k, or
// outb 0xFE to 0x64). Its two ports are not adjacent (0x61 is the timer's), so
// each is a device of its own on the bus: [I8042.Data] and [I8042.Command].
type I8042 struct {
	onReset func()
	data    kbdDataPort
	command kbdCommandPort

	mu    sync.Mutex
	state kbdState // guarded by mu
}

// kbdState is the controller's state, in the order in which Save writes it.
type kbdState struct {
	config      byte
	output      byte // output port: bit 0 reset (active low), bit 1 A20
	buffer      byte // what the data port reads
	full        byte // 1: buffer has not been read yet
	pending     byte // the command whose parameter comes next, or 0
	lastCommand byte // 1: the last write went to the command port
}

type (
	kbdDataPort    struct{ d *I8042 }
	kbdCommandPort struct{ d *I8042 }
)

// NewI8042 returns the controller. onReset is called each time the guest asks
// for a reset, on its thread.
func NewI8042(onReset func()) *I8042 {
	d := &I8042{onReset: onReset, state: kbdState{config: kbdConfigReset, output: kbdOutputReset}}
	d.data.d, d.command.d = d, d
	return d
}

// Data is the data port, 0x60: one byte.
func (d *I8042) Data() Device { return &d.data }

// Command is the command and status port, 0x64: one byte.
func (d *I8042) Command() Device { return &d.command }

// Read takes a byte out of the output buffer.
func (p *kbdDataPort) Read(off uint64, b []byte) {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	for i := range b {
		b[i] = p.d.state.buffer
		p.d.state.full = 0
	}
}

// Write gives a command its parameter, or sends a byte to the keyboard that
// isn't there.
func (p *kbdDataPort) Write(off uint64, b []byte) {
	p.d.write(b, (*kbdState).parameter)
}

// Read gives the status.
func (p *kbdCommandPort) Read(off uint64, b []byte) {
	p.d.mu.Lock()
	defer p.d.mu.Unlock()
	for i := range b {
		b[i] = p.d.state.status()
	}
}

// Write starts a command.
func (p *kbdCommandPort) Write(off uint64, b []byte) {
	p.d.write(b, (*kbdState).start)
}

func (d *I8042) write(b []byte, f func(*kbdState, byte) bool) {
	reset := false
	d.mu.Lock()
	for _, v := range b {
		reset = f(&d.state, v) || reset
	}
	d.mu.Unlock()
	if reset {
		d.onReset()
	}
}

func (s *kbdState) status() byte {
	v := byte(kbdUnlocked | kbdSystem)
	if s.full != 0 {
		v |= kbdOutputFull
	}
	if s.lastCommand != 0 {
		v |= kbdLastCommand
	}
	return v
}

func (s *kbdState) answer(v byte) {
	s.buffer, s.full = v, 1
}

// start takes a command and reports whether it resets the machine.
func (s *kbdState) start(cmd byte) (reset bool) {
	s.lastCommand, s.pending = 1, 0
	switch cmd {
	case kbdReadConfig:
		s.answer(s.config)
	case kbdWriteConfig, kbdWriteOutput, kbdLoopKeyboard, kbdLoopAux, kbdWriteAux:
		s.pending = cmd
	case kbdDisableAux:
		s.config |= kbdConfigAuxDisabled
	case kbdEnableAux:
		s.config &^= kbdConfigAuxDisabled
	case kbdTestAux:
		s.answer(1) // clock line stuck low: there is no mouse port
	case kbdSelfTest:
		s.answer(0x55)
	case kbdTestKeyboard:
		s.answer(0)
	case kbdDisable:
		s.config |= kbdConfigDisabled
	case kbdEnable:
		s.config &^= kbdConfigDisabled
	case kbdReadInput:
		s.answer(0x80) // keyboard not locked
	case kbdReadOutput:
		s.answer(s.output)
	default:
		return cmd >= kbdPulse && cmd&kbdLineReset == 0
	}
	return false
}

// parameter takes a byte written to the data port and reports whether it
// resets the machine.
func (s *kbdState) parameter(v byte) (reset bool) {
	cmd := s.pending
	s.lastCommand, s.pending = 0, 0
	switch cmd {
	case kbdWriteConfig:
		s.config = v
	case kbdWriteOutput:
		s.output = v | kbdLineReset
		return v&kbdLineReset == 0
	case kbdLoopKeyboard, kbdLoopAux:
		// The aux loop answers without the status bit that marks aux data:
		// a kernel learns at once, not after a timeout, that there is no
		// mouse.
		s.answer(v)
	}
	return false
}

const (
	kbdID        = "i8042"
	kbdVersion   = 1
	kbdStateSize = 6
)

// ID names the device in a migration stream.
func (d *I8042) ID() string { return kbdID }

// Version is that of the format Save writes.
func (d *I8042) Version() uint32 { return kbdVersion }

// Save writes six bytes: configuration byte, output port, output buffer,
// buffer full (0 or 1), command that waits for its parameter (or 0), last
// write was a command (0 or 1).
func (d *I8042) Save() ([]byte, error) {
	d.mu.Lock()
	s := d.state
	d.mu.Unlock()
	return []byte{s.config, s.output, s.buffer, s.full, s.pending, s.lastCommand}, nil
}

// Load takes over what Save wrote.
func (d *I8042) Load(version uint32, b []byte) error {
	if err := checkState(kbdID, version, kbdVersion, b, kbdStateSize); err != nil {
		return err
	}
	s := kbdState{config: b[0], output: b[1], buffer: b[2], full: b[3], pending: b[4], lastCommand: b[5]}
	if s.output&kbdLineReset == 0 {
		return fmt.Errorf("%s: state: output port %#x: the reset line is held low", kbdID, s.output)
	}
	if err := reserved(kbdID, "buffer full", uint64(s.full), 1); err != nil {
		return err
	}
	switch s.pending {
	case 0, kbdWriteConfig, kbdWriteOutput, kbdLoopKeyboard, kbdLoopAux, kbdWriteAux:
	default:
		return fmt.Errorf("%s: state: pending command %#x takes no parameter", kbdID, s.pending)
	}
	if err := reserved(kbdID, "last write", uint64(s.lastCommand), 1); err != nil {
		return err
	}
	d.mu.Lock()
	d.state = s
	d.mu.Unlock()
	return nil
}
