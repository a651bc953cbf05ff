package main

import (
	"fmt"
	"os"

	"microvm/hack/lab/labvm"
)

// debianGuest is a Linux guest of one vCPU that works with the programs of the disk with Debian on it.
type debianGuest struct{ kernel, initrd, root string }

func findDebianGuest() (debianGuest, error) {
	g := debianGuest{os.Getenv(labvm.EnvGuestKernel), os.Getenv(labvm.EnvGuestInitrd), os.Getenv(labvm.EnvGuestRoot)}
	if g.kernel == "" || g.initrd == "" || g.root == "" {
		return g, fmt.Errorf("set %s, %s and %s: they are what is booted", labvm.EnvGuestKernel, labvm.EnvGuestInitrd, labvm.EnvGuestRoot)
	}
	return g, nil
}

// run boots it on one side, with that side's arguments for the device that is measured, and gives the lines that it
// prints before the line that begins with end. dir is where its state may be.
func (g debianGuest) run(b *bench, s side, dir, job, end string, args map[side][]string) ([]string, error) {
	cmdline := "console=ttyS0 quiet mv.job=" + job
	const mem = 256
	var p *process
	var err error
	if s == ours {
		p, err = start(b.context, []string{"MICROVM_STATE_DIR=" + dir}, b.microvm, append([]string{"run", "-k", g.kernel, "-i", g.initrd,
			"-p", cmdline, "-m", fmt.Sprintf("%dM", mem), "--disk", g.root + ",ro,serial=debian"}, args[s]...)...)
	} else {
		all := append(qemuArgs(g.kernel, cmdline, 1, mem), "-initrd", g.initrd,
			"-drive", "if=none,id=debian,format=raw,readonly=on,file="+g.root, "-device", "virtio-blk-device,drive=debian,serial=debian")
		p, err = start(b.context, nil, b.qemu, append(all, args[s]...)...)
	}
	if err != nil {
		return nil, err
	}
	defer p.end()
	at, _, _, err := p.await(0, end)
	if err != nil {
		return nil, err
	}
	return p.lines[:at], nil
}
