package migration

import (
	"context"
	"errors"
	"net"
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

// TestWhoWaitsForHisTurnHearsThatThePeerIsGone, in words that a person can do
// something with.
func TestWhoWaitsForHisTurnHearsThatThePeerIsGone(t *testing.T) {
	main, far := net.Pipe()
	urgent, farUrgent := net.Pipe()
	defer farUrgent.Close()
	l := newLink(main, urgent, nil)
	go l.listen(&Source{ram: &outgoing{}})
	go far.Close()
	if err := newLimiter(1).wait(l.alive, 10*limiterBurst); !errors.Is(err, errPeerGone) {
		t.Errorf("%v", err)
	}
	<-l.closed
}
