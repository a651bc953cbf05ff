package devices

import "fmt"

const (
	serialID      = "serial0"
	serialVersion = 1

	serialHeader    = 12
	serialStateSize = serialHeader + 2*uartFIFOSize

	serialTHRI    = 1 << 0
	serialStalled = 1 << 1
)

// ID names the device in a migration stream.
func (s *Serial) ID() string { return serialID }

// Version is that of the format Save writes.
func (s *Serial) Version() uint32 { return serialVersion }

// Save writes the state, 44 bytes, a byte each:
//
//	 0 IER   1 FCR   2 LCR   3 MCR   4 SCR   5 DLL   6 DLM
//	 7 LSR, the error bits that wait to be read
//	 8 MSR, the delta bits that wait to be read
//	 9 flags: 1 the transmitter's interrupt is pending, 2 THRE is clear
//	10 n, the number of bytes received
//	11 0
//	12 the bytes, the oldest first; 0 from n to 16
//	28 the error bits (of LSR) of each; 0 from n to 16
//
// What waits to be written on this host is no part of it: see [Serial.Flush].
// Save fails if an interrupt could not be delivered.
func (s *Serial) Save() ([]byte, error) {
	if err := s.irq.err(); err != nil {
		return nil, fmt.Errorf("%s: an interrupt was lost: %w", serialID, err)
	}
	s.mu.Lock()
	r := s.regs
	s.mu.Unlock()
	var flags byte
	if r.thri {
		flags |= serialTHRI
	}
	if r.stalled {
		flags |= serialStalled
	}
	b := make([]byte, serialStateSize)
	copy(b, []byte{r.ier, r.fcr, r.lcr, r.mcr, r.scr, r.dll, r.dlm, r.lineErrs, r.modemDeltas, flags, byte(r.count)})
	copy(b[serialHeader:], r.rx[:r.count])
	copy(b[serialHeader+uartFIFOSize:], r.errs[:r.count])
	return b, nil
}

// Load takes over what Save wrote. A transmitter that was held up is free
// again on a host whose ring has room, and data that rests in the FIFO counts
// as having rested long enough; a pending interrupt is raised anew.
func (s *Serial) Load(version uint32, b []byte) error {
	r, err := parseSerial(version, b)
	if err != nil {
		return err
	}
	s.mu.Lock()
	held := r.stalled
	r.stalled = !s.out.room()
	r.thri = (r.thri || held) && !r.stalled
	r.timeout = r.resting()
	s.regs = r
	s.burst = false
	s.hungry = true // whoever waits to give input looks again
	s.wantInput()
	fire := r.causes() != 0
	s.mu.Unlock()
	if fire {
		s.irq.pulse()
	}
	return nil
}

func parseSerial(version uint32, b []byte) (r uartState, err error) {
	if err := checkState(serialID, version, serialVersion, b, serialStateSize); err != nil {
		return r, err
	}
	flags := b[9]
	r = uartState{
		ier: b[0], fcr: b[1], lcr: b[2], mcr: b[3], scr: b[4], dll: b[5], dlm: b[6],
		lineErrs: b[7], modemDeltas: b[8],
		thri: flags&serialTHRI != 0, stalled: flags&serialStalled != 0,
		count: int(b[10]),
	}
	for _, f := range []struct {
		name     string
		v, valid byte
	}{
		{"IER", r.ier, ierMask},
		{"FCR", r.fcr, fcrMask},
		{"MCR", r.mcr, mcrMask},
		{"LSR errors", r.lineErrs, lsrErrs},
		{"MSR deltas", r.modemDeltas, msrDeltas},
		{"flags", flags, serialTHRI | serialStalled},
		{"padding", b[11], 0},
	} {
		if err := reserved(serialID, f.name, uint64(f.v), uint64(f.valid)); err != nil {
			return r, err
		}
	}
	if r.fcr != 0 && r.fcr&fcrEnable == 0 {
		return r, fmt.Errorf("%s: state: FCR %#x: set up, but the FIFOs are off", serialID, r.fcr)
	}
	if r.thri && r.stalled {
		return r, fmt.Errorf("%s: state: flags %#x: the transmitter is empty and full at once", serialID, flags)
	}
	if r.count > r.capacity() {
		return r, fmt.Errorf("%s: state: %d bytes received, the FIFO holds %d", serialID, r.count, r.capacity())
	}
	copy(r.rx[:], b[serialHeader:])
	copy(r.errs[:], b[serialHeader+uartFIFOSize:])
	for i := range r.rx {
		if i >= r.count && r.rx[i]|r.errs[i] != 0 {
			return r, fmt.Errorf("%s: state: FIFO entry %d is not empty, only %d are in use", serialID, i, r.count)
		}
		if err := reserved(serialID, fmt.Sprintf("FIFO errors %d", i), uint64(r.errs[i]), lsrByteErrs); err != nil {
			return r, err
		}
	}
	return r, nil
}
