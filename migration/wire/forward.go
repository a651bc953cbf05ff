package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"strings"
)

// Ping asks for a PONG with the same number: what was sent before it has then
// been dealt with. Wire: be32.
func Ping(seq uint32) []byte {
	return Message(TypePing, binary.BigEndian.AppendUint32(nil, seq))
}

// DecodePing decodes the body of a PING.
func DecodePing(b []byte) (seq uint32, err error) {
	if len(b) != 4 {
		return 0, errorf("PING", "body of %d bytes, not 4", len(b))
	}
	return binary.BigEndian.Uint32(b), nil
}

// Config is the body of CONFIG, as JSON: what the destination builds itself
// from. Machine is the machine's own description, opaque here.
type Config struct {
	VM      string   `json:"vm"`
	Blocks  []Block  `json:"blocks"`
	Devices []Device `json:"devices"`
	Verify  bool     `json:"verify"`
	// Compress is how runs of pages may be compressed, "" not at all; see
	// KindOf. Checksum has every RAM message carry one of its payload.
	Compress string          `json:"compress,omitempty"`
	Checksum bool            `json:"checksum,omitempty"`
	Machine  json.RawMessage `json:"machine"`
}

// Block describes a RAM block; its place in Config.Blocks is the id that RAM
// messages carry.
type Block struct {
	Name     string `json:"name"`
	Size     uint64 `json:"size"`      // bytes
	PageSize uint64 `json:"page_size"` // host page size, bytes
}

// Device describes an entry of the device list.
type Device struct {
	ID      string `json:"id"`
	Version uint32 `json:"version"`
	Parts   bool   `json:"parts,omitempty"` // its state comes in several packets
}

// DecodeConfig decodes and checks the body of a CONFIG. A field that this
// version does not know asks for something that it does not do, and is refused.
func DecodeConfig(b []byte) (Config, error) {
	var c Config
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	switch err := d.Decode(&c); {
	case err != nil && strings.HasPrefix(err.Error(), "json: unknown field"):
		return Config{}, errorf("CONFIG", "the source asks for what this version (%d) does not do: %v", Version, err)
	case err != nil:
		return Config{}, errorf("CONFIG", "not the JSON of a CONFIG: %v", err)
	}
	if rest := bytes.TrimSpace(b[d.InputOffset():]); len(rest) > 0 {
		return Config{}, errorf("CONFIG", "%d bytes after its end", len(rest))
	}
	if c.Compress != "" && KindOf(c.Compress) == KindData {
		return Config{}, errorf("CONFIG", "the source compresses pages by %.32q, this side can undo %s; use one of these, or none",
			c.Compress, strings.Join(Compressions, ", "))
	}
	if len(c.Blocks) == 0 || len(c.Blocks) > MaxBlocks {
		return Config{}, errorf("CONFIG", "%d RAM blocks; 1 to %d are allowed", len(c.Blocks), MaxBlocks)
	}
	seen := map[string]bool{}
	for _, blk := range c.Blocks {
		switch {
		case blk.Name == "" || len(blk.Name) > maxName:
			return Config{}, errorf("CONFIG", "a RAM block's name has %d bytes; 1 to %d are allowed", len(blk.Name), maxName)
		case seen[blk.Name]:
			return Config{}, errorf("CONFIG", "RAM block %q appears twice", blk.Name)
		case blk.PageSize < PageSize || blk.PageSize&(blk.PageSize-1) != 0:
			return Config{}, errorf("CONFIG", "RAM block %q: page size %d is no power of two from %d up", blk.Name, blk.PageSize, PageSize)
		case blk.Size == 0 || blk.Size%blk.PageSize != 0:
			return Config{}, errorf("CONFIG", "RAM block %q: size %d is no multiple of its page size %d", blk.Name, blk.Size, blk.PageSize)
		}
		seen[blk.Name] = true
	}
	ids := map[string]bool{}
	for _, d := range c.Devices {
		if d.ID == "" || len(d.ID) > maxName || ids[d.ID] {
			return Config{}, errorf("CONFIG", "device id %.32q is empty, too long, or appears twice", d.ID)
		}
		ids[d.ID] = true
	}
	return c, nil
}

// Advise is POSTCOPY_ADVISE: the page sizes that postcopy depends on. Wire:
// target page size be32, number of blocks be16, host page size of each be64.
type Advise struct {
	TargetPageSize uint32
	PageSizes      []uint64 // host page size of each block, bytes, in the order of Config.Blocks
}

// Append appends the whole message to b.
func (a Advise) Append(b []byte) []byte {
	from := len(b)
	b = AppendHeader(b, Header{Type: TypeAdvise, Length: uint32(6 + 8*len(a.PageSizes))})
	b = binary.BigEndian.AppendUint32(b, a.TargetPageSize)
	b = binary.BigEndian.AppendUint16(b, uint16(len(a.PageSizes)))
	for _, s := range a.PageSizes {
		b = binary.BigEndian.AppendUint64(b, s)
	}
	return seal(b, from)
}

// DecodeAdvise decodes the body of a POSTCOPY_ADVISE.
func DecodeAdvise(b []byte) (Advise, error) {
	if len(b) < 6 {
		return Advise{}, errorf("POSTCOPY_ADVISE", "body of %d bytes is too short", len(b))
	}
	a := Advise{TargetPageSize: binary.BigEndian.Uint32(b)}
	n := int(binary.BigEndian.Uint16(b[4:]))
	b = b[6:]
	if n > MaxBlocks || len(b) != 8*n {
		return Advise{}, errorf("POSTCOPY_ADVISE", "%d blocks in %d bytes", n, len(b))
	}
	for ; len(b) > 0; b = b[8:] {
		a.PageSizes = append(a.PageSizes, binary.BigEndian.Uint64(b))
	}
	return a, nil
}

// Range is a run of target pages.
type Range struct{ First, Count uint64 }

// Discard is RAM_DISCARD: pages that were sent and have changed since. Wire:
// name length u8, name, number of ranges be16, each First be64 and Count be64.
type Discard struct {
	Block  string
	Ranges []Range // at most MaxDiscardRanges
}

// Append appends the whole message to b.
func (d Discard) Append(b []byte) []byte {
	from := len(b)
	b = AppendHeader(b, Header{Type: TypeDiscard, Length: uint32(3 + len(d.Block) + 16*len(d.Ranges))})
	b = appendName(b, d.Block)
	b = binary.BigEndian.AppendUint16(b, uint16(len(d.Ranges)))
	for _, r := range d.Ranges {
		b = binary.BigEndian.AppendUint64(b, r.First)
		b = binary.BigEndian.AppendUint64(b, r.Count)
	}
	return seal(b, from)
}

// DecodeDiscard decodes the body of a RAM_DISCARD.
func DecodeDiscard(b []byte) (Discard, error) {
	name, b, ok := cutName(b)
	if !ok || len(b) < 2 {
		return Discard{}, errorf("RAM_DISCARD", "the block's name runs past the end")
	}
	n := int(binary.BigEndian.Uint16(b))
	b = b[2:]
	if n > MaxDiscardRanges || len(b) != 16*n {
		return Discard{}, errorf("RAM_DISCARD", "%d ranges in %d bytes", n, len(b))
	}
	d := Discard{Block: string(name)}
	for ; len(b) > 0; b = b[16:] {
		d.Ranges = append(d.Ranges, Range{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])})
	}
	return d, nil
}

// Flags of a DeviceState.
const (
	// StateConfig marks the last packet of a device, which is loaded last:
	// the only one of most devices.
	StateConfig = 1
	// StateByMulti stands, in a package, for a state whose packets come by
	// the multi channels.
	StateByMulti = 2
)

// DeviceState is the state of one device. Wire: id length u8, id, Version
// be32, Index be32, Flags be32, data to the end of the body.
type DeviceState struct {
	ID      string
	Version uint32
	Index   uint32 // of this packet among the device's, from 0 on
	Flags   uint32 // StateConfig, StateByMulti or neither
	Data    []byte // aliases what was decoded
}

// Append appends the whole message to b.
func (d DeviceState) Append(b []byte) []byte {
	from := len(b)
	b = AppendHeader(b, Header{Type: TypeDeviceState, Length: uint32(1 + len(d.ID) + 12 + len(d.Data))})
	b = appendName(b, d.ID)
	b = binary.BigEndian.AppendUint32(b, d.Version)
	b = binary.BigEndian.AppendUint32(b, d.Index)
	b = binary.BigEndian.AppendUint32(b, d.Flags)
	return seal(append(b, d.Data...), from)
}

// DecodeDeviceState decodes the body of a DEVICE_STATE.
func DecodeDeviceState(b []byte) (DeviceState, error) {
	id, b, ok := cutName(b)
	if !ok || len(id) == 0 || len(b) < 12 {
		return DeviceState{}, errorf("DEVICE_STATE", "the header runs past the end")
	}
	d := DeviceState{
		ID:      string(id),
		Version: binary.BigEndian.Uint32(b),
		Index:   binary.BigEndian.Uint32(b[4:]),
		Flags:   binary.BigEndian.Uint32(b[8:]),
		Data:    b[12:],
	}
	switch d.Flags {
	case 0, StateConfig:
	case StateByMulti:
		if len(d.Data) != 0 || d.Index != 0 {
			return DeviceState{}, errorf("DEVICE_STATE", "device %q: %d bytes, index %d, of a state that comes by the multi channels", d.ID, len(d.Data), d.Index)
		}
	default:
		return DeviceState{}, errorf("DEVICE_STATE", "device %q: this version (%d) knows no flags %#x", d.ID, Version, d.Flags)
	}
	if d.Index >= MaxParts {
		return DeviceState{}, errorf("DEVICE_STATE", "device %q: packet %d, at most %d allowed", d.ID, d.Index, MaxParts)
	}
	return d, nil
}

// Checksums is CHECKSUMS: the CRC-32C of a run of target pages as they were
// when the source paused. Wire: Block be16, First be64, sums be32 each.
type Checksums struct {
	Block uint16
	First uint64
	Sums  []uint32 // one a page; at most MaxChecksums
}

// Append appends the whole message to b.
func (c Checksums) Append(b []byte) []byte {
	from := len(b)
	b = AppendHeader(b, Header{Type: TypeChecksums, Length: uint32(10 + 4*len(c.Sums))})
	b = binary.BigEndian.AppendUint16(b, c.Block)
	b = binary.BigEndian.AppendUint64(b, c.First)
	for _, s := range c.Sums {
		b = binary.BigEndian.AppendUint32(b, s)
	}
	return seal(b, from)
}

// DecodeChecksums decodes the body of a CHECKSUMS.
func DecodeChecksums(b []byte) (Checksums, error) {
	if len(b) < 14 || (len(b)-10)%4 != 0 {
		return Checksums{}, errorf("CHECKSUMS", "body of %d bytes", len(b))
	}
	c := Checksums{Block: binary.BigEndian.Uint16(b), First: binary.BigEndian.Uint64(b[2:])}
	c.Sums = make([]uint32, 0, (len(b)-10)/4)
	for b = b[10:]; len(b) > 0; b = b[4:] {
		c.Sums = append(c.Sums, binary.BigEndian.Uint32(b))
	}
	return c, nil
}

// Complete is COMPLETE: every page has been sent, on whatever channel. Wire:
// three be64.
type Complete struct {
	DataPages uint64 // target pages sent as data
	ZeroPages uint64 // target pages sent as zeros
	Checksums uint64 // target pages whose checksum was sent
}

// Append appends the whole message to b.
func (c Complete) Append(b []byte) []byte {
	from := len(b)
	b = AppendHeader(b, Header{Type: TypeComplete, Length: 24})
	b = binary.BigEndian.AppendUint64(b, c.DataPages)
	b = binary.BigEndian.AppendUint64(b, c.ZeroPages)
	return seal(binary.BigEndian.AppendUint64(b, c.Checksums), from)
}

// DecodeComplete decodes the body of a COMPLETE.
func DecodeComplete(b []byte) (Complete, error) {
	if len(b) != 24 {
		return Complete{}, errorf("COMPLETE", "body of %d bytes, not 24", len(b))
	}
	return Complete{
		DataPages: binary.BigEndian.Uint64(b),
		ZeroPages: binary.BigEndian.Uint64(b[8:]),
		Checksums: binary.BigEndian.Uint64(b[16:]),
	}, nil
}

// Cancel tells the destination that the source keeps the VM, and why: its body
// is a text of at most MaxText bytes.
func Cancel(why string) []byte { return Message(TypeCancel, []byte(clip(why))) }

// DecodeCancel decodes the body of a CANCEL.
func DecodeCancel(b []byte) (why string) { return printable(b) }

// appendName appends a name of at most maxName bytes with its length before it.
func appendName(b []byte, name string) []byte {
	name = name[:min(len(name), maxName)]
	b = append(b, byte(len(name)))
	return append(b, name...)
}

// cutName takes a name with its length before it off the front of b.
func cutName(b []byte) (name, rest []byte, ok bool) {
	if len(b) == 0 || len(b) < 1+int(b[0]) {
		return nil, nil, false
	}
	n := 1 + int(b[0])
	return b[1:n], b[n:], true
}
