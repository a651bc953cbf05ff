package migration

import (
	"bytes"
	"context"
	"testing"
	"time"

	"microvm/memslot"
	"microvm/memslot/hugepool"
	"microvm/migration/wire"
)

// A guest that writes little of each huge page must not have to wait for all of
// its memory to go again.
func TestPrecopySendsOnlyWhatChangedOfAHugePage(t *testing.T) {
	const pages = 8
	hugepool.Need(t, 2*pages)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	// It writes nothing but page 1, when it is paused.
	src := busyOn(t, newMachineOf(t, memslot.Hugetlb, pages*hugePage), pages*hugePage, time.Hour)
	build, built := builderOn(t, memslot.Hugetlb, 2)
	mv := moveTo(t, ctx, src, Options{Mode: ModePrecopy, Downtime: time.Minute}, build, built)
	mv.completed(t)
	r := mv.report
	if r.Verified == nil || !*r.Verified {
		t.Errorf("not verified: %s", r.Error)
	}
	if sent := r.RAM.PagesZero + r.RAM.PagesPrecopy; sent != r.RAM.PagesTotal+1 {
		t.Errorf("%d pages sent of %d and one that was written", sent, r.RAM.PagesTotal)
	}
}

// What changed goes in runs, as many as a batch has room for, and nothing that
// changed is left out.
func TestChangesAreFewRunsAndAll(t *testing.T) {
	const perHost = hugePage / wire.PageSize
	for every := uint64(1); every < 40; every++ {
		m := newTestMachine(t, 3*hugePage)
		m.fill(t)
		o, err := newOutgoing(m.blocks)
		if err != nil {
			t.Fatal(err)
		}
		if err := o.setUnits([]uint64{hugePage}); err != nil {
			t.Fatal(err)
		}
		dirty := memslot.NewBitmap(3 * perHost)
		for page := uint64(0); page < 3*perHost; page += every {
			dirty.Set(page)
		}
		b := &o.blocks[0]
		b.note(dirty)
		b.stale.Set(1)
		if got, want := b.unchanged(), perHost-(2*perHost-1)/every+(perHost-1)/every; got != want {
			t.Errorf("every %d: %d pages of it need not go, want %d", every, got, want)
		}
		out := newBatch(o, mainChannel, sendsBulk)
		room := cap(out.headers)
		out.addChanges(0, 1)
		out.seal()
		if runs := len(out.headers) / wire.RAMHeaderSize; runs > batchRuns-1 || cap(out.headers) != room {
			t.Errorf("every %d: %d runs, in room for %d bytes that had been %d", every, runs, cap(out.headers), room)
		}
		var sent bytes.Buffer
		if _, err := out.bufs.WriteTo(&sent); err != nil {
			t.Fatal(err)
		}
		buf, err := newPayload()
		if err != nil {
			t.Fatal(err)
		}
		defer buf.free()
		for sent.Len() > 0 {
			h, err := wire.ReadHeader(&sent)
			if err != nil {
				t.Fatal(err)
			}
			run, err := buf.readRAM(&sent, h, payloadTerms{})
			if err != nil || run.First < perHost || run.First+uint64(run.Count) > 2*perHost {
				t.Fatalf("every %d: %+v, %v", every, run, err)
			}
			dirty.ClearRange(run.First, uint64(run.Count))
		}
		if page, left := dirty.NextSet(perHost); left && page < 2*perHost {
			t.Errorf("every %d: page %d was left out", every, page)
		}
		if page, left := b.changes.NextSet(perHost); left && page < 2*perHost {
			t.Errorf("every %d: page %d would go again", every, page)
		}
	}
}

// A part is put into a host page that is there, before the guest runs, and
// nowhere else: the rest of the page would read as zeros.
func TestAPartOfAHugePageNeedsTheRest(t *testing.T) {
	hugepool.Need(t, 2)
	m := newMachineOf(t, memslot.Hugetlb, 2*hugePage)
	p, err := newPager(m.blocks, nil, func([]pageRequest) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	defer func() { p.abort(errTest) }()
	part := bytes.Repeat([]byte{3}, 2*wire.PageSize)
	says(t, p.place(0, 5, 2, part), "RAM", `"ram0"`, "part of a host page of 2097152 bytes that has not come")
	if err := p.place(0, 0, 512, bytes.Repeat([]byte{7}, hugePage)); err != nil {
		t.Fatal(err)
	}
	says(t, p.place(0, 511, 2, part), "has not come") // behind a page that has
	if err := p.place(0, 5, 2, part); err != nil {
		t.Error(err)
	}
	if err := p.place(0, 9, 1, nil); err != nil {
		t.Error(err)
	}
	mem := make([]byte, hugePage)
	memory := memslot.NewMemory(nullRegions{}, 4)
	if err := memory.Map(0, 0, m.blocks[0], 0, hugePage, 0); err != nil {
		t.Fatal(err)
	}
	if err := memory.ReadAt(mem, 0); err != nil {
		t.Fatal(err)
	}
	for page := range 512 {
		want := byte(7)
		switch page {
		case 5, 6:
			want = 3
		case 9:
			want = 0
		}
		if got := mem[page*wire.PageSize+99]; got != want {
			t.Errorf("page %d holds %d, want %d", page, got, want)
		}
	}
	p.listening.Store(true)
	says(t, p.place(0, 5, 2, part), "RAM", "not whole host pages of 2097152 bytes")
}
