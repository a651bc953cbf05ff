package blk

import (
	"fmt"
	"math/rand/v2"
	"os"
	"testing"

	"microvm/devices/virtio/virtiotest"
)

// BenchmarkRandomRead is 4 KiB at random by a driver that keeps so many
// requests under way, from a file on a disk and from one in memory, with an
// io_uring and without. What
// the driver does itself is in it.
func BenchmarkRandomRead(b *testing.B) {
	const size = 128 << 20
	for _, dir := range []string{b.TempDir(), "/dev/shm"} {
		dir, err := os.MkdirTemp(dir, "microvm-bench-")
		if err != nil {
			b.Fatal(err)
		}
		defer os.RemoveAll(dir)
		path, _ := newImage(b, dir, size)
		for _, c := range []struct {
			depth  int
			noRing bool
		}{{1, false}, {1, true}, {32, false}, {32, true}} {
			depth := c.depth
			r := newRig(b, path, false, Options{Queues: 1, noRing: c.noRing}, 0)
			q, rnd := r.queues[0], rand.New(rand.NewPCG(1, 1))
			add := func(slot int) uint16 {
				head, _ := q.Add(arena+uint64(slot)*32768, 4096-16, 0,
					virtiotest.Buf{Data: header(typeIn, rnd.Uint64N(size/4096)*8)}, virtiotest.Buf{Room: 4096}, virtiotest.Buf{Room: 1})
				return head
			}
			b.Run(fmt.Sprintf("direct=%t/ring=%t/depth=%d", r.disk.Image().Direct(), r.disk.engine != nil, depth), func(b *testing.B) {
				slots := map[uint16]int{}
				for slot := range depth {
					slots[add(slot)] = slot
				}
				q.Kick()
				for range b.N {
					head, _, _ := q.Wait()
					slot := slots[head]
					delete(slots, head)
					slots[add(slot)] = slot
					q.Kick()
				}
				for range depth {
					q.Wait()
				}
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "requests/s")
			})
		}
	}
}
