package snapshot

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"time"

	"microvm/migration/wire"
)

// format numbers what the doc of this package describes.
const format = 1

// Bounds of what is read before it is checked.
const (
	maxHead   = 2 << 20
	maxState  = 64 << 20 // of PACKAGED, likewise
	maxBlocks = 64
)

// alignment is where a block may begin in the memory file: at the largest page that
// guest RAM is made of.
const alignment = 2 << 20

// A Block is a RAM block.
type Block struct {
	Name string `json:"name"`
	Size uint64 `json:"size"` // bytes, a multiple of 4096
}

// A Disk is what a disk was like when the VM was stopped for its snapshot.
type Disk struct {
	Path     string    `json:"path"`
	Bytes    uint64    `json:"bytes"`
	Modified time.Time `json:"modified"`
}

// A Head is what machine.json has.
type Head struct {
	Format  int       `json:"format"`
	Program string    `json:"program"` // the version that wrote it
	VM      string    `json:"vm"`
	Taken   time.Time `json:"taken"`
	Blocks  []Block   `json:"blocks"`
	Disks   []Disk    `json:"disks,omitempty"`
	State   State     `json:"state"`
	// Machine is what a migration's source says of itself in CONFIG.
	Machine json.RawMessage `json:"machine"`
}

// State describes the file of that name.
type State struct {
	Bytes uint64 `json:"bytes"`
	Sum   uint32 `json:"crc32c"`
}

// offsets gives where each block begins in the memory file, and that file's size.
func offsets(blocks []Block) (at []uint64, size uint64, err error) {
	if len(blocks) == 0 || len(blocks) > maxBlocks {
		return nil, 0, fmt.Errorf("%d RAM blocks: has to be 1 to %d", len(blocks), maxBlocks)
	}
	for _, b := range blocks {
		size = (size + alignment - 1) &^ (alignment - 1)
		if b.Size == 0 || b.Size%wire.PageSize != 0 || b.Size > math.MaxInt64-alignment-size {
			return nil, 0, fmt.Errorf("RAM block %q of %d bytes: has to be a multiple of %d that fits a file", b.Name, b.Size, wire.PageSize)
		}
		at = append(at, size)
		size += b.Size
	}
	return at, size, nil
}

// ErrUnfinished: whoever wrote the snapshot never came to its end.
var ErrUnfinished = errors.New("the snapshot was never finished: it cannot be restored")

// readHead reads machine.json, which has to be right for the other files.
func (f *Files) readHead() (Head, error) {
	var h Head
	b, err := io.ReadAll(io.LimitReader(f.machine, maxHead+1))
	switch {
	case err != nil:
		return h, err
	case len(b) == 0:
		return h, ErrUnfinished
	case len(b) > maxHead:
		return h, fmt.Errorf("more than %d bytes", maxHead)
	}
	// The format comes first: another one may have other fields.
	var version struct {
		Format int `json:"format"`
	}
	if err := json.Unmarshal(b, &version); err != nil {
		return h, err
	}
	if version.Format != format {
		return h, fmt.Errorf("format %d, this program has format %d; use the version that wrote it", version.Format, format)
	}
	in := json.NewDecoder(bytes.NewReader(b))
	in.DisallowUnknownFields()
	if err := in.Decode(&h); err != nil {
		return h, err
	}
	if h.State.Bytes > maxState {
		return h, fmt.Errorf("device state of %d bytes: at most %d", h.State.Bytes, maxState)
	}
	return h, nil
}

// sumOf is what the sums file has for a page.
func sumOf(page []byte) uint32 { return crc32.Checksum(page, wire.Castagnoli) ^ sumOfZeros }

var sumOfZeros = crc32.Checksum(make([]byte, wire.PageSize), wire.Castagnoli)

// VM says whose snapshot dir has.
func VM(dir string) (string, error) {
	f, err := Open(dir)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h, err := f.readHead()
	if err != nil {
		return "", fmt.Errorf("snapshot: %s: %w", f.machine.Name(), err)
	}
	return h.VM, nil
}
