package kvm

import "encoding/binary"

// Offsets into struct kvm_run (linux/kvm.h); TestHeader has the compiler's.
const (
	offExitReason = 8
	offExit       = 32 // the union of what exits carry

	offIODirection  = offExit + 0
	offIOSize       = offExit + 1
	offIOPort       = offExit + 2
	offIOCount      = offExit + 4
	offIODataOffset = offExit + 8

	offMMIOAddr  = offExit + 0
	offMMIOData  = offExit + 8
	offMMIOLen   = offExit + 16
	offMMIOWrite = offExit + 20

	offFailReason = offExit + 0
	offFailCPU    = offExit + 8

	offNumber = offExit + 0 // internal.suberror, system_event.type
	offNData  = offExit + 4
	offData   = offExit + 8
	maxNData  = 16
)

// IOExit is an IN or OUT, or a string of Count of them to one port.
type IOExit struct {
	Port  uint16
	Size  int // of one item: 1, 2 or 4 bytes
	Count int
	Write bool // OUT
	// Data has Size*Count bytes and lies in the page shared with KVM: what
	// the guest writes, or where the answer goes before the next Run.
	Data []byte
}

// IO is the last exit, which was ExitIO. It does not allocate.
func (v *VCPU) IO() IOExit {
	e := IOExit{
		Port:  binary.LittleEndian.Uint16(v.run[offIOPort:]),
		Size:  int(v.run[offIOSize]),
		Count: int(v.u32(offIOCount)),
		Write: v.run[offIODirection] == 1, // KVM_EXIT_IO_OUT
	}
	e.Data = v.run[v.u64(offIODataOffset):][:e.Size*e.Count]
	return e
}

// MMIOExit is an access to a guest-physical address that no slot covers, or a
// write to one that is read-only.
type MMIOExit struct {
	Addr  uint64
	Write bool
	// Data has 1 to 8 bytes and lies in the page shared with KVM: what the
	// guest writes, or where the answer goes before the next Run.
	Data []byte
}

// MMIO is the last exit, which was ExitMMIO. It does not allocate.
func (v *VCPU) MMIO() MMIOExit {
	return MMIOExit{
		Addr:  v.u64(offMMIOAddr),
		Write: v.run[offMMIOWrite] != 0,
		Data:  v.run[offMMIOData:][:min(v.u32(offMMIOLen), 8)],
	}
}

// InternalError is why KVM gave up on a vCPU.
type InternalError struct {
	Suberror uint32   // KVM_INTERNAL_ERROR_*: 1 is an instruction it cannot emulate
	Data     []uint64 // at most 16 words, whose meaning is KVM's own
	// Insn holds the bytes of the instruction that could not be emulated,
	// if the kernel gives them.
	Insn []byte
}

// InternalError is the last exit, which was ExitInternalError.
func (v *VCPU) InternalError() InternalError {
	const (
		emulation    = 1      // KVM_INTERNAL_ERROR_EMULATION
		hasInsn      = 1 << 0 // KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES
		offInsnSize  = offData + 8
		offInsnBytes = offData + 9
		maxInsn      = 15
	)
	e := InternalError{Suberror: v.u32(offNumber), Data: v.data()}
	if e.Suberror == emulation && len(e.Data) >= 3 && e.Data[0]&hasInsn != 0 {
		n := min(v.run[offInsnSize], maxInsn)
		e.Insn = append(e.Insn, v.run[offInsnBytes:][:n]...)
	}
	return e
}

// FailEntry is why the processor refused to enter the guest.
type FailEntry struct {
	HardwareReason uint64 // VMX exit reason or SVM exit code
	HostCPU        uint32
}

// FailEntry is the last exit, which was ExitFailEntry.
func (v *VCPU) FailEntry() FailEntry {
	return FailEntry{HardwareReason: v.u64(offFailReason), HostCPU: v.u32(offFailCPU)}
}

// SystemEvent is something that concerns the VM as a whole.
type SystemEvent struct {
	Type uint32   // KVM_SYSTEM_EVENT_*: 1 shutdown, 2 reset, 3 crash
	Data []uint64 // at most 16 words
}

// SystemEvent is the last exit, which was ExitSystemEvent.
func (v *VCPU) SystemEvent() SystemEvent {
	return SystemEvent{Type: v.u32(offNumber), Data: v.data()}
}

// data copies the ndata words that internal and system_event end in.
func (v *VCPU) data() []uint64 {
	d := make([]uint64, min(v.u32(offNData), maxNData))
	for i := range d {
		d[i] = v.u64(offData + 8*i)
	}
	return d
}

// finishedByRun says which exits KVM has more to do for when it is run again.
func finishedByRun(r ExitReason) bool {
	return r == ExitIO || r == ExitMMIO
}

func (v *VCPU) u32(off int) uint32 { return binary.LittleEndian.Uint32(v.run[off:]) }
func (v *VCPU) u64(off int) uint64 { return binary.LittleEndian.Uint64(v.run[off:]) }
