package devices

// Registers of a 16550A, as offsets from its base (PC16550D data sheet,
// table 2). The first two are the divisor latch while LCR's DLAB is set.
const (
	uartData = 0 // RBR reading, THR writing, DLL
	uartIER  = 1 // interrupt enable, DLM
	uartIIR  = 2 // interrupt identification reading, FCR writing
	uartLCR  = 3
	uartMCR  = 4
	uartLSR  = 5
	uartMSR  = 6
	uartSCR  = 7
)

// Bits of the registers above.
const (
	ierData    = 1 << 0
	ierTHRE    = 1 << 1
	ierLine    = 1 << 2
	ierModem   = 1 << 3
	ierMask    = ierData | ierTHRE | ierLine | ierModem
	iirNone    = 0x01
	iirModem   = 0x00
	iirTHRE    = 0x02
	iirData    = 0x04
	iirLine    = 0x06
	iirTimeout = 0x0C
	iirFIFO    = 0xC0

	fcrEnable  = 1 << 0
	fcrClearRx = 1 << 1
	fcrDMA     = 1 << 3
	fcrTrigger = 0xC0
	fcrMask    = fcrEnable | fcrDMA | fcrTrigger

	lcrBreak = 1 << 6
	lcrDLAB  = 1 << 7

	mcrDTR  = 1 << 0
	mcrRTS  = 1 << 1
	mcrOut1 = 1 << 2
	mcrOut2 = 1 << 3
	mcrLoop = 1 << 4
	mcrMask = 0x1F

	lsrData      = 1 << 0
	lsrOverrun   = 1 << 1
	lsrParity    = 1 << 2
	lsrFraming   = 1 << 3
	lsrBreak     = 1 << 4
	lsrTHRE      = 1 << 5
	lsrTEMT      = 1 << 6
	lsrFIFOError = 1 << 7
	lsrByteErrs  = lsrParity | lsrFraming | lsrBreak
	lsrErrs      = lsrOverrun | lsrByteErrs

	msrDeltaCTS = 1 << 0
	msrDeltaDSR = 1 << 1
	msrRingEnd  = 1 << 2
	msrDeltaDCD = 1 << 3
	msrDeltas   = 0x0F
	msrCTS      = 1 << 4
	msrDSR      = 1 << 5
	msrRI       = 1 << 6
	msrDCD      = 1 << 7
)

const (
	uartFIFOSize      = 16
	uartDefaultDiv    = 12 // 9600 baud
	uartModemAttached = msrCTS | msrDSR | msrDCD
)

// Causes of an interrupt, as a set.
const (
	causeLine = 1 << iota
	causeData
	causeTHRE
	causeModem
)

// uartState is everything a guest can tell one 16550A from another by: the
// registers and the receive FIFO. There is no transmit FIFO, since a byte sent
// leaves at once.
type uartState struct {
	ier, fcr, lcr, mcr, scr, dll, dlm byte

	lineErrs    byte // LSR's OE, PE, FE, BI
	modemDeltas byte // MSR's low half
	thri        bool // transmitter empty: interrupt not yet identified
	stalled     bool // the host does not take any more: THRE is clear
	timeout     bool // the FIFO has rested below its trigger level

	count int // bytes in the FIFO, the oldest at 0
	rx    [uartFIFOSize]byte
	errs  [uartFIFOSize]byte // PE, FE, BI of each; moved to lineErrs at the top
}

// capacity is that of the receive FIFO, or of RBR alone.
func (r *uartState) capacity() int {
	if r.fcr&fcrEnable != 0 {
		return uartFIFOSize
	}
	return 1
}

// trigger is the number of bytes from which on data is announced.
func (r *uartState) trigger() int {
	if r.fcr&fcrEnable == 0 {
		return 1
	}
	return [4]int{1, 4, 8, 14}[r.fcr>>6]
}

// resting says that there is data which the trigger level does not announce.
func (r *uartState) resting() bool {
	return r.count > 0 && r.count < r.trigger()
}

// causes returns the enabled and active causes of interrupt.
func (r *uartState) causes() byte {
	var c byte
	if r.ier&ierLine != 0 && r.lineErrs != 0 {
		c |= causeLine
	}
	if r.ier&ierData != 0 && (r.count >= r.trigger() || r.timeout) {
		c |= causeData
	}
	if r.ier&ierTHRE != 0 && r.thri {
		c |= causeTHRE
	}
	if r.ier&ierModem != 0 && r.modemDeltas != 0 {
		c |= causeModem
	}
	return c
}

// iir gives the cause of the highest priority (data sheet, table 5).
func (r *uartState) iir() byte {
	v := byte(iirNone)
	switch c := r.causes(); {
	case c&causeLine != 0:
		v = iirLine
	case c&causeData != 0 && r.count >= r.trigger():
		v = iirData
	case c&causeData != 0:
		v = iirTimeout
	case c&causeTHRE != 0:
		v = iirTHRE
	case c&causeModem != 0:
		v = iirModem
	}
	if r.fcr&fcrEnable != 0 {
		v |= iirFIFO
	}
	return v
}

func (r *uartState) lsr() byte {
	v := r.lineErrs
	if r.count > 0 {
		v |= lsrData
	}
	if !r.stalled {
		v |= lsrTHRE | lsrTEMT
	}
	if r.fcr&fcrEnable != 0 {
		errs := r.lineErrs
		for _, e := range r.errs[:r.count] {
			errs |= e
		}
		if errs&lsrByteErrs != 0 {
			v |= lsrFIFOError
		}
	}
	return v
}

// setIER takes the enables. Enabling the transmitter's interrupt while the
// transmitter is empty raises it at once: drivers start to send that way.
func (r *uartState) setIER(b byte) {
	on := b &^ r.ier
	r.ier = b & ierMask
	if on&ierTHRE != 0 {
		r.thri = !r.stalled
	}
}

// setFCR takes the FIFO control and reports whether the FIFO was emptied.
func (r *uartState) setFCR(b byte) (emptied bool) {
	emptied = (b^r.fcr)&fcrEnable != 0 || b&fcrEnable != 0 && b&fcrClearRx != 0
	r.fcr = 0
	if b&fcrEnable != 0 { // else the other bits are not programmed
		r.fcr = b & fcrMask
	}
	if emptied {
		r.count, r.timeout = 0, false
		r.lineErrs &^= lsrByteErrs
	}
	return emptied
}

// setMCR takes the modem control; in loopback mode its outputs are the modem's
// inputs, and a change of those is noted.
func (r *uartState) setMCR(b byte) {
	old := r.modemLines()
	r.mcr = b & mcrMask
	lines := r.modemLines()
	changed := old ^ lines
	r.modemDeltas |= changed >> 4 & (msrDeltaCTS | msrDeltaDSR | msrDeltaDCD)
	if old&^lines&msrRI != 0 {
		r.modemDeltas |= msrRingEnd
	}
}

// modemLines gives MSR's high half: a peer that is there and ready, or in
// loopback mode our own outputs.
func (r *uartState) modemLines() byte {
	if r.mcr&mcrLoop == 0 {
		return uartModemAttached
	}
	var v byte
	for _, l := range [4][2]byte{{mcrRTS, msrCTS}, {mcrDTR, msrDSR}, {mcrOut1, msrRI}, {mcrOut2, msrDCD}} {
		if r.mcr&l[0] != 0 {
			v |= l[1]
		}
	}
	return v
}

// receive takes a byte off the line. Without room for it, that is an overrun:
// a FIFO keeps what it has, RBR alone takes the new byte.
func (r *uartState) receive(b, errs byte) {
	if r.count == r.capacity() {
		r.lineErrs |= lsrOverrun
		if r.fcr&fcrEnable != 0 {
			return
		}
		r.count = 0
	}
	r.rx[r.count], r.errs[r.count] = b, errs
	r.count++
	r.surface()
	r.timeout = r.resting()
}

// pop takes the oldest byte; 0 if there is none.
func (r *uartState) pop() byte {
	if r.count == 0 {
		return 0
	}
	b := r.rx[0]
	copy(r.rx[:], r.rx[1:r.count])
	copy(r.errs[:], r.errs[1:r.count])
	r.count--
	r.timeout = false
	r.surface()
	return b
}

// surface shows the errors of the byte that is now the oldest.
func (r *uartState) surface() {
	if r.count > 0 {
		r.lineErrs |= r.errs[0]
		r.errs[0] = 0
	}
}
