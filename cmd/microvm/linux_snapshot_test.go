//go:build linuxguest

package main

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestLinuxGoesOnFromASnapshot, lazily, with its memory, its disk and its clock as they
// were. Once it has written to the disk, the same snapshot is not restored again.
func TestLinuxGoesOnFromASnapshot(t *testing.T) {
	disk := newDisk(t)
	h := newHost(t)
	first := h.startWithDisk("a", "mv.job=shell", disk)
	first.awaitLine("GUEST READY cpus 2 ")
	first.enter("mkdir /disk && mount -t ext4 /dev/vda /disk && dd if=/dev/urandom of=/disk/f bs=64k count=64 conv=fsync; dd if=/dev/urandom of=/f bs=64k count=512; " +
		"(i=0; while true; do i=$((i + 1)); echo $i > /count; done) & echo sums $(cat /f /disk/f | md5sum) at $(date +%s)")
	sums := first.awaitLine("sums ")
	var sum string
	var at int64
	if _, err := fmt.Sscanf(sums, "sums %s - at %d", &sum, &at); err != nil {
		t.Fatalf("%q: %v", sums, err)
	}
	dir := filepath.Join(h.root, "snapshot")
	h.must(0, "snapshot", "a", dir)
	first.wait(0)
	wasSaved := time.Now()

	second := h.start("restore", dir, "--lazy")
	second.patience = linuxPatience
	second.enter("echo sums $(cat /f /disk/f | md5sum) at $(date +%s)")
	sums = second.awaitLine("sums ")
	var sumThere string
	var then int64
	if _, err := fmt.Sscanf(sums, "sums %s - at %d", &sumThere, &then); err != nil || sumThere != sum {
		t.Errorf("it has %q, and had %s", sums, sum)
	}
	// Its clock stood still in between. That it runs too slowly cannot be told here.
	if then < at {
		t.Errorf("its clock says %d, and said %d", then, at)
	}
	t.Logf("between the two lines its clock went on by %d s, and this host's since it was saved by %v", then-at, time.Since(wasSaved))
	second.enter("was=$(cat /count); while [ $(cat /count) = $was ]; do sleep 0.1; done; echo it counts")
	second.awaitLine("it counts")
	second.awaitError("all of the guest's memory is here")
	second.enter("echo more > /disk/g; sync; dmesg | grep -iE 'lockup|stall|error|hung|Call Trace' | sed 's/^/log: /'; echo log end")
	second.awaitLine("log end")
	if text := second.stdout.String(); strings.Contains(text, "\nlog: ") {
		t.Errorf("the guest complains:\n%s", text)
	}
	second.enter("poweroff -f")
	second.wait(0)
	third := h.start("restore", dir)
	third.wait(1)
	if !strings.Contains(third.stderr.String(), "was written to at") {
		t.Errorf("with a disk of another time: %s", third.stderr)
	}
}
