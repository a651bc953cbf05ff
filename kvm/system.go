package kvm

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// apiVersion is what every KVM since Linux 2.6.22 answers; the kernel's
// documentation says to refuse any other.
const apiVersion = 12

const device = "/dev/kvm"

// System is /dev/kvm: what the host can do, and where VMs come from.
type System struct {
	fd       int
	mmapSize int // bytes of a vCPU's kvm_run mapping
}

// Open opens /dev/kvm and checks that it is an API and a kernel that this
// package can work with. Errors say what to do about it.
func Open() (*System, error) { return openDevice(device) }

func openDevice(path string) (*System, error) {
	fd, err := openFile(path)
	if err != nil {
		return nil, err
	}
	s := &System{fd: fd}
	if err := s.check(); err != nil {
		s.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return s, nil
}

// openFile says what to do if it cannot open the device.
func openFile(path string) (fd int, err error) {
	fd, err = unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return -1, fmt.Errorf("open %s: %w; load kvm_intel or kvm_amd (modprobe), and see that "+
			"virtualization is on in the firmware, or nested virtualization in the hypervisor", path, err)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return -1, fmt.Errorf("open %s: %w; add yourself to the group that owns it (usually kvm), or run as root", path, err)
	case err != nil:
		return -1, fmt.Errorf("open %s: %w", path, err)
	}
	return fd, nil
}

func (s *System) check() error {
	v, err := ioctl(s.fd, getAPIVersion, 0)
	if err != nil {
		return err
	}
	if v != apiVersion {
		return fmt.Errorf("KVM API version %d, need %d; use a kernel that is not modified", v, apiVersion)
	}
	for _, c := range required {
		n, err := s.Capability(c)
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("this kernel's KVM lacks %v; use Linux 4.11 or newer", c)
		}
	}
	s.mmapSize, err = ioctl(s.fd, getVCPUMmapSize, 0)
	return err
}

// Close closes the device. VMs that were made from it live on.
func (s *System) Close() error {
	if err := unix.Close(s.fd); err != nil {
		return fmt.Errorf("close %s: %w", device, err)
	}
	return nil
}

// Capability asks KVM_CHECK_EXTENSION: 0 means that the host does not have c,
// 1 or more that it does, and what more means is c's own business.
func (s *System) Capability(c Cap) (int, error) {
	return capability(s.fd, c)
}

func capability(fd int, c Cap) (int, error) {
	n, err := ioctl(fd, checkExtension, uintptr(c))
	if err != nil {
		return 0, fmt.Errorf("%v: %w", c, err)
	}
	return n, nil
}

// SupportedCPUID lists the CPUID leaves, and the bits in them, that both the
// host and KVM support: the most that a guest may be given.
func (s *System) SupportedCPUID() ([]CPUIDEntry, error) {
	c := &cpuid2{nent: maxCPUIDEntries}
	if _, err := ioctlPtr(s.fd, getSupportedCPUID, c); err != nil {
		return nil, err
	}
	return c.entries[:c.nent:c.nent], nil
}

// maxMSRIndices bounds what we believe about the length of the kernel's list,
// which was near 100 when this was written.
const maxMSRIndices = 4096

// MSRIndices lists the MSRs that KVM holds for a guest on this host: what
// there is to save. A vCPU may refuse some of them, because its CPUID does
// not have the feature.
func (s *System) MSRIndices() ([]uint32, error) {
	// struct kvm_msr_list: the count, then the indices.
	list := make([]uint32, 1+maxMSRIndices)
	list[0] = maxMSRIndices
	if _, err := ioctlPtr(s.fd, getMSRIndexList, &list[0]); err != nil {
		return nil, err
	}
	return list[1 : 1+list[0]], nil
}

// CreateVM makes a VM with no memory, no vCPU and no interrupt controller.
func (s *System) CreateVM() (*VM, error) {
	indices, err := s.MSRIndices()
	if err != nil {
		return nil, err
	}
	fd, err := ioctl(s.fd, createVM, 0)
	if err != nil {
		return nil, err
	}
	return &VM{
		fd:       fd,
		mmapSize: s.mmapSize,
		msrs:     saveList(indices),
		pages:    make(map[uint32]uint64),
	}, nil
}
