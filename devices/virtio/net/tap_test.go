package net

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"microvm/devices/tap"
	"microvm/devices/virtio/virtiotest"
)

// The two ends of the tap: the kernel, and the driver.
var (
	hostIP, guestIP = [4]byte{10, 112, 0, 1}, [4]byte{10, 112, 0, 2}
	hostMAC         = [6]byte{0xFE, 0, 0, 1, 2, 3}
)

// newTapRig is a rig with a tap device of a network of its own, in which the
// kernel has an address.
func newTapRig(t *testing.T, pairs int, without uint64) (*rig, int) {
	t.Helper()
	if _, err := os.Stat("/dev/net/tun"); err != nil {
		t.Skipf("%v; modprobe tun to run this test", err)
	}
	// The thread ends with the goroutine, since it is not unlocked.
	runtime.LockOSThread()
	ns, err := netns.New()
	if err != nil {
		if errors.Is(err, unix.EPERM) {
			t.Skip("may not make a network namespace; run this test as root")
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	host, err := tap.Open(tap.Options{Queues: pairs, MTU: DefaultMTU, Owner: -1})
	if err != nil {
		t.Fatal(err)
	}
	link, err := netlink.LinkByName(host.Name())
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(netlink.LinkSetHardwareAddr(link, hostMAC[:]),
		netlink.AddrAdd(link, &netlink.Addr{IPNet: &net.IPNet{IP: hostIP[:], Mask: net.CIDRMask(24, 32)}}))
	if err != nil {
		t.Fatal(err)
	}
	mem, block := virtiotest.NewMemory(t, ramSize)
	irq := virtiotest.NewIRQ()
	m, n := newMMIOOn(t, host, pairs, mem, irq)
	r := &rig{Driver: virtiotest.NewDriver(t, m, mem, 4096, irq), wires: &wires{files: host.Files()}, net: n, mmio: m, block: block}
	m.Device().Release()
	r.drive(r.Offered() &^ without)
	return r, link.Attrs().Index
}

func ether(to, from [6]byte, kind uint16, payload []byte) []byte {
	b := append(append([]byte(nil), to[:]...), from[:]...)
	return append(binary.BigEndian.AppendUint16(b, kind), payload...)
}

// arp is a request (1) or reply (2).
func arp(op byte, fromMAC [6]byte, from [4]byte, toMAC [6]byte, to [4]byte) []byte {
	b := []byte{0, 1, 8, 0, 6, 4, 0, op}
	b = append(append(b, fromMAC[:]...), from[:]...)
	return append(append(b, toMAC[:]...), to[:]...)
}

// ipv4 is a packet with its header's checksum.
func ipv4(protocol byte, from, to [4]byte, payload []byte) []byte {
	b := []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, protocol, 0, 0}
	b = append(append(b, from[:]...), to[:]...)
	binary.BigEndian.PutUint16(b[2:], uint16(len(b)+len(payload)))
	binary.BigEndian.PutUint16(b[10:], checksum(b))
	return append(b, payload...)
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i < len(b); i += 2 {
		sum += uint32(b[i]) << 8
		if i+1 < len(b) {
			sum += uint32(b[i+1])
		}
	}
	for sum > 0xFFFF {
		sum = sum>>16 + sum&0xFFFF
	}
	return ^uint16(sum)
}

// await receives frames until one is what want looks for; the kernel sends some
// of its own.
func (r *rig) await(pair int, want func(header, frame []byte) bool) (header, frame []byte) {
	r.T.Helper()
	for {
		r.room(pair, r.rx[pair].Free()/2, 2048)
		if header, frame, _ = r.frame(pair); want(header, frame) {
			return header, frame
		}
	}
}

func kind(frame []byte) uint16 { return binary.BigEndian.Uint16(frame[12:]) }

// TestHostAnswersOverATap: what the guest sends reaches the kernel's network,
// and its answers the guest.
func TestHostAnswersOverATap(t *testing.T) {
	for name, without := range without {
		t.Run(name, func(t *testing.T) {
			r, _ := newTapRig(t, 1, without)
			broadcast := [6]byte{255, 255, 255, 255, 255, 255}
			none := make([]byte, headerSize)
			size := 64
			r.room(0, size, 2048)
			r.send(0, none, ether(broadcast, testMAC, 0x806, arp(1, testMAC, guestIP, [6]byte{}, hostIP)))
			_, reply := r.await(0, func(_, f []byte) bool { return kind(f) == 0x806 && f[21] == 2 })
			if want := ether(testMAC, hostMAC, 0x806, arp(2, hostMAC, hostIP, testMAC, guestIP)); !bytes.Equal(reply[:len(want)], want) {
				t.Errorf("ARP reply % x", reply)
			}
			echo := append([]byte{8, 0, 0, 0, 1, 2, 0, 1}, bytes.Repeat([]byte("ping"), 300)...)
			binary.BigEndian.PutUint16(echo[2:], checksum(echo))
			r.send(0, none, ether(hostMAC, testMAC, 0x800, ipv4(1, guestIP, hostIP, echo)))
			_, pong := r.await(0, func(_, f []byte) bool { return kind(f) == 0x800 && f[23] == 1 })
			if !bytes.Equal(pong[42:], echo[8:]) || pong[34] != 0 {
				t.Errorf("the echo is % x", pong[34:60])
			}
		})
	}
}

// packets is a socket that sees and sends whole frames on a link, with the
// short form of the virtio header.
func packets(t *testing.T, index int) int {
	t.Helper()
	const all = 0x0300 // ETH_P_ALL in network order
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	timeout := unix.NsecToTimeval(int64(20 * time.Second))
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index}))
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

const shortHeader = 10

// segment is a TCP segment of n bytes, with a header that asks for it to be cut
// into pieces of mss bytes, and for its checksum.
func segment(from, to [6]byte, fromIP, toIP [4]byte, n, mss int) (header, frame []byte) {
	tcp := make([]byte, 20+n)
	binary.BigEndian.PutUint16(tcp, 1000)
	binary.BigEndian.PutUint16(tcp[2:], 2000)
	tcp[12], tcp[13] = 5<<4, 0x10
	for i := range n {
		tcp[20+i] = byte(i / 7)
	}
	// The pseudo header's sum, as who computes the rest wants it.
	pseudo := append(append(append([]byte(nil), fromIP[:]...), toIP[:]...), 0, 6, byte(len(tcp)>>8), byte(len(tcp)))
	binary.BigEndian.PutUint16(tcp[16:], ^checksum(pseudo))
	header = make([]byte, headerSize)
	le := binary.LittleEndian
	header[headerFlags], header[headerGSOType] = flagNeedsCsum, gsoTCPv4
	le.PutUint16(header[2:], 14+20+20)    // all headers' length
	le.PutUint16(header[4:], uint16(mss)) // gso_size
	le.PutUint16(header[6:], 14+20)       // where the checksum starts
	le.PutUint16(header[8:], 16)          // and where it goes, from there
	return header, ether(to, from, 0x800, ipv4(6, fromIP, toIP, tcp))
}

// TestLongSegmentsPassUncut, both ways; and are cut for a driver that did not
// accept them.
func TestLongSegmentsPassUncut(t *testing.T) {
	const size, mss = 20000, 1400
	isTCP := func(f []byte) bool { return kind(f) == 0x800 && f[23] == 6 }
	t.Run("sent", func(t *testing.T) {
		r, index := newTapRig(t, 1, 0)
		fd := packets(t, index)
		header, frame := segment(testMAC, hostMAC, guestIP, hostIP, size, mss)
		r.send(0, header, frame[:100], frame[100:])
		b := make([]byte, maxFrame)
		for {
			n, err := unix.Read(fd, b)
			if err != nil {
				t.Fatal(err)
			}
			if got := b[shortHeader:n]; isTCP(got) {
				checkFrame(t, "sent", got, frame)
				if b[1] != gsoTCPv4 || int(binary.LittleEndian.Uint16(b[4:])) != mss {
					t.Errorf("its header is % x", b[:shortHeader])
				}
				break
			}
		}
	})
	receive := func(t *testing.T, without uint64) (got [][]byte, first []byte) {
		r, index := newTapRig(t, 1, without)
		fd := packets(t, index)
		r.room(0, 128, 2048)
		header, frame := segment(hostMAC, testMAC, hostIP, guestIP, size, mss)
		if _, err := unix.Write(fd, append(header[:shortHeader:shortHeader], frame...)); err != nil {
			t.Fatal(err)
		}
		for n := 0; n < size; {
			header, f := r.await(0, func(_, f []byte) bool { return isTCP(f) })
			if first == nil {
				first = header
			}
			if len(got) == 0 && len(f) > mss+54 {
				checkFrame(t, "received", f, frame)
			}
			got, n = append(got, f[54:]), n+len(f)-54
		}
		if whole := bytes.Join(got, nil); !bytes.Equal(whole, frame[54:]) {
			t.Errorf("the segments are not what was sent")
		}
		return got, first
	}
	t.Run("received", func(t *testing.T) {
		got, header := receive(t, 0)
		if len(got) != 1 || header[headerGSOType] != gsoTCPv4 || header[headerFlags] != flagNeedsCsum {
			t.Errorf("%d segments, header % x", len(got), header)
		}
	})
	for name, without := range map[string]uint64{"cut": featureGuestTSO4, "summed": featureGuestCsum | featureGuestTSO4 | featureGuestTSO6 | featureGuestECN} {
		t.Run(name, func(t *testing.T) {
			got, header := receive(t, without)
			if len(got) != (size+mss-1)/mss || header[headerGSOType] != gsoNone || header[headerFlags]&flagNeedsCsum != 0 && name == "summed" {
				t.Errorf("%d segments, header % x", len(got), header)
			}
		})
	}
}

// TestFramesComeByEveryPairInUse, and by no other.
func TestFramesComeByEveryPairInUse(t *testing.T) {
	const pairs = 4
	r, index := newTapRig(t, pairs, 0)
	fd := packets(t, index)
	flows := func(n int) {
		for i := range n {
			udp := make([]byte, 8+18)
			binary.BigEndian.PutUint16(udp, uint16(1000+i))
			binary.BigEndian.PutUint16(udp[2:], uint16(5000+7*i))
			udp[5] = byte(len(udp))
			frame := ether(testMAC, hostMAC, 0x800, ipv4(17, hostIP, guestIP, udp))
			if _, err := unix.Write(fd, append(make([]byte, shortHeader), frame...)); err != nil {
				t.Fatal(err)
			}
		}
	}
	isUDP := func(_, f []byte) bool { return kind(f) == 0x800 && f[23] == 17 }
	for _, used := range []int{1, pairs, 2} {
		if r.command(classPairs, pairsSet, byte(used), 0) != answerOK {
			t.Fatalf("%d pairs are refused", used)
		}
		for pair := range pairs {
			r.room(pair, r.rx[pair].Free()/2, 2048)
		}
		flows(64)
		// Each of those in use gets some of so many flows.
		for pair := range used {
			r.await(pair, isUDP)
		}
		if used > 1 {
			continue
		}
		for range 63 {
			r.await(0, isUDP)
		}
	}
	for pair := range pairs {
		r.send(pair, make([]byte, headerSize), ether(hostMAC, testMAC, 0x88B5, []byte(fmt.Sprint("by pair ", pair))))
	}
	r.counted(pairs, 0, 0, sortTransmit)
}

// TestTapThatIsTakenAwayDoesNoHarm: somebody deletes the device.
func TestTapThatIsTakenAwayDoesNoHarm(t *testing.T) {
	r, index := newTapRig(t, 1, 0)
	r.room(0, 64, 2048)
	link, err := netlink.LinkByIndex(index)
	if err == nil {
		err = netlink.LinkDel(link)
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		r.send(0, make([]byte, headerSize+60))
	}
	c := r.net.Counts()
	if c.Of(sortTransmit).Errors+c.Counters["transmit_drops"] < 3 {
		t.Errorf("%+v", c)
	}
	r.mmio.Device().Hold()
	if _, err := r.mmio.Save(); err != nil {
		t.Error(err)
	}
	if status := r.Get(0x70); status != 15 {
		t.Errorf("status %#x", status)
	}
}
