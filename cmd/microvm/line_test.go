package main

import (
	"errors"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// A line is a cable between two network namespaces that takes its time: each
// packet, in each direction, leaves at the line's rate and arrives a delay
// later. It is made of two TUN devices and this program between them, so that
// the kernel's own TCP is what meets it, on any machine.
type line struct {
	rate  float64 // bytes/s
	delay time.Duration
}

const (
	lineMTU = 9000 // bytes
	// lineQueue is how long a packet may have to wait for its turn; one that
	// would have to wait longer is lost, as on a router.
	lineQueue = 100 * time.Millisecond
)

// newLine makes a network of two hosts on a line; it goes away with the test.
func newLine(t *testing.T, delay time.Duration, rate float64) *network {
	t.Helper()
	n := newNamespaces(t, "10.112.0")
	l := &line{rate, delay}
	var ends [2]*os.File
	for i, s := range n.sides() {
		n.in(s.ns, func() {
			ends[i] = openTUN(t, s.endpoint)
			link, err := netlink.LinkByName(s.endpoint)
			if err == nil {
				err = netlink.LinkSetMTU(link, lineMTU)
			}
			if err != nil {
				t.Fatal(err)
			}
			n.configure(s.endpoint, s.ip)
		})
	}
	var carrying sync.WaitGroup
	carrying.Go(func() { l.carry(ends[1], ends[0]) })
	carrying.Go(func() { l.carry(ends[0], ends[1]) })
	t.Cleanup(func() {
		ends[0].Close()
		ends[1].Close()
		carrying.Wait()
	})
	return n
}

// openTUN makes a TUN device in this thread's namespace.
func openTUN(t *testing.T, name string) *os.File {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if errors.Is(err, unix.ENOENT) {
		t.Skip("no /dev/net/tun; modprobe tun")
	}
	if err != nil {
		t.Fatalf("/dev/net/tun: %v", err)
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	req.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		t.Fatalf("TUN device %s: %v", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	t.Cleanup(func() { f.Close() })
	return f
}

// packet is one on its way.
type packet struct {
	bytes []byte
	due   time.Time // at the other end
}

// carry is one direction of the line. It ends when both ends are closed.
func (l *line) carry(to, from *os.File) {
	const most = 1 << 14 // packets
	onWay, free := make(chan packet, most), make(chan []byte, most+2)
	var arriving sync.WaitGroup
	defer arriving.Wait()
	defer close(onWay)
	arriving.Go(func() {
		for p := range onWay {
			time.Sleep(time.Until(p.due))
			_, _ = to.Write(p.bytes) // what cannot be delivered is lost
			free <- p.bytes[:lineMTU]
		}
	})
	var idle time.Time // when the line has sent all that it was given
	for {
		var buf []byte
		select {
		case buf = <-free:
		default:
			buf = make([]byte, lineMTU)
		}
		n, err := from.Read(buf)
		if err != nil {
			return
		}
		now := time.Now()
		if idle.Before(now) {
			idle = now
		}
		if idle.Sub(now) > lineQueue {
			free <- buf
			continue
		}
		idle = idle.Add(time.Duration(float64(n) / l.rate * float64(time.Second)))
		select {
		case onWay <- packet{buf[:n], idle.Add(l.delay)}:
		default: // more than it can hold
		}
	}
}

// side is one end of a network.
type side struct {
	ns       netns.NsHandle
	ip       string
	endpoint string // name of the interface
}

func (n *network) sides() [2]side {
	return [2]side{{n.left, n.leftIP, n.leftEndpoint}, {n.right, n.rightIP, "right"}}
}

// startIn starts a process in a namespace.
func (n *network) startIn(s side, h *host, args ...string) (p *process) {
	n.in(s.ns, func() { p = h.start(args...) })
	return p
}
