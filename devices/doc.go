// Package devices holds the devices of a microvm machine that a guest reaches
// by port or MMIO exits, and the bus that finds them.
//
//	vCPU thread (KVM_EXIT_IO, KVM_EXIT_MMIO)
//	     |  Bus.Read / Bus.Write: binary search, no lock, no allocation
//	     v
//	+---------+   +---------+   +---------+   +---------+   +---------+
//	| Serial  |   | RTC     |   | I8042   |   | PM      |   | PVPanic |
//	| 0x3F8+8 |   | 0x70+2  |   | 60, 64  |   | 0x600+6 |   | 0x505   |
//	+---------+   +---------+   +---------+   +---------+   +---------+
//	  |     ^       |             |             |    |        |
//	bytes  Input   irq 8        onReset        SCI  onPowerOff onPanic
//	  v     |
//	one goroutine -> io.Writer
//
// A vCPU thread never waits for the host's I/O in here: what a guest sends to
// the serial port goes to a bounded ring that one goroutine drains, and
// interrupts leave through [Interrupt], which the VMM backs with an eventfd
// that KVM listens on (irqfd). Read and Write of every device may be called
// from several vCPUs at once, concurrently with the host side's methods and
// with Save; none of them allocates.
//
// # Device state
//
// Every device has ID, Version, Save and Load, which is what package migration
// asks of it (migration.Snapshotter). A format is a fixed number of bytes,
// little-endian, described above the device's Save; reserved bits are zero.
// Load takes bytes from a stranger: it checks all of them, answers with an
// error that names the device and the field, and changes nothing unless every
// field is valid. It must come after the state of KVM's interrupt controllers
// and of the vCPUs, because a device whose interrupt is pending raises it
// anew: an edge that was under way when the source was saved is then not lost.
//
// Callbacks (onReset, onPowerOff, onPanic) run on the vCPU thread that caused
// them, with no lock held. They must not block and must not wait for that
// vCPU.
package devices
