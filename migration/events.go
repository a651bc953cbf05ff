package migration

import (
	"errors"
	"slices"
	"sync"
	"time"
)

// Event is something that happened in a migration. Its JSON form, and that of
// Data for each type, is documented in docs/events.md and part of the command
// line's contract.
type Event struct {
	Time time.Time `json:"time"` // UTC
	// Seq numbers the events of one side, from 1. Dropped is how many right
	// before this one the reader came too late for.
	Seq     uint64    `json:"seq"`
	Dropped uint64    `json:"dropped"`
	Side    Owner     `json:"side"`
	VM      string    `json:"vm"`
	ID      string    `json:"id"` // of the migration, "" before it is known
	Type    EventType `json:"event"`
	Data    any       `json:"data"` // one of the types below
}

// EventType says what happened.
type EventType string

const (
	EventState         EventType = "state"
	EventPass          EventType = "pass"
	EventThrottle      EventType = "throttle"
	EventSwitch        EventType = "switch"
	EventDowntime      EventType = "downtime"
	EventRecoveryBegin EventType = "recovery-begin"
	EventRecoveryEnd   EventType = "recovery-end"
	EventFaults        EventType = "faults"
	EventPages         EventType = "pages"
	EventEnd           EventType = "end"
)

// What Event.Data is, by type.
type (
	stateEvent struct {
		From Phase `json:"from"`
		To   Phase `json:"to"`
	}
	passEvent struct {
		Number          int     `json:"number"`
		SentBytes       uint64  `json:"sent_bytes"`
		TookNS          int64   `json:"took_ns"`
		DirtyBytes      uint64  `json:"dirty_bytes"`
		SentPerSecond   float64 `json:"sent_bytes_per_s"`
		DirtyPerSecond  float64 `json:"dirty_bytes_per_s"`
		ThrottlePercent int     `json:"throttle_percent"`
		Verdict         string  `json:"verdict"`
	}
	throttleEvent struct {
		Percent int `json:"percent"`
	}
	switchEvent struct {
		To        string `json:"to"`
		Reason    string `json:"reason"`
		PagesLeft uint64 `json:"pages_left"`
	}
	downtimeEvent struct {
		Part   string `json:"part"`
		TookNS int64  `json:"took_ns"`
	}
	recoveryBeginEvent struct {
		Error     string `json:"error"`
		PagesLeft uint64 `json:"pages_left"`
	}
	recoveryEndEvent struct {
		Recoveries int    `json:"recoveries"`
		TookNS     int64  `json:"took_ns"`
		PagesLeft  uint64 `json:"pages_left"`
	}
	faultsEvent struct {
		Count             uint64      `json:"count"`
		Requested         uint64      `json:"requested"`
		Async             uint64      `json:"async"`
		P50NS             int64       `json:"p50_ns"`
		P90NS             int64       `json:"p90_ns"`
		P99NS             int64       `json:"p99_ns"`
		MaxNS             int64       `json:"max_ns"`
		BlocktimeNS       int64       `json:"blocktime_ns"`
		VCPUBlocktimeNS   []int64     `json:"vcpu_blocktime_ns"`
		DeviceBlocktimeNS int64       `json:"device_blocktime_ns"`
		PagesLeft         uint64      `json:"pages_left"`
		Phases            FaultPhases `json:"phases"`
	}
	pagesEvent struct {
		Precopy   uint64 `json:"pages_precopy"`
		Pushed    uint64 `json:"pages_pushed"`
		Requested uint64 `json:"pages_requested"`
		Zero      uint64 `json:"pages_zero"`
		PagesLeft uint64 `json:"pages_left"`
		Requests  uint64 `json:"requests"`
		BytesWire uint64 `json:"bytes_wire"`
	}
	endEvent struct {
		Result Result  `json:"result"`
		Owner  Owner   `json:"owner"`
		Error  string  `json:"error"`
		Report *Report `json:"report"` // of the source
	}
)

// keptEvents bounds an EventLog: a reader that is further behind has lost some.
// A precopy of as many passes, or a quarter of an hour of postcopy, fit in.
const keptEvents = 4096

// EventLog keeps the last events of one side of a migration for whoever wants
// to read them, at whatever speed. To add one never waits for a reader. A nil
// *EventLog keeps nothing.
type EventLog struct {
	mu sync.Mutex
	// first is the number of the oldest event in ring, which begins at 1.
	ring  []Event
	next  uint64        // number of the event to come, less 1
	more  chan struct{} // closed at the next event
	of    Event         // Side, VM and ID
	broke time.Time     // when the connections did
	times int           // how often they were mended
}

// NewEventLog makes an empty one, to be given to a Source or a Destination in
// its options. vm is what its events call the VM.
func NewEventLog(vm string) *EventLog {
	return &EventLog{more: make(chan struct{}), of: Event{VM: vm}}
}

// Read gives the events from number seq on, and a channel that is closed when
// there are more than these. The first of them says in Dropped how many that
// should have come before it are gone.
func (l *EventLog) Read(seq uint64) (events []Event, more <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	seq = max(seq, 1)
	if seq > l.next {
		return nil, l.more
	}
	oldest := l.next - uint64(len(l.ring)) + 1
	for n := max(seq, oldest); n <= l.next; n++ {
		events = append(events, l.ring[(n-1)%keptEvents])
	}
	events[0].Dropped = max(seq, oldest) - seq
	return events, l.more
}

// SetVM gives what events from now on call the VM.
func (l *EventLog) SetVM(vm string) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of.VM = vm
}

// begin says which side of which migration this is about.
func (l *EventLog) begin(side Owner, id string) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.of.Side, l.of.ID = side, id
}

// add notes an event.
func (l *EventLog) add(t EventType, data any) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.addLocked(t, data)
}

func (l *EventLog) addLocked(t EventType, data any) {
	e := l.of
	l.next++
	e.Time, e.Seq, e.Type, e.Data = time.Now().UTC(), l.next, t, data
	if len(l.ring) < keptEvents {
		l.ring = append(l.ring, e)
	} else {
		l.ring[(e.Seq-1)%keptEvents] = e
	}
	close(l.more)
	l.more = make(chan struct{})
}

func (l *EventLog) downtime(part string, ns int64) {
	l.add(EventDowntime, downtimeEvent{part, ns})
}

// broken and mended are the two ends of a recovery.
func (l *EventLog) broken(err error, pagesLeft uint64) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.broke = time.Now()
	l.addLocked(EventRecoveryBegin, recoveryBeginEvent{err.Error(), pagesLeft})
}

func (l *EventLog) mended(pagesLeft uint64) {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.times++
	l.addLocked(EventRecoveryEnd, recoveryEndEvent{l.times, int64(time.Since(l.broke)), pagesLeft})
}

func (l *EventLog) faults(s *stats) {
	if l == nil {
		return
	}
	f := &s.Faults
	l.add(EventFaults, faultsEvent{
		Count: f.Count, Requested: f.Requested, Async: f.Async, Phases: f.Phases, P50NS: f.P50NS, P90NS: f.P90NS, P99NS: f.P99NS, MaxNS: f.MaxNS,
		BlocktimeNS: s.BlocktimeNS, VCPUBlocktimeNS: slices.Clone(s.VCPUBlocktimeNS), DeviceBlocktimeNS: s.DeviceBlocktimeNS,
		PagesLeft: s.PagesLeft,
	})
}

// phaseCell holds the phase of one side, and notes its changes.
type phaseCell struct {
	events *EventLog
	mu     sync.Mutex
	phase  Phase
}

func (c *phaseCell) Load() Phase {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.phase
}

func (c *phaseCell) Store(p Phase) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.change(p)
}

// CompareAndSwap makes the phase to if it is from, and tells whether it was.
func (c *phaseCell) CompareAndSwap(from, to Phase) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase != from {
		return false
	}
	c.change(to)
	return true
}

// change does it, with the event in the order of the changes. mu is held.
func (c *phaseCell) change(to Phase) {
	if c.phase != to {
		c.events.add(EventState, stateEvent{c.phase, to})
	}
	c.phase = to
}

func (l *EventLog) passed(p pass, v verdict, throttle int) {
	seconds := max(p.took, time.Microsecond).Seconds()
	l.add(EventPass, passEvent{
		Number: p.number, SentBytes: p.sent, TookNS: int64(p.took), DirtyBytes: p.dirty,
		SentPerSecond: float64(p.sent) / seconds, DirtyPerSecond: float64(p.dirty) / seconds,
		ThrottlePercent: throttle, Verdict: v.String(),
	})
}

func (l *EventLog) switched(v verdict, why string, pagesLeft uint64) {
	to := "postcopy"
	if v == verdictFinish {
		to = "stop-and-copy"
	}
	l.add(EventSwitch, switchEvent{To: to, Reason: why, PagesLeft: pagesLeft})
}

// ended is the last event of the source, unless the migration is paused and
// taken up again.
func (l *EventLog) ended(r *Report) {
	copied := *r // which its owner goes on with
	l.add(EventEnd, endEvent{r.Result, r.Owner, r.Error, &copied})
}

// received is the last event of the destination.
func (l *EventLog) received(err error) {
	end := endEvent{Result: ResultCompleted, Owner: OwnerDestination}
	var lost *LostError
	switch {
	case errors.As(err, &lost):
		end.Result, end.Error = ResultLost, err.Error()
	case err != nil:
		end.Result, end.Owner, end.Error = ResultFailed, OwnerSource, err.Error()
	}
	l.add(EventEnd, end)
}
