package migration

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"sync"
	"time"

	"microvm/migration/wire"
)

// connect opens the channels and starts to read the return path.
func (s *Source) connect(ctx context.Context, dest Address, resume bool) (*link, error) {
	hello := wire.Hello{MinVersion: wire.Version, MaxVersion: wire.Version, ID: s.id, Role: wire.RoleMain, Resume: resume}
	hello.Multi = uint8(s.multi())
	defer s.passed.close() // one that is refused has no use for the others
	main, err := s.dialChannel(ctx, dest, hello)
	if err != nil {
		return nil, err
	}
	rest, err := s.dialRest(ctx, dest, hello)
	if err != nil {
		main.Close()
		return nil, err
	}
	l := newLink(main, rest[0], rest[1:])
	l.resume = resume
	go l.listen(s)
	return l, nil
}

// dialRest opens the channels that follow main, all at once: urgent, and the
// multi channels. With an error there are none of them.
func (s *Source) dialRest(ctx context.Context, dest Address, hello wire.Hello) ([]net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	conns := make([]net.Conn, 1+s.multi())
	var first error
	var failed sync.Once
	var dialling sync.WaitGroup
	for i := range conns {
		hello := hello
		hello.Role = wire.RoleUrgent
		if i > 0 {
			hello.Role, hello.Index = wire.RoleMulti, uint8(i-1)
		}
		dialling.Go(func() {
			c, err := s.dialChannel(ctx, dest, hello)
			if err != nil {
				failed.Do(func() { first = err; cancel() })
				return
			}
			conns[i] = c
		})
	}
	dialling.Wait()
	if first == nil {
		return conns, nil
	}
	for _, c := range conns {
		if c != nil {
			c.Close()
		}
	}
	return nil, first
}

// setup has the destination built and checked, and measures the round trip.
func (s *Source) setup(ctx context.Context, l *link) error {
	config, err := s.config()
	if err != nil {
		return err
	}
	advise := wire.Advise{TargetPageSize: wire.PageSize}
	for _, b := range s.machine.Blocks() {
		advise.PageSizes = append(advise.PageSizes, b.PageSize())
	}
	if err := s.sendMain(l, wire.Message(wire.TypeOpenReturnPath, nil), wire.Message(wire.TypeConfig, config), advise.Append(nil)); err != nil {
		return l.explain(err)
	}
	// The first PONG says that all of the above is as the destination wants
	// it; the shortest of the later ones is the round trip.
	const pings = 8
	for seq := range uint32(pings) {
		sent := time.Now()
		if err := s.sendMain(l, wire.Ping(seq)); err != nil {
			return l.explain(err)
		}
		if err := l.pong(ctx, seq); err != nil {
			return err
		}
		if rtt := time.Since(sent); seq > 0 && (l.rtt == 0 || rtt < l.rtt) {
			l.rtt = rtt
		}
	}
	s.opt.Log.Debug("the destination is ready", "round_trip", l.rtt)
	return nil
}

// config is the body of CONFIG.
func (s *Source) config() ([]byte, error) {
	machine, err := s.machine.Config()
	if err != nil {
		return nil, fmt.Errorf("describe the VM: %w", err)
	}
	c := wire.Config{VM: s.opt.VM, Verify: s.opt.Verify, Compress: s.opt.Compress.wireName(), Checksum: s.opt.Checksum, Machine: machine}
	for _, b := range s.machine.Blocks() {
		c.Blocks = append(c.Blocks, wire.Block{Name: b.Name(), Size: b.Size(), PageSize: b.PageSize()})
	}
	for _, d := range s.machine.Devices() {
		_, parts := d.(PartSnapshotter)
		c.Devices = append(c.Devices, wire.Device{ID: d.ID(), Version: d.Version(), Parts: parts})
	}
	body, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("CONFIG: %w", err)
	}
	if limit, _ := wire.TypeConfig.MaxBody(); len(body) > int(limit) {
		return nil, fmt.Errorf("CONFIG: %d bytes, at most %d allowed", len(body), limit)
	}
	return body, nil
}
