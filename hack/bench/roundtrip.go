package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

const (
	requestSize = 32
	roundCount  = 2000
)

// roundTrips asks for a page over the loopback's TCP and waits for it, again and again, and gives two quantiles of how
// long that took, in nanoseconds. Each end is a thread that blocks in the kernel, as between two processes.
func roundTrips() (p50, p99 float64, err error) {
	asking, answering, err := connected()
	if err != nil {
		return 0, 0, fmt.Errorf("round trips: %w", err)
	}
	defer asking.Close()
	go func() {
		runtime.LockOSThread()
		defer answering.Close()
		page := make([]byte, os.Getpagesize())
		for receive(answering, page[:requestSize]) == nil {
			if _, err := unix.Write(int(answering.Fd()), page); err != nil {
				return // the other end finds out
			}
		}
	}()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	page := make([]byte, os.Getpagesize())
	var took []float64
	for range roundCount {
		begun := time.Now()
		if _, err := unix.Write(int(asking.Fd()), page[:requestSize]); err != nil {
			return 0, 0, fmt.Errorf("round trips: ask: %w", err)
		}
		if err := receive(asking, page); err != nil {
			return 0, 0, fmt.Errorf("round trips: answer: %w", err)
		}
		took = append(took, float64(time.Since(begun)))
	}
	slices.Sort(took)
	return took[len(took)/2], took[len(took)*99/100], nil
}

// connected gives the two ends of a TCP connection, as files that block.
func connected() (a, b *os.File, err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer ln.Close()
	dialled, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		return nil, nil, err
	}
	defer dialled.Close()
	accepted, err := ln.Accept()
	if err != nil {
		return nil, nil, err
	}
	defer accepted.Close()
	a, errA := dialled.(*net.TCPConn).File()
	b, errB := accepted.(*net.TCPConn).File()
	if err := errors.Join(errA, errB); err != nil {
		return nil, nil, err
	}
	return a, b, errors.Join(unix.SetNonblock(int(a.Fd()), false), unix.SetNonblock(int(b.Fd()), false))
}

// receive fills p.
func receive(f *os.File, p []byte) error {
	for len(p) > 0 {
		n, err := unix.Read(int(f.Fd()), p)
		switch {
		case err == unix.EINTR:
		case err != nil:
			return err
		case n == 0:
			return net.ErrClosed
		default:
			p = p[n:]
		}
	}
	return nil
}
