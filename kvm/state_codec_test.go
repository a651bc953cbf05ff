package kvm

import (
	"bytes"
	"encoding/binary"
	"reflect"
	"strings"
	"testing"
)

// sampleVCPU is a small state with something in every section.
func sampleVCPU() *VCPUState {
	s := &VCPUState{
		CPUID:   []CPUIDEntry{{Function: 1, Eax: 2}, {Function: 7, Index: 1, Flags: CPUIDSignificantIndex}},
		TSC:     TSCState{KHz: 2_300_000, Flags: TSCHasOffset, Value: 1 << 40, Clock: 12345, Offset: 1 << 63},
		MPState: MPStateHalted,
		Regs:    Regs{RAX: 1, RIP: 0xfff0, RFLAGS: 2},
		XSave:   make([]byte, minXSaveSize),
		MSRs:    []MSR{{Index: msrLSTAR, Value: 0xffffffff81000000}, {Index: 0x4b564d01, Value: 0x7001}},
	}
	s.Events.N.Masked = 1
	s.Sregs.CS = Segment{Base: 1 << 33, Limit: 0xffff, Selector: 0xf000, Typ: 11, Present: 1}
	s.Sregs.PDptrs[3] = 4
	s.XCRs.NrXRCS = 1
	s.XCRs.Registers[0].Value = 7
	s.XSave[512] = 3
	s.DebugRegs.DR7 = 0x400
	s.LAPIC.Regs[0x30] = 0x14
	return s
}

func sampleVM() *VMState {
	s := &VMState{Clock: ClockData{Clock: 1, Flags: 14, Realtime: 2, HostTSC: 3}}
	s.PICMaster.Chip[0], s.PICSlave.Chip[1], s.IOAPIC.Chip[2] = 1, 2, 3
	s.PIT.Channels[0].CountLoadTime = -1
	return s
}

func TestWireFormRoundTrip(t *testing.T) {
	carry(t, sampleVCPU(), new(VCPUState))
	carry(t, sampleVM(), new(VMState))
}

// TestWireFormIsStable: a state saved by an older microvm must load. A change of
// these bytes needs a new version number.
func TestWireFormIsStable(t *testing.T) {
	b, err := sampleVM().MarshalBinary()
	must(t, err)
	const head = "VMST\x01\x00\x00\x00" + "\x01\x00\x00\x00\x08\x02\x00\x00" + "\x00\x00\x00\x00\x00\x00\x00\x00\x01"
	const size = 8 + 3*(8+520) + (8 + 112) + (8 + 48)
	if !bytes.HasPrefix(b, []byte(head)) || len(b) != size {
		t.Errorf("VM state: %d bytes, % x...; want %d, % x...", len(b), b[:len(head)], size, head)
	}
	b, err = sampleVCPU().MarshalBinary()
	must(t, err)
	const vcpuSize = 8 + 11*8 + 2*40 + 32 + 4 + 64 + 144 + 320 + 392 + 4096 + 128 + 1024 + 2*16
	if !bytes.HasPrefix(b, []byte("vCPU\x01\x00\x00\x00")) || len(b) != vcpuSize {
		t.Errorf("vCPU state: %d bytes, % x...; want %d", len(b), b[:8], vcpuSize)
	}
}

// TestSavedStructuresHaveNoPadding: their memory is copied as it is, so a hole
// that Go leaves between fields would be part of the form.
func TestSavedStructuresHaveNoPadding(t *testing.T) {
	for _, state := range []reflect.Type{reflect.TypeFor[VCPUState](), reflect.TypeFor[VMState]()} {
		for i := range state.NumField() {
			typ := state.Field(i).Type
			if typ.Kind() == reflect.Slice {
				typ = typ.Elem()
			}
			if fields := binary.Size(reflect.New(typ).Interface()); fields != int(typ.Size()) {
				t.Errorf("%v.%s: the fields have %d bytes, the structure %d", state, state.Field(i).Name, fields, typ.Size())
			}
		}
	}
}

// sectionAt finds where a section's header starts.
func sectionAt(t *testing.T, b []byte, tag uint32) int {
	t.Helper()
	for at := 8; at < len(b); at += 8 + int(binary.LittleEndian.Uint32(b[at+4:])) {
		if binary.LittleEndian.Uint32(b[at:]) == tag {
			return at
		}
	}
	t.Fatalf("no section %d", tag)
	return 0
}

func TestUnmarshalHostileInput(t *testing.T) {
	good, err := sampleVCPU().MarshalBinary()
	must(t, err)
	le := binary.LittleEndian
	const mpState, msrsTag, xsaveTag = 3, 11, 8
	mp := sectionAt(t, good, mpState)

	for _, c := range []struct {
		name string
		harm func(b []byte) []byte
		want string
	}{
		{"nothing", func([]byte) []byte { return nil }, "0 bytes are not one"},
		{"another magic", func(b []byte) []byte { b[0] = 'x'; return b }, "are not one"},
		{"a VM's state", func([]byte) []byte { b, _ := sampleVM().MarshalBinary(); return b }, "are not one"},
		{"newer version", func(b []byte) []byte { b[4] = 2; return b }, "version 2, this program reads version 1"},
		{"unknown section", func(b []byte) []byte { le.PutUint32(b[mp:], 99); return b }, "unknown section 99"},
		{"section twice", func(b []byte) []byte { return append(b, b[mp:mp+12]...) }, "section MP_STATE is there twice"},
		{"section missing", func(b []byte) []byte { return append(b[:mp:mp], b[mp+12:]...) }, "section MP_STATE is missing"},
		{"only the header", func(b []byte) []byte { return b[:8] }, "section CPUID is missing"},
		{"cut in a header", func(b []byte) []byte { return b[:mp+5] }, "5 bytes left over after 2 sections"},
		{"cut in a payload", func(b []byte) []byte { return b[:mp+10] }, "section MP_STATE: 4 bytes announced, 2 left"},
		{"huge length", func(b []byte) []byte { le.PutUint32(b[mp+4:], 1<<32-1); return b }, "4294967295 bytes announced"},
		{"wrong length", func(b []byte) []byte { le.PutUint32(b[mp+4:], 3); return b }, "section MP_STATE: 3 bytes; want 4 to 4"},
		{"not whole MSRs", func(b []byte) []byte { le.PutUint32(b[sectionAt(t, b, msrsTag)+4:], 15); return b }, "section MSRS: 15 bytes"},
		{"XSAVE too short", func(b []byte) []byte { le.PutUint32(b[sectionAt(t, b, xsaveTag)+4:], 4095); return b }, "section XSAVE: 4095 bytes; want 4096 to 65536"},
		{"too many MSRs", func(b []byte) []byte {
			at := sectionAt(t, b, msrsTag)
			le.PutUint32(b[at+4:], (maxMSRs+1)*16)
			return append(b[:at+8], make([]byte, (maxMSRs+1)*16)...)
		}, "section MSRS: 16400 bytes"},
	} {
		s := sampleVCPU()
		err := s.UnmarshalBinary(c.harm(bytes.Clone(good)))
		if err == nil || !strings.HasPrefix(err.Error(), "vCPU state: ") || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %v, want ...%s...", c.name, err, c.want)
		}
		if !reflect.DeepEqual(s, sampleVCPU()) {
			t.Errorf("%s: the state was changed", c.name)
		}
	}
}

func TestMarshalRefusesWhatUnmarshalWould(t *testing.T) {
	s := sampleVCPU()
	s.XSave = nil
	if _, err := s.MarshalBinary(); err == nil || !strings.Contains(err.Error(), "section XSAVE: 0 bytes") {
		t.Errorf("got %v", err)
	}
}

func FuzzVCPUState(f *testing.F) {
	good, err := sampleVCPU().MarshalBinary()
	must(f, err)
	f.Add(good)
	f.Add(good[:100])
	f.Fuzz(func(t *testing.T, b []byte) {
		s := new(VCPUState)
		if s.UnmarshalBinary(b) == nil {
			carry(t, s, new(VCPUState)) // what was accepted has a form that is accepted
		}
	})
}

func FuzzVMState(f *testing.F) {
	good, err := sampleVM().MarshalBinary()
	must(f, err)
	f.Add(good)
	f.Add(good[:100])
	f.Fuzz(func(t *testing.T, b []byte) {
		s := new(VMState)
		if s.UnmarshalBinary(b) == nil {
			carry(t, s, new(VMState))
		}
	})
}
