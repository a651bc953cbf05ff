package migration

import (
	"os"
	"testing"
	"time"
)

// drainFor changes, for one test, how long each side waits for the other to
// have heard its last word. The 50 ms that most tests get by with are too short
// for one that depends on its being heard, on a machine under load.
func drainFor(t *testing.T, d time.Duration) {
	short := drainTimeout
	drainTimeout = d
	t.Cleanup(func() { drainTimeout = short })
}

func TestMain(m *testing.M) {
	drainTimeout = 50 * time.Millisecond
	os.Exit(m.Run())
}
