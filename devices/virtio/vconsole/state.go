package vconsole

import (
	"encoding/binary"
	"fmt"
)

const stateSize = 12

// Version is that of SaveState's format.
func (d *Device) Version() uint16 { return 1 }

// SaveState writes, little-endian:
//
//	 0 4 the size: columns, and rows << 16
//	 4 4 how many bytes of the transmit queue's next request have been taken
//	 8 2 1 if there is a driver, else 0
//	10 2 n, how many bytes were typed and the guest has not got, up to 4096
//	12 n those
func (d *Device) SaveState() ([]byte, error) {
	d.in.mu.Lock()
	defer d.in.mu.Unlock()
	le := binary.LittleEndian
	b := le.AppendUint32(nil, d.size.Load())
	b = le.AppendUint32(b, d.taken)
	var live uint16
	if d.in.live {
		live = 1
	}
	b = le.AppendUint16(b, live)
	b = le.AppendUint16(b, uint16(len(d.in.buf)))
	return append(b, d.in.buf...), nil
}

// LoadState takes over what SaveState wrote.
func (d *Device) LoadState(b []byte) error {
	if len(b) < stateSize {
		return fmt.Errorf("virtio console: state: %d bytes, at least %d are needed", len(b), stateSize)
	}
	le := binary.LittleEndian
	live, n := le.Uint16(b[8:]), int(le.Uint16(b[10:]))
	switch {
	case live > 1:
		return fmt.Errorf("virtio console: state: driver %d: has to be 0 or 1", live)
	case n > inputSize || len(b) != stateSize+n:
		return fmt.Errorf("virtio console: state: %d bytes, of which %d were typed, %d at most", len(b), n, inputSize)
	}
	d.size.Store(le.Uint32(b))
	d.taken = le.Uint32(b[4:])
	d.in.mu.Lock()
	defer d.in.mu.Unlock()
	d.in.live = live == 1
	d.in.buf = append(d.in.buf[:0], b[stateSize:]...)
	return nil
}
