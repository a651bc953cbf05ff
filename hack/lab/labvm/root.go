package labvm

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

const (
	// rootRecipe is part of the image's name: another number for what is in it, and it is made anew.
	rootRecipe = 2
	// rootSize is the size of the file system in it.
	rootSize = "1G"
)

// rootPackages are what is in the image besides Debian's smallest system.
var rootPackages = []string{"systemd-sysv", "udev", "kmod", "fio", "iproute2", "iputils-ping", "iperf3"}

// rootFiles are written into it. Its root has no password; the machine's identity is not made up at the first boot,
// which would take a while.
var rootFiles = map[string]string{
	"etc/hostname":   "debian\n",
	"etc/hosts":      "127.0.0.1 localhost debian\n",
	"etc/fstab":      "/dev/vda / ext4 defaults 0 0\n",
	"etc/machine-id": "6d6963726f766d206775657374206f6e\n",
}

// rootMasked are services that a guest of the lab can do without, where each takes seconds.
var rootMasked = []string{
	"apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
	"fstrim.timer", "getty-static.service", "getty@tty1.service",
}

// RootImage gives the path of a raw disk image that has Debian on it: an ext4 file system without partitions, from which
// the lab's guest boots with root=/dev/vda on its command line. It is made by debootstrap, as root, with a network, and
// kept in the cache.
func RootImage(cache string, progress io.Writer) (string, error) {
	image := filepath.Join(cache, fmt.Sprintf("root-%d.img", rootRecipe))
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", fmt.Errorf("lab: making the cache: %w", err)
	}
	unlock, err := lock(filepath.Join(cache, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(image); err == nil {
		return image, nil
	}
	if err := canMakeRoot(); err != nil {
		return "", err
	}
	site, suite, err := aptSource()
	if err != nil {
		return "", err
	}
	fmt.Fprintf(progress, "lab: making a disk with Debian %s from %s; this takes a minute or two\n", suite, site)
	start := time.Now()
	tmp, err := os.MkdirTemp(cache, "root-")
	if err != nil {
		return "", fmt.Errorf("lab: writing the cache: %w", err)
	}
	defer os.RemoveAll(tmp)
	tree, made := filepath.Join(tmp, "tree"), filepath.Join(tmp, "image")
	if err := runQuietly("debootstrap", "--variant=minbase", "--include="+strings.Join(rootPackages, ","), suite, tree, site); err != nil {
		return "", err
	}
	if err := furnishRoot(tree); err != nil {
		return "", fmt.Errorf("lab: Debian's root: %w", err)
	}
	if err := runQuietly("mkfs.ext4", "-q", "-L", "debian", "-d", tree, made, rootSize); err != nil {
		return "", err
	}
	if err := os.Rename(made, image); err != nil {
		return "", fmt.Errorf("lab: writing the cache: %w", err)
	}
	fmt.Fprintf(progress, "lab: %s made in %.0f s\n", image, time.Since(start).Seconds())
	return image, nil
}

// ErrNoRootImage: the image is not there, and cannot be made on this machine.
var ErrNoRootImage = errors.New("no disk with Debian on it")

func canMakeRoot() error {
	for tool, remedy := range map[string]string{"debootstrap": "apt-get install debootstrap", "mkfs.ext4": "apt-get install e2fsprogs", "apt-get": "make it on Debian or Ubuntu"} {
		if _, err := exec.LookPath(tool); err != nil {
			return fmt.Errorf("lab: %w: %s is not here: %s", ErrNoRootImage, tool, remedy)
		}
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("lab: %w: debootstrap needs root: sudo go run ./hack/lab root, once", ErrNoRootImage)
	}
	return nil
}

var indexTarget = regexp.MustCompile(`(?m)^(\S+) ([a-z]+)$`)

// aptSource gives the mirror that this machine's packages come from, and the suite.
func aptSource() (site, suite string, err error) {
	out, err := exec.Command("apt-get", "indextargets", "--format", "$(SITE) $(CODENAME)", "Created-By: Packages").Output()
	if m := indexTarget.FindSubmatch(out); err == nil && m != nil {
		return strings.TrimSuffix(string(m[1]), "/"), string(m[2]), nil
	}
	return "", "", fmt.Errorf("lab: apt-get indextargets names no suite of packages: %v\n%s", err, out)
}

// furnishRoot makes of what debootstrap has left a system that one can log in to.
func furnishRoot(tree string) error {
	for name, text := range rootFiles {
		if err := os.WriteFile(filepath.Join(tree, name), []byte(text), 0o644); err != nil {
			return err
		}
	}
	for _, unit := range rootMasked {
		if err := os.Symlink("/dev/null", filepath.Join(tree, "etc/systemd/system", unit)); err != nil {
			return err
		}
	}
	shadow := filepath.Join(tree, "etc/shadow")
	b, err := os.ReadFile(shadow)
	if err != nil {
		return err
	}
	b = regexp.MustCompile(`(?m)^root:[^:]*:`).ReplaceAll(b, []byte("root::"))
	if err := os.WriteFile(shadow, b, 0o640); err != nil {
		return err
	}
	for _, spare := range []string{"var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/man", "usr/share/locale"} {
		if err := os.RemoveAll(filepath.Join(tree, spare)); err != nil {
			return err
		}
	}
	return nil
}

// runQuietly runs a program, of which only a failure is of interest.
func runQuietly(name string, args ...string) error {
	var last lastBytes
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &last, &last
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("lab: %s: %w; is there a network?\n%s", name, err, bytes.TrimSpace(last.b))
	}
	return nil
}
