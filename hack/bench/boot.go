package main

import (
	"fmt"
	"os"
)

// boot is the time from the start of the process to the guest's init, with a Linux kernel and an initramfs.
type boot struct{}

func (boot) lab() bool { return true }

func (boot) sample(b *bench, s side) (figures, error) {
	kernel, initrd := os.Getenv("MICROVM_GUEST_KERNEL"), os.Getenv("MICROVM_GUEST_INITRD")
	if kernel == "" || initrd == "" {
		return nil, fmt.Errorf("set MICROVM_GUEST_KERNEL and MICROVM_GUEST_INITRD: they are what is booted")
	}
	const cmdline, mem = "console=ttyS0 quiet mv.job=poweroff", 256
	dir, remove, err := b.scratch()
	if err != nil {
		return nil, err
	}
	defer remove()
	var p *process
	if s == ours {
		p, err = start(b.context, []string{"MICROVM_STATE_DIR=" + dir}, b.microvm, "run",
			"-k", kernel, "-i", initrd, "-p", cmdline, "-m", fmt.Sprintf("%dM", mem))
	} else {
		p, err = start(b.context, nil, b.qemu, append(qemuArgs(kernel, cmdline, 1, mem), "-initrd", initrd)...)
	}
	if err != nil {
		return nil, err
	}
	defer p.end()
	_, _, when, err := p.await(0, "GUEST READY")
	if err != nil {
		return nil, err
	}
	return figures{"init": float64(when.Sub(p.begun))}, nil
}
