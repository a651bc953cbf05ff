package virtio_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"

	"microvm/devices/virtio"
	"microvm/devices/virtio/virtiotest"
	"microvm/memslot"
)

// echo is a device that answers each chain with what it could read, each byte
// plus one, as far as there is room. It answers on goroutines of their own, in
// any order.
type echo struct {
	queues  []uint16
	under   sync.WaitGroup
	started int
	extra   uint64 // features
	config  [8]byte
	hold    chan struct{} // if not nil, answers wait for it to be closed
}

func (e *echo) Type() uint32                    { return 77 }
func (e *echo) Features() uint64                { return e.extra }
func (e *echo) QueueSizes() []uint16            { return e.queues }
func (e *echo) ReadConfig(p []byte, off uint64) { copy(p, e.config[min(off, 8):]) }
func (e *echo) WriteConfig([]byte, uint64)      {}
func (e *echo) Start(uint64)                    { e.started++ }
func (e *echo) Drain()                          { e.under.Wait() }
func (e *echo) Version() uint16                 { return 3 }
func (e *echo) Counts() virtio.Counts           { return virtio.Counts{} }
func (e *echo) Close() error                    { return nil }
func (e *echo) SaveState() ([]byte, error)      { return e.config[:], nil }
func (e *echo) LoadState(b []byte) error {
	if len(b) != len(e.config) {
		return fmt.Errorf("%d bytes", len(b))
	}
	copy(e.config[:], b)
	return nil
}

func (e *echo) Serve(q *virtio.Queue) error {
	for {
		c := new(virtio.Chain)
		if ok, err := q.Next(c); !ok {
			return err
		}
		e.under.Go(func() {
			if e.hold != nil {
				<-e.hold
			}
			if err := e.answer(q, c); err != nil {
				q.Fail(err)
			}
		})
	}
}

func (e *echo) answer(q *virtio.Queue, c *virtio.Chain) error {
	b := make([]byte, min(c.ReadLen, c.WriteLen, 1<<20))
	if err := c.ReadAt(b, 0); err != nil {
		return err
	}
	for i := range b {
		b[i]++
	}
	if err := c.WriteAt(b, 0); err != nil {
		return err
	}
	return q.Push(c, uint32(len(b)))
}

const allFeatures = virtio.FeatureVersion1 | virtio.FeatureIndirect | virtio.FeatureEventIdx

// rig is an echo device on a machine without vCPUs.
type rig struct {
	*virtiotest.Driver
	echo  *echo
	mmio  *virtio.MMIO
	block *memslot.Block
}

// arena is where the drivers of tests put what the device reads and writes.
const arena = 1 << 20

func newRig(t testing.TB, queues ...uint16) *rig {
	mem, block := virtiotest.NewMemory(t, 4<<20)
	e := &echo{queues: queues}
	irq := virtiotest.NewIRQ()
	m := newMMIO(t, e, mem, irq)
	m.Device().Release()
	return &rig{virtiotest.NewDriver(t, m, mem, 4096, irq), e, m, block}
}

// newMMIO is a held device that ends with the test.
func newMMIO(t testing.TB, e *echo, mem *memslot.Memory, irq virtiotest.IRQ) *virtio.MMIO {
	return virtiotest.NewMMIO(t, "echo0", e, mem, irq, slog.New(slog.DiscardHandler))
}

// split cuts b into buffers at random, some of them empty.
func split(r *rand.Rand, b []byte, buf func(part []byte) virtiotest.Buf) []virtiotest.Buf {
	var bufs []virtiotest.Buf
	for len(b) > 0 {
		n := r.IntN(len(b) + 1)
		if len(bufs) == 6 {
			n = len(b)
		}
		bufs = append(bufs, buf(b[:n]))
		b = b[n:]
	}
	return bufs
}

// TestRequestsAreAnsweredWhateverTheirForm is a driver's traffic, at random: chains of many forms, batches of many
// sizes, requests done in any order, and notifications suppressed by both sides. A notification that is missing hangs
// it, an answer that is another's fails it. Some go on until
// the indices have wrapped around their 16 bits.
func TestRequestsAreAnsweredWhateverTheirForm(t *testing.T) {
	for _, features := range []uint64{
		virtio.FeatureVersion1,
		virtio.FeatureVersion1 | virtio.FeatureIndirect,
		virtio.FeatureVersion1 | virtio.FeatureEventIdx,
		allFeatures,
	} {
		for _, size := range []uint16{16, 256} {
			t.Run(fmt.Sprintf("features %#x, %d entries", features, size), func(t *testing.T) {
				requests := 4000
				if size == 256 && features&virtio.FeatureIndirect != 0 && !testing.Short() {
					requests = 66_000
				}
				r := newRig(t, size)
				r.Init(features)
				q := r.NewQueue(0, size)
				r.OK()
				exercise(t, rand.New(rand.NewPCG(features, uint64(size))), q, features, requests)
				if s := r.mmio.Device().Queues()[0].Stats(); s.Chains != uint64(requests) || s.Interrupts == 0 {
					t.Errorf("it has counted %+v of %d requests", s, requests)
				}
			})
		}
	}
}

// exercise makes requests and checks the answers.
func exercise(t *testing.T, r *rand.Rand, q *virtiotest.Queue, features uint64, requests int) {
	type asked struct{ text, want []byte }
	const slot, slots = 4096, 256 // each request's memory
	under := map[uint16]asked{}
	places := map[uint16]int{}
	var free []int
	for i := range slots {
		free = append(free, i)
	}
	for made, done := 0, 0; done < requests; {
		for batch := r.IntN(12); batch > 0 && made < requests && q.Free() >= 16 && len(free) > 0; batch-- {
			text := make([]byte, 4+r.IntN(1000))
			for i := range text {
				text[i] = byte(r.Uint32())
			}
			binary.LittleEndian.PutUint32(text, uint32(made))
			room := make([]byte, len(text)+r.IntN(20)-10+8)
			bufs := split(r, text, func(b []byte) virtiotest.Buf { return virtiotest.Buf{Data: b[:len(b):len(b)]} })
			bufs = append(bufs, split(r, room, func(b []byte) virtiotest.Buf { return virtiotest.Buf{Room: len(b)} })...)
			indirect := -1
			if features&virtio.FeatureIndirect != 0 {
				indirect = r.IntN(len(bufs)+3) - 1
			}
			place := free[len(free)-1]
			free = free[:len(free)-1]
			head, end := q.Add(uint64(arena+place*slot), uint64(r.IntN(30)), indirect, bufs...)
			if end > uint64(arena+(place+1)*slot) {
				t.Fatalf("the test's request is too long: %d bytes", end-uint64(arena+place*slot))
			}
			want := bytes.Clone(text[:min(len(text), len(room))])
			for i := range want {
				want[i]++
			}
			under[head], places[head] = asked{text, want}, place
			made++
		}
		q.Kick()
		for finish := r.IntN(len(under) + 1); finish > 0; finish-- {
			head, written, data := q.Wait()
			a := under[head]
			if int(written) != len(a.want) || !bytes.Equal(data[:written], a.want) {
				t.Fatalf("a request of %d bytes was answered with %d, want %d", len(a.text), written, len(a.want))
			}
			delete(under, head)
			free = append(free, places[head])
			done++
		}
	}
}

func TestQueuesDoNotWaitForEachOther(t *testing.T) {
	r := newRig(t, 16, 16, 16)
	r.Init(allFeatures)
	var queues []*virtiotest.Queue
	for i := range uint32(3) {
		queues = append(queues, r.NewQueue(i, 8<<(i%2)))
	}
	r.OK()
	for round := range 300 {
		q := queues[round%3]
		text := []byte{byte(round), 1, 2, 3}
		written, data := q.Do(arena, virtiotest.Buf{Data: text}, virtiotest.Buf{Room: 4})
		if written != 4 || data[0] != byte(round+1) || data[3] != 4 {
			t.Fatalf("queue %d answered %v with %d bytes: %v", q.Index, text, written, data)
		}
	}
}

// TestWritesOfADeviceAreLogged: a page that it has written and nobody has
// marked would not be sent again.
func TestWritesOfADeviceAreLogged(t *testing.T) {
	r := newRig(t, 16)
	r.Init(allFeatures)
	q := r.NewQueue(0, 16)
	r.OK()
	if err := r.block.StartDirtyLog(); err != nil {
		t.Fatal(err)
	}
	q.Add(arena+4090, 0, -1, virtiotest.Buf{Data: []byte("0123")}, virtiotest.Buf{Room: 4})
	for _, page := range []uint64{arena >> 12, arena>>12 + 1, q.Used >> 12} {
		r.block.Dirty().Clear(page) // the driver's own writes
	}
	q.Kick()
	q.Wait()
	for page, want := range map[uint64]bool{arena >> 12: true, arena>>12 + 1: true, q.Used >> 12: true, arena>>12 + 2: false} {
		if got := r.block.Dirty().Test(page); got != want {
			t.Errorf("page %#x dirty: %t, want %t", page, got, want)
		}
	}
}
