package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"
)

const (
	requestSize = 32
	roundCount  = 2000
)

// roundTrips asks for a page over the loopback's TCP and waits for it, again and again, and gives two quantiles of how
// long that took, in nanoseconds.
func roundTrips() (p50, p99 float64, err error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, 0, fmt.Errorf("round trips: %w", err)
	}
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return // the other end has said why
		}
		defer c.Close()
		page := make([]byte, os.Getpagesize())
		for {
			if _, err := io.ReadFull(c, page[:requestSize]); err != nil {
				return
			}
			if _, err := c.Write(page); err != nil {
				return
			}
		}
	}()
	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		return 0, 0, fmt.Errorf("round trips: %w", err)
	}
	defer c.Close()
	page := make([]byte, os.Getpagesize())
	var took []float64
	for range roundCount {
		begun := time.Now()
		if _, err := c.Write(page[:requestSize]); err != nil {
			return 0, 0, fmt.Errorf("round trips: %w", err)
		}
		if _, err := io.ReadFull(c, page); err != nil {
			return 0, 0, fmt.Errorf("round trips: %w", err)
		}
		took = append(took, float64(time.Since(begun)))
	}
	slices.Sort(took)
	return took[len(took)/2], took[len(took)*99/100], nil
}
