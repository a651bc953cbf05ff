package kvm

import (
	"encoding/binary"
	"slices"
	"testing"
)

// TestCoalescedWritesWaitInOrderAndNoneIsLost: writes to a zone cost no exit until
// KVM takes the ring for full; whoever drains it finds them all, oldest first.
func TestCoalescedWritesWaitInOrderAndNoneIsLost(t *testing.T) {
	const at, room, half = 0x100008, maxCoalesced - 1, maxCoalesced / 2
	for _, writes := range []uint32{5, room, room + 30} {
		g := newGuest(t, open(t), false, nil)
		ring, err := g.cpu.MMIORing()
		must(t, err)
		if ring == nil {
			t.Skip("this KVM has no coalesced MMIO: run it on a kernel with CONFIG_KVM_MMIO, as all of x86 are")
		}
		must(t, g.CoalesceMMIO(at, 4))
		code := binary.LittleEndian.AppendUint32([]byte{0xb9}, writes) // mov ecx, writes
		g.longMode(t, append(code,
			0x89, 0x0c, 0x25, 0x08, 0x00, 0x10, 0x00, // again: mov [0x100008], ecx
			0xff, 0xc9, // dec ecx
			0x75, 0xf5, // jnz again
			0x8b, 0x04, 0x25, 0x08, 0x00, 0x10, 0x00, // mov eax, [0x100008]
			0xf4, // hlt
		)...)
		var got []uint32
		take := func(addr uint64, data []byte) {
			if addr != at || len(data) != 4 {
				t.Fatalf("a write of % x to %#x", data, addr)
			}
			got = append(got, binary.LittleEndian.Uint32(data))
		}
		for exits := 0; ; exits++ {
			g.wantExit(t, ExitMMIO)
			ring.Drain(take)
			m := g.cpu.MMIO()
			if !m.Write {
				break
			}
			if exits >= int(writes)/half {
				t.Fatalf("%d writes: exit %d is a write, with %d kept", writes, exits, len(got))
			}
			take(m.Addr, m.Data)
		}
		want := make([]uint32, writes)
		for i := range want {
			want[i] = writes - uint32(i)
		}
		if !slices.Equal(got, want) {
			t.Errorf("%d writes came as %v", writes, got)
		}
	}
}

func TestDrainDoesNotAllocate(t *testing.T) {
	page := make([]byte, pageSize)
	ring := newMMIORing(page)
	n := 0
	take := func(_ uint64, data []byte) { n += len(data) }
	allocs := testing.AllocsPerRun(100, func() {
		ring.shared.writes[ring.shared.last].len = ^uint32(0) // more than there is
		ring.shared.last = (ring.shared.last + 1) % maxCoalesced
		ring.Drain(take)
	})
	if allocs != 0 || n != 101*8 {
		t.Errorf("%v allocations, %d bytes", allocs, n)
	}
}
