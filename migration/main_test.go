package migration

import (
	"os"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	drainTimeout = 50 * time.Millisecond
	os.Exit(m.Run())
}
