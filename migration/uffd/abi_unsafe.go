package uffd

import "unsafe"

// apiVersion is UFFD_API, the only version of the interface there is.
const apiVersion = 0xAA

// Features (UFFD_FEATURE_*) that matter here.
const (
	// featureMissingHugetlbfs: memory of huge pages can be watched (Linux 4.11).
	featureMissingHugetlbfs = 1 << 4
	// featureThreadID is the thread's number in a fault event (Linux 4.14).
	featureThreadID = 1 << 8
)

// Modes, from linux/userfaultfd.h.
const (
	registerModeMissing = 1 << 0
	copyModeDontWake    = 1 << 0
)

// eventPagefault is UFFD_EVENT_PAGEFAULT, the only event we let be sent.
const eventPagefault = 0x12

// Flags of an Event.
const (
	// FaultWrite: the access was a write (UFFD_PAGEFAULT_FLAG_WRITE).
	FaultWrite = 1 << 0
)

// Numbers of the ioctls, which are also bits in the masks that UFFDIO_API and
// UFFDIO_REGISTER return.
const (
	nrRegister   = 0x00
	nrUnregister = 0x01
	nrWake       = 0x02
	nrCopy       = 0x03
	nrZeropage   = 0x04
	nrAPI        = 0x3F
)

// apiArg mirrors struct uffdio_api.
type apiArg struct {
	api      uint64
	features uint64
	ioctls   uint64
}

// rangeArg mirrors struct uffdio_range.
type rangeArg struct {
	start uint64
	len   uint64
}

// registerArg mirrors struct uffdio_register.
type registerArg struct {
	rng    rangeArg
	mode   uint64
	ioctls uint64
}

// copyArg mirrors struct uffdio_copy. src is a pointer rather than a number, so
// that the source stays alive and is found again if it is on a stack that
// moves.
type copyArg struct {
	dst    uint64
	src    *byte
	len    uint64
	mode   uint64
	copied int64
}

// zeropageArg mirrors struct uffdio_zeropage.
type zeropageArg struct {
	rng    rangeArg
	mode   uint64
	zeroed int64
}

// message mirrors struct uffd_msg with its pagefault member.
type message struct {
	event    uint8
	_        uint8
	_        uint16
	_        uint32
	flags    uint64
	address  uint64
	threadID uint32
	_        uint32
}

const messageSize = unsafe.Sizeof(message{})

// ioctl request codes as asm-generic/ioctl.h builds them: direction, size of
// the argument, type, number.
const (
	iocWrite = 1
	iocRead  = 2

	iocType = 0xAA

	// userfaultfdNew is USERFAULTFD_IOC_NEW, on /dev/userfaultfd: number 0,
	// no direction, since it takes the flags of userfaultfd(2) by value.
	userfaultfdNew = iocType << 8

	uffdioAPI        = (iocRead|iocWrite)<<30 | unsafe.Sizeof(apiArg{})<<16 | iocType<<8 | nrAPI
	uffdioRegister   = (iocRead|iocWrite)<<30 | unsafe.Sizeof(registerArg{})<<16 | iocType<<8 | nrRegister
	uffdioUnregister = iocRead<<30 | unsafe.Sizeof(rangeArg{})<<16 | iocType<<8 | nrUnregister
	uffdioWake       = iocRead<<30 | unsafe.Sizeof(rangeArg{})<<16 | iocType<<8 | nrWake
	uffdioCopy       = (iocRead|iocWrite)<<30 | unsafe.Sizeof(copyArg{})<<16 | iocType<<8 | nrCopy
	uffdioZeropage   = (iocRead|iocWrite)<<30 | unsafe.Sizeof(zeropageArg{})<<16 | iocType<<8 | nrZeropage
)
