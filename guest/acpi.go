package guest

import (
	"encoding/binary"
	"fmt"
)

// acpiTables are the ACPI tables as guest memory holds them from acpiBase on.
type acpiTables struct {
	blob []byte
	rsdp uint64 // GPA; at acpiBase, where a scan of the BIOS area finds it too
}

const (
	oemID       = "MICRVM"
	oemTable    = "MICROVM "
	creatorID   = "UVM "
	acpiAlign   = 64 // the FACS must be aligned so
	tableHeader = 36
)

// newACPI builds the tables for c (ACPI 6.5, chapter 5.2): RSDP revision 2,
// which points to an XSDT only, as every 64-bit system understands it.
func newACPI(c Config) (acpiTables, error) {
	if err := checkMMIO(c.VirtioMMIO); err != nil {
		return acpiTables{}, err
	}
	var blob []byte
	add := func(table []byte) uint64 {
		blob = append(blob, make([]byte, -len(blob)&(acpiAlign-1))...)
		at := acpiBase + uint64(len(blob))
		blob = append(blob, table...)
		return at
	}
	at := add(make([]byte, rsdpLen))
	facs := add(newFACS())
	dsdt := add(newTable("DSDT", 2, dsdtBody(c.VirtioMMIO)))
	fadt := add(newFADT(facs, dsdt))
	madt := add(newMADT(c.CPUs))
	xsdt := add(newTable("XSDT", 1, u64s(fadt, madt)))
	copy(blob, newRSDP(xsdt))
	if len(blob) > tablesEnd-acpiBase {
		return acpiTables{}, fmt.Errorf("ACPI tables for %d virtio-mmio devices: %d bytes, there is room for %d", len(c.VirtioMMIO), len(blob), tablesEnd-acpiBase)
	}
	return acpiTables{blob, at}, nil
}

func u64s(vs ...uint64) []byte {
	var b []byte
	for _, v := range vs {
		b = binary.LittleEndian.AppendUint64(b, v)
	}
	return b
}

// newTable puts the common header before body and makes the sum of all bytes 0.
func newTable(signature string, revision byte, body []byte) []byte {
	le := binary.LittleEndian
	t := append(make([]byte, tableHeader), body...)
	copy(t, signature)
	le.PutUint32(t[4:], uint32(len(t)))
	t[8] = revision
	copy(t[10:], oemID)
	copy(t[16:], oemTable)
	le.PutUint32(t[24:], 1)
	copy(t[28:], creatorID)
	le.PutUint32(t[32:], 1)
	t[9] = checksum(t)
	return t
}

// checksum is what makes the sum of b and itself 0, modulo 256.
func checksum(b []byte) byte {
	var sum byte
	for _, v := range b {
		sum += v
	}
	return -sum
}

const (
	rsdpLen   = 36
	rsdpV1Len = 20 // what the first checksum covers
)

func newRSDP(xsdt uint64) []byte {
	le, r := binary.LittleEndian, make([]byte, rsdpLen)
	copy(r, "RSD PTR ")
	copy(r[9:], oemID)
	r[15] = 2 // revision
	le.PutUint32(r[20:], rsdpLen)
	le.PutUint64(r[24:], xsdt)
	r[8] = checksum(r[:rsdpV1Len])
	r[32] = checksum(r)
	return r
}

// newFACS is needed for its global lock; there are no S-states to wake from.
func newFACS() []byte {
	f := make([]byte, 64)
	copy(f, "FACS")
	binary.LittleEndian.PutUint32(f[4:], uint32(len(f)))
	f[32] = 2 // version
	return f
}

// FADT fields and flags (ACPI 6.5, 5.2.9).
const (
	fadtLen      = 276
	fadtRevision = 6
	fadtMinor    = 5

	fadtWBINVD     = 1 << 0
	fadtProcC1     = 1 << 2
	fadtNoSleepBtn = 1 << 5 // the power button is a fixed feature, a sleep button there is none
	fadtNoFixedRTC = 1 << 6
	fadtResetReg   = 1 << 10
	fadtHeadless   = 1 << 12

	bootLegacyDevices = 1 << 0
	bootNoVGA         = 1 << 2 // and bit 1, a keyboard controller, is not set

	profileEnterpriseServer = 4
	gasSystemIO             = 1
	noC2                    = 101 // latencies that say there is no such state
	noC3                    = 1001
)

// newFADT describes the fixed hardware: PM1a event and control blocks, SCI,
// reset through the keyboard controller's port. There is no SMI command port,
// so ACPI mode is always on.
func newFADT(facs, dsdt uint64) []byte {
	le := binary.LittleEndian
	b := make([]byte, fadtLen-tableHeader)
	at := func(off int) []byte { return b[off-tableHeader:] } // off as in the specification
	le.PutUint32(at(36), uint32(facs))
	le.PutUint32(at(40), uint32(dsdt))
	at(45)[0] = profileEnterpriseServer
	le.PutUint16(at(46), SCIIRQ)
	le.PutUint32(at(56), PM1aEvent)
	le.PutUint32(at(64), PM1aControl)
	at(88)[0] = PM1aControl - PM1aEvent // PM1_EVT_LEN
	at(89)[0] = 2                       // PM1_CNT_LEN
	le.PutUint16(at(96), noC2)
	le.PutUint16(at(98), noC3)
	le.PutUint16(at(109), bootLegacyDevices|bootNoVGA)
	le.PutUint32(at(112), fadtWBINVD|fadtProcC1|fadtNoSleepBtn|fadtNoFixedRTC|fadtResetReg|fadtHeadless)
	putGAS(at(116), I8042Cmd, 1)
	at(128)[0] = I8042Reset
	at(131)[0] = fadtMinor
	le.PutUint64(at(140), dsdt)
	putGAS(at(148), PM1aEvent, PM1aControl-PM1aEvent)
	putGAS(at(172), PM1aControl, 2)
	return newTable("FACP", fadtRevision, b)
}

// putGAS writes a Generic Address Structure for n bytes of I/O ports.
func putGAS(p []byte, port uint64, n byte) {
	p[0], p[1] = gasSystemIO, n*8
	if n <= 2 {
		p[3] = n // access size: 1 byte, 2 word
	}
	binary.LittleEndian.PutUint64(p[4:], port)
}

const (
	madtPCAT       = 1 << 0 // there are two 8259s as well
	madtLAPIC      = 0
	madtIOAPIC     = 1
	madtOverride   = 2
	madtLAPICNMI   = 4
	madtEnabled    = 1 << 0
	madtAllCPUs    = 0xFF
	mpsBusDefault  = 0
	mpsHighLevel   = 1 | 3<<2 // active high, level-triggered
	nmiLINT        = 1
	lapicEntryLen  = 8
	ioapicEntryLen = 12
	overrideLen    = 10
	lapicNMILen    = 6
)

// newMADT lists the interrupt controllers of a machine with cpus CPUs, whose
// APIC ids are 0 to cpus-1 (an xAPIC entry can hold up to 254) and whose
// IOAPIC's id is cpus.
//
// The PIT is on pin 2, as on every PC since the 440BX: the VMM must route GSI 0
// there (see GSIRoutes).
func newMADT(cpus int) []byte {
	le := binary.LittleEndian
	b := le.AppendUint32(nil, LAPICBase)
	b = le.AppendUint32(b, madtPCAT)
	for id := range cpus {
		b = append(b, madtLAPIC, lapicEntryLen, byte(id), byte(id))
		b = le.AppendUint32(b, madtEnabled)
	}
	b = append(b, madtIOAPIC, ioapicEntryLen, byte(cpus), 0)
	b = le.AppendUint32(b, IOAPICBase)
	b = le.AppendUint32(b, 0) // first GSI
	override := func(irq byte, gsi uint32, flags uint16) {
		b = append(b, madtOverride, overrideLen, 0, irq)
		b = le.AppendUint32(b, gsi)
		b = le.AppendUint16(b, flags)
	}
	override(timerIRQ, timerGSI, mpsBusDefault)
	override(SCIIRQ, SCIIRQ, mpsHighLevel)
	b = append(b, madtLAPICNMI, lapicNMILen, madtAllCPUs, 0, 0, nmiLINT)
	return newTable("APIC", 5, b)
}
