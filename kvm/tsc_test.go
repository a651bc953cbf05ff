package kvm

import (
	"math"
	"strings"
	"testing"
)

func TestCycles(t *testing.T) {
	for _, c := range []struct {
		from, to uint64
		kHz      uint32
		want     uint64
	}{
		{0, 1_000_000, 2_300_000, 2_300_000},
		{5, 5, 2_300_000, 0},
		{6, 5, 2_300_000, 0}, // not back
		{1, 3, 1_500_000, 3},
		{0, 1 << 60, 4_000_000, 1 << 62},
		{0, math.MaxUint64, math.MaxUint32, 17843443308778876435}, // wraps
	} {
		if got := cycles(c.from, c.to, c.kHz); got != c.want {
			t.Errorf("cycles(%d, %d, %d): %d, want %d", c.from, c.to, c.kHz, got, c.want)
		}
	}
}

// TestTSCOffset: the guest's TSC when its kvmclock was 0 is what must not change.
func TestTSCOffset(t *testing.T) {
	const kHz = 2_000_000
	atZero := func(offset uint64, c *ClockData) uint64 { return c.HostTSC + offset - cycles(0, c.Clock, kHz) }
	was := &ClockData{Clock: 7_000_000_000, HostTSC: 1 << 50}
	for _, is := range []*ClockData{
		{Clock: 7_000_000_000, HostTSC: 1 << 50},
		{Clock: 7_500_000_000, HostTSC: 1<<50 + 1_000_000_000}, // the same host, half a second later
		{Clock: 8_000_000_000, HostTSC: 5},                     // a host that has just booted
		{Clock: 8_000_000_000, HostTSC: 1 << 60},
	} {
		s := &TSCState{KHz: kHz, Offset: 1<<64 - 1<<49}
		offset := s.offsetAt(was, is)
		if got, want := atZero(offset, is), atZero(s.Offset, was); got != want {
			t.Errorf("%+v: TSC at kvmclock 0 is %d, was %d", is, got, want)
		}
	}
}

func TestTSCFrequency(t *testing.T) {
	g := newGuest(t, open(t), true, nil)
	host := g.cpu.TSCKHz()
	for _, kHz := range []uint32{host, host + host/10_000, host - host/10_000} {
		if err := g.cpu.SetTSCKHz(kHz); err != nil {
			t.Errorf("host %d kHz, guest %d kHz: %v", host, kHz, err)
		}
	}
	if n, err := g.Capability(CapTSCControl); err != nil || n != 0 {
		t.Skipf("the rest of this test needs a host that cannot scale the TSC: %v", err)
	}
	for _, kHz := range []uint32{host + host/1000, host / 2} {
		if err := g.cpu.SetTSCKHz(kHz); err == nil || !strings.Contains(err.Error(), "cannot scale") {
			t.Errorf("host %d kHz, guest %d kHz: got %v, want an error", host, kHz, err)
		}
	}
}
