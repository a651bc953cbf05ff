package devices

// PanicEvent says what a guest kernel reported through [PVPanic].
type PanicEvent uint8

// Events of the pvpanic interface; a write may carry several.
const (
	// PanicPanicked: the guest's kernel has panicked.
	PanicPanicked PanicEvent = 1 << 0
	// PanicCrashLoaded: it has panicked and runs a crash kernel now.
	PanicCrashLoaded PanicEvent = 1 << 1

	panicSupported = PanicPanicked | PanicCrashLoaded
)

func (e PanicEvent) String() string {
	switch {
	case e&PanicPanicked != 0:
		return "panicked"
	case e&PanicCrashLoaded != 0:
		return "crash kernel loaded"
	}
	return "none"
}

// PVPanic is the one-byte port by which a guest says that it has panicked (the
// pvpanic ISA interface, ACPI id QEMU0001). Reading gives the supported
// events, writing reports one.
type PVPanic struct {
	onPanic func(PanicEvent)
}

// NewPVPanic returns a device that calls onPanic, on the vCPU's thread, for
// each report that holds a supported event.
func NewPVPanic(onPanic func(PanicEvent)) *PVPanic {
	return &PVPanic{onPanic: onPanic}
}

// Read gives the events that are supported.
func (d *PVPanic) Read(off uint64, p []byte) {
	for i := range p {
		p[i] = byte(panicSupported)
	}
}

// Write reports the events in p.
func (d *PVPanic) Write(off uint64, p []byte) {
	for _, b := range p {
		if e := PanicEvent(b) & panicSupported; e != 0 {
			d.onPanic(e)
		}
	}
}

const (
	pvpanicID      = "pvpanic"
	pvpanicVersion = 1
)

// ID names the device in a migration stream.
func (d *PVPanic) ID() string { return pvpanicID }

// Version is that of the format Save writes.
func (d *PVPanic) Version() uint32 { return pvpanicVersion }

// Save writes nothing: the device keeps nothing between two accesses.
func (d *PVPanic) Save() ([]byte, error) { return nil, nil }

// Load accepts what Save writes.
func (d *PVPanic) Load(version uint32, b []byte) error {
	return checkState(pvpanicID, version, pvpanicVersion, b, 0)
}
