package vmm

import (
	"errors"
	"fmt"
	"reflect"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

func TestParseNet(t *testing.T) {
	for text, want := range map[string]any{
		"tap=auto": NetConfig{},
		"tap=t0":   NetConfig{Tap: TapConfig{Name: "t0"}},
		"tap=auto,mac=02:00:00:00:00:09,mtu=9000,queues=4,bridge=br0,owner=0": NetConfig{
			MAC: "02:00:00:00:00:09", MTU: 9000, Queues: 4, Tap: TapConfig{Bridge: "br0", Owner: new(0)}},
		"fd=3,mac=02-00-00-00-00-09":     NetConfig{MAC: "02-00-00-00-00-09", Tap: TapConfig{FD: 3}},
		"":                               "tap=auto|NAME",
		"auto":                           "tap=auto|NAME",
		"mac=02:00:00:00:00:09,tap=auto": "in this order",
		"tap=auto,tap=b":                 "in this order",
		"tap=auto,fd=3":                  "in this order",
		"tap=":                           "tap=auto|NAME",
		"tap=auto,mac=":                  "mac=",
		"tap=auto,mac=1:2":               "02:00:00:12:34:56",
		"tap=auto,mac=01:00:00:00:00:09": "a group",
		"tap=auto,mac=00:00:00:00:00:00": "no address",
		"tap=auto,mtu=67":                "68 to 65521",
		"tap=auto,mtu=65522":             "68 to 65521",
		"tap=auto,mtu=0":                 "1 or more",
		"tap=auto,queues=17":             "1 to 16",
		"tap=auto,queues=x":              "queues=x",
		"tap=auto,owner=-1":              "owner -1",
		"tap=a/b":                        "no name",
		"tap=a%d":                        "no name",
		"fd=2":                           "not passed",
		"fd=3,queues=2":                  "is one",
		"fd=3,bridge=br0":                "not of a file descriptor",
		"tap=auto,speed=9":               "unknown",
	} {
		got, err := ParseNet(text)
		if refusal, ok := want.(string); ok {
			if err == nil || !strings.Contains(err.Error(), refusal) {
				t.Errorf("%q: %v, want %q in it", text, err, refusal)
			}
		} else if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%q: %+v, %v, want %+v", text, got, err, want)
		}
	}
	if _, err := ParseTap("tap=auto,mac=02:00:00:00:00:09"); err == nil || !strings.Contains(err.Error(), "comes with the VM") {
		t.Errorf("an address at the destination: %v", err)
	}
	if got, err := ParseTap("tap=auto,bridge=br0"); err != nil || got.Bridge != "br0" {
		t.Errorf("%+v, %v", got, err)
	}
}

// TestAddressesDoNotCollide: they are the same each time, and others for another
// card or VM.
func TestAddressesDoNotCollide(t *testing.T) {
	seen := map[string]string{}
	for _, name := range []string{"a", "b", "a1", "vm12"} {
		for i := range 4 {
			mac := defaultMAC(name, i)
			if b, err := parseMAC(mac); err != nil || b[0]&2 == 0 || mac != defaultMAC(name, i) {
				t.Errorf("%s, %v: not locally administered, or not twice the same", mac, err)
			}
			who := fmt.Sprint(name, " ", i)
			if other, taken := seen[mac]; taken {
				t.Errorf("%s is that of %s and of %s", mac, who, other)
			}
			seen[mac] = who
		}
	}
}

// withNets is a VM with the tiny kernel, which has no drivers, in a network of
// its own, and network cards.
func withNets(t *testing.T, cards ...string) Config {
	t.Helper()
	needKVM(t)
	runtime.LockOSThread() // the thread ends with the test
	ns, err := netns.New()
	if err != nil {
		if errors.Is(err, unix.EPERM) {
			t.Skip("may not make a network namespace; run this test as root")
		}
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "br0"}}
	if err := errors.Join(netlink.LinkAdd(bridge), netlink.LinkSetUp(bridge)); err != nil {
		t.Fatal(err)
	}
	config := tinyConfig("beat=50")
	for _, text := range cards {
		c, err := ParseNet(text)
		if err != nil {
			t.Fatal(err)
		}
		config.Nets = append(config.Nets, c)
	}
	return config
}

// carrier says whether a tap's cable is in.
func carrier(t *testing.T, name string) bool {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return link.Attrs().RawFlags&unix.IFF_LOWER_UP != 0
}

// TestNetworkGoesWithItsVM: at each step of a migration that fails, and of one
// that does not, only the host that owns the guest is on the network, and it
// says so.
func TestNetworkGoesWithItsVM(t *testing.T) {
	config := withNets(t, "tap=auto,bridge=br0,queues=2", "tap=mine,mac=02:00:00:00:00:07,mtu=4000")
	vm, out := boot(t, config)
	out.wait(t, 1, "beat ")
	nets := vm.UserConfig().Nets
	if nets[0].MAC != defaultMAC(config.Name, 0) || nets[0].MTU != 1500 || nets[1].MTU != 4000 || nets[1].Tap.Name != "mine" {
		t.Errorf("%+v", nets)
	}
	if config.Nets[0].MAC != "" {
		t.Error("the caller's configuration has been changed")
	}
	announced := func(vm *VM) uint64 { return vm.VirtioDevices()[1].Counts.Counters["announcements"] }
	if announced(vm) != 0 {
		t.Error("a guest that boots is announced")
	}
	if err := errors.Join(vm.Depart(), vm.Pause(t.Context())); err != nil {
		t.Fatal(err)
	}
	moved := moveInPlace(t, vm, Options{Nets: []TapConfig{{Bridge: "br0"}, {}}})
	there := moved.UserConfig().Nets
	if there[0].MAC != nets[0].MAC || there[0].Tap.Name == nets[0].Tap.Name || there[1].MTU != 4000 || there[1].Tap.Name == "mine" {
		t.Errorf("%+v came, %+v went", there, nets)
	}
	if err := vm.HandOver(); err != nil {
		t.Fatal(err)
	}
	if carrier(t, "mine") {
		t.Error("the network still sees the guest where it was given up")
	}
	if err := vm.TakeBack(); err != nil {
		t.Fatal(err)
	}
	if !carrier(t, "mine") {
		t.Error("the network does not see the guest that was taken back")
	}
	await(t, "an announcement of the guest that was taken back", func() bool { return announced(vm) > 0 })
	if err := vm.HandOver(); err != nil {
		t.Fatal(err)
	}
	given := announced(vm)
	if err := moved.Run(); err != nil {
		t.Fatal(err)
	}
	await(t, "two announcements of the guest that has come", func() bool { return announced(moved) > 1 })
	if announced(vm) != given {
		t.Error("a host that has given the guest up announces it")
	}
	if err := errors.Join(vm.Gone("there"), moved.Settle()); err != nil {
		t.Fatal(err)
	}
	moved.Stop()
}

// await waits for something that has to come to be.
func await(t *testing.T, what string, is func() bool) {
	t.Helper()
	for late := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("%s does not come", what)
		}
	}
}

// TestIncomingCardsUseWhatThisHostNamed, and nothing that the source did.
func TestIncomingCardsUseWhatThisHostNamed(t *testing.T) {
	config := withNets(t, "tap=auto,bridge=br0", "tap=auto,queues=2,mtu=9000")
	vm, _ := boot(t, config)
	if err := errors.Join(vm.Depart(), vm.Pause(t.Context())); err != nil {
		t.Fatal(err)
	}
	machine, err := vm.Config()
	if err != nil {
		t.Fatal(err)
	}
	old := &netlink.Tuntap{LinkAttrs: netlink.LinkAttrs{Name: "old"}, Mode: netlink.TUNTAP_MODE_TAP, Flags: netlink.TUNTAP_MULTI_QUEUE_DEFAULTS}
	if err := netlink.LinkAdd(old); err != nil {
		t.Fatal(err)
	}
	for _, f := range old.Fds {
		f.Close()
	}
	auto := TapConfig{}
	for _, c := range []struct {
		here []TapConfig
		want string
	}{
		{nil, "say --net"},
		{[]TapConfig{auto}, "told of 1"},
		{[]TapConfig{auto, auto, auto}, "2 network cards"},
		{[]TapConfig{auto, {FD: 3}}, "a file descriptor is one"},
		{[]TapConfig{{Bridge: "br9"}, auto}, "bridge br9: there is none"},
		{[]TapConfig{auto, {Name: "old"}}, "tap old has MTU 1500, and the guest's card 9000"},
		{[]TapConfig{{Name: "br0"}, auto}, "no tap"},
	} {
		vm, err := NewIncoming(t.Context(), machine, Options{Nets: c.here})
		if err == nil {
			vm.Close()
			t.Errorf("%+v was taken", c.here)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %q in it", c.here, err, c.want)
		}
	}
	links, err := netlink.LinkList()
	if err != nil || len(links) != 5 { // lo, br0, old and the two cards'
		var names []string
		for _, l := range links {
			names = append(names, l.Attrs().Name)
		}
		t.Errorf("%v: there are %v", err, names)
	}
}
