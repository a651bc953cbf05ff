package migration

import (
	"fmt"
	"hash/crc32"

	"microvm/memslot"
	"microvm/migration/wire"
)

// sums keeps the CRC-32C of every target page as it was placed, for --verify.
// A page may come twice, on two channels at once; the sum is that of the one that
// was put in place, by whoever did that. A nil *sums keeps
// nothing.
type sums struct {
	got  [][]uint32 // by block, by target page
	want [][]uint32
	seen uint64 // pages of which want is known
}

func newSums(blocks []*memslot.Block) *sums {
	s := &sums{}
	for _, b := range blocks {
		s.got = append(s.got, make([]uint32, b.Size()/wire.PageSize))
		s.want = append(s.want, make([]uint32, b.Size()/wire.PageSize))
	}
	return s
}

// zeroSum is the CRC-32C of a page of zeros.
var zeroSum = crc32.Checksum(make([]byte, wire.PageSize), wire.Castagnoli)

func (s *sums) placed(block int, first, count uint64, data []byte) {
	if s == nil {
		return
	}
	for i := range count {
		sum := zeroSum
		if data != nil {
			sum = crc32.Checksum(data[i*wire.PageSize:(i+1)*wire.PageSize], wire.Castagnoli)
		}
		s.got[block][first+i] = sum
	}
}

// restart forgets how much the source has said: it says all of it again.
func (s *sums) restart() {
	if s != nil {
		s.seen = 0
	}
}

// expect takes in what the source says its pages were.
func (s *sums) expect(c wire.Checksums) error {
	if s == nil {
		return protocolError("CHECKSUMS", "not asked for")
	}
	if int(c.Block) >= len(s.want) {
		return protocolError("CHECKSUMS", "block %d of %d", c.Block, len(s.want))
	}
	want := s.want[c.Block]
	if c.First > uint64(len(want)) || uint64(len(c.Sums)) > uint64(len(want))-c.First {
		return protocolError("CHECKSUMS", "pages [%d, +%d) of %d", c.First, len(c.Sums), len(want))
	}
	copy(want[c.First:], c.Sums)
	s.seen += uint64(len(c.Sums))
	return nil
}

// verify compares, once every page is in place; the error names the first page
// that differs.
func (s *sums) verify(blocks []*memslot.Block) error {
	var total uint64
	for b := range s.got {
		total += uint64(len(s.got[b]))
		for i, got := range s.got[b] {
			if want := s.want[b][i]; got != want {
				return fmt.Errorf("RAM block %q, page %d: CRC-32C %08x placed, %08x at the source", blocks[b].Name(), i, got, want)
			}
		}
	}
	if s.seen != total {
		return fmt.Errorf("the source sent checksums of %d pages out of %d", s.seen, total)
	}
	return nil
}
