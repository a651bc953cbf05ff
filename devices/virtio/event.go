package virtio

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// An event is an eventfd that one goroutine waits on, parked, and KVM or
// anybody else signals.
type event struct {
	file *os.File
	// fd is file's, for KVM: to ask the file for it would make it a blocking
	// one, and each waiting goroutine a waiting thread.
	fd  int
	buf [8]byte // the waiter's
}

func newEvent(name string) (*event, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("eventfd for %s: %w", name, err)
	}
	return &event{file: os.NewFile(uintptr(fd), "eventfd for "+name), fd: fd}, nil
}

// one is what an eventfd's counter grows by; shared, so that a vCPU thread's
// signal does not allocate.
var one = [8]byte{1}

func (e *event) signal() error {
	_, err := e.file.Write(one[:])
	return err
}

// wait returns when there was a signal since it returned last.
func (e *event) wait() error {
	_, err := e.file.Read(e.buf[:])
	return err
}

func (e *event) close() error { return e.file.Close() }
