package migration

import (
	"hash/crc32"

	"microvm/memslot"
	"microvm/migration/wire"
)

// checksummer works out the CRC-32C of every page as the source's pause left
// it. Nothing changes these pages any more, so it need not hold up the guest. It
// can be stopped and started: whoever has been told that the migration is
// paused may rely on nobody reading guest memory. A nil one does nothing.
type checksummer struct {
	blocks []*memslot.Block
	sums   [][]uint32    // by block, by target page, as far as they are known
	halt   chan struct{} // closed to have it stop
	done   chan struct{} // closed while it does nothing; then sums and err are valid
	err    error
}

func newChecksums(blocks []*memslot.Block) *checksummer {
	c := &checksummer{blocks: blocks, done: make(chan struct{})}
	for _, b := range blocks {
		c.sums = append(c.sums, make([]uint32, 0, b.Size()/wire.PageSize))
	}
	close(c.done)
	return c
}

// start begins, or goes on. Preconditions: it does nothing at the moment.
func (c *checksummer) start() {
	if c == nil {
		return
	}
	halt, done := make(chan struct{}), make(chan struct{})
	c.halt, c.done = halt, done
	go func() {
		defer close(done)
		c.err = c.run(halt)
	}()
}

// run works from the first page that is missing on, to the end or until it is
// halted.
func (c *checksummer) run(halt <-chan struct{}) error {
	for i, b := range c.blocks {
		for off := uint64(len(c.sums[i])) * wire.PageSize; off < b.Size(); off += wire.PageSize {
			page, err := b.View(off, wire.PageSize)
			if err != nil {
				return err
			}
			c.sums[i] = append(c.sums[i], crc32.Checksum(page, wire.Castagnoli))
			select {
			case <-halt:
				return nil
			default:
			}
		}
	}
	return nil
}

// stop waits until guest memory is no longer read.
func (c *checksummer) stop() {
	if c == nil || c.halt == nil {
		return
	}
	close(c.halt)
	c.halt = nil
	<-c.done
}

// send sends every checksum, and says how many there were.
func (c *checksummer) send(send func([]byte) error) (count uint64, err error) {
	if c == nil {
		return 0, nil
	}
	<-c.done // nobody stops it meanwhile, so that it has come to its end
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
