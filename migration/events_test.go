package migration

import (
	"testing"
	"time"
)

// Nobody reads, until it is too late for most: the migration has not waited,
// and what is missing is counted.
func TestEventsThatNobodyReadsAreDroppedAndCounted(t *testing.T) {
	l := NewEventLog("a")
	l.begin(OwnerSource, "id")
	_, more := l.Read(1)
	const all = keptEvents + 100
	for i := range all {
		l.add(EventThrottle, throttleEvent{i})
	}
	select {
	case <-more:
	default:
		t.Error("a reader that waits does not hear that there is something")
	}
	events, _ := l.Read(1)
	if len(events) != keptEvents || events[0].Dropped != 100 || events[0].Seq != 101 || events[len(events)-1].Seq != all {
		t.Errorf("%d events, %d dropped, from %d to %d", len(events), events[0].Dropped, events[0].Seq, events[len(events)-1].Seq)
	}
	for i, e := range events {
		if e.Data.(throttleEvent).Percent != i+100 || (i > 0 && e.Dropped != 0) || e.VM != "a" || e.ID != "id" || e.Side != OwnerSource {
			t.Fatalf("event %d is %+v", i, e)
		}
	}
	events, more = l.Read(all)
	if len(events) != 1 || events[0].Dropped != 0 {
		t.Errorf("at the end: %+v", events)
	}
	if events, _ := l.Read(all + 1); events != nil {
		t.Errorf("after the end: %+v", events)
	}
	select {
	case <-more:
		t.Error("a reader is told that there is more")
	default:
	}
}

func TestWithoutALogNothingIsKept(t *testing.T) {
	var l *EventLog
	l.begin(OwnerSource, "")
	l.downtime("pause", int64(time.Second))
	l.broken(ErrCancelled, 1)
	l.mended(1)
	l.faults(&stats{})
	l.ended(&Report{})
	l.received(nil)
}
