package migration

import (
	"context"
	"errors"
	"testing"
	"time"
)

// The limiter knows beforehand that a deadline comes before its turn.
func TestADeadlineUnderABandwidthLimitIsATimeout(t *testing.T) {
	ctx, stop := context.WithTimeoutCause(t.Context(), 10*time.Millisecond, ErrTimeout)
	defer stop()
	if err := newLimiter(1).wait(ctx, 10*limiterBurst); !errors.Is(err, ErrTimeout) {
		t.Errorf("%v", err)
	}
	if ctx.Err() == nil {
		t.Error("before the deadline")
	}
}
