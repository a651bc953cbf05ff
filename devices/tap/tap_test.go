package tap

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// inNamespace has the test's goroutine in a network of its own, which goes away
// with it.
func inNamespace(t *testing.T) {
	t.Helper()
	if _, err := os.Stat(device); err != nil {
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
}

func options(name string) Options {
	return Options{Name: name, Queues: 1, MTU: 1500, Owner: -1}
}

func addLink(t *testing.T, link netlink.Link) {
	t.Helper()
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
}

// exists says whether there is a device of this name.
func exists(t *testing.T, name string) bool {
	t.Helper()
	_, err := netlink.LinkByName(name)
	var missing netlink.LinkNotFoundError
	if err != nil && !errors.As(err, &missing) {
		t.Fatal(err)
	}
	return err == nil
}

// persistent makes a tap device that stays.
func persistent(t *testing.T, name string, flags netlink.TuntapFlag) {
	t.Helper()
	tap := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: name}, Mode: netlink.TUNTAP_MODE_TAP, Flags: flags | netlink.TUNTAP_NO_PI}
	addLink(t, tap)
	for _, f := range tap.Fds {
		f.Close()
	}
}

// TestTapIsMadeAsAskedAndGoesAway with the last file.
func TestTapIsMadeAsAskedAndGoesAway(t *testing.T) {
	inNamespace(t)
	addLink(t, &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}})
	bridge, err := netlink.LinkByName("br0")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "mine"} {
		for _, queues := range []int{1, 3} {
			o := options(name)
			o.Queues, o.MTU, o.Bridge, o.Owner = queues, 4000, "br0", 1234
			tap, err := Open(o)
			if err != nil {
				t.Fatal(err)
			}
			if name == "" && !strings.HasPrefix(tap.Name(), "mvtap") || name != "" && tap.Name() != name {
				t.Errorf("it is named %q", tap.Name())
			}
			link, err := netlink.LinkByName(tap.Name())
			if err != nil {
				t.Fatal(err)
			}
			a, made := link.Attrs(), link.(*netlink.Tuntap)
			if a.MTU != 4000 || a.MasterIndex != bridge.Attrs().Index || !strings.HasPrefix(a.HardwareAddr.String(), "fe:ff:") ||
				a.Flags&net.FlagUp == 0 || made.Owner != 1234 || len(tap.Files()) != queues || made.NonPersist == false {
				t.Errorf("it is %+v, %+v", a, made)
			}
			for n := range queues {
				if err := tap.UseQueues(queues - n); err != nil {
					t.Error(err)
				}
			}
			if err := errors.Join(tap.UseQueues(queues), tap.SetOffload(offloads), tap.SetCarrier(false), tap.SetCarrier(true), tap.Close()); err != nil {
				t.Error(err)
			}
			if exists(t, tap.Name()) {
				t.Errorf("tap %s is left over", tap.Name())
			}
		}
	}
}

// TestTapThatIsThereIsUsedAndStays.
func TestTapThatIsThereIsUsedAndStays(t *testing.T) {
	inNamespace(t)
	persistent(t, "single", 0)
	persistent(t, "multi", netlink.TUNTAP_MULTI_QUEUE)
	link, err := netlink.LinkByName("single")
	if err == nil {
		err = netlink.LinkSetMTU(link, 2000)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name        string
		queues, mtu int
	}{{"single", 1, 2000}, {"multi", 1, 1500}, {"multi", 4, 1500}} {
		o := options(c.name)
		o.Queues = c.queues
		tap, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		link, err := netlink.LinkByName(c.name)
		if err != nil {
			t.Fatal(err)
		}
		if tap.MTU() != c.mtu || tap.Name() != c.name || link.Attrs().Flags&net.FlagUp == 0 {
			t.Errorf("%s: %+v, MTU %d", c.name, link.Attrs(), tap.MTU())
		}
		if again, err := Open(options(c.name)); c.name == "single" {
			if err == nil || !strings.Contains(err.Error(), "another process uses it") {
				t.Errorf("twice: %v", err)
			}
		} else if err == nil {
			again.Close()
		}
		if err := tap.Close(); err != nil {
			t.Error(err)
		}
		if !exists(t, c.name) {
			t.Errorf("tap %s is gone", c.name)
		}
	}
}

// TestTapThatCannotBeHadIsRefusedWithTheRemedy, and nothing is left over.
func TestTapThatCannotBeHadIsRefusedWithTheRemedy(t *testing.T) {
	inNamespace(t)
	persistent(t, "single", 0)
	addLink(t, &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}})
	if names, err := Bridges(); err != nil || !slices.Equal(names, []string{"br0"}) {
		t.Errorf("bridges %q, %v", names, err)
	}
	for _, change := range []func(*Options){
		func(*Options) {}, func(o *Options) { o.Bridge = "br0" }, func(o *Options) { o.Name = "single" }, func(o *Options) { o.Name = "new" },
	} {
		o := options("")
		if change(&o); Look(o) != nil {
			t.Errorf("Look(%+v) says %v", o, Look(o))
		}
	}
	before, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		change func(*Options)
		want   string
	}{
		{func(o *Options) { o.Bridge = "br7" }, "bridge br7: there is none; ip link add br7 type bridge"},
		{func(o *Options) { o.Bridge = "single" }, "no bridge but a tuntap"},
		{func(o *Options) { o.MTU = 70000 }, "MTU to 70000"},
		{func(o *Options) { o.Name = "br0" }, "the name is taken by a device that is no tap (bridge)"},
		{func(o *Options) { o.Name = "lo" }, "the name is taken by a device that is no tap"},
		{func(o *Options) { o.Name = "sixteen-letters-" }, "at most 15"},
		{func(o *Options) { o.Name = "single"; o.Bridge = "br0" }, "it is there already"},
		{func(o *Options) { o.Name = "single"; o.Owner = 1 }, "it is there already"},
		{func(o *Options) { o.Name = "single"; o.Queues = 2 }, "multi_queue"},
	} {
		o := options("")
		c.change(&o)
		tap, err := Open(o)
		if err == nil {
			tap.Close()
			t.Errorf("%+v is taken", o)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v, want %q in it", err, c.want)
		}
		// Only what making it, or attaching to it, shows is not seen beforehand.
		if err := Look(o); o.MTU < 65536 && o.Queues == 1 && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("Look(%+v) says %v, want %q in it", o, err, c.want)
		}
	}
	after, err := netlink.LinkList()
	if err != nil || len(after) != len(before) {
		t.Errorf("%v: %d devices, there were %d", err, len(after), len(before))
	}
}

// TestWithoutRightsTheRemedyIsNamed: CAP_NET_ADMIN is what it takes.
func TestWithoutRightsTheRemedyIsNamed(t *testing.T) {
	inNamespace(t)
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		t.Fatal(err)
	}
	data[0].Effective &^= 1 << unix.CAP_NET_ADMIN
	if err := unix.Capset(&header, &data[0]); err != nil { // this thread's alone, which ends with the test
		t.Fatal(err)
	}
	if tap, err := Open(options("")); err == nil {
		tap.Close()
		t.Error("it was made")
	} else if !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
		t.Error(err)
	}
	if err := Look(options("")); err == nil || !strings.Contains(err.Error(), "CAP_NET_ADMIN") {
		t.Errorf("Look says %v", err)
	}
}

// TestAdoptedFile: one that another program attached, if it did so rightly.
func TestAdoptedFile(t *testing.T) {
	inNamespace(t)
	attach := func(flags uint16) int {
		fd, err := unix.Open(device, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		request, err := unix.NewIfreq("t%d")
		if err != nil {
			t.Fatal(err)
		}
		request.SetUint16(flags)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
			t.Fatal(err)
		}
		return fd
	}
	good := attach(baseFlags)
	own, err := unix.Dup(good)
	if err != nil {
		t.Fatal(err)
	}
	tap, err := Adopt(own)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(tap.SetOffload(offloads), tap.Close()); err != nil || !strings.HasPrefix(tap.Name(), "t") {
		t.Errorf("%q: %v", tap.Name(), err)
	}
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(null)
	for fd, want := range map[int]string{
		attach(unix.IFF_TAP | unix.IFF_NO_PI):                     "IFF_VNET_HDR",
		attach(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR): "is a tun device",
		null: "no tap device is attached",
		-1:   "no tap device is attached",
	} {
		if tap, err := Adopt(fd); err == nil {
			tap.Close()
			t.Errorf("fd %d is taken, want %q", fd, want)
		} else if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), fmt.Sprintf("fd %d", fd)) {
			t.Errorf("%v, want %q in it", err, want)
		}
	}
}

// TestHostsThatBothHaveAGuestsTapReachEachOther while it moves: a bridge takes
// the lowest of its ports' addresses for its own, and those that the kernel
// makes up can be as high as any.
func TestHostsThatBothHaveAGuestsTapReachEachOther(t *testing.T) {
	inNamespace(t)
	left, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	defer left.Close()
	right, err := netns.New() // and this thread is in it
	if err != nil {
		t.Fatal(err)
	}
	defer right.Close()
	enter := func(ns netns.NsHandle) {
		if err := netns.Set(ns); err != nil {
			t.Fatal(err)
		}
	}
	enter(left)
	cable := &netlink.Veth{
		LinkAttrs: netlink.LinkAttrs{Name: "cable", HardwareAddr: net.HardwareAddr{0xFE, 0xFE, 0, 0, 0, 1}},
		PeerName:  "cable", PeerHardwareAddr: net.HardwareAddr{0xFE, 0xFE, 0, 0, 0, 2}, PeerNamespace: netlink.NsFd(int(right)),
	}
	addLink(t, cable)
	host := func(ns netns.NsHandle, address string) {
		enter(ns)
		bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
		addLink(t, bridge)
		link, err := netlink.LinkByName("cable")
		if err != nil {
			t.Fatal(err)
		}
		addr, err := netlink.ParseAddr(address)
		if err != nil {
			t.Fatal(err)
		}
		err = errors.Join(netlink.LinkSetMaster(link, bridge), netlink.AddrAdd(bridge, addr), netlink.LinkSetUp(link), netlink.LinkSetUp(bridge))
		if err != nil {
			t.Fatal(err)
		}
		o := options("")
		o.Bridge = "br0"
		tap, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { tap.Close() })
	}
	host(right, "192.0.2.2/24")
	host(left, "192.0.2.1/24")
	ln, err := net.Listen("tcp", "192.0.2.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	enter(right)
	c, err := net.DialTimeout("tcp", ln.Addr().String(), 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}
