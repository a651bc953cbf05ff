//go:build !race

package main

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"testing"
	"time"

	"microvm/migration"
)

// pushMiB is the size of the guest that TestPushFillsALineOfALongRoundTrip
// moves: 128, or what MICROVM_TEST_PUSH_MIB says.
func pushMiB(t *testing.T) int64 {
	t.Helper()
	text := os.Getenv("MICROVM_TEST_PUSH_MIB")
	if text == "" {
		return 128
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 128 {
		t.Fatalf("MICROVM_TEST_PUSH_MIB=%s: has to be a number from 128 up", text)
	}
	return n
}

// Over a line of 20 ms there and back the push of a guest that is waiting for
// pages all the while takes no longer than an eleventh more than a plain copy
// of as many bytes over the same line does: nothing but the line bounds it.
func TestPushFillsALineOfALongRoundTrip(t *testing.T) {
	const (
		delay = 10 * time.Millisecond // each way
		rate  = 40e6                  // bytes/s: 800 KB are on their way
		share = 0.9
	)
	size := pushMiB(t)
	h := newHost(t)
	needKVM(t)
	n := newLine(t, delay, rate)
	sides := n.sides()
	at := n.startIn(sides[0], h, "run", "--name", "a0", "-m", fmt.Sprintf("%dM", size), "-c", "2", "-p", busy)
	at.awaitLine("beat ")
	processes := []*process{at}
	// A busy machine may fail to serve the line now and then, but a bound of
	// our own would be there every time.
	const attempts = 3
	for i := 1; ; i++ {
		from, to := sides[(i-1)%2], sides[i%2]
		name := fmt.Sprintf("a%d", i)
		next := n.startIn(to, h, "receive", "--name", name, "--listen", "tcp:"+to.ip+":0")
		next.patience = time.Duration(size) * time.Second
		addr := next.awaitLine("tcp:")
		// Before and after, so that what the guest does costs all of them the same.
		plain := n.copyPlain(from, to, size<<20) / 2
		migrate := h.start("migrate", fmt.Sprintf("a%d", i-1), addr, "--postcopy", "--report", "json")
		migrate.patience = next.patience
		migrate.wait(0)
		at.wait(0)
		r := readReport(t, migrate.stdout.String())
		plain += n.copyPlain(from, to, size<<20) / 2
		processes, at = append(processes, next), next

		push := float64(r.RAM.BytesWire) / time.Duration(r.PostcopyNS).Seconds()
		t.Logf("%d MiB: plain TCP %.2f MB/s, push %.2f MB/s (%.1f %%) in %v with %d faults, p50 %v, p99 %v; the line has %.2f MB/s",
			size, plain/1e6, push/1e6, 100*push/plain, time.Duration(r.PostcopyNS).Round(time.Millisecond), r.Faults.Count,
			time.Duration(r.Faults.P50NS).Round(time.Millisecond), time.Duration(r.Faults.P99NS).Round(time.Millisecond), rate/1e6)
		if r.Result != migration.ResultCompleted || r.RAM.BytesWire < uint64(size)<<20*9/10 || r.Faults.Requested == 0 {
			t.Errorf("the move: %+v", r)
		}
		if push >= share*plain {
			break
		}
		if i == attempts {
			t.Fatalf("the push never had %.0f %% of what plain TCP has", 100*share)
		}
	}
	at.goesOn(3)
	h.must(0, "stop", fmt.Sprintf("a%d", len(processes)-1), "--force")
	at.wait(0)
	checkScreen(t, screens(processes...))
}

// copyPlain copies bytes from one host to the other as io.Copy does, and returns
// how many a second.
func (n *network) copyPlain(from, to side, bytes int64) (rate float64) {
	n.t.Helper()
	var ln net.Listener
	var err error
	n.in(to.ns, func() { ln, err = net.Listen("tcp", to.ip+":0") })
	if err != nil {
		n.t.Fatal(err)
	}
	defer ln.Close()
	began := time.Now()
	sent := make(chan error, 1)
	go func() {
		var c net.Conn
		var err error
		n.in(from.ns, func() { c, err = net.Dial("tcp", ln.Addr().String()) })
		if err == nil {
			defer c.Close()
			buf := make([]byte, 128<<10)
			for left := bytes; left > 0 && err == nil; left -= int64(len(buf)) {
				_, err = c.Write(buf)
			}
		}
		sent <- err
	}()
	c, err := ln.Accept()
	if err != nil {
		n.t.Fatal(err)
	}
	defer c.Close()
	got, err := io.Copy(io.Discard, c)
	if err != nil || got != bytes {
		n.t.Fatalf("%d bytes of %d, %v", got, bytes, err)
	}
	if err := <-sent; err != nil {
		n.t.Fatal(err)
	}
	return float64(got) / time.Since(began).Seconds()
}
