package plot

import (
	"time"

	"microvm/migration"
)

// A Record is what is known of one migration.
type Record struct {
	Side migration.Owner
	VM   string
	ID   string
	// Began is when its first event happened; zero: there are no events.
	Began time.Time
	// Report is nil while the migration goes on, and at a destination.
	Report *migration.Report
	// Torn says that the last line of the events was not whole.
	Torn bool

	// Times are since Began, in the order of the events, and never go back.
	last       time.Duration
	end        *endData // nil: it goes on
	states     []state
	pages      series[pagesSample]
	faults     series[faultsSample]
	waits      *faultsData // the latest
	passes     series[passSample]
	recoveries []interval
	downtime   migration.Downtime
	total      int64         // downtime in nanoseconds; 0: not over, or not known
	stopped    time.Duration // when the downtime began; 0: not known
	why        string
}

// state is where the migration was from a time on.
type state struct {
	at   time.Duration
	name string
}

// interval is a time in which the connections were broken.
type interval struct {
	from, to time.Duration
	open     bool // still
}

type pagesSample struct {
	at time.Duration
	pagesData
}

type faultsSample struct {
	at    time.Duration
	count uint64
}

type passSample struct {
	at time.Duration
	passData
}

// mostStates bounds what a file can have us keep of states and recoveries.
const mostStates = 4096

// series is samples in the order of time: at most mostSamples, then with every
// other dropped.
type series[T any] struct {
	samples []T
	every   int // one of so many is kept
	skipped int
	latest  T // which is always kept
	any     bool
}

const mostSamples = 8192

func (s *series[T]) add(v T) {
	s.latest, s.any = v, true
	if s.every > 1 {
		if s.skipped++; s.skipped < s.every {
			return
		}
		s.skipped = 0
	}
	s.samples = append(s.samples, v)
	if len(s.samples) == mostSamples {
		for i := range mostSamples / 2 {
			s.samples[i] = s.samples[2*i]
		}
		s.samples = s.samples[:mostSamples/2]
		s.every = max(1, s.every) * 2
	}
}

// all gives the samples, the latest one last.
func (s *series[T]) all() []T {
	if s.any && s.skipped > 0 {
		return append(s.samples[:len(s.samples):len(s.samples)], s.latest)
	}
	return s.samples
}

// entered is when the migration first came to one of these states.
func (r *Record) entered(names ...string) (time.Duration, bool) {
	for _, s := range r.states {
		for _, name := range names {
			if s.name == name {
				return s.at, true
			}
		}
	}
	return 0, false
}

// phase is where it is, or was at the end.
func (r *Record) phase() string {
	if len(r.states) == 0 {
		return ""
	}
	return r.states[len(r.states)-1].name
}
