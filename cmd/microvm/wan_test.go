//go:build linuxguest

package main

import (
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

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

// tcpTrouble is what TCP has done again, or waited in vain for, on both hosts so
// far.
func (n *network) tcpTrouble() map[string]int {
	n.t.Helper()
	all := map[string]int{}
	for _, s := range n.sides() {
		n.in(s.ns, func() {
			for _, file := range []string{"snmp", "netstat"} {
				text, err := os.ReadFile("/proc/thread-self/net/" + file)
				if err != nil {
					n.t.Fatal(err)
				}
				// Pairs of lines: names, and what they are.
				lines := strings.Split(string(text), "\n")
				for i := 0; i+1 < len(lines); i += 2 {
					values := strings.Fields(lines[i+1])
					for k, name := range strings.Fields(lines[i]) {
						switch name {
						case "RetransSegs", "TCPTimeouts", "TCPLossProbes", "TCPSlowStartRetrans":
							v, _ := strconv.Atoi(values[k])
							all[name] += v
						}
					}
				}
			}
		})
	}
	return all
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
	// Left alone the two connections of a channel would take in megabytes that
	// the line has yet to carry, and what follows would wait for all of that: the
	// downtime was 10 s with it and 0.3 s without.
	_ = near.(*net.TCPConn).SetReadBuffer(breakerHolds)
	if raw, err := far.(*net.TCPConn).SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, breakerHolds)
		})
	}
	var both sync.WaitGroup
	one := func(to, from net.Conn) {
		// Not by splice(2), whose pipe holds a megabyte.
		_, _ = io.CopyBuffer(struct{ io.Writer }{to}, struct{ io.Reader }{from}, make([]byte, 16<<10))
		_ = to.(*net.TCPConn).CloseWrite()
	}
	both.Go(func() { one(near, far) })
	one(far, near)
	both.Wait()
}

// breakerHolds is about how many bytes of a channel the breaker holds up.
const breakerHolds = 64 << 10

func (b *breaker) cut() {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, c := range b.conns {
		c.Close()
	}
	b.conns = nil
}
