package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// network is what a Linux guest gets out of a virtio network card on a tap of the host, without vhost: iperf3's TCP to
// the host and from it, and the round trip of a ping. iperf3 is that of the disk with Debian on it, on both sides.
type network struct{}

func (network) lab() bool { return true }

// networkRows are the jobs, by the names that guest.sh gives them.
func networkRows() []row {
	return []row{
		{"network", "network: TCP from the guest to the host", network{}, "send", megabytes, "1.0x"},
		{"network", "network: TCP from the host to the guest", network{}, "receive", megabytes, "1.0x"},
		{"network", "network: round trip of a ping", network{}, "ping", microseconds, "1.0x"},
	}
}

// The guest's side is written down in guest.sh.
const (
	benchTap     = "bench0"
	benchAddress = "192.0.2.1/24"
)

func (network) sample(b *bench, s side) (figures, error) {
	guest, err := findDebianGuest()
	if err != nil {
		return nil, err
	}
	dir, remove, err := b.scratch()
	if err != nil {
		return nil, err
	}
	defer remove()
	untap, err := makeTap()
	if err != nil {
		return nil, err
	}
	defer untap()
	unserve, err := serveIperf(b, guest.root, filepath.Join(dir, "debian"))
	if err != nil {
		return nil, err
	}
	defer unserve()
	lines, err := guest.run(b, s, dir, "iperf", "iperf end", map[side][]string{
		ours: {"--net", "tap=" + benchTap},
		qemu: {"-netdev", "tap,id=net,vhost=off,script=no,downscript=no,ifname=" + benchTap, "-device", "virtio-net-device,netdev=net"},
	})
	if err != nil {
		return nil, err
	}
	return iperfFigures(lines)
}

// makeTap makes the host's side of the link, which both programs find there.
func makeTap() (remove func(), err error) {
	tap := &netlink.Tuntap{
		LinkAttrs: netlink.LinkAttrs{Name: benchTap}, Mode: netlink.TUNTAP_MODE_TAP,
		Flags: unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR,
	}
	if err := netlink.LinkAdd(tap); err != nil {
		return nil, fmt.Errorf("tap %s: %w", benchTap, err)
	}
	address, err := netlink.ParseAddr(benchAddress)
	if err == nil {
		err = netlink.AddrAdd(tap, address)
	}
	if err == nil {
		err = netlink.LinkSetUp(tap)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("tap %s: %w", benchTap, err), netlink.LinkDel(tap))
	}
	return func() { _ = netlink.LinkDel(tap) }, nil
}

// serveIperf has an iperf3 listen that is on Debian's disk, which is mounted at dir.
func serveIperf(b *bench, root, dir string) (stop func(), err error) {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return nil, err
	}
	if err := unix.Mount(root, dir, "ext4", unix.MS_RDONLY, ""); err != nil {
		return nil, fmt.Errorf("mount %s: %w", root, err)
	}
	// iperf3 keeps what it sends in a file there.
	tmp := filepath.Join(dir, "tmp")
	if err := unix.Mount("tmpfs", tmp, "tmpfs", 0, ""); err != nil {
		return nil, errors.Join(fmt.Errorf("mount %s: %w", tmp, err), unix.Unmount(dir, 0))
	}
	unmount := func() { _, _ = unix.Unmount(tmp, 0), unix.Unmount(dir, 0) }
	cmd := exec.CommandContext(b.context, "/usr/bin/iperf3", "-s")
	cmd.Dir = "/"
	cmd.SysProcAttr = &unix.SysProcAttr{Chroot: dir}
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		unmount()
		return nil, err
	}
	return func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		unmount()
	}, nil
}

// iperfFigures reads the lines "iperf NAME KBIT_PER_SECOND" and "ping MILLISECONDS" of guest.sh.
func iperfFigures(lines []string) (figures, error) {
	f := figures{}
	for _, line := range lines {
		words := strings.Fields(line)
		var name, value string
		var scale float64
		switch {
		case len(words) == 3 && words[0] == "iperf":
			name, value, scale = words[1], words[2], 1000./8
		case len(words) == 2 && words[0] == "ping":
			name, value, scale = words[0], words[1], 1e6
		default:
			continue
		}
		v, err := strconv.ParseFloat(value, 64)
		if err != nil || v == 0 {
			return nil, fmt.Errorf("iperf in the guest: %q", line)
		}
		f[name] = v * scale
	}
	if len(f) < 3 {
		return nil, fmt.Errorf("iperf in the guest: not all of it: %q", lines)
	}
	return f, nil
}
