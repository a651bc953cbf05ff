package confine

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// capabilities are the sets of a thread, by their bits.
type capabilities struct{ effective, permitted uint64 }

// held is what this thread has. It is the same in every thread of a Go program
// that has not seen to something else.
func held() (capabilities, error) {
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData // the lower and the upper 32 bits
	if err := unix.Capget(&head, &data[0]); err != nil {
		return capabilities{}, fmt.Errorf("capget: %w", err)
	}
	return capabilities{
		effective: uint64(data[0].Effective) | uint64(data[1].Effective)<<32,
		permitted: uint64(data[0].Permitted) | uint64(data[1].Permitted)<<32,
	}, nil
}

// keepOnly drops, in every thread, all capabilities but those in keep.
func keepOnly(keep uint64) error {
	had, err := held()
	if err != nil {
		return err
	}
	effective, permitted := had.effective&keep, had.permitted&keep
	if effective == had.effective && permitted == had.permitted {
		return nil
	}
	// On the heap, where they stay while all threads make the call.
	args := &struct {
		head unix.CapUserHeader
		data [2]unix.CapUserData
	}{head: unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}}
	for i := range args.data {
		args.data[i] = unix.CapUserData{Effective: uint32(effective >> (32 * i)), Permitted: uint32(permitted >> (32 * i))}
	}
	defer runtime.KeepAlive(args)
	if err := onAllThreads(unix.SYS_CAPSET, uintptr(unsafe.Pointer(&args.head)), uintptr(unsafe.Pointer(&args.data[0])), 0); err != nil {
		return fmt.Errorf("capset: %w", err)
	}
	return nil
}
