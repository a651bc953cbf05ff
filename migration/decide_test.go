package migration

import (
	"strings"
	"testing"
	"time"
)

// A pass of a second in which 100 MiB were sent: what comes next depends on how much
// was written meanwhile, on the mode, and on what the passes and the time are bounded to.
func TestWhatComesAfterAPass(t *testing.T) {
	const sent = 100 << 20
	few, most := uint64(1<<20), uint64(90<<20) // bytes written
	limited := Options{Rounds: 3, Timeout: time.Minute}
	switching := limited
	switching.TimeoutSwitches = true
	for _, c := range []struct {
		name    string
		mode    Mode
		opt     Options
		number  int
		dirty   uint64
		elapsed time.Duration
		want    verdict
		why     string
	}{
		{"the rest fits", ModePrecopy, Options{}, 2, few, time.Second, verdictFinish, "within the downtime of 300ms"},
		{"the rest does not fit the downtime asked for", ModePrecopy, Options{Downtime: time.Millisecond}, 2, few, time.Second, verdictGoOn, "thus 10ms to send"},
		{"it does not get smaller", ModePrecopy, Options{}, 99, most, time.Hour, verdictGoOn, "90.0 MiB left"},
		{"the last pass that is allowed", ModePrecopy, limited, 3, most, time.Second, verdictGiveUp, "no more passes were allowed"},
		{"the last pass, then postcopy", ModePrecopy, switching, 3, most, time.Second, verdictSwitch, "no more passes were allowed"},
		{"the last pass was enough", ModePrecopy, switching, 3, few, time.Second, verdictFinish, "within the downtime"},
		{"out of time, then postcopy", ModePrecopy, switching, 2, most, time.Minute, verdictSwitch, "the timeout of 1m0s is over"},
		{"hybrid gains by another", ModeHybrid, Options{}, 1, 50 << 20, time.Second, verdictGoOn, "50.0 MiB left"},
		{"hybrid gains nothing", ModeHybrid, Options{}, 1, most, time.Second, verdictSwitch, "another pass would leave 81.0 MiB"},
		{"hybrid has nothing left", ModeHybrid, Options{}, 1, 0, time.Second, verdictSwitch, "0.0 MiB left"},
		{"hybrid's number of passes", ModeHybrid, limited, 3, few, time.Second, verdictSwitch, "no more passes were allowed"},
		{"hybrid's number of passes is not reached", ModeHybrid, limited, 2, most, time.Second, verdictGoOn, "written at 90.0 MiB/s"},
	} {
		c.opt.Mode = c.mode
		got, why := c.opt.decide(pass{number: c.number, sent: sent, took: time.Second, dirty: c.dirty, elapsed: c.elapsed})
		if got != c.want || !strings.Contains(why, c.why) {
			t.Errorf("%s: %v, want %v; because %q, want %q", c.name, got, c.want, why, c.why)
		}
	}
}
