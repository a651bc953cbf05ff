package labvm

import (
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"slices"
)

// QEMUBinary is the emulator that the lab runs on, and with Options.QEMU runs in it as a peer to compare with.
const QEMUBinary = "qemu-system-x86_64"

func lookQEMU() (string, error) {
	path, err := exec.LookPath(QEMUBinary)
	if err != nil {
		return "", fmt.Errorf("lab: %s is not here; on Debian or Ubuntu: apt-get install qemu-system-x86", QEMUBinary)
	}
	return path, nil
}

var sharedLibrary = regexp.MustCompile(`(?m)(?:=> )?(/\S+) \(0x`)

// addQEMU adds this machine's QEMU with its libraries and firmware, each at its own path.
func addQEMU(a *Archive) error {
	path, err := lookQEMU()
	if err != nil {
		return err
	}
	// It looks for its firmware from where it lies.
	return addProgram(a, path, "/usr/share/qemu", "/usr/share/seabios")
}

// addMakeFS adds this machine's mkfs.ext4, for tests with disks, if it has one.
func addMakeFS(a *Archive) error {
	path, err := exec.LookPath("mkfs.ext4")
	if err != nil {
		return nil // the tests that want it say so
	}
	return addProgram(a, path, "/etc/mke2fs.conf")
}

// addProgram adds one of this machine's programs with its libraries and other files, each at its own path. A file
// that is not here is left out.
func addProgram(a *Archive, path string, files ...string) error {
	out, err := exec.Command("ldd", path).CombinedOutput()
	if err != nil {
		return fmt.Errorf("lab: ldd %s: %w\n%s", path, err, out)
	}
	for _, m := range sharedLibrary.FindAllSubmatch(out, -1) {
		files = append(files, string(m[1]))
	}
	slices.Sort(files)
	for _, f := range slices.Compact(files) {
		if _, err := os.Stat(f); err != nil {
			continue // not every distribution splits its firmware in the same folders
		}
		if err := a.Copy(f, f); err != nil {
			return err
		}
	}
	return a.Copy(path, path)
}
