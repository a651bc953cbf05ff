package virtiotest

import (
	"testing"
	"time"
)

// patience is how long Until waits.
const patience = 20 * time.Second

// Until waits for what no interrupt tells of: what a device counts, or has
// taken from a file.
func Until(t testing.TB, what string, is func() bool) {
	t.Helper()
	for late := time.Now().Add(patience); !is(); time.Sleep(time.Millisecond) {
		if time.Now().After(late) {
			t.Fatalf("%s: it does not come to that", what)
		}
	}
}
