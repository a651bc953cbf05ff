package tap

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	device = "/dev/net/tun"
	// pattern is the name of a device that the kernel is to number.
	pattern = "mvtap%d"
	// HeaderSize is how long the header is that precedes each frame, in
	// bytes.
	HeaderSize = 12

	baseFlags = unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR
	// offloads are all that SetOffload may be asked for.
	offloads = unix.TUN_F_CSUM | unix.TUN_F_TSO4 | unix.TUN_F_TSO6 | unix.TUN_F_TSO_ECN
)

// Options of a device.
type Options struct {
	// Name is that of a device that is there, or of one to be made; empty
	// is one to be made that the kernel chooses a name for.
	Name string
	// Queues is how many files, each with packets of its own, it has.
	Queues int

	// What follows is for a device that is made.

	MTU    int
	Bridge string // that it becomes a port of; empty is none
	Owner  int    // a user who may attach to it too, or -1
}

// A Tap is a tap device that is attached to. Its methods other than Name, MTU
// and Files are not for several goroutines at a time.
type Tap struct {
	name  string
	mtu   int
	files []*os.File
	// used is how many of the files the kernel gives packets to.
	used int
}

// Open attaches to a device, and makes it first if need be.
func Open(o Options) (*Tap, error) {
	if o.Name == "" {
		return create(o)
	}
	if err := checkName(o.Name); err != nil {
		return nil, err
	}
	link, err := netlink.LinkByName(o.Name)
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing):
		return create(o)
	case err != nil:
		return nil, fmt.Errorf("tap %s: look it up: %w", o.Name, err)
	}
	if err := isTap(o.Name, link); err != nil {
		return nil, err
	}
	return use(o, link)
}

func checkName(name string) error {
	if len(name) >= unix.IFNAMSIZ {
		return fmt.Errorf("tap %s: %d characters: a device's name has at most %d", name, len(name), unix.IFNAMSIZ-1)
	}
	return nil
}

// isTap refuses a device that is none.
func isTap(name string, link netlink.Link) error {
	if t, ok := link.(*netlink.Tuntap); !ok || t.Mode != netlink.TUNTAP_MODE_TAP {
		return fmt.Errorf("tap %s: the name is taken by a device that is no tap (%s); choose another one, or tap=auto", name, link.Type())
	}
	return nil
}

// create makes the device.
func create(o Options) (*Tap, error) {
	name, excl := o.Name, uint16(unix.IFF_TUN_EXCL)
	if name == "" {
		name = pattern
	}
	t := &Tap{mtu: o.MTU}
	if err := t.attach(name, o.Queues, excl); err != nil {
		return nil, err
	}
	if err := t.configure(o); err != nil {
		return nil, errors.Join(fmt.Errorf("tap %s: %w", t.name, err), t.Close())
	}
	return t, nil
}

// use attaches to a device that is there.
func use(o Options, link netlink.Link) (*Tap, error) {
	if err := usedAsItIs(o); err != nil {
		return nil, err
	}
	t := &Tap{mtu: link.Attrs().MTU}
	if err := t.attach(o.Name, o.Queues, 0); err != nil {
		return nil, err
	}
	if link.Attrs().Flags&unix.IFF_UP == 0 {
		if err := netlink.LinkSetUp(link); err != nil {
			return nil, errors.Join(fmt.Errorf("tap %s: it is down, and cannot be set up: %w; ip link set %s up", o.Name, err, o.Name), t.Close())
		}
	}
	return t, nil
}

// usedAsItIs refuses what is said of a device that is there as if it were to be
// made.
func usedAsItIs(o Options) error {
	if o.Bridge != "" || o.Owner >= 0 {
		return fmt.Errorf("tap %s: it is there already, and used as it is: say bridge= and owner= only of a tap that microvm is to make", o.Name)
	}
	return nil
}

// attach opens a file for each queue.
func (t *Tap) attach(name string, queues int, flags uint16) error {
	t.name = name
	kinds := []uint16{baseFlags, baseFlags | unix.IFF_MULTI_QUEUE}
	if queues > 1 {
		kinds = kinds[1:]
	}
	for i := range queues {
		var f *os.File
		var err error
		for _, kind := range kinds {
			f, err = t.attachOne(kind | flags)
			if !errors.Is(err, unix.EINVAL) {
				break
			}
		}
		if err == nil {
			t.files = append(t.files, f)
			err = prepare(f)
		}
		if err != nil {
			return errors.Join(t.explain(err, i, queues), t.Close())
		}
		flags = 0 // the others join the first
	}
	t.used = queues
	return nil
}

// attachOne opens one file, and learns the name.
func (t *Tap) attachOne(flags uint16) (*os.File, error) {
	fd, err := unix.Open(device, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: device, Err: err}
	}
	request, err := unix.NewIfreq(t.name)
	if err == nil {
		request.SetUint16(flags)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	t.name = request.Name()
	// Only now: the runtime's poller would not hear of a file that is
	// attached to nothing.
	return os.NewFile(uintptr(fd), "tap "+t.name), nil
}

// explain says what a failure to attach means, and what helps.
func (t *Tap) explain(err error, queue, queues int) error {
	name := t.name
	if name == pattern {
		name = "auto"
	}
	remedy := ""
	switch {
	case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV):
		remedy = "the kernel has no tap devices: modprobe tun"
	case errors.Is(err, unix.EACCES):
		remedy = "this user may not use it: chmod 0666 /dev/net/tun, or run as root"
	case errors.Is(err, unix.EPERM):
		remedy = "this needs CAP_NET_ADMIN: run as root, or name a tap that is this user's (ip tuntap add dev NAME mode tap user USER)"
	case errors.Is(err, unix.EBUSY):
		remedy = "another process uses it"
	case errors.Is(err, unix.EINVAL) && queues > 1:
		remedy = "it was not made for several queues: ip tuntap add dev NAME mode tap multi_queue, or say queues=1"
	case errors.Is(err, unix.E2BIG):
		remedy = fmt.Sprintf("the kernel takes no more than %d queues", queue)
	default:
		return fmt.Errorf("tap %s: attach: %w", name, err)
	}
	return fmt.Errorf("tap %s: attach: %w: %s", name, err, remedy)
}

// prepare sets up what a file has of its own: the header, and that a write is
// never refused because earlier frames are on their way still.
func prepare(f *os.File) error {
	return control(f, func(fd int) error {
		if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, HeaderSize); err != nil {
			return fmt.Errorf("TUNSETVNETHDRSZ: %w", err)
		}
		if err := unix.IoctlSetPointerInt(fd, unix.TUNSETSNDBUF, 1<<31-1); err != nil {
			return fmt.Errorf("TUNSETSNDBUF: %w", err)
		}
		// What the kernel cannot do is found out now, and not by a driver.
		for _, flags := range []int{offloads, 0} {
			if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, flags); err != nil {
				return fmt.Errorf("TUNSETOFFLOAD %#x: %w", flags, err)
			}
		}
		return nil
	})
}

// configure makes the device what its user asks for, and has it work.
func (t *Tap) configure(o Options) error {
	link, err := netlink.LinkByName(t.name)
	if err != nil {
		return err
	}
	if o.Owner >= 0 {
		if err := control(t.files[0], func(fd int) error { return unix.IoctlSetInt(fd, unix.TUNSETOWNER, o.Owner) }); err != nil {
			return fmt.Errorf("give it to user %d: %w", o.Owner, err)
		}
	}
	if err := netlink.LinkSetHardwareAddr(link, newAddress()); err != nil {
		return fmt.Errorf("set its address: %w", err)
	}
	if err := netlink.LinkSetMTU(link, o.MTU); err != nil {
		return fmt.Errorf("set its MTU to %d: %w", o.MTU, err)
	}
	if o.Bridge != "" {
		if err := join(link, o.Bridge); err != nil {
			return err
		}
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set it up: %w", err)
	}
	return nil
}

// newAddress makes an address up for the host's end. It is locally administered
// and begins as high as such an address can, so that a bridge, which takes the
// lowest of its ports', does not take one that goes away with a VM. The rest is
// random: while a guest moves, both hosts have a tap for it, and where one's
// bridge had the address of the other's tap, neither would reach the other.
func newAddress() net.HardwareAddr {
	mac := net.HardwareAddr{0xFE, 0xFF, 0, 0, 0, 0}
	rand.Read(mac[2:])
	return mac
}

// join makes the device a port of a bridge.
func join(link netlink.Link, name string) error {
	bridge, err := findBridge(name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetMaster(link, bridge); err != nil {
		return fmt.Errorf("make it a port of bridge %s: %w", name, err)
	}
	return nil
}

func findBridge(name string) (netlink.Link, error) {
	bridge, err := netlink.LinkByName(name)
	var missing netlink.LinkNotFoundError
	switch {
	case errors.As(err, &missing):
		return nil, fmt.Errorf("bridge %s: there is none; ip link add %s type bridge && ip link set %s up", name, name, name)
	case err != nil:
		return nil, fmt.Errorf("bridge %s: %w", name, err)
	case bridge.Type() != "bridge":
		return nil, fmt.Errorf("bridge %s: this device is no bridge but a %s", name, bridge.Type())
	}
	return bridge, nil
}

// Adopt takes over a file that is attached to a tap device already, as another
// program passes it. The file is the Tap's if there is no error. Whether it was
// attached with IFF_NO_PI, as it has to be, the kernel does not tell: the bit
// that it reports has another meaning.
func Adopt(fd int) (*Tap, error) {
	request, err := unix.NewIfreq("")
	if err == nil {
		err = unix.IoctlIfreq(fd, unix.TUNGETIFF, request)
	}
	if err != nil {
		return nil, fmt.Errorf("fd %d: no tap device is attached to it: %w", fd, err)
	}
	name, flags := request.Name(), request.Uint16()
	switch {
	case flags&unix.IFF_TAP == 0:
		return nil, fmt.Errorf("fd %d: %s is a tun device: it has packets, and a network card frames; attach with IFF_TAP", fd, name)
	case flags&unix.IFF_VNET_HDR == 0:
		return nil, fmt.Errorf("fd %d: tap %s is attached without the virtio header: attach with IFF_VNET_HDR and IFF_NO_PI", fd, name)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("fd %d: %w", fd, err)
	}
	unix.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "tap "+name)
	if err := prepare(f); err != nil {
		return nil, errors.Join(fmt.Errorf("fd %d: tap %s: %w", fd, name, err), f.Close())
	}
	return &Tap{name: name, files: []*os.File{f}, used: 1}, nil
}

// Name is the device's.
func (t *Tap) Name() string { return t.name }

// MTU is the device's when it was opened, 0 if that is not known.
func (t *Tap) MTU() int { return t.mtu }

// Files are those that frames are read from and written to, one for each queue;
// they do not block.
func (t *Tap) Files() []*os.File { return t.files }

// SetOffload says what the reader takes: TUN_F_* of linux/if_tun.h.
func (t *Tap) SetOffload(flags int) error {
	return control(t.files[0], func(fd int) error {
		if err := unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, flags); err != nil {
			return fmt.Errorf("tap %s: TUNSETOFFLOAD %#x: %w", t.name, flags, err)
		}
		return nil
	})
}

// UseQueues has the kernel give packets to the first n files alone.
func (t *Tap) UseQueues(n int) error {
	for t.used != n {
		i, flag := t.used, uint16(unix.IFF_ATTACH_QUEUE)
		if t.used > n {
			i, flag = t.used-1, unix.IFF_DETACH_QUEUE
		}
		err := control(t.files[i], func(fd int) error {
			request, err := unix.NewIfreq(t.name)
			if err != nil {
				return err
			}
			request.SetUint16(flag)
			return unix.IoctlIfreq(fd, unix.TUNSETQUEUE, request)
		})
		if err != nil {
			return fmt.Errorf("tap %s: TUNSETQUEUE of queue %d: %w", t.name, i, err)
		}
		if t.used > n {
			t.used--
		} else {
			t.used++
		}
	}
	return nil
}

// SetCarrier plugs the cable in, or pulls it out.
func (t *Tap) SetCarrier(on bool) error {
	value := 0
	if on {
		value = 1
	}
	return control(t.files[0], func(fd int) error {
		if err := unix.IoctlSetPointerInt(fd, unix.TUNSETCARRIER, value); err != nil {
			return fmt.Errorf("tap %s: TUNSETCARRIER %d: %w", t.name, value, err)
		}
		return nil
	})
}

// Close detaches from the device; one that Open made is gone then.
func (t *Tap) Close() error {
	var errs []error
	for _, f := range t.files {
		errs = append(errs, f.Close())
	}
	t.files = nil
	return errors.Join(errs...)
}

// control does something with a file's descriptor, which stays open meanwhile.
func control(f *os.File, do func(fd int) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var failed error
	if err := conn.Control(func(fd uintptr) { failed = do(int(fd)) }); err != nil {
		return err
	}
	return failed
}
