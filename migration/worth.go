package migration

import (
	"slices"
	"time"
)

// worth decides for one sender whether to compress. It knows nothing of codecs
// and links: it holds what memory takes to get away with compression against
// what it takes without, as measured, the waits for the link and for a bandwidth
// limit included, and goes the cheaper way.
//
//   - It begins with compression, then goes without, and after that the cheaper
//     way; compression has to be a tenth cheaper to be it, since undoing it costs
//     the destination something too.
//   - The cost of a way is the median of the last three windows of 1 MiB of memory:
//     one of them may have met a host that had something else to do.
//   - The other way is tried again for a window when 4 times the time has passed
//     that this is expected to take, then 8 times, and from the fourth trial in
//     vain on 32 times: a link may have become slower, memory easier to compress,
//     or the host have had something else to do. So trying costs about 3 % in the
//     long run.
//   - What goes out in the half MiB after a change, or at first, tells little: it
//     is what is still in the socket that decides how long it takes, and a codec
//     that has not been used needs memory first.
//
// Besides, a run is sent as it is if compression does not take an eighth off it.
type worth struct {
	compress bool // now
	plain    way
	packed   way

	settle int           // bytes of memory left that do not count
	bytes  int           // of memory in this window
	spent  time.Duration // on them
	since  time.Duration // that this way was gone
	trial  bool          // this way is gone to see what it costs
	pause  int           // before the other way is tried again, in times what that takes
}

// way is one of the two: what a byte of memory cost in its last windows, in
// nanoseconds. There may be none.
type way struct {
	last    [3]float64
	windows int
}

func (w *way) add(cost float64) {
	copy(w.last[1:], w.last[:])
	w.last[0] = cost
	w.windows = min(w.windows+1, len(w.last))
}

// cost is the median; of two the less, since what disturbs a measurement adds to it.
func (w *way) cost() float64 {
	last := w.last // a copy
	sort := last[:w.windows]
	slices.Sort(sort)
	return sort[(w.windows-1)/2]
}

const (
	worthWindow = 1 << 20
	worthSettle = worthWindow / 2
	worthGain   = 0.9
	worthFirst  = 4
	worthPause  = 32
)

func newWorth() *worth { return &worth{compress: true, settle: worthSettle, pause: worthFirst} }

// sent takes in that so many bytes of memory have gone out this way, and how
// long that took.
func (w *worth) sent(bytes int, took time.Duration) {
	w.since += took
	if w.settle > 0 {
		w.settle -= bytes
		return
	}
	w.bytes, w.spent = w.bytes+bytes, w.spent+took
	if w.bytes < worthWindow {
		return
	}
	this, other := &w.plain, &w.packed
	if w.compress {
		this, other = other, this
	}
	this.add(float64(w.spent) / float64(w.bytes))
	w.bytes, w.spent = 0, 0
	switch {
	case other.windows == 0:
		w.turn(true)
	case w.better() != w.compress:
		if !w.trial {
			other.windows = 0 // what it cost is of the past
		} else {
			w.pause = min(2*w.pause, worthPause) // in vain
		}
		w.turn(false)
	case w.trial: // not in vain: much may be different now
		w.trial, w.pause = false, worthFirst
	case w.since >= time.Duration(float64(w.pause)*other.cost()*(worthWindow+worthSettle)):
		other.windows = 0
		w.turn(true)
	}
}

// turn goes the other way.
func (w *worth) turn(trial bool) {
	w.compress, w.trial, w.settle, w.since = !w.compress, trial, worthSettle, 0
}

// better tells whether compressing is the better way. Both costs are known.
func (w *worth) better() bool { return w.packed.cost() < worthGain*w.plain.cost() }
