package migration

import (
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"sync"
)

// collector is what keeps Go's garbage collector away from a guest that stands
// still or waits for pages: at work, it takes every CPU that is idle for a
// millisecond or more, from the threads of this side, and where both sides are one
// machine from the other's. Without it the tail of the downtime is gone (see
// docs/benchmarks.md). Hardly anything is allocated in that time.
//
// It is the whole program's, which may have several migrations under way.
var collector struct {
	mu      sync.Mutex
	holders int
	percent int   // GOGC, as it was
	limit   int64 // GOMEMLIMIT, as it was
}

// collectorSlack is how many bytes may become garbage before it is collected all
// the same.
const collectorSlack = 64 << 20

// holdCollector has nothing be collected until release, which may be called more
// than once. It collects what there is first, so that none is under way later, and
// takes as long as that does.
func holdCollector() (release func()) {
	c := &collector
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.holders++; c.holders == 1 {
		c.percent = debug.SetGCPercent(-1)
		c.limit = debug.SetMemoryLimit(-1)
		runtime.GC()
		debug.SetMemoryLimit(min(c.limit, memoryInUse()+collectorSlack))
	}
	return sync.OnceFunc(func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.holders--; c.holders == 0 {
			debug.SetMemoryLimit(c.limit)
			debug.SetGCPercent(c.percent)
		}
	})
}

// memoryInUse is what GOMEMLIMIT counts, in bytes.
func memoryInUse() int64 {
	sample := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(sample)
	return int64(sample[0].Value.Uint64() - sample[1].Value.Uint64())
}
