package migration

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// ConcurrentSnapshotter is a Snapshotter whose state has nothing to do with that
// of its neighbours in the list that are of this kind too, such as one vCPU among
// others: they are saved, and loaded, several at once. With many vCPUs that is
// most of the downtime.
type ConcurrentSnapshotter interface {
	Snapshotter
	// Concurrent does nothing. It marks the type.
	Concurrent()
}

// runs cuts the list where devices that can be saved and loaded at once begin
// and end: each run is one device, or several such neighbours.
func runs(devices []Snapshotter) [][]Snapshotter {
	var all [][]Snapshotter
	before := false
	for i, d := range devices {
		_, now := d.(ConcurrentSnapshotter)
		if now && before {
			last := &all[len(all)-1]
			*last = devices[i-len(*last) : i+1]
		} else {
			all = append(all, devices[i:i+1])
		}
		before = now
	}
	return all
}

// atOnce does something for each of n, as many at once as there are processors.
// After an error no more are begun. The error is that of the lowest i of those
// that were done: what a caller would have met first, one after the other.
func atOnce(n int, do func(i int) error) error {
	if n == 1 {
		return do(0)
	}
	errs := make([]error, n)
	var next atomic.Int64
	var failed atomic.Bool
	var working sync.WaitGroup
	for range min(n, runtime.GOMAXPROCS(0)) {
		working.Go(func() {
			for !failed.Load() {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if errs[i] = do(i); errs[i] != nil {
					failed.Store(true)
				}
			}
		})
	}
	working.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
