package doctor

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"microvm/devices/virtio/blk"
)

// lookAtDisks makes a file without a name in dir, and opens and locks it as a
// disk.
func lookAtDisks(dir string) []Check {
	if dir == "" {
		dir = "."
	}
	const purpose = "--disk"
	ring := check("io_uring", purpose+" (speed)", blk.CheckRing(), "it works")
	if ring.Status == Missing { // threads do it
		ring = ring.warn(ring.Found, "sysctl kernel.io_uring_disabled=0, or Linux 5.5 or newer")
	}
	name := "disks in " + dir
	direct, err := tryDisk(dir)
	disk := check(name, purpose, err, "they can be locked (F_OFD_SETLK), and read and written past the host's cache (O_DIRECT)")
	if err == nil && !direct {
		disk = disk.warn("the file system takes no O_DIRECT: they go through the host's cache", "have images that move on ext4, XFS or NFS")
	}
	return []Check{disk, ring}
}

func tryDisk(dir string) (direct bool, err error) {
	file, err := os.OpenFile(dir, os.O_RDWR|unix.O_TMPFILE, 0o600)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EISDIR) { // a file system without such files
		if file, err = os.CreateTemp(dir, ".microvm-doctor-*"); err == nil {
			defer os.Remove(file.Name())
		}
	}
	if err != nil {
		return false, fmt.Errorf("%w; run doctor in a directory that you may write to", err)
	}
	defer file.Close()
	if err := file.Truncate(1 << 20); err != nil {
		return false, err
	}
	image, err := blk.OpenImage(fmt.Sprintf("/proc/self/fd/%d", file.Fd()), false)
	if err != nil {
		return false, err
	}
	return image.Direct(), errors.Join(image.Lock(), image.Close())
}
