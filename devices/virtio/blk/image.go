package blk

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// sectorSize is what the device counts in, whatever the disk's blocks are.
const sectorSize = 512

// An Image is a raw file or a block device that is a guest's disk. A disk's
// requests may use it from many goroutines; opening, locking and closing is
// for one owner.
type Image struct {
	path     string
	readOnly bool
	file     *os.File
	fd       int // file's
	// direct is the file with O_DIRECT, nil where that is not possible;
	// align is what addresses in memory and in the file have to be then.
	direct                 *os.File
	directFD               int
	alignMemory, alignFile uint64
	// cached says that something was written through the host's cache since
	// the last sync.
	cached atomic.Bool
}

// OpenImage opens the file at path, without a lock. An error names it.
func OpenImage(path string, readOnly bool) (*Image, error) {
	flags := unix.O_RDWR | unix.O_CLOEXEC
	if readOnly {
		flags = unix.O_RDONLY | unix.O_CLOEXEC
	}
	// First, since to open something else, such as a pipe, may wait.
	info, err := os.Stat(path)
	if err == nil && !info.Mode().IsRegular() && info.Mode()&(os.ModeDevice|os.ModeCharDevice) != os.ModeDevice {
		err = fmt.Errorf("%s is a %v: has to be a regular file or a block device", path, info.Mode().Type())
	}
	var file *os.File
	if err == nil {
		file, err = os.OpenFile(path, flags, 0)
	}
	if err != nil {
		if !readOnly && (errors.Is(err, unix.EACCES) || errors.Is(err, unix.EROFS) || errors.Is(err, unix.EPERM)) {
			err = fmt.Errorf("%w; to attach it read-only: %s,ro", err, path)
		}
		return nil, fmt.Errorf("disk: %w", err)
	}
	img := &Image{path: path, readOnly: readOnly, file: file, fd: int(file.Fd()), directFD: -1}
	if _, err := img.sectors(); err != nil {
		return nil, errors.Join(fmt.Errorf("disk %s: %w", path, err), file.Close())
	}
	img.openDirect(flags)
	return img, nil
}

// openDirect opens the file a second time, with O_DIRECT, if that is possible.
func (img *Image) openDirect(flags int) {
	// A file in a file system in memory is nothing but cache; newer kernels
	// take O_DIRECT there and mean nothing by it. A block device's node lies in
	// one too, which says nothing about the device.
	var fs unix.Statfs_t
	info, err := img.file.Stat()
	if err == nil && info.Mode().IsRegular() && unix.Fstatfs(img.fd, &fs) == nil && fs.Type == unix.TMPFS_MAGIC {
		return
	}
	// Where the kernel does not tell (before 6.1), a page is enough for all.
	img.alignMemory, img.alignFile = 4096, 4096
	var stat unix.Statx_t
	err = unix.Statx(img.fd, "", unix.AT_EMPTY_PATH, unix.STATX_DIOALIGN, &stat)
	if err == nil && stat.Mask&unix.STATX_DIOALIGN != 0 {
		if stat.Dio_mem_align == 0 || stat.Dio_offset_align == 0 {
			return
		}
		img.alignMemory, img.alignFile = uint64(stat.Dio_mem_align), uint64(stat.Dio_offset_align)
	}
	// By the file that is open, not by its name, which may be another's now.
	name := fmt.Sprintf("/proc/self/fd/%d", img.fd)
	if img.direct, err = os.OpenFile(name, flags|unix.O_DIRECT, 0); err != nil {
		img.direct = nil
		return
	}
	img.directFD = int(img.direct.Fd())
}

// Path is the name that it was opened by.
func (img *Image) Path() string { return img.path }

// Direct reports whether O_DIRECT is possible.
func (img *Image) Direct() bool { return img.direct != nil }

// sectors is the size as it is now.
func (img *Image) sectors() (uint64, error) {
	// Seeking works on block devices too. Nothing else uses the position.
	size, err := img.file.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, err
	}
	if size < sectorSize {
		return 0, fmt.Errorf("%d bytes: a disk has at least one sector of %d", size, sectorSize)
	}
	return uint64(size) / sectorSize, nil
}

// Lock makes this VM the image's owner. It does not wait.
func (img *Image) Lock() error {
	kind := int16(unix.F_WRLCK)
	if img.readOnly {
		kind = unix.F_RDLCK
	}
	err := img.setLock(kind)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		if img.readOnly {
			return fmt.Errorf("disk %s: another process is writing to it; is it the disk of a VM that runs?", img.path)
		}
		return fmt.Errorf("disk %s: another process uses it; is it the disk of a VM that runs? Several VMs can share a disk if all have it read-only: %s,ro", img.path, img.path)
	}
	if err != nil {
		return fmt.Errorf("disk %s: lock: %w", img.path, err)
	}
	// What this host has in its cache was read before another one wrote.
	if err := unix.Fadvise(img.fd, 0, 0, unix.FADV_DONTNEED); err != nil {
		return fmt.Errorf("disk %s: drop what is cached: %w", img.path, err)
	}
	return nil
}

// Unlock gives the image to whoever locks it next, who finds everything in it
// that was written here.
//
// Preconditions: no request is under way.
func (img *Image) Unlock() error {
	if err := img.Settle(); err != nil {
		return err
	}
	if err := img.setLock(unix.F_UNLCK); err != nil {
		return fmt.Errorf("disk %s: unlock: %w", img.path, err)
	}
	return nil
}

// Modified is when the file was written last; zero of a block device, which does not
// say.
func (img *Image) Modified() (time.Time, error) {
	st, err := img.file.Stat()
	if err != nil {
		return time.Time{}, fmt.Errorf("disk %s: %w", img.path, err)
	}
	if !st.Mode().IsRegular() {
		return time.Time{}, nil
	}
	return st.ModTime(), nil
}

// Settle writes out what is only in this host's cache. Unlock does so as well,
// and has nothing left to do after it.
func (img *Image) Settle() error {
	if img.cached.Swap(false) {
		if err := unix.Fdatasync(img.fd); err != nil {
			img.cached.Store(true)
			return fmt.Errorf("disk %s: write out what is cached: %w", img.path, err)
		}
	}
	return nil
}

func (img *Image) setLock(kind int16) error {
	return unix.FcntlFlock(img.file.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: kind, Whence: io.SeekStart})
}

// Close closes the files, which also gives up the lock.
func (img *Image) Close() error {
	var direct error
	if img.direct != nil {
		direct = img.direct.Close()
	}
	return errors.Join(img.file.Close(), direct)
}
