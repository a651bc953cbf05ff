package tap

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Look tells what Open would refuse, as far as that can be told without making
// or attaching to anything.
func Look(o Options) error {
	if err := checkName(o.Name); err != nil {
		return err
	}
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return (&Tap{name: o.Name}).explain(err, 0, o.Queues)
	}
	f.Close() // attached to nothing
	name := o.Name
	if name != "" {
		link, err := netlink.LinkByName(name)
		if !errors.As(err, new(netlink.LinkNotFoundError)) {
			return lookAt(o, link, err)
		}
	} else {
		name = pattern
	}
	// It is to be made.
	may, err := mayAdminister()
	if err != nil {
		return err
	}
	if !may {
		return (&Tap{name: name}).explain(unix.EPERM, 0, o.Queues)
	}
	if o.Bridge == "" {
		return nil
	}
	_, err = findBridge(o.Bridge)
	return err
}

// lookAt is Look for a device that is there, or cannot be looked up.
func lookAt(o Options, link netlink.Link, err error) error {
	if err != nil {
		return fmt.Errorf("tap %s: look it up: %w", o.Name, err)
	}
	if err := isTap(o.Name, link); err != nil {
		return err
	}
	return usedAsItIs(o)
}

// mayAdminister says whether this process has CAP_NET_ADMIN in effect.
func mayAdminister() (bool, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return false, fmt.Errorf("capget: %w", err)
	}
	return data[0].Effective&(1<<unix.CAP_NET_ADMIN) != 0, nil
}
