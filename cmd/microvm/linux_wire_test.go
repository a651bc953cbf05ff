//go:build linuxguest

package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// A capture is what goes by on a network device of a host, until the test ends: of
// each frame its head, and when the kernel had it.
type capture struct {
	name string

	mu     sync.Mutex
	frames []frame       // guarded by mu
	more   chan struct{} // closed when there are; guarded by mu
}

// A frame on a wire. On a tap the host sends what is for the guest.
type frame struct {
	at     time.Time
	toHost bool
	size   int
	head   []byte
}

// Types of frames.
const (
	etherIPv4 = 0x0800
	etherARP  = 0x0806
	etherRARP = 0x8035
	etherAll  = unix.ETH_P_ALL
)

// headSize is as much as frames are told apart by: Ethernet, IP and TCP.
const headSize = 14 + 20 + 20

func (f *frame) protocol() uint16 { return binary.BigEndian.Uint16(f.head[12:]) }

// String says what kind of frame it is.
func (f *frame) String() string {
	way := "to the guest"
	if f.toHost {
		way = "from the guest"
	}
	kind := fmt.Sprintf("%#04x", f.protocol())
	switch f.protocol() {
	case etherARP:
		kind = "ARP"
	case etherRARP:
		kind = "RARP"
	case etherIPv4:
		kind = fmt.Sprintf("IP protocol %d", f.head[23])
		if f.head[23] == unix.IPPROTO_TCP {
			kind = "TCP"
		}
	}
	return kind + " " + way
}

// watch captures what goes by on a device, which may be made later.
func (n *network) watch(s side, device string, protocol uint16) *capture {
	n.t.Helper()
	w := &capture{name: s.endpoint + " " + device, more: make(chan struct{})}
	over, made := make(chan struct{}), make(chan netlink.LinkUpdate, 16)
	var watching sync.WaitGroup
	n.t.Cleanup(func() {
		close(over)
		watching.Wait()
	})
	if err := netlink.LinkSubscribeAt(s.ns, made, over); err != nil {
		n.t.Fatal(err)
	}
	index := 0
	n.in(s.ns, func() {
		if link, err := netlink.LinkByName(device); err == nil {
			index = link.Attrs().Index
		}
	})
	watching.Go(func() {
		for index == 0 {
			select {
			case u := <-made:
				if u.Attrs().Name == device {
					index = u.Attrs().Index
				}
			case <-over:
				return
			}
		}
		var f *os.File
		var err error
		n.in(s.ns, func() { f, err = openWire(index, protocol) })
		if err != nil {
			n.t.Errorf("watch %s: %v", device, err)
			return
		}
		var reading sync.WaitGroup
		reading.Go(func() { w.read(f) })
		<-over
		f.Close()
		reading.Wait()
	})
	return w
}

// openWire opens a packet socket, with room for what comes while this process
// does not get to run.
func openWire(index int, protocol uint16) (*os.File, error) {
	wire := protocol>>8 | protocol<<8
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	for option, v := range map[int]int{unix.SO_TIMESTAMPNS: 1, unix.SO_RCVBUFFORCE: 64 << 20} {
		if err == nil {
			err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, v)
		}
	}
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: wire, Ifindex: index})
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return os.NewFile(uintptr(fd), "packets"), nil
}

// read reads until the socket is closed.
func (w *capture) read(f *os.File) {
	conn, err := f.SyscallConn()
	if err != nil {
		return
	}
	head, control := make([]byte, headSize), make([]byte, 64)
	for { // until it is closed
		var n, m int
		var from unix.Sockaddr
		var failed error
		err := conn.Read(func(fd uintptr) bool {
			n, m, _, from, failed = unix.Recvmsg(int(fd), head, control, unix.MSG_TRUNC)
			return failed != unix.EAGAIN
		})
		if err != nil {
			return
		}
		if failed != nil {
			continue // the device is not up yet, which is said once
		}
		link, ok := from.(*unix.SockaddrLinklayer)
		if !ok || n < 14 {
			continue
		}
		w.add(frame{at: stamp(control[:m]), toHost: link.Pkttype != unix.PACKET_OUTGOING, size: n, head: bytes.Clone(head)})
	}
}

// stamp is when the kernel had a frame.
func stamp(control []byte) time.Time {
	messages, err := unix.ParseSocketControlMessage(control)
	if err == nil && len(messages) == 1 && messages[0].Header.Type == unix.SCM_TIMESTAMPNS && len(messages[0].Data) == 16 {
		le, d := binary.LittleEndian, messages[0].Data
		return time.Unix(int64(le.Uint64(d)), int64(le.Uint64(d[8:])))
	}
	return time.Now()
}

func (w *capture) add(f frame) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.frames = append(w.frames, f)
	close(w.more)
	w.more = make(chan struct{})
}

// seen are the frames so far, and a channel that is closed when there are more.
func (w *capture) seen() ([]frame, <-chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.frames, w.more
}

// await waits for a frame after so many.
func (w *capture) await(t *testing.T, what string, after int, is func(f *frame) bool) {
	t.Helper()
	for late := time.After(linuxPatience); ; {
		frames, more := w.seen()
		for ; after < len(frames); after++ {
			if is(&frames[after]) {
				return
			}
		}
		select {
		case <-more:
		case <-late:
			t.Fatalf("%s: no %s", w.name, what)
		}
	}
}

// A moment is something that happened: a line of a time line.
type moment struct {
	at   time.Time
	what string
	size int
}

// longestSilence is the longest time in which a guest has sent no IP packet to
// any of the wires, from a moment on.
func longestSilence(from time.Time, wires ...*capture) (begin time.Time, gap time.Duration) {
	var sent []time.Time
	for _, w := range wires {
		frames, _ := w.seen()
		for i := range frames {
			if f := &frames[i]; f.toHost && f.protocol() == etherIPv4 && f.at.After(from) {
				sent = append(sent, f.at)
			}
		}
	}
	slices.SortFunc(sent, time.Time.Compare)
	for i := 1; i < len(sent); i++ {
		if d := sent[i].Sub(sent[i-1]); d > gap {
			begin, gap = sent[i-1], d
		}
	}
	return begin, gap
}

// timeline tells what has happened from a moment to another, in the files of
// events and on the wires. Of frames that are alike and follow each other, it
// tells how many they are.
func timeline(t *testing.T, from, to time.Time, events []string, wires ...*capture) string {
	t.Helper()
	var all []moment
	for _, path := range events {
		all = append(all, readMoments(t, path)...)
	}
	for _, w := range wires {
		frames, _ := w.seen()
		for i := range frames {
			all = append(all, moment{frames[i].at, w.name + ": " + frames[i].String(), frames[i].size})
		}
	}
	all = slices.DeleteFunc(all, func(m moment) bool { return m.at.Before(from) || m.at.After(to) })
	slices.SortStableFunc(all, func(a, b moment) int { return a.at.Compare(b.at) })
	const most = 150
	var text strings.Builder
	for i, lines := 0, 0; i < len(all); lines++ {
		if lines == most {
			fmt.Fprintf(&text, "and %d more\n", len(all)-i)
			break
		}
		first, n, size := all[i], 0, 0
		for ; i < len(all) && all[i].what == first.what; i++ {
			n, size = n+1, size+all[i].size
		}
		fmt.Fprintf(&text, "%9.1f ms  %s", first.at.Sub(from).Seconds()*1e3, first.what)
		if size > 0 {
			fmt.Fprintf(&text, ", %d, %d bytes, to %.1f ms", n, size, all[i-1].at.Sub(from).Seconds()*1e3)
		}
		text.WriteByte('\n')
	}
	return text.String()
}

// readMoments reads a file of events.
func readMoments(t *testing.T, path string) (all []moment) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		var e struct {
			Time  time.Time
			Side  string
			Event string
			Data  struct {
				To        string
				Part      string
				TookNS    int64 `json:"took_ns"`
				Count     uint64
				PagesLeft uint64  `json:"pages_left"`
				MaxNS     int64   `json:"max_ns"`
				VCPUs     []int64 `json:"vcpu_blocktime_ns"`
				Pushed    uint64  `json:"pages_pushed"`
				Requested uint64  `json:"pages_requested"`
			}
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		what := fmt.Sprintf("%s: %s %s%s", e.Side, e.Event, e.Data.To, e.Data.Part)
		switch e.Event {
		case "downtime":
			what += fmt.Sprintf(" took %.1f ms", float64(e.Data.TookNS)/1e6)
		case "pages":
			what += fmt.Sprintf("pushed %d, sent on request %d, left %d", e.Data.Pushed, e.Data.Requested, e.Data.PagesLeft)
		case "faults":
			if e.Side == "source" {
				continue // it is what the destination has said
			}
			what += fmt.Sprintf("so far %d, the longest %.1f ms, vCPUs waited %v, %d pages left",
				e.Data.Count, float64(e.Data.MaxNS)/1e6, each(e.Data.VCPUs), e.Data.PagesLeft)
		}
		all = append(all, moment{at: e.Time, what: what})
	}
	return all
}

// each is what each vCPU has waited.
func each(nanos []int64) (all []time.Duration) {
	for _, n := range nanos {
		all = append(all, time.Duration(n).Round(time.Millisecond))
	}
	return all
}

// logSilence tells how long the guest was not heard on its taps while it moved,
// and what happened meanwhile.
func logSilence(t *testing.T, from time.Time, events []string, taps ...*capture) {
	t.Helper()
	begin, gap := longestSilence(from, taps...)
	t.Logf("longest gap on the wire: %v\n%s", gap.Round(time.Millisecond),
		timeline(t, begin.Add(-10*time.Millisecond), begin.Add(gap+100*time.Millisecond), events, taps...))
}
