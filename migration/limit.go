package migration

import (
	"context"

	"golang.org/x/time/rate"
)

// limiterBurst is how many bytes may go out at once under a bandwidth limit.
const limiterBurst = batchBytes

// limiter paces what is sent. A nil *limiter does not.
type limiter struct{ r *rate.Limiter }

// newLimiter paces to bytes a second; 0 is no limit.
func newLimiter(bytes uint64) *limiter {
	if bytes == 0 {
		return nil
	}
	return &limiter{rate.NewLimiter(rate.Limit(bytes), limiterBurst)}
}

// wait returns when n more bytes may go out, or when ctx has ended, with its
// cause.
func (l *limiter) wait(ctx context.Context, n int) error {
	if l == nil {
		return nil
	}
	for n > 0 {
		step := min(n, limiterBurst)
		if err := l.r.WaitN(ctx, step); err != nil {
			// It says beforehand that there will not be enough time. What
			// stops whoever waits is the deadline itself.
			<-ctx.Done()
			return context.Cause(ctx)
		}
		n -= step
	}
	return nil
}
