package migration

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"microvm/kvm"
	"microvm/memslot"
	"microvm/migration/wire"
)

// testMachine is a machine without KVM: RAM blocks, a device, and threads that
// read every page of memory in random order the way a vCPU does, from inside
// a system call. What needs a guest is tested in package vmm.
type testMachine struct {
	blocks []*memslot.Block
	device *testDevice
	parts  []*partDevice // devices whose state comes in parts, loaded after device

	paused  atomic.Int32
	resumed atomic.Int32
	running atomic.Bool
	ran     chan struct{} // closed when it first ran
	first   sync.Once
	// handedOver counts HandOver less TakeBack.
	handedOver atomic.Int32
	done       chan struct{} // closed by a test that has the guest end
	onPause    func()

	guests  int // threads that read memory once the machine runs
	mem     sync.WaitGroup
	threads []int
	seen    atomic.Uint64 // pages that a guest read and found right
	wrong   atomic.Uint64
}

// testDevice keeps a text.
type testDevice struct {
	text    string
	version uint32
	loadErr error
	touch   func() error // called by Load
}

func (d *testDevice) ID() string { return "test0" }

func (d *testDevice) Version() uint32 { return d.version }

func (d *testDevice) Save() ([]byte, error) { return []byte(d.text), nil }

func (d *testDevice) Load(version uint32, state []byte) error {
	if d.loadErr != nil {
		return d.loadErr
	}
	if d.touch != nil {
		if err := d.touch(); err != nil {
			return err
		}
	}
	d.text = string(state)
	return nil
}

type testConfig struct{ Sizes []uint64 }

func newTestMachine(t *testing.T, sizes ...uint64) *testMachine {
	t.Helper()
	return newMachineOf(t, memslot.Anonymous, sizes...)
}

// newMachineOf makes its blocks of a kind of memory.
func newMachineOf(t *testing.T, backing memslot.Backing, sizes ...uint64) *testMachine {
	t.Helper()
	m := &testMachine{device: &testDevice{text: "state of the device", version: 1}, done: make(chan struct{}), ran: make(chan struct{})}
	for i, size := range sizes {
		b, err := memslot.NewBlock(fmt.Sprintf("ram%d", i), size, memslot.BlockOptions{Backing: backing})
		if err != nil {
			t.Fatal(err)
		}
		m.blocks = append(m.blocks, b)
	}
	t.Cleanup(func() {
		m.Stop()
		for _, b := range m.blocks {
			b.Close()
		}
	})
	return m
}

func (m *testMachine) Blocks() []*memslot.Block { return m.blocks }

func (m *testMachine) Devices() []Snapshotter {
	devices := []Snapshotter{m.device}
	for _, d := range m.parts {
		devices = append(devices, d)
	}
	return devices
}

func (m *testMachine) Config() ([]byte, error) {
	var c testConfig
	for _, b := range m.blocks {
		c.Sizes = append(c.Sizes, b.Size())
	}
	return json.Marshal(c)
}

func (m *testMachine) Pause(context.Context) error {
	m.paused.Add(1)
	if m.onPause != nil {
		m.onPause()
	}
	return nil
}

func (m *testMachine) Resume() error { m.resumed.Add(1); return nil }

func (m *testMachine) HandOver() error { m.handedOver.Add(1); return nil }

func (m *testMachine) TakeBack() error { m.handedOver.Add(-1); return nil }

func (m *testMachine) Settle() error { return nil }

func (m *testMachine) Done() <-chan struct{} { return m.done }

func (m *testMachine) Run() error {
	m.running.Store(true)
	tids := make(chan int)
	for i := range m.guests {
		m.mem.Go(func() { m.guest(i, tids) })
		m.threads = append(m.threads, <-tids)
	}
	m.first.Do(func() { close(m.ran) })
	return nil
}

func (m *testMachine) Stop() {
	if m.running.Swap(false) {
		m.mem.Wait()
	}
}

func (m *testMachine) Abandon(error) { m.running.Store(false) }

func (m *testMachine) VCPUThreads() []int { return m.threads }

// fill writes a page's number and a pattern into every page but each fifth,
// which stays zero.
func (m *testMachine) fill(t *testing.T) {
	t.Helper()
	for _, b := range m.blocks {
		mem, err := b.View(0, b.Size())
		if err != nil {
			t.Fatal(err)
		}
		for p := range b.Size() / wire.PageSize {
			if p%5 == 0 {
				continue
			}
			page := mem[p*wire.PageSize : (p+1)*wire.PageSize]
			for i := range page {
				page[i] = pattern(p, i)
			}
		}
	}
}

func pattern(page uint64, i int) byte { return byte(page*7+uint64(i)*13) | 1 }

// guest reads every page of the first block once, in random order.
func (m *testMachine) guest(seed int, tids chan<- int) {
	reader, err := newSyscallReader()
	if err != nil {
		panic(err)
	}
	defer reader.close()
	tids <- reader.tid()
	b := m.blocks[0]
	order := rand.New(rand.NewPCG(uint64(seed), 1)).Perm(int(b.Size() / wire.PageSize))
	for _, p := range order {
		if !m.running.Load() {
			return
		}
		got, err := reader.firstByte(b.Addr() + uintptr(p)*wire.PageSize)
		want := pattern(uint64(p), 0)
		if p%5 == 0 {
			want = 0
		}
		if err != nil || got != want {
			m.wrong.Add(1)
			continue
		}
		m.seen.Add(1)
	}
}

// equalMemory fails the test unless both machines' memory is the same.
func equalMemory(t *testing.T, a, b *testMachine) {
	t.Helper()
	for i := range a.blocks {
		am, err := a.blocks[i].View(0, a.blocks[i].Size())
		if err != nil {
			t.Fatal(err)
		}
		bm, err := b.blocks[i].View(0, b.blocks[i].Size())
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(am, bm) {
			t.Errorf("RAM block %d differs between source and destination", i)
		}
	}
}

var errTest = errors.New("broken on purpose")

type nullRegions struct{}

func (nullRegions) SetUserMemoryRegion(kvm.MemoryRegion) error { return nil }
