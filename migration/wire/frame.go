package wire

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
)

// Version is the one version of the stream that this program speaks.
const Version = 1

// PageSize is the target page size: the unit in which RAM messages count, in
// bytes. A host page may be larger; it then travels as a whole number of these.
const PageSize = 4096

// Type is the type of a forward message.
type Type uint16

// The forward messages, in the order in which a migration by postcopy first
// uses them.
const (
	TypeOpenReturnPath Type = iota + 1
	TypePing
	TypeConfig
	TypeAdvise
	TypeRAM
	TypeDiscard
	TypePackaged
	TypeListen
	TypeDeviceState
	TypeRun
	TypeChecksums
	TypeComplete
	TypeResume
	TypeCancel
	TypeEnd
	TypeSync
)

// forward says for each forward type its name and the longest body it may
// have. A type that is not here is refused.
var forward = map[Type]struct {
	name string
	max  uint32
}{
	TypeOpenReturnPath: {"OPEN_RETURN_PATH", 0},
	TypePing:           {"PING", 4},
	TypeConfig:         {"CONFIG", 1 << 20},
	TypeAdvise:         {"POSTCOPY_ADVISE", 6 + 8*MaxBlocks},
	TypeRAM:            {"RAM", ramFixed + MaxRunPages*PageSize},
	TypeDiscard:        {"RAM_DISCARD", 3 + maxName + 16*MaxDiscardRanges},
	TypePackaged:       {"PACKAGED", 64 << 20},
	TypeListen:         {"POSTCOPY_LISTEN", 0},
	TypeDeviceState:    {"DEVICE_STATE", 16 << 20},
	TypeRun:            {"POSTCOPY_RUN", 0},
	TypeChecksums:      {"CHECKSUMS", 10 + 4*MaxChecksums},
	TypeComplete:       {"COMPLETE", 24},
	TypeResume:         {"POSTCOPY_RESUME", 0},
	TypeCancel:         {"CANCEL", MaxText},
	TypeEnd:            {"END", 0},
	TypeSync:           {"SYNC", 4},
}

// Bounds on what one message may hold.
const (
	MaxBlocks        = 64        // RAM blocks of one VM
	MaxRunPages      = 512       // target pages in one RAM message: 2 MiB, a huge page
	MaxDiscardRanges = 1024      // ranges in one RAM_DISCARD
	MaxChecksums     = 1 << 16   // pages in one CHECKSUMS
	MaxParts         = 1 << 16   // packets of one device's state
	MaxPartsBytes    = 256 << 20 // of all states that come by multi channels
	maxName          = 255       // bytes in the name of a block, a device
)

func (t Type) String() string {
	if f, ok := forward[t]; ok {
		return f.name
	}
	return fmt.Sprintf("message type %d", uint16(t))
}

// MaxBody returns the greatest length of the body of a message of type t, in
// bytes, and whether t is a type this version knows.
func (t Type) MaxBody() (uint32, bool) {
	f, ok := forward[t]
	return f.max, ok
}

// Header opens a forward message.
type Header struct {
	Type   Type
	Length uint32 // of the body, in bytes
	Sum    uint32 // CRC-32C of the body; of a RAM message's without the pages
}

// AppendHeader appends h to b.
func AppendHeader(b []byte, h Header) []byte {
	return appendHeader(b, uint16(h.Type), h.Length, h.Sum)
}

// DecodeHeader decodes and checks a header: one that was damaged, a type that
// is unknown, or a length past what the type may have, is an [Error].
func DecodeHeader(b [HeaderSize]byte) (Header, error) {
	h := Header{
		Type:   Type(binary.BigEndian.Uint16(b[0:])),
		Length: binary.BigEndian.Uint32(b[4:]),
		Sum:    binary.BigEndian.Uint32(b[8:]),
	}
	limit, ok := h.Type.MaxBody()
	switch {
	case binary.BigEndian.Uint16(b[2:]) != headerCheck(b[:]):
		return Header{}, errorf(h.Type.String(), "header damaged on its way: % x", b[:])
	case !ok:
		return Header{}, errorf(h.Type.String(), "this version (%d) knows no such message", Version)
	case h.Length > limit:
		return Header{}, errorf(h.Type.String(), "body of %d bytes announced, at most %d allowed", h.Length, limit)
	}
	return h, nil
}

// ReadHeader reads the next header from r. At a clean end of the stream the
// error is io.EOF.
func ReadHeader(r io.Reader) (Header, error) {
	var b [HeaderSize]byte
	if _, err := io.ReadFull(r, b[:]); err != nil {
		return Header{}, err
	}
	return DecodeHeader(b)
}

// bodyStep is how much is allocated ahead of what has really been received.
const bodyStep = 1 << 20

// ReadBody reads the body that h announces, growing its buffer as the bytes
// come, and checks that it is what was sent.
func ReadBody(r io.Reader, h Header) ([]byte, error) {
	body := make([]byte, 0, min(h.Length, bodyStep))
	for uint32(len(body)) < h.Length {
		step := min(h.Length-uint32(len(body)), bodyStep)
		from := len(body)
		body = append(body, make([]byte, step)...)
		if _, err := io.ReadFull(r, body[from:]); err != nil {
			return nil, noEOF(err)
		}
	}
	summed := body
	if h.Type == TypeRAM {
		summed = body[:min(len(body), RAMFixedSize)]
	}
	if sum := crc32.Checksum(summed, Castagnoli); sum != h.Sum {
		return nil, damaged(h.Type.String(), sum, h.Sum)
	}
	return body, nil
}

// noEOF turns the end of a stream in the middle of a message into what it is.
func noEOF(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Message builds a whole forward message.
func Message(t Type, body []byte) []byte {
	b := AppendHeader(make([]byte, 0, HeaderSize+len(body)), Header{Type: t, Length: uint32(len(body))})
	return seal(append(b, body...), 0)
}

// Error is a message that breaks the protocol. It is the peer's fault, and
// nothing of the message has been acted on.
type Error struct {
	Message string // the message's name
	Problem string
}

func (e *Error) Error() string { return "migration stream: " + e.Message + ": " + e.Problem }

func errorf(message, format string, args ...any) error {
	return &Error{Message: message, Problem: fmt.Sprintf(format, args...)}
}
