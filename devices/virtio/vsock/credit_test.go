package vsock

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"microvm/devices/virtio/virtiotest"
)

// A stream is one connection of TestEveryByteArrives: what the guest sends comes
// back.
type stream struct {
	link
	content []byte
	echoed  int
	pending uint32 // what has come and is not taken
	stalled bool   // it has asked for credit
	over    bool
}

// TestEveryByteArrives of many connections at once, to guests and programs that
// take what comes at random, and neither side sends more than the other has room
// for.
func TestEveryByteArrives(t *testing.T) {
	const streams = 24
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 1))
	r := newRig(t)
	p := r.program(80)
	go func() {
		for i := uint64(0); ; i++ {
			c, err := p.AcceptUnix()
			if errors.Is(err, net.ErrClosed) {
				return
			}
			go echo(c, rand.New(rand.NewPCG(seed, 2+i)))
		}
	}()
	all := make([]*stream, streams)
	for i := range all {
		s := &stream{link: link{r: r, guest: uint32(i), host: 80, window: 1 + random.Uint32N(60<<10)}}
		s.content = make([]byte, random.IntN(20*int(min(s.window, 20<<10))))
		for i := range s.content {
			s.content[i] = byte(random.Uint32())
		}
		s.do(opRequest, 0)
		s.theirs = r.expect(opResponse).bufAlloc
		all[i] = s
	}
	for over := 0; over < streams; {
		moved := false
		for _, s := range all {
			if s.over {
				continue
			}
			moved = s.send(random) || moved
			if s.pending > 0 && random.IntN(3) == 0 {
				s.taken += 1 + random.Uint32N(s.pending)
				s.pending = uint32(s.echoed) - s.taken
				s.do(opCreditUpdate, 0)
				moved = true
			}
			if s.echoed == len(s.content) && s.sent == uint32(s.echoed) {
				s.do(opShutdown, shutBoth)
				s.over, moved = true, true
				over++
			}
		}
		for {
			head, written, data, ok := r.rx.Done()
			if !ok && moved {
				break // there is more to do than to wait
			}
			if !ok {
				// Whoever has something not taken takes it in the end.
				for _, s := range all {
					moved = moved || s.pending > 0
				}
				if moved {
					break
				}
				head, written, data = r.rx.Wait()
			}
			h, payload := r.received(head, written, data)
			all[h.dstPort].got(t, &h, payload)
			moved = true
		}
	}
	virtiotest.Until(t, "all slots are free", func() bool { return r.d.open() == 0 })
	r.counted(map[string]uint64{"errors": 0, "resets": 0, "untaken_bytes": 0, "rx_bytes": r.d.Counts().Of("transmit").Bytes})
}

// send sends some, if the device has room for it, and asks it if not.
func (s *stream) send(random *rand.Rand) bool {
	left := uint32(len(s.content)) - s.sent
	room := s.theirs - (s.sent - s.forwarded)
	if left == 0 || room == 0 && s.stalled {
		return false
	}
	if room == 0 {
		s.stalled = true
		s.do(opCreditRequest, 0)
		return true
	}
	n := min(left, room, 1+random.Uint32N(60<<10))
	s.write(s.content[s.sent : s.sent+n])
	return true
}

// got is a packet of the stream.
func (s *stream) got(t *testing.T, h *header, payload []byte) {
	s.forwarded, s.theirs = h.fwdCnt, h.bufAlloc
	if s.forwarded > s.sent {
		t.Fatalf("%d bytes are taken of %d", s.forwarded, s.sent)
	}
	s.stalled = false
	switch h.op {
	case opRW:
		if s.echoed+len(payload) > len(s.content) || !bytes.Equal(payload, s.content[s.echoed:s.echoed+len(payload)]) {
			t.Fatalf("byte %d and on came back other", s.echoed)
		}
		s.echoed += len(payload)
		if s.pending += h.length; s.pending > s.window {
			t.Fatalf("%d bytes came, and the guest has room for %d", s.pending, s.window)
		}
	case opCreditRequest:
		s.do(opCreditUpdate, 0)
	case opCreditUpdate:
	case opReset:
		if !s.over {
			t.Fatal("a connection was reset")
		}
	default:
		t.Fatalf("operation %d", h.op)
	}
}

// echo sends back what comes, a piece at a time, and now and then is slow.
func echo(c *net.UnixConn, random *rand.Rand) {
	defer c.Close()
	b := make([]byte, 1+random.IntN(20<<10))
	for {
		n, err := c.Read(b[:1+random.IntN(len(b))])
		if err != nil {
			return
		}
		if random.IntN(50) == 0 {
			time.Sleep(time.Millisecond)
		}
		if _, err := io.Copy(c, bytes.NewReader(b[:n])); err != nil {
			return
		}
	}
}
