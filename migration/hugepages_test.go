package migration

import (
	"context"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"microvm/memslot"
	"microvm/memslot/hugepool"
	"microvm/migration/wire"
)

const hugePage = 2 << 20

// builderOn is builderOf for machines made of another kind of memory than the
// source's, or the same.
func builderOn(t *testing.T, backing memslot.Backing, guests int) (Builder, func() *testMachine) {
	var built *testMachine
	return func(_ context.Context, config []byte) (DestinationMachine, error) {
		var c testConfig
		if err := json.Unmarshal(config, &c); err != nil {
			return nil, err
		}
		built = newMachineOf(t, backing, c.Sizes...)
		built.guests = guests
		return built, nil
	}, func() *testMachine { return built }
}

// ways are the sizes of pages on the two sides.
var ways = []struct {
	name     string
	from, to memslot.Backing
}{
	{"2 MiB to 2 MiB", memslot.Hugetlb, memslot.Hugetlb},
	{"2 MiB to 4 KiB", memslot.Hugetlb, memslot.Anonymous},
	{"4 KiB to 2 MiB", memslot.Anonymous, memslot.Hugetlb},
}

// A guest on huge pages would lose what it wrote to a page of which only a part
// is new.
func TestHugePagesMoveWhole(t *testing.T) {
	const pages = 8
	for _, way := range ways {
		for _, mode := range []Mode{ModePostcopy, ModeHybrid, ModePrecopy} {
			t.Run(fmt.Sprintf("%s by %s", way.name, mode), func(t *testing.T) {
				hugepool.Need(t, 2*pages)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				m := newMachineOf(t, way.from, pages*hugePage)
				src := busyOn(t, m, pages*hugePage, 50*time.Microsecond)
				build, built := builderOn(t, way.to, 2)
				mv := moveTo(t, ctx, src, Options{Mode: mode, Rounds: 2, Downtime: time.Minute}, build, built)
				mv.completed(t)
				r := mv.report
				if r.Verified == nil || !*r.Verified {
					t.Errorf("not verified: %s", r.Error)
				}
				unit := built().blocks[0].PageSize() / wire.PageSize
				if mode == ModePostcopy && r.RAM.PagesZero+r.RAM.PagesPostcopy != r.RAM.PagesTotal {
					t.Errorf("%d of %d pages sent, each once", r.RAM.PagesZero+r.RAM.PagesPostcopy, r.RAM.PagesTotal)
				}
				if mode == ModeHybrid && (r.RAM.PagesDiscarded == 0 || r.RAM.PagesDiscarded%unit != 0 || r.RAM.PagesPostcopy%unit != 0) {
					t.Errorf("%d pages discarded, %d sent after the switch: want whole host pages of %d", r.RAM.PagesDiscarded, r.RAM.PagesPostcopy, unit)
				}
				if mode == ModePrecopy && (r.Faults.Count != 0 || r.RAM.PagesPostcopy != 0) {
					t.Errorf("%d faults and %d pages after precopy", r.Faults.Count, r.RAM.PagesPostcopy)
				}
			})
		}
	}
}

// A huge page of zeros is no page that may be left out: userfaultfd would wait
// for it, and has no zeros of that size.
func TestHugePagesOfZerosArrive(t *testing.T) {
	const pages = 4
	hugepool.Need(t, 2*pages)
	src := newMachineOf(t, memslot.Hugetlb, pages*hugePage) // not filled
	mem, err := src.blocks[0].View(0, pages*hugePage)
	if err != nil {
		t.Fatal(err)
	}
	mem[2*hugePage-1] = 1 // the end of page 1, all zeros but for this
	build, built := builderOn(t, memslot.Hugetlb, 0)
	addr, _, done := destination(t, t.Context(), build)
	s, err := NewSource(src, addr, Options{Verify: true, Log: testLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	mv := &move{source: src}
	mv.report, mv.err = s.Run(t.Context())
	mv.destErr, mv.dest = <-done, built()
	mv.completed(t)
	if r := mv.report.RAM; r.PagesZero != (pages-1)*512 || r.PagesPostcopy != 512 || r.BytesWire > 2*hugePage {
		t.Errorf("%d zero pages, %d as data, %d bytes on the wire", r.PagesZero, r.PagesPostcopy, r.BytesWire)
	}
}

// Connections cut anywhere leave huge pages that came in part, or that came and
// are sent again.
func TestCutAnywhereWithHugePages(t *testing.T) {
	const pages = 4
	for seed := range uint64(max(1, *seeds/8)) {
		for _, way := range ways {
			t.Run(fmt.Sprintf("%s, seed %d", way.name, seed), func(t *testing.T) {
				hugepool.Need(t, 2*pages)
				rng := rand.New(rand.NewPCG(seed, 1))
				cuts, reach := 1+rng.IntN(4), int64(1)<<(12+rng.IntN(12))
				build, built := builderOn(t, way.to, 2)
				cutMove(t, seed, cuts, reach, 1+3*rng.IntN(2), "", newMachineOf(t, way.from, pages*hugePage), build, built)
			})
		}
	}
}

// A request for a part of a huge page brings all of it, once.
func TestARequestInsideAHugePageBringsAllOfIt(t *testing.T) {
	hugepool.Need(t, 2)
	m := newMachineOf(t, memslot.Hugetlb, 2*hugePage)
	m.fill(t)
	o, err := newOutgoing(m.blocks)
	if err != nil {
		t.Fatal(err)
	}
	near, far := net.Pipe()
	l := &link{urgent: near}
	a := newAnswerer(o, l)
	go func() {
		for range 2 {
			if err := a.pages(wire.ReqPages{Block: []byte("ram0"), Start: hugePage + 7*wire.PageSize, Len: wire.PageSize}); err != nil {
				t.Error(err)
			}
		}
		near.Close()
	}()
	buf, err := newPayload()
	if err != nil {
		t.Fatal(err)
	}
	defer buf.free()
	h, err := wire.ReadHeader(far)
	if err != nil {
		t.Fatal(err)
	}
	got, err := buf.readRAM(far, h, payloadTerms{})
	if err != nil || got.First != 512 || got.Count != 512 || got.Kind != wire.KindData {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := wire.ReadHeader(far); err == nil {
		t.Error("it came twice")
	}
}

// A destination says its page sizes in one place, and only what can be.
func TestPageSizesOutOfPlaceAreRefused(t *testing.T) {
	for _, c := range []struct {
		name  string
		sizes [][]uint64
		want  []string
	}{
		{"one short", [][]uint64{{4096}}, []string{"PAGE_SIZES", "1 sizes", "2 RAM blocks"}},
		{"none", [][]uint64{{4096, 0}}, []string{"PAGE_SIZES", `"ram1"`, "pages of 0"}},
		{"no power of two", [][]uint64{{12288, 4096}}, []string{"PAGE_SIZES", `"ram0"`, "12288"}},
		{"more than fits into a message", [][]uint64{{4 << 20, 4096}}, []string{"PAGE_SIZES", `"ram0"`, "4194304", "4096"}},
		{"larger than the block", [][]uint64{{4096, 8192}}, []string{"PAGE_SIZES", `"ram1"`, "8192", "4096"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := send(t, &ledger{}, newRawDest(t, func(d *rawDest) {
				d.until(wire.TypeAdvise)
				for _, sizes := range c.sizes {
					d.send(wire.AppendPageSizes(nil, sizes))
				}
				d.until(wire.TypeEnd)
			}), Options{})
			says(t, s.run(), c.want...)
			s.stayed()
		})
	}
	t.Run("after PONG", func(t *testing.T) {
		s := send(t, &ledger{}, newRawDest(t, func(d *rawDest) {
			d.until(wire.TypePackaged) // so it has answered every PING
			d.send(wire.AppendPageSizes(nil, []uint64{4096, 4096}))
			d.until(wire.TypeEnd)
		}), Options{})
		says(t, s.run(), "PAGE_SIZES", "POSTCOPY_ADVISE")
		s.stayed()
	})
}
