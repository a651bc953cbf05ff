package wire

import "encoding/binary"

// AppendPageSizes appends a PAGE_SIZES: the host page size, in bytes, of each
// of the destination's RAM blocks, in the order of Config.Blocks. Wire: be64
// each.
func AppendPageSizes(b []byte, sizes []uint64) []byte {
	from := len(b)
	b = appendReturn(b, ReturnPageSizes, 8*len(sizes))
	for _, s := range sizes {
		b = binary.BigEndian.AppendUint64(b, s)
	}
	return seal(b, from)
}

// DecodePageSizes decodes the body of a PAGE_SIZES.
func DecodePageSizes(b []byte) ([]uint64, error) {
	if len(b)%8 != 0 {
		return nil, errorf("PAGE_SIZES", "%d bytes are no whole number of sizes", len(b))
	}
	sizes := make([]uint64, 0, len(b)/8)
	for ; len(b) > 0; b = b[8:] {
		sizes = append(sizes, binary.BigEndian.Uint64(b))
	}
	return sizes, nil
}
