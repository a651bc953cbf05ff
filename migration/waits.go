package migration

import (
	"sync"
	"sync/atomic"
	"time"
)

// noVCPU marks a wait by a thread that is no vCPU, or is not known to be one yet.
const noVCPU = -1

// wait is somebody who waits for a page.
type wait struct {
	block int
	page  uint64 // host page
	tid   int    // kernel thread; 0 for a device
	vcpu  int    // or noVCPU
	since time.Time
	asked time.Time // when the request was written, if this wait brought it about
}

// waits keeps who waits for which page, and adds up for how long: the latency
// of faults, the blocktime of each vCPU, and the time in which all of them
// stood still.
//
// There are never more waits than threads that can wait, so a list searched
// from end to end beats anything cleverer, and it is allocated once.
type waits struct {
	// waiting lets whoever places a page that nobody waits for pass without
	// the lock.
	waiting atomic.Int32
	latency histogram
	// request and reply are the parts of latency before and after the request
	// was written, of waits that brought one about; travel and place those of
	// reply before and after the page was in hand here.
	request, reply, travel, place histogram

	mu          sync.Mutex
	list        []wait
	vcpuOf      map[int]int // by thread id; nil until the vCPUs run
	known       time.Time   // since when
	vcpu        []time.Duration
	blocked     []bool    // by vCPU
	nblocked    int       // how many of them
	allSince    time.Time // when the last running vCPU came to wait
	all         time.Duration
	devices     int // waits of devices
	deviceSince time.Time
	device      time.Duration
	// async are the waits of the kernel's workers since the vCPUs run: KVM has
	// one fetch a page that a vCPU touched, when it can have the vCPU halt or
	// run something else of the guest's meanwhile.
	async uint64
}

// maxWaits is room for the waits of the largest VM's vCPUs and of as many
// threads of the kernel and the devices.
const maxWaits = 256

func newWaits() *waits { return &waits{list: make([]wait, 0, maxWaits)} }

// setVCPUs tells which thread is which vCPU. Waits from before are put right.
func (w *waits) setVCPUs(tids []int, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.known = now
	w.vcpuOf = make(map[int]int, len(tids))
	w.vcpu = make([]time.Duration, len(tids))
	w.blocked = make([]bool, len(tids))
	for i, tid := range tids {
		w.vcpuOf[tid] = i
	}
	for i := range w.list {
		w.attribute(&w.list[i])
	}
}

// attribute finds out whether e is a vCPU's, and has it counted as blocked.
// w.mu is held.
func (w *waits) attribute(e *wait) {
	if e.tid == 0 {
		return
	}
	i, ok := w.vcpuOf[e.tid]
	if !ok || w.blocked[i] {
		return
	}
	e.vcpu = i
	w.blocked[i] = true
	w.nblocked++
	if w.nblocked == len(w.blocked) {
		w.allSince = e.since
	}
}

// add notes that thread tid, or a device for 0, waits for a page since now.
func (w *waits) add(block int, page uint64, tid int, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.list = append(w.list, wait{block: block, page: page, tid: tid, vcpu: noVCPU, since: now})
	w.waiting.Add(1)
	e := &w.list[len(w.list)-1]
	if tid == 0 {
		if w.devices == 0 {
			w.deviceSince = now
		}
		w.devices++
		return
	}
	w.attribute(e)
}

// asked notes that requests were written just now for pages that somebody
// waits for since then.
func (w *waits) asked(pages []pageRequest, since, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range pages {
		w.request.add(now.Sub(since))
		for i := range w.list {
			// Without one the answer was here before we were.
			if e := &w.list[i]; e.page == p.page && e.block == p.block {
				e.asked = now
				break
			}
		}
	}
}

// placed ends the waits for host pages [first, first+n) of a block, which were
// in hand when it was came, and tells whether there were any.
func (w *waits) placed(block int, first, n uint64, came, now time.Time) bool {
	if w.waiting.Load() == 0 {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	kept := w.list[:0]
	for _, e := range w.list {
		if e.block != block || e.page < first || e.page-first >= n {
			kept = append(kept, e)
			continue
		}
		w.end(e, came, now)
	}
	ended := len(w.list) - len(kept)
	w.list = kept
	w.waiting.Add(-int32(ended))
	return ended > 0
}

// end accounts for a wait that is over. w.mu is held.
func (w *waits) end(e wait, came, now time.Time) {
	// Whoever placed the page looked at the clock first, and may have been
	// held up before it came here.
	d := max(now.Sub(e.since), 0)
	w.latency.add(d)
	if !e.asked.IsZero() {
		if came.Before(e.asked) {
			came = e.asked // pushed: it was in hand before the request was written
		}
		w.reply.add(now.Sub(e.asked))
		w.travel.add(came.Sub(e.asked))
		w.place.add(now.Sub(came))
	}
	switch {
	case e.vcpu != noVCPU:
		if w.nblocked == len(w.blocked) {
			w.all += max(now.Sub(w.allSince), 0)
		}
		w.nblocked--
		w.blocked[e.vcpu] = false
		w.vcpu[e.vcpu] += d
	case e.tid != 0 && w.vcpuOf != nil:
		if _, ok := w.vcpuOf[e.tid]; !ok && !e.since.Before(w.known) {
			w.async++
		}
	case e.tid == 0:
		w.devices--
		if w.devices == 0 {
			w.device += max(now.Sub(w.deviceSince), 0)
		}
	}
}

// pending calls f for each page that somebody waits for.
func (w *waits) pending(f func(block int, page uint64)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.list {
		f(e.block, e.page)
	}
}

// report fills in what waits knows.
func (w *waits) report(s *stats) {
	s.Faults.Count = w.latency.count.Load()
	s.Faults.TotalNS = w.latency.total.Load()
	s.Faults.P50NS = int64(w.latency.quantile(0.50))
	s.Faults.P90NS = int64(w.latency.quantile(0.90))
	s.Faults.P99NS = int64(w.latency.quantile(0.99))
	s.Faults.MaxNS = w.latency.max.Load()
	s.Faults.Histogram = w.latency.log2Micros()
	s.Faults.Phases = FaultPhases{
		RequestP50NS: int64(w.request.quantile(0.50)), RequestP99NS: int64(w.request.quantile(0.99)),
		ReplyP50NS: int64(w.reply.quantile(0.50)), ReplyP99NS: int64(w.reply.quantile(0.99)),
		TravelP50NS: int64(w.travel.quantile(0.50)), TravelP99NS: int64(w.travel.quantile(0.99)),
		PlaceP50NS: int64(w.place.quantile(0.50)), PlaceP99NS: int64(w.place.quantile(0.99)),
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s.Faults.Async = w.async
	s.BlocktimeNS = int64(w.all)
	s.DeviceBlocktimeNS = int64(w.device)
	s.VCPUBlocktimeNS = make([]int64, len(w.vcpu))
	for i, d := range w.vcpu {
		s.VCPUBlocktimeNS[i] = int64(d)
	}
}
