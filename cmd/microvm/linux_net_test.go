//go:build linuxguest

package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// bridge makes the host's end of the cable a port of a bridge, which takes its
// address.
func (n *network) bridge(s side) {
	n.t.Helper()
	n.in(s.ns, func() {
		link, err := netlink.LinkByName(s.endpoint)
		if err != nil {
			n.t.Fatal(err)
		}
		addr := &netlink.Addr{IPNet: &net.IPNet{IP: net.ParseIP(s.ip), Mask: net.CIDRMask(24, 32)}}
		br := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
		err = errors.Join(netlink.AddrDel(link, addr), netlink.LinkAdd(br), netlink.LinkSetMaster(link, br))
		if err != nil {
			n.t.Fatal(err)
		}
		n.configure("br0", s.ip)
	})
}

// A stream is a TCP connection to the guest, which sends back all that it gets.
// What comes back is checked to be what was sent, in order.
type stream struct {
	conn     net.Conn
	received atomic.Uint64 // bytes
	// gap is the longest time, in nanoseconds, in which nothing came.
	gap atomic.Int64
}

// window is how much is under way on a stream at most.
const window = 256 << 10

// run exchanges data until the connection is closed from here; then it returns
// nil.
func (s *stream) run() error {
	room := make(chan int, 1<<10)
	room <- window
	failed := make(chan error, 2)
	go func() {
		var sent uint64
		block := make([]byte, 8<<10)
		for left := 0; ; {
			for left < len(block) {
				left += <-room
			}
			for i := 0; i < len(block); i += 8 {
				binary.LittleEndian.PutUint64(block[i:], sent/8)
				sent += 8
			}
			if _, err := s.conn.Write(block); err != nil {
				failed <- fmt.Errorf("send: %w", err)
				return
			}
			left -= len(block)
		}
	}()
	go func() {
		b, word := make([]byte, 64<<10), make([]byte, 0, 8)
		var next uint64
		for last := time.Now(); ; {
			n, err := s.conn.Read(b)
			if err != nil {
				failed <- fmt.Errorf("receive: %w", err)
				return
			}
			now := time.Now()
			s.gap.Store(max(s.gap.Load(), int64(now.Sub(last))))
			last = now
			for _, v := range b[:n] {
				if word = append(word, v); len(word) == 8 {
					if got := binary.LittleEndian.Uint64(word); got != next {
						failed <- fmt.Errorf("word %d comes back as %d", next, got)
						return
					}
					next, word = next+1, word[:0]
				}
			}
			s.received.Add(uint64(n))
			room <- n
		}
	}()
	if err := <-failed; !errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}

// listen counts the frames of a protocol with which a guest is announced that
// reach a bridge, until the test ends.
func (n *network) listen(s side, protocol uint16, is func(frame []byte) bool) *atomic.Uint64 {
	n.t.Helper()
	fd, wire := -1, protocol>>8|protocol<<8
	n.in(s.ns, func() {
		link, err := netlink.LinkByName("br0")
		if err == nil {
			fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(wire))
		}
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: wire, Ifindex: link.Attrs().Index})
		}
		if err != nil {
			n.t.Fatal(err)
		}
	})
	f := os.NewFile(uintptr(fd), "packets")
	count := &atomic.Uint64{}
	var listening sync.WaitGroup
	n.t.Cleanup(func() {
		f.Close()
		listening.Wait()
	})
	listening.Go(func() {
		for b := make([]byte, 2<<10); ; {
			n, err := f.Read(b)
			if err != nil {
				return
			}
			if n >= 42 && is(b[:n]) {
				count.Add(1)
			}
		}
	})
	return count
}

// TestLinuxStaysOnTheNetworkWhereItMoves: a guest with 4 CPUs and 4 pairs of
// queues is pinged and has four TCP connections open, over which data goes both
// ways, while it moves by postcopy from a host's bridge to another's. None of
// them breaks. Its card is in the ninth place, with an interrupt line of the
// old kind.
func TestLinuxStaysOnTheNetworkWhereItMoves(t *testing.T) {
	const cpus, guestIP, mac = 4, "10.111.0.9", "02:00:00:00:00:99"
	h := newHost(t)
	kernel, initrd := linuxFiles(t)
	n := newNetwork(t)
	left, right := n.sides()[0], n.sides()[1]
	n.bridge(left)
	n.bridge(right)
	var listener net.Listener
	n.in(left.ns, func() {
		var err error
		if listener, err = net.Listen("tcp", left.ip+":5000"); err != nil {
			t.Fatal(err)
		}
	})
	defer listener.Close()
	hardware, err := net.ParseMAC(mac)
	if err != nil {
		t.Fatal(err)
	}
	byHost := n.listen(left, 0x8035, func(frame []byte) bool { return bytes.Equal(frame[6:12], hardware) })
	// Gratuitous ARP: it is the guest's, and about the guest.
	byGuest := n.listen(left, 0x0806, func(frame []byte) bool {
		ip := net.ParseIP(guestIP).To4()
		return bytes.Equal(frame[28:32], ip) && bytes.Equal(frame[38:42], ip)
	})

	args := []string{"run", "--name", "a", "-k", kernel, "-i", initrd, "-p", "console=ttyS0 panic=-1 mv.job=shell", "-m", "192M",
		"-c", fmt.Sprint(cpus), "--net", fmt.Sprintf("tap=auto,bridge=br0,queues=%d,mac=%s", cpus, mac)}
	var disks []string
	for i := range 8 {
		path := filepath.Join(t.TempDir(), fmt.Sprint("disk", i))
		if err := os.WriteFile(path, make([]byte, 4096), 0o600); err != nil {
			t.Fatal(err)
		}
		disks = append(disks, "--disk", path)
		args = append(args, "--disk", path+",ro")
	}
	source := n.startIn(left, h, args...)
	source.patience = linuxPatience
	source.awaitLine(fmt.Sprintf("GUEST READY cpus %d ", cpus))
	source.enter("ip addr add " + guestIP + "/24 dev eth0 && ip link set eth0 up && ping -c 2 -i 0.2 " + left.ip + " && dmesg -c > /dev/null && echo pings are answered")
	source.awaitLine("pings are answered")
	source.enter("for i in 1 2 3 4; do nc " + left.ip + " 5000 -e cat & done; echo started")

	var streams [4]*stream
	var running sync.WaitGroup
	results := make(chan error, len(streams))
	for i := range streams {
		conn, err := listener.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		s := &stream{conn: conn}
		streams[i] = s
		running.Go(func() { results <- s.run() })
	}
	// flow waits until each has moved so many bytes more, and gives the
	// longest time in which one stood still.
	flow := func(what string, more uint64) (gap time.Duration) {
		t.Helper()
		for i, s := range streams {
			for want, late := s.received.Load()+more, time.Now().Add(linuxPatience); s.received.Load() < want; time.Sleep(time.Millisecond) {
				select {
				case err := <-results:
					t.Fatalf("%s: a connection breaks: %v", what, err)
				default:
				}
				if time.Now().After(late) {
					t.Fatalf("%s: connection %d stands still", what, i)
				}
			}
			gap = max(gap, time.Duration(s.gap.Swap(0)))
		}
		return gap
	}
	flow("at first", 64<<10)
	before := flow("before it moves", 256<<10)
	if c := h.counts("a", "net0").Counts; c.Gauges["pairs"] != cpus || c.Of("receive").Bytes == 0 || c.Of("receive").Errors+c.Of("transmit").Errors != 0 {
		t.Errorf("the card has counted %+v", c)
	}
	rarp, arp := byHost.Load(), byGuest.Load()

	dest := n.startIn(right, h, append([]string{"receive", "--name", "b", "--listen", "tcp:" + right.ip + ":0", "--net", "tap=auto,bridge=br0"}, disks...)...)
	dest.patience = linuxPatience
	addr := dest.awaitLine("tcp:")
	migrate := h.start("migrate", "a", addr, "--postcopy", "--verify", "--report", "json")
	migrate.patience = linuxPatience
	migrate.wait(0)
	source.wait(0)
	during := flow("after it has moved", 256<<10)
	r := readReport(t, migrate.stdout.String())
	checkCompleted(t, r, 192<<20, cpus)
	t.Logf("longest gap on a connection: %v while it moved, %v before; downtime %v, %d faults", during.Round(time.Millisecond), before.Round(time.Millisecond),
		time.Duration(r.DowntimeNS).Round(time.Millisecond), r.Faults.Count)
	for late := time.Now().Add(linuxPatience); byHost.Load() == rarp || byGuest.Load() == arp; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("announced %d times by its host, %d times by itself", byHost.Load()-rarp, byGuest.Load()-arp)
		}
	}
	c := h.counts("b", "net0").Counts
	if c.Gauges["pairs"] != cpus || c.Counters["announcements"] == 0 || c.Of("receive").Requests == 0 || c.Of("receive").Errors+c.Of("transmit").Errors != 0 {
		t.Errorf("the card has counted %+v there", c)
	}
	t.Logf("counted there: %+v", c)
	for _, s := range streams {
		s.conn.Close()
	}
	running.Wait()
	close(results)
	for err := range results {
		if err != nil {
			t.Errorf("a connection breaks: %v", err)
		}
	}
	dest.enter("ping -c 2 -i 0.2 " + right.ip + " && echo complaints: $(dmesg | grep -iE 'warning|bug:|virtio|lockup|stall|net')")
	if line := dest.awaitLine("complaints:"); line != "complaints:" {
		t.Errorf("its kernel has %s", line)
	}
	dest.enter("poweroff -f")
	dest.wait(0)
}
