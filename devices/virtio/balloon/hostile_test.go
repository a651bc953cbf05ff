package balloon

import (
	"testing"

	"microvm/devices/virtio/virtiotest"
)

// TestDriverThatIsWrongHasToReset, and then can go on.
func TestDriverThatIsWrongHasToReset(t *testing.T) {
	const last = ramSize/PageSize - 1
	for name, c := range map[string]struct {
		queue int
		buf   virtiotest.Buf
	}{
		"a page past the end of RAM":        {0, virtiotest.Buf{Data: pfns(base, last+1)}},
		"a run that goes past it":           {0, virtiotest.Buf{Data: pfns(last-1, last, last+1)}},
		"the last page that can be named":   {0, virtiotest.Buf{Data: pfns(0xFFFF_FFFF, 0xFFFF_FFFE)}},
		"a part of a number":                {0, virtiotest.Buf{Data: []byte{1, 2, 3, 4, 5}}},
		"too many":                          {0, virtiotest.Buf{Data: make([]byte, 4*maxPages+4)}},
		"too many taken out":                {1, virtiotest.Buf{Data: make([]byte, 4*maxPages+4)}},
		"a part of a number taken out":      {1, virtiotest.Buf{Data: []byte{1}}},
		"free pages that are no memory":     {3, virtiotest.Buf{Room: ramSize}},
		"free pages, all of memory and RAM": {3, virtiotest.Buf{Room: 1 << 31}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, Options{Reporting: true}, 0)
			r.fill(base, 1)
			d := virtiotest.Desc{GPA: store, Len: uint32(len(c.buf.Data))}
			if c.buf.Data == nil {
				d.Len, d.Flags = uint32(c.buf.Room), virtiotest.Write
			} else if err := r.Mem.WriteAt(c.buf.Data, arena); err != nil {
				t.Fatal(err)
			} else {
				d.GPA = arena
			}
			q := r.queues[c.queue]
			q.Put(0, d)
			q.Offer(0)
			q.Kick()
			r.IRQ.Wait(t)
			if status := r.Get(0x70); status&64 == 0 {
				t.Fatalf("status %#x", status)
			}
			r.start(r.Offered())
			r.fill(base, 1)
			r.queues[0].Do(arena, virtiotest.Buf{Data: pfns(base)})
			if !r.gone(base) {
				t.Error("it does not work after the reset")
			}
		})
	}
}

// TestEmptyRequestsAndTheMostOfPages are served.
func TestEmptyRequestsAndTheMostOfPages(t *testing.T) {
	r := newRig(t, Options{Reporting: true}, 0)
	var all []uint64
	for i := range uint64(maxPages) {
		all = append(all, base+i%16)
	}
	r.fill(base, 17)
	r.queues[0].Do(arena, virtiotest.Buf{Data: pfns(all...)})
	if !r.gone(base) || !r.gone(base+15) || r.gone(base+16) {
		t.Error("not the pages that were named")
	}
	for _, i := range []int{0, 1, 2} {
		r.queues[i].Add(arena, 0, -1, virtiotest.Buf{Room: 8}) // nothing to read
		r.queues[i].Kick()
	}
	r.queues[0].Wait()
	r.queues[1].Wait()
}

// FuzzHostileDriver has all queues offer requests of any shape, and the
// configuration written to. The device must neither panic nor hang, must not
// touch what is not RAM, and must work after a reset.
func FuzzHostileDriver(f *testing.F) {
	f.Add([]byte{0, 1, 0, 4, 0, 0, 8, 3, 0, 255, 15, 0})
	f.Add([]byte{2, 1, 0, 100, 0, 0, 2, 1, 0, 255, 15, 0, 4, 0, 0, 0, 0, 0})
	f.Add([]byte{3, 16, 2, 255, 255, 255, 3, 2, 2, 255, 15, 0, 5, 12, 1, 2, 3, 4})
	f.Fuzz(func(t *testing.T, steps []byte) {
		r := newRig(t, Options{Reporting: true}, 0)
		for len(steps) >= 6 && len(steps) < 1024 {
			kind, at, flags := steps[0], steps[1], uint16(steps[2])
			n := uint32(steps[3]) | uint32(steps[4])<<8 | uint32(steps[5])<<16
			steps = steps[6:]
			switch kind % 6 {
			case 4:
				r.balloon.Counts()
				r.balloon.Refresh(expired(t))
			case 5:
				r.Set(0x100+uint64(at%20), n)
			default:
				q := r.queues[kind%6]
				head := at & 15
				q.Put(uint16(head), virtiotest.Desc{GPA: uint64(at) << 16, Len: n, Flags: flags & 3, Next: flags >> 2 & 15})
				q.Offer(uint16(head))
				r.Set(0x50, uint32(kind%6))
			}
		}
		r.mmio.Device().Hold()
		if _, err := r.mmio.Save(); err != nil {
			t.Error(err)
		}
		r.mmio.Device().Release()
		r.start(r.Offered())
		r.fill(base, 1)
		r.queues[0].Do(arena, virtiotest.Buf{Data: pfns(base)})
		if !r.gone(base) {
			t.Error("it does not work after the reset")
		}
	})
}
