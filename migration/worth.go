package migration

import "time"

// worth decides for one sender whether to compress. It knows nothing of codecs
// and links: it holds what memory takes to get away with compression against
// what it takes without, as measured, the waits for the link and for a bandwidth
// limit included, and goes the cheaper way.
//
//   - It begins with compression, then goes without, and after that the cheaper
//     way; compression has to be a tenth cheaper to be it, since undoing it costs
//     the destination something too.
//   - The cost of a way is an average over windows of 1 MiB of memory since it
//     was turned to, in which the newest counts for half.
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
	plain    wayCost
	packed   wayCost

	settle int           // bytes of memory left that do not count
	bytes  int           // of memory in this window
	spent  time.Duration // on them
	since  time.Duration // that this way was gone
	stale  bool          // what this way cost is from when it was gone last
	trial  bool          // this way is gone to see what it costs
	pause  int           // before the other way is tried again, in times what that takes
}

// wayCost is what a way costs, in nanoseconds for a byte of memory; 0 is not known.
type wayCost float64

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
	now := wayCost(float64(max(w.spent, 1)) / float64(w.bytes))
	if *this != 0 && !w.stale {
		now = (*this + now) / 2
	}
	*this, w.stale, w.bytes, w.spent = now, false, 0, 0
	switch {
	case *other == 0:
		w.turn(true)
	case w.better() != w.compress:
		if w.trial { // in vain
			w.pause = min(2*w.pause, worthPause)
		}
		w.turn(false)
	case w.trial: // not in vain: much may be different now
		w.trial, w.pause = false, worthFirst
	case w.since >= time.Duration(float64(w.pause)*float64(*other)*(worthWindow+worthSettle)):
		w.turn(true)
	}
}

// turn goes the other way.
func (w *worth) turn(trial bool) {
	w.compress, w.trial, w.settle, w.since, w.stale = !w.compress, trial, worthSettle, 0, true
}

// better tells whether compressing is the better way. Both costs are known.
func (w *worth) better() bool { return w.packed < worthGain*w.plain }
