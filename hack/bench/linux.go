package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"microvm/hack/lab/labvm"
)

// linux is a Linux guest of one vCPU, with the lab's kernel and initramfs.
type linux struct {
	*process
	remove func() // its state
}

// startLinux boots it on one side, with that side's arguments for devices. params are for guest.sh.
func startLinux(b *bench, s side, params string, args map[side][]string) (*linux, error) {
	kernel, initrd := os.Getenv(labvm.EnvGuestKernel), os.Getenv(labvm.EnvGuestInitrd)
	if kernel == "" || initrd == "" {
		return nil, fmt.Errorf("set %s and %s: they are what is booted", labvm.EnvGuestKernel, labvm.EnvGuestInitrd)
	}
	dir, remove, err := b.scratch()
	if err != nil {
		return nil, err
	}
	cmdline := "console=ttyS0 quiet " + params
	const mem = 256
	var p *process
	if s == ours {
		p, err = start(b.context, []string{"MICROVM_STATE_DIR=" + dir}, b.microvm, append([]string{"run",
			"-k", kernel, "-i", initrd, "-p", cmdline, "-m", fmt.Sprintf("%dM", mem)}, args[s]...)...)
	} else {
		p, err = start(b.context, nil, b.qemu, slices.Concat(qemuArgs(kernel, cmdline, 1, mem), []string{"-initrd", initrd}, args[s])...)
	}
	if err != nil {
		remove()
		return nil, err
	}
	return &linux{p, remove}, nil
}

func (g *linux) end() {
	g.process.end()
	g.remove()
}

// debianRoot is the disk with Debian on it.
func debianRoot() string { return os.Getenv(labvm.EnvGuestRoot) }

// debianWorker is a guest that does the jobs of guest.sh with the programs of that disk.
type debianWorker struct{ *linux }

// startDebian boots it, with arguments for the device that is measured.
func startDebian(b *bench, s side, params string, args map[side][]string) (debianWorker, error) {
	root := debianRoot()
	if root == "" {
		return debianWorker{}, fmt.Errorf("set %s: it is where the programs are that measure", labvm.EnvGuestRoot)
	}
	g, err := startLinux(b, s, params, map[side][]string{
		ours: append([]string{"--disk", root + ",ro,serial=debian"}, args[ours]...),
		// The other side has locked the disk for reading: all of it, where QEMU has bytes of its own for each purpose.
		qemu: append([]string{"-drive", "if=none,id=debian,format=raw,readonly=on,file.locking=off,file=" + root,
			"-device", "virtio-blk-device,drive=debian,serial=debian"}, args[qemu]...),
	})
	if err != nil {
		return debianWorker{}, err
	}
	if _, _, _, err := g.await(0, "ready for jobs"); err != nil {
		g.end()
		return debianWorker{}, err
	}
	return debianWorker{g}, nil
}

// ask has a job done and gives its figures.
func (w debianWorker) ask(job string, figures int) ([]float64, error) {
	said := w.said()
	if _, err := fmt.Fprintln(w.input, job); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", job, err, w.last())
	}
	_, line, _, err := w.await(said, " "+job)
	if err != nil {
		return nil, err
	}
	f, err := jobFigures(line, job, figures)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, w.last())
	}
	return f, nil
}

// jobFigures reads a line "done JOB FIGURE..." of guest.sh.
func jobFigures(line, job string, figures int) ([]float64, error) {
	words, done := strings.CutPrefix(line, "done "+job+" ")
	out := []float64{}
	for _, word := range strings.Fields(words) {
		v, err := strconv.ParseFloat(word, 64)
		done = done && err == nil && v > 0
		out = append(out, v)
	}
	if !done || len(out) != figures {
		return nil, fmt.Errorf("%s in the guest: it said %q", job, line)
	}
	return out, nil
}
