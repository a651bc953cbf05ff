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
	out, err := exec.Command("ldd", path).CombinedOutput()
	if err != nil {
		return fmt.Errorf("lab: ldd %s: %w\n%s", path, err, out)
	}
	files := []string{"/usr/share/qemu", "/usr/share/seabios"}
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
	return a.Copy(path, path) // it looks for its firmware from where it lies
}
