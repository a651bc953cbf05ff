package migration_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"log"
	"sync"
	"time"

	"microvm/kvm"
	"microvm/memslot"
	"microvm/migration"
)

// adder is a VM that no KVM runs: one processor that adds up its memory, page
// after page, and begins again.
type adder struct {
	ram *memslot.Block
	mem *memslot.Memory // as the processor sees it: what is missing is waited for

	PC, Sum uint64        // the processor's registers
	sums    chan uint64   // that it arrived at
	halt    chan struct{} // nil while it does not run
	running sync.WaitGroup
}

const ramSize, pageSize = 8 << 20, 4096

// noKVM is told where memory appears to a guest of KVM.
type noKVM struct{}

func (noKVM) SetUserMemoryRegion(kvm.MemoryRegion) error { return nil }

func newAdder(size uint64) (*adder, error) {
	ram, err := memslot.NewBlock("ram", size, memslot.BlockOptions{})
	if err != nil {
		return nil, err
	}
	a := &adder{ram: ram, mem: memslot.NewMemory(noKVM{}, 1), sums: make(chan uint64)}
	return a, a.mem.Map(0, 0, ram, 0, size, 0)
}

func (a *adder) run() {
	halt := make(chan struct{})
	a.halt = halt
	a.running.Go(func() {
		for {
			var word [8]byte
			if a.mem.ReadAt(word[:], a.PC) != nil {
				return // the page will never come
			}
			a.Sum += binary.LittleEndian.Uint64(word[:])
			a.PC += pageSize
			if a.PC < a.ram.Size() {
				select {
				case <-halt:
					return
				default:
					continue
				}
			}
			select {
			case a.sums <- a.Sum:
			case <-halt: // it is said again by whoever goes on
				a.PC -= pageSize
				a.Sum -= binary.LittleEndian.Uint64(word[:])
				return
			}
			a.PC, a.Sum = 0, 0
		}
	})
}

func (a *adder) pause() {
	if a.halt != nil {
		close(a.halt)
		a.running.Wait()
		a.halt = nil
	}
}

// What both sides of a migration need to know.

func (a *adder) Blocks() []*memslot.Block         { return []*memslot.Block{a.ram} }
func (a *adder) Devices() []migration.Snapshotter { return []migration.Snapshotter{processor{a}} }

// processor is the state that is not memory.
type processor struct{ a *adder }

func (processor) ID() string              { return "cpu0" }
func (processor) Version() uint32         { return 1 }
func (p processor) Save() ([]byte, error) { return json.Marshal([2]uint64{p.a.PC, p.a.Sum}) }

func (p processor) Load(_ uint32, state []byte) error {
	var regs [2]uint64
	if err := json.Unmarshal(state, &regs); err != nil {
		return err
	}
	if regs[0] >= p.a.ram.Size() || regs[0]%pageSize != 0 {
		return fmt.Errorf("PC %#x is not a page of memory", regs[0])
	}
	p.a.PC, p.a.Sum = regs[0], regs[1]
	return nil
}

// The side that it leaves.

func (a *adder) Config() ([]byte, error)     { return json.Marshal(a.ram.Size()) }
func (a *adder) Pause(context.Context) error { a.pause(); return nil }
func (a *adder) Resume() error               { a.run(); return nil }
func (a *adder) HandOver() error             { return nil } // from here on it must not be resumed
func (a *adder) TakeBack() error             { return nil } // but by this

// The side that it comes to.

func (a *adder) Run() error            { a.run(); return nil }
func (a *adder) VCPUThreads() []int    { return nil } // the kernel knows of none
func (a *adder) Settle() error         { return nil } // memory is all here
func (a *adder) Done() <-chan struct{} { return nil } // it never ends by itself

// Stop does not wait for pages either: they will not come.
func (a *adder) Stop() {
	a.ram.Fail(nil)
	a.pause()
}

// Abandon is called when the pages that are missing will not come any more. This
// processor hears of that by itself; one of KVM may wait for ever.
func (a *adder) Abandon(err error) { log.Print(err) }

func build(_ context.Context, config []byte) (migration.DestinationMachine, error) {
	var size uint64
	if err := json.Unmarshal(config, &size); err != nil {
		return nil, err
	}
	if size != ramSize {
		return nil, fmt.Errorf("it has %d bytes of memory, there are %d", size, ramSize)
	}
	return newAdder(size)
}

// A program moves a VM of its own, here from itself to itself.
func Example() {
	ctx := context.Background()
	source, err := newAdder(ramSize)
	if err != nil {
		log.Fatal(err)
	}
	for page := uint64(0); page < ramSize; page += pageSize {
		word := binary.LittleEndian.AppendUint64(nil, page/pageSize)
		if err := source.mem.WriteAt(word, page); err != nil {
			log.Fatal(err)
		}
	}
	source.run()
	fmt.Println("the source says", <-source.sums)

	// The destination.
	ln, err := migration.Listen(ctx, migration.Address{Network: "tcp", Target: "127.0.0.1:0"})
	if err != nil {
		log.Fatal(err)
	}
	var arrived *adder
	destination := migration.NewDestination(func(ctx context.Context, config []byte) (migration.DestinationMachine, error) {
		m, err := build(ctx, config)
		if err == nil {
			arrived = m.(*adder)
		}
		return m, err
	}, migration.DestinationOptions{Recover: time.Minute})
	received := make(chan error, 1)
	go func() { received <- destination.Receive(ctx, ln) }()

	// The source.
	move, err := migration.NewSource(source, migration.ListenAddress(ln), migration.Options{
		VM: "adder", Mode: migration.ModePostcopy, Verify: true, Recover: time.Minute,
	})
	if err != nil {
		log.Fatal(err)
	}
	report, err := move.Run(ctx)
	if err != nil {
		log.Fatal(err) // the report says which side has the VM
	}
	if err := <-received; err != nil {
		log.Fatal(err)
	}
	fmt.Println(report.Result, "and verified:", *report.Verified, "- the VM is at the", report.Owner)
	fmt.Println("the destination says", <-arrived.sums)
	arrived.Stop()
	// Output:
	// the source says 2096128
	// completed and verified: true - the VM is at the destination
	// the destination says 2096128
}
