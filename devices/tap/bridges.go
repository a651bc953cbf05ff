package tap

import (
	"fmt"

	"github.com/vishvananda/netlink"
)

// Bridges lists the names of this host's bridges.
func Bridges() ([]string, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list network devices: %w", err)
	}
	var names []string
	for _, l := range links {
		if l.Type() == "bridge" {
			names = append(names, l.Attrs().Name)
		}
	}
	return names, nil
}
