package migration

import (
	"fmt"
	"time"
)

// Mode is how memory moves.
type Mode string

const (
	// ModePostcopy runs the guest at the destination first.
	ModePostcopy Mode = "postcopy"
	// ModeHybrid sends memory while the guest runs at the source, and
	// switches to postcopy when that no longer gets anywhere.
	ModeHybrid Mode = "hybrid"
	// ModePrecopy sends all of it before the guest runs at the destination.
	ModePrecopy Mode = "precopy"
)

// defaultDowntime is what the last pass of precopy may take, with the guest
// stopped.
const defaultDowntime = 300 * time.Millisecond

// pass is what one pass of precopy showed.
type pass struct {
	number  int
	sent    uint64        // bytes of memory, however many they were on the wire
	took    time.Duration // to send them
	dirty   uint64        // bytes that are to be sent again
	elapsed time.Duration // since the first pass began
}

type verdict int

const (
	verdictGoOn   verdict = iota // one more pass
	verdictFinish                // send what is left with the guest stopped
	verdictSwitch                // to postcopy
	verdictGiveUp
)

func (v verdict) String() string { return [...]string{"go on", "finish", "switch", "give up"}[v] }

// stalled is the share of what is left that another pass would leave again,
// from which on hybrid takes passes for useless.
const stalled = 0.75

// decide says after a pass what comes next, and why.
//
// What is left would take dirty/rate to send, and in that time the guest would
// write at the pace at which it wrote during the last pass. If that leaves not
// much less than there is now, another pass does not help: hybrid switches.
// Precopy switches only when what is left fits into the downtime.
func (o *Options) decide(p pass) (verdict, string) {
	rate := float64(p.sent) / max(p.took, time.Microsecond).Seconds() // bytes/s
	writes := float64(p.dirty) / max(p.took, time.Microsecond).Seconds()
	next := time.Duration(float64(p.dirty) / max(rate, 1) * float64(time.Second))
	target := o.Downtime
	if target == 0 {
		target = defaultDowntime
	}
	state := fmt.Sprintf("after pass %d: %s left, written at %s/s, sent at %s/s, thus %v to send",
		p.number, mib(float64(p.dirty)), mib(writes), mib(rate), next.Round(time.Millisecond))
	switch {
	case next <= target && o.Mode == ModePrecopy:
		return verdictFinish, fmt.Sprintf("%s, within the downtime of %v", state, target)
	case o.Mode == ModeHybrid && o.Rounds > 0 && p.number >= o.Rounds:
		return verdictSwitch, fmt.Sprintf("%s; no more passes were allowed", state)
	case o.Mode == ModeHybrid && o.Rounds == 0 && (p.dirty == 0 || writes*next.Seconds() >= stalled*float64(p.dirty)):
		return verdictSwitch, fmt.Sprintf("%s; another pass would leave %s", state, mib(writes*next.Seconds()))
	case o.Timeout > 0 && p.elapsed >= o.Timeout && o.TimeoutSwitches:
		return verdictSwitch, fmt.Sprintf("%s; the timeout of %v is over", state, o.Timeout)
	case o.Mode == ModePrecopy && o.Rounds > 0 && p.number >= o.Rounds:
		verdict := verdictGiveUp
		if o.TimeoutSwitches {
			verdict = verdictSwitch
		}
		return verdict, fmt.Sprintf("%s, not within the downtime of %v; no more passes were allowed", state, target)
	}
	return verdictGoOn, state
}

func mib(bytes float64) string { return fmt.Sprintf("%.1f MiB", bytes/(1<<20)) }
