package balloon

import (
	"encoding/binary"
	"math/rand/v2"
	"strings"
	"testing"

	"microvm/devices/virtio/virtiotest"
)

const base = store / PageSize

// TestPagesInTheBalloonAreGivenBack and no others, in whatever order they are
// named.
func TestPagesInTheBalloonAreGivenBack(t *testing.T) {
	r := newRig(t, Options{Target: 1 << 20}, 0)
	if c := r.Config(0, 8); binary.LittleEndian.Uint32(c) != 256 || binary.LittleEndian.Uint32(c[4:]) != 0 {
		t.Errorf("the configuration says %x", c)
	}
	const n = 512
	rnd := rand.New(rand.NewPCG(1, 1))
	r.fill(base, n)
	in := map[uint64]bool{}
	for range 20 {
		var list []uint64
		for range 10 {
			pfn := base + rnd.Uint64N(n)
			for range 1 + rnd.IntN(3) { // some twice, some with neighbours
				list = append(list, pfn)
				in[pfn] = true
				pfn = min(pfn+rnd.Uint64N(2), base+n-1)
			}
		}
		rnd.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
		if written, _ := r.queues[0].Do(arena, virtiotest.Buf{Data: pfns(list...)}); written != 0 {
			t.Errorf("%d bytes written", written)
		}
	}
	for pfn := uint64(base); pfn < base+n; pfn++ {
		if r.gone(pfn) != in[pfn] {
			t.Errorf("page %#x: in the balloon: %t, gone: %t", pfn, in[pfn], r.gone(pfn))
		}
	}
	// They are memory again without another word.
	r.queues[1].Do(arena, virtiotest.Buf{Data: pfns(base, base+1)})
	r.fill(base, n)
	if r.gone(base) {
		t.Error("a page does not keep what is written")
	}
	s := r.balloon.Stats()
	if s.Inflated < 200*PageSize || s.GivenBack < uint64(len(in))*PageSize || s.GivenBack > s.Inflated || s.Deflated != 2*PageSize || s.Target != 1<<20 {
		t.Errorf("it has counted %+v", s)
	}
}

// TestTargetReachesTheDriver by an interrupt and in the configuration, and what
// the driver says it holds reaches the user.
func TestTargetReachesTheDriver(t *testing.T) {
	r := newRig(t, Options{}, 0)
	if err := r.balloon.SetTarget(3<<20 + 5); err != nil {
		t.Fatal(err)
	}
	r.mmio.Device().ConfigChanged()
	r.IRQ.Wait(t)
	if isr := r.Get(0x60); isr&2 == 0 {
		t.Errorf("interrupt status %#x", isr)
	}
	if c := r.Config(0, 4); binary.LittleEndian.Uint32(c) != 768 {
		t.Errorf("num_pages %x", c)
	}
	r.Set(0x100+configActual, 700)
	r.Set(0x100, 9) // read-only
	r.Set(0x100+8, 9)
	r.Regs.Write(0x1FE, []byte{1, 2, 3, 4}) // beyond
	if target, actual := r.balloon.Size(); target != 3<<20 || actual != 700*PageSize {
		t.Errorf("target %d, actual %d", target, actual)
	}
	if err := r.balloon.SetTarget(ramSize + 1); err == nil || !strings.Contains(err.Error(), "has 16777216") {
		t.Errorf("more than there is: %v", err)
	}
}

func TestFeaturesAreThoseAskedFor(t *testing.T) {
	for _, c := range []struct {
		o    Options
		want uint64
	}{
		{Options{}, featureStats},
		{Options{DeflateOnOOM: true}, featureStats | featureOOM},
		{Options{Reporting: true}, featureStats | featureReporting | featurePoison},
	} {
		r := newRig(t, c.o, 0)
		if got := r.Offered() & 0xFF_FFFF; got != c.want {
			t.Errorf("%+v: features %#x, want %#x", c.o, got, c.want)
		}
	}
}

// TestFreePagesAreGivenBackWhileTheyAreReported, unless the guest relies on
// what is in them.
func TestFreePagesAreGivenBackWhileTheyAreReported(t *testing.T) {
	for _, c := range []struct {
		name    string
		poison  uint32
		without uint64
		gone    bool
	}{
		{"nothing in them", 0, featurePoison, true},
		{"zeros in them", 0, 0, true},
		{"something in them", 0xAA, 0, false},
		{"something in them that nobody was told of", 0xAA, featurePoison, true},
		{"without statistics", 0, featureStats, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, Options{Reporting: true}, c.without)
			r.Set(0x70, 0)
			r.Set(0x100+configPoison, c.poison)
			r.start(r.Offered() &^ c.without)
			r.fill(base, 1024)
			q := r.queues[len(r.queues)-1]
			q.Do(store, virtiotest.Buf{Room: 100 * PageSize}, virtiotest.Buf{Room: 412*PageSize + 5})
			for _, pfn := range []uint64{base, base + 99, base + 511} {
				if r.gone(pfn) != c.gone {
					t.Errorf("page %#x is gone: %t", pfn, !c.gone)
				}
			}
			if r.gone(base + 512) {
				t.Error("a page is gone of which only a part is free")
			}
			if s := r.balloon.Stats(); s.Reported != 512*PageSize+5 || (s.GivenBack != 0) != c.gone {
				t.Errorf("it has counted %+v", s)
			}
		})
	}
}

// TestBalloonGoesOnWhereItMoves with its target and what it holds.
func TestBalloonGoesOnWhereItMoves(t *testing.T) {
	o := Options{Target: 2 << 20, Reporting: true}
	r := newRig(t, o, 0)
	r.Set(0x100+configActual, 77)
	r.Set(0x100+configPoison, 5)
	if err := r.balloon.SetTarget(4 << 20); err != nil {
		t.Fatal(err)
	}
	r.mmio.Device().Hold()
	r.fill(base, 4)
	r.queues[0].Add(arena, 0, -1, virtiotest.Buf{Data: pfns(base + 1)})
	state, err := r.mmio.Save()
	if err != nil {
		t.Fatal(err)
	}
	there, b := newMMIO(t, o, r.Mem, r.IRQ)
	if err := there.Load(there.Version(), state); err != nil {
		t.Fatal(err)
	}
	r.Regs = there
	there.Device().Release()
	r.queues[0].Wait()
	if !r.gone(base+1) || r.gone(base+2) {
		t.Error("the request that moved was not obeyed")
	}
	r.fill(base, 4)
	r.queues[3].Do(store, virtiotest.Buf{Room: PageSize})
	if r.gone(base) {
		t.Error("it does not know any more that free pages have something in them")
	}
	if target, actual := b.Size(); target != 4<<20 || actual != 77*PageSize {
		t.Errorf("target %d, actual %d", target, actual)
	}
	huge := append([]byte(nil), state...)
	binary.LittleEndian.PutUint32(huge[len(huge)-stateSize:], ramSize/PageSize+1)
	for name, state := range map[string][]byte{"a target above memory": huge, "too long": append(state, 0), "too short": state[:len(state)-1]} {
		m, _ := newMMIO(t, o, r.Mem, r.IRQ)
		if m.Load(m.Version(), state) == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// TestPagesStayWhileOthersAreMissing: the driver is served, and its pages are
// not asked for again.
func TestPagesStayWhileOthersAreMissing(t *testing.T) {
	r := newRig(t, Options{Reporting: true}, 0)
	r.fill(base, 2)
	r.mmio.Device().Hold()
	// All but one page have come, with what they had.
	b := r.block
	copied := make([]byte, ramSize)
	if err := r.Mem.ReadAt(copied, 0); err != nil {
		t.Fatal(err)
	}
	if err := b.Expect(func(page uint64) { t.Errorf("page %#x was asked for", page) }); err != nil {
		t.Fatal(err)
	}
	b.MarkPresent(0, b.Pages()-1)
	if err := r.Mem.WriteAt(copied[:ramSize-PageSize], 0); err != nil {
		t.Fatal(err)
	}
	r.mmio.Device().Release()
	r.queues[0].Do(arena, virtiotest.Buf{Data: pfns(base)})
	r.queues[3].Do(store, virtiotest.Buf{Room: 2 * PageSize})
	if s := r.balloon.Stats(); s.GivenBack != 0 || s.Inflated != PageSize || s.Reported != 2*PageSize {
		t.Errorf("it has counted %+v", s)
	}
	if r.gone(base) {
		t.Error("a page is gone that the source may be asked for")
	}
	b.MarkPresent(b.Pages()-1, 1)
	if err := b.Complete(); err != nil {
		t.Fatal(err)
	}
	r.queues[0].Do(arena, virtiotest.Buf{Data: pfns(base)})
	if !r.gone(base) {
		t.Error("all pages have come, and none is given back")
	}
}
