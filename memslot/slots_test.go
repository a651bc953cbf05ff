package memslot

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"microvm/kvm"
)

var errRefused = errors.New("refused")

// setterFunc is a RegionSetter made of a function.
type setterFunc func(kvm.MemoryRegion) error

func (f setterFunc) SetUserMemoryRegion(r kvm.MemoryRegion) error { return f(r) }

func agreeable(kvm.MemoryRegion) error { return nil }

// A small address space and few ids, so that random operations collide.
const (
	testFrames = 64
	testMax    = 10
)

// slotsModel is the set of slots without any cleverness.
type slotsModel map[uint32]kvm.MemoryRegion

func (m slotsModel) at(gfn uint64) *kvm.MemoryRegion {
	for _, r := range m {
		if gpa := gfn * frameSize; gpa >= r.GPA && gpa < r.GPA+r.Size {
			return &r
		}
	}
	return nil
}

// valid says what is wrong with a region that would replace the one of its id.
func (m slotsModel) valid(r kvm.MemoryRegion) error {
	switch {
	case r.GPA%frameSize != 0 || r.Size%frameSize != 0 || r.HVA%frameSize != 0:
		return ErrMisaligned
	case r.Size == 0:
		return ErrOutOfRange
	}
	for id, o := range m {
		if id != r.Slot && r.GPA < o.GPA+o.Size && o.GPA < r.GPA+r.Size {
			return ErrOverlap
		}
	}
	return nil
}

// step is one random change: what it does to Slots, and the region that KVM
// would be told. Size 0 deletes.
type step struct {
	verb   string
	region kvm.MemoryRegion
	do     func(*Slots) error
	// want is what the checks must say before KVM is asked.
	want error
}

func randomStep(r *rand.Rand, m slotsModel, hva uint64) step {
	id := r.Uint32N(testMax + 1)
	old, used := m[id]
	missing := func() error {
		switch {
		case id >= testMax:
			return ErrSlotLimit
		case !used:
			return ErrNoSlot
		}
		return nil
	}
	gpa := r.Uint64N(testFrames) * frameSize
	if r.IntN(20) == 0 {
		gpa += 512
	}
	s := step{region: old}
	s.region.Slot = id
	switch r.IntN(6) {
	case 0, 1:
		s.verb = "create"
		s.region = kvm.MemoryRegion{Slot: id, Flags: r.Uint32N(2), GPA: gpa, Size: r.Uint64N(9) * frameSize, HVA: hva + r.Uint64N(8)*frameSize}
		s.do = func(t *Slots) error { return t.Create(s.region) }
		s.want = m.valid(s.region)
		if s.want == nil || s.want == ErrOverlap {
			if id >= testMax {
				s.want = ErrSlotLimit
			} else if used {
				s.want = ErrSlotExists
			}
		}
	case 2, 3:
		s.verb = "move"
		s.region.GPA = gpa
		s.do = func(t *Slots) error { return t.Move(id, gpa) }
		if s.want = missing(); s.want == nil {
			s.want = m.valid(s.region)
		}
	case 4:
		s.verb = "flags"
		s.region.Flags = r.Uint32N(4)
		s.do = func(t *Slots) error { return t.SetFlags(id, s.region.Flags) }
		if s.want = missing(); s.want == nil && (old.Flags^s.region.Flags)&kvm.MemReadonly != 0 {
			s.want = ErrReadOnly
		}
	case 5:
		s.verb = "delete"
		s.region.Size = 0
		s.do = func(t *Slots) error { return t.Delete(id) }
		s.want = missing()
	}
	return s
}

func (m slotsModel) apply(s step) {
	if s.verb == "delete" {
		delete(m, s.region.Slot)
		return
	}
	m[s.region.Slot] = s.region
}

// checkTable compares the whole structure with the model.
func checkTable(t *testing.T, s *Slots, m slotsModel, r *rand.Rand) {
	t.Helper()
	tab := s.table.Load()
	if tab.used != len(m) || len(tab.slots) != tab.used || len(tab.bases) != tab.used {
		t.Fatalf("%d used, %d slots, %d bases, want %d", tab.used, len(tab.slots), len(tab.bases), len(m))
	}
	for i := range tab.slots {
		slot := &tab.slots[i]
		if slot.region() != m[slot.ID] {
			t.Fatalf("slot %+v, want %+v", slot.region(), m[slot.ID])
		}
		if i > 0 && tab.slots[i-1].BaseGFN <= slot.BaseGFN {
			t.Fatalf("slots %d and %d are not sorted from high to low", i-1, i)
		}
		if tab.bases[i] != slot.BaseGFN {
			t.Fatalf("base %d is %#x, want %#x", i, tab.bases[i], slot.BaseGFN)
		}
	}
	for id, i := range tab.index {
		if _, used := m[uint32(id)]; !used && i != -1 || used && tab.slots[i].ID != uint32(id) {
			t.Fatalf("index of id %d is %d", id, i)
		}
	}
	for range 2 * testFrames {
		gfn := r.Uint64N(testFrames + 16)
		got, want := s.Find(gfn), m.at(gfn)
		if (got == nil) != (want == nil) || got != nil && got.region() != *want {
			t.Fatalf("Find(%d) = %v, want %+v", gfn, got, want)
		}
	}
}

// TestSlotsAgainstModel runs random sequences against a naive model, with a
// KVM that agrees and with one that refuses at random. What is refused, by
// either side, must leave all as it was.
func TestSlotsAgainstModel(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 2))
		refuse := false
		var told []kvm.MemoryRegion
		s := NewSlots(setterFunc(func(region kvm.MemoryRegion) error {
			told = append(told, region)
			if refuse {
				return errRefused
			}
			return nil
		}), testMax)
		m := slotsModel{}
		for i := range 1000 {
			st := randomStep(r, m, 1<<40)
			refuse = seed%2 == 1 && r.IntN(3) == 0
			before := s.table.Load()
			told = told[:0]
			err := st.do(s)
			what := fmt.Sprintf("seed %d step %d: %s %+v", seed, i, st.verb, st.region)
			want := st.want
			if want == nil && refuse {
				want = errRefused
			}
			if !errors.Is(err, want) {
				t.Fatalf("%s: %v, want %v", what, err, want)
			}
			switch {
			case st.want != nil && len(told) != 0:
				t.Fatalf("%s: KVM was asked for what is invalid", what)
			case st.want == nil && !slices.Equal(told, []kvm.MemoryRegion{st.region}):
				t.Fatalf("%s: KVM was told %+v", what, told)
			case want != nil && s.table.Load() != before:
				t.Fatalf("%s: refused, but changed", what)
			case want == nil:
				m.apply(st)
			}
			checkTable(t, s, m, r)
		}
	}
}

func TestSlotsRefusesByName(t *testing.T) {
	s := NewSlots(setterFunc(agreeable), testMax)
	if err := s.Create(kvm.MemoryRegion{Slot: 3, GPA: 0x4000, Size: 0x2000}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		err  error
		want error
	}{
		{"wrap around", s.Create(kvm.MemoryRegion{Slot: 1, GPA: ^uint64(0) - 0xfff, Size: 0x2000}), ErrOutOfRange},
		{"empty", s.Create(kvm.MemoryRegion{Slot: 1, GPA: 0x1000}), ErrOutOfRange},
		{"size", s.Create(kvm.MemoryRegion{Slot: 1, GPA: 0x1000, Size: 0x1001}), ErrMisaligned},
		{"host address", s.Create(kvm.MemoryRegion{Slot: 1, GPA: 0x1000, Size: 0x1000, HVA: 1}), ErrMisaligned},
		{"overlap", s.Create(kvm.MemoryRegion{Slot: 1, GPA: 0x3000, Size: 0x2000}), ErrOverlap},
		{"id in use", s.Create(kvm.MemoryRegion{Slot: 3, GPA: 0x8000, Size: 0x1000}), ErrSlotExists},
		{"id too high", s.Create(kvm.MemoryRegion{Slot: testMax, GPA: 0x8000, Size: 0x1000}), ErrSlotLimit},
		{"id far too high", s.Delete(^uint32(0)), ErrSlotLimit},
		{"unknown id", s.Move(4, 0), ErrNoSlot},
		{"move around the end", s.Move(3, ^uint64(0)-0xfff), ErrOutOfRange},
		{"read-only later", s.SetFlags(3, kvm.MemReadonly), ErrReadOnly},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, c.err, c.want)
		}
	}
	if got := len(s.All()); got != 1 {
		t.Errorf("%d slots after refusals, want 1", got)
	}
}

// TestSlotsReadersDuringChanges looks frames up while slots come, go and move.
func TestSlotsReadersDuringChanges(t *testing.T) {
	s := NewSlots(setterFunc(agreeable), testMax)
	var stop atomic.Bool
	var wg sync.WaitGroup
	for i := range uint64(4) {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(i, 3))
			for !stop.Load() {
				gfn := r.Uint64N(testFrames)
				if slot := s.Find(gfn); slot != nil && !slot.contains(gfn) {
					t.Errorf("Find(%d) = %v", gfn, slot)
				}
			}
		})
	}
	r, m := rand.New(rand.NewPCG(1, 4)), slotsModel{}
	for range 5000 {
		st := randomStep(r, m, 0)
		if st.do(s) == nil {
			m.apply(st)
		}
	}
	stop.Store(true)
	wg.Wait()
	if len(s.All()) != len(m) {
		t.Errorf("%d slots, want %d", len(s.All()), len(m))
	}
}
