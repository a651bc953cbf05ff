package main

import (
	"fmt"
	"io"
	"net"
	"time"

	"github.com/vishvananda/netlink"
)

// linkRate is the rate of the link that push makes of the loopback, in bytes a second: slow enough for the lab's CPU,
// which is emulated.
const linkRate = 30e6

// push is the rate at which postcopy moves memory over a link with a long round trip, as a share of what one TCP
// connection that does nothing else gets of the same link.
type push struct {
	rtt int // of the link, in milliseconds
	mem int // of the guest, in MiB
}

func (push) lab() bool { return true }

func (p push) sample(b *bench, s side) (figures, error) {
	restore, err := slowLoopback(time.Duration(p.rtt) * time.Millisecond)
	if err != nil {
		return nil, err
	}
	defer restore()
	bare, err := streamRate(int64(p.mem) << 20 / 4)
	if err != nil {
		return nil, err
	}
	f, err := b.migrate(migration{mode: "postcopy", cpus: 1, mem: p.mem}, s)
	if err != nil {
		return nil, err
	}
	f["bare"] = bare
	f["share"] = f["wire"] / (f["postcopy"] / 1e9) / bare
	return f, nil
}

// slowLoopback gives the loopback a round trip and a rate.
func slowLoopback(rtt time.Duration) (restore func(), err error) {
	lo, err := netlink.LinkByName("lo")
	if err != nil {
		return nil, fmt.Errorf("loopback: %w", err)
	}
	attrs := netlink.QdiscAttrs{LinkIndex: lo.Attrs().Index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT}
	// Every packet passes once in each direction. The limit is in packets, up to 64 KiB each.
	netem := netlink.NewNetem(attrs, netlink.NetemQdiscAttrs{Latency: uint32(rtt.Microseconds() / 2), Limit: 100000, Rate64: linkRate})
	if err := netlink.QdiscReplace(netem); err != nil {
		return nil, fmt.Errorf("loopback: netem: %w; the kernel needs the module sch_netem", err)
	}
	return func() { _ = netlink.QdiscDel(netem) }, nil
}

// streamRate sends so many bytes through a connection of the loopback and gives the rate at which they came.
func streamRate(size int64) (float64, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("stream: %w", err)
	}
	defer ln.Close()
	go func() {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			ln.Close() // ends the wait for it
			return
		}
		defer c.Close()
		chunk := make([]byte, 256<<10)
		for left := size; left > 0; left -= int64(len(chunk)) {
			if _, err := c.Write(chunk); err != nil {
				return // the reader finds less than size
			}
		}
	}()
	c, err := ln.Accept()
	if err != nil {
		return 0, fmt.Errorf("stream: %w", err)
	}
	defer c.Close()
	// The first eighth is for the window to open.
	if _, err := io.CopyN(io.Discard, c, size/8); err != nil {
		return 0, fmt.Errorf("stream: %w", err)
	}
	begun := time.Now()
	n, err := io.CopyN(io.Discard, c, size-size/8)
	if err != nil {
		return 0, fmt.Errorf("stream: %w", err)
	}
	return float64(n) / time.Since(begun).Seconds(), nil
}
