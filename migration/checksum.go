package migration

import (
	"hash/crc32"

	"microvm/memslot"
	"microvm/migration/wire"
)

// checksummer works out the CRC-32C of every page as the source's pause left
// it. Nothing changes these pages any more, so it need not hold up the guest.
type checksummer struct {
	blocks []*memslot.Block
	halt   chan struct{}
	done   chan struct{}
	sums   [][]uint32
	err    error // after done
}

func startChecksums(blocks []*memslot.Block) *checksummer {
	c := &checksummer{blocks: blocks, halt: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(c.done)
		for _, b := range blocks {
			sums := make([]uint32, 0, b.Size()/wire.PageSize)
			for off := uint64(0); off < b.Size(); off += wire.PageSize {
				select {
				case <-c.halt:
					return
				default:
				}
				page, err := b.View(off, wire.PageSize)
				if err != nil {
					c.err = err
					return
				}
				sums = append(sums, crc32.Checksum(page, wire.Castagnoli))
			}
			c.sums = append(c.sums, sums)
		}
	}()
	return c
}

// stop gives up, and waits until guest memory is no longer read.
func (c *checksummer) stop() {
	if c == nil {
		return
	}
	close(c.halt)
	<-c.done
}

// send sends every checksum, and says how many there were.
func (c *checksummer) send(send func([]byte) error) (count uint64, err error) {
	if c == nil {
		return 0, nil
	}
	<-c.done
	if c.err != nil {
		return 0, c.err
	}
	for b, sums := range c.sums {
		for first := 0; first < len(sums); first += wire.MaxChecksums {
			part := sums[first:min(first+wire.MaxChecksums, len(sums))]
			m := wire.Checksums{Block: uint16(b), First: uint64(first), Sums: part}
			if err := send(m.Append(nil)); err != nil {
				return count, err
			}
			count += uint64(len(part))
		}
	}
	return count, nil
}
