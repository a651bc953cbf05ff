package migration

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"microvm/migration/wire"
)

// MaxConnections is over how many connections bulk RAM can be spread.
const MaxConnections = wire.MaxMulti

// multi is how many multi channels the migration has.
func (s *Source) multi() int {
	if s.opt.Connections <= 1 {
		return 0
	}
	return s.opt.Connections
}

// channelBytes is what was written to each channel.
func (s *Source) channelBytes() []uint64 {
	out := make([]uint64, multiChannels+s.multi())
	for i := range out {
		out[i] = s.ram.channels[i].Load()
	}
	return out
}

// sync has what is sent from here on, on any channel but urgent, dealt with
// after all that was sent before. Nobody sends meanwhile. It does not wait:
// channels meet at the destination.
func (s *Source) sync(l *link) error {
	if len(l.multi) == 0 {
		return nil
	}
	l.syncs++
	m := wire.Sync(l.syncs)
	if err := l.sendMulti(s.ram, m); err != nil {
		return err
	}
	return s.sendMain(l, m)
}

// sendMulti writes a message to every multi channel. Nobody else writes there
// meanwhile.
func (l *link) sendMulti(o *outgoing, m []byte) error {
	for i, c := range l.multi {
		n, err := c.Write(m)
		o.count(multiChannels+i, int64(n))
		if err != nil {
			return err
		}
	}
	return nil
}

// meeting is where the channels of a session come together at each SYNC.
type meeting struct {
	mu      sync.Mutex
	parties int
	here    int
	seq     uint32 // of the SYNC at which all have met last
	all     chan struct{}
}

func newMeeting(parties int) *meeting {
	return &meeting{parties: parties, all: make(chan struct{})}
}

// come says that a channel has come to SYNC seq, and gives what is closed when
// all have. It may not go on before that.
func (m *meeting) come(seq uint32) (<-chan struct{}, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if seq != m.seq+1 {
		return nil, protocolError("SYNC", "number %d after number %d", seq, m.seq)
	}
	all := m.all
	m.here++
	if m.here == m.parties {
		m.here, m.seq, m.all = 0, seq, make(chan struct{})
		close(all)
	}
	return all, nil
}

// meet is come for a channel that has read a SYNC with this body.
func (in *inbound) meet(body []byte) (<-chan struct{}, error) {
	seq, err := wire.DecodeSync(body)
	if err != nil {
		return nil, err
	}
	return in.meeting.come(seq)
}

// syncMain is SYNC on the main channel.
func (in *inbound) syncMain(ctx context.Context, r io.Reader, body []byte) error {
	if len(in.s.multi) == 0 {
		return protocolError("SYNC", "in a migration without multi channels")
	}
	all, err := in.meet(body)
	if err != nil {
		return err
	}
	select {
	case <-all:
		return nil
	case err = <-in.broken:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	// One of them will never come. A source that calls the migration off
	// closes them all, and says so here.
	in.s.main.SetReadDeadline(time.Now().Add(drainTimeout))
	if h, herr := wire.ReadHeader(r); herr == nil && h.Type == wire.TypeCancel {
		_, err = in.control(ctx, r, h)
	}
	return err
}

// receiveMulti starts the workers that read the multi channels.
func (in *inbound) receiveMulti() {
	for i, c := range in.s.multi {
		in.workers.Go(func() {
			if err := in.readMulti(c); err != nil {
				// What the source said on main before it hung up comes
				// first.
				in.failBy(time.Now().Add(drainTimeout), fmt.Errorf("multi channel %d: %w", i, err))
			}
		})
	}
}

// readMulti reads one multi channel until the source ends it.
func (in *inbound) readMulti(c net.Conn) error {
	r := bufio.NewReaderSize(c, 8<<10)
	buf, err := newPayload()
	if err != nil {
		return err
	}
	defer buf.free()
	for {
		h, err := wire.ReadHeader(r)
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("the source closed it: %w", io.ErrUnexpectedEOF)
		}
		if err != nil {
			return err
		}
		in.d.received.Add(wire.HeaderSize + uint64(h.Length))
		if h.Type == wire.TypeRAM {
			if err := in.ram(r, h, buf); err != nil {
				return err
			}
			continue
		}
		body, err := wire.ReadBody(r, h)
		if err != nil {
			return fmt.Errorf("%s: %w", h.Type, err)
		}
		switch h.Type {
		case wire.TypeSync:
			all, err := in.meet(body)
			if err != nil {
				return err
			}
			select {
			case <-all:
			case <-in.over:
				return net.ErrClosed
			}
		case wire.TypeDeviceState:
			parts := in.parts.Load()
			if parts == nil {
				return protocolError("DEVICE_STATE", "before the package")
			}
			state, err := wire.DecodeDeviceState(body)
			if err == nil {
				err = parts.put(state)
			}
			if err != nil {
				return err
			}
		case wire.TypeComplete:
			return nil
		default:
			return protocolError(h.Type.String(), "on a multi channel")
		}
	}
}
