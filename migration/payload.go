package migration

import (
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"microvm/migration/wire"
)

// payload is where the pages of one RAM message are kept between the socket
// and their place in guest memory. It is mapped, not in the Go heap, and as
// long as the longest message, so that receiving never allocates.
type payload struct {
	mem   []byte
	fixed [wire.RAMFixedSize]byte
}

func newPayload() (*payload, error) {
	const size = wire.MaxRunPages * wire.PageSize
	mem, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes to receive pages in: %w", size, err)
	}
	return &payload{mem: mem}, nil
}

func (p *payload) free() { _ = unix.Munmap(p.mem) }

// readRAM reads the body of a RAM message.
func (p *payload) readRAM(r io.Reader, h wire.Header) (wire.RAM, error) {
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
	if _, err := io.ReadFull(r, p.mem[:h.Length-wire.RAMFixedSize]); err != nil {
		return wire.RAM{}, fmt.Errorf("RAM: %w", err)
	}
	return m, nil
}

// data gives the pages that m carries; nil for zeros.
func (p *payload) data(m wire.RAM) []byte {
	if m.Kind == wire.KindZero {
		return nil
	}
	return p.mem[:m.Count*wire.PageSize]
}
