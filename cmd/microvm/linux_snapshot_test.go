//go:build linuxguest

package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// goesOnFromASnapshot saves a VM whose guest has a shell and the disk mounted on /disk,
// and has it go on from there lazily, with its memory, its disk and its clock as they
// were. Once it has written to the disk, the same snapshot is not restored again.
func (h *host) goesOnFromASnapshot(vm *process, name string) {
	h.t.Helper()
	vm.enter("dd if=/dev/urandom of=/disk/f bs=64k count=64 conv=fsync; dd if=/dev/urandom of=/f bs=64k count=512; dmesg > /log; " +
		"(i=0; while true; do i=$((i + 1)); echo $i > /count.new; mv /count.new /count; done) & echo sums $(cat /f /disk/f | md5sum) at $(date +%s)")
	read := func(p *process) (sum string, at int64) {
		h.t.Helper()
		line := p.awaitLine("sums ")
		if _, err := fmt.Sscanf(line, "sums %s - at %d", &sum, &at); err != nil {
			h.t.Fatalf("%q: %v", line, err)
		}
		return sum, at
	}
	sum, at := read(vm)
	dir := filepath.Join(h.root, "snapshot")
	h.must(0, "snapshot", name, dir)
	vm.wait(0)
	wasSaved := time.Now()

	then := h.start("restore", dir, "--lazy")
	then.patience = linuxPatience
	then.enter("echo sums $(cat /f /disk/f | md5sum) at $(date +%s)")
	if got, now := read(then); got != sum || now < at {
		h.t.Errorf("it has %s, and had %s; its clock says %d, and said %d", got, sum, now, at)
	} else {
		h.t.Logf("between the two lines its clock went on by %d s, and this host's since it was saved by %v", now-at, time.Since(wasSaved))
	}
	then.enter("was=$(cat /count); while [ $(cat /count) = $was ]; do sleep 0.1; done; echo it counts")
	then.awaitLine("it counts")
	then.awaitError("all of the guest's memory is here")
	then.enter("echo more > /disk/g; sync; dmesg | grep -vxFf /log | grep -iE 'lockup|stall|error|hung|Call Trace' | sed 's/^/log: /'; echo log end")
	then.awaitLine("log end")
	if text := then.stdout.String(); strings.Contains(text, "\nlog: ") {
		h.t.Errorf("the guest complains:\n%s", text)
	}
	then.enter("poweroff -f")
	then.wait(0)
	again := h.start("restore", dir)
	again.wait(exitFailure)
	if !strings.Contains(again.stderr.String(), "was written to at") {
		h.t.Errorf("with a disk of another time: %s", again.stderr)
	}
}
