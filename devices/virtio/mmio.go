package virtio

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"

	"microvm/devices"
)

// MMIOSize is the size of the register window in bytes.
const MMIOSize = 0x1000

// Registers (section 4.2.2), all of 32 bits, and the configuration space.
const (
	regMagic             = 0x000
	regVersion           = 0x004
	regDeviceID          = 0x008
	regVendorID          = 0x00C
	regDeviceFeatures    = 0x010
	regDeviceFeaturesSel = 0x014
	regDriverFeatures    = 0x020
	regDriverFeaturesSel = 0x024
	regQueueSel          = 0x030
	regQueueNumMax       = 0x034
	regQueueNum          = 0x038
	regQueueReady        = 0x044
	regQueueNotify       = 0x050
	regInterruptStatus   = 0x060
	regInterruptACK      = 0x064
	regStatus            = 0x070
	regQueueDescLow      = 0x080
	regQueueDescHigh     = 0x084
	regQueueDriverLow    = 0x090
	regQueueDriverHigh   = 0x094
	regQueueDeviceLow    = 0x0A0
	regQueueDeviceHigh   = 0x0A4
	regSHMLenLow         = 0x0B0
	regSHMLenHigh        = 0x0B4
	regSHMBaseLow        = 0x0B8
	regSHMBaseHigh       = 0x0BC
	regConfigGeneration  = 0x0FC
	regConfig            = 0x100

	mmioMagic   = 0x74726976 // "virt"
	mmioVersion = 2
	mmioVendor  = 0x4D56_564D // "MVVM"
)

// MMIONotify is where in the window a driver's notifications are written: the
// queue's index, 32 bits. With an ioeventfd there for each queue no vCPU
// leaves the guest's mode for long.
const MMIONotify = regQueueNotify

// MMIOACK is where a driver acknowledges interrupts, 32 bits: see DeferACK.
const MMIOACK = regInterruptACK

// Bits of InterruptStatus.
const (
	interruptUsed   = 1
	interruptConfig = 2
)

// MMIO is the MMIO transport of a device, version 2. It is a devices.Device
// for the bus. Its interrupt is edge-triggered: one edge for each
// notification, whether or not the last one has been acknowledged, so that an
// edge that a guest loses by masking costs it no more than a wait for the
// next.
type MMIO struct {
	device    *Device
	interrupt devices.Interrupt
	status    atomic.Uint32         // InterruptStatus
	lost      atomic.Pointer[error] // the first interrupt that could not be raised
	settle    func()                // see DeferACK

	mu        sync.Mutex
	selectors mmioSelectors // guarded by mu
}

// mmioSelectors say which of several a register shows.
type mmioSelectors struct{ deviceFeatures, driverFeatures, queue uint32 }

// NewMMIO gives d its transport.
func NewMMIO(d *Device, interrupt devices.Interrupt) *MMIO {
	m := &MMIO{device: d, interrupt: interrupt, settle: func() {}}
	d.notifier = m
	return m
}

// Device is the device behind the registers.
func (m *MMIO) Device() *Device { return m.device }

// DeferACK says that what a driver writes to MMIOACK may come to Write late:
// settle has all that was written so far come there. Others than this device
// settle before each access to another register. It is to be called before a
// driver comes.
func (m *MMIO) DeferACK(settle func()) { m.settle = settle }

// Used implements Notifier.
func (m *MMIO) Used(*Queue) { m.raise(interruptUsed) }

// ConfigChanged implements Notifier.
func (m *MMIO) ConfigChanged() { m.raise(interruptConfig) }

// raise tells the driver of what is there for it to see.
func (m *MMIO) raise(bit uint32) {
	// What was acknowledged before must not take this one's bit away. An
	// acknowledgement that is on its way from here on may: its driver looks at
	// the queues after it, and so finds what this is about.
	m.settle()
	m.status.Or(bit)
	if err := m.interrupt.Trigger(); err != nil {
		m.lose(err)
	}
}

// lose is apart from raise because its argument moves to the heap.
func (m *MMIO) lose(err error) { m.lost.CompareAndSwap(nil, &err) }

// Read implements devices.Device.
func (m *MMIO) Read(off uint64, p []byte) {
	clear(p)
	switch {
	case off >= regConfig:
		m.device.backend.ReadConfig(p, off-regConfig)
	case len(p) == 4 && off%4 == 0:
		binary.LittleEndian.PutUint32(p, m.read(off))
	}
}

func (m *MMIO) read(off uint64) uint32 {
	d := m.device
	m.mu.Lock()
	sel := m.selectors
	m.mu.Unlock()
	switch off {
	case regMagic:
		return mmioMagic
	case regVersion:
		return mmioVersion
	case regDeviceID:
		return d.backend.Type()
	case regVendorID:
		return mmioVendor
	case regDeviceFeatures:
		if sel.deviceFeatures < 2 {
			return uint32(d.offered() >> (32 * sel.deviceFeatures))
		}
	case regQueueNumMax:
		_, max := d.getSetup(sel.queue)
		return uint32(max)
	case regQueueReady:
		if s, _ := d.getSetup(sel.queue); s.ready {
			return 1
		}
	case regInterruptStatus:
		return m.status.Load()
	case regStatus:
		return d.getStatus()
	case regSHMLenLow, regSHMLenHigh, regSHMBaseLow, regSHMBaseHigh:
		return ^uint32(0) // there is no shared memory region
	case regConfigGeneration:
		return d.generation.Load()
	}
	return 0
}

// Write implements devices.Device.
func (m *MMIO) Write(off uint64, p []byte) {
	switch {
	case off >= regConfig:
		m.device.backend.WriteConfig(p, off-regConfig)
	case len(p) == 4 && off%4 == 0:
		m.write(off, binary.LittleEndian.Uint32(p))
	}
}

func (m *MMIO) write(off uint64, v uint32) {
	d := m.device
	switch off {
	case regQueueNotify:
		d.notify(v)
		return
	case regInterruptACK:
		m.status.And(^v)
		return
	case regStatus:
		d.setStatus(v)
		if v == 0 {
			m.reset()
		}
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	sel := &m.selectors
	switch off {
	case regDeviceFeaturesSel:
		sel.deviceFeatures = v
	case regDriverFeaturesSel:
		sel.driverFeatures = v
	case regDriverFeatures:
		if sel.driverFeatures < 2 {
			shift := 32 * sel.driverFeatures
			d.setFeatures(0xFFFF_FFFF<<shift, uint64(v)<<shift)
		}
	case regQueueSel:
		sel.queue = v
	case regQueueReady:
		d.setReady(sel.queue, v&1 != 0)
	default:
		d.setup(sel.queue, func(s *queueSetup) { s.write(off, v) })
	}
}

// write is the driver's to a register of the selected queue.
func (s *queueSetup) write(off uint64, v uint32) {
	half := func(addr *uint64, high bool) {
		if high {
			*addr = *addr&0xFFFF_FFFF | uint64(v)<<32
		} else {
			*addr = *addr&^0xFFFF_FFFF | uint64(v)
		}
	}
	switch off {
	case regQueueNum:
		s.size = uint16(min(v, 0xFFFF)) // more is no power of 2 either
	case regQueueDescLow, regQueueDescHigh:
		half(&s.desc, off == regQueueDescHigh)
	case regQueueDriverLow, regQueueDriverHigh:
		half(&s.driver, off == regQueueDriverHigh)
	case regQueueDeviceLow, regQueueDeviceHigh:
		half(&s.device, off == regQueueDeviceHigh)
	}
}

// reset makes the registers as at power-on.
func (m *MMIO) reset() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.selectors = mmioSelectors{}
	m.status.Store(0)
}

// Check returns the first error that an interrupt gave, or nil.
func (m *MMIO) check() error {
	if err := m.lost.Load(); err != nil {
		return fmt.Errorf("%s: an interrupt was lost: %w", m.device.id, *err)
	}
	return nil
}
