package main

import (
	"errors"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"microvm/migration"
)

// A network is two network namespaces with a cable between them: all that two
// hosts have of one another.
type network struct {
	t            *testing.T
	left, right  netns.NsHandle
	leftIP       string
	rightIP      string
	here         netns.NsHandle
	leftEndpoint string // name of the interface
}

// newNamespaces makes the two hosts of a network of these 24 bits, without the
// cable; they go away with the test.
func newNamespaces(t *testing.T, prefix string) *network {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	here, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	n := &network{t: t, here: here, leftIP: prefix + ".1", rightIP: prefix + ".2", leftEndpoint: "left"}
	t.Cleanup(func() { here.Close() })
	defer netns.Set(here)
	for _, ns := range []*netns.NsHandle{&n.left, &n.right} {
		if *ns, err = netns.New(); err != nil {
			if errors.Is(err, unix.EPERM) {
				t.Skip("may not make a network namespace; run this test as root")
			}
			t.Fatal(err)
		}
		t.Cleanup(func() { ns.Close() })
	}
	return n
}

// newNetwork makes one; it goes away with the test.
func newNetwork(t *testing.T) *network {
	t.Helper()
	n := newNamespaces(t, "10.111.0")
	n.in(n.left, func() {
		veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: n.leftEndpoint}, PeerName: "right", PeerNamespace: netlink.NsFd(n.right)}
		if err := netlink.LinkAdd(veth); err != nil {
			t.Fatal(err)
		}
	})
	for _, s := range n.sides() {
		n.in(s.ns, func() { n.configure(s.endpoint, s.ip) })
	}
	return n
}

// configure gives an interface of this thread's namespace an address.
func (n *network) configure(name, ip string) {
	n.t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		n.t.Fatal(err)
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(ip), Mask: net.CIDRMask(24, 32)}}
	if err := errors.Join(netlink.AddrAdd(link, addr), netlink.LinkSetUp(link)); err != nil {
		n.t.Fatal(err)
	}
}

// in does something in a namespace.
func (n *network) in(ns netns.NsHandle, do func()) {
	n.t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := netns.Set(ns); err != nil {
		n.t.Fatal(err)
	}
	defer netns.Set(n.here)
	do()
}

// forget has the left host lose every connection, as when it gets another
// address: what was said over the old one is reset.
func (n *network) forget(oldIP, newIP string) {
	n.t.Helper()
	n.in(n.left, func() {
		link, err := netlink.LinkByName(n.leftEndpoint)
		if err != nil {
			n.t.Fatal(err)
		}
		old := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(oldIP), Mask: net.CIDRMask(24, 32)}}
		if err := netlink.AddrDel(link, old); err != nil {
			n.t.Fatal(err)
		}
		n.configure(n.leftEndpoint, newIP)
	})
}

// awaitPhase waits until the migration of a VM is in a phase.
func (h *host) awaitPhase(name string, phase migration.Phase) {
	h.t.Helper()
	h.awaitStatus(name, string(phase))
}

// awaitStatus waits until migrate-status says something of a VM.
func (h *host) awaitStatus(name, words string) {
	h.t.Helper()
	for late := time.Now().Add(patience); ; {
		r := h.run("migrate-status", name)
		if strings.Contains(r.stdout, words) {
			return
		}
		if time.Now().After(late) {
			h.t.Fatalf("the migration of VM %s does not get to %q: %s%s", name, words, r.stdout, r.stderr)
		}
	}
}
