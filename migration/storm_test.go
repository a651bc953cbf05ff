package migration

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"microvm/migration/wire"
)

// mishap is what a storm can do to bytes on their way.
type mishap int

const (
	mishapCutAll     mishap = iota // every connection, in the middle of a message
	mishapCutOne                   // this connection alone
	mishapBlackHole                // nothing comes through any more, in this direction; every connection is cut a little later
	mishapOutage                   // every connection is cut, and the next few are closed when they have come
	mishapDelay                    // of this direction
	mishapHold                     // this direction waits until others have gone on
	mishapFlip                     // a byte of what is no guest page; within TLS, any but of a record's length
	mishapFlipPage                 // a byte of a guest page
	mishapFlipLength               // a byte of the length of a TLS record; every connection is cut a little later
)

var mishapNames = [...]string{"cut all", "cut one", "black hole", "outage", "delay", "hold", "flip", "flip in a page", "flip in a length"}

// trouble is a mishap that happens when so many bytes have passed since the one
// before it. mishapFlip counts bytes that are of no guest page, mishapFlipPage
// those that are, the others all.
type trouble struct {
	what  mishap
	after int64
	size  int64 // of a delay, and until a cut, in microseconds, of a hold in bytes, of an outage in connections
	flips byte
}

// class is what a flip wants to know of a byte.
type class int

const (
	ofStream class = iota // of the stream itself
	ofPages               // of a guest page
	ofLength              // of the length of a TLS record
	classes  int   = iota
)

// flipped is what each flip damages.
var flipped = map[mishap]class{mishapFlip: ofStream, mishapFlipPage: ofPages, mishapFlipLength: ofLength}

// due tells how many more bytes pass before it: as many as come if these are not
// of the class it counts.
func (x trouble) due(passed [classes]int64, of class) int64 {
	counts, flips := flipped[x.what]
	switch {
	case !flips:
		return x.after - passed[ofStream] - passed[ofPages] - passed[ofLength]
	case counts != of:
		return math.MaxInt64
	}
	return x.after - passed[of]
}

func (x trouble) String() string {
	return fmt.Sprintf("%s after %d bytes (%d)", mishapNames[x.what], x.after, x.size)
}

// storm is a network between a source and a destination on which things go
// wrong, decided by a seed: from which message on, what, how often and after how
// many bytes. What exactly these bytes are depends on scheduling too.
type storm struct {
	middle
	secure bool // TLS passes here

	mu       sync.Mutex
	calm     bool // nothing goes wrong: not yet, or not any more
	from     outbreak
	closed   bool
	troubles []trouble      // to come, in this order
	met      []string       // that came
	total    int64          // bytes that passed
	passed   [classes]int64 // bytes since the last trouble
	refuse   int64          // connections still to be turned away
	conns    map[net.Conn]bool
	holds    []hold
	damaged  bool // a byte of a guest page has been flipped
}

// hold is a direction that waits for others.
type hold struct {
	until int64 // bytes in total
	ended chan struct{}
}

// outbreak is when a storm breaks out: with a message, or within TLS, which hides
// these, when so many bytes have passed.
type outbreak struct {
	message string
	bytes   int64
}

func (o outbreak) String() string {
	if o.message == "" {
		return fmt.Sprintf("%d bytes within TLS", o.bytes)
	}
	return o.message
}

// newStorm starts a storm in front of target. from says whether that is within
// TLS.
func newStorm(t *testing.T, target Address, from outbreak, troubles []trouble) (*storm, Address) {
	t.Helper()
	s := &storm{secure: from.message == "", calm: true, from: from, troubles: troubles, conns: map[net.Conn]bool{}}
	return s, s.stand(t, target, s.carry, func() {
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		s.cutAll()
	})
}

// abate has nothing go wrong any more.
func (s *storm) abate() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.troubles, s.refuse = nil, 0
}

// story tells what went wrong, in order, and whether a guest page was damaged.
func (s *storm) story() (met string, damaged bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.met, "; "), s.damaged
}

func (s *storm) cutAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		c.Close()
	}
	clear(s.conns)
	for _, h := range s.holds {
		close(h.ended)
	}
	s.holds = nil
}

// carry passes one connection's bytes on, both ways.
func (s *storm) carry(near, far net.Conn) {
	s.mu.Lock()
	turnedAway := s.closed || s.refuse > 0
	if turnedAway {
		s.refuse--
	} else {
		s.conns[near], s.conns[far] = true, true
	}
	s.mu.Unlock()
	if turnedAway {
		return
	}
	var both sync.WaitGroup
	both.Go(func() { s.pass(far, near, newFramer(true, s.secure)) })
	s.pass(near, far, newFramer(false, s.secure))
	both.Wait()
}

func (s *storm) pass(dst, src net.Conn, f *framer) {
	defer dst.Close()
	defer src.Close()
	buf := make([]byte, 16<<10)
	for {
		n, err := src.Read(buf)
		for b := buf[:n]; len(b) > 0; {
			pass, x := s.next(f, b)
			if _, err := dst.Write(b[:pass]); err != nil {
				return
			}
			b = b[pass:]
			if x != nil && !s.happen(*x) {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// next tells how many of the bytes pass, one at least unless something happens
// after them, and what that is.
func (s *storm) next(f *framer, b []byte) (pass int, happens *trouble) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.secure && s.total >= s.from.bytes || !s.secure && f.name == s.from.message {
		s.calm = false
	}
	n := min(f.left, len(b))
	of := f.class()
	if !s.calm && len(s.troubles) > 0 {
		if due := s.troubles[0].due(s.passed, of); due < int64(n) {
			n = int(max(due, 0))
			happens = new(s.troubles[0])
			s.troubles = s.troubles[1:]
			s.met = append(s.met, fmt.Sprintf("%v, %s", *happens, f))
		}
	}
	f.advance(b[:n])
	switch {
	case happens == nil && !s.calm:
		s.passed[of] += int64(n)
	case happens != nil:
		s.passed = [classes]int64{}
	}
	if happens != nil && happens.flips != 0 {
		s.damaged = s.damaged || of == ofPages
		f.advance(b[n : n+1])
		b[n] ^= happens.flips
		n++
	}
	s.total += int64(n)
	kept := s.holds[:0]
	for _, h := range s.holds {
		if s.total >= h.until {
			close(h.ended)
		} else {
			kept = append(kept, h)
		}
	}
	s.holds = kept
	return n, happens
}

// happen does what a trouble does, and tells whether its connection is to go on.
func (s *storm) happen(x trouble) (goesOn bool) {
	const most = 10 * time.Millisecond // that anybody waits for anything
	switch x.what {
	case mishapCutOne:
		return false
	case mishapCutAll:
		s.cutAll()
		return false
	case mishapOutage:
		s.mu.Lock()
		s.refuse = x.size
		s.mu.Unlock()
		s.cutAll()
		return false
	case mishapBlackHole, mishapFlipLength:
		time.Sleep(time.Duration(x.size) * time.Microsecond)
		s.cutAll()
		return false
	case mishapDelay:
		time.Sleep(time.Duration(x.size) * time.Microsecond)
	case mishapHold:
		s.mu.Lock()
		h := hold{s.total + x.size, make(chan struct{})}
		s.holds = append(s.holds, h)
		s.mu.Unlock()
		select {
		case <-h.ended:
		case <-time.After(most):
		}
	}
	return true
}

// framer follows one direction of a channel closely enough to know which of its
// bytes are of guest pages; within TLS, which are lengths of records.
type framer struct {
	forward bool
	stage   framerStage
	left    int    // bytes of this stage
	head    []byte // those that came, of a hello or a header
	pages   int    // bytes of pages after this stage
	name    string // of the message that comes or came last
}

type framerStage int

const (
	stageHello framerStage = iota
	stageHeader
	stageBody
	stagePages
	stageRecordType // of a TLS record, with the version
	stageRecordLength
	stageRecord
)

// Lengths in bytes of a hello, and of a welcome without a text.
var (
	helloLength   = len(wire.Hello{}.Append(nil))
	welcomeLength = len(wire.Welcome{}.Append(nil))
)

// Lengths in bytes of the two parts of a TLS record's header (RFC 8446, section
// 5.1).
const (
	recordTypeLength   = 3
	recordLengthLength = 2
)

func newFramer(forward, secure bool) *framer {
	if secure {
		return &framer{forward: forward, stage: stageRecordType, left: recordTypeLength, name: "record"}
	}
	if forward {
		return &framer{forward: true, left: helloLength, name: "hello"}
	}
	return &framer{left: welcomeLength, name: "welcome"}
}

func (f *framer) String() string {
	return map[bool]string{true: "> ", false: "< "}[f.forward] + f.name
}

// class is that of the bytes that are left of this stage. To damage the length of
// a record may have the reader wait for bytes that do not come: a black hole for
// what comes after, which in a storm is ended a little later, as it is by TCP's
// timeouts.
func (f *framer) class() class {
	switch f.stage {
	case stagePages:
		return ofPages
	case stageRecordLength:
		return ofLength
	}
	return ofStream
}

// advance takes in bytes that passed, no more than are left.
func (f *framer) advance(b []byte) {
	f.left -= len(b)
	if f.stage <= stageHeader || f.stage == stageRecordLength {
		f.head = append(f.head, b...)
	}
	if f.left > 0 {
		return
	}
	switch {
	case f.stage == stageRecordType:
		f.stage, f.left = stageRecordLength, recordLengthLength
	case f.stage == stageRecordLength:
		f.stage, f.left = stageRecord, int(binary.BigEndian.Uint16(f.head))
	case f.stage == stageRecord:
		f.stage, f.left = stageRecordType, recordTypeLength
	case f.stage == stageHeader || f.stage == stageHello && !f.forward:
		f.header(f.head[len(f.head)-wire.HeaderSize:])
	case f.stage == stageBody:
		f.stage, f.left = stagePages, f.pages
	default:
		f.stage, f.left = stageHeader, wire.HeaderSize
	}
	f.head = f.head[:0]
	if f.left == 0 {
		f.advance(nil)
	}
}

func (f *framer) header(h []byte) {
	typ := binary.BigEndian.Uint16(h)
	ram := f.forward && wire.Type(typ) == wire.TypeRAM
	switch {
	case f.forward:
		f.name = wire.Type(typ).String()
	case f.stage == stageHeader:
		f.name = wire.ReturnType(typ).String()
	}
	f.stage, f.left, f.pages = stageBody, int(binary.BigEndian.Uint32(h[4:])), 0
	if ram {
		f.left, f.pages = wire.RAMFixedSize, f.left-wire.RAMFixedSize
	}
}

// drawTroubles draws what goes wrong, and from when on.
func drawTroubles(rng *rand.Rand, secure bool) (from outbreak, list []trouble) {
	from.message = []string{"hello", "CONFIG", "RAM", "PACKAGED", "LOADED", "POSTCOPY_RUN", "RUNNING", "COMPLETE"}[rng.IntN(8)]
	if secure {
		// The handshakes are about 2 KiB a channel, the memory about 1 MiB.
		from = outbreak{bytes: rng.Int64N(1 << (13 + rng.IntN(8)))}
	}
	list = make([]trouble, 1+rng.IntN(6))
	flips := rng.IntN(2) == 0
	for i := range list {
		x := trouble{what: mishap(rng.IntN(int(mishapFlip)))}
		if flips && rng.IntN(2) == 0 {
			x.what = mishapFlip
			switch at := rng.IntN(4); {
			case secure && at < 2:
				x.what = mishapFlipLength
			case !secure && at == 0:
				x.what = mishapFlipPage
			}
			x.flips = byte(1 + rng.IntN(255))
		}
		// Many soon after the one before: in the handshake that mends it.
		most := 4 + rng.IntN(15)
		switch x.what {
		case mishapFlip:
			most = min(most, 12)
		case mishapFlipLength:
			most = min(most, 7)
			x.size = rng.Int64N(5000)
		case mishapDelay, mishapBlackHole:
			x.size = rng.Int64N(5000)
		case mishapHold:
			x.size = rng.Int64N(64 << 10)
		case mishapOutage:
			x.size = 1 + rng.Int64N(2)
		}
		x.after = rng.Int64N(1 << most)
		list[i] = x
	}
	return from, list
}
