package snapshot

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"microvm/migration/wire"
)

// A Writer writes one snapshot. Pages may be written by several goroutines at
// once, and again: what comes last is what counts.
type Writer struct {
	files   *Files
	blocks  []Block
	at      []uint64 // where each block begins in the memory file
	written atomic.Uint64
}

// NewWriter prepares files, which are empty, for a machine with these blocks. All
// of its memory is zeros until it is written.
func NewWriter(files *Files, blocks []Block) (*Writer, error) {
	at, size, err := offsets(blocks)
	if err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	w := &Writer{files: files, blocks: blocks, at: at}
	for _, f := range files.List() {
		st, err := f.Stat()
		if err != nil {
			return nil, fmt.Errorf("snapshot: %w", err)
		}
		if st.Size() > 0 {
			return nil, fmt.Errorf("snapshot: %s has %d bytes already", f.Name(), st.Size())
		}
	}
	if err := files.memory.Truncate(int64(size)); err != nil {
		return nil, fmt.Errorf("snapshot: memory of %d bytes: %w", size, err)
	}
	if err := files.sums.Truncate(int64(size / wire.PageSize * sumSize)); err != nil {
		return nil, fmt.Errorf("snapshot: sums: %w", err)
	}
	return w, nil
}

// sumSize is what a page takes in the sums file, in bytes.
const sumSize = 4

// maxRun bounds how many pages are written at a time.
const maxRun = 256

// Write writes whole pages of a block, from page first on.
func (w *Writer) Write(block int, first uint64, mem []byte) error {
	var sums [maxRun * sumSize]byte
	for len(mem) > 0 {
		part := mem[:min(len(mem), maxRun*wire.PageSize)]
		n := len(part) / wire.PageSize
		for i := range n {
			binary.LittleEndian.PutUint32(sums[i*sumSize:], sumOf(part[i*wire.PageSize:][:wire.PageSize]))
		}
		if err := w.put(block, first, part, sums[:n*sumSize]); err != nil {
			return err
		}
		w.written.Add(uint64(len(part)))
		first, mem = first+uint64(n), mem[len(part):]
	}
	return nil
}

func (w *Writer) put(block int, first uint64, mem, sums []byte) error {
	page := w.at[block]/wire.PageSize + first
	_, err := w.files.memory.WriteAt(mem, int64(page*wire.PageSize))
	if err == nil {
		_, err = w.files.sums.WriteAt(sums, int64(page*sumSize))
	}
	if err != nil {
		return fmt.Errorf("snapshot: RAM block %q: write %d bytes from page %d on: %w", w.blocks[block].Name, len(mem), first, err)
	}
	return nil
}

// Zero makes count pages of a block zeros that may have been written before.
func (w *Writer) Zero(block int, first, count uint64) error {
	page := w.at[block]/wire.PageSize + first
	const punch = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	err := unix.Fallocate(int(w.files.memory.Fd()), punch, int64(page*wire.PageSize), int64(count*wire.PageSize))
	if err == nil {
		var sums [maxRun * sumSize]byte
		for count > 0 && err == nil {
			n := min(count, maxRun)
			_, err = w.files.sums.WriteAt(sums[:n*sumSize], int64(page*sumSize))
			page, count = page+n, count-n
		}
	} else if errors.Is(err, unix.EOPNOTSUPP) {
		return w.writeZeros(block, first, count)
	}
	if err != nil {
		return fmt.Errorf("snapshot: RAM block %q: zeros from page %d on: %w", w.blocks[block].Name, first, err)
	}
	return nil
}

// writeZeros is Zero on a file system that makes no holes.
func (w *Writer) writeZeros(block int, first, count uint64) error {
	var mem [16 * wire.PageSize]byte
	var sums [16 * sumSize]byte
	for count > 0 {
		n := min(count, 16)
		if err := w.put(block, first, mem[:n*wire.PageSize], sums[:n*sumSize]); err != nil {
			return err
		}
		first, count = first+n, count-n
	}
	return nil
}

// Written is how many bytes of memory have been written, each time.
func (w *Writer) Written() uint64 { return w.written.Load() }

// Sync waits until memory as it has been written is on the disk.
func (w *Writer) Sync() error {
	err := errors.Join(w.files.memory.Sync(), w.files.sums.Sync())
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	return nil
}

// Commit writes the devices' states, and last of all what makes this a snapshot:
// the head, of which it fills in what it knows itself. When it returns nil, all is
// on the disk.
func (w *Writer) Commit(h Head, state []byte) error {
	h.Format, h.Blocks = format, w.blocks
	h.State = State{Bytes: uint64(len(state)), Sum: crc32.Checksum(state, wire.Castagnoli)}
	text, err := json.MarshalIndent(h, "", "  ")
	if err != nil {
		return fmt.Errorf("snapshot: machine.json: %w", err)
	}
	if len(state) > maxState || len(text) > maxHead {
		return fmt.Errorf("snapshot: %d bytes of device state and %d of machine.json: at most %d and %d", len(state), len(text), maxState, maxHead)
	}
	_, err = w.files.state.WriteAt(state, 0)
	if err == nil {
		err = errors.Join(w.Sync(), w.files.state.Sync())
	}
	if err == nil {
		_, err = w.files.machine.WriteAt(append(text, '\n'), 0)
	}
	if err == nil {
		err = w.files.machine.Sync()
	}
	if err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	return nil
}
