package doctor

import (
	"errors"
	"fmt"
	"strings"

	"microvm/devices/tap"
)

// lookAtNet makes a tap device, which goes away with its file.
func lookAtNet() []Check {
	t, err := tap.Open(tap.Options{Queues: 1, MTU: 1500, Owner: -1})
	if err == nil {
		err = t.Close()
	} else if head, tail, ok := strings.Cut(err.Error(), ": run as root"); ok {
		err = errors.New(head + "; run as root" + tail)
	}
	return []Check{check("tap devices", "--net tap=auto", err, "/dev/net/tun makes them"), bridges()}
}

func bridges() Check {
	c := Check{Name: "bridge", Status: OK, For: "--net tap=auto,bridge=NAME"}
	names, err := tap.Bridges()
	switch {
	case err != nil:
		return check(c.Name, c.For, err, "")
	case len(names) == 0:
		return c.warn("this host has none", "ip link add br0 type bridge && ip link set br0 up, with the host's network card as a port")
	}
	c.Found = fmt.Sprintf("there are %s", strings.Join(names, ", "))
	return c
}
