package tiny_test

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"microvm/guest/tiny"
	"microvm/kvm"
	"microvm/memslot"
)

// Where the least machine that boots the tiny kernel has things: RAM in two pieces, so that the test range has two.
const (
	lowRAM, highBase, highRAM = 32 << 20, 4 << 30, 32 << 20
	startInfo, memoryMap      = 0x6000, 0x6100
	commandLine               = 0x6200
	patience                  = time.Minute // only a hang takes this long
)

// machine is KVM, RAM, a serial port and three ways to end; no firmware and no ACPI.
type machine struct {
	t      *testing.T
	memory *memslot.Memory
	low    *memslot.Block
	lines  chan string // the guest's output; unbuffered: a guest that prints waits until the test reads
	ending chan string // how it ended
	typed  chan byte   // serial input

	output sync.Mutex
	line   []byte

	cpus     []*kvm.VCPU
	threads  []atomic.Int32 // thread ids; 0 when not in the run loop
	stopping chan struct{}
	running  sync.WaitGroup
}

// boot starts a guest of n CPUs with the command line.
func boot(t *testing.T, n int, cmdline string) *machine {
	t.Helper()
	system, err := kvm.Open()
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EACCES) {
		t.Skipf("this test needs KVM: %v", err)
	}
	must(t, err)
	defer system.Close()
	vm, err := system.CreateVM()
	must(t, err)
	must(t, vm.SetTSSAddr(0xfffbd000))
	must(t, vm.CreateIRQChip())

	m := &machine{t: t, lines: make(chan string), ending: make(chan string, n),
		typed: make(chan byte, 100), stopping: make(chan struct{})}
	m.memory = memslot.NewMemory(vm, 32)
	m.low, err = memslot.NewBlock("low", lowRAM, memslot.BlockOptions{})
	must(t, err)
	high, err := memslot.NewBlock("high", highRAM, memslot.BlockOptions{})
	must(t, err)
	must(t, m.memory.Map(0, 0, m.low, 0, lowRAM, 0))
	must(t, m.memory.Map(1, highBase, high, 0, highRAM, 0))
	entry := m.load(cmdline + fmt.Sprintf(" cpus=%d", n))

	cpuid, err := system.SupportedCPUID()
	must(t, err)
	t.Cleanup(func() {
		m.stop()
		for _, cpu := range m.cpus {
			must(t, cpu.Close())
		}
		must(t, vm.Close())
		must(t, m.memory.Close())
		must(t, errors.Join(m.low.Close(), high.Close()))
	})
	for i := range n {
		cpu, err := vm.CreateVCPU(i)
		must(t, err)
		must(t, cpu.SetCPUID(cpuid))
		m.cpus = append(m.cpus, cpu)
	}
	m.enter(entry)
	m.threads = make([]atomic.Int32, n)
	for i := range m.cpus {
		m.running.Go(func() { m.run(i) })
	}
	return m
}

// load puts the kernel, its start info and memory map in place and returns the entry.
func (m *machine) load(cmdline string) uint64 {
	m.t.Helper()
	f, err := elf.NewFile(bytes.NewReader(tiny.Kernel()))
	must(m.t, err)
	for _, p := range f.Progs {
		if p.Type == elf.PT_LOAD {
			b, err := io.ReadAll(p.Open())
			must(m.t, err)
			must(m.t, m.memory.WriteAt(b, p.Paddr))
		}
	}
	put := func(gpa uint64, v ...any) {
		var b bytes.Buffer
		for _, x := range v {
			must(m.t, binary.Write(&b, binary.LittleEndian, x))
		}
		must(m.t, m.memory.WriteAt(b.Bytes(), gpa))
	}
	put(startInfo, uint32(0x336ec578), uint32(1), uint64(0), uint64(0), // magic, version, flags and modules
		uint64(commandLine), uint64(0), uint64(memoryMap), uint64(2)) // no RSDP; two entries
	put(memoryMap, uint64(0), uint64(lowRAM), uint64(1), uint64(highBase), uint64(highRAM), uint64(1))
	put(commandLine, append([]byte(cmdline), 0))
	return f.Entry
}

// enter sets the boot CPU to the PVH entry state: 32-bit protected mode, flat segments, EBX at the start info.
func (m *machine) enter(entry uint64) {
	m.t.Helper()
	s, err := m.cpus[0].Sregs()
	must(m.t, err)
	data := kvm.Segment{Limit: 0xffffffff, Selector: 0x10, Typ: 3, Present: 1, DB: 1, S: 1, G: 1}
	s.DS, s.ES, s.SS = data, data, data
	s.CS = data
	s.CS.Selector, s.CS.Typ = 8, 11
	s.CR0 = 0x11
	must(m.t, m.cpus[0].SetSregs(s))
	must(m.t, m.cpus[0].SetRegs(&kvm.Regs{RIP: entry, RBX: startInfo, RFLAGS: 2}))
}
