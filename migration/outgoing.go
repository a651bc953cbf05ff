package migration

import (
	"bytes"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"microvm/memslot"
	"microvm/migration/wire"
)

// outgoing is the source's memory and what has become of each page of it. A
// page belongs to whoever claims it first, the pusher or the answer to a
// request, and is sent by nobody else.
type outgoing struct {
	blocks []outgoingBlock
	byName map[string]int
	total  uint64 // target pages of all blocks
	terms  payloadTerms

	claimed   atomic.Uint64                                // target pages sent or about to be
	dataPages atomic.Uint64                                // target pages sent as data, each time
	zeroPages atomic.Uint64                                // and as zeros
	sentAs    [sendings]atomic.Uint64                      // of dataPages, by the circumstances
	requests  atomic.Uint64                                // host pages that were asked for
	repeated  atomic.Uint64                                // sent again, since they were asked for on their way; in neither
	wire      atomic.Uint64                                // bytes written to any channel
	channels  [multiChannels + wire.MaxMulti]atomic.Uint64 // and to each, by its place among them
	packed    packStats
	faults    faults
}

type outgoingBlock struct {
	name    string
	mem     []byte // the whole block; the VM is paused when it is read
	perHost uint64 // target pages in a host page of the destination, which is what is sent whole
	pages   uint64 // host pages
	// sent has the host pages that the destination has, or will, as they are
	// now: each page that is clear has yet to be sent.
	sent *memslot.Bitmap
	// stale has those that it has as they no longer are. It is used before
	// the switch alone, by one goroutine.
	stale *memslot.Bitmap
	// changes has the target pages that have changed since they were sent, or
	// is nil; likewise.
	changes *memslot.Bitmap
}

func newOutgoing(blocks []*memslot.Block) (*outgoing, error) {
	o := &outgoing{byName: map[string]int{}}
	for i, b := range blocks {
		mem, err := b.View(0, b.Size())
		if err != nil {
			return nil, fmt.Errorf("RAM block %q: %w", b.Name(), err)
		}
		o.byName[b.Name()] = i
		o.blocks = append(o.blocks, outgoingBlock{
			name: b.Name(), mem: mem, perHost: b.PageSize() / wire.PageSize, pages: b.Pages(),
			sent:  memslot.NewBitmap(b.Pages()),
			stale: memslot.NewBitmap(b.Pages()),
		})
		o.blocks[i].changes = o.blocks[i].newChanges()
		o.total += b.Size() / wire.PageSize
	}
	return o, nil
}

// The places of a migration's channels: each multi channel follows.
const (
	mainChannel = iota
	urgentChannel
	multiChannels
)

// count notes that n bytes were written to a channel.
func (o *outgoing) count(channel int, n int64) {
	o.wire.Add(uint64(n))
	o.channels[channel].Add(uint64(n))
}

// hostPages is how many host pages make so many bytes, at least one.
func (b *outgoingBlock) hostPages(bytes uint64) uint64 {
	return max(1, bytes/(b.perHost*wire.PageSize))
}

// claim takes a host page, and tells whether it was still free.
func (o *outgoing) claim(block int, page uint64) bool {
	if o.blocks[block].sent.TestAndSet(page) {
		return false
	}
	o.claimed.Add(o.blocks[block].perHost)
	return true
}

// run gives the contents of target pages, nil if they are all zero.
func (b *outgoingBlock) run(first, count uint64) []byte {
	mem := b.mem[first*wire.PageSize : (first+count)*wire.PageSize]
	if isZero(mem) {
		return nil
	}
	return mem
}

var zeroPage [wire.PageSize]byte

// isZero tells whether every byte of whole target pages is zero. Most pages
// that are not differ in their first bytes, and for those that are, comparing
// with a page of zeros is what the runtime does fastest.
func isZero(mem []byte) bool {
	for ; len(mem) > 0; mem = mem[wire.PageSize:] {
		if !bytes.Equal(mem[:wire.PageSize], zeroPage[:]) {
			return false
		}
	}
	return true
}

// firstRun is the pages of size bytes that mem begins with and that are all zeros, or
// all none.
func firstRun(mem []byte, size uint64) (run []byte, zero bool) {
	zero = isZero(mem[:size])
	n := size
	for n < uint64(len(mem)) && isZero(mem[n:n+size]) == zero {
		n += size
	}
	return mem[:n], zero
}

// batch gathers runs of pages that go out in one system call.
type batch struct {
	o       *outgoing
	channel int // that it goes out on
	kind    sending
	bufs    net.Buffers
	headers []byte // backing of the RAM messages' headers; never grows
	bytes   int    // of pages
	limit   int    // of bytes, from which on it is full
	sent    int    // bytes that went out last time
	sealer  *sealer

	open wire.RAM // run that may still grow; Count 0: none
	mem  []byte   // its payload
}

// Bounds of a batch. What is in a batch is claimed but not sent: a request for
// it has to wait for the whole of it.
const (
	batchBytes = 128 << 10
	batchRuns  = 64
)

func newBatch(o *outgoing, channel int, kind sending) *batch {
	return &batch{
		o:       o,
		channel: channel,
		kind:    kind,
		limit:   batchBytes,
		sealer:  newSealer(o, kind),
		// A page may come in parts when the batch is full but for one run.
		bufs:    make(net.Buffers, 0, 4*batchRuns),
		headers: make([]byte, 0, 2*batchRuns*wire.RAMHeaderSize),
	}
}

func (b *batch) full() bool {
	return b.bytes >= b.limit || len(b.headers) >= (batchRuns-1)*wire.RAMHeaderSize
}

func (b *batch) empty() bool { return len(b.bufs) == 0 && b.open.Count == 0 }

// add appends a host page that has been claimed.
func (b *batch) add(block int, page uint64) {
	perHost := b.o.blocks[block].perHost
	b.addRun(block, page*perHost, perHost)
}

// repeat appends a host page that was sent before.
func (b *batch) repeat(block int, page uint64) {
	perHost := b.o.blocks[block].perHost
	b.append(block, page*perHost, perHost)
	b.o.repeated.Add(perHost)
}

// addRun appends target pages, all of them as data or as zeros.
func (b *batch) addRun(block int, first, pages uint64) {
	if b.append(block, first, pages) == wire.KindZero {
		b.o.zeroPages.Add(pages)
	} else {
		b.o.dataPages.Add(pages)
		b.o.sentAs[b.kind].Add(pages)
	}
}

func (b *batch) append(block int, first, pages uint64) (kind wire.Kind) {
	mem := b.o.blocks[block].run(first, pages)
	kind, count := wire.KindData, uint32(pages)
	if mem == nil {
		kind = wire.KindZero
	} else {
		b.bytes += len(mem)
	}
	grows := b.open.Count > 0 && b.open.Block == uint16(block) && b.open.Kind == kind &&
		b.open.First+uint64(b.open.Count) == first &&
		(kind == wire.KindZero || b.open.Count+count <= wire.MaxRunPages)
	if !grows {
		b.seal()
		b.open = wire.RAM{Block: uint16(block), Kind: kind, First: first}
		b.mem = mem
	}
	b.open.Count += count
	if kind == wire.KindData {
		b.mem = b.mem[:b.open.Count*wire.PageSize] // pages follow one another in the block
	}
	return kind
}

// seal closes the run that could still grow.
func (b *batch) seal() {
	if b.open.Count == 0 {
		return
	}
	run, payload := b.sealer.seal(b.open, b.mem)
	from := len(b.headers)
	b.headers = wire.AppendRAM(b.headers, run)
	b.bufs = append(b.bufs, b.headers[from:])
	if len(payload) > 0 {
		b.bufs = append(b.bufs, payload)
	}
	b.open, b.mem = wire.RAM{}, nil
}

// send writes everything to c and empties the batch.
func (b *batch) send(c net.Conn) error {
	b.seal()
	start := time.Now()
	n, err := writeAll(c, b.bufs)
	b.o.count(b.channel, n)
	b.sent = int(n)
	b.sealer.sent(time.Since(start))
	clear(b.bufs)
	b.bufs, b.headers, b.bytes = b.bufs[:0], b.headers[:0], 0
	return err
}
