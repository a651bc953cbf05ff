package guest

import (
	"fmt"
	"slices"
)

// sleepTypeS5 is the SLP_TYP value that, written to PM1a_CNT, powers the
// machine off.
const sleepTypeS5 = 5

// dsdtBody is the AML of the DSDT: how to power off, and the devices that
// can't be found by probing.
//
// There is no keyboard controller in it, and the FADT says so too: port 0x64
// only serves to reset the machine.
func dsdtBody(mmio []MMIODevice) []byte {
	presentEnabled := amlName("_STA", amlInt(0x0F))
	devices := [][]byte{
		amlDevice("COM1",
			amlName("_HID", amlEISA("PNP0501")),
			amlName("_UID", amlInt(1)),
			presentEnabled,
			amlName("_CRS", amlResources(resIOPorts(COM1Port, COM1Ports), resISAIRQ(COM1IRQ)))),
		amlDevice("RTC_",
			amlName("_HID", amlEISA("PNP0B00")),
			presentEnabled,
			amlName("_CRS", amlResources(resIOPorts(RTCPort, RTCPorts), resISAIRQ(RTCIRQ)))),
		amlDevice("PEVT",
			amlName("_HID", amlText("QEMU0001")),
			presentEnabled,
			amlName("_CRS", amlResources(resIOPorts(PVPanicPort, 1)))),
	}
	devices = append(devices, generationDevices()...)
	for i, d := range mmio {
		devices = append(devices, amlDevice(fmt.Sprintf("VR%02X", i),
			amlName("_HID", amlText("LNRO0005")),
			amlName("_UID", amlInt(uint64(i))),
			amlName("_CCA", amlInt(1)),
			presentEnabled,
			amlName("_CRS", amlResources(resMemory(uint32(d.Addr), uint32(d.Size)), resInterrupt(d.GSI)))))
	}
	s5 := amlName("_S5_", amlPackage(amlInt(sleepTypeS5), amlInt(sleepTypeS5), amlInt(0), amlInt(0)))
	return join(s5, amlScope("_SB_", devices...))
}

// checkMMIO refuses virtio-mmio windows that are out of place or overlap, and
// interrupts that do not exist or are not the device's own.
func checkMMIO(mmio []MMIODevice) error {
	taken := map[uint32]string{timerIRQ: "the timer", timerGSI: "the timer", COM1IRQ: "COM1", RTCIRQ: "the RTC", SCIIRQ: "ACPI", GenerationIRQ: "the VM generation ID"}
	for i, d := range mmio {
		name := fmt.Sprintf("virtio-mmio device %d at %#x", i, d.Addr)
		if d.Addr%MMIOSize != 0 || d.Addr < MMIOBase || d.Addr >= MMIOEnd || d.Size == 0 || d.Size > MMIOEnd-d.Addr {
			return fmt.Errorf("%s: %d bytes: must be page-aligned and in [%#x, %#x)", name, d.Size, uint64(MMIOBase), uint64(MMIOEnd))
		}
		overlaps := func(o MMIODevice) bool { return d.Addr < o.Addr+o.Size && o.Addr < d.Addr+d.Size }
		if o := slices.IndexFunc(mmio[:i], overlaps); o >= 0 {
			return fmt.Errorf("%s: overlaps virtio-mmio device %d at %#x", name, o, mmio[o].Addr)
		}
		if d.GSI > lastGSI {
			return fmt.Errorf("%s: GSI %d: the last is %d", name, d.GSI, lastGSI)
		}
		if who, ok := taken[d.GSI]; ok {
			return fmt.Errorf("%s: GSI %d belongs to %s", name, d.GSI, who)
		}
		taken[d.GSI] = name
	}
	return nil
}
