package migration

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"microvm/migration/wire"
)

// PartSnapshotter is a Snapshotter with more state than what Save returns, such
// as a device that has memory of its own. The rest comes in parts, which go out
// as they are made: with more than one connection over all of them at once, and
// beside those of other devices, else in the package like any state.
type PartSnapshotter interface {
	Snapshotter
	// SaveParts hands each part to send, which does not keep it; a part has
	// at most 16 MiB less 512 bytes, and all parts of a VM 256 MiB (64 with
	// one connection). The machine is paused. It may be called beside
	// SaveParts and Save of other such devices, and Save comes after it. When
	// ctx ends, it is to return soon: another device failed, or the migration
	// was called off.
	SaveParts(ctx context.Context, send func(part []byte) error) error
	// LoadPart takes a part over, in the order in which they were saved. It
	// may be called beside those of other devices, and before the Load of
	// devices that are listed before this one; Load, which takes what Save
	// returned, comes after the last part and in the order of the list. When
	// ctx ends, it is to return soon, with an error.
	LoadPart(ctx context.Context, version uint32, part []byte) error
}

// deviceHeader is room for what a DEVICE_STATE has besides the state, in bytes.
const deviceHeader = 512

// saveDevice hands out the packets of a device, the last one with what Save
// returns. The error names the device.
func saveDevice(ctx context.Context, d Snapshotter, send func(wire.DeviceState) error) error {
	packet := wire.DeviceState{ID: d.ID(), Version: d.Version()}
	limit, _ := wire.TypeDeviceState.MaxBody()
	limit -= deviceHeader
	sized := func(data []byte) error {
		if len(data) > int(limit) {
			return fmt.Errorf("%d bytes, at most %d allowed", len(data), limit)
		}
		packet.Data = data
		return send(packet)
	}
	if p, ok := d.(PartSnapshotter); ok {
		err := p.SaveParts(ctx, func(part []byte) error {
			if packet.Index == wire.MaxParts-1 {
				return fmt.Errorf("more than %d parts", packet.Index)
			}
			if err := sized(part); err != nil {
				return fmt.Errorf("part %d: %w", packet.Index, err)
			}
			packet.Index++
			return nil
		})
		if err != nil {
			return fmt.Errorf("device %q: save parts: %w", d.ID(), err)
		}
	}
	data, err := d.Save()
	if err != nil {
		return fmt.Errorf("device %q: save: %w", d.ID(), err)
	}
	packet.Flags = wire.StateConfig
	if err := sized(data); err != nil {
		return fmt.Errorf("device %q: state: %w", d.ID(), err)
	}
	return nil
}

// carriesPartsOf tells whether the packets of d go by the multi channels.
func (l *link) carriesPartsOf(d Snapshotter) bool {
	_, ok := d.(PartSnapshotter)
	return ok && len(l.multi) > 0
}

// sendParts saves the devices whose state comes in parts, each in a goroutine of
// its own, over all multi channels. It ends when all of it has been written.
func (s *Source) sendParts(ctx context.Context, l *link) error {
	var devices []Snapshotter
	for _, d := range s.machine.Devices() {
		if l.carriesPartsOf(d) {
			devices = append(devices, d)
		}
	}
	if len(devices) == 0 {
		return nil
	}
	// LISTEN, on main, comes before any of it: loading may need pages.
	if err := s.sync(l); err != nil {
		return l.explain(err)
	}
	ctx, fail := context.WithCancelCause(ctx)
	defer fail(nil)
	p := partsOut{o: s.ram, free: make(chan *partLane, len(l.lanes))}
	for _, lane := range l.lanes {
		p.free <- &partLane{lane: lane}
	}
	var saving sync.WaitGroup
	for _, d := range devices {
		saving.Go(func() {
			send := func(packet wire.DeviceState) error { return p.send(ctx, packet) }
			if err := saveDevice(ctx, d, send); err != nil {
				fail(err) // and so all others; the first is what counts
			}
		})
	}
	saving.Wait()
	if p.broken.Load() {
		return l.explain(context.Cause(ctx))
	}
	return context.Cause(ctx)
}

// partsOut sends packets, each on whichever channel is free.
type partsOut struct {
	o      *outgoing
	free   chan *partLane
	bytes  atomic.Int64
	broken atomic.Bool // a channel is
}

// partLane is a lane and what its next packet is laid out in.
type partLane struct {
	lane
	buf []byte
}

func (p *partsOut) send(ctx context.Context, packet wire.DeviceState) error {
	if p.bytes.Add(partCost(packet.Data)) > wire.MaxPartsBytes {
		return fmt.Errorf("the device states that come in parts have more than %d bytes", wire.MaxPartsBytes)
	}
	select {
	case out := <-p.free:
		out.buf = packet.Append(out.buf[:0])
		n, err := out.conn.Write(out.buf)
		p.o.count(out.channel, int64(n))
		p.free <- out
		if err != nil {
			p.broken.Store(true)
		}
		return err
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// partCost is what a packet counts for: what it takes of the destination's
// memory until it is loaded.
func partCost(data []byte) int64 { return int64(len(data)) + deviceHeader }
