package migration

import (
	"hash/crc32"
	"time"

	"microvm/migration/wire"
)

// payloadTerms are what the two sides have agreed on about RAM messages.
type payloadTerms struct {
	compression wire.Kind // KindData: none
	checksum    bool
}

// sending says in what circumstances a batch is sent.
type sending int

const (
	sendsLive   sending = iota // bulk, while the guest writes to memory
	sendsBulk                  // bulk, of memory that stays as it is
	sendsUrgent                // what somebody waits for, of the same
	sendings                   // how many there are
)

// leastGain is the share that compression has to take off a run, one part in so
// many, for it to be sent compressed.
const leastGain = 8

// sealer makes of a run what goes out: compressed where that pays, with a
// checksum where that is asked for. Every sender has its own, so that none waits
// for another.
//
// What somebody waits for is not compressed. It is mostly one page: to compress
// and expand one of text takes s2 6 us and takes 1.2 KB off it, which is 9 us of
// a link of 1 Gbit/s and 1 us of one of 10; zstd takes 28 us for 2 KB. Beside a
// round trip and two faults that is nothing won, but on links far slower.
type sealer struct {
	o        *outgoing
	live     bool // the guest may write to memory while it is read
	checksum bool
	compress *compressor // nil: never
	worth    *worth

	// out holds what goes out and is no guest memory, until it is sent. It
	// has room for a whole batch, and the last run of it twice.
	out   []byte
	bytes int           // of memory since the last send
	spent time.Duration // on compressing it and waiting to send it
}

// newSealer returns nil where there is nothing to do to a run.
func newSealer(o *outgoing, kind sending) *sealer {
	t := o.terms
	compress := t.compression != wire.KindData && kind != sendsUrgent
	if !compress && !t.checksum {
		return nil
	}
	s := &sealer{o: o, live: kind == sendsLive, checksum: t.checksum}
	most := batchBytes
	for i := range o.blocks {
		most = max(most, batchBytes-wire.PageSize+int(o.blocks[i].perHost)*wire.PageSize)
	}
	room := 0
	if s.live {
		room = most
	}
	if compress {
		s.compress, s.worth = newCompressor(t.compression), newWorth()
		room = most + s.compress.room(most)
	}
	s.out = make([]byte, 0, room)
	return s
}

// seal completes run, whose pages are mem, nil for zeros, and gives the
// payload to send with it.
func (s *sealer) seal(run wire.RAM, mem []byte) (wire.RAM, []byte) {
	if s == nil {
		return run, mem
	}
	payload := mem
	if run.Kind == wire.KindData {
		payload = s.pack(&run, mem)
	}
	if s.checksum {
		run.Summed, run.Sum = true, crc32.Checksum(payload, wire.Castagnoli)
	}
	return run, payload
}

// pack gives the payload for pages that are not zero.
func (s *sealer) pack(run *wire.RAM, mem []byte) []byte {
	s.bytes += len(mem)
	if s.compress == nil || !s.worth.compress {
		if s.compress != nil {
			s.o.packed.skipped(len(mem))
		}
		if s.live && s.checksum {
			return s.keep(mem)
		}
		return mem
	}
	start := time.Now()
	from, pages := len(s.out), mem
	if s.live {
		// What is compressed, or summed, has to be what is sent, though the
		// guest writes to it: references within the run would else carry a
		// change from one page into another, which is not sent again for it.
		pages = s.keep(mem)
	}
	at := len(s.out)
	small := s.compress.compress(s.out[at:cap(s.out)], pages)
	took := time.Since(start)
	s.spent += took
	if len(small) > len(mem)-len(mem)/leastGain {
		s.o.packed.raw(len(mem), took)
		return pages
	}
	s.out = s.out[:from+copy(s.out[from:cap(s.out)], small)]
	run.Kind, run.Compressed = s.compress.kind, uint32(len(small))
	s.o.packed.compressed(len(mem), len(small), took)
	return s.out[from:]
}

// keep gives a copy of mem that lasts until it is sent.
func (s *sealer) keep(mem []byte) []byte {
	from := len(s.out)
	s.out = append(s.out, mem...)
	return s.out[from:]
}

// waited takes in time for which what is sealed waited for a bandwidth limit.
func (s *sealer) waited(d time.Duration) {
	if s != nil {
		s.spent += d
	}
}

// sent takes in that all that was sealed has gone out, in that time.
func (s *sealer) sent(took time.Duration) {
	if s == nil {
		return
	}
	if s.worth != nil {
		took += s.spent
		s.o.packed.gone(s.worth.compress, s.bytes, took)
		before := s.worth.compress
		s.worth.sent(s.bytes, took)
		if s.worth.compress != before {
			s.o.packed.turns.Add(1)
		}
	}
	s.out, s.bytes, s.spent = s.out[:0], 0, 0
}
