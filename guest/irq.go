package guest

import "microvm/kvm"

// The interrupt lines of the two PICs and of the IOAPIC.
const (
	timerIRQ = 0
	timerGSI = 2  // the IOAPIC's pin for the timer; the MADT says so
	lastGSI  = 23 // the IOAPIC's last pin
	picLines = 16
)

// GSIRoutes is the interrupt routing that the MADT describes, for
// kvm.VM.SetGSIRouting: every GSI to the IOAPIC's pin of that number, except
// that the timer, GSI 0, comes in on pin 2, as on every PC, and GSI 2, where
// the second PIC hangs on the first, goes nowhere. GSIs 0 to 15 reach the PICs
// as well. KVM's own default has the timer on pin 0.
func GSIRoutes() []kvm.GSIRoute {
	var routes []kvm.GSIRoute
	for gsi := uint32(0); gsi <= lastGSI; gsi++ {
		switch {
		case gsi == timerGSI:
			continue
		case gsi < picLines/2:
			routes = append(routes, kvm.GSIRoute{GSI: gsi, Chip: kvm.ChipPICMaster, Pin: gsi})
		case gsi < picLines:
			routes = append(routes, kvm.GSIRoute{GSI: gsi, Chip: kvm.ChipPICSlave, Pin: gsi - picLines/2})
		}
		pin := gsi
		if gsi == timerIRQ {
			pin = timerGSI
		}
		routes = append(routes, kvm.GSIRoute{GSI: gsi, Chip: kvm.ChipIOAPIC, Pin: pin})
	}
	return routes
}
