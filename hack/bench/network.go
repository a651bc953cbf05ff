package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

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

func (network) jobs() []string { return []string{"send", "receive", "ping"} }

// Each side has its own tap and network.
var (
	benchTaps      = map[side]string{ours: "bench0", qemu: "bench1"}
	benchAddresses = map[side]string{ours: "192.0.2.1", qemu: "198.51.100.1"}
	benchGuests    = map[side]string{ours: "192.0.2.2", qemu: "198.51.100.2"}
)

func (network) begin(b *bench, s side) (worker, error) {
	w := &networkWorker{}
	err := w.prepare(b, s)
	if err != nil {
		w.end()
		return nil, err
	}
	return w, nil
}

// networkWorker is a guest with the host's side of its link, which both programs find there, and an iperf3 that listens.
type networkWorker struct {
	guest debianWorker
	undo  []func()
}

func (w *networkWorker) prepare(b *bench, s side) error {
	untap, err := makeTap(benchTaps[s], benchAddresses[s]+"/24")
	if err != nil {
		return err
	}
	w.undo = append(w.undo, untap)
	dir, remove, err := b.scratch()
	if err != nil {
		return err
	}
	w.undo = append(w.undo, remove)
	unserve, err := serveIperf(b, debianRoot(), filepath.Join(dir, "debian"), benchAddresses[s])
	if err != nil {
		return err
	}
	w.undo = append(w.undo, unserve)
	w.guest, err = startDebian(b, s, fmt.Sprintf("mv.job=iperf mv.peer=%s mv.address=%s/24", benchAddresses[s], benchGuests[s]), map[side][]string{
		ours: {"--net", "tap=" + benchTaps[s]},
		qemu: {"-netdev", "tap,id=net,vhost=off,script=no,downscript=no,ifname=" + benchTaps[s], "-device", "virtio-net-device,netdev=net"},
	})
	if err != nil {
		return err
	}
	w.undo = append(w.undo, w.guest.end)
	return nil
}

func (w *networkWorker) end() {
	for _, undo := range slices.Backward(w.undo) {
		undo()
	}
}

// do gives a rate in bytes, or a round trip in nanoseconds.
func (w *networkWorker) do(job string) (float64, error) {
	f, err := w.guest.ask(job, 1)
	switch {
	case err != nil:
		return 0, err
	case job == "ping": // in milliseconds
		return f[0] * 1e6, nil
	}
	return f[0] * 1000 / 8, nil // in Kbit
}

// makeTap makes a tap device with an address of the host's.
func makeTap(name, prefix string) (remove func(), err error) {
	tap := &netlink.Tuntap{
		LinkAttrs: netlink.LinkAttrs{Name: name}, Mode: netlink.TUNTAP_MODE_TAP,
		Flags: unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR,
	}
	if err := netlink.LinkAdd(tap); err != nil {
		return nil, fmt.Errorf("tap %s: %w", name, err)
	}
	address, err := netlink.ParseAddr(prefix)
	if err == nil {
		err = netlink.AddrAdd(tap, address)
	}
	if err == nil {
		err = netlink.LinkSetUp(tap)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("tap %s: %w", name, err), netlink.LinkDel(tap))
	}
	return func() { _ = netlink.LinkDel(tap) }, nil
}

// serveIperf has an iperf3 listen that is on Debian's disk, which is mounted at dir.
func serveIperf(b *bench, root, dir, address string) (stop func(), err error) {
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
	cmd := exec.CommandContext(b.context, "/usr/bin/iperf3", "-s", "-B", address)
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
