package snapshot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"golang.org/x/sys/unix"

	"microvm/migration/wire"
)

// A Reader reads one snapshot. Its methods may be called by several goroutines at
// once.
type Reader struct {
	Head  Head
	files *Files
	at    []uint64 // where each block begins in the memory file
}

// NewReader checks files and reads what they say of themselves. It does not take
// them over.
func NewReader(files *Files) (*Reader, error) {
	h, err := files.readHead()
	if err != nil {
		return nil, fmt.Errorf("snapshot: %s: %w", files.machine.Name(), err)
	}
	at, size, err := offsets(h.Blocks)
	if err != nil {
		return nil, fmt.Errorf("snapshot: %s: %w", files.machine.Name(), err)
	}
	r := &Reader{Head: h, files: files, at: at}
	for _, want := range []struct {
		file io.Seeker
		name string
		size uint64
	}{
		{files.memory, files.memory.Name(), size},
		{files.sums, files.sums.Name(), size / wire.PageSize * sumSize},
		{files.state, files.state.Name(), h.State.Bytes},
	} {
		have, err := want.file.Seek(0, io.SeekEnd)
		if err != nil {
			return nil, fmt.Errorf("snapshot: %w", err)
		}
		if uint64(have) != want.size {
			return nil, fmt.Errorf("snapshot: %s has %d bytes, and should have %d: it was cut short, or is of another snapshot", want.name, have, want.size)
		}
	}
	return r, nil
}

// State reads the devices' states.
func (r *Reader) State() ([]byte, error) {
	state := make([]byte, r.Head.State.Bytes)
	if _, err := r.files.state.ReadAt(state, 0); err != nil {
		return nil, fmt.Errorf("snapshot: state: %w", err)
	}
	if sum := crc32.Checksum(state, wire.Castagnoli); sum != r.Head.State.Sum {
		return nil, fmt.Errorf("snapshot: %s is damaged: its CRC-32C is %#08x, and should be %#08x", r.files.state.Name(), sum, r.Head.State.Sum)
	}
	return state, nil
}

// Read fills mem with whole pages of a block, at most MaxRead bytes, from page
// first on. On an error mem may have anything in it.
func (r *Reader) Read(block int, first uint64, mem []byte) error {
	var sums [MaxRead / wire.PageSize * sumSize]byte
	page, n := r.at[block]/wire.PageSize+first, len(mem)/wire.PageSize
	_, err := r.files.memory.ReadAt(mem, int64(page*wire.PageSize))
	if err == nil {
		_, err = r.files.sums.ReadAt(sums[:n*sumSize], int64(page*sumSize))
	}
	if err != nil {
		return fmt.Errorf("snapshot: %s: RAM block %q: read %d bytes from page %d on: %w", r.files.memory.Name(), r.Head.Blocks[block].Name, len(mem), first, err)
	}
	for i := range n {
		want := binary.LittleEndian.Uint32(sums[i*sumSize:])
		if have := sumOf(mem[i*wire.PageSize:][:wire.PageSize]); have != want {
			return fmt.Errorf("snapshot: %s is damaged: RAM block %q, page %d at byte %#x: its sum is %#08x, and should be %#08x",
				r.files.memory.Name(), r.Head.Blocks[block].Name, first+uint64(i), (page+uint64(i))*wire.PageSize, have, want)
		}
	}
	return nil
}

// MaxRead is how many bytes can be read at a time.
const MaxRead = 1 << 20

// NextData finds the first page at or after from, of a block, that is not known to
// be zeros, and how many follow of which that holds; count is 0 if there is none. The
// pages that it passes by are zeros: holes, that their sums are right for.
func (r *Reader) NextData(block int, from uint64) (first, count uint64, err error) {
	begin, pages := r.at[block], r.Head.Blocks[block].Size/wire.PageSize
	if from >= pages {
		return pages, 0, nil
	}
	fd := int(r.files.memory.Fd())
	data, err := unix.Seek(fd, int64(begin+from*wire.PageSize), unix.SEEK_DATA)
	end := data
	switch {
	case errors.Is(err, unix.ENXIO):
		first = pages // nothing but a hole
	case err == nil:
		first = min((uint64(data)-begin)/wire.PageSize, pages)
		if first < pages {
			end, err = unix.Seek(fd, data, unix.SEEK_HOLE)
		}
	}
	if err != nil && first < pages {
		return 0, 0, fmt.Errorf("snapshot: %s: %w", r.files.memory.Name(), err)
	}
	if err := r.checkZeros(block, from, first); err != nil {
		return 0, 0, err
	}
	last := min((uint64(end)-begin+wire.PageSize-1)/wire.PageSize, pages)
	return first, max(last, first) - first, nil
}

// checkZeros looks whether pages [from, end) are zeros by their sums too.
func (r *Reader) checkZeros(block int, from, end uint64) error {
	var sums [4096 * sumSize]byte
	for from < end {
		part := sums[:min(end-from, 4096)*sumSize]
		if _, err := r.files.sums.ReadAt(part, int64((r.at[block]/wire.PageSize+from)*sumSize)); err != nil {
			return fmt.Errorf("snapshot: %s: %w", r.files.sums.Name(), err)
		}
		if i := bytes.IndexFunc(part, func(c rune) bool { return c != 0 }); i >= 0 {
			return fmt.Errorf("snapshot: %s is damaged: RAM block %q, page %d: nothing is there, and there should be a page with the sum %#08x",
				r.files.memory.Name(), r.Head.Blocks[block].Name, from+uint64(i/sumSize), binary.LittleEndian.Uint32(part[i/sumSize*sumSize:]))
		}
		from += uint64(len(part) / sumSize)
	}
	return nil
}
