package migration

import "time"

// A sampler notes in the events, from time to time, how many pages have gone
// which way. Whoever sends them only counts. A nil *sampler does nothing.
type sampler struct {
	ram    *outgoing
	events *EventLog
	again  chan struct{} // has room for one
	over   chan struct{}
	ended  chan struct{}
}

// A sample is leastSample after the one before, then by one part in sampleShare
// of the time that has gone by since restart, at most mostSample: as fine as a
// picture of all of it can show, and few enough to be kept.
const (
	leastSample = 20 * time.Millisecond
	sampleShare = 64
	mostSample  = 10 * time.Second
)

func newSampler(ram *outgoing, events *EventLog) *sampler {
	if events == nil {
		return nil
	}
	p := &sampler{ram: ram, events: events, again: make(chan struct{}, 1), over: make(chan struct{}), ended: make(chan struct{})}
	go p.run()
	return p
}

// restart takes a sample, and has those that follow come as at the beginning.
func (p *sampler) restart() {
	if p != nil {
		offer(p.again, struct{}{})
	}
}

// stop takes the last sample.
func (p *sampler) stop() {
	if p != nil {
		close(p.over)
		<-p.ended
	}
}

func (p *sampler) run() {
	defer close(p.ended)
	began := time.Now()
	tick := time.NewTimer(0)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-p.again:
			began = time.Now()
		case <-p.over:
			p.take()
			return
		}
		p.take()
		tick.Reset(sampleAfter(time.Since(began)))
	}
}

// sampleAfter is how long to wait when so much time has gone by.
func sampleAfter(gone time.Duration) time.Duration {
	return min(max(gone/sampleShare, leastSample), mostSample)
}

func (p *sampler) take() {
	o := p.ram
	p.events.add(EventPages, pagesEvent{
		Precopy: o.sentAs[sendsLive].Load(), Pushed: o.sentAs[sendsBulk].Load(), Requested: o.sentAs[sendsUrgent].Load(),
		Zero: o.zeroPages.Load(), PagesLeft: o.total - o.claimed.Load(), Requests: o.requests.Load(), BytesWire: o.wire.Load(),
	})
}
