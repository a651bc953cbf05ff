package main

// boot is the time from the start of the process to the guest's init, with a Linux kernel and an initramfs.
type boot struct{}

func (boot) lab() bool { return true }

func (boot) sample(b *bench, s side) (figures, error) {
	guest, err := startLinux(b, s, "mv.job=poweroff", nil)
	if err != nil {
		return nil, err
	}
	defer guest.end()
	_, _, when, err := guest.await(0, "GUEST READY")
	if err != nil {
		return nil, err
	}
	return figures{"init": float64(when.Sub(guest.begun))}, nil
}
