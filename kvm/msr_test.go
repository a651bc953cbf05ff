package kvm

import (
	"slices"
	"strings"
	"testing"
)

func TestSaveList(t *testing.T) {
	list := saveList([]uint32{msrLSTAR, msrTSC, 0x6e0, 0x4b564d01, 0x123456, 0x40000020})
	index := func(i uint32) int {
		return slices.IndexFunc(list, func(m msrToSave) bool { return m.index == i })
	}
	for _, want := range []uint32{0x6e0, 0x123456, 0x11, 0x12, 0x4b564d00, 0x4b564d07, 0x2ff, 0x47f, msrPAT} {
		if index(want) < 0 {
			t.Errorf("MSR %#x is not saved", want)
		}
	}
	if index(msrTSC) >= 0 {
		t.Error("the TSC is among the MSRs; it is saved on its own")
	}
	if index(0x40000020) >= 0 {
		t.Error("Hyper-V's reference time is among the MSRs")
	}
	if !list[index(msrLSTAR)].essential || list[index(0x6e0)].essential {
		t.Error("LSTAR must be essential, the TSC deadline not")
	}
	if !slices.IsSortedFunc(list, func(a, b msrToSave) int { return int(int64(a.index) - int64(b.index)) }) {
		t.Error("not sorted")
	}
	for i := 1; i < len(list); i++ {
		if list[i].index == list[i-1].index {
			t.Errorf("MSR %#x twice", list[i].index)
		}
	}
}

// noMSR is one that no processor has.
const noMSR = 0xdead

func TestReadMSRsLeavesOutWhatIsRefused(t *testing.T) {
	v := newGuest(t, open(t), true, nil).cpu
	list := []msrToSave{{index: noMSR}, {index: msrPAT, essential: true}, {index: noMSR + 1}, {index: msrLSTAR}, {index: noMSR + 2}}
	for range msrBatch { // and across batches
		list = append(list, msrToSave{index: msrPAT}, msrToSave{index: noMSR})
	}
	got, err := v.readMSRs(list)
	must(t, err)
	if len(got) != 2+msrBatch || got[0].Index != msrPAT || got[1].Index != msrLSTAR {
		t.Errorf("got %d: %#x", len(got), got)
	}
	if _, err := v.readMSRs([]msrToSave{{index: msrPAT}, {index: noMSR, essential: true}}); err == nil ||
		!strings.Contains(err.Error(), "KVM_GET_MSRS: MSR 0xdead refused") {
		t.Errorf("essential: got %v", err)
	}
}

func TestWriteMSRsNamesWhatIsRefused(t *testing.T) {
	v := newGuest(t, open(t), true, nil).cpu
	// MTRRcap cannot be written; its own value is no harm, nor is 0 where there is nothing.
	cap, err := v.readMSRs([]msrToSave{{index: 0xfe, essential: true}})
	must(t, err)
	list := slices.Repeat([]MSR{{Index: msrLSTAR, Value: 0x1000}}, msrBatch-1)
	list = append(list, cap[0], MSR{Index: noMSR, Value: 0}, MSR{Index: msrCSTAR, Value: 0x2000})
	must(t, v.writeMSRs(list))
	got, err := v.readMSRs([]msrToSave{{index: msrLSTAR}, {index: msrCSTAR}})
	must(t, err)
	if got[0].Value != 0x1000 || got[1].Value != 0x2000 {
		t.Errorf("got %#x", got)
	}
	err = v.writeMSRs([]MSR{{Index: msrLSTAR}, {Index: noMSR, Value: 5}})
	if err == nil || !strings.Contains(err.Error(), "vCPU 0: KVM_SET_MSRS: MSR 0xdead") {
		t.Errorf("got %v", err)
	}
}
