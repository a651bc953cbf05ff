package virtio

import (
	"encoding/binary"
	"fmt"
)

const (
	transportMMIO = 1 // what a state of this transport begins with
	mmioStateSize = 24
)

// ID names the device in a migration stream.
func (m *MMIO) ID() string { return m.device.id }

// Version is that of the format Save writes, the backend's part included.
func (m *MMIO) Version() uint32 { return StateVersion(m.device.backend) }

// StateVersion is that of the format which a device of this kind is saved in.
// It asks nothing of the backend but its Version.
func StateVersion(kind interface{ Version() uint16 }) uint32 {
	return stateVersion*100 + uint32(kind.Version())
}

// Save writes the state, little-endian, of a device that is held:
//
//	 0  4  1: the transport is MMIO
//	 4  4  InterruptStatus
//	 8  4  DeviceFeaturesSel
//	12  4  DriverFeaturesSel
//	16  4  QueueSel
//	20  4  0
//	24     the device: see Device.appendState
//
// Save fails if an interrupt could not be delivered.
func (m *MMIO) Save() ([]byte, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	m.settle()
	m.mu.Lock()
	sel := m.selectors
	m.mu.Unlock()
	b := make([]byte, 0, mmioStateSize+coreStateSize+queueStateSize*len(m.device.queues))
	for _, v := range []uint32{transportMMIO, m.status.Load(), sel.deviceFeatures, sel.driverFeatures, sel.queue, 0} {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return m.device.appendState(b)
}

// Load takes over what Save wrote. An interrupt that the driver has not
// acknowledged is raised anew, since its edge may have been under way.
func (m *MMIO) Load(version uint32, b []byte) error {
	id, le := m.device.id, binary.LittleEndian
	if version != m.Version() {
		return fmt.Errorf("%s: state version %d: this build reads version %d; use the same release on both sides", id, version, m.Version())
	}
	if len(b) < mmioStateSize {
		return fmt.Errorf("%s: state: %d bytes, at least %d are needed", id, len(b), mmioStateSize)
	}
	if transport := le.Uint32(b); transport != transportMMIO {
		return fmt.Errorf("%s: state: of transport %d, this device has transport %d (MMIO)", id, transport, transportMMIO)
	}
	status := le.Uint32(b[4:])
	if extra := status &^ (interruptUsed | interruptConfig); extra != 0 {
		return fmt.Errorf("%s: state: interrupt status %#x: reserved bits %#x are set", id, status, extra)
	}
	if pad := le.Uint32(b[20:]); pad != 0 {
		return fmt.Errorf("%s: state: padding %#x, want 0", id, pad)
	}
	if err := m.device.load(b[mmioStateSize:]); err != nil {
		return err
	}
	m.mu.Lock()
	m.selectors = mmioSelectors{le.Uint32(b[8:]), le.Uint32(b[12:]), le.Uint32(b[16:])}
	m.mu.Unlock()
	if status != 0 {
		m.raise(status)
	}
	return m.check()
}
