package migration

import (
	"context"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// lane is one of the connections that bulk RAM is spread over, at the source.
type lane struct {
	conn    net.Conn
	channel int // its place among the migration's channels
}

// lanesOf tells where bulk RAM goes. Nobody reads from main by what is in a
// lane, so it needs no prompt reads, and what is given as several buffers goes
// out in one system call.
func lanesOf(main net.Conn, multi []net.Conn) []lane {
	if len(multi) == 0 {
		return []lane{{main, mainChannel}}
	}
	var lanes []lane
	for i, c := range multi {
		lanes = append(lanes, lane{c, multiChannels + i})
	}
	return lanes
}

// hostPage is a page that has been claimed.
type hostPage struct {
	block  int
	page   uint64
	partly bool // only what has changed of it goes
}

// spread sends pages over all lanes of a link at once. Each has a sender, which
// takes as many pages as make a batch whenever it has sent the one before: a
// lane that is slow takes fewer of them and holds up nobody. So two contents of
// a page, sent one after the other, may go by two lanes; SYNC keeps them apart.
type spread struct {
	l       *link
	pace    *limiter // of all lanes together
	senders []laneSender
	failed  atomic.Bool

	mu sync.Mutex
	// take claims pages and appends them to those it is given: as many as
	// there is room for in bytes, at least one, or none when all have been.
	// One sender is in it at a time.
	take func(pages []hostPage, room int) ([]hostPage, error)
}

type laneSender struct {
	lane
	batch *batch
	pages []hostPage // room for what is taken at a time
}

// leastBatch is what one of many senders sends at a time all the same, in bytes.
const leastBatch = 32 << 10

func newSpread(o *outgoing, l *link, kind sending, bandwidth uint64, take func([]hostPage, int) ([]hostPage, error)) *spread {
	s := &spread{l: l, pace: newLimiter(bandwidth), take: take}
	for _, lane := range l.lanes {
		out := laneSender{lane: lane, batch: newBatch(o, lane.channel, kind)}
		// What is claimed and not sent is bounded for all of them together.
		out.batch.limit = max(batchBytes/len(l.lanes), leastBatch)
		s.senders = append(s.senders, out)
	}
	return s
}

// errNotWanted ends what is sent to a receiver that has said its last word.
var errNotWanted = errors.New("the destination wants no more pages")

// run sends until there is nothing to take. After an error, the first that a
// sender met, nothing is being sent any more either.
func (s *spread) run(ctx context.Context) error {
	results := make(chan error, len(s.senders))
	for i := range s.senders[1:] {
		go func() { results <- s.send(ctx, &s.senders[1+i]) }()
	}
	err := s.send(ctx, &s.senders[0])
	for range s.senders[1:] {
		if other := <-results; err == nil {
			err = other
		}
	}
	return err
}

// send is one sender.
func (s *spread) send(ctx context.Context, out *laneSender) (err error) {
	defer func() {
		if err != nil {
			s.failed.Store(true)
		}
	}()
	for !s.failed.Load() {
		select {
		case <-s.l.closed: // broken, or no more pages are wanted
			return errNotWanted
		default:
		}
		// Before pages are claimed, so that nobody waits for one that is
		// held back here.
		start := time.Now()
		if err := s.pace.wait(ctx, out.batch.sent); err != nil {
			return err
		}
		out.batch.sealer.waited(time.Since(start))
		if err := s.gather(out); err != nil {
			return err
		}
		if out.batch.empty() {
			return nil
		}
		if err := out.batch.send(out.conn); err != nil {
			return err
		}
	}
	return nil
}

// gather fills a sender's batch. Looking for zeros is the work, and is done by
// all senders at once.
func (s *spread) gather(out *laneSender) error {
	for !out.batch.full() {
		s.mu.Lock()
		pages, err := s.take(out.pages[:0], out.batch.limit-out.batch.bytes)
		s.mu.Unlock()
		out.pages = pages
		if err != nil || len(pages) == 0 {
			return err
		}
		for _, p := range pages {
			if p.partly {
				out.batch.addChanges(p.block, p.page)
			} else {
				out.batch.add(p.block, p.page)
			}
		}
	}
	return nil
}
