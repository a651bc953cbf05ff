package vmm

import (
	"bytes"
	"testing"

	"microvm/devices"
	"microvm/guest"
	"microvm/kvm"
)

// Each exit of each vCPU comes through here: garbage would stop the world.
func TestDispatchDoesNotAllocate(t *testing.T) {
	vm, _ := boot(t, tinyConfig("beat=1000"))
	if err := vm.Pause(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := vm.cpus.cpus[0]
	var data [8]byte
	for _, x := range []kvm.IOExit{
		{Port: guest.COM1Port + 5, Size: 1, Count: 1, Data: data[:1]},
		{Port: guest.COM1Port + 7, Size: 1, Count: 1, Write: true, Data: data[:1]},
		{Port: guest.COM1Port, Size: 1, Count: 8, Write: true, Data: data[:8]},
		{Port: guest.RTCPort, Size: 1, Count: 1, Write: true, Data: data[:1]},
		{Port: guest.RTCPort + 1, Size: 1, Count: 1, Data: data[:1]},
		{Port: guest.PM1aEvent, Size: 2, Count: 1, Data: data[:2]},
		{Port: 0x1234, Size: 4, Count: 1, Data: data[:4]}, // nobody's
	} {
		if n := testing.AllocsPerRun(1000, func() { c.portIO(x) }); n != 0 {
			t.Errorf("port %#x, write %v: %v allocations", x.Port, x.Write, n)
		}
	}
	for _, x := range []kvm.MMIOExit{
		{Addr: guest.MMIOBase, Data: data[:4]},
		{Addr: guest.MMIOBase, Data: data[:4], Write: true},
	} {
		if n := testing.AllocsPerRun(1000, func() { c.memoryIO(x) }); n != 0 {
			t.Errorf("MMIO at %#x, write %v: %v allocations", x.Addr, x.Write, n)
		}
	}
	for _, reason := range []kvm.ExitReason{kvm.ExitHLT, kvm.ExitUnknown, kvm.ExitShutdown} {
		if n := testing.AllocsPerRun(1000, func() {
			if c.dispatch(reason) {
				t.Errorf("%v was handled", reason)
			}
		}); n != 0 {
			t.Errorf("%v: %v allocations", reason, n)
		}
	}
}

func TestInterruptLineDoesNotAllocate(t *testing.T) {
	vm, _ := boot(t, tinyConfig("beat=1000"))
	line := vm.lines[0]
	if n := testing.AllocsPerRun(100, func() {
		if err := line.Trigger(); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// recorder is a device that notes what it is given.
type recorder struct{ written []byte }

func (r *recorder) Read(off uint64, p []byte) {
	for i := range p {
		p[i] = byte(off) + byte(i)
	}
}

func (r *recorder) Write(off uint64, p []byte) { r.written = append(r.written, p...) }

func TestStringIOReachesTheDeviceItemByItem(t *testing.T) {
	var r recorder
	c := &vcpu{pio: &devices.Bus{}, mmio: &devices.Bus{}, acks: &acks{}}
	if err := c.pio.Register("recorder", 0x10, 2, &r); err != nil {
		t.Fatal(err)
	}
	c.portIO(kvm.IOExit{Port: 0x10, Size: 2, Count: 3, Write: true, Data: []byte("abcdef")})
	if string(r.written) != "abcdef" {
		t.Errorf("the device got %q", r.written)
	}
	in := make([]byte, 6)
	c.portIO(kvm.IOExit{Port: 0x10, Size: 2, Count: 3, Data: in})
	if want := []byte{0, 1, 0, 1, 0, 1}; !bytes.Equal(in, want) {
		t.Errorf("INS gave % x, want % x", in, want)
	}
	c.memoryIO(kvm.MMIOExit{Addr: 0xD000_0000, Data: in})
	if want := bytes.Repeat([]byte{0xFF}, 6); !bytes.Equal(in, want) {
		t.Errorf("nobody's MMIO reads % x", in)
	}
}
