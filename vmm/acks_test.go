package vmm

import (
	"encoding/binary"
	"testing"

	"microvm/kvm"
)

// TestAnInterruptCostsItsGuestOneExit: to acknowledge it costs none, and the guest
// sees that it is acknowledged.
func TestAnInterruptCostsItsGuestOneExit(t *testing.T) {
	needKVM(t)
	config := tinyConfig("")
	config.RNG = true
	vm, err := assemble(t.Context(), config, StateCreated, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer vm.Close()
	const code, results, status = 0x1000, 0x2000, 2
	if err := vm.mem.WriteAt([]byte{
		0xbb, 0x00, 0x00, 0x00, 0xd0, // mov ebx, 0xd0000000
		0x8b, 0x43, 0x60, // mov eax, [ebx+0x60]
		0xa3, 0x00, 0x20, 0x00, 0x00, // mov [0x2000], eax
		0x89, 0x43, 0x64, // mov [ebx+0x64], eax
		0x8b, 0x43, 0x60, // mov eax, [ebx+0x60]
		0xa3, 0x04, 0x20, 0x00, 0x00, // mov [0x2004], eax
		0xc7, 0x05, 0x08, 0x20, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, // mov dword [0x2008], 1
		0xf4, // hlt
	}, code); err != nil {
		t.Fatal(err)
	}
	cpu := vm.cpus.cpus[0]
	flat(t, cpu.kvm, code)
	vm.virtio[0].mmio.ConfigChanged()
	vm.cpus.resume()
	word := func(i uint64) uint32 {
		var b [4]byte
		if err := vm.mem.ReadAt(b[:], results+4*i); err != nil {
			t.Fatal(err)
		}
		return binary.LittleEndian.Uint32(b[:])
	}
	await(t, "the guest is done", func() bool { return word(2) == 1 })
	if word(0) != status || word(1) != 0 {
		t.Errorf("interrupt status %d before the acknowledgement, %d after it; want %d, 0", word(0), word(1), status)
	}
	if n := cpu.exits.mmio.Load(); n != 2 {
		t.Errorf("%d MMIO exits for reading the status twice and acknowledging once", n)
	}
}

// flat puts a vCPU before code in protected mode, without paging.
func flat(t *testing.T, cpu *kvm.VCPU, code uint64) {
	t.Helper()
	s, err := cpu.Sregs()
	if err != nil {
		t.Fatal(err)
	}
	s.CR0 |= 1
	s.CS = kvm.Segment{Limit: 0xffffffff, Selector: 0x08, Typ: 11, Present: 1, S: 1, DB: 1, G: 1}
	data := kvm.Segment{Limit: 0xffffffff, Selector: 0x10, Typ: 3, Present: 1, S: 1, DB: 1, G: 1}
	s.DS, s.ES, s.FS, s.GS, s.SS = data, data, data, data, data
	if err := cpu.SetSregs(s); err != nil {
		t.Fatal(err)
	}
	if err := cpu.SetRegs(&kvm.Regs{RIP: code, RFLAGS: 2}); err != nil {
		t.Fatal(err)
	}
}
