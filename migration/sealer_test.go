package migration

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"microvm/memslot/hugepool"
	"microvm/migration/wire"
)

// TestEveryWayToSendPagesArrives moves memory in each mode, compressed and
// summed, under a guest that writes to it where one may.
func TestEveryWayToSendPagesArrives(t *testing.T) {
	for _, mode := range []Mode{ModePostcopy, ModeHybrid, ModePrecopy} {
		for _, codec := range []Codec{CodecNone, CodecS2, CodecZstd} {
			for _, checksum := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, %s, checksum %v", mode, codec, checksum), func(t *testing.T) {
					src := newBusyMachine(t, 8<<20, 2<<20, 50*time.Microsecond)
					mv := moveBusy(t, src, Options{Mode: mode, Rounds: 3, Downtime: time.Minute, Compress: codec, Checksum: checksum})
					mv.completed(t)
					r := mv.report
					if r.Verified == nil || !*r.Verified || r.Recoveries != 0 || r.RAM.RunsDamaged != 0 {
						t.Errorf("verified %v, %q, %d recoveries, %d runs damaged", r.Verified, r.Error, r.Recoveries, r.RAM.RunsDamaged)
					}
					if r.Checksum != checksum {
						t.Errorf("the report says checksum %v", r.Checksum)
					}
					c := r.Compression
					if codec == CodecNone {
						if c != nil {
							t.Errorf("the report knows of compression: %+v", c)
						}
						return
					}
					if c == nil || c.Codec != string(codec) || c.RunsCompressed == 0 || c.TimeNS == 0 || c.Why == "" {
						t.Fatalf("the report does not know of compression: %+v", c)
					}
					if c.BytesAfter >= c.BytesBefore || r.RAM.BytesWire < c.BytesAfter || r.RAM.BytesWire > 12<<20 {
						t.Errorf("%d bytes compressed to %d, of %d on the wire", c.BytesBefore, c.BytesAfter, r.RAM.BytesWire)
					}
				})
			}
		}
	}
}

// Each connection has a codec of its own.
func TestCompressedPagesArriveOverSeveralConnections(t *testing.T) {
	for _, codec := range []Codec{CodecS2, CodecZstd} {
		src := newBusyMachine(t, 32<<20, 2<<20, 50*time.Microsecond)
		mv := moveBusy(t, src, Options{Mode: ModeHybrid, Rounds: 2, Connections: 4, Compress: codec, Checksum: true})
		mv.completed(t)
		r := mv.report
		if r.Verified == nil || !*r.Verified || r.Recoveries != 0 || r.Channels != 6 {
			t.Errorf("%s: verified %v, %q, %d recoveries, %d channels", codec, r.Verified, r.Error, r.Recoveries, r.Channels)
		}
		if c := r.Compression; c.RunsCompressed == 0 || c.BytesBefore < 16<<20 || c.BytesAfter >= c.BytesBefore {
			t.Errorf("%s: %+v", codec, c)
		}
	}
}

// A run of one huge page is sixteen times what a batch is otherwise.
func TestHugePagesMoveCompressed(t *testing.T) {
	const pages = 8
	for _, way := range ways {
		for _, codec := range []Codec{CodecS2, CodecZstd} {
			t.Run(way.name+" by "+string(codec), func(t *testing.T) {
				hugepool.Need(t, 2*pages)
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				src := busyOn(t, newMachineOf(t, way.from, pages*hugePage), pages*hugePage, 50*time.Microsecond)
				build, built := builderOn(t, way.to, 2)
				mv := moveTo(t, ctx, src, Options{Mode: ModeHybrid, Rounds: 2, Compress: codec, Checksum: true}, build, built)
				mv.completed(t)
				r := mv.report
				if r.Verified == nil || !*r.Verified || r.Recoveries != 0 || r.Compression.RunsCompressed == 0 {
					t.Errorf("verified %v, %q, %d recoveries, %+v", r.Verified, r.Error, r.Recoveries, r.Compression)
				}
			})
		}
	}
}

// TestAPageDoesNotTakeInWhatItsNeighbourBecame: compression refers back to
// pages sent before in the same run. If the guest writes to one of these while
// the run is compressed, that page is sent again; the one that refers to it is
// not, and has to come out as it is. Nor may a checksum differ from the pages.
func TestAPageDoesNotTakeInWhatItsNeighbourBecame(t *testing.T) {
	const pages = 32
	for _, codec := range []Codec{CodecNone, CodecS2, CodecZstd} {
		t.Run(string(codec), func(t *testing.T) {
			src := newTestMachine(t, pages*wire.PageSize)
			o, err := newOutgoing(src.blocks)
			if err != nil {
				t.Fatal(err)
			}
			o.terms = payloadTerms{compression: wire.KindOf(codec.wireName()), checksum: true}
			mem := o.blocks[0].mem
			still := samplePages(1, "text")
			for p := range pages {
				copy(mem[p*wire.PageSize:], still)
			}
			var stop atomic.Bool
			done := make(chan struct{})
			go func() { // the guest, at page 0
				defer close(done)
				for i := 0; !stop.Load(); i++ {
					mem[i*7%wire.PageSize] ^= byte(i) | 1
				}
			}()
			defer func() { stop.Store(true); <-done }()
			s, d := newSealer(o, sendsLive), &decompressor{}
			defer d.close()
			got := make([]byte, len(mem))
			for range 300 {
				run, payload := s.seal(wire.RAM{Kind: wire.KindData, Count: pages}, mem)
				if sum := crc32.Checksum(payload, wire.Castagnoli); sum != run.Sum {
					t.Fatalf("the checksum is %08x, what is sent has %08x", run.Sum, sum)
				}
				if run.Compressed > 0 {
					if err := d.decompress(run.Kind, got, payload); err != nil {
						t.Fatal(err)
					}
				} else {
					copy(got, payload)
				}
				for p := 1; p < pages; p++ {
					if !bytes.Equal(got[p*wire.PageSize:(p+1)*wire.PageSize], still) {
						t.Fatalf("page %d was not written to, and changed", p)
					}
				}
				s.sent(time.Millisecond)
			}
		})
	}
}

// Nothing that a sealer hands out moves or changes before it is sent, and
// sending does not allocate.
func TestABatchKeepsWhatItHasSealed(t *testing.T) {
	src := newTestMachine(t, 4<<20)
	for i, kind := range []sending{sendsLive, sendsBulk, sendsUrgent} {
		o, err := newOutgoing(src.blocks)
		if err != nil {
			t.Fatal(err)
		}
		o.terms = payloadTerms{compression: wire.KindS2, checksum: true}
		copy(o.blocks[0].mem, samplePages(len(o.blocks[0].mem)/wire.PageSize, []string{"noise", "text", "pattern"}[i]))
		b := newBatch(o, mainChannel, kind)
		var page uint64
		fill := func() {
			for !b.full() {
				b.add(0, page%o.blocks[0].pages)
				b.seal()
				page++
			}
		}
		b.add(0, page)
		b.seal()
		page++
		room, payload := cap(b.sealer.out), b.bufs[1]
		first := bytes.Clone(payload)
		fill()
		if !bytes.Equal(payload, first) || cap(b.sealer.out) != room {
			t.Errorf("sender %d: what was sealed first has changed, or the buffer has grown", kind)
		}
		if kind == sendsUrgent && room != 0 {
			t.Errorf("a buffer of %d bytes for what is never copied", room)
		}
		if n := testing.AllocsPerRun(50, func() {
			if err := b.send(discard{}); err != nil {
				t.Fatal(err)
			}
			fill()
		}); n > 1 && !raceDetector { // what net.Buffers takes
			t.Errorf("sender %d: %v allocations a batch", kind, n)
		}
	}
}

// discard is a connection that takes everything.
type discard struct{ net.Conn }

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// damage is a proxy that flips one bit in the pages of the nth run of some
// kind that passes on a leg, once.
func damage(t *testing.T, target Address, on leg, nth int, wanted func(wire.RAM) bool) (Address, *atomic.Bool) {
	var done atomic.Bool
	p, addr := newProxy(t, target, func(at point, message []byte) (int, bool) {
		if at.leg != on || at.name != "RAM" || done.Load() {
			return len(message), false
		}
		h, _ := wire.DecodeHeader([wire.HeaderSize]byte(message))
		m, err := wire.DecodeRAM([wire.RAMFixedSize]byte(message[wire.HeaderSize:]), h)
		if err != nil || !wanted(m) {
			return len(message), false
		}
		if nth--; nth == 0 {
			message[len(message)-len(message)/3] ^= 0x10
			done.Store(true)
		}
		return len(message), false
	})
	_ = p
	return addr, &done
}

// TestARunDamagedOnItsWayIsFetchedAgain: with checksums a run that changes on
// its way during postcopy costs the connections, never a page.
func TestARunDamagedOnItsWayIsFetchedAgain(t *testing.T) {
	any := func(m wire.RAM) bool { return m.Kind == wire.KindData }
	small := func(m wire.RAM) bool { return m.Compressed > 0 }
	for _, c := range []struct {
		name   string
		on     leg
		nth    int
		wanted func(wire.RAM) bool
		codec  Codec
	}{
		{"pushed", mainLeg, 5, any, CodecNone},
		{"pushed by s2", mainLeg, 5, small, CodecS2},
		{"pushed by zstd", mainLeg, 5, small, CodecZstd},
		{"asked for", urgentLeg, 2, any, CodecZstd},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := &ledger{}
			r := receiveWith(t, l, DestinationOptions{Recover: time.Minute}, buildOwned(t, l, func(m *testMachine) { m.guests = 2 }))
			addr, damaged := damage(t, r.addr, c.on, c.nth, c.wanted)
			s := sendAs(t, l, addr, Options{Verify: true, Recover: time.Minute, Compress: c.codec, Checksum: true, PushBandwidth: 64 << 20},
				[]uint64{16 << 20}, func(m sourceSide) SourceMachine { return m })
			if err := s.run(); err != nil {
				t.Fatalf("Run: %v", err)
			}
			if err := r.wait(); err != nil {
				t.Fatalf("Receive: %v", err)
			}
			if !damaged.Load() {
				t.Fatal("nothing was damaged")
			}
			rep := s.report
			if rep.Verified == nil || !*rep.Verified || rep.RAM.RunsDamaged != 1 || rep.Recoveries != 1 {
				t.Errorf("verified %v, %q; %d runs damaged, %d recoveries", rep.Verified, rep.Error, rep.RAM.RunsDamaged, rep.Recoveries)
			}
		})
	}
}

// Before the guest has left there is nothing to mend: it stays.
func TestARunDamagedBeforeTheSwitchFailsTheMigrationAndTheGuestStays(t *testing.T) {
	src := newBusyMachine(t, 8<<20, 1<<20, time.Millisecond)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	build, built := builderOf(t, nil)
	target, _, done := destination(t, ctx, build)
	addr, damaged := damage(t, target, mainLeg, 20, func(m wire.RAM) bool { return m.Kind != wire.KindZero })
	s, err := NewSource(src, addr, Options{Mode: ModePrecopy, Checksum: true, Log: quietLog(t)})
	if err != nil {
		t.Fatal(err)
	}
	rep, err := s.Run(ctx)
	if !damaged.Load() {
		t.Fatal("nothing was damaged")
	}
	var failed *FailedError
	if !errors.As(err, &failed) || rep.Result != ResultFailed || rep.Owner != OwnerSource {
		t.Errorf("%v, result %s, owner %s", err, rep.Result, rep.Owner)
	}
	says(t, err, "RAM", "damaged on the way", "CRC-32C")
	if src.paused.Load() != src.resumed.Load() {
		t.Errorf("%d pauses, %d resumes", src.paused.Load(), src.resumed.Load())
	}
	says(t, <-done, "damaged on the way")
	if b := built(); b != nil && b.running.Load() {
		t.Error("it runs at the destination")
	}
}
