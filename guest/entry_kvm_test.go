package guest

import (
	"encoding/binary"
	"slices"
	"testing"

	"microvm/kvm"
	"microvm/memslot"
)

// newVM is a VM with size bytes of RAM, for a guest that needs no interrupts.
func newVM(t *testing.T, size uint64) (*kvm.System, *kvm.VM, *memslot.Memory) {
	t.Helper()
	sys, err := kvm.Open()
	if err != nil {
		t.Skip(err) // names the remedy
	}
	t.Cleanup(func() { must(t, sys.Close()) })
	vm, err := sys.CreateVM()
	must(t, err)
	t.Cleanup(func() { must(t, vm.Close()) })
	must(t, vm.SetIdentityMapAddr(IdentityMapAddr))
	must(t, vm.SetTSSAddr(TSSAddr))
	block, err := memslot.NewBlock("ram", size, memslot.BlockOptions{})
	must(t, err)
	mem := memslot.NewMemory(vm, 8)
	t.Cleanup(func() { must(t, mem.Close()) })
	regions, err := RAMRegions(size)
	must(t, err)
	for i, r := range regions {
		must(t, mem.Map(uint32(i), r.GPA, block, r.Offset, r.Size, 0))
	}
	return sys, vm, mem
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

const reportPort = 0xE9

// reports runs the vCPU until it halts and returns what it wrote to reportPort.
func reports(t *testing.T, v *kvm.VCPU) []uint32 {
	t.Helper()
	var out []uint32
	for len(out) < 100 {
		reason, err := v.Run()
		must(t, err)
		switch reason {
		case kvm.ExitIO:
			io := v.IO()
			if !io.Write || io.Port != reportPort || io.Size != 4 {
				t.Fatalf("port %#x, write %v, %d bytes", io.Port, io.Write, io.Size)
			}
			out = append(out, binary.LittleEndian.Uint32(io.Data))
		case kvm.ExitHLT:
			return out
		default:
			regs, err := v.Regs()
			must(t, err)
			t.Fatalf("%v, having reported %#x; registers %+v", reason, out, regs)
		}
	}
	t.Fatal("no end to what the guest reports")
	return nil
}

func TestKernelsFindTheirParametersInTheProcessorsOwnMode(t *testing.T) {
	le := binary.LittleEndian
	// Reloads the segments from the GDT, as a kernel may, then reports the
	// zero page's magic, the command line, and the RSDP.
	long64 := []byte{
		0x8D, 0x25, 0x7A, 0x00, 0x00, 0x00, // lea esp, [rip+0x7a]
		0xB8, 0x18, 0x00, 0x00, 0x00, // mov eax, 0x18
		0x8E, 0xD8, // mov ds, eax
		0x8E, 0xD0, // mov ss, eax
		0x6A, 0x10, // push 0x10
		0x48, 0x8D, 0x05, 0x03, 0x00, 0x00, 0x00, // lea rax, [rip+3]
		0x50,       // push rax
		0x48, 0xCB, // retfq
		0x66, 0xBA, reportPort, 0x00, // mov dx, reportPort
		0x8B, 0x86, 0x02, 0x02, 0x00, 0x00, // mov eax, [rsi+0x202]
		0xEF,                               // out dx, eax
		0x8B, 0x8E, 0x28, 0x02, 0x00, 0x00, // mov ecx, [rsi+0x228]
		0x8B, 0x01, // mov eax, [rcx]
		0xEF,                   // out dx, eax
		0x48, 0x8B, 0x4E, 0x70, // mov rcx, [rsi+0x70]
		0x8B, 0x01, // mov eax, [rcx]
		0xEF, // out dx, eax
		0xF4, // hlt
	}
	// Reports the start info's magic, the command line, and the RSDP.
	pvh32 := []byte{
		0x66, 0xBA, reportPort, 0x00, // mov dx, reportPort
		0x8B, 0x03, // mov eax, [ebx]
		0xEF,             // out dx, eax
		0x8B, 0x4B, 0x18, // mov ecx, [ebx+24]
		0x8B, 0x01, // mov eax, [ecx]
		0xEF,             // out dx, eax
		0x8B, 0x4B, 0x20, // mov ecx, [ebx+32]
		0x8B, 0x01, // mov eax, [ecx]
		0xEF, // out dx, eax
		0xF4, // hlt
	}
	vmlinux := func(pvh uint64, code []byte) []byte {
		s := vmlinuxSpec()
		s.pvh = pvh
		b := elfFileBytes(s)
		copy(b[0x1040:], code) // the file's bytes at s.entry
		return b
	}
	bzImage := bzImageFile(nil)
	copy(bzImage[40*sectorSize+entry64:], long64)

	text := func(s string) uint32 { return le.Uint32([]byte(s)) }
	rest := []uint32{text("tell"), text("RSD ")}
	tests := []struct {
		name   string
		kernel []byte
		magic  uint32
	}{
		{"bzImage", bzImage, text("HdrS")},
		{"vmlinux", vmlinux(0, long64), text("HdrS")},
		{"PVH", vmlinux(vmlinuxSpec().entry, pvh32), startInfoMagic},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sys, vm, mem := newVM(t, MinRAM)
			c := Config{Kernel: file(tt.name, tt.kernel), Cmdline: "tell me", CPUs: 1, RAM: MinRAM}
			entry, err := Load(mem, c)
			must(t, err)
			v, err := vm.CreateVCPU(0)
			must(t, err)
			t.Cleanup(func() { must(t, v.Close()) })
			supported, err := sys.SupportedCPUID()
			must(t, err)
			must(t, v.SetCPUID(CPUID(supported, CPUIDConfig{CPUs: 1})))
			must(t, entry.Apply(v))
			if got, want := reports(t, v), append([]uint32{tt.magic}, rest...); !slices.Equal(got, want) {
				t.Errorf("the guest reports %#x, want %#x", got, want)
			}
		})
	}
}

func TestKVMTakesTheCPUIDOfEveryCPU(t *testing.T) {
	sys, vm, _ := newVM(t, MinRAM)
	supported, err := sys.SupportedCPUID()
	must(t, err)
	for i := range 3 {
		v, err := vm.CreateVCPU(i)
		must(t, err)
		t.Cleanup(func() { must(t, v.Close()) })
		want := CPUID(supported, CPUIDConfig{Index: i, CPUs: 3, TSCKHz: v.TSCKHz(), TSCDeadline: true})
		must(t, v.SetCPUID(want))
		got, err := v.CPUID()
		must(t, err)
		// PVM, a KVM in software, offers la57 and then takes it back.
		missing := slices.DeleteFunc(CompareCPUID(want, got), func(name string) bool { return name == "la57" })
		if len(missing) > 0 {
			t.Errorf("vCPU %d: KVM dropped %q", i, missing)
		}
		if e, _ := findCPUID(got, 1, 0); e.Ebx>>24 != uint32(i) {
			t.Errorf("vCPU %d: APIC id %d", i, e.Ebx>>24)
		}
	}
}
