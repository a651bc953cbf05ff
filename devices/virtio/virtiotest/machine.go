package virtiotest

import (
	"encoding/binary"
	"log/slog"
	"testing"
	"time"

	"microvm/devices"
	"microvm/devices/virtio"
	"microvm/kvm"
	"microvm/memslot"
)

// hangs is how long a test waits for what must come before it says that it
// doesn't.
const hangs = 30 * time.Second

// setter is KVM's side of a memory that no vCPU uses.
type setter struct{}

func (setter) SetUserMemoryRegion(kvm.MemoryRegion) error { return nil }

// NewMemory is size bytes of guest RAM at address 0, in two slots and one
// block, that end with the test.
func NewMemory(t testing.TB, size uint64) (*memslot.Memory, *memslot.Block) {
	t.Helper()
	b, err := memslot.NewBlock("ram", size, memslot.BlockOptions{})
	if err != nil {
		t.Fatal(err)
	}
	mem := memslot.NewMemory(setter{}, 8)
	t.Cleanup(func() {
		if err := mem.Close(); err != nil {
			t.Error(err)
		}
	})
	// The boundary is in the middle of where drivers put their buffers.
	half := size / 2
	for i, base := range []uint64{0, half} {
		if err := mem.Map(uint32(i), base, b, base, half, 0); err != nil {
			t.Fatal(err)
		}
	}
	return mem, b
}

// NewMMIO is a held device with its registers, that ends with the test. It takes
// over the backend.
func NewMMIO(t testing.TB, id string, b virtio.Backend, mem *memslot.Memory, irq IRQ, log *slog.Logger) *virtio.MMIO {
	t.Helper()
	d, err := virtio.NewDevice(id, b, mem, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		d.Hold()
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return virtio.NewMMIO(d, irq)
}

// IRQ is an edge-triggered interrupt line with a CPU that remembers one edge.
type IRQ chan struct{}

// NewIRQ makes a line.
func NewIRQ() IRQ { return make(IRQ, 1) }

// Trigger implements devices.Interrupt.
func (l IRQ) Trigger() error {
	select {
	case l <- struct{}{}:
	default:
	}
	return nil
}

// Wait takes the edge that has to come.
func (l IRQ) Wait(t testing.TB) {
	t.Helper()
	select {
	case <-l:
	case <-time.After(hangs):
		t.Fatal("no interrupt came")
	}
}

// Driver leads a device with the MMIO transport through its life.
type Driver struct {
	T    testing.TB
	Regs devices.Device
	Mem  *memslot.Memory
	IRQ  IRQ
	// Features is what was negotiated.
	Features uint64
	// next is where the driver puts the next thing it needs memory for.
	next uint64
}

// NewDriver drives what answers at regs, with memory from base on for itself.
func NewDriver(t testing.TB, regs devices.Device, mem *memslot.Memory, base uint64, irq IRQ) *Driver {
	return &Driver{T: t, Regs: regs, Mem: mem, IRQ: irq, next: base}
}

// Get reads a register of 32 bits.
func (d *Driver) Get(off uint64) uint32 {
	var b [4]byte
	d.Regs.Read(off, b[:])
	return binary.LittleEndian.Uint32(b[:])
}

// Set writes a register of 32 bits.
func (d *Driver) Set(off uint64, v uint32) {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], v)
	d.Regs.Write(off, b[:])
}

// Config reads n bytes of the configuration space.
func (d *Driver) Config(off uint64, n int) []byte {
	b := make([]byte, n)
	d.Regs.Read(0x100+off, b)
	return b
}

// Offered are the device's features.
func (d *Driver) Offered() uint64 {
	d.Set(0x14, 0)
	low := d.Get(0x10)
	d.Set(0x14, 1)
	return uint64(low) | uint64(d.Get(0x10))<<32
}

// Init resets the device and negotiates features, up to FEATURES_OK (section
// 3.1.1).
func (d *Driver) Init(features uint64) {
	d.T.Helper()
	if d.Get(0) != 0x74726976 || d.Get(4) != 2 || d.Get(8) == 0 {
		d.T.Fatalf("no virtio-mmio device: magic %#x, version %d, device %d", d.Get(0), d.Get(4), d.Get(8))
	}
	d.Set(0x70, 0)
	d.Set(0x70, 1)
	d.Set(0x70, 3)
	for half := range uint32(2) {
		d.Set(0x24, half)
		d.Set(0x20, uint32(features>>(32*half)))
	}
	d.Set(0x70, 11)
	if got := d.Get(0x70); got != 11 {
		d.T.Fatalf("status %#x after FEATURES_OK with features %#x", got, features)
	}
	d.Features = features
}

// OK says DRIVER_OK. The device may find what the driver set up broken at once.
func (d *Driver) OK() {
	d.T.Helper()
	d.Set(0x70, 15)
	const needsReset = 64
	if got := d.Get(0x70); got&^needsReset != 15 {
		d.T.Fatalf("status %#x after DRIVER_OK", got)
	}
}

// Alloc takes memory.
func (d *Driver) Alloc(n, align uint64) uint64 {
	at := (d.next + align - 1) &^ (align - 1)
	d.next = at + n
	return at
}

func (d *Driver) write(gpa uint64, p []byte) {
	d.T.Helper()
	if err := d.Mem.WriteAt(p, gpa); err != nil {
		d.T.Fatal(err)
	}
}

func (d *Driver) read(gpa uint64, n int) []byte {
	d.T.Helper()
	p := make([]byte, n)
	if err := d.Mem.ReadAt(p, gpa); err != nil {
		d.T.Fatal(err)
	}
	return p
}

func (d *Driver) get16(gpa uint64) uint16 { return binary.LittleEndian.Uint16(d.read(gpa, 2)) }

func (d *Driver) set16(gpa uint64, v uint16) {
	d.write(gpa, binary.LittleEndian.AppendUint16(nil, v))
}
