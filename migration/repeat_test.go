package migration

import (
	"bytes"
	"hash/crc32"
	"io"
	"testing"

	"microvm/migration/wire"
)

// The guest stands still while a page that it touched waits in a socket behind
// megabytes of others.
func TestAPageThatIsAskedForOnItsWayComesAheadOfTheOthers(t *testing.T) {
	const page = 7
	came := make(chan []byte, 1)
	s := send(t, &ledger{}, newRawDest(t, toComplete(func(d *rawDest) {
		// All has been sent, by main, and nobody says that it has arrived.
		d.send(req(nil, "ram0", page*wire.PageSize, wire.PageSize))
		var contents [wire.RAMHeaderSize - wire.HeaderSize + wire.PageSize]byte
		// COMPLETE comes by every channel.
		for h := (wire.Header{}); h.Type != wire.TypeRAM; {
			var err error
			if h, err = wire.ReadHeader(d.urgent); err == nil {
				_, err = io.ReadFull(d.urgent, contents[:h.Length])
			}
			if err != nil {
				t.Errorf("on urgent: %v", err)
				break
			}
		}
		came <- contents[wire.RAMHeaderSize-wire.HeaderSize:]
		d.send(shut0)
	})), Options{})
	if err := s.run(); err != nil {
		t.Fatal(err)
	}
	want, err := s.machine.blocks[0].View(page*wire.PageSize, wire.PageSize)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(<-came, want) {
		t.Error("another page, or not as it is")
	}
	if r := s.report.RAM; r.PagesRepeated != 1 || r.PagesZero+r.PagesPostcopy != r.PagesTotal {
		t.Errorf("%+v", r)
	}
}

// Of a page that comes twice, what counts is what the guest has: if that was
// damaged on the way, a second copy that was not must not hide it.
func TestWhatIsVerifiedIsWhatIsInPlace(t *testing.T) {
	p, _ := armed(t, 4*wire.PageSize)
	p.sums = newSums(p.blocks)
	first, second := bytes.Repeat([]byte{1}, wire.PageSize), bytes.Repeat([]byte{2}, wire.PageSize)
	for page, copies := range [][][]byte{{first, second}, {nil, second}, {second, nil}} {
		for _, data := range copies {
			if err := p.place(0, uint64(page), 1, data); err != nil {
				t.Fatal(err)
			}
		}
		want := zeroSum
		if copies[0] != nil {
			want = crc32.Checksum(copies[0], wire.Castagnoli)
		}
		if got := p.sums.got[0][page]; got != want {
			t.Errorf("page %d: CRC-32C %08x, that of what is in place is %08x", page, got, want)
		}
	}
}
