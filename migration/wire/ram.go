package wire

import (
	"encoding/binary"
	"fmt"
	"slices"
)

// Kind says how the pages of a RAM message are carried.
type Kind uint8

const (
	KindData Kind = 0 // Count pages of payload
	KindZero Kind = 1 // no payload: every page is zero
	KindS2   Kind = 2 // Count pages as one block of S2
	KindZstd Kind = 3 // Count pages as one frame of Zstandard (RFC 8878)
)

var kindNames = [...]string{"data", "zero", "s2", "zstd"}

func (k Kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// Compressions are the kinds that are compressed, by their names in CONFIG.
var Compressions = kindNames[KindS2:]

// KindOf gives the kind that CONFIG means by Compress; KindData for "", or for
// a name that is none of Compressions.
func KindOf(compress string) Kind {
	if i := slices.Index(Compressions, compress); i >= 0 {
		return KindS2 + Kind(i)
	}
	return KindData
}

// ramFixed is the part of a RAM body before the payload, in bytes.
const ramFixed = 20

// RAMHeaderSize is all of a RAM message before its payload, in bytes.
const RAMHeaderSize = HeaderSize + ramFixed

// RAM is a run of pages. Wire: Block be16, Kind u8, Summed u8 (0 or 1), Count
// be32, First be64, Sum be32, payload.
type RAM struct {
	Block  uint16 // place in Config.Blocks
	Kind   Kind
	Summed bool   // Sum is there
	Count  uint32 // target pages, at least 1
	First  uint64 // first target page, counted from the start of the block
	Sum    uint32 // CRC-32C of the payload as it is sent; 0 unless Summed
	// Compressed is the length of the payload in bytes, of the kinds that
	// are compressed: 1 to less than Count pages. 0 for the others.
	Compressed uint32
}

// PayloadSize is how many bytes follow what AppendRAM appends.
func (r RAM) PayloadSize() uint32 {
	switch r.Kind {
	case KindData:
		return r.Count * PageSize
	case KindZero:
		return 0
	}
	return r.Compressed
}

// AppendRAM appends header and fixed part to b; the payload follows on the wire.
func AppendRAM(b []byte, r RAM) []byte {
	from, summed := len(b), byte(0)
	if r.Summed {
		summed = 1
	}
	b = AppendHeader(b, Header{Type: TypeRAM, Length: ramFixed + r.PayloadSize()})
	b = binary.BigEndian.AppendUint16(b, r.Block)
	b = append(b, byte(r.Kind), summed)
	b = binary.BigEndian.AppendUint32(b, r.Count)
	b = binary.BigEndian.AppendUint64(b, r.First)
	return sealShort(binary.BigEndian.AppendUint32(b, r.Sum), from)
}

// RAMFixedSize is the length of what DecodeRAM takes, in bytes.
const RAMFixedSize = ramFixed

// DecodeRAM decodes the fixed part of a RAM body that h announced, and checks
// the two against one another. That block and pages exist, and that the payload
// is what Sum says, is the caller's to check.
func DecodeRAM(b [ramFixed]byte, h Header) (RAM, error) {
	if sum := shortSum(b[:]); sum != h.Sum {
		return RAM{}, damaged("RAM", sum, h.Sum)
	}
	length := h.Length
	r := RAM{
		Block:  binary.BigEndian.Uint16(b[0:]),
		Kind:   Kind(b[2]),
		Summed: b[3] == 1,
		Count:  binary.BigEndian.Uint32(b[4:]),
		First:  binary.BigEndian.Uint64(b[8:]),
		Sum:    binary.BigEndian.Uint32(b[16:]),
	}
	switch {
	case length < ramFixed:
		return RAM{}, errorf("RAM", "body of %d bytes, at least %d needed", length, ramFixed)
	case b[3] > 1:
		return RAM{}, errorf("RAM", "reserved bits are %#x, not zero", b[3])
	case !r.Summed && r.Sum != 0:
		return RAM{}, errorf("RAM", "checksum %08x in a run that has none", r.Sum)
	case r.Count == 0:
		return RAM{}, errorf("RAM", "a run of no pages")
	}
	payload := length - ramFixed
	switch r.Kind {
	case KindData:
		if r.Count > MaxRunPages || payload != r.Count*PageSize {
			return RAM{}, errorf("RAM", "%d pages of data in a body of %d bytes", r.Count, length)
		}
	case KindZero:
		if payload != 0 {
			return RAM{}, errorf("RAM", "a run of zero pages with a body of %d bytes, not %d", length, ramFixed)
		}
	case KindS2, KindZstd:
		if r.Count > MaxRunPages || payload == 0 || payload >= r.Count*PageSize {
			return RAM{}, errorf("RAM", "%d compressed pages in a body of %d bytes", r.Count, length)
		}
		r.Compressed = payload
	default:
		return RAM{}, errorf("RAM", "this version (%d) knows no %v", Version, r.Kind)
	}
	return r, nil
}
