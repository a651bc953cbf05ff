package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"unicode"
)

var magic = [8]byte{'m', 'i', 'c', 'r', 'o', 'v', 'm', '\n'}

// Role says what a channel is for.
type Role uint8

const (
	RoleMain   Role = 1 // control, bulk RAM, and the return path
	RoleUrgent Role = 2 // only pages that somebody waits for
	RoleMulti  Role = 3 // bulk RAM and device states, instead of on main
	RoleProbe  Role = 4 // of no migration: what would stop one is asked
)

// MaxMulti is how many multi channels a migration may have.
const MaxMulti = 16

func (r Role) String() string {
	switch r {
	case RoleMain:
		return "main"
	case RoleUrgent:
		return "urgent"
	case RoleMulti:
		return "multi"
	case RoleProbe:
		return "probe"
	}
	return fmt.Sprintf("role %d", uint8(r))
}

// ID names a migration: the same on all of its channels, random, so that a
// channel cannot end up in somebody else's migration.
type ID [16]byte

func (id ID) String() string { return fmt.Sprintf("%x", id[:]) }

// Hello opens a channel. Wire: magic, MinVersion be16, MaxVersion be16, ID,
// Role u8, Index u8, Resume u8 (0 or 1), Multi u8, CRC-32C of all that be32.
type Hello struct {
	MinVersion, MaxVersion uint16 // of the stream, inclusive
	ID                     ID
	Role                   Role
	Index                  uint8 // among the channels of this role
	Resume                 bool  // goes on with a migration whose connections broke
	// Multi is how many multi channels the migration has, the same on each
	// of its channels; 0: bulk RAM goes by main.
	Multi uint8
}

const (
	helloFields = 8 + 2 + 2 + 16 + 1 + 1 + 2
	helloSize   = helloFields + 4
)

// Append appends the hello to b.
func (h Hello) Append(b []byte) []byte {
	from := len(b)
	b = append(b, magic[:]...)
	b = binary.BigEndian.AppendUint16(b, h.MinVersion)
	b = binary.BigEndian.AppendUint16(b, h.MaxVersion)
	b = append(b, h.ID[:]...)
	resume := byte(0)
	if h.Resume {
		resume = 1
	}
	b = append(b, byte(h.Role), h.Index, resume, h.Multi)
	return binary.BigEndian.AppendUint32(b, shortSum(b[from:]))
}

// ReadHello reads and checks a hello. It reads a fixed number of bytes, so a
// stranger can neither make it wait for more nor allocate.
func ReadHello(r io.Reader) (Hello, error) {
	var b [helloSize]byte
	if _, err := io.ReadFull(r, b[:8]); err != nil {
		return Hello{}, fmt.Errorf("hello: %w", noEOF(err))
	}
	if b[0] == 0x16 && b[1] == 3 { // TLS: handshake, version 3.x
		return Hello{}, errorf("hello", "the peer speaks TLS, this side does not; both sides need --tls-dir, or neither")
	}
	if !bytes.Equal(b[:8], magic[:]) {
		return Hello{}, errorf("hello", "opens with %q; a microvm migration opens with %q", b[:8], magic[:])
	}
	if _, err := io.ReadFull(r, b[8:]); err != nil {
		return Hello{}, fmt.Errorf("hello: %w", noEOF(err))
	}
	if sum, want := shortSum(b[:helloFields]), binary.BigEndian.Uint32(b[helloFields:]); sum != want {
		return Hello{}, damaged("hello", sum, want)
	}
	h := Hello{
		MinVersion: binary.BigEndian.Uint16(b[8:]),
		MaxVersion: binary.BigEndian.Uint16(b[10:]),
		ID:         ID(b[12:28]),
		Role:       Role(b[28]),
		Index:      b[29],
		Resume:     b[30] == 1,
		Multi:      b[31],
	}
	if h.MinVersion > h.MaxVersion {
		return Hello{}, errorf("hello", "versions %d to %d: the first is above the last", h.MinVersion, h.MaxVersion)
	}
	if b[30] > 1 {
		return Hello{}, errorf("hello", "the resume byte is %d, neither 0 nor 1", b[30])
	}
	if h.Multi > MaxMulti {
		return Hello{}, errorf("hello", "%d multi channels, at most %d allowed", h.Multi, MaxMulti)
	}
	return h, nil
}

// Welcome answers a hello. Wire: magic, then laid out as a message is whose
// type is Version and whose body is the text.
type Welcome struct {
	Version uint16 // the version chosen; 0 when the channel is refused
	Refusal string // why, when Version is 0; at most MaxText bytes
}

// MaxText bounds every text that one side sends for a person on the other.
const MaxText = 1024

// Append appends the answer to b.
func (w Welcome) Append(b []byte) []byte {
	b = append(b, magic[:]...)
	text, from := clip(w.Refusal), len(b)
	return seal(append(appendHeader(b, w.Version, uint32(len(text)), 0), text...), from)
}

// ReadWelcome reads and checks the answer to a hello.
func ReadWelcome(r io.Reader) (Welcome, error) {
	var b [len(magic) + HeaderSize]byte
	if _, err := io.ReadFull(r, b[:len(magic)]); err != nil {
		return Welcome{}, fmt.Errorf("answer to hello: %w", noEOF(err))
	}
	if !bytes.Equal(b[:len(magic)], magic[:]) {
		return Welcome{}, errorf("answer to hello", "opens with %q: the peer is no microvm", b[:len(magic)])
	}
	header := b[len(magic):]
	if _, err := io.ReadFull(r, header); err != nil {
		return Welcome{}, fmt.Errorf("answer to hello: %w", noEOF(err))
	}
	if binary.BigEndian.Uint16(header[2:]) != headerCheck(header) {
		return Welcome{}, errorf("answer to hello", "damaged on its way: % x", header)
	}
	n, want := binary.BigEndian.Uint32(header[4:]), binary.BigEndian.Uint32(header[8:])
	if n > MaxText {
		return Welcome{}, errorf("answer to hello", "text of %d bytes announced, at most %d allowed", n, MaxText)
	}
	text := make([]byte, n)
	if _, err := io.ReadFull(r, text); err != nil {
		return Welcome{}, fmt.Errorf("answer to hello: %w", noEOF(err))
	}
	if sum := shortSum(text); sum != want {
		return Welcome{}, damaged("answer to hello", sum, want)
	}
	return Welcome{Version: binary.BigEndian.Uint16(header), Refusal: printable(text)}, nil
}

// printable makes a stranger's text fit for a terminal and a log: one line of
// valid UTF-8 without control characters.
func printable(text []byte) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(string(text), "?"))
}

// clip bounds a text to MaxText bytes.
func clip(s string) string {
	return s[:min(len(s), MaxText)]
}
