package memslot

import (
	"errors"
	"math/rand/v2"
	"testing"

	"microvm/kvm"

	"golang.org/x/sys/unix"
)

// TestSlotsAgainstKVM runs random sequences on a real VM, and asks KVM whether
// it sees the same: by sending it what we refuse, and by probing frames with a
// slot that KVM takes only where there is none.
func TestSlotsAgainstKVM(t *testing.T) {
	vm := newVM(t)
	b, err := NewBlock("ram", 2<<20, BlockOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	s := NewSlots(vm, testMax)
	r := rand.New(rand.NewPCG(5, 6))
	m := slotsModel{}
	for i := range 500 {
		st := randomStep(r, m, uint64(b.Addr()))
		err := st.do(s)
		if !errors.Is(err, st.want) {
			t.Fatalf("step %d: %s %+v: %v, want %v", i, st.verb, st.region, err, st.want)
		}
		switch {
		case st.want == nil:
			m.apply(st)
		case st.want == ErrOverlap || st.want == ErrMisaligned || st.want == ErrReadOnly || st.want == ErrNoSlot && st.verb == "delete":
			if vm.SetUserMemoryRegion(st.region) == nil {
				t.Fatalf("step %d: %s %+v: refused by us (%v), but not by KVM", i, st.verb, st.region, err)
			}
		}
		checkTable(t, s, m, r)
		probe(t, vm, b, r.Uint64N(testFrames+8), m)
	}
	for _, region := range m {
		log := make([]uint64, 1)
		logged := vm.DirtyLog(region.Slot, log) == nil
		if want := region.Flags&kvm.MemLogDirtyPages != 0; logged != want {
			t.Errorf("slot %d: dirty log %v, want %v", region.Slot, logged, want)
		}
	}
}

// probe creates a slot of one frame, and deletes it again.
func probe(t *testing.T, vm *kvm.VM, b *Block, gfn uint64, m slotsModel) {
	t.Helper()
	const id = 100
	region := kvm.MemoryRegion{Slot: id, GPA: gfn * frameSize, Size: frameSize, HVA: uint64(b.Addr())}
	err := vm.SetUserMemoryRegion(region)
	if m.at(gfn) != nil {
		if !errors.Is(err, unix.EEXIST) {
			t.Fatalf("KVM on frame %d: %v, want EEXIST: we have a slot there", gfn, err)
		}
		return
	}
	if err != nil {
		t.Fatalf("KVM on frame %d: %v: we have no slot there", gfn, err)
	}
	region.Size = 0
	if err := vm.SetUserMemoryRegion(region); err != nil {
		t.Fatal(err)
	}
}

func newVM(t *testing.T) *kvm.VM {
	t.Helper()
	sys, err := kvm.Open()
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENODEV) {
		t.Skipf("this test needs KVM: %v; run it in the lab", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sys.Close() })
	vm, err := sys.CreateVM()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { vm.Close() })
	return vm
}
