package main

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"

	"microvm/hack/lab/labvm"
)

// debianWorker is a Linux guest of one vCPU that does the jobs of guest.sh with the programs of the disk with Debian on it.
type debianWorker struct {
	*process
	remove func() // its state
}

// debianRoot is that disk.
func debianRoot() string { return os.Getenv(labvm.EnvGuestRoot) }

// startDebian boots it on one side, with that side's arguments for the device that is measured. params are for guest.sh.
func startDebian(b *bench, s side, params string, args map[side][]string) (*debianWorker, error) {
	kernel, initrd, root := os.Getenv(labvm.EnvGuestKernel), os.Getenv(labvm.EnvGuestInitrd), debianRoot()
	if kernel == "" || initrd == "" || root == "" {
		return nil, fmt.Errorf("set %s, %s and %s: they are what is booted", labvm.EnvGuestKernel, labvm.EnvGuestInitrd, labvm.EnvGuestRoot)
	}
	dir, remove, err := b.scratch()
	if err != nil {
		return nil, err
	}
	cmdline := "console=ttyS0 quiet " + params
	const mem = 256
	var p *process
	if s == ours {
		p, err = start(b.context, []string{"MICROVM_STATE_DIR=" + dir}, b.microvm, append([]string{"run", "-k", kernel, "-i", initrd,
			"-p", cmdline, "-m", fmt.Sprintf("%dM", mem), "--disk", root + ",ro,serial=debian"}, args[s]...)...)
	} else {
		// The other side has locked the disk for reading: all of it, where QEMU has bytes of its own for each purpose.
		p, err = start(b.context, nil, b.qemu, slices.Concat(qemuArgs(kernel, cmdline, 1, mem), []string{"-initrd", initrd,
			"-drive", "if=none,id=debian,format=raw,readonly=on,file.locking=off,file=" + root, "-device", "virtio-blk-device,drive=debian,serial=debian"}, args[s])...)
	}
	if err != nil {
		remove()
		return nil, err
	}
	w := &debianWorker{process: p, remove: remove}
	if _, _, _, err := p.await(0, "ready for jobs"); err != nil {
		w.end()
		return nil, err
	}
	return w, nil
}

// ask has a job done and gives its figures.
func (w *debianWorker) ask(job string, figures int) ([]float64, error) {
	said := w.said()
	if _, err := fmt.Fprintln(w.input, job); err != nil {
		return nil, fmt.Errorf("%s: %w: %s", job, err, w.last())
	}
	_, line, _, err := w.await(said, " "+job)
	if err != nil {
		return nil, err
	}
	return jobFigures(line, job, figures)
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

func (w *debianWorker) end() {
	w.process.end()
	w.remove()
}
