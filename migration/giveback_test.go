package migration

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"microvm/memslot"
	"microvm/migration/wire"
)

// TestPagesThatABalloonTakesWhileMemoryIsSentArriveAsZeros: they were sent with
// something in them, and what the destination has of it is not to come back. The
// last ones go after the last pass, as late as the guest can say so.
func TestPagesThatABalloonTakesWhileMemoryIsSentArriveAsZeros(t *testing.T) {
	for _, opt := range []Options{
		{Mode: ModePrecopy, Downtime: time.Minute},
		{Mode: ModePrecopy, Downtime: time.Minute, Connections: 3},
		{Mode: ModeHybrid, Rounds: 3},
		{Mode: ModeHybrid, Rounds: 2, Connections: 3, Compress: CodecS2},
		{Mode: ModePostcopy},
	} {
		t.Run(fmt.Sprintf("%s, %d connections", opt.Mode, max(opt.Connections, 1)), func(t *testing.T) {
			const size, busy = 16 << 20, 4 << 20
			opt.Bandwidth = 200 << 20 // so that there is time for some
			src := newBusyMachine(t, size, busy, 50*time.Microsecond)
			taken := memslot.NewBitmap(size / wire.PageSize)
			rnd := rand.New(rand.NewPCG(3, 3))
			take := func() {
				first, n := busy/wire.PageSize+rnd.Uint64N((size-busy)/wire.PageSize), 1+rnd.Uint64N(16)
				n = min(n, size/wire.PageSize-first)
				if given, err := src.mem.GiveBack(first*wire.PageSize, n*wire.PageSize); err != nil || given != n*wire.PageSize {
					t.Errorf("%d bytes of pages [%d, +%d): %v", given, first, n, err)
				}
				taken.SetRange(first, n)
			}
			stop := make(chan struct{})
			var driver sync.WaitGroup
			driver.Go(func() {
				if opt.Mode == ModePostcopy {
					return
				}
				<-src.logging
				for range 60 {
					select {
					case <-stop:
						return
					case <-time.After(time.Millisecond):
						take()
					}
				}
			})
			src.onPause = sync.OnceFunc(func() {
				close(stop)
				driver.Wait()
				for range 10 {
					take()
				}
			})
			build, built := builderOf(t, nil)
			mv := moveTo(t, t.Context(), src, opt, build, built)
			mv.completed(t)
			if r := mv.report; r.Verified == nil || !*r.Verified {
				t.Errorf("verified: %v, %q", r.Verified, r.Error)
			}
			mem, err := mv.dest.blocks[0].View(0, size)
			if err != nil {
				t.Fatal(err)
			}
			for page, ok := taken.NextSet(0); ok; page, ok = taken.NextSet(page + 1) {
				if !bytes.Equal(mem[page*wire.PageSize:(page+1)*wire.PageSize], make([]byte, wire.PageSize)) {
					t.Fatalf("page %d has come back", page)
				}
			}
			t.Logf("%d pages taken, %d passes", taken.Count(), mv.report.Passes)
		})
	}
}

// TestABalloonAtTheDestinationWaitsForTheLastPage: a page that is dropped before
// would be fetched again, as it was at the source; from then on it is zeros.
func TestABalloonAtTheDestinationWaitsForTheLastPage(t *testing.T) {
	const page = 1
	src := newBusyMachine(t, 16<<20, 16<<20, time.Millisecond)
	early, result := 0, make(chan error, 1)
	build, built := builderOf(t, func(dst *testMachine) {
		mem := memslot.NewMemory(nullRegions{}, 4)
		if err := mem.Map(0, 0, dst.blocks[0], 0, dst.blocks[0].Size(), 0); err != nil {
			t.Fatal(err)
		}
		go func() { result <- takeOne(dst, mem, page, &early) }()
	})
	mv := moveTo(t, t.Context(), src, Options{PushBandwidth: 200 << 20}, build, built)
	if mv.err != nil || mv.destErr != nil || mv.report.Verified == nil || !*mv.report.Verified {
		t.Fatalf("source: %v; destination: %v; %+v", mv.err, mv.destErr, mv.report)
	}
	if err := <-result; err != nil {
		t.Error(err)
	}
	if early == 0 {
		t.Error("it never tried before the last page had come")
	}
}

// takeOne takes a page again and again once the machine runs, until it got it
// some times, and reads it in between. early counts how often it did not get it.
func takeOne(dst *testMachine, mem *memslot.Memory, page uint64, early *int) error {
	<-dst.ran
	for got := 0; got < 500; {
		given, err := mem.GiveBack(page*wire.PageSize, wire.PageSize)
		if err != nil {
			return err
		}
		var first [1]byte
		if err := mem.ReadAt(first[:], page*wire.PageSize); err != nil {
			return err
		}
		switch {
		case given != 0:
			got++
			if first[0] != 0 {
				return fmt.Errorf("taken, and it begins with %#x", first[0])
			}
		case got > 0:
			return fmt.Errorf("it was to be had %d times, and then no more", got)
		default:
			*early++
			if first[0] != pattern(page, 0) {
				return fmt.Errorf("not taken, and it begins with %#x", first[0])
			}
		}
	}
	return nil
}
