package wire

import (
	"encoding/binary"
	"fmt"
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
}

// Bounds on what one message may hold.
const (
	MaxBlocks        = 64      // RAM blocks of one VM
	MaxRunPages      = 512     // target pages in one RAM message: 2 MiB, a huge page
	MaxDiscardRanges = 1024    // ranges in one RAM_DISCARD
	MaxChecksums     = 1 << 16 // pages in one CHECKSUMS
	maxName          = 255     // bytes in the name of a block, a device
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

// HeaderSize is the length of a forward message's header in bytes.
const HeaderSize = 8

// Header opens a forward message.
type Header struct {
	Type   Type
	Length uint32 // of the body, in bytes
}

// AppendHeader appends h to b.
func AppendHeader(b []byte, h Header) []byte {
	b = binary.BigEndian.AppendUint16(b, uint16(h.Type))
	b = binary.BigEndian.AppendUint16(b, 0)
	return binary.BigEndian.AppendUint32(b, h.Length)
}

// DecodeHeader decodes and checks a header: a type that is unknown, or a
// length past what the type may have, is an [Error].
func DecodeHeader(b [HeaderSize]byte) (Header, error) {
	h := Header{
		Type:   Type(binary.BigEndian.Uint16(b[0:])),
		Length: binary.BigEndian.Uint32(b[4:]),
	}
	limit, ok := h.Type.MaxBody()
	switch {
	case !ok:
		return Header{}, errorf(h.Type.String(), "this version (%d) knows no such message", Version)
	case b[2] != 0 || b[3] != 0:
		return Header{}, errorf(h.Type.String(), "reserved header bytes are %#x, not zero", b[2:4])
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

// ReadBody reads a body of n bytes, growing its buffer as the bytes come. n
// has been checked by DecodeHeader.
func ReadBody(r io.Reader, n uint32) ([]byte, error) {
	body := make([]byte, 0, min(n, bodyStep))
	for uint32(len(body)) < n {
		step := min(n-uint32(len(body)), bodyStep)
		from := len(body)
		body = append(body, make([]byte, step)...)
		if _, err := io.ReadFull(r, body[from:]); err != nil {
			return nil, noEOF(err)
		}
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
	b := AppendHeader(make([]byte, 0, HeaderSize+len(body)), Header{t, uint32(len(body))})
	return append(b, body...)
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
