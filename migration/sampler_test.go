package migration

import (
	"testing"
	"time"
)

// TestSamplesOfAnHourAreFew: they are kept in memory beside all other events.
func TestSamplesOfAnHourAreFew(t *testing.T) {
	n := 0
	for gone := time.Duration(0); gone < time.Hour; gone += sampleAfter(gone) {
		n++
	}
	if n > keptEvents/4 {
		t.Errorf("%d samples", n)
	}
	// And those of the first second show what it was like.
	n = 0
	for gone := time.Duration(0); gone < time.Second; gone += sampleAfter(gone) {
		n++
	}
	if n < 40 {
		t.Errorf("%d samples of a second", n)
	}
}

func TestWithoutALogNothingIsSampled(t *testing.T) {
	p := newSampler(&outgoing{}, nil)
	p.restart()
	p.stop()
}
