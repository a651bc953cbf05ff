package migration

import (
	"fmt"
	"hash/crc32"
	"io"

	"golang.org/x/sys/unix"

	"microvm/migration/wire"
)

// payload is where the pages of one RAM message are kept between the socket
// and their place in guest memory. It is mapped, not in the Go heap, and as
// long as the longest message, so that receiving never allocates.
type payload struct {
	mem    []byte // pages
	packed []byte // what they are compressed to
	fixed  [wire.RAMFixedSize]byte
	expand decompressor
}

func newPayload() (*payload, error) {
	const size = wire.MaxRunPages * wire.PageSize
	mem, err := unix.Mmap(-1, 0, 2*size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes to receive pages in: %w", 2*size, err)
	}
	return &payload{mem: mem[: size : 2*size], packed: mem[size:]}, nil
}

func (p *payload) free() {
	p.expand.close()
	_ = unix.Munmap(p.mem[:cap(p.mem)])
}

// damagedError is a run that arrived as something else than was sent. None of
// its pages has been put in place.
type damagedError struct {
	run wire.RAM
	why error
}

func (e *damagedError) Error() string {
	return fmt.Sprintf("RAM: block %d, pages [%d, +%d) as %v: damaged on the way: %v", e.run.Block, e.run.First, e.run.Count, e.run.Kind, e.why)
}

// readRAM reads the body of a RAM message, which has to be as was agreed.
func (p *payload) readRAM(r io.Reader, h wire.Header, terms payloadTerms) (wire.RAM, error) {
	if h.Length < wire.RAMFixedSize {
		return wire.RAM{}, protocolError("RAM", "body of %d bytes, at least %d needed", h.Length, wire.RAMFixedSize)
	}
	if _, err := io.ReadFull(r, p.fixed[:]); err != nil {
		return wire.RAM{}, fmt.Errorf("RAM: %w", err)
	}
	m, err := wire.DecodeRAM(p.fixed, h)
	if err != nil {
		return wire.RAM{}, err
	}
	if err := terms.check(m); err != nil {
		return wire.RAM{}, err
	}
	in := p.mem
	if m.Compressed > 0 {
		in = p.packed
	}
	in = in[:m.PayloadSize()]
	if _, err := io.ReadFull(r, in); err != nil {
		return wire.RAM{}, fmt.Errorf("RAM: %w", err)
	}
	if m.Summed {
		if sum := crc32.Checksum(in, wire.Castagnoli); sum != m.Sum {
			return wire.RAM{}, &damagedError{m, fmt.Errorf("CRC-32C %08x, sent with %08x", sum, m.Sum)}
		}
	}
	if m.Compressed > 0 {
		if err := p.expand.decompress(m.Kind, p.mem[:m.Count*wire.PageSize], in); err != nil {
			return wire.RAM{}, &damagedError{m, err}
		}
	}
	return m, nil
}

// check refuses a run that is not as was agreed.
func (t payloadTerms) check(m wire.RAM) error {
	switch {
	case m.Compressed > 0 && m.Kind != t.compression:
		return protocolError("RAM", "pages as %v, which was not agreed on", m.Kind)
	case m.Summed && !t.checksum:
		return protocolError("RAM", "a checksum, which was not agreed on")
	case !m.Summed && t.checksum:
		return protocolError("RAM", "no checksum, though that was agreed on")
	}
	return nil
}

// data gives the pages that m carries; nil for zeros.
func (p *payload) data(m wire.RAM) []byte {
	if m.Kind == wire.KindZero {
		return nil
	}
	return p.mem[:m.Count*wire.PageSize]
}
