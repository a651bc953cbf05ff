package guest

import (
	"fmt"
	"io"
	"os"
)

// Image is a kernel or initramfs file. A zero Image is none.
type Image struct {
	io.ReaderAt
	Size int64
	Name string // for error messages
}

// OpenImage opens the regular, non-empty file at path. what says in an error
// what the file was wanted for ("kernel", "initrd"). The caller closes the
// image with Close.
func OpenImage(what, path string) (Image, error) {
	f, err := os.Open(path)
	if err != nil {
		return Image{}, fmt.Errorf("open %s: %w", what, err)
	}
	st, err := f.Stat()
	switch {
	case err != nil:
		err = fmt.Errorf("open %s: %w", what, err)
	case !st.Mode().IsRegular():
		err = fmt.Errorf("open %s %s: not a regular file (%s)", what, path, st.Mode().Type())
	case st.Size() == 0:
		err = fmt.Errorf("open %s %s: the file is empty", what, path)
	}
	if err != nil {
		f.Close()
		return Image{}, err
	}
	return Image{ReaderAt: f, Size: st.Size(), Name: path}, nil
}

// Close closes what the image reads from, if that can be closed.
func (i Image) Close() error {
	if c, ok := i.ReaderAt.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

func (i Image) present() bool { return i.ReaderAt != nil }

// bytes reads n bytes at off; the caller bounds n. what names them in an error.
func (i Image) bytes(off, n uint64, what string) ([]byte, error) {
	if size := uint64(max(i.Size, 0)); off > size || n > size-off {
		return nil, fmt.Errorf("truncated: %s needs bytes %d to %d, the file has %d", what, off, off+n, size)
	}
	p := make([]byte, n)
	if err := i.readFull(p, off); err != nil {
		return nil, fmt.Errorf("read %s: %w", what, err)
	}
	return p, nil
}

// readFull fills p from the file at off, or fails.
func (i Image) readFull(p []byte, off uint64) error {
	_, err := io.ReadFull(io.NewSectionReader(i, int64(off), int64(len(p))), p)
	return err
}

// GuestMemory is guest RAM by guest-physical address. WriteAt writes all of p
// or returns an error.
type GuestMemory interface {
	WriteAt(p []byte, gpa uint64) error
}

// copyChunk bounds the buffer through which files are copied, whatever size
// they claim to have.
const copyChunk = 1 << 20

// copyTo copies n bytes of the file at off to guest memory at gpa. The caller
// has checked that the file should hold them and that they fit in RAM.
func (i Image) copyTo(mem GuestMemory, gpa, off, n uint64) error {
	buf := make([]byte, min(n, copyChunk))
	for n > 0 {
		p := buf[:min(n, copyChunk)]
		if err := i.readFull(p, off); err != nil {
			return fmt.Errorf("read %d bytes at %d: %w", len(p), off, err)
		}
		if err := mem.WriteAt(p, gpa); err != nil {
			return fmt.Errorf("write %d bytes to guest memory at %#x: %w", len(p), gpa, err)
		}
		off, gpa, n = off+uint64(len(p)), gpa+uint64(len(p)), n-uint64(len(p))
	}
	return nil
}
