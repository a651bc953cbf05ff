package net

import (
	"runtime"
	"testing"
	"time"

	"microvm/devices/virtio/virtiotest"
)

// TestFramesDoNotAllocate: a guest's traffic costs no garbage collection.
func TestFramesDoNotAllocate(t *testing.T) {
	const frames = 60
	r := newRig(t, 1, 0)
	frame := make([]byte, headerSize+1000)
	// measure gives how much was allocated until the card has counted all.
	measure := func(d *direction, do func()) uint64 {
		var before, after runtime.MemStats
		// The socket that stands for the tap has room for a few frames only.
		seen := func() uint64 { return d.Tally.Counts("").Requests + d.drops.Load() }
		want := seen() + frames
		runtime.ReadMemStats(&before)
		do()
		for late := time.Now().Add(20 * time.Second); seen() < want && time.Now().Before(late); {
			runtime.Gosched()
		}
		runtime.ReadMemStats(&after)
		return after.Mallocs - before.Mallocs
	}
	receive := func() uint64 {
		r.room(0, frames, 2048)
		n := measure(&r.net.receivers[0].counts, func() {
			for range frames {
				r.wires.putRaw(t, 0, frame)
			}
		})
		for range frames {
			r.rx[0].Wait()
		}
		return n
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		b := make([]byte, maxFrame)
		for {
			if _, err := r.wires.ends[0].Read(b); err != nil {
				return
			}
		}
	}()
	transmit := func() uint64 {
		for i := range uint64(frames) {
			r.tx[0].Add(arena+4096*i, 0, -1, virtiotest.Buf{Data: frame})
		}
		n := measure(&r.net.transmitters[0].counts, r.tx[0].Kick)
		for range frames {
			r.tx[0].Wait()
		}
		return n
	}
	for name, do := range map[string]func() uint64{"receive": receive, "transmit": transmit} {
		do() // what is made once
		// Whatever else runs in this process allocates a little.
		if n := min(do(), do(), do()); n > frames/4 {
			t.Errorf("%s: %d allocations for %d frames", name, n, frames)
		}
	}
	r.wires.ends[0].Close()
	<-drained
}
