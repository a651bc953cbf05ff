package kvm

import (
	"testing"

	gokvm "github.com/bobuhiro11/gokvm/kvm"
)

// TestClockDoesNotGoBack: a guest whose time goes back stalls its timers.
func TestClockDoesNotGoBack(t *testing.T) {
	s := open(t)
	g := newGuest(t, s, true, nil)
	g.longMode(t, countTo...)
	g.store64(limitAddr, 1<<62)
	must(t, g.cpu.writeMSRs([]MSR{{Index: 0x4b564d01, Value: 0x7001}}))
	var clock, tsc uint64
	for range 4 {
		seen := g.load64(counterAddr)
		g.runUntil(t, func() bool { return g.load64(counterAddr) > seen })
		vm, cpu := g.save(t)
		if vm.Clock.Clock <= clock || cpu.TSC.Value <= tsc {
			t.Errorf("kvmclock %d after %d, TSC %d after %d", vm.Clock.Clock, clock, cpu.TSC.Value, tsc)
		}
		clock, tsc = vm.Clock.Clock, cpu.TSC.Value
		g = newGuest(t, s, true, g.mem)
		g.load(t, vm, cpu)
		now, err := g.clock()
		must(t, err)
		if now.Clock < clock {
			t.Errorf("kvmclock %d after the load, %d before", now.Clock, clock)
		}
	}
}

// TestClockGoesOnByRealtime: the time on the way is not lost to the guest.
func TestClockGoesOnByRealtime(t *testing.T) {
	s := open(t)
	const behind = 5_000_000_000 // ns
	g := newGuest(t, s, true, nil)
	if n, err := g.Capability(CapAdjustClock); err != nil || uint32(n)&uint32(gokvm.Realtime) == 0 {
		t.Skip("this test needs KVM_CLOCK_REALTIME: Linux 5.16 or newer")
	}
	g.longMode(t, 0xe6, 0x80)
	g.wantExit(t, ExitIO) // once run, KVM gives the realtime too
	vm, err := g.SaveState()
	must(t, err)
	if vm.Clock.Flags&uint32(gokvm.Realtime) == 0 {
		t.Skip("this test needs a host whose clocksource is the TSC (see /sys/devices/system/clocksource)")
	}
	for _, c := range []struct {
		name     string
		realtime uint64
		least    uint64
	}{
		{"saved 5 s ago", vm.Clock.Realtime - behind, vm.Clock.Clock + behind},
		{"this host's clock is behind", vm.Clock.Realtime + behind, vm.Clock.Clock},
	} {
		old := *vm
		old.Clock.Realtime = c.realtime
		to := newGuest(t, s, true, g.mem)
		must(t, to.LoadState(&old))
		now, err := to.clock()
		must(t, err)
		if now.Clock < c.least || now.Clock > c.least+behind {
			t.Errorf("%s: kvmclock %d, want %d and a little more", c.name, now.Clock, c.least)
		}
	}
}
