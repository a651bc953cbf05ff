package blk

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// maxVectors is how many vectors a system call takes (UIO_MAXIOV).
const maxVectors = 1024

// transfer reads from the image into vectors, or writes them to it, all of
// them, from byte off on; it uses them up. flags are RWF_*.
func (img *Image) transfer(vectors []unix.Iovec, off uint64, write bool, flags int) error {
	fd, call := img.fd, preadv2
	if img.aligned(vectors, off) {
		fd = img.directFD
	} else if write {
		img.cached.Store(true)
	}
	if write {
		call = pwritev2
	}
	for len(vectors) > 0 {
		n, err := call(fd, vectors[:min(len(vectors), maxVectors)], int64(off), flags)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return err
		case n == 0:
			return fmt.Errorf("at byte %d: %w", off, io.ErrUnexpectedEOF)
		}
		off += uint64(n)
		vectors = advance(vectors, uint64(n))
		if img.direct != nil && len(vectors) > 0 && !img.aligned(vectors, off) {
			fd = img.fd // the rest of a short transfer
			img.cached.Store(img.cached.Load() || write)
		}
	}
	return nil
}

// aligned says whether O_DIRECT is possible for a transfer.
func (img *Image) aligned(vectors []unix.Iovec, off uint64) bool {
	if img.direct == nil || off%img.alignFile != 0 {
		return false
	}
	for i := range vectors {
		if address(&vectors[i])%img.alignMemory != 0 || vectors[i].Len%img.alignFile != 0 {
			return false
		}
	}
	return true
}

// zero makes n bytes from off on read as zeros. unmap says that the disk may
// forget them.
func (img *Image) zero(off, n uint64, unmap bool) error {
	mode := uint32(unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE)
	if unmap {
		mode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	}
	img.cached.Store(true)
	err := img.fallocate(mode, off, n)
	if !cannotClear(err) {
		return err
	}
	for n > 0 {
		part := zeros[:min(n, uint64(len(zeros)))]
		if _, err := img.file.WriteAt(part, int64(off)); err != nil {
			return err
		}
		off, n = off+uint64(len(part)), n-uint64(len(part))
	}
	return nil
}

var zeros [64 << 10]byte

// discard says that n bytes from off on are not needed. What cannot make use
// of that need not.
func (img *Image) discard(off, n uint64) error {
	img.cached.Store(true)
	err := img.fallocate(unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	if cannotClear(err) {
		return nil
	}
	return err
}

// cannotClear says that a file system does not know how to do it, or that a
// block device with blocks larger than our sectors cannot do so little.
func cannotClear(err error) bool {
	return errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL)
}

func (img *Image) fallocate(mode uint32, off, n uint64) error {
	for {
		if err := unix.Fallocate(img.fd, mode, int64(off), int64(n)); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// sync makes the disk keep what was written before.
func (img *Image) sync() error { return unix.Fdatasync(img.fd) }
