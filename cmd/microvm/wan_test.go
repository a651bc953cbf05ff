//go:build linuxguest

package main

import (
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"microvm/migration"
)

// impair has both directions of the cable take this long, lose so many packets
// and carry so much.
func (n *network) impair(delay time.Duration, lossPercent float32, bytesPerSecond uint64) {
	n.t.Helper()
	for _, s := range n.sides() {
		n.in(s.ns, func() {
			link, err := netlink.LinkByName(s.endpoint)
			if err != nil {
				n.t.Fatal(err)
			}
			// Room for all that is on its way, or the queue would lose packets itself.
			const packets = 100_000
			q := netlink.NewNetem(
				netlink.QdiscAttrs{LinkIndex: link.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
				netlink.NetemQdiscAttrs{Latency: uint32(delay.Microseconds()), Loss: lossPercent, Limit: packets, Rate64: bytesPerSecond},
			)
			if err := netlink.QdiscAdd(q); err != nil {
				n.t.Skipf("no netem: %v; run this in the lab (make lab), or modprobe sch_netem", err)
			}
		})
	}
}

// loopback has the loopback interface of both hosts work.
func (n *network) loopback() {
	n.t.Helper()
	for _, s := range n.sides() {
		n.in(s.ns, func() {
			link, err := netlink.LinkByName("lo")
			if err == nil {
				err = netlink.LinkSetUp(link)
			}
			if err != nil {
				n.t.Fatal(err)
			}
		})
	}
}

// breaker is a device at the source's end of the cable that can cut all
// connections that there are; new ones may come.
type breaker struct {
	addr  string // for microvm migrate
	mu    sync.Mutex
	conns []net.Conn
}

func (n *network) newBreaker(from side, dest string) *breaker {
	n.t.Helper()
	b := &breaker{}
	var ln net.Listener
	n.in(from.ns, func() {
		var err error
		if ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			n.t.Fatal(err)
		}
	})
	b.addr = migration.ListenAddress(ln).String()
	var serving sync.WaitGroup
	n.t.Cleanup(func() {
		ln.Close()
		b.cut()
		serving.Wait()
	})
	serving.Go(func() {
		for {
			near, err := ln.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer near.Close()
				var far net.Conn
				n.in(from.ns, func() { far, err = net.Dial("tcp", strings.TrimPrefix(dest, "tcp:")) })
				if err != nil {
					return
				}
				defer far.Close()
				b.pass(near, far)
			})
		}
	})
	return b
}

// pass passes on what either end says, until both have said all.
func (b *breaker) pass(near, far net.Conn) {
	b.mu.Lock()
	b.conns = append(b.conns, near, far)
	b.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() {
		_, _ = io.Copy(near, far)
		_ = near.(*net.TCPConn).CloseWrite()
	})
	_, _ = io.Copy(far, near)
	_ = far.(*net.TCPConn).CloseWrite()
	both.Wait()
}

func (b *breaker) cut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.conns {
		c.Close()
	}
	b.conns = nil
}
