package migration

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"microvm/migration/wire"
)

// partsIn takes in the device states that come by the multi channels. Each
// device has a goroutine that loads its parts in their order, in whatever order
// they come. If one fails, or the session ends, all of them end.
type partsIn struct {
	ctx     context.Context
	cancel  context.CancelCauseFunc
	devices map[string]*partInbox // by id; which they are does not change

	mu    sync.Mutex
	bytes int64
}

// newPartsIn prepares for the states that a package only names.
func newPartsIn(m Machine, states []wire.DeviceState, multi int) (*partsIn, error) {
	p := &partsIn{devices: map[string]*partInbox{}}
	p.ctx, p.cancel = context.WithCancelCause(context.Background())
	for _, s := range states {
		if s.Flags != wire.StateByMulti {
			continue
		}
		if multi == 0 {
			return nil, protocolError("DEVICE_STATE", "device %q: to come by multi channels, of which there are none", s.ID)
		}
		p.devices[s.ID] = &partInbox{version: s.Version, packets: map[uint32]wire.DeviceState{}, came: make(chan struct{}, 1), whole: make(chan struct{})}
	}
	for _, d := range m.Devices() {
		if in := p.devices[d.ID()]; in != nil {
			in.device, _ = d.(PartSnapshotter)
		}
	}
	for id, in := range p.devices {
		if in.device == nil {
			return nil, protocolError("DEVICE_STATE", "device %q: here is none whose state comes in parts", id)
		}
	}
	return p, nil
}

// start begins to load.
func (p *partsIn) start(loader *sync.WaitGroup) {
	for _, in := range p.devices {
		loader.Go(func() {
			if err := in.load(p.ctx); err != nil {
				p.cancel(err)
			}
		})
	}
}

var errPartsOver = errors.New("the session is over")

// end ends what still goes on: why is nil when all is loaded. A nil why that
// comes first is no error of a device.
func (p *partsIn) end(why error) {
	if why == nil {
		why = errPartsOver
	}
	p.cancel(why)
}

// put takes in a packet, from any channel.
func (p *partsIn) put(s wire.DeviceState) error {
	in := p.devices[s.ID]
	if in == nil {
		return protocolError("DEVICE_STATE", "device %q: not said to come by multi channels", s.ID)
	}
	p.mu.Lock()
	p.bytes += partCost(s.Data)
	bytes := p.bytes
	p.mu.Unlock()
	if bytes > wire.MaxPartsBytes {
		return protocolError("DEVICE_STATE", "device %q: with it states in parts have more than %d bytes", s.ID, wire.MaxPartsBytes)
	}
	return in.put(s)
}

// await waits until every part of a device has been loaded, and gives its last
// packet.
func (p *partsIn) await(id string) (wire.DeviceState, error) {
	in := p.devices[id]
	select {
	case <-in.whole:
		return in.config, nil
	case <-p.ctx.Done():
		return wire.DeviceState{}, context.Cause(p.ctx)
	}
}

// partInbox puts the packets of one device in order.
type partInbox struct {
	device  PartSnapshotter
	version uint32
	came    chan struct{} // holds one: a packet has come since it was looked at
	whole   chan struct{} // closed when config is there and every part is loaded
	config  wire.DeviceState

	mu      sync.Mutex
	next    uint32                      // index of the packet to be loaded next
	end     uint32                      // one more than that of CONFIG; 0 while that is not here
	packets map[uint32]wire.DeviceState // that came before their turn
}

func (in *partInbox) put(s wire.DeviceState) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	_, twice := in.packets[s.Index]
	config := s.Flags == wire.StateConfig
	switch {
	case s.Flags == wire.StateByMulti || s.Version != in.version:
		return protocolError("DEVICE_STATE", "device %q: packet %d of format %d with flags %d, announced with format %d", s.ID, s.Index, s.Version, s.Flags, in.version)
	case twice || s.Index < in.next:
		return protocolError("DEVICE_STATE", "device %q: packet %d: a second time", s.ID, s.Index)
	case config && in.end != 0, in.end != 0 && s.Index >= in.end:
		return protocolError("DEVICE_STATE", "device %q: packet %d after CONFIG, which is packet %d", s.ID, s.Index, in.end-1)
	}
	if config {
		for index := range in.packets {
			if index > s.Index {
				return protocolError("DEVICE_STATE", "device %q: packet %d after CONFIG, which is packet %d", s.ID, index, s.Index)
			}
		}
		in.end = s.Index + 1
	}
	in.packets[s.Index] = s
	select {
	case in.came <- struct{}{}:
	default:
	}
	return nil
}

// take gives the next packet, when it is here.
func (in *partInbox) take(ctx context.Context) (wire.DeviceState, error) {
	for {
		in.mu.Lock()
		s, ok := in.packets[in.next]
		if ok {
			delete(in.packets, in.next)
			in.next++
		}
		in.mu.Unlock()
		if ok {
			return s, nil
		}
		select {
		case <-in.came:
		case <-ctx.Done():
			return s, context.Cause(ctx)
		}
	}
}

// load loads part after part, and keeps CONFIG for when it is its turn.
func (in *partInbox) load(ctx context.Context) error {
	for {
		s, err := in.take(ctx)
		if err != nil {
			return err
		}
		if s.Flags == wire.StateConfig {
			in.config = s
			close(in.whole)
			return nil
		}
		if err := loadPart(ctx, in.device, s); err != nil {
			return err
		}
	}
}

func loadPart(ctx context.Context, d PartSnapshotter, s wire.DeviceState) error {
	if err := d.LoadPart(ctx, s.Version, s.Data); err != nil {
		return fmt.Errorf("device %q: load part %d of format %d: %w", d.ID(), s.Index, s.Version, err)
	}
	return nil
}

// loadDevice loads a device from what the package has of it: its only packet,
// all of them, or the word that they come by the multi channels.
func loadDevice(ctx context.Context, dev Snapshotter, packets []wire.DeviceState, parts *partsIn) error {
	last := packets[len(packets)-1]
	p, inParts := dev.(PartSnapshotter)
	if len(packets) > 1 && (!inParts || packets[0].Flags != 0) {
		return protocolError("DEVICE_STATE", "device %q: a second time", dev.ID())
	}
	if last.Flags == wire.StateByMulti {
		var err error
		if last, err = parts.await(dev.ID()); err != nil {
			return err
		}
		packets = nil
	} else if last.Flags != wire.StateConfig {
		return protocolError("DEVICE_STATE", "device %q: without CONFIG", dev.ID())
	}
	for i, s := range packets {
		if s.Index != uint32(i) || s.Version != last.Version || s.Flags != 0 && i < len(packets)-1 {
			return protocolError("DEVICE_STATE", "device %q: packet %d of format %d, flags %d, in place of packet %d of format %d",
				dev.ID(), s.Index, s.Version, s.Flags, i, last.Version)
		}
		if i < len(packets)-1 {
			if err := loadPart(ctx, p, s); err != nil {
				return err
			}
		}
	}
	if err := dev.Load(last.Version, last.Data); err != nil {
		return fmt.Errorf("device %q: load state of format %d: %w", dev.ID(), last.Version, err)
	}
	return nil
}
