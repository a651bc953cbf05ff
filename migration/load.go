package migration

import (
	"fmt"

	"microvm/migration/wire"
)

// agree checks that what was built is what CONFIG lists: RAM blocks by name
// and size, devices by id, each of a version that this side can load.
func agree(c wire.Config, m Machine) error {
	blocks := m.Blocks()
	if len(blocks) != len(c.Blocks) {
		return fmt.Errorf("the source has %d RAM blocks, the destination %d", len(c.Blocks), len(blocks))
	}
	for i, b := range blocks {
		if want := c.Blocks[i]; b.Name() != want.Name || b.Size() != want.Size {
			return fmt.Errorf("RAM block %d: the source has %q with %d bytes, the destination %q with %d", i, want.Name, want.Size, b.Name(), b.Size())
		}
	}
	have := map[string]wire.Device{}
	for _, s := range m.Devices() {
		_, parts := s.(PartSnapshotter)
		have[s.ID()] = wire.Device{ID: s.ID(), Version: s.Version(), Parts: parts}
	}
	if len(c.Devices) != len(have) {
		return fmt.Errorf("the source has %d device states, the destination %d", len(c.Devices), len(have))
	}
	for _, dev := range c.Devices {
		ours, ok := have[dev.ID]
		if !ok {
			return fmt.Errorf("device %q: the destination has none of that name", dev.ID)
		}
		if dev.Version > ours.Version {
			return fmt.Errorf("device %q: the source saves format %d, the destination loads up to %d; upgrade the destination", dev.ID, dev.Version, ours.Version)
		}
		if dev.Parts != ours.Parts {
			return fmt.Errorf("device %q: state in parts: source %v, destination %v; the two sides need devices of the same kind", dev.ID, dev.Parts, ours.Parts)
		}
	}
	return nil
}

// unpack takes a package apart: LISTEN first, then a state for each device.
func unpack(body []byte) ([]wire.DeviceState, error) {
	var states []wire.DeviceState
	listening := false
	for len(body) > 0 {
		if len(body) < wire.HeaderSize {
			return nil, protocolError("PACKAGED", "%d bytes after the last message", len(body))
		}
		h, err := wire.DecodeHeader([wire.HeaderSize]byte(body))
		if err != nil {
			return nil, err
		}
		body = body[wire.HeaderSize:]
		if uint64(h.Length) > uint64(len(body)) {
			return nil, protocolError("PACKAGED", "%s of %d bytes with %d left", h.Type, h.Length, len(body))
		}
		switch {
		case h.Type == wire.TypeListen && listening:
			return nil, protocolError("POSTCOPY_LISTEN", "a second time")
		case h.Type == wire.TypeListen:
			listening = true
		case h.Type == wire.TypeDeviceState && listening:
			s, err := wire.DecodeDeviceState(body[:h.Length])
			if err != nil {
				return nil, err
			}
			states = append(states, s)
		default:
			return nil, protocolError("PACKAGED", "%s has no place there, or comes before POSTCOPY_LISTEN", h.Type)
		}
		body = body[h.Length:]
	}
	if !listening {
		return nil, protocolError("PACKAGED", "no POSTCOPY_LISTEN in it")
	}
	return states, nil
}

// load loads every device, in the machine's order. A device without a state,
// or a state without a device, is an error.
func load(m Machine, states []wire.DeviceState, parts *partsIn) error {
	byID := map[string][]wire.DeviceState{}
	for _, s := range states {
		byID[s.ID] = append(byID[s.ID], s)
	}
	for _, dev := range m.Devices() {
		packets, ok := byID[dev.ID()]
		if !ok {
			return protocolError("DEVICE_STATE", "device %q: none came", dev.ID())
		}
		if err := loadDevice(parts.ctx, dev, packets, parts); err != nil {
			return err
		}
		delete(byID, dev.ID())
	}
	for id := range byID {
		return protocolError("DEVICE_STATE", "device %q: this machine has none", id)
	}
	return nil
}
