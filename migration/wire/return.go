package wire

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

// ReturnType is the type of a return-path message.
type ReturnType uint16

const (
	ReturnShut ReturnType = iota + 1
	ReturnPong
	ReturnReqPages
	ReturnLoaded
	ReturnRunning
	ReturnFailed
	ReturnStats
	ReturnRecvBitmap
	ReturnResumeAck
	ReturnPageSizes
	ReturnFindings
)

// returns says for each return-path type its name and the shortest and longest
// body it may have.
var returns = map[ReturnType]struct {
	name     string
	min, max uint16
}{
	ReturnShut:       {"SHUT", 4, 4},
	ReturnPong:       {"PONG", 4, 4},
	ReturnReqPages:   {"REQ_PAGES", 16, 17 + maxName},
	ReturnLoaded:     {"LOADED", 8, 8},
	ReturnRunning:    {"RUNNING", 16, 16},
	ReturnFailed:     {"FAILED", 4, 4 + MaxText},
	ReturnStats:      {"STATS", 2, MaxReturnBody},
	ReturnRecvBitmap: {"RECV_BITMAP", 10, 9 + maxName + MaxBitmapPages/8},
	ReturnResumeAck:  {"RESUME_ACK", 4, 4},
	ReturnPageSizes:  {"PAGE_SIZES", 8, 8 * MaxBlocks},
	ReturnFindings:   {"FINDINGS", 2, MaxReturnBody},
}

func (t ReturnType) String() string {
	if r, ok := returns[t]; ok {
		return r.name
	}
	return fmt.Sprintf("return-path message type %d", uint16(t))
}

// MaxReturnBody is the longest body of any return-path message, in bytes.
const MaxReturnBody = 1<<16 - 1

// ReadReturn reads the next return-path message into buf, which holds
// MaxReturnBody bytes, and gives its type and its body, a part of buf. A type
// that is unknown or a length that does not fit its type is an [Error]; at a
// clean end of the stream the error is io.EOF. It does not allocate.
func ReadReturn(r io.Reader, buf []byte) (ReturnType, []byte, error) {
	if _, err := io.ReadFull(r, buf[:HeaderSize]); err != nil {
		return 0, nil, err
	}
	t := ReturnType(binary.BigEndian.Uint16(buf))
	if binary.BigEndian.Uint16(buf[2:]) != headerCheck(buf) {
		return 0, nil, errorf(t.String(), "header damaged on its way: % x", buf[:HeaderSize])
	}
	n, want := binary.BigEndian.Uint32(buf[4:]), binary.BigEndian.Uint32(buf[8:])
	bound, ok := returns[t]
	if !ok {
		return 0, nil, errorf(t.String(), "this version (%d) knows no such message", Version)
	}
	if n < uint32(bound.min) || n > uint32(bound.max) {
		return 0, nil, errorf(bound.name, "body of %d bytes; %d to %d are allowed", n, bound.min, bound.max)
	}
	body := buf[:n]
	if _, err := io.ReadFull(r, body); err != nil {
		return 0, nil, noEOF(err)
	}
	if sum := crc32.Checksum(body, Castagnoli); sum != want {
		return 0, nil, damaged(bound.name, sum, want)
	}
	return t, body, nil
}

// appendReturn appends a header whose body, of length bytes, is to follow and
// to be sealed.
func appendReturn(b []byte, t ReturnType, length int) []byte {
	return appendHeader(b, uint16(t), uint32(length), 0)
}

// append32 appends a message whose body is v.
func append32(b []byte, t ReturnType, v uint32) []byte {
	return seal(binary.BigEndian.AppendUint32(appendReturn(b, t, 4), v), len(b))
}

// MaxBitmapPages is how many host pages one RECV_BITMAP may speak of.
const MaxBitmapPages = 256 << 10

// RecvBitmap is RECV_BITMAP: which of a run of host pages have arrived. Wire:
// name length u8, name, First be64, bitmap to the end of the body: bit i%8,
// from the lowest, of byte i/8 stands for page First+i. Bits past the end of
// the block are zero.
type RecvBitmap struct {
	Block  []byte // name; aliases what was decoded
	First  uint64 // host page; a multiple of 8
	Bitmap []byte // aliases what was decoded
}

// AppendRecvBitmap appends a RECV_BITMAP.
func AppendRecvBitmap(b []byte, name string, first uint64, bitmap []byte) []byte {
	from := len(b)
	b = appendReturn(b, ReturnRecvBitmap, 9+len(name)+len(bitmap))
	b = appendName(b, name)
	b = binary.BigEndian.AppendUint64(b, first)
	return seal(append(b, bitmap...), from)
}

// DecodeRecvBitmap decodes the body of a RECV_BITMAP.
func DecodeRecvBitmap(b []byte) (RecvBitmap, error) {
	name, b, ok := cutName(b)
	if !ok || len(name) == 0 || len(b) < 9 {
		return RecvBitmap{}, errorf("RECV_BITMAP", "the header runs past the end")
	}
	r := RecvBitmap{Block: name, First: binary.BigEndian.Uint64(b), Bitmap: b[8:]}
	if r.First%8 != 0 || len(r.Bitmap) > MaxBitmapPages/8 {
		return RecvBitmap{}, errorf("RECV_BITMAP", "%d bytes of bitmap from page %d on", len(r.Bitmap), r.First)
	}
	return r, nil
}

// What RESUME_ACK says about the destination. A third case, that it is not the
// one that the source had, is refused at the hello.
const (
	ResumeRunning = 0 // it acted on POSTCOPY_RUN: the guest is there
	ResumeLoaded  = 1 // it never got POSTCOPY_RUN, and waits for it
)

// AppendResumeAck appends a RESUME_ACK: every RECV_BITMAP was sent, and the
// stream goes on from there.
func AppendResumeAck(b []byte, state uint32) []byte {
	return append32(b, ReturnResumeAck, state)
}

// AppendShut appends a SHUT: the destination sends no more. status 0 is the
// only success.
func AppendShut(b []byte, status uint32) []byte {
	return append32(b, ReturnShut, status)
}

// AppendPong appends a PONG.
func AppendPong(b []byte, seq uint32) []byte {
	return append32(b, ReturnPong, seq)
}

// DecodeUint32 decodes the body of a SHUT, PONG or RESUME_ACK, whose length ReadReturn
// has checked.
func DecodeUint32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }

// ReqPages asks for pages. Wire: Start be64, Len be64 with its lowest bit
// saying that the name of the block follows: length u8, name. Without a name
// the block is that of the request before.
type ReqPages struct {
	Block      []byte // nil: the same as in the request before; aliases what was decoded
	Start, Len uint64 // bytes from the start of the block; whole target pages
}

// AppendReqPages appends a REQ_PAGES for length bytes from start on; name ""
// stands for the block of the request before. It allocates only if b is too
// short.
func AppendReqPages(b []byte, name string, start, length uint64) []byte {
	from := len(b)
	if name == "" {
		b = appendReturn(b, ReturnReqPages, 16)
		b = binary.BigEndian.AppendUint64(b, start)
		return sealShort(binary.BigEndian.AppendUint64(b, length), from)
	}
	b = appendReturn(b, ReturnReqPages, 17+len(name))
	b = binary.BigEndian.AppendUint64(b, start)
	b = binary.BigEndian.AppendUint64(b, length|1)
	return sealShort(appendName(b, name), from)
}

// DecodeReqPages decodes the body of a REQ_PAGES.
func DecodeReqPages(b []byte) (ReqPages, error) {
	if len(b) < 16 {
		return ReqPages{}, errorf("REQ_PAGES", "body of %d bytes is too short", len(b))
	}
	r := ReqPages{Start: binary.BigEndian.Uint64(b), Len: binary.BigEndian.Uint64(b[8:])}
	named := r.Len&1 != 0
	r.Len &^= 1
	rest := b[16:]
	if named {
		name, after, ok := cutName(rest)
		if !ok || len(name) == 0 {
			return ReqPages{}, errorf("REQ_PAGES", "the block's name runs past the end")
		}
		r.Block, rest = name, after
	}
	switch {
	case len(rest) != 0:
		return ReqPages{}, errorf("REQ_PAGES", "%d bytes too many", len(rest))
	case r.Len == 0 || r.Len%PageSize != 0 || r.Start%PageSize != 0:
		return ReqPages{}, errorf("REQ_PAGES", "start %#x, length %#x: not whole pages of %d bytes", r.Start, r.Len, PageSize)
	case r.Start+r.Len < r.Start:
		return ReqPages{}, errorf("REQ_PAGES", "start %#x, length %#x: past the end of 64 bits", r.Start, r.Len)
	}
	return r, nil
}

// AppendLoaded appends a LOADED: device state is in and userfaultfd armed, and
// it took loadNanos.
func AppendLoaded(b []byte, loadNanos uint64) []byte {
	return seal(binary.BigEndian.AppendUint64(appendReturn(b, ReturnLoaded, 8), loadNanos), len(b))
}

// DecodeLoaded decodes the body of a LOADED.
func DecodeLoaded(b []byte) (loadNanos uint64) { return binary.BigEndian.Uint64(b) }

// Running is RUNNING. Wire: two be64.
type Running struct {
	Time        uint64 // the destination's clock when the vCPUs ran, nanoseconds since 1970
	ResumeNanos uint64 // from POSTCOPY_RUN read to the vCPUs running
}

// AppendRunning appends a RUNNING.
func AppendRunning(b []byte, r Running) []byte {
	from := len(b)
	b = appendReturn(b, ReturnRunning, 16)
	b = binary.BigEndian.AppendUint64(b, r.Time)
	return seal(binary.BigEndian.AppendUint64(b, r.ResumeNanos), from)
}

// DecodeRunning decodes the body of a RUNNING.
func DecodeRunning(b []byte) Running {
	return Running{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
}

// FailureCode classes why a destination gave up.
type FailureCode uint32

const (
	FailureOther    FailureCode = 1 // see the text
	FailureRefused  FailureCode = 2 // this host cannot provide what CONFIG asks for
	FailureProtocol FailureCode = 3 // the stream broke the protocol
)

// Failed is FAILED. Wire: Code be32, text to the end of the body.
type Failed struct {
	Code FailureCode
	Text string
}

// AppendFailed appends a FAILED.
func AppendFailed(b []byte, f Failed) []byte {
	text, from := clip(f.Text), len(b)
	b = appendReturn(b, ReturnFailed, 4+len(text))
	b = binary.BigEndian.AppendUint32(b, uint32(f.Code))
	return seal(append(b, text...), from)
}

// DecodeFailed decodes the body of a FAILED.
func DecodeFailed(b []byte) Failed {
	return Failed{FailureCode(binary.BigEndian.Uint32(b)), printable(b[4:])}
}

// AppendStats appends a STATS whose body is the JSON text given; one too long
// for a message is left out, since statistics are never worth a migration.
func AppendStats(b, text []byte) []byte {
	if len(text) > MaxReturnBody {
		return b
	}
	return seal(append(appendReturn(b, ReturnStats, len(text)), text...), len(b))
}
